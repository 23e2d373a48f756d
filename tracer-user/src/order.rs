//! Puts events into the order in which they happened, and finds where some are missing.
//!
//! CPUs write independently, each nearly in order; how far one is ahead of another depends on when its records were taken. So each
//! has a row of its own, and rows are merged where events are released. The recording says from time to time up to when all of
//! them are there (`Drained`; why that can be said stands in docs/order.md): [`Orderer`] holds each event back until a mark is past it,
//! and releases by (ktime, cpu, seq). A recording without marks, made by hand or by another, is ordered within a window. What
//! comes later than that is released at once and counted. Sequence numbers count the records a CPU tried to send: a number that never
//! arrives is a lost record, and the records and marks beside it say when. No clock is read here.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, BinaryHeap, VecDeque, binary_heap::PeekMut},
};

use crate::{
    clock::KtimeNs,
    event::Event,
    recording::contract::{Drained, IndexedRun},
};

/// How much younger an event must be to release another, where there are no marks.
pub const DEFAULT_WINDOW_NS: u64 = 1_000_000_000;
/// More events than this do not wait for a mark: the oldest goes. Twice what the rings hold on 32 CPUs or fewer.
const MAX_WAITING: usize = 2 << 20;

/// Records of one CPU that never arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeqGap {
    /// When the record before the gap was made, or the mark before it; the recording's zero if there is none.
    pub from: KtimeNs,
    /// When the record behind it was made, or the mark.
    pub to: KtimeNs,
    pub cpu: u16,
    pub missing: u64,
}

/// Over so many others at most an event is moved to its place; one that is further out of order waits beside them.
const MAX_MOVES: usize = 64;

/// So many places that are first no more may lie in the heap besides, before it is made anew.
const STALE_FRONTS: usize = 64;

/// What ordering found out, known when the last event is out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrderReport {
    pub events: u64,
    /// Events released behind younger ones.
    pub late: u64,
    /// By start.
    pub gaps: Vec<SeqGap>,
    /// No record that was made later is lost. A gap's own end is less sure: its neighbours may have overtaken it.
    pub lost_until: KtimeNs,
}

impl OrderReport {
    /// Records that the gaps account for. Records lost behind a CPU's last one leave a gap only where a mark speaks of them.
    pub fn missing(&self) -> u64 {
        self.gaps.iter().fold(0, |sum, gap| sum.saturating_add(gap.missing))
    }
}

/// The reorder stage.
pub struct Orderer {
    window_ns: u64,
    /// By number.
    cpus: Vec<Cpu>,
    /// Every row that is not empty, by the place of its first event. Behind them places that were first and are not any more.
    fronts: BinaryHeap<Reverse<Place>>,
    /// Events that came far too late or too early for their row.
    strays: BinaryHeap<Reverse<Stray>>,
    /// Events in rows and beside them.
    waiting: usize,
    newest: KtimeNs,
    /// Everything older than this is here; `None`: the recording does not say.
    mark: Option<KtimeNs>,
    max_waiting: usize,
    /// Nothing from here on is released until it is lifted.
    hold: KtimeNs,
    released: KtimeNs,
    events: u64,
    late: u64,
    zero: KtimeNs,
    /// Nothing will come any more.
    is_over: bool,
}

/// What is known of one CPU.
struct Cpu {
    sequence: Sequence,
    /// Its events that wait, in order: nearly all arrive as the last one or close to it.
    row: VecDeque<Event>,
}

/// By what events are put in order.
type Place = (KtimeNs, u16, u64);

/// An event, compared by its place in the order.
struct Stray(Event);

fn place(event: &Event) -> Place {
    (event.at, event.cpu, event.seq)
}

impl Ord for Stray {
    fn cmp(&self, other: &Self) -> Ordering {
        place(&self.0).cmp(&place(&other.0))
    }
}

