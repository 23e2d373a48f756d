//! Spans as OTLP has them.

use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span,
        span::{Link, SpanKind},
    },
};
use rustc_hash::FxHashMap;

use super::{Told, What};
use crate::{
    agent::otlp::{
        Instant,
        attributes::{digest, number, scope, text, truth},
        resource::Host,
    },
    clock::KtimeNs,
    correlate::{
        LabelsId, LifeEnd,
        goroutine::{SiteKey, Who},
        process::{ImageId, ProcessId},
    },
    id::{Goid, StackId},
    symbolize::Symbolizer,
    timeline::{human::plain, write::place},
    top::{model::Model, short},
};

/// Frames of a stack that are told.
const MAX_FRAMES: usize = 64;
/// Labels of a goroutine that are told.
const MAX_LABELS: usize = 16;

/// Who a goroutine is among all of all hosts.
struct Id {
    trace: Vec<u8>,
    life: Vec<u8>,
}

impl Id {
    fn of(process: &[u8; 32], goid: Goid) -> Self {
        let digest = digest(&[process, &goid.0.to_le_bytes()]);
        Self { trace: digest[..16].to_vec(), life: digest[16..24].to_vec() }
    }

    /// Of something that it does.
    fn span(&self, kind: &str, start: KtimeNs) -> Vec<u8> {
        digest(&[&self.trace, kind.as_bytes(), &start.0.to_le_bytes()])[..8].to_vec()
    }
}

