use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};

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
    assert_eq!(report, OrderReport { events: 4, ..OrderReport::default() });
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

/// Check that events of one CPU that overtook each other, in its row and far out of it, come out in order, and that none holds up the rest.
#[test]
fn overtaken_in_a_row() {
    let far = (0..100).map(|seq| event(1_000 + seq, 1, seq));
    let mixed = [event(30, 0, 1), event(20, 0, 0), event(20, 0, 0), event(10, 0, 2), event(30, 0, 1)];
    let (out, report) = run(5_000, mixed.into_iter().chain(far).chain([event(5, 1, 100), event(900, 0, 3)]));
    assert!(out.is_sorted(), "{out:?}");
    assert_eq!((out.len(), report.late), (107, 0));
    let mut orderer = Orderer::new(10, KtimeNs(0));
    let mut out = Vec::new();
    for (seq, at) in [30, 20, 20, 10, 500].into_iter().enumerate() {
        orderer.push(event(at, 0, seq as u64), &mut |event: Event| out.push(event.at.0));
    }
    assert_eq!(out.last(), Some(&30));
}

/// Check that what is kept to find the oldest does not grow with events that are late again and again, nor rows with those that were.
#[test]
fn bounded_whatever_comes() {
    let mut orderer = Orderer::new(10, KtimeNs(0));
    orderer.max_waiting = 1_000;
    orderer.drained(&mark(1_000, &[]), &mut |_| unreachable!());
    orderer.push(event(5_000, 0, 0), &mut |_| unreachable!());
    let mut out = 0;
    (1..10_000).for_each(|seq| orderer.push(event(seq % 7, 0, seq), &mut |_| out += 1));
    assert_eq!((out, orderer.waiting), (9_999, 1));
    assert!(orderer.fronts.len() <= 2 + STALE_FRONTS, "{}", orderer.fronts.len());
    for cpu in 0..50 {
        (0..5_000).for_each(|seq| orderer.push(event(6_000, cpu, seq), &mut |_| {}));
    }
    let kept: usize = orderer.cpus.iter().map(|cpu| cpu.row.capacity()).sum();
    assert!(kept < 20_000, "room for {kept} events");
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

/// Check that an event waits for a mark that is past it, however old it becomes, and that of two marks the later one counts.
#[test]
fn waits_for_a_mark() {
    let mut orderer = Orderer::new(10, KtimeNs(0));
    let mut out = Vec::new();
    orderer.drained(&mark(0, &[]), &mut |_| unreachable!());
    for (seq, at) in [30, 10, 500].into_iter().enumerate() {
        orderer.push(event(at, 0, seq as u64), &mut |event: Event| out.push(event.at.0));
    }
    assert!(out.is_empty());
    orderer.drained(&mark(31, &[2]), &mut |event: Event| out.push(event.at.0));
    assert_eq!(out, [10, 30]);
    orderer.drained(&mark(20, &[1]), &mut |event: Event| out.push(event.at.0));
    orderer.push(event(25, 1, 0), &mut |event: Event| out.push(event.at.0));
    assert_eq!(out, [10, 30, 25]);
    assert_eq!(orderer.finish(&mut |event: Event| out.push(event.at.0)).late, 1);
}

/// Check that what is held stays held although a mark is past it.
#[test]
fn holds_against_marks() {
    let mut orderer = Orderer::new(10, KtimeNs(0));
    let mut out = Vec::new();
    orderer.hold(KtimeNs(15));
    for (seq, at) in [10, 20].into_iter().enumerate() {
        orderer.push(event(at, 0, seq as u64), &mut |event: Event| out.push(event.at.0));
    }
    orderer.drained(&mark(100, &[2]), &mut |event: Event| out.push(event.at.0));
    assert_eq!(out, [10]);
    orderer.hold(KtimeNs::MAX);
    orderer.push(event(101, 0, 2), &mut |event: Event| out.push(event.at.0));
    assert_eq!(out, [10, 20]);
}

/// Check that events do not wait without bound for a mark that never comes.
#[test]
fn marks_that_never_come() {
    let mut orderer = Orderer::new(10, KtimeNs(0));
    orderer.max_waiting = 100;
    orderer.drained(&mark(0, &[]), &mut |_| unreachable!());
    let mut out = 0;
    for seq in 0..1000 {
        orderer.push(event(seq, 0, seq), &mut |_| out += 1);
    }
    assert_eq!((out, orderer.waiting), (900, 100));
}

/// Check that records lost behind a CPU's last one, or with a whole CPU, are a gap up to the mark that counts them.
#[test]
fn gaps_at_marks() {
    let mut orderer = Orderer::new(10, KtimeNs(5));
    let mut release = |_: Event| {};
    orderer.push(event(10, 0, 0), &mut release);
    orderer.drained(&mark(20, &[3, 2]), &mut release);
    orderer.drained(&mark(30, &[3, 2]), &mut release);
    orderer.push(event(40, 0, 4), &mut release);
    let gap = |from, to, cpu, missing| SeqGap { from: KtimeNs(from), to: KtimeNs(to), cpu, missing };
    assert_eq!(orderer.finish(&mut release).gaps, [gap(5, 20, 1, 2), gap(10, 20, 0, 2), gap(30, 40, 0, 1)]);
}

/// Check that a gap that a mark lies in is one before the mark and one behind it.
#[test]
fn gaps_around_marks() {
    let mut orderer = Orderer::new(10, KtimeNs(5));
    let mut release = |_: Event| {};
    for (seq, at) in [(0, 10), (6, 50), (8, 60)] {
        orderer.push(event(at, 0, seq), &mut release);
    }
    orderer.drained(&mark(30, &[3]), &mut release);
    let gap = |from, to, missing| SeqGap { from: KtimeNs(from), to: KtimeNs(to), cpu: 0, missing };
    assert_eq!(orderer.finish(&mut release).gaps, [gap(10, 30, 2), gap(30, 50, 3), gap(50, 60, 1)]);
}

/// Check that the newest loss is bounded by the mark that counts it, and behind the last mark by the next record.
#[test]
fn newest_loss() {
    let lost_until = |marks: &[(u64, u64)], events: &[(u64, u64)]| {
        let mut orderer = Orderer::new(1000, KtimeNs(0));
        events.iter().for_each(|(at, seq)| orderer.push(event(*at, 0, *seq), &mut |_| {}));
        marks.iter().for_each(|(at, next)| orderer.drained(&mark(*at, &[*next]), &mut |_| {}));
        orderer.finish(&mut |_| {}).lost_until.0
    };
    assert_eq!(lost_until(&[(15, 1), (25, 3), (99, 3)], &[(10, 0), (20, 2)]), 25);
    assert_eq!(lost_until(&[(15, 1), (25, 2), (99, 2)], &[(10, 0), (20, 1)]), 0);
    assert_eq!(lost_until(&[(15, 1)], &[(10, 0), (20, 2)]), 20);
    assert_eq!(lost_until(&[], &[(10, 0), (20, 2)]), 20);
}

fn mark(at: u64, next_seq: &[u64]) -> Drained {
    Drained { at: KtimeNs(at), next_seq: next_seq.to_vec() }
}

/// Something that orders: ours, or one that is wrong.
trait Order {
    fn start(zero: KtimeNs) -> Self;
    fn push(&mut self, event: Event, release: &mut dyn FnMut(Event));
    fn drained(&mut self, mark: &Drained, release: &mut dyn FnMut(Event));
    fn finish(self, release: &mut dyn FnMut(Event)) -> OrderReport;
}

impl Order for Orderer {
    fn start(zero: KtimeNs) -> Self {
        Self::new(0, zero)
    }
    fn push(&mut self, event: Event, mut release: &mut dyn FnMut(Event)) {
        self.push(event, &mut release);
    }
    fn drained(&mut self, mark: &Drained, mut release: &mut dyn FnMut(Event)) {
        self.drained(mark, &mut release);
    }
    fn finish(self, mut release: &mut dyn FnMut(Event)) -> OrderReport {
        self.finish(&mut release)
    }
}

/// Broken: takes for drained what the newest CPU has reached, in place of all.
struct NewestCpu(Orderer);

impl Order for NewestCpu {
    fn start(zero: KtimeNs) -> Self {
        Self(Orderer::new(0, zero))
    }
    fn push(&mut self, event: Event, mut release: &mut dyn FnMut(Event)) {
        let reached = Drained { at: event.at, next_seq: Vec::new() };
        self.0.push(event, &mut release);
        self.0.drained(&reached, &mut release);
    }
    fn drained(&mut self, mark: &Drained, mut release: &mut dyn FnMut(Event)) {
        self.0.drained(mark, &mut release);
    }
    fn finish(self, mut release: &mut dyn FnMut(Event)) -> OrderReport {
        self.0.finish(&mut release)
    }
}

/// Broken: takes any mark for one about everything that has come so far.
struct AnyMark(Orderer);

impl Order for AnyMark {
    fn start(zero: KtimeNs) -> Self {
        Self(Orderer::new(0, zero))
    }
    fn push(&mut self, event: Event, mut release: &mut dyn FnMut(Event)) {
        self.0.push(event, &mut release);
    }
    fn drained(&mut self, mark: &Drained, mut release: &mut dyn FnMut(Event)) {
        self.0.drained(&Drained { at: KtimeNs::MAX, next_seq: mark.next_seq.clone() }, &mut release);
    }
    fn finish(self, mut release: &mut dyn FnMut(Event)) -> OrderReport {
        self.0.finish(&mut release)
    }
}

const CPUS: u16 = 3;

/// What happened, by time: when, on which CPU, and whether its record was delivered.
type Truth = Vec<(u64, u16, bool)>;

fn truths() -> impl Strategy<Value = Truth> {
    proptest::collection::vec((1u64..1000, 0..CPUS, prop::bool::weighted(0.8)), 1..60).prop_map(|mut truth| {
        truth.sort();
        truth
    })
}

/// Every event with its number, and whether it was delivered; by time.
fn numbered(truth: &Truth) -> Vec<(Event, bool)> {
    let mut seqs = [0; CPUS as usize];
    let number = |&(at, cpu, delivered): &(u64, u16, bool)| {
        let seq = seqs[cpu as usize];
        seqs[cpu as usize] += 1;
        (event(at, cpu, seq), delivered)
    };
    truth.iter().map(number).collect()
}

/// A truth, an order of arrival of what was delivered of it, and after how many arrivals there are marks.
fn arrivals() -> impl Strategy<Value = (Truth, Vec<Event>, Vec<usize>)> {
    truths().prop_flat_map(|truth| {
        let delivered: Vec<Event> =
            numbered(&truth).into_iter().filter(|(_, delivered)| *delivered).map(|(event, _)| event).collect();
        let marks = proptest::collection::vec(0..=delivered.len(), 0..8);
        (Just(truth), Just(delivered).prop_shuffle(), marks)
    })
}

/// The latest mark that is true although these are still to come.
fn honest_mark(truth: &Truth, to_come: &[Event]) -> Drained {
    let at = to_come.iter().map(|event| event.at.0).min().unwrap_or(2000) - 1;
    let made = |cpu| truth.iter().filter(|(when, of, _)| *of == cpu && *when <= at).count() as u64;
    mark(at, &(0..CPUS).map(made).collect::<Vec<_>>())
}

/// Whether what comes out is in order, nothing is late, and the gaps hold exactly what was not delivered, when it was made.
fn in_order<O: Order>(truth: &Truth, arrival: &[Event], marks: &[usize]) -> Result<(), TestCaseError> {
    let mut out = Vec::new();
    let mut release = |event: Event| out.push((event.at, event.cpu, event.seq));
    let mut orderer = O::start(KtimeNs(0));
    orderer.drained(&mark(0, &[]), &mut release);
    for (index, event) in arrival.iter().enumerate() {
        if marks.contains(&index) {
            orderer.drained(&honest_mark(truth, &arrival[index..]), &mut release);
        }
        orderer.push(event.clone(), &mut release);
    }
    orderer.drained(&honest_mark(truth, &[]), &mut release);
    let report = orderer.finish(&mut release);
    let mut sorted = out.clone();
    sorted.sort();
    prop_assert_eq!(&out, &sorted);
    prop_assert_eq!((report.events, report.late), (arrival.len() as u64, 0));
    let all = numbered(truth);
    let lost: Vec<&Event> = all.iter().filter(|(_, delivered)| !*delivered).map(|(event, _)| event).collect();
    prop_assert_eq!(report.missing(), lost.len() as u64);
    for event in lost {
        let holds = |gap: &SeqGap| gap.cpu == event.cpu && gap.from <= event.at && event.at <= gap.to;
        prop_assert!(report.gaps.iter().any(holds), "{:?} in none of {:?}", event, report.gaps);
    }
    Ok(())
}

/// Runs the property against an orderer; the first refutation, if there is one.
fn refuted<O: Order>() -> bool {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) };
    let run = |(truth, arrival, marks): (Truth, Vec<Event>, Vec<usize>)| in_order::<O>(&truth, &arrival, &marks);
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)).run(&arrivals(), run).is_err()
}