impl PartialOrd for Stray {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Stray {
    fn eq(&self, other: &Self) -> bool {
        place(&self.0) == place(&other.0)
    }
}

impl Eq for Stray {}

/// The sequence numbers of one CPU.
struct Sequence {
    /// One more than the largest number seen, and when that record was made.
    next: u64,
    last_at: KtimeNs,
    /// Missing numbers, by the first one of each run.
    missing: BTreeMap<u64, Run>,
    /// The newest mark's next number, and the newest mark before which a record was lost behind the one before it.
    marked: u64,
    lost_by: KtimeNs,
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
            cpus: Vec::new(),
            fronts: BinaryHeap::new(),
            strays: BinaryHeap::new(),
            waiting: 0,
            newest: KtimeNs(0),
            mark: None,
            max_waiting: MAX_WAITING,
            hold: KtimeNs::MAX,
            released: KtimeNs(0),
            events: 0,
            late: 0,
            zero,
            is_over: false,
        }
    }

    /// Numbers below these, by CPU, are of another recording: that they are missing is no loss.
    pub fn begin_at(&mut self, next_seq: &[u64]) {
        for (cpu, &next) in (0..=u16::MAX).zip(next_seq) {
            self.cpu(cpu).sequence.next = next;
        }
    }

    /// Keeps back what happened `at` that time or later, until another time is given: something that has to be told before it is still
    /// to come.
    pub fn hold(&mut self, at: KtimeNs) {
        self.hold = at;
    }

    /// Takes one event and releases those that are old enough.
    pub fn push(&mut self, event: Event, release: &mut impl FnMut(Event)) {
        self.newest = self.newest.max(event.at);
        self.put(event);
        self.release(release);
    }

    /// Takes the recording's word that records with these numbers came here, and that nobody wants to know what they say.
    pub fn pass(&mut self, run: &IndexedRun, release: &mut impl FnMut(Event)) {
        self.cpu(run.cpu).sequence.see_run(run);
        self.newest = self.newest.max(run.to);
        self.release(release);
    }

    /// Takes the recording's word that everything older than the mark has been pushed, and releases it. Numbers below the mark's that
    /// did not come are lost.
    pub fn drained(&mut self, mark: &Drained, release: &mut impl FnMut(Event)) {
        for (cpu, &next) in (0..=u16::MAX).zip(&mark.next_seq) {
            self.cpu(cpu).sequence.mark(next, mark.at);
        }
        self.mark = self.mark.max(Some(mark.at));
        self.release(release);
    }

    /// Records that are missing by their numbers. Where there are marks, those that no mark speaks of yet may still come, until the end.
    pub fn missing(&self) -> u64 {
        let may_come = |cpu: &Cpu| if self.mark.is_some() && !self.is_over { cpu.sequence.marked } else { u64::MAX };
        let runs = self.cpus.iter().flat_map(|cpu| cpu.sequence.missing.range(..may_come(cpu)));
        runs.fold(0, |sum, (start, run)| sum.saturating_add(run.end - start))
    }

    fn cpu(&mut self, number: u16) -> &mut Cpu {
        let (index, zero) = (usize::from(number), self.zero);
        if index >= self.cpus.len() {
            self.cpus.resize_with(index + 1, || Cpu { sequence: Sequence::new(zero), row: VecDeque::new() });
        }
        &mut self.cpus[index]
    }

    fn put(&mut self, event: Event) {
        self.waiting += 1;
        let at = place(&event);
        let Cpu { sequence, row } = self.cpu(event.cpu);
        sequence.see(event.seq, event.at);
        let overtaken = row.iter().rev().take(MAX_MOVES + 1).take_while(|other| at < place(other)).count();
        if overtaken > MAX_MOVES {
            self.strays.push(Reverse(Stray(event)));
            return;
        }
        let index = row.len() - overtaken;
        row.insert(index, event);
        if index == 0 {
            self.fronts.push(Reverse(at));
        }
        if self.fronts.len() > 2 * self.cpus.len() + STALE_FRONTS {
            let fronts = self.cpus.iter().filter_map(|cpu| Some(Reverse(place(cpu.row.front()?))));
            self.fronts = fronts.collect();
        }
    }

    /// What rows without events keep of their memory together is bounded as what waits is.
    fn thrift(&mut self, cpu: u16) {
        let share = self.max_waiting / self.cpus.len();
        let row = &mut self.cpus[usize::from(cpu)].row;
        if row.is_empty() && row.capacity() > share {
            row.shrink_to(share);
        }
    }

    /// The place of the oldest event that waits, and whether it is a stray.
    fn oldest(&mut self) -> Option<(Place, bool)> {
        let front = loop {
            let Some(&Reverse(front)) = self.fronts.peek() else { break None };
            if self.cpus[usize::from(front.1)].row.front().is_some_and(|event| place(event) == front) {
                break Some(front);
            }
            self.fronts.pop();
        };
        let stray = self.strays.peek().map(|Reverse(Stray(event))| place(event));
        let is_stray = stray.is_some_and(|stray| front.is_none_or(|front| stray < front));
        Some((if is_stray { stray } else { front }?, is_stray))
    }

    fn release(&mut self, release: &mut impl FnMut(Event)) {
        let known = self.mark.unwrap_or(self.newest - self.window_ns).min(self.hold);
        while let Some(((at, cpu, _), stray)) = self.oldest() {
            let crowded = self.waiting > self.max_waiting && at < self.hold;
            if at >= known && !crowded {
                return;
            }
            if stray || at >= known {
                self.pop(cpu, stray, release);
            } else {
                self.run(cpu, (known, 0, 0), release);
            }
        }
    }

    /// Releases the row of a CPU, whose first event is the oldest, up to that place and as long as no other event comes before.
    fn run(&mut self, cpu: u16, until: Place, release: &mut impl FnMut(Event)) {
        self.fronts.pop();
        let other = self.fronts.peek().map_or(until, |Reverse(front)| *front);
        let stray = self.strays.peek().map_or(until, |Reverse(Stray(event))| place(event));
        let until = until.min(other).min(stray);
        let row = &mut self.cpus[usize::from(cpu)].row;
        let before = row.len();
        // The first goes in any case: among what is behind the rows' first places may be its own.
        let mut next = row.pop_front();
        while let Some(event) = next {
            self.events += 1;
            self.late += u64::from(event.at < self.released);
            self.released = self.released.max(event.at);
            release(event);
            next = row.pop_front_if(|event| place(event) < until);
        }
        self.waiting -= before - row.len();
        self.fronts.extend(row.front().map(|next| Reverse(place(next))));
        self.thrift(cpu);
    }

    /// Nothing will come any more: releases everything that is left.
    pub fn release_all(&mut self, release: &mut impl FnMut(Event)) {
        self.is_over = true;
        while let Some(((_, cpu, _), stray)) = self.oldest() {
            self.pop(cpu, stray, release);
        }
    }

    /// Releases everything that is left, and says what was found out.
    pub fn finish(mut self, release: &mut impl FnMut(Event)) -> OrderReport {
        self.release_all(release);
        let mut gaps: Vec<SeqGap> = Vec::new();
        for (cpu, Cpu { sequence, .. }) in (0..=u16::MAX).zip(&self.cpus) {
            gaps.extend(sequence.missing.iter().map(|(&start, run)| SeqGap {
                from: run.from,
                to: run.to.max(run.from),
                cpu,
                missing: run.end - start,
            }));
        }
        gaps.sort_unstable();
        let lost_until = self.cpus.iter().map(|cpu| cpu.sequence.lost_until()).max().unwrap_or_default();
        OrderReport { events: self.events, late: self.late, gaps, lost_until }
    }

    /// Takes the oldest out, which is a stray or the first of a row.
    fn pop(&mut self, cpu: u16, stray: bool, release: &mut impl FnMut(Event)) {
        let event = if stray {
            self.strays.pop().map(|Reverse(Stray(event))| event)
        } else {
            let row = &mut self.cpus[usize::from(cpu)].row;
            let event = row.pop_front();
            if let Some(mut front) = self.fronts.peek_mut() {
                match row.front() {
                    Some(next) => *front = Reverse(place(next)),
                    None => _ = PeekMut::pop(front),
                }
            }
            self.thrift(cpu);
            event
        };
        let Some(event) = event else { return };
        self.waiting -= 1;
        self.events += 1;
        self.late += u64::from(event.at < self.released);
        self.released = self.released.max(event.at);
        release(event);
    }
}

