//! What is taken out of the rings, and what is learned from it on the way.

use std::{
    os::fd::{AsFd, BorrowedFd},
    thread,
};

use rustc_hash::{FxHashMap, FxHashSet};
use tracer_common::{
    header::{Header, Kind},
    process::{AUTOREAPED, Cgroup, CgroupMoved, ProcessExec, ProcessExit, ProcessFork, ProcessReaped},
};
use zerocopy::FromBytes;

use super::{
    faults::{Faults, Injector},
    rings::Rings,
    watermark::{Reading, Watermark},
};
use crate::{
    clock::{KtimeNs, ktime_now},
    id::{BinaryId, Tgid},
    recording::{contract::Drained, frame_record},
};

/// Records taken in one round at most, so that signals and timers are served in between.
const ROUND: usize = 32_768;

/// The reader's end.
pub struct Ring {
    rings: Rings,
    delivered: [u64; Kind::LIMIT as usize],
    noticed: Noticed,
    watermark: Watermark,
    /// What tests let go wrong.
    injector: Option<Injector>,
}

/// A process that userspace should look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appeared {
    /// It executed a program, then.
    Executed(Tgid, KtimeNs),
    /// It ran before, and was adopted by the BPF side.
    Met(Tgid),
}

/// What records tell of who is whose child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kin {
    Born {
        parent: Tgid,
        child: Tgid,
    },
    /// `zombie`: its start in boot time, ns, as numbers are used again; `None`: it becomes none.
    Ended {
        tgid: Tgid,
        zombie: Option<u64>,
    },
    Reaped {
        tgid: Tgid,
        start_boottime_ns: u64,
    },
}

/// A cgroup that records name by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Where a process is.
    Of(Cgroup),
    /// One of the hierarchy of that number.
    In { hierarchy: u32, cgroup: u64 },
}

/// Cgroups that are remembered; beyond that some are told of again.
const MAX_PLACES: usize = 16_384;

/// Processes of which userspace should know before their records are read again.
#[derive(Default)]
struct Noticed {
    appeared: Vec<Appeared>,
    images: Vec<(Tgid, BinaryId)>,
    kin: Vec<Kin>,
    /// Those not told yet, and all that were.
    places: Vec<Place>,
    known_places: FxHashSet<Place>,
    natives: FxHashSet<Tgid>,
    /// Those that hit a probe since their exec, and whose; and those of them that have ended what they ran.
    hit: FxHashMap<Tgid, BinaryId>,
    ended: Vec<(Tgid, BinaryId, KtimeNs)>,
    /// When those ended what they ran, and when they exited, of whom older records may come yet out of another CPU's ring.
    ends: FxHashMap<Tgid, Ends>,
}

#[derive(Clone, Copy, Default)]
struct Ends {
    image: Option<KtimeNs>,
    process: Option<KtimeNs>,
}

/// Ends that are remembered; beyond that all are forgotten.
const MAX_ENDS: usize = 16_384;

impl Noticed {
    fn look_at(&mut self, header: &Header, record: &[u8]) {
        let tgid = Tgid(header.tgid);
        let (kind, at) = (Kind::from_u8(header.kind), KtimeNs(header.ktime_ns));
        if matches!(kind, Some(Kind::ProcessExec | Kind::ProcessExit)) {
            if let Some(binary) = self.hit.remove(&tgid) {
                self.ended.push((tgid, binary, at));
            }
            if self.ends.len() >= MAX_ENDS {
                self.ends.clear();
            }
            let ends = self.ends.entry(tgid).or_default();
            ends.image = Some(at);
            ends.process = (kind == Some(Kind::ProcessExit)).then_some(at).or(ends.process);
        }
        match kind {
            Some(Kind::ProcessExec | Kind::ProcessMet) => {
                let executed = kind == Some(Kind::ProcessExec);
                self.appeared.push(if executed { Appeared::Executed(tgid, at) } else { Appeared::Met(tgid) });
                if let Ok(exec) = ProcessExec::ref_from_bytes(record) {
                    self.place(Place::Of(exec.cgroup));
                }
            }
            // Of no probed binary.
            Some(Kind::Stack) if header.binary == 0 => _ = self.natives.insert(tgid),
            Some(Kind::ProcessImage) => {
                let binary = BinaryId(header.binary);
                match self.ends.get(&tgid).and_then(|ends| ends.image).filter(|ended| *ended > at) {
                    Some(ended) => self.ended.push((tgid, binary, ended)),
                    None => _ = self.hit.insert(tgid, binary),
                }
                self.images.push((tgid, binary));
            }
            Some(Kind::ProcessFork) => {
                if let Ok(fork) = ProcessFork::ref_from_bytes(record) {
                    let (parent, child) = (Tgid(fork.parent_tgid), Tgid(fork.child_tgid));
                    let has_ended = |of| self.ends.get(&of).and_then(|ends| ends.process).is_some_and(|ended| ended > at);
                    if !has_ended(child) {
                        self.kin.push(Kin::Born { parent, child });
                    }
                    if has_ended(parent) {
                        // Once more: this child is an orphan, too.
                        self.kin.push(Kin::Ended { tgid: parent, zombie: None });
                    }
                    self.place(Place::Of(fork.cgroup));
                }
            }
            Some(Kind::ProcessExit) => {
                if let Ok(exit) = ProcessExit::ref_from_bytes(record) {
                    // Nobody waits for it: there is nothing to tell behind it.
                    let zombie = exit.flags & AUTOREAPED == 0;
                    self.kin.push(Kin::Ended { tgid, zombie: zombie.then_some(exit.start_boottime_ns) });
                }
            }
            Some(Kind::ProcessReaped) => {
                if let Ok(reaped) = ProcessReaped::ref_from_bytes(record) {
                    self.kin.push(Kin::Reaped { tgid: Tgid(reaped.reaped_tgid), start_boottime_ns: reaped.start_boottime_ns });
                }
            }
            Some(Kind::CgroupMoved) => {
                if let Ok(moved) = CgroupMoved::ref_from_bytes(record) {
                    self.place(Place::In { hierarchy: moved.hierarchy, cgroup: moved.cgroup });
                }
            }
            _ => {}
        }
    }

