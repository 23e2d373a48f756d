//! Counts goroutines and their waits by creation site while a recording is replayed.

use hdrhistogram::Histogram;
use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::{
    correlate::{Life, LifeEnd, ReasonId, Sink, Span, SpanState, goroutine::Who, process::ImageId},
    id::Address,
};

/// Where goroutines are made and what they run; both `None` where the birth was not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteKey {
    pub image: ImageId,
    pub gopc: Option<Address>,
    pub startpc: Option<Address>,
}

impl SiteKey {
    pub fn of(who: &Who) -> Self {
        let origin = who.origin.as_ref();
        Self { image: who.image, gopc: origin.map(|origin| origin.gopc), startpc: origin.map(|origin| origin.startpc) }
    }
}

/// Goroutines of one site.
#[derive(Clone, Debug, Default)]
pub struct SiteTally {
    pub population: Population,
    pub blocked_ns: u64,
    pub waits: FxHashMap<Option<ReasonId>, Waits>,
}

/// How many there were. `born + preexisting = exited + alive` plus those whose exit was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Population {
    pub born: u64,
    pub exited: u64,
    /// When the process or the recording ended.
    pub alive: u64,
    /// Met without a birth: they lived before the recording, or their birth was lost.
    pub preexisting: u64,
}

impl Population {
    fn add_life(&mut self, who: &Who, life: &Life) {
        *(if who.born_at.is_some() { &mut self.born } else { &mut self.preexisting }) += 1;
        self.exited += u64::from(life.end == LifeEnd::Exit);
        self.alive += u64::from(life.alive_at_end());
    }

    pub fn add(&mut self, other: &Self) {
        self.born += other.born;
        self.exited += other.exited;
        self.alive += other.alive;
        self.preexisting += other.preexisting;
    }

    /// All that were ever seen.
    pub fn seen(&self) -> u64 {
        self.born + self.preexisting
    }
}

/// Block times of one reason. Waits that were still going on at the end count with the time they had.
#[derive(Clone, Debug)]
pub struct Waits {
    pub count: u64,
    pub blocked_ns: u64,
    pub max_ns: u64,
    /// Two significant digits: quantiles are within a hundredth.
    histogram: Histogram<u32>,
}

impl Default for Waits {
    fn default() -> Self {
        let histogram = Histogram::new(2).expect("two digits are within the limits");
        Self { count: 0, blocked_ns: 0, max_ns: 0, histogram }
    }
}

impl Waits {
    fn record(&mut self, ns: u64) {
        self.count += 1;
        self.blocked_ns = self.blocked_ns.saturating_add(ns);
        self.max_ns = self.max_ns.max(ns);
        // It resizes itself; a value beyond all limits (centuries) is left out of the quantiles alone.
        let _ = self.histogram.record(ns);
    }

    pub fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.blocked_ns = self.blocked_ns.saturating_add(other.blocked_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
        let _ = self.histogram.add(&other.histogram);
    }

    /// The block time that the share `quantile` of the waits does not exceed.
    pub fn quantile_ns(&self, quantile: f64) -> u64 {
        self.histogram.value_at_quantile(quantile).min(self.max_ns)
    }
}

/// The sink.
#[derive(Default)]
pub struct Tally {
    pub sites: FxHashMap<SiteKey, SiteTally>,
}

impl Sink for Tally {
    fn span(&mut self, who: &Who, span: &Span) {
        if span.state != SpanState::Blocked {
            return;
        }
        let site = self.sites.entry(SiteKey::of(who)).or_default();
        let ns = span.end.since(span.start);
        site.blocked_ns = site.blocked_ns.saturating_add(ns);
        site.waits.entry(span.reason).or_default().record(ns);
    }

    fn life(&mut self, who: &Who, life: &Life) {
        self.sites.entry(SiteKey::of(who)).or_default().population.add_life(who, life);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that quantiles never exceed the largest value, and merging adds up.
    #[test]
    fn quantiles() {
        let mut all = Waits::default();
        for ns in 1..=1000 {
            let mut one = Waits::default();
            one.record(ns * 1_000_000);
            all.add(&one);
        }
        assert_eq!((all.count, all.max_ns), (1000, 1_000_000_000));
        assert!((495_000_000..=510_000_000).contains(&all.quantile_ns(0.5)), "{}", all.quantile_ns(0.5));
        assert_eq!(all.quantile_ns(1.0), 1_000_000_000);
    }
}
