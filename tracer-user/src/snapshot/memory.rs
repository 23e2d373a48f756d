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

/// What was read: pieces with their bytes. One is used for many readings: a buffer that the kernel has to map and clear anew for each
/// costs more than the reading itself.
#[derive(Default)]
pub struct Reading {
    pieces: Vec<Piece>,
    /// Of each piece, the range of `bytes` that was read.
    ranges: Vec<Range<usize>>,
    bytes: Vec<u8>,
}

impl Reading {
    /// A reading of its own.
    pub fn of(memory: &impl Memory, pieces: &[Piece]) -> Result<Self, MemoryError> {
        let mut reading = Self::default();
        reading.read(memory, pieces.iter().copied())?;
        Ok(reading)
    }

    /// Reads `pieces`, each on its own. Answers how many bytes that were to be.
    pub fn read(&mut self, memory: &impl Memory, pieces: impl IntoIterator<Item = Piece>) -> Result<u64, MemoryError> {
        self.pieces.clear();
        self.pieces.extend(pieces);
        self.fill(memory)
    }

    /// Reads `pieces`, whose addresses ascend; what is close together is read in one go. Answers how many bytes that were to be.
    pub fn read_merged(&mut self, memory: &impl Memory, pieces: impl IntoIterator<Item = Piece>) -> Result<u64, MemoryError> {
        self.pieces.clear();
        for piece in pieces {
            let end = piece.address.saturating_add(piece.len as u64);
            match self.pieces.last_mut() {
                Some(last)
                    if piece.address.saturating_sub(last.address.saturating_add(last.len as u64)) <= MAX_GAP
                        && end.saturating_sub(last.address) <= MAX_PIECE =>
                {
                    last.len = last.len.max((end - last.address) as usize);
                }
                _ => self.pieces.push(piece),
            }
        }
        self.fill(memory)
    }

    fn fill(&mut self, memory: &impl Memory) -> Result<u64, MemoryError> {
        self.ranges.clear();
        let total = self.pieces.iter().fold(0usize, |total, piece| total.saturating_add(piece.len));
        if self.bytes.len() < total {
            self.bytes.resize(total, 0);
        }
        let lens = memory.read(&self.pieces, self.bytes.get_mut(..total).unwrap_or_default())?;
        let mut start = 0;
        self.ranges.extend(self.pieces.iter().zip(lens).map(|(piece, len)| {
            let range = start..start + len.min(piece.len);
            start += piece.len;
            range
        }));
        Ok(total as u64)
    }

    /// The bytes of piece `index`, as far as they were read.
    pub fn piece(&self, index: usize) -> &[u8] {
        self.ranges.get(index).and_then(|range| self.bytes.get(range.clone())).unwrap_or_default()
    }

    /// `len` bytes at `address`, if they were read. For pieces that ascend.
    pub fn at(&self, address: u64, len: usize) -> Option<&[u8]> {
        self.from(address)?.get(..len)
    }

    /// The word at `address`, if it was read. For pieces that ascend.
    pub fn word(&self, address: u64) -> Option<u64> {
        self.from(address)?.first_chunk().map(|word| u64::from_le_bytes(*word))
    }

    /// At most `len` bytes from `address` on, as far as they were read. For pieces that ascend.
    pub fn up_to(&self, address: u64, len: usize) -> &[u8] {
        let bytes = self.from(address).unwrap_or_default();
        bytes.get(..len).unwrap_or(bytes)
    }

    fn from(&self, address: u64) -> Option<&[u8]> {
        let index = self.pieces.partition_point(|piece| piece.address <= address).checked_sub(1)?;
        let skip = usize::try_from(address - self.pieces.get(index)?.address).ok()?;
        self.piece(index).get(skip..)
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
        pub reads: RefCell<u32>,
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

    fn merged(memory: &Fake, addresses: &[u64]) -> Reading {
        let mut reading = Reading::default();
        reading.read_merged(memory, addresses.iter().map(|&address| Piece { address, len: 16 })).unwrap();
        reading
    }

    /// Check that close pieces become one, far ones do not, and each is found by its address.
    #[test]
    fn merging() {
        let memory = Fake::default();
        memory.block(0x1000, (0..=255).cycle().take(0x4000).collect());
        let reading = merged(&memory, &[0x1000, 0x1010, 0x1010, 0x3001]);
        assert_eq!(reading.pieces, [Piece { address: 0x1000, len: 32 }, Piece { address: 0x3001, len: 16 }]);
        assert_eq!(reading.at(0x1010, 2), Some(&[0x10, 0x11][..]));
        assert_eq!(reading.word(0x1010), Some(0x1716_1514_1312_1110));
        assert_eq!(reading.at(0x3001, 16).map(|bytes| bytes[0]), Some(1));
        assert_eq!((reading.at(0xfff, 1), reading.at(0x3001, 17), reading.at(u64::MAX, 1)), (None, None, None));
        assert_eq!((reading.up_to(0x3009, 100).len(), reading.up_to(0x2000, 1).len()), (8, 0));
    }

    /// Check that what is not mapped is missing, and what is mapped beside it is not.
    #[test]
    fn short_reads() {
        let memory = Fake::default();
        memory.block(0x1000, vec![7; 20]);
        let reading = merged(&memory, &[0x1000, 0x1010, u64::MAX - 3]);
        assert_eq!(reading.at(0x1000, 16).map(<[u8]>::len), Some(16));
        assert_eq!(reading.at(0x1010, 16), None);
        assert_eq!((reading.at(u64::MAX - 3, 1), reading.word(0x1010)), (None, None));
    }

    /// Check that nothing of an earlier reading is left in a later one that is shorter or fails in part.
    #[test]
    fn used_again() {
        let memory = Fake::default();
        memory.block(0x1000, vec![7; 64]);
        let piece = |address, len| Piece { address, len };
        let mut reading = Reading::of(&memory, &[piece(0x1000, 64)]).unwrap();
        assert_eq!(reading.piece(0).len(), 64);
        assert_eq!(reading.read(&memory, [piece(0x9000, 8), piece(0x1000, 8)]).unwrap(), 16);
        assert_eq!((reading.piece(0), reading.piece(1), reading.piece(2)), (&[][..], &[7; 8][..], &[][..]));
    }
}
