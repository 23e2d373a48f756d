//! Listens for lives and waits that were long, as they end. Bounded between two calls; what is too much is counted.

use rustc_hash::FxHashMap;

use super::settings::Long;
use crate::{
    clock::KtimeNs,
    correlate::{LabelsId, Life, LifeEnd, Sink, Span, SpanState, goroutine::Who, process::ImageId},
    id::Goid,
};

/// Goroutines whose labels are kept until they end.
const MAX_LABELLED: usize = 65_536;
/// Ends of goroutines of which nobody here knows how long they lived, between two calls.
const MAX_UNSURE: usize = 4096;

/// A life that is over.
pub struct Ended {
    pub who: Who,
    pub life: Life,
    pub labels: Option<LabelsId>,
}

/// A wait that is over.
pub struct Waited {
    pub who: Who,
    pub span: Span,
    pub labels: Option<LabelsId>,
}

/// The sink. By default it hears nothing.
#[derive(Default)]
pub struct Heard {
    limits: Option<Limits>,
    labels: FxHashMap<(ImageId, Goid), LabelsId>,
    pub lives: Vec<Ended>,
    /// They were there before their process was followed in this recording, so they may have lived for longer than it seems.
    pub unsure: Vec<Ended>,
    pub waits: Vec<Waited>,
    /// Long ones that found no room here.
    pub left_out: u64,
}

#[derive(Clone, Copy)]
struct Limits {
    lived_ns: u64,
    blocked_ns: u64,
    max: usize,
}

impl Heard {
    pub fn new(long: &Long) -> Self {
        let ns =
            |time: Option<std::time::Duration>| time.map_or(u64::MAX, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        let limits = Limits { lived_ns: ns(long.lived), blocked_ns: ns(long.blocked), max: long.max };
        Self { limits: Some(limits), ..Self::default() }
    }
}

impl Sink for Heard {
    fn span(&mut self, who: &Who, span: &Span) {
        let Some(limits) = self.limits else { return };
        if span.state != SpanState::Blocked || span.end.since(span.start) < limits.blocked_ns {
            return;
        }
        if self.waits.len() >= limits.max {
            self.left_out += 1;
            return;
        }
        let labels = self.labels.get(&(who.image, who.goid)).copied();
        self.waits.push(Waited { who: *who, span: *span, labels });
    }

    fn life(&mut self, who: &Who, life: &Life) {
        let labels = self.labels.remove(&(who.image, who.goid));
        let Some(limits) = self.limits else { return };
        if life.end == LifeEnd::RecordingEnd || limits.lived_ns == u64::MAX {
            return;
        }
        let is_long = life.ended_at.since(who.since) >= limits.lived_ns;
        let ended = Ended { who: *who, life: *life, labels };
        if !is_long && who.born_at.is_none() && who.born_by.is_none() {
            if self.unsure.len() < MAX_UNSURE {
                self.unsure.push(ended);
            }
        } else if is_long && self.lives.len() < limits.max {
            self.lives.push(ended);
        } else if is_long {
            self.left_out += 1;
        }
    }

    fn labels(&mut self, who: &Who, _at: KtimeNs, labels: LabelsId) {
        let key = (who.image, who.goid);
        if self.limits.is_some() && (self.labels.len() < MAX_LABELLED || self.labels.contains_key(&key)) {
            self.labels.insert(key, labels);
        }
    }
}