/// By process.
pub fn spans(told: &[Told], (model, symbols): (&Model, &Symbolizer<'_>), host: &Host, now: &Instant) -> Vec<ResourceSpans> {
    let builder = Builder { model, symbols, now };
    let mut by_process: FxHashMap<ProcessId, ([u8; 32], Vec<Span>)> = FxHashMap::default();
    let processes = model.replaying().engine().processes();
    for one in told {
        let id = processes.image(one.who.image).process;
        let (identity, spans) = by_process.entry(id).or_insert_with(|| (host.identity(processes.process(id)), Vec::new()));
        spans.push(builder.span(one, identity));
    }
    let whole = |(id, (_, spans))| ResourceSpans {
        resource: Some(host.process(id, model)),
        scope_spans: vec![ScopeSpans { scope: Some(scope()), spans, ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    };
    by_process.into_iter().map(whole).collect()
}

struct Builder<'a> {
    model: &'a Model,
    symbols: &'a Symbolizer<'a>,
    now: &'a Instant,
}

impl Builder<'_> {
    fn span(&self, told: &Told, process: &[u8; 32]) -> Span {
        let who = &told.who;
        let id = Id::of(process, who.goid);
        let whole = match told.what {
            What::Life { .. } => id.life.clone(),
            What::Wait { .. } => id.span("wait", told.start),
        };
        let (end, parent) = match &told.what {
            What::Life { end: Some((end, _)), .. } => (Some(*end), Vec::new()),
            What::Wait { end: Some(end), .. } => (Some(*end), id.life.clone()),
            What::Life { end: None, .. } | What::Wait { end: None, .. } => (None, whole.clone()),
        };
        let span_id = if end.is_some() { whole } else { digest(&[&whole, b"so far"])[..8].to_vec() };
        let mut attributes = self.facts(told);
        attributes.extend(self.labels(told.labels));
        let links = self.links(who, told.labels, process);
        Span {
            trace_id: id.trace,
            span_id,
            parent_span_id: parent,
            name: self.name(told),
            kind: SpanKind::Internal as i32,
            start_time_unix_nano: self.now.wall(told.start),
            end_time_unix_nano: self.now.wall(end.unwrap_or(self.now.at).max(told.start)),
            attributes,
            links,
            ..Span::default()
        }
    }

    fn name(&self, told: &Told) -> String {
        match told.what {
            What::Life { .. } => {
                let start = self.model.site(&SiteKey::of(&told.who)).and_then(|name| name.start.as_deref());
                format!("goroutine {}", short(start.unwrap_or("?")))
            }
            What::Wait { reason, .. } => {
                let reason = reason.map(|reason| self.model.reason(reason));
                format!("wait {}", reason.as_deref().unwrap_or("?"))
            }
        }
    }

    fn facts(&self, told: &Told) -> Vec<KeyValue> {
        let who = &told.who;
        let mut facts = vec![number("lifetrace.goroutine.id", i64::try_from(who.goid.0).unwrap_or(i64::MAX))];
        if let Some(name) = self.model.site(&SiteKey::of(who)) {
            facts.push(text("lifetrace.site", &*short(&name.line())));
        }
        if told.before {
            facts.push(truth("lifetrace.began_before", true));
        }
        let (end, stack) = match &told.what {
            What::Life { end, doing } => {
                if let Some(doing) = doing {
                    facts.push(text("lifetrace.state", doing.state.name()));
                }
                if let Some(reason) = doing.and_then(|doing| doing.reason) {
                    facts.push(text("lifetrace.wait.reason", &*self.model.reason(reason)));
                }
                facts.extend(end.map(|(_, end)| text("lifetrace.goroutine.end", how(end))));
                (end.map(|(at, _)| at), doing.and_then(|doing| doing.stack))
            }
            What::Wait { end, reason, stack } => {
                facts.extend(reason.map(|reason| text("lifetrace.wait.reason", &*self.model.reason(reason))));
                (*end, *stack)
            }
        };
        if end.is_none() {
            facts.push(truth("lifetrace.unfinished", true));
        }
        facts.extend(stack.and_then(|stack| self.stack(who.image, stack)).map(|stack| text("code.stacktrace", stack)));
        facts
    }

    fn stack(&self, image: ImageId, id: StackId) -> Option<String> {
        let (frames, _) = self.symbols.stack(image, id)?;
        let lines = frames.iter().take(MAX_FRAMES).map(|id| short(&plain(&place(&self.symbols.frame(*id)))).to_string());
        let lines: Vec<String> = lines.collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    fn labels(&self, labels: Option<LabelsId>) -> Vec<KeyValue> {
        let all = labels.map_or(&[][..], |id| self.model.replaying().engine().labels().get(id));
        let label =
            |(key, value): &(String, String)| text(&format!("lifetrace.label.{}", short(&plain(key))), &*short(&plain(value)));
        all.iter().take(MAX_LABELS).map(label).collect()
    }

    /// To the life of whoever made it, and to what its labels name.
    fn links(&self, who: &Who, labels: Option<LabelsId>, process: &[u8; 32]) -> Vec<Link> {
        let creator = who.origin.and_then(|origin| origin.parent).map(|parent| {
            let Id { trace, life } = Id::of(process, parent);
            link(trace, life, "creator")
        });
        let of = |key| labels.and_then(|id| self.model.replaying().engine().labels().value(id, key));
        let named = of("trace_id")
            .zip(of("span_id"))
            .and_then(|(trace, span)| Some(link(hexadecimal(trace, 16)?, hexadecimal(span, 8)?, "labels")));
        creator.into_iter().chain(named).collect()
    }
}

fn link(trace_id: Vec<u8>, span_id: Vec<u8>, kind: &str) -> Link {
    Link { trace_id, span_id, attributes: vec![text("lifetrace.link", kind)], ..Link::default() }
}

fn how(end: LifeEnd) -> &'static str {
    match end {
        LifeEnd::Exit => "exit",
        LifeEnd::ProcessEnd => "process end",
        LifeEnd::RecordingEnd => "recording end",
        LifeEnd::Gone => "gone",
    }
}

/// An id of so many bytes, as a label writes it; ids of half the length (as of 64-bit traces) begin with zeros. `None`: it is none, or
/// all zeros, which means the same.
fn hexadecimal(text: &str, bytes: usize) -> Option<Vec<u8>> {
    let digits = text.len();
    if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) || digits != 2 * bytes && !(bytes == 16 && digits == bytes) {
        return None;
    }
    let padded = format!("{text:0>width$}", width = 2 * bytes);
    let pairs = padded.as_bytes().chunks_exact(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    pairs.collect::<Option<Vec<u8>>>().filter(|id| id.iter().any(|byte| *byte != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check which labels are ids, and that ids stand for who and what they are made of.
    #[test]
    fn ids() {
        let long = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(hexadecimal(long, 16).unwrap()[..4], [0x4b, 0xf9, 0x2f, 0x35]);
        assert_eq!(hexadecimal("4bf92f3577b34da6", 16).unwrap()[6..10], [0, 0, 0x4b, 0xf9]);
        assert_eq!(hexadecimal("00f067aa0ba902b7", 8).unwrap()[..2], [0, 0xf0]);
        for (text, bytes) in
            [("", 8), ("00f067aa", 8), ("0000000000000000", 8), (&long[1..], 16), ("zzf067aa0ba902b7", 8), ("é0f067aa0ba902b", 8)]
        {
            assert_eq!(hexadecimal(text, bytes), None, "{text}");
        }
        let id = Id::of(&[1; 32], Goid(7));
        assert_eq!((id.trace.len(), id.life.len()), (16, 8));
        assert_eq!(Id::of(&[1; 32], Goid(7)).life, id.life);
        assert_ne!(Id::of(&[1; 32], Goid(8)).trace, id.trace);
        assert_ne!(Id::of(&[2; 32], Goid(7)).trace, id.trace);
        assert_ne!(id.span("wait", KtimeNs(1)), id.span("wait", KtimeNs(2)));
    }
}
