//! What is kept of goroutines while a recording is replayed: how long those lived that ended, where those are blocked that did not, and who
//! last did something about what they wait on.

use hdrhistogram::Histogram;
use rustc_hash::{FxHashMap, FxHashSet};
use tracer_common::summing::middle_ns;

use super::{tests::Tests, threads::ThreadTally};
use crate::{
    clock::KtimeNs,
    correlate::{
        Census, LabelsId, Life, LifeEnd, ReasonId, Sink, Slots, Span, SpanState, SumOfMany, TestName, WokenBy,
        goroutine::{SiteKey, Who},
        process::ImageId,
        thread::{ThreadLife, ThreadSpan, ThreadWho},
    },
    id::{Address, Goid, StackId},
    recording::contract::Tier,
};

/// Of those that ended, nine of ten lived no longer.
const MOST: f64 = 0.9;
/// If fewer than one of so many has ended, those that did say nothing of the others: a leaking site may serve one good caller.
const MIN_ENDED: u64 = 20;
/// Objects of which it is known who last touched them. When there are more, all are forgotten that nobody waits on.
const MAX_TOUCHED: usize = 1 << 20;

/// The sink.
#[derive(Default)]
pub struct LeakTally {
    living: FxHashMap<ImageId, Living>,
    touched: FxHashMap<(ImageId, Address), Touch>,
    pub(super) sites: FxHashMap<SiteKey, Site>,
    pub(super) tests: Tests,
    pub(super) threads: ThreadTally,
    /// When the newest look began that found all goroutines of an image.
    pub(super) looked_at: FxHashMap<ImageId, KtimeNs>,
}

/// What is known of the living goroutines of an image, by their slots.
#[derive(Default)]
struct Living {
    waiting: Slots<Waiting>,
    labels: Slots<LabelsId>,
}

/// Somebody who waited on an object went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Touch {
    pub by: Goid,
    pub woken_by: Option<WokenBy>,
    pub at: KtimeNs,
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
    /// All that were seen; those of them whose birth was not lived before they were.
    lives: u64,
    found: u64,
    exited: u64,
    pub alive: Vec<Survivor>,
}

/// One that is alive at the end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Survivor {
    pub goid: Goid,
    /// Its birth, or the first that is known of it.
    pub since: KtimeNs,
    /// It was born while its process was followed.
    pub born: bool,
    pub last_known: KtimeNs,
    pub ended_at: KtimeNs,
    /// It lived until its process ended.
    pub outlived_all: bool,
    /// `None`: it is not known to be blocked.
    pub waiting: Option<Waiting>,
    pub parent_stack: Option<StackId>,
    pub labels: Option<LabelsId>,
    /// As the newest look at it found; `None`: there was none, or it did not tell.
    pub stack_bytes: Option<u64>,
    /// The newest look found that Go's collector had proven it leaked.
    pub leaked: bool,
}

impl Site {
    /// The time that most of the ended did not outlive; `None`: (almost) none has ended.
    pub fn ended_within_ns(&self) -> Option<u64> {
        ended_within_ns(self.ended.as_ref(), self.exited, self.lives)
    }

    /// By how many there are more of them at the end than there were when their process came to be followed.
    pub fn risen(&self) -> i64 {
        self.alive.len() as i64 - i64::try_from(self.found).unwrap_or(i64::MAX)
    }
}

/// The time that most of the ended did not outlive; `None`: (almost) none of all the `lives` has.
pub(crate) fn ended_within_ns(ended: Option<&Histogram<u32>>, exited: u64, lives: u64) -> Option<u64> {
    let ended = ended.filter(|_| exited > 0 && exited.saturating_mul(MIN_ENDED) >= lives)?;
    Some(ended.value_at_quantile(MOST))
}

/// Counts lives that ended.
pub(crate) fn record(ended: &mut Option<Histogram<u32>>, ns: u64, count: u64) {
    if ended.is_none() {
        *ended = Histogram::new(2).ok();
    }
    if let Some(ended) = ended {
        // One beyond all limits (centuries) is left out.
        let _ = ended.record_n(ns, count.try_into().unwrap_or(u32::MAX));
    }
}

