//! A cgroup of the unified hierarchy: its id as BPF knows it, and who is in it.
//!
//! Source: cgroups(7); the id of a cgroup is the inode number of its directory (`kernel/cgroup/cgroup.c`, `cgroup_id`).

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use crate::id::Tgid;

/// Directories below one cgroup that are looked at.
const MAX_GROUPS: usize = 100_000;

/// Why a path names no cgroup that can be followed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("no cgroup file system of version 2 is mounted here: name processes by --pid or --exe")]
    NoHierarchy,
    #[error("{path} is no cgroup")]
    Absent {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is no cgroup of the unified hierarchy (version 2), which is at {mount}")]
    NotUnified { path: PathBuf, mount: PathBuf },
}

/// A cgroup that exists.
#[derive(Debug)]
pub struct Cgroup {
    directory: PathBuf,
    pub id: u64,
    /// Levels below the root of the hierarchy.
    pub level: u32,
}

impl Cgroup {
    /// By its directory, or by its path within the hierarchy as `/proc/PID/cgroup` gives it.
    pub fn open(path: &Path) -> Result<Self, CgroupError> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let (mount, root) = mount_point(&mounts).ok_or(CgroupError::NoHierarchy)?;
        let within = mount.join(path.strip_prefix("/").unwrap_or(path));
        let chosen = if !path.starts_with(&mount) && within.is_dir() { &within } else { path };
        let absent = |source| CgroupError::Absent { path: path.into(), source };
        let directory = fs::canonicalize(chosen).map_err(absent)?;
        let metadata = fs::metadata(&directory).map_err(absent)?;
        let unified = statfs(&directory).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC);
        let Some(below) = directory.strip_prefix(&mount).ok().filter(|_| unified && metadata.is_dir()) else {
            return Err(CgroupError::NotUnified { path: path.into(), mount });
        };
        let level = (depth(&root) + depth(below)) as u32;
        Ok(Self { id: metadata.ino(), level, directory })
    }

    /// The processes that are in it or below it now.
    pub fn processes(&self) -> Vec<Tgid> {
        let mut found = Vec::new();
        let mut directories = vec![self.directory.clone()];
        let mut looked_at = 0;
        while let Some(directory) = directories.pop().filter(|_| looked_at < MAX_GROUPS) {
            looked_at += 1;
            // One that was removed meanwhile has nobody in it.
            let members = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
            found.extend(members.lines().filter_map(|line| line.parse().ok()).filter(|tgid| *tgid != 0).map(Tgid));
            let below = fs::read_dir(&directory).into_iter().flatten().flatten();
            directories.extend(below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()));
        }
        found
    }
}

fn depth(path: &Path) -> usize {
    path.components().filter(|part| matches!(part, Component::Normal(_))).count()
}

/// Where the unified hierarchy is mounted, and which part of it: proc_pid_mountinfo(5), fields 5 and 4.
fn mount_point(mounts: &str) -> Option<(PathBuf, PathBuf)> {
    mounts.lines().find_map(|line| {
        let (fields, of) = line.split_once(" - ")?;
        let mut fields = fields.split(' ').skip(3);
        let (root, mount) = (fields.next()?, fields.next()?);
        of.starts_with("cgroup2 ").then(|| (PathBuf::from(mount), PathBuf::from(root)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the unified hierarchy is found among the mounts, with the part of it that is mounted.
    #[test]
    fn mounts() {
        let mounts = "29 25 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n\
                      30 29 0:27 /a/b /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup rw\n";
        assert_eq!(mount_point(mounts), Some(("/sys/fs/cgroup/unified".into(), "/a/b".into())));
        assert_eq!(mount_point("29 25 0:26 / /proc rw - proc proc rw\nnonsense"), None);
        assert_eq!(depth(Path::new("/a/b")), 2);
        assert_eq!(depth(Path::new("/")), 0);
    }

    /// Check that what is no cgroup is refused by name.
    #[test]
    fn no_cgroup() {
        for path in ["/tmp", "/nowhere/at/all"] {
            let error = Cgroup::open(Path::new(path)).unwrap_err();
            assert!(matches!(error, CgroupError::NoHierarchy) || error.to_string().contains(path), "{error}");
        }
    }
}
