//! What is kept of goroutines while a recording is replayed: how long those lived that ended, and where those are blocked that did not.

use hdrhistogram::Histogram;
use rustc_hash::FxHashMap;

use super::tests::Tests;
use crate::{
    clock::KtimeNs,
    correlate::{
        Life, LifeEnd, ReasonId, Sink, Span, SpanState, TestName, WokenBy,
        goroutine::{SiteKey, Who},
        process::ImageId,
    },
    id::{Address, Goid, StackId},
};

/// Of those that ended, nine of ten lived no longer.
const MOST: f64 = 0.9;
/// If fewer than one of so many has ended, those that did say nothing of the others: a leaking site may serve one good caller.
const MIN_ENDED: u64 = 20;

/// The sink.
#[derive(Default)]
pub struct LeakTally {
    living: FxHashMap<(ImageId, Goid), Waiting>,
    pub(super) sites: FxHashMap<SiteKey, Site>,
    pub(super) tests: Tests,
}

/// Where a goroutine blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    pub reason: Option<ReasonId>,
    pub stack: Option<StackId>,
    pub object: Option<Address>,
    /// Its newest wait began then.
    pub blocked_since: KtimeNs,
    /// Since then it has blocked at this stack alone.
    pub here_since: KtimeNs,
    /// How often it was woken since, and whether by anything but timers.
    pub wakes: u32,
    pub by_timers_alone: bool,
    /// It goes on at the end of what is known.
    pub until: KtimeNs,
}

/// The goroutines of one site.
#[derive(Default)]
pub(super) struct Site {
    /// Lifetimes of those that ended.
    ended: Option<Histogram<u32>>,
    pub born: u64,
    pub exited: u64,
    pub alive: Vec<Survivor>,
}

/// One that is alive at the end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Survivor {
    pub goid: Goid,
    /// Its birth, or the first that is known of it.
    pub since: KtimeNs,
    pub last_known: KtimeNs,
    pub ended_at: KtimeNs,
    /// It lived until its process ended.
    pub outlived_all: bool,
    /// `None`: it is not known to be blocked.
    pub waiting: Option<Waiting>,
    pub parent_stack: Option<StackId>,
}

impl Site {
    /// The time that most of the ended did not outlive; `None`: (almost) none has ended.
    pub fn ended_within_ns(&self) -> Option<u64> {
        let ended = self.ended.as_ref().filter(|_| self.exited > 0 && self.exited.saturating_mul(MIN_ENDED) >= self.born)?;
        Some(ended.value_at_quantile(MOST))
    }

    fn ended(&mut self, ns: u64) {
        let made = || Histogram::new(2).ok();
        if self.ended.is_none() {
            self.ended = made();
        }
        if let Some(ended) = &mut self.ended {
            // One beyond all limits (centuries) is left out.
            let _ = ended.record(ns);
        }
    }
}

impl Sink for LeakTally {
    fn span(&mut self, who: &Who, span: &Span) {
        let key = (who.image, who.goid);
        match (span.state, self.living.get_mut(&key)) {
            (SpanState::Blocked, Some(waiting)) if (waiting.stack, waiting.reason) == (span.stack, span.reason) => {
                waiting.blocked_since = span.start;
                waiting.until = span.end;
                waiting.object = span.object;
                waiting.woken(span.woken_by);
            }
            (SpanState::Blocked, _) => {
                let mut waiting = Waiting {
                    reason: span.reason,
                    stack: span.stack,
                    object: span.object,
                    blocked_since: span.start,
                    here_since: span.start,
                    wakes: 0,
                    by_timers_alone: true,
                    until: span.end,
                };
                waiting.woken(span.woken_by);
                self.living.insert(key, waiting);
            }
            _ => {}
        }
    }

    fn life(&mut self, who: &Who, life: &Life) {
        self.tests.life(who, life);
        let waiting = self.living.remove(&(who.image, who.goid));
        let site = self.sites.entry(SiteKey::of(who)).or_default();
        site.born += 1;
        if !life.alive_at_end() {
            site.exited += 1;
            site.ended(life.ended_at.since(who.since));
            return;
        }
        site.alive.push(Survivor {
            goid: who.goid,
            since: who.since,
            last_known: life.last_known,
            ended_at: life.ended_at,
            outlived_all: life.end == LifeEnd::ProcessEnd,
            // A wait that ended before the life did is over.
            waiting: waiting.filter(|waiting| waiting.until >= life.ended_at),
            parent_stack: who.origin.and_then(|origin| origin.stack),
        });
    }

    fn test_run(&mut self, image: ImageId, by: Option<Goid>, at: KtimeNs, name: &TestName) {
        self.tests.started(image, by, at, name);
    }
}

impl Waiting {
    fn woken(&mut self, by: Option<WokenBy>) {
        if let Some(by) = by {
            self.wakes = self.wakes.saturating_add(1);
            self.by_timers_alone &= by == WokenBy::Timer;
        }
    }
}
