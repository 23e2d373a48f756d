//! Somebody else's memory, read in many pieces at once.

use std::ops::Range;

/// Pieces that are this close are read as one: a gap costs less than another piece.
const MAX_GAP: u64 = 2048;
/// No piece grows beyond this.
const MAX_PIECE: u64 = 1 << 20;

/// Bytes at an address of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub address: u64,
    pub len: usize,
}

/// Why nothing can be read at all. A piece that is not mapped is no such failure.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    #[error("the kernel does not let us read its memory")]
    Forbidden,
    #[error("the process ended")]
    Gone,
    #[error("its memory cannot be read")]
    Io(#[from] std::io::Error),
}

/// The memory of a process.
pub trait Memory {
    /// Reads `pieces` into `buffer`, which holds them one behind the other. Answers how many bytes of each were read, counted from
    /// its start: fewer than asked for where it is not mapped.
    fn read(&self, pieces: &[Piece], buffer: &mut [u8]) -> Result<Vec<usize>, MemoryError>;
}

/// What was read: pieces with their bytes.
pub struct Reading {
    /// Address, and the range of `bytes` that was read. In the order asked for.
    pieces: Vec<(u64, Range<usize>)>,
    bytes: Vec<u8>,
}

impl Reading {
    /// Reads `pieces`, each on its own.
    pub fn of(memory: &impl Memory, pieces: &[Piece]) -> Result<Self, MemoryError> {
        let total = pieces.iter().fold(0usize, |total, piece| total.saturating_add(piece.len));
        let mut bytes = vec![0; total];
        let lens = memory.read(pieces, &mut bytes)?;
        let mut start = 0;
        let read = pieces.iter().zip(lens).map(|(piece, len)| {
            let range = start..start + len.min(piece.len);
            start += piece.len;
            (piece.address, range)
        });
        Ok(Self { pieces: read.collect(), bytes })
    }

    /// Reads `len` bytes at each of `addresses`, which ascend; what is close together is read in one go.
    pub fn merged(memory: &impl Memory, addresses: &[u64], len: usize) -> Result<Self, MemoryError> {
        let mut pieces: Vec<Piece> = Vec::new();
        for &address in addresses {
            let end = address.saturating_add(len as u64);
            match pieces.last_mut() {
                Some(last)
                    if address.saturating_sub(last.address.saturating_add(last.len as u64)) <= MAX_GAP
                        && end.saturating_sub(last.address) <= MAX_PIECE =>
                {
                    last.len = last.len.max((end - last.address) as usize);
                }
                _ => pieces.push(Piece { address, len }),
            }
        }
        Self::of(memory, &pieces)
    }

    /// How many bytes were read.
    pub fn total(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The bytes of piece `index`, as far as they were read.
    pub fn piece(&self, index: usize) -> &[u8] {
        self.pieces.get(index).and_then(|(_, range)| self.bytes.get(range.clone())).unwrap_or_default()
    }

    /// `len` bytes at `address`, if they were read. For pieces that ascend.
    pub fn at(&self, address: u64, len: usize) -> Option<&[u8]> {
        let behind = self.pieces.partition_point(|(start, _)| *start <= address);
        let (start, range) = self.pieces.get(behind.checked_sub(1)?)?;
        let skip = usize::try_from(address - start).ok()?;
        self.bytes.get(range.clone())?.get(skip..skip.checked_add(len)?)
    }
}

#[cfg(test)]
pub mod fake {
    use std::{cell::RefCell, collections::BTreeMap};

    use super::*;

    /// Memory made up of blocks. Counts what is asked of it, and can change between two reads.
    #[derive(Default)]
    pub struct Fake {
        blocks: RefCell<BTreeMap<u64, Vec<u8>>>,
        pub asked: RefCell<u64>,
        /// After so many reads, these bytes are written.
        pub later: RefCell<Vec<(u32, u64, Vec<u8>)>>,
        reads: RefCell<u32>,
    }

    impl Fake {
        pub fn block(&self, address: u64, bytes: Vec<u8>) {
            self.blocks.borrow_mut().insert(address, bytes);
        }

        pub fn write(&self, address: u64, bytes: &[u8]) {
            let mut blocks = self.blocks.borrow_mut();
            let (start, block) = blocks.range_mut(..=address).next_back().unwrap();
            let at = (address - start) as usize;
            block[at..at + bytes.len()].copy_from_slice(bytes);
        }

        pub fn write_u64(&self, address: u64, value: u64) {
            self.write(address, &value.to_le_bytes());
        }
    }

    impl Memory for Fake {
        fn read(&self, pieces: &[Piece], buffer: &mut [u8]) -> Result<Vec<usize>, MemoryError> {
            *self.reads.borrow_mut() += 1;
            let now = *self.reads.borrow();
            for (_, address, bytes) in self.later.borrow().iter().filter(|(when, ..)| *when == now) {
                self.write(*address, bytes);
            }
            *self.asked.borrow_mut() += buffer.len() as u64;
            let (mut at, mut lens) = (0, Vec::new());
            for piece in pieces {
                let blocks = self.blocks.borrow();
                let block = blocks.range(..=piece.address).next_back();
                let bytes = block.and_then(|(start, bytes)| bytes.get((piece.address - start) as usize..)).unwrap_or_default();
                let len = piece.len.min(bytes.len());
                buffer[at..at + len].copy_from_slice(&bytes[..len]);
                at += piece.len;
                lens.push(len);
            }
            Ok(lens)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{fake::Fake, *};

    /// Check that close pieces become one, far ones do not, and each is found by its address.
    #[test]
    fn merging() {
        let memory = Fake::default();
        memory.block(0x1000, (0..=255).cycle().take(0x4000).collect());
        let reading = Reading::merged(&memory, &[0x1000, 0x1010, 0x1010, 0x3001], 16).unwrap();
        assert_eq!(reading.pieces.len(), 2);
        assert_eq!(reading.total(), 48);
        assert_eq!(reading.at(0x1010, 2), Some(&[0x10, 0x11][..]));
        assert_eq!(reading.at(0x3001, 16).map(|bytes| bytes[0]), Some(1));
        assert_eq!((reading.at(0xfff, 1), reading.at(0x3001, 17), reading.at(u64::MAX, 1)), (None, None, None));
    }

    /// Check that what is not mapped is missing, and what is mapped beside it is not.
    #[test]
    fn short_reads() {
        let memory = Fake::default();
        memory.block(0x1000, vec![7; 20]);
        let reading = Reading::merged(&memory, &[0x1000, 0x1010, u64::MAX - 3], 16).unwrap();
        assert_eq!(reading.at(0x1000, 16).map(<[u8]>::len), Some(16));
        assert_eq!(reading.at(0x1010, 16), None);
        assert_eq!(reading.at(u64::MAX - 3, 1), None);
    }
}
