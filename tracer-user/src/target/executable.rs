//! Which processes run a file.

use std::{
    ffi::OsString,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
};

use super::procfs;
use crate::id::Tgid;

/// A file whose processes are looked for.
pub struct Executable {
    name: OsString,
    is: Identity,
}

/// What tells a file from others. Containers of one image run the same file through mounts of their own, where device and inode may
/// be others; name, size and time of change are not.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }

    fn same_contents(&self, other: &Self) -> bool {
        (self.size, self.modified) == (other.size, other.modified)
    }
}

impl Executable {
    /// The file that is now at `path`.
    pub fn at(path: &Path) -> io::Result<Self> {
        // Through links, as the kernel names what is executed.
        let path = fs::canonicalize(path)?;
        let metadata = fs::metadata(&path)?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        Ok(Self { name: path.file_name().unwrap_or_default().to_owned(), is: Identity::of(&metadata) })
    }

    /// The processes that run it now.
    pub fn processes(&self) -> io::Result<Vec<Tgid>> {
        Ok(procfs::all()?.into_iter().filter(|tgid| self.is_run_by(*tgid)).collect())
    }

    fn is_run_by(&self, tgid: Tgid) -> bool {
        let link = format!("/proc/{tgid}/exe");
        let Ok(metadata) = fs::metadata(&link) else { return false };
        let found = Identity::of(&metadata);
        if (found.device, found.inode) == (self.is.device, self.is.inode) {
            return true;
        }
        let same_name = fs::read_link(&link).is_ok_and(|path| path.file_name() == Some(&self.name));
        same_name && self.is.same_contents(&found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the processes of a file are found, through a link too, and that a folder is none.
    #[test]
    fn own_processes() {
        let own = fs::canonicalize("/proc/self/exe").unwrap();
        assert!(Executable::at(&own).unwrap().processes().unwrap().contains(&Tgid(std::process::id())));
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&own, &link).unwrap();
        assert!(Executable::at(&link).unwrap().is_run_by(Tgid(std::process::id())));
        assert!(Executable::at(dir.path()).is_err());
        assert!(!Executable::at(Path::new("/bin/true")).unwrap().is_run_by(Tgid(std::process::id())));
    }
}
