//! The folder that batches wait in: ours alone, one file a batch, and one that says which number comes next.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::{
    super::batch::{Batch, Signal},
    file,
};
use crate::agent::folder::{self, FolderError};

/// The number of the next batch, where none waits whose name would tell.
const NEXT: &str = "next";
/// What is being written is called so, and whoever finds it throws it away.
const UNFINISHED: &str = "new";

/// A batch that waits here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kept {
    pub number: u64,
    pub bytes: u64,
    pub signal: Signal,
}

/// The folder, held.
#[derive(Debug)]
pub struct Folder {
    dir: folder::Folder,
}

/// What was found in it.
#[derive(Debug)]
pub struct Found {
    pub folder: Folder,
    /// The oldest first.
    pub kept: Vec<Kept>,
    /// No batch has had this number or a higher one.
    pub next: u64,
}

impl Folder {
    /// Makes it if it is not there. One that others can write to, or that another agent holds, is refused.
    pub fn open(path: &Path) -> Result<Found, FolderError> {
        let dir = folder::Folder::open(path)?;
        dir.lock()?;
        let folder = Self { dir };
        let kept = folder.list().map_err(|source| FolderError::Io { path: path.to_owned(), source })?;
        let told = folder.read_next().unwrap_or(1);
        let next = kept.last().map_or(told, |last| told.max(last.number.saturating_add(1)));
        Ok(Found { folder, kept, next })
    }

    fn list(&self) -> io::Result<Vec<Kept>> {
        let mut kept = Vec::new();
        for (name, bytes) in self.dir.files()? {
            if name == UNFINISHED {
                self.dir.remove(&name)?;
                continue;
            }
            kept.extend(file::named(&name).map(|(number, signal)| Kept { number, bytes, signal }));
        }
        kept.sort_unstable();
        Ok(kept)
    }

    fn place(&self, kept: &Kept) -> PathBuf {
        self.dir.path(file::name(kept.number, kept.signal))
    }

    /// Writes a batch; whoever is killed meanwhile leaves all of it or nothing.
    pub fn write(&self, batch: &Batch) -> io::Result<Kept> {
        let bytes = file::pack(batch);
        let kept = Kept { number: batch.number, bytes: bytes.len() as u64, signal: batch.signal };
        self.put(&self.place(&kept), &bytes)?;
        Ok(kept)
    }

    fn put(&self, place: &Path, bytes: &[u8]) -> io::Result<()> {
        let unfinished = self.dir.path(UNFINISHED);
        let written = || -> io::Result<()> {
            private().create(true).truncate(true).open(&unfinished)?.write_all(bytes)?;
            fs::rename(&unfinished, place)
        };
        written().inspect_err(|_| drop(fs::remove_file(&unfinished)))
    }

    /// `None`: it is not what was written.
    pub fn read(&self, kept: &Kept) -> io::Result<Option<Batch>> {
        let mut bytes = Vec::new();
        let file = self.dir.read(&file::name(kept.number, kept.signal))?;
        file.take(file::MAX_FILE + 1).read_to_end(&mut bytes)?;
        let is_it = |batch: &Batch| (batch.number, batch.signal) == (kept.number, kept.signal);
        Ok(file::unpack(&bytes).filter(is_it))
    }

    pub fn remove(&self, kept: &Kept) -> io::Result<()> {
        fs::remove_file(self.place(kept))
    }

    /// Notes the number of the next batch, before the last file goes.
    pub fn write_next(&self, next: u64) -> io::Result<()> {
        self.put(&self.dir.path(NEXT), format!("{next}\n").as_bytes())
    }

    fn read_next(&self) -> Option<u64> {
        let mut text = String::new();
        let file = self.dir.read(NEXT).ok()?;
        file.take(32).read_to_string(&mut text).ok()?;
        text.trim().parse().ok()
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options
}
