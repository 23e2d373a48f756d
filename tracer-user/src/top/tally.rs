//! Listens while a recording is made, and keeps what a look at it needs: counts by creation site, the newest spans, and the spans of the
//! one goroutine that is watched. Of who has ended only the counts stay.

use std::collections::VecDeque;

use hdrhistogram::Histogram;
use rustc_hash::{FxHashMap, FxHashSet};
use tracer_common::summing::middle_ns;

use super::recent::{Delays, PerSecond};
use crate::{
    correlate::{
        Life, LifeEnd, Sink, Span, SpanState, SumOfMany,
        goroutine::{SiteKey, Who},
        process::ImageId,
    },
    id::Goid,
    leak::tally::{ended_within_ns, record},
};

/// Spans that are kept of all goroutines together: what one did before it is watched is found among them.
const RECENT_SPANS: usize = 1 << 17;
/// Spans that are kept of the one that is watched.
const WATCHED_SPANS: usize = 512;

/// The sink.
#[derive(Default)]
pub struct Tally {
    pub sites: FxHashMap<SiteKey, SiteTally>,
    recent: VecDeque<(ImageId, Goid, Span)>,
    watched: Option<Watched>,
}

/// What is counted of one creation site.
#[derive(Default)]
pub struct SiteTally {
    pub births: PerSecond,
    pub deaths: PerSecond,
    pub delays: Delays,
    /// Lifetimes of those that ended.
    ended: Option<Histogram<u32>>,
    exited: u64,
    /// Of those that ended, who had lived before their process was followed.
    pub found_ended: u64,
    /// Alive when their process ended.
    pub left: u64,
}

impl SiteTally {
    /// The time that most of the ended did not outlive, where as many live; `None`: (almost) none has ended.
    pub fn ended_within_ns(&self, alive: u64) -> Option<u64> {
        ended_within_ns(self.ended.as_ref(), self.exited, self.exited.saturating_add(alive))
    }
}

/// The goroutine that somebody looks at.
pub struct Watched {
    pub image: ImageId,
    pub goid: Goid,
    /// In order of time.
    pub spans: VecDeque<Span>,
    /// Once it has ended, who it was and how that went.
    pub life: Option<(Who, Life)>,
}

impl Tally {
    /// From here on this one is watched; what it did shortly before is looked for.
    pub fn watch(&mut self, who: Option<(ImageId, Goid)>) {
        if self.watched.as_ref().map(|watched| (watched.image, watched.goid)) == who {
            return;
        }
        self.watched = who.map(|(image, goid)| {
            let its_own = self.recent.iter().rev().filter(|(of, other, _)| (*of, *other) == (image, goid));
            let mut spans: VecDeque<Span> = its_own.take(WATCHED_SPANS).map(|(_, _, span)| *span).collect();
            spans.make_contiguous().reverse();
            Watched { image, goid, spans, life: None }
        });
    }

    pub fn watched(&self) -> Option<&Watched> {
        self.watched.as_ref()
    }

    /// Forgets what was counted of images.
    pub fn forget(&mut self, images: &FxHashSet<ImageId>) {
        self.sites.retain(|site, _| !images.contains(&site.image));
    }

    fn watched_is(&mut self, who: &Who) -> Option<&mut Watched> {
        self.watched.as_mut().filter(|watched| (watched.image, watched.goid) == (who.image, who.goid))
    }
}

impl Sink for Tally {
    fn span(&mut self, who: &Who, span: &Span) {
        if span.state == SpanState::Runnable {
            self.sites.entry(SiteKey::of(who)).or_default().delays.record(span.end, span.end.since(span.start));
        }
        if let Some(watched) = self.watched_is(who) {
            push(&mut watched.spans, WATCHED_SPANS, *span);
        }
        push(&mut self.recent, RECENT_SPANS, (who.image, who.goid, *span));
    }

    fn born(&mut self, who: &Who) {
        self.sites.entry(SiteKey::of(who)).or_default().births.add(who.since, 1);
    }

    fn life(&mut self, who: &Who, life: &Life) {
        if let Some(watched) = self.watched_is(who) {
            watched.life = Some((*who, *life));
        }
        let site = self.sites.entry(SiteKey::of(who)).or_default();
        if life.alive_at_end() {
            site.left = site.left.saturating_add(1);
            return;
        }
        if life.end == LifeEnd::Exit {
            site.deaths.add(life.ended_at, 1);
        }
        site.exited = site.exited.saturating_add(1);
        site.found_ended += u64::from(who.born_at.is_none() && who.born_by.is_none());
        record(&mut site.ended, life.ended_at.since(who.since), 1);
    }

    fn summed(&mut self, sum: &SumOfMany<'_>) {
        if !sum.lives {
            return;
        }
        let site = self.sites.entry(sum.site).or_default();
        site.births.add(sum.at, sum.count);
        site.deaths.add(sum.at, sum.count);
        site.exited = site.exited.saturating_add(sum.count);
        for &(bucket, count) in sum.buckets {
            record(&mut site.ended, middle_ns(usize::from(bucket)), u64::from(count));
        }
    }
}

/// Puts one behind the others; of more than so many the oldest goes.
fn push<T>(queue: &mut VecDeque<T>, max: usize, one: T) {
    if queue.len() >= max {
        queue.pop_front();
    }
    queue.push_back(one);
}
