//! Faults that tests provoke: records that never were, and a reader that stands still. Nothing of this happens without a knob.

use std::time::Duration;

use tracer_common::header::{Header, Kind};

use crate::clock::KtimeNs;

const NS_PER_MS: u64 = 1_000_000;
/// For how long records of one kind are dropped, if nothing else is said.
const DROP_FOR_MS: u32 = 2000;

/// What is to go wrong. Times count from the first record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Of a thousand records, so many are dropped, each by chance.
    drop_permille: u64,
    drop_seed: u64,
    /// Every record of this kind is dropped, from when to when.
    drop_kind: Option<u8>,
    drop_span: (u64, u64),
    /// The reader stops once, from when on and for how long.
    freeze: Option<(u64, Duration)>,
}

impl Faults {
    /// Reads the knobs; `None`: nothing is to go wrong.
    pub fn from_knobs(knob: impl Fn(&str) -> Option<u32>) -> Option<Self> {
        let ns = |name, default| u64::from(knob(name).unwrap_or(default)) * NS_PER_MS;
        let drop_from = ns("drop-from-ms", 0);
        let faults = Self {
            drop_permille: knob("drop-permille").unwrap_or(0).into(),
            drop_seed: knob("drop-seed").unwrap_or(1).into(),
            drop_kind: knob("drop-kind").map(|kind| kind.min(u8::MAX.into()) as u8),
            drop_span: (drop_from, drop_from.saturating_add(ns("drop-for-ms", DROP_FOR_MS))),
            freeze: knob("freeze-ms").map(|ms| (ns("freeze-from-ms", 0), Duration::from_millis(ms.into()))),
        };
        (faults.drop_permille > 0 || faults.drop_kind.is_some() || faults.freeze.is_some()).then_some(faults)
    }
}

/// Makes them happen.
#[derive(Debug)]
pub struct Injector {
    faults: Faults,
    /// When the first record was made.
    zero: Option<KtimeNs>,
    state: u64,
    frozen: bool,
}

impl Injector {
    pub fn new(faults: Faults) -> Self {
        Self { faults, zero: None, state: faults.drop_seed, frozen: false }
    }

    /// Whether this record is to be as if it had not fitted into the ring.
    pub fn drops(&mut self, header: &Header) -> bool {
        let at = KtimeNs(header.ktime_ns);
        let age = at.since(*self.zero.get_or_insert(at));
        let (from, to) = self.faults.drop_span;
        let silenced = self.faults.drop_kind == Some(header.kind) && (from..to).contains(&age);
        // A process's first hit is sent until it fits: that it never comes cannot happen by chance.
        let repeated = header.kind == Kind::ProcessImage as u8;
        silenced || self.next() % 1000 < self.faults.drop_permille && !repeated
    }

    /// For how long the reader is to stop now, if it is.
    pub fn freeze(&mut self, now: KtimeNs) -> Option<Duration> {
        let (from, lasting) = self.faults.freeze.filter(|_| !self.frozen)?;
        self.frozen = now.since(self.zero?) >= from;
        self.frozen.then_some(lasting)
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): the same seed drops the same records of the same sequence.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(knobs: &[(&str, u32)]) -> Option<Faults> {
        Faults::from_knobs(|wanted| knobs.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value))
    }

    fn header(at_ms: u64, kind: Kind) -> Header {
        let ktime_ns = 5_000_000_000 + at_ms * NS_PER_MS;
        Header { ktime_ns, seq: 0, tgid: 1, tid: 1, cpu: 0, binary: 1, site: 0, kind: kind as u8, _pad: 0 }
    }

    /// Check that nothing goes wrong without a knob that makes it.
    #[test]
    fn none_by_default() {
        assert_eq!(faults(&[]), None);
        assert_eq!(faults(&[("drop-seed", 7), ("ring-bytes", 4096)]), None);
    }

    /// Check that about as many records are dropped as were asked for, and the same ones each time.
    #[test]
    fn by_chance() {
        let dropped = || {
            let mut injector = Injector::new(faults(&[("drop-permille", 100)]).unwrap());
            (0..10_000).filter(|at| injector.drops(&header(*at, Kind::GoroutinePark))).collect::<Vec<_>>()
        };
        assert!((900..1100).contains(&dropped().len()), "{}", dropped().len());
        assert_eq!(dropped(), dropped());
        let mut injector = Injector::new(faults(&[("drop-permille", 1000)]).unwrap());
        assert!(injector.drops(&header(0, Kind::GoroutinePark)) && !injector.drops(&header(0, Kind::ProcessImage)));
    }

    /// Check that records of one kind are dropped in their time, and no others.
    #[test]
    fn by_kind() {
        let mut injector = Injector::new(faults(&[("drop-kind", 5), ("drop-from-ms", 10), ("drop-for-ms", 20)]).unwrap());
        let mut drops = |at, kind| injector.drops(&header(at, kind));
        assert!(!drops(0, Kind::GoroutineExit));
        assert!(drops(10, Kind::GoroutineExit) && drops(29, Kind::GoroutineExit));
        assert!(!drops(15, Kind::GoroutinePark) && !drops(30, Kind::GoroutineExit));
    }

    /// Check that the reader stops once, so long after the first record.
    #[test]
    fn freezes_once() {
        let mut injector = Injector::new(faults(&[("freeze-ms", 300), ("freeze-from-ms", 5)]).unwrap());
        let at = |ms| KtimeNs(5_000_000_000 + ms * NS_PER_MS);
        assert_eq!(injector.freeze(at(0)), None);
        injector.drops(&header(0, Kind::GoroutineBirth));
        assert_eq!(injector.freeze(at(4)), None);
        assert_eq!(injector.freeze(at(6)), Some(Duration::from_millis(300)));
        assert_eq!(injector.freeze(at(7)), None);
    }
}
