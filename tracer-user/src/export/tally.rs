//! Counts goroutines, their waits and their delays by creation site and by depth in the tree of creation, while a recording
//! is replayed.

use hdrhistogram::Histogram;
use rustc_hash::FxHashMap;
use serde::Serialize;
use tracer_common::summing::middle_ns;

use crate::{
    clock::KtimeNs,
    correlate::{
        Census, LabelsId, Life, LifeEnd, ReasonId, Sink, Span, SpanState, SumOfMany,
        gc::{Cycle, Pause},
        goroutine::{SiteKey, Who},
        process::ImageId,
        sample::Sample,
        thread::{ThreadLife, ThreadSpan, ThreadWho},
        unit::{UnitSpan, UnitWho},
    },
    finding::FindingTally,
    id::Address,
    recording::contract::Tier,
};

use super::{
    cpu::CpuTally, gc::GcTally, labels::LabelTally, series::tally::SeriesTally, threads::ThreadTally, units::UnitTally,
    windows::Windows,
};

/// Goroutines of one site.
#[derive(Clone, Debug, Default)]
pub struct SiteTally {
    pub population: Population,
    pub blocked_ns: u64,
    pub running_ns: u64,
    pub syscall_ns: u64,
    /// Delays between being able to run and running.
    pub runnable: Waits,
    pub waits: FxHashMap<Option<ReasonId>, Waits>,
    /// Set aside for their stacks when somebody looked last.
    pub stack_bytes: Option<u64>,
    /// CPU time of its goroutines, as far as samples knew whose it was.
    pub oncpu_ns: u64,
    /// When each of those that are alive at the end was last known to live.
    pub alive_known: Vec<KtimeNs>,
}

/// Deeper goroutines are counted as of this depth: a chain in which each makes the next must not make a table of its own.
pub const MAX_DEPTH: u32 = 64;

/// Goroutines of one depth in the tree of creation that run the same function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DepthKey {
    pub image: ImageId,
    pub depth: u32,
    /// Tells the runtime's own goroutines from others; `None` where the birth was not seen.
    pub startpc: Option<Address>,
}

impl DepthKey {
    fn of(who: &Who) -> Self {
        let startpc = who.origin.map(|origin| origin.startpc);
        Self { image: who.image, depth: who.depth.min(MAX_DEPTH), startpc }
    }
}

/// Goroutines of one depth.
#[derive(Clone, Debug, Default)]
pub struct DepthTally {
    pub born: u64,
    pub running_ns: u64,
    pub runnable: Waits,
    pub blocked: Waits,
}

impl DepthTally {
    pub fn add(&mut self, other: &Self) {
        self.born += other.born;
        self.running_ns = self.running_ns.saturating_add(other.running_ns);
        self.runnable.add(&other.runnable);
        self.blocked.add(&other.blocked);
    }
}

/// How many there were: `born + preexisting = exited + gone + alive`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Population {
    /// Births that events told of, and those that a look at the process showed to be lost.
    pub born: u64,
    pub exited: u64,
    /// Their exit was lost: a look at the process, or another of their number, showed that they had ended.
    pub gone: u64,
    /// When the process or the recording ended.
    pub alive: u64,
    /// Of `alive`, those who may have ended: records were lost since they were last heard of or seen.
    pub unconfirmed: u64,
    /// Met without a birth: they lived before the recording, or their birth was lost.
    pub preexisting: u64,
}

impl Population {
    fn add_life(&mut self, who: &Who, life: &Life) {
        let born = who.born_at.or(who.born_by).is_some();
        let ended = |end| u64::from(life.end == end);
        let of = |born: bool| u64::from(born);
        self.add(&Self {
            born: of(born),
            preexisting: of(!born),
            exited: ended(LifeEnd::Exit),
            gone: ended(LifeEnd::Gone),
            alive: u64::from(life.alive_at_end()),
            unconfirmed: 0,
        });
    }

    pub fn add(&mut self, other: &Self) {
        self.born = self.born.saturating_add(other.born);
        self.exited = self.exited.saturating_add(other.exited);
        self.gone = self.gone.saturating_add(other.gone);
        self.alive = self.alive.saturating_add(other.alive);
        self.unconfirmed = self.unconfirmed.saturating_add(other.unconfirmed);
        self.preexisting = self.preexisting.saturating_add(other.preexisting);
    }

