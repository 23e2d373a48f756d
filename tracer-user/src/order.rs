//! Puts events into the order in which they happened, and finds where some are missing.
//!
//! CPUs write into the ring independently, so records arrive nearly sorted. [`Orderer`] holds each event back until one
//! arrives that is a window younger, and releases by (ktime, cpu, seq). What comes later than that is released at once
//! and counted. Sequence numbers count the records a CPU tried to send: a number that never arrives is a lost record, and
//! the records beside it say when. No clock is read here.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use rustc_hash::FxHashMap;

use crate::{clock::KtimeNs, event::Event};

/// How much younger an event must be to release another.
pub const DEFAULT_WINDOW_NS: u64 = 1_000_000_000;

/// Records of one CPU that never arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeqGap {
    /// When the record before the gap was made; the recording's zero if there is none.
    pub from: KtimeNs,
    /// When the record behind it was made.
    pub to: KtimeNs,
    pub cpu: u16,
    pub missing: u64,
}

/// What ordering found out, known when the last event is out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrderReport {
    pub events: u64,
    /// Events released behind younger ones.
    pub late: u64,
    /// By start.
    pub gaps: Vec<SeqGap>,
}

impl OrderReport {
    /// Records that the gaps account for. Records lost behind a CPU's last one leave no gap.
    pub fn missing(&self) -> u64 {
        self.gaps.iter().fold(0, |sum, gap| sum.saturating_add(gap.missing))
    }
}

/// The reorder stage.
pub struct Orderer {
    window_ns: u64,
    heap: BinaryHeap<Reverse<Place>>,
    /// Events waiting, named by the heap; `free` are its holes.
    slots: Vec<Option<Event>>,
    free: Vec<u32>,
    newest: KtimeNs,
    /// Nothing from here on is released until it is lifted.
    hold: KtimeNs,
    released: KtimeNs,
    events: u64,
    late: u64,
    cpus: FxHashMap<u16, Sequence>,
    zero: KtimeNs,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    at: KtimeNs,
    cpu: u16,
    seq: u64,
    slot: u32,
}

/// The sequence numbers of one CPU.
struct Sequence {
    /// One more than the largest number seen, and when that record was made.
    next: u64,
    last_at: KtimeNs,
    /// Missing numbers, by the first one of each run.
    missing: BTreeMap<u64, Run>,
}

#[derive(Clone, Copy)]
struct Run {
    end: u64,
    from: KtimeNs,
    to: KtimeNs,
}

impl Orderer {
    /// `zero` is when the recording began: numbers missing before a CPU's first record were lost since then.
    pub fn new(window_ns: u64, zero: KtimeNs) -> Self {
        Self {
            window_ns,
            heap: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            newest: KtimeNs(0),
            hold: KtimeNs::MAX,
            released: KtimeNs(0),
            events: 0,
            late: 0,
            cpus: FxHashMap::default(),
            zero,
        }
    }

    /// Keeps back what happened `at` that time or later, until another time is given: something that has to be told before it is still
    /// to come.
    pub fn hold(&mut self, at: KtimeNs) {
        self.hold = at;
    }

    /// Takes one event and releases those that are old enough.
    pub fn push(&mut self, event: Event, release: &mut impl FnMut(Event)) {
        let zero = self.zero;
        self.cpus.entry(event.cpu).or_insert_with(|| Sequence::new(zero)).see(event.seq, event.at);
        self.newest = self.newest.max(event.at);
        let (at, cpu, seq) = (event.at, event.cpu, event.seq);
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(event);
                slot
            }
            None => {
                self.slots.push(Some(event));
                (self.slots.len() - 1) as u32
            }
        };
        self.heap.push(Reverse(Place { at, cpu, seq, slot }));
        let horizon = (self.newest - self.window_ns).min(self.hold);
        while self.heap.peek().is_some_and(|Reverse(place)| place.at < horizon) {
            self.pop(release);
        }
    }

    /// Releases everything that is left.
    pub fn finish(mut self, release: &mut impl FnMut(Event)) -> OrderReport {
        while !self.heap.is_empty() {
            self.pop(release);
        }
        let mut gaps: Vec<SeqGap> = Vec::new();
        for (&cpu, sequence) in &self.cpus {
            gaps.extend(sequence.missing.iter().map(|(&start, run)| SeqGap {
                from: run.from,
                to: run.to.max(run.from),
                cpu,
                missing: run.end - start,
            }));
        }
        gaps.sort_unstable();
        OrderReport { events: self.events, late: self.late, gaps }
    }

    fn pop(&mut self, release: &mut impl FnMut(Event)) {
        let Some(Reverse(place)) = self.heap.pop() else { return };
        self.free.push(place.slot);
        let Some(event) = self.slots[place.slot as usize].take() else { return };
        self.events += 1;
        self.late += u64::from(event.at < self.released);
        self.released = self.released.max(event.at);
        release(event);
    }
}

impl Sequence {
    fn new(zero: KtimeNs) -> Self {
        Self { next: 0, last_at: zero, missing: BTreeMap::new() }
    }

