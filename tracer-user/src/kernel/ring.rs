//! Draining the ring buffer.

use std::{
    mem::offset_of,
    os::fd::{AsFd, BorrowedFd},
};

use aya::maps::{MapData, RingBuf};
use tracer_common::header::{Header, Kind};
use zerocopy::FromBytes;

use crate::{
    id::{BinaryId, Tgid},
    recording::frame_record,
};

/// Records taken in one round at most, so that signals and timers are served in between.
const ROUND: usize = 32_768;

/// The reader's end of the ring.
pub struct Ring {
    ring: RingBuf<MapData>,
    delivered: [u64; Kind::LIMIT as usize],
    noticed: Noticed,
}

/// A process that userspace should look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appeared {
    /// It executed a program.
    Executed(Tgid),
    /// It ran before, and was adopted by the BPF side.
    Met(Tgid),
}

/// Processes of which userspace should know before their records are read again.
#[derive(Default)]
struct Noticed {
    appeared: Vec<Appeared>,
    images: Vec<(Tgid, BinaryId)>,
}

impl Noticed {
    fn look_at(&mut self, kind: usize, record: &[u8]) {
        let told = [Kind::ProcessExec, Kind::ProcessMet, Kind::ProcessImage].into_iter().find(|told| *told as usize == kind);
        let (Some(told), Ok((header, _))) = (told, Header::read_from_prefix(record)) else { return };
        let tgid = Tgid(header.tgid);
        match told {
            Kind::ProcessExec => self.appeared.push(Appeared::Executed(tgid)),
            Kind::ProcessMet => self.appeared.push(Appeared::Met(tgid)),
            _ => self.images.push((tgid, BinaryId(header.binary))),
        }
    }
}

impl Ring {
    pub(super) fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring, delivered: [0; Kind::LIMIT as usize], noticed: Noticed::default() }
    }

    /// Records taken out so far, by kind.
    pub fn delivered(&self) -> &[u64; Kind::LIMIT as usize] {
        &self.delivered
    }

    /// Processes to look at, since this was last asked.
    pub fn take_appeared(&mut self) -> Vec<Appeared> {
        std::mem::take(&mut self.noticed.appeared)
    }

    /// Processes that hit a probe for the first time since their exec, and the binary whose it is, since this was last asked.
    pub fn take_images(&mut self) -> Vec<(Tgid, BinaryId)> {
        std::mem::take(&mut self.noticed.images)
    }

    /// Moves records into `block`, each behind its length, until the ring is empty, the round is over or the block holds
    /// `block_limit` bytes. Returns whether the ring was found empty.
    pub fn drain(&mut self, block: &mut Vec<u8>, block_limit: usize) -> bool {
        for _ in 0..ROUND {
            if block.len() >= block_limit {
                return false;
            }
            match self.ring.next() {
                Some(record) => {
                    let kind = record.get(offset_of!(Header, kind)).map_or(0, |kind| usize::from(*kind));
                    if let Some(delivered) = self.delivered.get_mut(kind) {
                        *delivered += 1;
                    }
                    self.noticed.look_at(kind, &record);
                    frame_record(block, &record);
                }
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
