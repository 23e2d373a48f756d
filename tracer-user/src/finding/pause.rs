//! Findings: goroutines that had to wait behind a pause, told only where the events prove it.
//!
//! A goroutine that is woken (or born) while the world is being stopped, or stands, cannot run before it is started again: the
//! scheduler starts nothing from the request on. What became due during a pause and was noticed only behind it (a timer, a
//! packet) leaves no event in it, and is not found here; timers that come regularly are [`super::late_timer`]'s.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use serde::Serialize;

use super::{Evidence, Finding, is_systems};
use crate::{
    clock::KtimeNs,
    correlate::{Span, SpanState, gc::Pause, goroutine::Who, process::ImageId, replay::Replayed},
    id::{Address, Goid},
    symbolize::Symbolizer,
};

/// Shorter delays are the ordinary business of a scheduler.
const MIN_DELAY_NS: u64 = 1_000_000;
/// Pauses within one span that are looked at.
const MAX_PAUSES: usize = 64;
/// Goroutines named in one finding.
const MAX_EVIDENCE: usize = 10;

/// Collects who waited while a recording is replayed.
#[derive(Default)]
pub struct PauseTally {
    images: FxHashMap<ImageId, OfImage>,
}

#[derive(Default)]
struct OfImage {
    /// In order of time, apart from each other.
    pauses: Vec<Pause>,
    /// By number of the pause.
    late: BTreeMap<usize, Vec<Late>>,
}

/// A goroutine that a pause kept from running.
#[derive(Clone, Copy)]
struct Late {
    goid: Goid,
    startpc: Option<Address>,
    state: SpanState,
    start: KtimeNs,
    end: KtimeNs,
    delayed_ns: u64,
}

impl PauseTally {
    pub fn pause(&mut self, image: ImageId, pause: &Pause) {
        if pause.end_seen && pause.end.since(pause.start) >= MIN_DELAY_NS {
            self.images.entry(image).or_default().pauses.push(*pause);
        }
    }

    /// The pauses of an image that are over and were long enough to matter, in order of time.
    pub fn pauses(&self, image: ImageId) -> &[Pause] {
        self.images.get(&image).map_or(&[], |of| &of.pauses)
    }

    /// A span is told when it is over: the pauses that it may have waited behind are known by then.
    pub fn span(&mut self, who: &Who, span: &Span) {
        let Some(of) = self.images.get_mut(&who.image) else { return };
        let first = of.pauses.partition_point(|pause| pause.end <= span.start);
        let touching =
            of.pauses.get(first..).unwrap_or_default().iter().take_while(|pause| pause.end <= span.end).take(MAX_PAUSES);
        // Of several, the one that it waited behind longest.
        let longest = touching.enumerate().filter_map(|(index, pause)| Some((first + index, pause, delay(span, pause)?)));
        let Some((first, pause, delayed_ns)) = longest.max_by_key(|(_, _, delayed_ns)| *delayed_ns) else { return };
        if delayed_ns >= MIN_DELAY_NS && pause.by != Some(who.goid) {
            let startpc = who.origin.map(|origin| origin.startpc);
            let late = Late { goid: who.goid, startpc, state: span.state, start: span.start, end: span.end, delayed_ns };
            of.late.entry(first).or_default().push(late);
        }
    }
}

/// How long a pause certainly kept a goroutine from running during a span.
fn delay(span: &Span, pause: &Pause) -> Option<u64> {
    if span.end < pause.end {
        return None;
    }
    match span.state {
        // It may have run before the pause: only if it was woken in it is anything certain.
        SpanState::Awake => (span.start >= pause.start).then(|| pause.end.since(span.start)),
        SpanState::Runnable => Some(pause.end.since(span.start.max(pause.start))),
        SpanState::Blocked | SpanState::Running | SpanState::Syscall | SpanState::Unknown => None,
    }
}

#[derive(Serialize)]
pub struct Delays {
    /// How many of the program's own goroutines waited.
    pub goroutines: u64,
    pub longest_ns: u64,
    /// Those that waited longest: lines of the timeline.
    pub spans: Vec<LateOut>,
}

#[derive(Serialize)]
pub struct LateOut {
    pub id: String,
    pub state: &'static str,
    pub start_ns: u64,
    pub end_ns: u64,
    /// How long the pause certainly kept it from running.
    pub delayed_ns: u64,
}

/// Who had to wait behind which pause.
pub(super) fn findings(replayed: &Replayed, symbols: &Symbolizer<'_>, tally: &PauseTally) -> Vec<Finding> {
    let mut found = Vec::new();
    for (image, of) in &tally.images {
        for (number, late) in &of.late {
            let own: Vec<Late> = late.iter().filter(|late| !is_systems(symbols, *image, late.startpc)).copied().collect();
            found.extend(of.pauses.get(*number).and_then(|pause| finding(replayed, *image, pause, own)));
        }
    }
    found
}

fn finding(replayed: &Replayed, image: ImageId, pause: &Pause, mut late: Vec<Late>) -> Option<Finding> {
    late.sort_by_key(|late| (std::cmp::Reverse(late.delayed_ns), late.goid));
    let longest_ns = late.first()?.delayed_ns;
    let by = pause.by.map_or(String::new(), |goid| format!(", by go:{goid}"));
    let spans = late.iter().take(MAX_EVIDENCE).map(|late| LateOut {
        id: format!("go:{}", late.goid),
        state: late.state.name(),
        start_ns: replayed.since_zero(late.start),
        end_ns: replayed.since_zero(late.end),
        delayed_ns: late.delayed_ns,
    });
    Some(Finding {
        kind: "delayed_by_pause",
        id: "stw".to_owned(),
        tgid: replayed.engine.processes().of_image(image).tgid.0,
        start_ns: replayed.since_zero(pause.start),
        end_ns: replayed.since_zero(pause.end),
        cause: format!("{}{by}", crate::timeline::human::plain(replayed.engine.reason(pause.reason))),
        evidence: Evidence::Pause(Delays { goroutines: late.len() as u64, longest_ns, spans: spans.collect() }),
        weight: longest_ns,
    })
}
