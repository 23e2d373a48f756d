//! A folder that is the agent's alone: no link, its own, and writable by nobody else. What is in it is reached through it, wherever its path
//! leads by then.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;

/// Files that are looked at: more were not made here.
const MAX_FILES: usize = 1 << 20;

/// Why a folder is not used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("{path} cannot be used")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is a symbolic link, or no folder: name the folder itself")]
    Link { path: PathBuf },
    #[error("{path} belongs to user {owner}, and the agent is user {own}: what is in it could be replaced")]
    Foreign { path: PathBuf, owner: u32, own: u32 },
    #[error("{path} can be written to by others (mode {mode:o}): chmod go-w")]
    Open { path: PathBuf, mode: u32 },
    #[error("{path} is used by another agent")]
    Used { path: PathBuf },
}

/// Such a folder, open.
#[derive(Debug)]
pub struct Folder {
    dir: File,
    named: PathBuf,
}

impl Folder {
    /// Makes it, readable by its owner alone, where it is not there yet.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let io = |source| FolderError::Io { path: path.into(), source };
        DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(path)
            .or_else(|error| if is_there(&error) { Ok(()) } else { Err(io(error)) })?;
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let dir = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|error| match error.raw_os_error() {
            Some(libc::ELOOP | libc::ENOTDIR) => FolderError::Link { path: path.into() },
            _ => io(error),
        })?;
        let metadata = dir.metadata().map_err(io)?;
        let own = geteuid().as_raw();
        if metadata.uid() != own {
            return Err(FolderError::Foreign { path: path.into(), owner: metadata.uid(), own });
        }
        if metadata.mode() & 0o022 != 0 {
            return Err(FolderError::Open { path: path.into(), mode: metadata.mode() & 0o7777 });
        }
        Ok(Self { dir, named: path.into() })
    }

    /// Keeps other agents out for as long as this one lives.
    pub fn lock(&self) -> Result<(), FolderError> {
        self.dir.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => FolderError::Used { path: self.named.clone() },
            fs::TryLockError::Error(source) => FolderError::Io { path: self.named.clone(), source },
        })
    }

    /// What leads to something in it, through what is open.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        Path::new("/proc/self/fd").join(self.dir.as_raw_fd().to_string()).join(name)
    }

    /// Makes a file that is not there yet.
    pub fn create(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(self.path(name))
    }

    /// Opens a file, which must be one.
    pub fn read(&self, name: &str) -> io::Result<File> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(self.path(name))?;
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no file")) }
    }

    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    pub fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    /// The files in it whose names are text, with their sizes.
    pub fn files(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(self.path(""))?.take(MAX_FILES) {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
                files.push((name, metadata.len()));
            }
        }
        Ok(files)
    }
}

fn is_there(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AlreadyExists
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Check that a folder is made for its owner alone, locked once, and that files in it are new ones and followed through no link.
    #[test]
    fn own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/spool");
        let folder = Folder::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        folder.lock().unwrap();
        assert!(matches!(Folder::open(&path).unwrap().lock(), Err(FolderError::Used { .. })));
        folder.create("x").unwrap();
        assert_eq!(folder.create("x").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        symlink("/etc/passwd", path.join("link")).unwrap();
        assert!(folder.create("link").is_err() && folder.read("link").is_err());
        assert_eq!(folder.files().unwrap(), [("x".to_owned(), 0)]);
        // Wherever its path leads by now.
        fs::rename(&path, dir.path().join("moved")).unwrap();
        symlink("/", &path).unwrap();
        folder.create("y").unwrap();
        assert!(dir.path().join("moved/y").is_file());
    }

    /// Check that a link, what others may write to, and what belongs to somebody else are refused.
    #[test]
    fn refused() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::create_dir(&real).unwrap();
        mode(&real, 0o755);
        Folder::open(&real).unwrap();
        symlink(&real, &link).unwrap();
        assert!(matches!(Folder::open(&link), Err(FolderError::Link { .. })));
        for open in [0o777, 0o1777, 0o775] {
            mode(&real, open);
            assert!(matches!(Folder::open(&real), Err(FolderError::Open { .. })), "{open:o}");
        }
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(Folder::open(&file).is_err());
        if geteuid().is_root() {
            mode(&real, 0o755);
            std::os::unix::fs::chown(&real, Some(65534), None).unwrap();
            assert!(matches!(Folder::open(&real), Err(FolderError::Foreign { owner: 65534, .. })));
        }
    }
}