    fn place(&mut self, place: Place) {
        if self.known_places.len() >= MAX_PLACES {
            self.known_places.clear();
        }
        if self.known_places.insert(place) {
            self.places.push(place);
        }
    }
}

impl Ring {
    pub(super) fn new(rings: Rings) -> Self {
        Self {
            rings,
            delivered: [0; Kind::LIMIT as usize],
            noticed: Noticed::default(),
            watermark: Watermark::default(),
            injector: None,
        }
    }

    /// Lets things go wrong from here on (tests).
    pub fn inject(&mut self, faults: Option<Faults>) {
        self.injector = faults.map(Injector::new);
    }

    /// Begins a mark: see [`Watermark`].
    pub fn begin_mark(&mut self, reading: Reading) {
        self.watermark.begin(reading);
    }

    /// Whether a mark is under way.
    pub fn mark_pending(&self) -> bool {
        self.watermark.pending()
    }

    /// The mark, once everything that it is about was taken out.
    pub fn mark_reached(&mut self) -> Option<Drained> {
        self.watermark.reached()
    }

    /// Records taken out so far, by kind.
    pub fn delivered(&self) -> &[u64; Kind::LIMIT as usize] {
        &self.delivered
    }

    /// Processes to look at, since this was last asked.
    pub fn take_appeared(&mut self) -> Vec<Appeared> {
        std::mem::take(&mut self.noticed.appeared)
    }

    /// Processes of which stacks came since that are of no probed binary.
    pub fn take_natives(&mut self) -> FxHashSet<Tgid> {
        std::mem::take(&mut self.noticed.natives)
    }

    /// Processes that hit a probe for the first time since their exec, and the binary whose it is, since this was last asked.
    pub fn take_images(&mut self) -> Vec<(Tgid, BinaryId)> {
        std::mem::take(&mut self.noticed.images)
    }

    /// Who was born and who has ended, since this was last asked.
    pub fn take_kin(&mut self) -> Vec<Kin> {
        std::mem::take(&mut self.noticed.kin)
    }

    /// Processes that have ended the program whose probes they hit, and when, since this was last asked.
    pub fn take_ended(&mut self) -> Vec<(Tgid, BinaryId, KtimeNs)> {
        std::mem::take(&mut self.noticed.ended)
    }

    /// Cgroups that occur for the first time, since this was last asked.
    pub fn take_places(&mut self) -> Vec<Place> {
        std::mem::take(&mut self.noticed.places)
    }

    /// Moves records into `block`, each behind its length, until there is none, the round is over or the block holds
    /// `block_limit` bytes. Returns whether every ring was found empty, or at a record that is still being written.
    pub fn drain(&mut self, block: &mut Vec<u8>, block_limit: usize) -> bool {
        if let Some(lasting) = self.injector.as_mut().and_then(|injector| injector.freeze(ktime_now())) {
            thread::sleep(lasting);
        }
        if block.len() >= block_limit {
            return false;
        }
        let Self { rings, delivered, noticed, watermark, injector } = self;
        rings.drain(ROUND, |record| {
            let header = Header::read_from_prefix(record).map(|(header, _)| header);
            if let Ok(header) = &header {
                watermark.took(header.cpu, header.seq);
                if injector.as_mut().is_some_and(|injector| injector.drops(header)) {
                    return true;
                }
                if let Some(delivered) = delivered.get_mut(usize::from(header.kind)) {
                    *delivered += 1;
                }
                noticed.look_at(header, record);
            }
            frame_record(block, record);
            block.len() < block_limit
        })
    }
}

/// Readable when the BPF side wakes the reader.
impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.rings.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::{FromZeros, IntoBytes};

    use super::*;

    fn header(kind: Kind, tgid: u32, ktime_ns: u64) -> Header {
        Header { ktime_ns, tgid, tid: tgid, binary: 3, kind: kind as u8, ..Header::new_zeroed() }
    }

    /// Check that records that come out of a slow ring after the end of what they tell of mean what they would have meant before it.
    #[test]
    fn late_records() {
        let mut noticed = Noticed::default();
        for tgid in [7, 8] {
            noticed.look_at(&header(Kind::ProcessExit, tgid, 100), &[]);
        }
        // Made by 7 while it lived: its first hit, and two children, one of which has ended, too.
        noticed.look_at(&header(Kind::ProcessImage, 7, 50), &[]);
        for child in [8, 9] {
            let fork = ProcessFork { parent_tgid: 7, child_tgid: child, ..ProcessFork::new_zeroed() };
            noticed.look_at(&header(Kind::ProcessFork, 7, 60), fork.as_bytes());
        }
        assert_eq!(noticed.ended, [(Tgid(7), BinaryId(3), KtimeNs(100))]);
        assert!(noticed.hit.is_empty());
        let orphaned = Kin::Ended { tgid: Tgid(7), zombie: None };
        assert_eq!(noticed.kin, [orphaned, Kin::Born { parent: Tgid(7), child: Tgid(9) }, orphaned]);
        // Another process of that number.
        noticed.look_at(&header(Kind::ProcessImage, 7, 200), &[]);
        assert_eq!(noticed.hit.get(&Tgid(7)), Some(&BinaryId(3)));
    }
}
