//! Draining the ring buffer.

use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{MapData, RingBuf};

use crate::recording::frame_record;

/// Records taken in one round at most, so that signals and timers are served in between.
const ROUND: usize = 32_768;

/// The reader's end of the ring.
pub struct Ring {
    ring: RingBuf<MapData>,
}

impl Ring {
    pub(super) fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring }
    }

    /// Moves records into `block`, each behind its length, until the ring is empty, the round is over or the block holds
    /// `block_limit` bytes. Returns whether the ring was found empty.
    pub fn drain(&mut self, block: &mut Vec<u8>, block_limit: usize) -> bool {
        for _ in 0..ROUND {
            if block.len() >= block_limit {
                return false;
            }
            match self.ring.next() {
                Some(record) => frame_record(block, &record),
                None => return true,
            }
        }
        false
    }
}

/// Readable when the BPF side wakes the reader.
impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