    fn see(&mut self, seq: u64, at: KtimeNs) {
        if seq >= self.next {
            if seq > self.next {
                self.missing.insert(self.next, Run { end: seq, from: self.last_at, to: at });
            }
            self.next = seq.saturating_add(1);
            self.last_at = at;
            return;
        }
        // An overtaken record closes its part of a gap, and now is a gap's neighbour itself.
        let Some((&start, &run)) = self.missing.range(..=seq).next_back() else { return };
        if seq >= run.end {
            return;
        }
        self.missing.remove(&start);
        if start < seq {
            self.missing.insert(start, Run { end: seq, from: run.from, to: at });
        }
        if seq + 1 < run.end {
            self.missing.insert(seq + 1, Run { end: run.end, from: at, to: run.to });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        event::What,
        id::{Goid, SiteId, Tgid, Tid},
    };

    fn event(at: u64, cpu: u16, seq: u64) -> Event {
        let what = What::GoroutineExit { goid: Goid(at) };
        Event { at: KtimeNs(at), cpu, seq, tgid: Tgid(1), tid: Tid(1), binary: None, site: SiteId(0), what }
    }

    fn run(window: u64, events: impl IntoIterator<Item = Event>) -> (Vec<u64>, OrderReport) {
        let mut out = Vec::new();
        let mut orderer = Orderer::new(window, KtimeNs(5));
        let mut release = |event: Event| out.push(event.at.0);
        for event in events {
            orderer.push(event, &mut release);
        }
        let report = orderer.finish(&mut release);
        (out, report)
    }

    /// Check that two CPUs are merged by time, and ties go by CPU.
    #[test]
    fn merges_cpus() {
        let (out, report) = run(100, [event(10, 1, 0), event(30, 1, 1), event(10, 0, 0), event(20, 0, 1)]);
        assert_eq!(out, [10, 10, 20, 30]);
        assert_eq!(report, OrderReport { events: 4, late: 0, gaps: vec![] });
    }

    /// Check that an event is released as soon as one arrives that is younger by more than the window.
    #[test]
    fn releases_by_window() {
        let mut orderer = Orderer::new(10, KtimeNs(0));
        let mut out = Vec::new();
        for (seq, at) in [1, 11, 12].into_iter().enumerate() {
            orderer.push(event(at, 0, seq as u64), &mut |event: Event| out.push(event.at.0));
        }
        assert_eq!(out, [1]);
    }

    /// Check that events from a held time on wait, however old they become, and come in order when it is lifted.
    #[test]
    fn holds() {
        let mut orderer = Orderer::new(10, KtimeNs(0));
        let mut out = Vec::new();
        orderer.hold(KtimeNs(50));
        for (seq, at) in [40, 50, 60, 500].into_iter().enumerate() {
            orderer.push(event(at, 0, seq as u64), &mut |event: Event| out.push(event.at.0));
        }
        assert_eq!(out, [40]);
        orderer.hold(KtimeNs::MAX);
        orderer.push(event(501, 0, 4), &mut |event: Event| out.push(event.at.0));
        assert_eq!(out, [40, 50, 60]);
    }

    /// Check that an event older than what has been released is counted, and still released.
    #[test]
    fn counts_late() {
        let (out, report) = run(10, [event(100, 0, 0), event(200, 0, 1), event(50, 1, 0), event(201, 0, 2)]);
        assert_eq!(out, [100, 50, 200, 201]);
        assert_eq!(report.late, 1);
    }

    /// Check that missing numbers become gaps between their neighbours, from the recording's zero where there is none before.
    #[test]
    fn finds_gaps() {
        let (_, report) = run(1000, [event(10, 0, 2), event(40, 0, 6), event(30, 0, 4), event(20, 1, 0)]);
        let gap = |from, to, missing| SeqGap { from: KtimeNs(from), to: KtimeNs(to), cpu: 0, missing };
        assert_eq!(report.gaps, [gap(5, 10, 2), gap(10, 30, 1), gap(30, 40, 1)]);
        assert_eq!(report.missing(), 4);
    }

    /// Check that sequence numbers of several CPUs that jump to their end add up to the largest number there is.
    #[test]
    fn gaps_too_large_to_add_up() {
        let (_, report) = run(1000, [event(10, 0, u64::MAX - 1), event(20, 1, u64::MAX - 1)]);
        assert_eq!((report.gaps.len(), report.missing()), (2, u64::MAX));
    }

    proptest! {
        /// Check that any arrival order within the window gives the same order and the same gaps.
        #[test]
        fn permutations_agree(
            picks in proptest::collection::vec((1u64..1000, 0u16..3, any::<bool>()), 1..60),
            shuffle in any::<prop::sample::Index>(),
        ) {
            let mut seqs = [0; 3];
            let mut picks = picks;
            picks.sort();
            let events: Vec<Event> = picks.iter().filter_map(|&(at, cpu, kept)| {
                let seq = seqs[cpu as usize];
                seqs[cpu as usize] += 1;
                kept.then(|| event(at, cpu, seq))
            }).collect();
            let mut shuffled = events.clone();
            if !shuffled.is_empty() {
                let by = shuffle.index(shuffled.len());
                shuffled.rotate_left(by);
                shuffled.reverse();
            }
            prop_assert_eq!(run(2000, events), run(2000, shuffled));
        }
    }
}
