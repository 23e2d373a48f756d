//! What goroutines wait on: the channel of each that sends to or receives from one.
//!
//! A goroutine that waits for channels hangs on each by a `runtime.sudog` (`runtime/runtime2.go`), which are chained where a `select` waits
//! for several: of these none is told. Who waits for a lock has no such chain.

use super::memory::{Memory, MemoryError, Piece, Reading};
use crate::{golang::Sudog, id::Address};

/// What was read last.
#[derive(Default)]
pub struct Channels {
    layout: Option<Sudog>,
    reading: Reading,
}

impl Channels {
    /// Reads the sudogs at `addresses`, for [`Self::of`]; 0 is none. Answers how many bytes that took.
    pub fn read(
        &mut self,
        memory: &impl Memory,
        layout: &Sudog,
        addresses: impl Iterator<Item = u64>,
    ) -> Result<u64, MemoryError> {
        self.layout = Some(*layout);
        let mut addresses: Vec<u64> = addresses.filter(|address| *address != 0 && address.is_multiple_of(8)).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let len = layout.bytes();
        self.reading.read_merged(memory, addresses.into_iter().map(|address| Piece { address, len }))
    }

    /// The channel that the goroutine at `g` waits for alone, by the sudog at an address that was read last.
    pub fn of(&self, g: u64, sudog: u64) -> Option<Address> {
        let layout = self.layout.filter(|_| sudog != 0)?;
        let bytes = self.reading.at(sudog, layout.bytes())?;
        let word = |offset: u32| Some(u64::from_le_bytes(*bytes.get(offset as usize..)?.first_chunk()?));
        // Meanwhile it may have become somebody else's.
        let own = word(layout.g)? == g && word(layout.next)? == 0;
        word(layout.channel).filter(|channel| own && *channel != 0).map(Address)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::memory::fake::Fake, *};

    /// Check that a lone sudog of the goroutine tells its channel, and that one of a select, of another, or that is not there does not.
    #[test]
    fn channels() {
        let (memory, layout) = (Fake::default(), Sudog { g: 0, channel: 16, next: 8 });
        let sudog = |g: u64, next: u64, channel: u64| [g, next, channel].iter().flat_map(|word| word.to_le_bytes()).collect();
        memory.block(0x1000, sudog(0x7000, 0, 0xc0de));
        memory.block(0x2000, sudog(0x7000, 0x1000, 0xc0de));
        let mut channels = Channels::default();
        assert_eq!(channels.of(0x7000, 0x1000), None);
        channels.read(&memory, &layout, [0x2000, 0, 0x1000, 0x9000, 3].into_iter()).unwrap();
        assert_eq!(channels.of(0x7000, 0x1000), Some(Address(0xc0de)));
        for (g, sudog) in [(0x7008, 0x1000), (0x7000, 0x2000), (0x7000, 0x9000), (0x7000, 0), (0x7000, 3)] {
            assert_eq!(channels.of(g, sudog), None, "{g:#x} {sudog:#x}");
        }
    }
}