impl Sequence {
    fn new(zero: KtimeNs) -> Self {
        Self { next: 0, last_at: zero, missing: BTreeMap::new(), marked: 0, lost_by: KtimeNs(0) }
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

    /// The same for numbers in a row.
    fn see_run(&mut self, run: &IndexedRun) {
        let Some(behind) = run.first.checked_add(run.count) else { return };
        if run.count > 0 && run.first >= self.next {
            self.see(run.first, run.from);
            (self.next, self.last_at) = (behind, run.to);
            return;
        }
        // Some were overtaken.
        (run.first..behind).for_each(|seq| self.see(seq, if seq == run.first { run.from } else { run.to }));
    }

    /// Numbers below `next` were made by `at`, all others are later.
    fn mark(&mut self, next: u64, at: KtimeNs) {
        if next > self.next {
            self.missing.insert(self.next, Run { end: next, from: self.last_at, to: at });
            self.next = next;
        }
        if next == self.next {
            self.last_at = self.last_at.max(at);
        }
        for run in self.missing.range_mut(next..).map(|(_, run)| run) {
            run.from = run.from.max(at);
        }
        if let Some((_, run)) = self.missing.range_mut(..next).next_back()
            && run.end > next
        {
            let beyond = Run { from: run.from.max(at), ..*run };
            (run.end, run.to) = (next, run.to.min(at));
            self.missing.insert(next, beyond);
        }
        if self.missing.range(..next).next_back().is_some_and(|(_, run)| run.end > self.marked) {
            self.lost_by = self.lost_by.max(at);
        }
        self.marked = self.marked.max(next);
    }

    /// No record of this CPU that was made later is lost: by marks, and behind the last one by the records that came.
    fn lost_until(&self) -> KtimeNs {
        let behind = self.missing.range(self.marked..).map(|(_, run)| run.to);
        behind.chain([self.lost_by]).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
