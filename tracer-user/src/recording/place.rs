//! Where an output goes: a folder that is held open, and a name in it.
//!
//! A tool that root runs must not write where a stranger's symbolic link leads. So a path is walked a step at a time (open(2), `O_PATH` and
//! `O_NOFOLLOW`), and a link is gone through only if it belongs to us, to root, or to who called sudo. What was found is held by its
//! descriptor: what somebody puts in its place meanwhile does not matter.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, openat, readlinkat},
    libc::S_IFMT,
    sys::{
        stat::{FileStat, Mode, SFlag, fstat},
        statfs::{PROC_SUPER_MAGIC, fstatfs},
    },
    unistd::{Uid, geteuid, setfsuid},
};

/// Links on one path: what the kernel goes through (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// Why nothing is written there.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error(
        "{path} is a symbolic link of another user's (uid {owner}); lifetrace does not write through it: name the place itself"
    )]
    Link { path: PathBuf, owner: u32 },
    #[error(
        "{path} belongs to another user (uid {owner}), who could read what is written there: remove it, or name another place"
    )]
    Foreign { path: PathBuf, owner: u32 },
    #[error(
        "{path} goes through another process's root, and there through a symbolic link, which may lead anywhere: name the place itself"
    )]
    Elsewhere { path: PathBuf },
    #[error("it is a directory")]
    Directory,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Errno> for PlaceError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// A name in a folder.
#[derive(Debug)]
pub struct Place {
    folder: OwnedFd,
    name: OsString,
}

/// What becomes of a link at the path's end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AtEnd {
    Keep,
    GoThrough,
}

impl Place {
    /// The place that a path names, its last part as it is.
    pub fn named(path: &Path) -> Result<Self, PlaceError> {
        walk(path, AtEnd::Keep)
    }

    /// The place that a path leads to.
    pub fn behind(path: &Path) -> Result<Self, PlaceError> {
        walk(path, AtEnd::GoThrough)
    }

    /// The folder, for as long as this lives.
    pub fn folder(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.folder.as_raw_fd()).into()
    }

    /// What is there, or will be, for as long as this lives.
    pub fn path(&self) -> PathBuf {
        self.folder().join(&self.name)
    }
}

/// Refuses a file that is another user's.
pub fn expect_own(file: &File, path: &Path) -> Result<(), PlaceError> {
    let owner = fstat(file)?.st_uid;
    if is_trusted(owner) { Ok(()) } else { Err(PlaceError::Foreign { path: path.into(), owner }) }
}

/// Root, we, whose rights we have for files, and who called sudo.
fn is_trusted(owner: u32) -> bool {
    let effective = geteuid();
    let called = || std::env::var("SUDO_UID").ok()?.parse().ok();
    // A number that is no user's changes nothing and has the one that is set told: setfsuid(2).
    let for_files = setfsuid(Uid::from_raw(u32::MAX));
    [Uid::from_raw(0), effective, for_files].contains(&Uid::from_raw(owner)) || (effective.is_root() && called() == Some(owner))
}

