//! The file of a Go program, in memory while it is asked and put away when it is not: then it is read again. Where many programs are
//! followed for weeks, their files would be most of what that takes.

use std::{
    fs::{File, Metadata},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC, fstatfs};

use super::elf::Elf;

/// Asked by nobody for so long, it is put away: the first time, and at most. Each time that it has to be read again it is kept twice as
/// long.
const PATIENCE: [Duration; 2] = [Duration::from_secs(15), Duration::from_secs(960)];

/// What a file must not have changed in to be the one that was read. One that is replaced by a newer one stays what it is for those who run
/// it, but loses its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    file: [u64; 3],
    written: [i64; 2],
}

impl Seen {
    pub fn of(metadata: &Metadata) -> Self {
        let file = [metadata.dev(), metadata.ino(), metadata.size()];
        Self { file, written: [metadata.mtime(), metadata.mtime_nsec()] }
    }
}

/// Where the file can be had again: a descriptor of it for as long as it is followed.
pub struct Source {
    file: File,
    seen: Seen,
}

impl Source {
    /// `None` where a look at it may take for ever, because it is somewhere else.
    pub fn of(file: &File, seen: Seen) -> io::Result<Option<Self>> {
        let system = fstatfs(file)?.filesystem_type();
        let local = [BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC].contains(&system);
        Ok(if local { Some(Self { file: file.try_clone()?, seen }) } else { None })
    }

    fn read(&self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, 0)?;
        // Afterwards: what is written while it is read shows as well.
        if Seen::of(&self.file.metadata()?) == self.seen { Ok(bytes) } else { Err(io::Error::other("it has changed since")) }
    }
}

/// A file that was taken apart.
pub struct Shelf {
    /// All but the file's bytes.
    empty: Elf,
    len: usize,
    held: Mutex<Held>,
}

struct Held {
    elf: Option<Arc<Elf>>,
    /// `None`: it never was a file, or nobody may put it away, or it cannot be read any more.
    source: Option<Arc<Source>>,
    used: Instant,
    patience: Duration,
}

impl Shelf {
    pub fn new(elf: Elf) -> Self {
        let (empty, len) = (elf.emptied(), elf.len());
        let held = Held { elf: Some(Arc::new(elf)), source: None, used: Instant::now(), patience: PATIENCE[0] };
        Self { empty, len, held: Mutex::new(held) }
    }

    /// What is known of the file without its bytes.
    pub fn outline(&self) -> &Elf {
        &self.empty
    }

    /// From here on it may be put away, for it can be had again there.
    pub fn lean_on(&self, source: Source) {
        self.held().source = Some(Arc::new(source));
    }

    /// It is there what another one leans on.
    pub fn lean_as(&self, fresh: &Self) {
        let source = fresh.held().source.take();
        self.held().source = source;
    }

    /// It stays as it is, and the descriptor is given back.
    pub fn let_go(&self) {
        self.held().source = None;
    }

    /// The file, read again if need be; `None`: it is not what it was any more.
    pub fn elf(&self) -> Option<Arc<Elf>> {
        let source = {
            let mut held = self.held();
            held.used = Instant::now();
            if let Some(elf) = &held.elf {
                return Some(Arc::clone(elf));
            }
            Arc::clone(held.source.as_ref()?)
        };
        // Nobody waits for a disk who only wants to tidy up.
        let read = source.read(self.len);
        let mut held = self.held();
        match read {
            Ok(bytes) => {
                held.elf = Some(Arc::new(self.empty.filled(bytes)));
                held.patience = (held.patience * 2).min(PATIENCE[1]);
            }
            Err(error) => {
                held.source = None;
                tracing::warn!("a program's file cannot be read again, so nothing new of it has a name: {error}");
            }
        }
        held.elf.clone()
    }

    /// Puts it away if nobody has asked for a while.
    pub fn tidy(&self, now: Instant) {
        let Ok(mut held) = self.held.try_lock() else { return };
        if held.source.is_some() && now.saturating_duration_since(held.used) >= held.patience {
            held.elf = None;
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::golang::{GoBinary, seed_tests::seed};

    fn later(time: Duration) -> Instant {
        Instant::now() + time
    }

    fn written(path: &Path) -> GoBinary {
        fs::write(path, seed()).unwrap();
        GoBinary::open_to_keep(&File::open(path).unwrap()).unwrap()
    }

    /// Check that a file that nobody asks goes from memory, later each time, and that its answers are the same when it is asked again.
    #[test]
    fn put_away() {
        let dir = tempfile::tempdir().unwrap();
        let binary = written(&dir.path().join("program"));
        let main = binary.function("main.main").unwrap();
        let there = || binary.shelf.held().elf.is_some();
        for patience in [15, 30, 60] {
            binary.shelf.tidy(later(Duration::from_secs(patience / 2)));
            assert!(there());
            binary.shelf.tidy(later(Duration::from_secs(patience + 1)));
            assert!(!there() && binary.shelf.held().patience == Duration::from_secs(patience));
            assert_eq!(binary.function("main.main"), Some(main));
            assert!(there());
        }
    }

    /// Check that one of which only the time has changed is asked again once it was read anew, and that who is let go of stays as it is.
    #[test]
    fn touched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        let binary = written(&path);
        binary.tidy(later(PATIENCE[1] * 2));
        File::open(&path).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        binary.stays(&GoBinary::open_to_keep(&File::open(&path).unwrap()).unwrap());
        assert!(binary.function("main.main").is_some());
        binary.let_go();
        binary.tidy(later(PATIENCE[1] * 2));
        assert!(binary.shelf.held().elf.is_some());
    }

    /// Check that a file that was replaced is asked, one that was written to is not, and that nothing is put away that never was a file.
    #[test]
    fn changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        let binary = written(&path);
        let replaced = written(&dir.path().join("other"));
        fs::remove_file(dir.path().join("other")).unwrap();
        replaced.shelf.tidy(later(PATIENCE[1] * 2));
        assert!(replaced.function("main.main").is_some());
        binary.shelf.tidy(later(PATIENCE[1] * 2));
        fs::OpenOptions::new().append(true).open(&path).unwrap().set_len(100).unwrap();
        assert_eq!(binary.function("main.main"), None);
        assert!(binary.shelf.held().source.is_none());
        let bytes = GoBinary::from_bytes(seed()).unwrap();
        bytes.shelf.tidy(later(PATIENCE[1] * 2));
        assert!(bytes.function("main.main").is_some());
    }
}