impl Sink for LeakTally {
    fn span(&mut self, who: &Who, span: &Span) {
        if span.state != SpanState::Blocked {
            return;
        }
        if let (Some(object), Some(_)) = (span.object, span.woken_by) {
            self.touch((who.image, object), Touch { by: who.goid, woken_by: span.woken_by, at: span.end });
        }
        let place = self.living.entry(who.image).or_default().waiting.place(who.slot);
        let before = place.filter(|before| (before.stack, before.reason) == (span.stack, span.reason));
        let (here_since, wakes, by_timers_alone) =
            before.map_or((span.start, 0, true), |before| (before.here_since, before.wakes, before.by_timers_alone));
        *place = Some(Waiting {
            reason: span.reason,
            stack: span.stack,
            object: span.object,
            blocked_since: span.start,
            here_since,
            wakes: wakes.saturating_add(u32::from(span.woken_by.is_some())),
            by_timers_alone: by_timers_alone && span.woken_by.is_none_or(|by| by == WokenBy::Timer),
            until: span.end,
        });
    }

    fn life(&mut self, who: &Who, life: &Life) {
        self.tests.life(who, life);
        let living = self.living.get_mut(&who.image);
        let (waiting, labels) =
            living.map_or((None, None), |living| (living.waiting.take(who.slot), living.labels.take(who.slot)));
        let site = self.sites.entry(SiteKey::of(who)).or_default();
        let born = who.born_at.is_some() || who.born_by.is_some();
        site.lives = site.lives.saturating_add(1);
        site.found += u64::from(!born);
        if !life.alive_at_end() {
            site.exited = site.exited.saturating_add(1);
            record(&mut site.ended, life.ended_at.since(who.since), 1);
            return;
        }
        site.alive.push(Survivor {
            goid: who.goid,
            since: who.since,
            born,
            last_known: life.last_known,
            ended_at: life.ended_at,
            outlived_all: life.end == LifeEnd::ProcessEnd,
            // A wait that ended before the life did is over.
            waiting: waiting.filter(|waiting| waiting.until >= life.ended_at),
            parent_stack: who.origin.and_then(|origin| origin.stack),
            labels,
            stack_bytes: life.looked_at.stack_bytes(),
            leaked: life.looked_at.leaked,
        });
    }

    fn summed(&mut self, sum: &SumOfMany<'_>) {
        if !sum.lives {
            return;
        }
        let site = self.sites.entry(sum.site).or_default();
        site.lives = site.lives.saturating_add(sum.count);
        site.exited = site.exited.saturating_add(sum.count);
        for &(bucket, count) in sum.buckets {
            record(&mut site.ended, middle_ns(usize::from(bucket)), u64::from(count));
        }
    }

    fn covered(&mut self, image: ImageId, _tier: Tier, _at: KtimeNs) {
        // Who went on and came back in a gap cannot be told from who stayed.
        if let Some(living) = self.living.get_mut(&image) {
            living.waiting = Slots::default();
        }
    }

    fn test_seen(&mut self, image: ImageId, goid: Goid, name: Option<&str>) {
        self.tests.seen(image, goid, name);
    }

    fn labels(&mut self, who: &Who, _at: KtimeNs, labels: LabelsId) {
        *self.living.entry(who.image).or_default().labels.place(who.slot) = Some(labels);
    }

    fn census(&mut self, image: ImageId, census: &Census) {
        if census.torn == 0 {
            self.looked_at.insert(image, census.from);
        }
    }

    fn thread_span(&mut self, who: &ThreadWho, span: &ThreadSpan) {
        self.threads.span(who, span);
    }

    fn thread_life(&mut self, who: &ThreadWho, life: &ThreadLife) {
        self.threads.life(who, life);
    }

    fn test_run(&mut self, image: ImageId, by: Option<Goid>, at: KtimeNs, name: &TestName) {
        self.tests.started(image, by, at, name);
    }
}

impl LeakTally {
    fn touch(&mut self, object: (ImageId, Address), touch: Touch) {
        if self.touched.len() >= MAX_TOUCHED && !self.touched.contains_key(&object) {
            let waited_on: FxHashSet<(ImageId, Address)> = self
                .living
                .iter()
                .flat_map(|(image, living)| living.waiting.iter().filter_map(|waiting| Some((*image, waiting.object?))))
                .collect();
            self.touched.retain(|object, _| waited_on.contains(object));
        }
        if self.touched.len() < MAX_TOUCHED {
            self.touched.insert(object, touch);
        }
    }

    /// Who was last seen to go on that had waited on an object; `None`: nobody was, or it is forgotten.
    pub(super) fn touched(&self, object: (ImageId, Address)) -> Option<Touch> {
        self.touched.get(&object).copied()
    }
}
