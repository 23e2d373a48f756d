//! The whole story of one goroutine: who it is, where it is, what it did.

use std::collections::VecDeque;

use super::{
    census::Census,
    model::Model,
    names::SiteName,
    picture::{Detail, Lasting, SpanRow},
    rows::age,
};
use crate::{
    clock::KtimeNs,
    correlate::{
        LifeEnd, Span, SpanState,
        goroutine::{Doing, Goroutine, SiteKey, Who},
        process::ImageId,
    },
    id::Goid,
    recording::contract::Frame,
    symbolize::Symbolizer,
    timeline::{
        human::{duration, plain},
        write::{own_frame, place},
    },
};

impl Model {
    /// `None`: nothing is known of it, or nothing any more.
    pub(super) fn detail(&self, (image, goid): (ImageId, Goid), census: &Census<'_>) -> Option<Detail> {
        let engine = self.replaying.engine();
        let watched = self.tally.watched().filter(|watched| (watched.image, watched.goid) == (image, goid));
        let goroutine = engine.goroutine(image, goid);
        let life = watched.and_then(|watched| watched.life);
        let who = goroutine.map(|goroutine| goroutine.who).or_else(|| life.map(|(who, _)| who))?;
        let symbols = Symbolizer::so_far(&self.replaying);
        let name = self.names.id(&SiteKey::of(&who)).and_then(|id| self.names.name(id)).map(SiteName::line);
        let spans = watched.map(|watched| &watched.spans);
        let doing = goroutine.map(Goroutine::doing);
        let mut facts = self.facts(&who, goroutine, census);
        if let Some((_, life)) = life.filter(|_| goroutine.is_none()) {
            facts.push(("ended", self.ended(life.end, life.ended_at, census.now)));
        }
        let last = spans.and_then(|spans| spans.back());
        let stack = doing.map_or_else(|| last.and_then(|span| span.stack), |doing| doing.stack);
        let creation = who.origin.map(|origin| symbols.creation(image, &origin).0).unwrap_or_default();
        Some(Detail {
            id: format!("go:{goid}@{}", engine.processes().of_image(image).tgid),
            name: name.unwrap_or_default(),
            facts,
            stack: stack.map_or_else(Vec::new, |id| lines(&frames(&symbols, image, id))),
            creation: lines(&creation.into_iter().map(|id| symbols.frame(id)).collect::<Vec<_>>()),
            spans: self.spans(image, spans, doing.as_ref(), &symbols, census),
        })
    }

    fn facts(&self, who: &Who, goroutine: Option<&Goroutine>, census: &Census<'_>) -> Vec<(&'static str, String)> {
        let mut facts = Vec::new();
        if let Some(parent) = who.origin.and_then(|origin| origin.parent) {
            facts.push(("made by", format!("go:{parent}")));
        }
        let Some(goroutine) = goroutine else { return facts };
        facts.push(("age", age(goroutine, census.now).map_or_else(|| "it lived before".to_owned(), lasting)));
        let doing = goroutine.doing();
        let state = census.state(goroutine, &doing).map_or("-", SpanState::name);
        let reason = doing.reason.map_or(String::new(), |id| format!(" on {}", census.reason(id)));
        let since = Lasting { ns: census.now.since(doing.since), at_least: doing.by_look };
        facts.push(("now", format!("{state}{reason} for {}", lasting(since))));
        if let Some(object) = doing.object {
            facts.push(("object", format!("{:#x}", object.0)));
        }
        if let Some(labels) = goroutine.labels().map(|id| census.labels(id)).filter(|labels| !labels.is_empty()) {
            facts.push(("labels", labels.to_string()));
        }
        facts
    }

    fn ended(&self, end: LifeEnd, at: KtimeNs, now: KtimeNs) -> String {
        let how = match end {
            LifeEnd::Exit => "it returned",
            LifeEnd::ProcessEnd => "with its process",
            LifeEnd::RecordingEnd => "it was there at the end",
            LifeEnd::Gone => "its exit was lost: it was found gone",
        };
        format!("{how}, {} ago", duration(now.since(at)))
    }

    fn spans(
        &self,
        image: ImageId,
        told: Option<&VecDeque<Span>>,
        doing: Option<&Doing>,
        symbols: &Symbolizer<'_>,
        census: &Census<'_>,
    ) -> Vec<SpanRow> {
        let zero = self.replaying.meta().clock.ktime_ns;
        let row = |state: SpanState, start: KtimeNs, end: KtimeNs, what: String| SpanRow {
            start_ns: start.since(zero),
            ns: end.since(start),
            state: state.name(),
            what,
        };
        let what = |reason, stack| {
            let reason = Option::map_or(reason, String::new(), |id| census.reason(id).to_string());
            let stack = Option::map_or(stack, Vec::new(), |id| frames(symbols, image, id));
            let blank = if reason.is_empty() { "" } else { " " };
            own_frame(&stack).map_or(reason.clone(), |frame| format!("{reason}{blank}at {}", plain(&place(frame))))
        };
        let closed = told.into_iter().flatten().map(|span| {
            let by = span.woken_by.map_or(String::new(), |by| format!(", woken by {by}"));
            row(span.state, span.start, span.end, what(span.reason, span.stack) + &by)
        });
        let open = doing.map(|doing| row(doing.state, doing.since, census.now, what(doing.reason, doing.stack)));
        let before = doing.and_then(|doing| {
            let (state, since) = doing.before?;
            Some(row(state, since, doing.since, String::new()))
        });
        closed.chain(before).chain(open).collect()
    }
}

fn frames(symbols: &Symbolizer<'_>, image: ImageId, id: crate::id::StackId) -> Vec<Frame> {
    let stack = symbols.stack(image, id).map(|(frames, _)| frames).unwrap_or_default();
    stack.into_iter().map(|id| symbols.frame(id)).collect()
}

fn lines(frames: &[Frame]) -> Vec<String> {
    frames.iter().map(|frame| plain(&place(frame))).collect()
}

fn lasting(Lasting { ns, at_least }: Lasting) -> String {
    format!("{}{}", if at_least { "at least " } else { "" }, duration(ns))
}