    /// All that were ever seen.
    pub fn seen(&self) -> u64 {
        self.born.saturating_add(self.preexisting)
    }
}

/// Times of one kind of wait: block times of a reason, or delays in the queue. Waits that were still going on at the end count with the time they had.
#[derive(Clone, Debug)]
pub struct Waits {
    pub count: u64,
    pub total_ns: u64,
    pub max_ns: u64,
    /// Two significant digits: quantiles are within a hundredth.
    histogram: Histogram<u32>,
}

impl Default for Waits {
    fn default() -> Self {
        let histogram = Histogram::new(2).expect("two digits are within the limits");
        Self { count: 0, total_ns: 0, max_ns: 0, histogram }
    }
}

impl Waits {
    /// Adds one.
    pub fn record(&mut self, ns: u64) {
        self.count = self.count.saturating_add(1);
        self.total_ns = self.total_ns.saturating_add(ns);
        self.max_ns = self.max_ns.max(ns);
        // It resizes itself; a value beyond all limits (centuries) is left out of the quantiles alone.
        let _ = self.histogram.record(ns);
    }

    pub fn add(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.total_ns = self.total_ns.saturating_add(other.total_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
        let _ = self.histogram.add(&other.histogram);
    }

    /// Adds many that were counted by how long they were, roughly ([`tracer_common::summing`]).
    pub fn add_sum(&mut self, sum: &SumOfMany<'_>) {
        self.count = self.count.saturating_add(sum.count);
        self.total_ns = self.total_ns.saturating_add(sum.total_ns);
        for &(bucket, count) in sum.buckets {
            let middle = middle_ns(usize::from(bucket));
            self.max_ns = self.max_ns.max(middle);
            let _ = self.histogram.record_n(middle, count);
        }
    }

    /// The time that the share `quantile` of the waits does not exceed.
    pub fn quantile_ns(&self, quantile: f64) -> u64 {
        self.histogram.value_at_quantile(quantile).min(self.max_ns)
    }
}

/// The sink.
#[derive(Default)]
pub struct Tally {
    pub sites: FxHashMap<SiteKey, SiteTally>,
    pub depths: FxHashMap<DepthKey, DepthTally>,
    pub cpu: CpuTally,
    pub gc: GcTally,
    pub findings: FindingTally,
    pub labels: LabelTally,
    pub series: SeriesTally,
    pub threads: ThreadTally,
    pub units: UnitTally,
    pub windows: Windows,
    pub summed: SummedTally,
}

/// What was summed instead of told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SummedTally {
    pub lives: u64,
    pub waits: u64,
    pub waits_ns: u64,
}

impl Sink for Tally {
    fn begin(&mut self, zero: KtimeNs) {
        self.series.begin(zero);
    }

    fn born(&mut self, who: &Who) {
        self.windows.born(who);
    }

    fn summed(&mut self, sum: &SumOfMany<'_>) {
        let site = self.sites.entry(sum.site).or_default();
        if sum.lives {
            site.population.born = site.population.born.saturating_add(sum.count);
            site.population.exited = site.population.exited.saturating_add(sum.count);
            self.summed.lives = self.summed.lives.saturating_add(sum.count);
        } else {
            self.summed.waits = self.summed.waits.saturating_add(sum.count);
            self.summed.waits_ns = self.summed.waits_ns.saturating_add(sum.total_ns);
            site.blocked_ns = site.blocked_ns.saturating_add(sum.total_ns);
            site.waits.entry(sum.reason).or_default().add_sum(sum);
        }
        self.windows.summed(sum);
    }

    fn covered(&mut self, image: ImageId, tier: Tier, at: KtimeNs) {
        self.windows.cover(image, tier, at);
    }

