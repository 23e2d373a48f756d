//! Goroutines that live or wait for long, as spans.
//!
//! A goroutine is a trace of its own: its life is the root, its long waits are children. Links lead to the life of whoever made it, and to
//! the span that its labels name. Ids are made of who it is, so whoever links to a span needs not have told it.
//!
//! A span is told when it is over; what goes on for so long that it might never be is told once, as far as it has come, under an id of its
//! own and as a child of the span that may follow.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    Instant,
    batch::{Request, Signal},
    heard::{Ended, Heard, Waited},
    resource::Host,
    settings::Long,
    stats::Stats,
};
use crate::{
    clock::KtimeNs,
    correlate::{
        LabelsId, LifeEnd, ReasonId, SpanState,
        goroutine::{Doing, Goroutine, SiteKey, Who},
    },
    id::{Goid, ProcessKey, StackId},
    symbolize::Symbolizer,
    top::model::Model,
};

mod build;

/// Goroutines whose beginning is remembered over recordings.
const MAX_CARRIED: usize = 65_536;
/// Spans of one request: with the longest stacks that is less than the 4 MB that a receiver takes.
const MAX_SPANS: usize = 200;
/// Those among whom the ones that are told are chosen.
const MAX_CANDIDATES: usize = 20_000;

/// A span to be.
struct Told {
    who: Who,
    start: KtimeNs,
    /// It had begun before anybody looked.
    before: bool,
    what: What,
    labels: Option<LabelsId>,
}

enum What {
    /// `None`: it goes on, and does this.
    Life {
        end: Option<(KtimeNs, LifeEnd)>,
        doing: Option<Doing>,
    },
    Wait {
        end: Option<KtimeNs>,
        reason: Option<ReasonId>,
        stack: Option<StackId>,
    },
}

/// What is remembered of those who live on.
#[derive(Default)]
pub struct Goroutines {
    /// Up to when those are told that go on.
    looked: KtimeNs,
    /// When those began that lived when the last recording ended, and whether that was before anybody looked.
    carried: FxHashMap<(ProcessKey, Goid), (KtimeNs, bool)>,
    /// Who was there in the last recording.
    known: FxHashSet<ProcessKey>,
}

impl Goroutines {
    /// What there is to tell since it was last asked.
    pub fn requests(
        &mut self,
        heard: &mut Heard,
        model: &mut Model,
        limits: &Long,
        host: &Host,
        now: &Instant,
        stats: &Stats,
    ) -> Vec<Request> {
        let mut left_out = std::mem::take(&mut heard.left_out);
        let mut told = self.over(heard, model, limits);
        let (goes_on, too_many) = self.goes_on(model, limits, now.at);
        told.extend(goes_on);
        left_out += too_many;
        self.looked = now.at;
        model.learn(told.iter().map(|told| SiteKey::of(&told.who)));
        told.retain(|told| model.site(&SiteKey::of(&told.who)).is_none_or(|name| !name.system));
        left_out += told.len().saturating_sub(limits.max) as u64;
        let told = choose(told, limits.max);
        stats.leave_out(Signal::Traces, left_out);
        if told.is_empty() {
            return Vec::new();
        }
        let model = &*model;
        let symbols = Symbolizer::so_far(model.replaying());
        let request = |told| {
            let resource_spans = build::spans(told, (model, &symbols), host, now);
            Request::Traces(ExportTraceServiceRequest { resource_spans })
        };
        told.chunks(MAX_SPANS).map(request).collect()
    }