/// Check that events far out of order come out in order with the others.
#[test]
fn strays() {
    let times = (0..500u64).rev().chain([1000, 250]).chain(600..900);
    let events: Vec<Event> = times.enumerate().map(|(seq, at)| event(at, 0, seq as u64)).collect();
    let mut sorted: Vec<u64> = events.iter().map(|event| event.at.0).collect();
    sorted.sort_unstable();
    let (out, report) = run(5000, events);
    assert_eq!((out, report.late), (sorted, 0));
}

/// Check that any arrival that respects the marks comes out in order with its gaps; and that this would notice a watermark taken
/// from the newest CPU, and one that takes any mark for enough.
#[test]
fn arrivals_that_respect_marks() {
    assert!(!refuted::<Orderer>());
    assert!(refuted::<NewestCpu>(), "a watermark of the newest CPU passes");
    assert!(refuted::<AnyMark>(), "a watermark at any mark passes");
}

proptest! {
    /// Check that any arrival order within the window gives the same order and the same gaps.
    #[test]
    fn permutations_agree((truth, arrival, _) in arrivals()) {
        let kept = numbered(&truth).into_iter().filter(|(_, delivered)| *delivered).map(|(event, _)| event);
        prop_assert_eq!(run(2000, kept), run(2000, arrival));
    }
}