    fn span(&mut self, who: &Who, span: &Span) {
        self.findings.span(who, span);
        self.windows.span(who, span);
        self.labels.span(who, span);
        let ns = span.end.since(span.start);
        if matches!(span.state, SpanState::Awake | SpanState::Unknown) {
            return;
        }
        let site = self.sites.entry(SiteKey::of(who)).or_default();
        let depth = self.depths.entry(DepthKey::of(who)).or_default();
        match span.state {
            SpanState::Blocked => {
                site.blocked_ns = site.blocked_ns.saturating_add(ns);
                site.waits.entry(span.reason).or_default().record(ns);
                depth.blocked.record(ns);
            }
            SpanState::Runnable => {
                site.runnable.record(ns);
                depth.runnable.record(ns);
            }
            SpanState::Running => {
                site.running_ns = site.running_ns.saturating_add(ns);
                depth.running_ns = depth.running_ns.saturating_add(ns);
            }
            SpanState::Syscall => site.syscall_ns = site.syscall_ns.saturating_add(ns),
            SpanState::Awake | SpanState::Unknown => {}
        }
    }

    fn life(&mut self, who: &Who, life: &Life) {
        let site = self.sites.entry(SiteKey::of(who)).or_default();
        site.population.add_life(who, life);
        if life.alive_at_end() {
            site.alive_known.push(life.last_known);
        }
        self.labels.life(who);
        self.findings.life(who, life);
        self.depths.entry(DepthKey::of(who)).or_default().born += u64::from(who.born_at.is_some());
        self.series.life(who, life);
    }

    fn labels(&mut self, who: &Who, _at: KtimeNs, labels: LabelsId) {
        self.labels.labels(who, labels);
    }

    fn census(&mut self, image: ImageId, census: &Census) {
        if !census.knows_stacks() {
            return;
        }
        // Who is not in it has no stack any more.
        for (_, site) in self.sites.iter_mut().filter(|(key, _)| key.image == image) {
            site.stack_bytes = Some(0);
        }
        for ((gopc, startpc), site) in &census.sites {
            let key = SiteKey { image, gopc: Some(*gopc), startpc: Some(*startpc) };
            self.sites.entry(key).or_default().stack_bytes = Some(site.stack_bytes);
        }
        self.series.census(image, census);
    }

    fn pause(&mut self, image: ImageId, pause: &Pause) {
        self.gc.pause(image, pause);
        self.findings.pause(image, pause);
        self.series.pause(image, pause);
    }

    fn cycle(&mut self, image: ImageId, cycle: &Cycle) {
        self.gc.cycle(image, cycle);
        self.findings.cycle(image, cycle);
        self.series.cycle(image, cycle);
    }

    fn thread_span(&mut self, who: &ThreadWho, span: &ThreadSpan) {
        self.threads.span(who, span);
    }

    fn thread_life(&mut self, who: &ThreadWho, life: &ThreadLife) {
        self.threads.life(who, life);
    }

    fn sample(&mut self, image: ImageId, sample: &Sample) {
        self.cpu.sample(image, sample);
        if let Some(who) = &sample.who {
            let oncpu_ns = &mut self.sites.entry(SiteKey::of(who)).or_default().oncpu_ns;
            *oncpu_ns = oncpu_ns.saturating_add(sample.ns);
        }
    }

    fn unit_span(&mut self, who: &UnitWho, span: &UnitSpan) {
        self.units.span(who, span);
    }

    fn unit_life(&mut self, who: &UnitWho, life: &Life) {
        self.units.life(who, life);
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

    /// Check that sums beyond all reason are too large, and no more than that.
    #[test]
    fn hostile_sums() {
        let site = SiteKey { image: ImageId(0), gopc: None, startpc: None };
        let sum = |lives| SumOfMany {
            site,
            lives,
            reason: None,
            stack: None,
            at: KtimeNs(1),
            count: u64::MAX,
            total_ns: u64::MAX,
            buckets: &[(255, u32::MAX), (0, u32::MAX)],
        };
        let mut tally = Tally::default();
        for lives in [true, false, true, false] {
            tally.summed(&sum(lives));
        }
        let mut all = tally.sites[&site].population;
        all.add(&tally.sites[&site].population);
        assert_eq!((all.born, all.seen()), (u64::MAX, u64::MAX));
        let mut waits = tally.sites[&site].waits[&None].clone();
        waits.record(1);
        assert_eq!(waits.count, u64::MAX);
    }
}
