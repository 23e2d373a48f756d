//! A file read in blocks: whoever parses symbols asks for a few bytes at a time, and each asking would be two system calls.
//!
//! Files are not mapped: a program that we do not trust may cut its file meanwhile, which would end us. Nor is more than [`MAX_BYTES`] of one handed out:
//! what a parser asks for it asks by sizes that the file itself tells, and a sparse file can be as large as it likes.

use std::{
    borrow::Borrow,
    cell::Cell,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
    os::unix::fs::FileExt,
};

use object::{ReadCache, ReadRef};

const BLOCK: usize = 16 << 10;
/// Blocks that are kept: half a megabyte, more than the names of most libraries.
const KEPT: usize = 32;
/// No file reaches so far.
const MAX_OFFSET: u64 = 1 << 62;

/// What a parser may ask of one file: the tables of symbols and their names are most of it, 150 MB in a browser engine.
const MAX_BYTES: u64 = 384 << 20;

/// A file for a parser of the crate `object`, which keeps what it has read until it is done.
pub struct Parts<F: Borrow<File>> {
    cache: ReadCache<Blocks<F>>,
    left: Cell<u64>,
}

impl<F: Borrow<File>> Parts<F> {
    pub fn of(file: F) -> Self {
        Self { cache: ReadCache::new(Blocks::of(file)), left: Cell::new(MAX_BYTES) }
    }

    fn charge(&self, bytes: u64) -> Result<(), ()> {
        self.left.set(self.left.get().checked_sub(bytes).ok_or(())?);
        Ok(())
    }
}

impl<'a, F: Borrow<File>> ReadRef<'a> for &'a Parts<F> {
    fn len(self) -> Result<u64, ()> {
        (&self.cache).len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        self.charge(size)?;
        (&self.cache).read_bytes_at(offset, size)
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'a [u8], ()> {
        let found = (&self.cache).read_bytes_at_until(range, delimiter)?;
        self.charge(found.len() as u64)?;
        Ok(found)
    }
}

/// Keeps the newest of the blocks that share a place.
struct Blocks<F> {
    file: F,
    at: u64,
    kept: [Block; KEPT],
}

/// What the file has from `start` on, up to [`BLOCK`] bytes.
#[derive(Default)]
struct Block {
    start: u64,
    bytes: Vec<u8>,
}

impl<F: Borrow<File>> Blocks<F> {
    fn of(file: F) -> Self {
        Self { file, at: 0, kept: Default::default() }
    }
}

impl<F: Borrow<File>> Read for Blocks<F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at > MAX_OFFSET {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (number, skipped) = (self.at / BLOCK as u64, (self.at % BLOCK as u64) as usize);
        let block = &mut self.kept[number as usize % KEPT];
        if block.start != self.at - skipped as u64 || block.bytes.len() <= skipped {
            block.start = self.at - skipped as u64;
            block.fill(self.file.borrow())?;
        }
        let read = Read::read(&mut block.bytes.get(skipped..).unwrap_or_default(), into)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Block {
    fn fill(&mut self, file: &File) -> io::Result<()> {
        self.bytes.resize(BLOCK, 0);
        let mut filled = 0;
        while filled < BLOCK {
            match file.read_at(&mut self.bytes[filled..], self.start + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.bytes.clear();
                    return Err(error);
                }
            }
        }
        self.bytes.truncate(filled);
        Ok(())
    }
}

impl<F: Borrow<File>> Seek for Blocks<F> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::Current(by) => self.at.checked_add_signed(by).ok_or(io::ErrorKind::InvalidInput)?,
            SeekFrom::End(by) => {
                self.file.borrow().metadata()?.len().checked_add_signed(by).ok_or(io::ErrorKind::InvalidInput)?
            }
        };
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// Check that any part of a file is read as it is: within a block, over the border of two, behind the end, and large.
    #[test]
    fn every_part() {
        let bytes: Vec<u8> = (0..(KEPT as u32 + 3) * BLOCK as u32 + 100).map(|index| (index * 7 / 3) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let mut blocks = Blocks::of(file);
        let end = bytes.len();
        for (at, len) in [
            (0, 10),
            (BLOCK - 5, 10),
            (5, 10),
            (KEPT * BLOCK, BLOCK),
            (1, 2 * BLOCK),
            (end - 3, 3),
            (end - BLOCK - 1, 101),
            (0, end),
        ] {
            let mut read = vec![0; len];
            blocks.seek(SeekFrom::Start(at as u64)).unwrap();
            blocks.read_exact(&mut read).unwrap();
            assert!(read == bytes[at..at + len], "{len} at {at}");
        }
        assert_eq!(blocks.read(&mut [0; 8]).unwrap(), 0);
        assert_eq!(blocks.seek(SeekFrom::End(-4)).unwrap(), end as u64 - 4);
        assert_eq!(blocks.read(&mut [0; 8]).unwrap(), 4);
        blocks.seek(SeekFrom::Start(u64::MAX)).unwrap();
        assert!(blocks.read(&mut [0; 8]).is_err());
    }

    /// Check that a sparse file of a hundred gigabytes is not read as a whole because its header says so.
    #[test]
    fn too_much() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(100 << 30).unwrap();
        let parts = Parts::of(&file);
        assert_eq!((&parts).len(), Ok(100 << 30));
        assert!((&parts).read_bytes_at(0, 99 << 30).is_err());
        assert_eq!((&parts).read_bytes_at(50 << 30, 4), Ok(&[0; 4][..]));
        assert!((&parts).read_bytes_at(0, MAX_BYTES - 3).is_err(), "with what was read before it is too much");
    }
}