fn walk(path: &Path, at_end: AtEnd) -> Result<Place, PlaceError> {
    // What is still to be gone, the next part last.
    let mut ahead = Vec::new();
    let mut folder = enter(path, &mut ahead)?;
    let (mut links, mut elsewhere) = (0, false);
    while let Some(part) = ahead.pop() {
        let is_last = ahead.is_empty();
        let found = match openat(&folder, &*part, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty()) {
            Err(Errno::ENOENT) if is_last => return place(folder, part),
            found => found?,
        };
        let stat = fstat(&found)?;
        if !is(&stat, SFlag::S_IFLNK) {
            if is_last {
                return place(folder, part);
            }
            folder = found;
            continue;
        }
        if is_last && at_end == AtEnd::Keep {
            return place(folder, part);
        }
        // Who is root there need not be root here.
        if elsewhere {
            return Err(PlaceError::Elsewhere { path: path.into() });
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(Errno::ELOOP.into());
        }
        let target = readlinkat(&found, "")?;
        let (absolute, in_proc) = (Path::new(&target).is_absolute(), fstatfs(&found)?.filesystem_type() == PROC_SUPER_MAGIC);
        // `/proc/self/fd/1` may lead to what has no path: pipes, sockets.
        if is_last && !absolute && in_proc {
            return place(folder, part);
        }
        if !is_trusted(stat.st_uid) {
            return Err(PlaceError::Link { path: path.into(), owner: stat.st_uid });
        }
        if absolute && in_proc && !is_last {
            // `/proc/PID/root` leads to where another process has its root, not to what it reads as (proc_pid_root(5)).
            folder = openat(&folder, &*part, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
            elsewhere = true;
        } else if absolute {
            folder = enter(Path::new(&target), &mut ahead)?;
        } else {
            push(Path::new(&target), &mut ahead);
        }
    }
    Err(PlaceError::Directory)
}

/// Where a path begins; its parts are put ahead.
fn enter(path: &Path, ahead: &mut Vec<OsString>) -> Result<OwnedFd, PlaceError> {
    push(path, ahead);
    let begin = if path.is_absolute() { "/" } else { "." };
    Ok(openat(AT_FDCWD, begin, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
}

fn push(path: &Path, ahead: &mut Vec<OsString>) {
    let parts = path.components().rev().filter(|part| !matches!(part, Component::RootDir | Component::Prefix(_)));
    ahead.extend(parts.map(|part| part.as_os_str().to_owned()));
}

fn place(folder: OwnedFd, name: OsString) -> Result<Place, PlaceError> {
    if name == OsStr::new("..") || name == OsStr::new(".") {
        return Err(PlaceError::Directory);
    }
    Ok(Place { folder, name })
}

fn is(stat: &FileStat, kind: SFlag) -> bool {
    stat.st_mode & S_IFMT == kind.bits()
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{lchown, symlink},
    };

    use super::*;

    /// Check that our own links are gone through, over folders and at the end, to what is there and to what is not there yet.
    #[test]
    fn own_links() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("real")).unwrap();
        fs::write(at("real/file"), "old").unwrap();
        symlink("real", at("folder")).unwrap();
        symlink(at("folder/file"), at("absolute")).unwrap();
        symlink("folder/../real/new", at("dangling")).unwrap();
        for (path, leads) in
            [("folder/file", "real/file"), ("absolute", "real/file"), ("dangling", "real/new"), ("real/new", "real/new")]
        {
            let place = Place::behind(&at(path)).unwrap();
            assert_eq!(
                fs::canonicalize(place.folder()).unwrap().join(&place.name),
                fs::canonicalize(dir.path()).unwrap().join(leads)
            );
        }
        assert_eq!(Place::named(&at("absolute")).unwrap().name, "absolute");
        fs::write(Place::behind(&at("dangling")).unwrap().path(), "new").unwrap();
        assert_eq!(fs::read_to_string(at("real/new")).unwrap(), "new");
    }

    /// Check that links of /proc lead to the folder itself, whatever is at the path that they read as by now.
    #[test]
    fn by_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("folder");
        fs::create_dir(&path).unwrap();
        let open = File::open(&path).unwrap();
        fs::rename(&path, dir.path().join("moved")).unwrap();
        fs::create_dir(&path).unwrap();
        fs::remove_dir(dir.path().join("moved")).unwrap();
        let behind = |file: &File, name: &str| Place::behind(Path::new(&format!("/proc/self/fd/{}/{name}", file.as_raw_fd())));
        let place = behind(&open, "file").unwrap();
        assert_eq!(fstat(&place.folder).unwrap().st_ino, fstat(&open).unwrap().st_ino);
        symlink("/etc", path.join("link")).unwrap();
        let there = File::open(&path).unwrap();
        assert!(behind(&there, "file").is_ok());
        for name in ["link", "link/file"] {
            assert!(matches!(behind(&there, name), Err(PlaceError::Elsewhere { .. })), "{name}");
        }
    }

    /// Check that links in a circle, paths through files, and folders are errors.
    #[test]
    fn no_places() {
        let dir = tempfile::tempdir().unwrap();
        symlink("circle", dir.path().join("circle")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        for path in ["circle", "file/below", "absent/below"] {
            assert!(matches!(Place::behind(&dir.path().join(path)), Err(PlaceError::Io(_))), "{path}");
        }
        for path in ["/", "..", "."] {
            assert!(matches!(Place::behind(Path::new(path)), Err(PlaceError::Directory)), "{path}");
        }
        assert!(Place::behind(Path::new("")).is_err());
    }

    /// Check that a stranger's links are refused, and a stranger's file is told apart from our own.
    #[test]
    fn strangers() {
        if !geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("real")).unwrap();
        for (link, path) in [("folder", "folder/file"), ("last", "last")] {
            symlink("real", at(link)).unwrap();
            assert!(Place::behind(&at(path)).is_ok());
            lchown(at(link), Some(4711), None).unwrap();
            assert!(matches!(Place::behind(&at(path)), Err(PlaceError::Link { owner: 4711, .. })), "{path}");
        }
        assert!(Place::named(&at("last")).is_ok(), "who does not go through a link needs no trust in it");
        let file = File::create(at("file")).unwrap();
        assert!(expect_own(&file, &at("file")).is_ok());
        lchown(at("file"), Some(4711), None).unwrap();
        assert!(matches!(expect_own(&file, &at("file")), Err(PlaceError::Foreign { owner: 4711, .. })));
    }
}
