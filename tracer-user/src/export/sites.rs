//! Counts by creation site: what a report is made of.

use hdrhistogram::Histogram;
use rustc_hash::FxHashMap;

use crate::{
    correlate::{Life, LifeEnd, ReasonId, Sink, Span, SpanState, goroutine::Who, process::ImageId},
    id::Address,
};

/// Where goroutines of an image were created, and what they began to execute. Both are `None` for those whose birth was not
/// seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteKey {
    pub image: ImageId,
    pub gopc: Option<Address>,
    pub startpc: Option<Address>,
}

impl SiteKey {
    pub fn of(who: &Who) -> Self {
        Self { image: who.image, gopc: who.origin.map(|origin| origin.gopc), startpc: who.origin.map(|origin| origin.startpc) }
    }
}

/// How often and how long goroutines of a site waited for one reason.
#[derive(Debug)]
pub struct Waits {
    /// Waits, those that never ended included.
    pub count: u64,
    pub blocked_ns: u64,
    /// Durations, in ns, to three digits.
    pub durations: Histogram<u64>,
}

impl Default for Waits {
    fn default() -> Self {
        Self { count: 0, blocked_ns: 0, durations: Histogram::new(3).expect("three digits are allowed") }
    }
}

/// What is known of the goroutines of one site.
#[derive(Debug, Default)]
pub struct Site {
    pub born: u64,
    pub exited: u64,
    /// Alive when their process or the recording ended.
    pub alive: u64,
    /// Gone, but their exit was lost.
    pub gone: u64,
    /// They lived before they were seen.
    pub preexisting: u64,
    /// `None` is a reason that the Go version's table does not know.
    pub waits: FxHashMap<Option<ReasonId>, Waits>,
}

/// Gathers sites while a recording is replayed.
#[derive(Default)]
pub struct Sites {
    pub by_key: FxHashMap<SiteKey, Site>,
}

impl Sink for Sites {
    fn span(&mut self, who: &Who, span: &Span) {
        if span.state != SpanState::Blocked {
            return;
        }
        let waits = self.by_key.entry(SiteKey::of(who)).or_default().waits.entry(span.reason).or_default();
        let lasted = span.end.since(span.start);
        waits.count += 1;
        waits.blocked_ns += lasted;
        // It resizes itself, and holds any u64.
        let _ = waits.durations.record(lasted.max(1));
    }

    fn life(&mut self, who: &Who, life: &Life) {
        let site = self.by_key.entry(SiteKey::of(who)).or_default();
        match who.born_at {
            Some(_) => site.born += 1,
            None => site.preexisting += 1,
        }
        match life.end {
            LifeEnd::Exit => site.exited += 1,
            LifeEnd::ProcessEnd | LifeEnd::RecordingEnd => site.alive += 1,
            LifeEnd::Gone => site.gone += 1,
        }
    }
}