    /// Lives and waits that are over.
    fn over(&self, heard: &mut Heard, model: &Model, limits: &Long) -> Vec<Told> {
        let life = |Ended { who, life, labels }: Ended| {
            let (start, before) = self.began(&who, model).unwrap_or((who.since, true));
            Told { who, start, before, what: What::Life { end: Some((life.ended_at, life.end)), doing: None }, labels }
        };
        let lived = limits.lived.unwrap_or_default().as_nanos();
        let is_long = |told: &Told| match told.what {
            What::Life { end: Some((end, _)), .. } => u128::from(end.since(told.start)) >= lived,
            _ => true,
        };
        let wait = |Waited { who, span, labels }: Waited| {
            let what = What::Wait { end: Some(span.end), reason: span.reason, stack: span.stack };
            Told { who, start: span.start, before: false, what, labels }
        };
        let lives = std::mem::take(&mut heard.lives).into_iter().map(life);
        let unsure = std::mem::take(&mut heard.unsure).into_iter().map(life).filter(is_long);
        let waits = std::mem::take(&mut heard.waits).into_iter().map(wait);
        lives.chain(unsure).chain(waits).collect()
    }

    /// Those that go on and have become long since it was last asked; and how many there are beside.
    fn goes_on(&self, model: &Model, limits: &Long, now: KtimeNs) -> (Vec<Told>, u64) {
        let (mut told, mut too_many) = (Vec::new(), 0);
        let mut tell = |one: Told| if told.len() < MAX_CANDIDATES { told.push(one) } else { too_many += 1 };
        let crosses = |start: KtimeNs, limit: std::time::Duration| {
            let at = start + u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
            at > self.looked && at <= now
        };
        for goroutine in model.replaying().engine().living() {
            let (who, doing) = (goroutine.who, goroutine.doing());
            if let Some(limit) = limits.lived
                && let Some((start, before)) = self.began(&who, model)
                && crosses(start, limit)
            {
                let what = What::Life { end: None, doing: Some(doing) };
                tell(Told { who, start, before, what, labels: goroutine.labels() });
            }
            if let Some(limit) = limits.blocked
                && crosses(doing.since, limit)
                && self.waits_anew(goroutine, &doing, model)
            {
                let what = What::Wait { end: None, reason: doing.reason, stack: doing.stack };
                tell(Told { who, start: doing.since, before: doing.by_look, what, labels: goroutine.labels() });
            }
        }
        (told, too_many)
    }

    /// It waits, and that was not told in the last recording.
    fn waits_anew(&self, goroutine: &Goroutine, doing: &Doing, model: &Model) -> bool {
        let known = || key(&goroutine.who, model).is_some_and(|key| self.known.contains(&key));
        doing.state == SpanState::Blocked && !(doing.by_look && known())
    }

    /// When it began, and whether that was before anybody looked; `None`: it was there in the last recording, and nobody remembers.
    fn began(&self, who: &Who, model: &Model) -> Option<(KtimeNs, bool)> {
        if let Some(born) = who.born_at.or(who.born_by) {
            return Some((born, false));
        }
        let Some(key) = key(who, model) else { return Some((who.since, true)) };
        match self.carried.get(&(key, who.goid)) {
            None if self.known.contains(&key) => None,
            None => Some((who.since, true)),
            remembered => remembered.copied(),
        }
    }

    /// A recording is over. In the next one who lives is found anew, and its events tell nothing of its beginning.
    pub fn carry(&mut self, model: &Model) {
        let engine = model.replaying().engine();
        let living = engine.living().filter_map(|goroutine| {
            let began = self.began(&goroutine.who, model)?;
            Some(((key(&goroutine.who, model)?, goroutine.who.goid), began))
        });
        let carried = living.take(MAX_CARRIED).collect();
        let there = engine.processes().processes().filter(|(_, process)| process.ended.is_none());
        self.known = there.filter_map(|(_, process)| process.key).collect();
        self.carried = carried;
    }
}

/// So many at most, as many of each site as there is room for: a leak must not hide all others.
fn choose(told: Vec<Told>, max: usize) -> Vec<Told> {
    let mut before: FxHashMap<SiteKey, usize> = FxHashMap::default();
    let mut ranked: Vec<(usize, Told)> = Vec::with_capacity(told.len());
    for one in told {
        let rank = before.entry(SiteKey::of(&one.who)).or_default();
        ranked.push((*rank, one));
        *rank += 1;
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().take(max).map(|(_, told)| told).collect()
}

fn key(who: &Who, model: &Model) -> Option<ProcessKey> {
    model.replaying().engine().processes().of_image(who.image).key
}
