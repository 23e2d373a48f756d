//! What the page's script draws: groups of lanes, each with spans, and what these refer to.

use std::collections::BTreeSet;

use rustc_hash::{FxHashMap, FxHashSet};
use serde::Serialize;

use super::{
    Page,
    columns::{Columns, Lane, More, Span},
    merging,
};
use crate::{
    clock::KtimeNs,
    correlate::process::{ImageId, ProcessId},
    export::interned::Interned,
    id::StackId,
    recording::contract::Frame,
    symbolize::{FrameId, Symbolizer},
    timeline::{Timeline, thread, write::command},
};

/// Processes, threads and other units that have a lane.
pub(super) const MOST_OTHERS: usize = 1000;
/// Stacks, and words, that are told.
const MOST_STACKS: usize = 20_000;
const MOST_WORDS: usize = 20_000;

/// What a span says: a state, a word (wait reason, what happened), where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub(super) struct Detail(u32, Option<u32>, Option<u32>);

/// Lanes that stand together.
#[derive(Serialize)]
pub(super) struct Group {
    /// Into `processes`.
    process: usize,
    kind: &'static str,
    /// What the lanes' ids are of: `go`, `tid`; else they have names.
    of: Option<&'static str>,
    title: String,
    /// The `go` statement.
    by: String,
    /// How many there were; more than lanes, if not all are drawn.
    count: usize,
    lanes: usize,
    names: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct Process {
    tgid: u32,
    command: String,
}

/// What is not drawn, or not told.
#[derive(Clone, Copy, Default, Serialize)]
pub(super) struct LeftOut {
    pub goroutines: usize,
    /// Processes, threads and other units of work.
    pub others: usize,
    /// Some spans do not say their stacks, or their words.
    stacks: bool,
    words: bool,
}

pub(super) struct Drawing<'a> {
    pub timeline: &'a Timeline<'a>,
    pub symbols: Symbolizer<'a>,
    pub states: Interned<&'static str>,
    pub words: Interned<String>,
    pub frames: Interned<Frame>,
    pub stacks: Interned<Vec<u32>>,
    pub details: Interned<Detail>,
    pub labels: Interned<Vec<(String, String)>>,
    pub sites: Interned<(String, String)>,
    of_frame: FxHashMap<FrameId, u32>,
    of_stack: FxHashMap<(ImageId, StackId), Option<u32>>,
    pub processes: Vec<Process>,
    of_process: FxHashMap<ProcessId, usize>,
    pub groups: Vec<Group>,
    pub columns: Columns,
    gap: u32,
    pub merged_below_ns: u64,
    pub left_out: LeftOut,
}

impl<'a> Drawing<'a> {
    pub fn new(timeline: &'a Timeline<'a>, most_spans: usize) -> Self {
        let mut drawing = Self {
            timeline,
            symbols: Symbolizer::new(timeline.replayed),
            states: Interned::default(),
            words: Interned::default(),
            frames: Interned::default(),
            stacks: Interned::default(),
            details: Interned::default(),
            labels: Interned::default(),
            sites: Interned::default(),
            of_frame: FxHashMap::default(),
            of_stack: FxHashMap::default(),
            processes: Vec::new(),
            of_process: FxHashMap::default(),
            groups: Vec::new(),
            columns: Columns::default(),
            gap: 0,
            merged_below_ns: merging::merged_below(timeline, most_spans),
            left_out: LeftOut::default(),
        };
        drawing.gap = drawing.detail("gap", None, None);
        drawing
    }

    pub fn everything(&mut self, page: &Page<'_>) {
        let timeline = self.timeline;
        let mut sites = self.sites(page.leaking);
        let mut threads: FxHashMap<ProcessId, Vec<&thread::ThreadLine>> = FxHashMap::default();
        for line in timeline.threads.iter().take(MOST_OTHERS) {
            threads.entry(line.who.process).or_default().push(line);
        }
        let mut ids: Vec<ProcessId> = timeline.processes.iter().copied().take(MOST_OTHERS).collect();
        let shown: FxHashSet<ProcessId> = ids.iter().copied().collect();
        // What they are of may not be shown itself.
        let all = timeline.replayed.engine.processes();
        let runtimes = timeline.tracks.iter().map(|(image, _)| all.image(image).process);
        let others: BTreeSet<ProcessId> =
            sites.keys().chain(threads.keys()).copied().chain(runtimes).filter(|id| !shown.contains(id)).collect();
        ids.extend(others);
        for id in ids {
            if shown.contains(&id) {
                self.life(id);
            }
            self.runtime(id);
            sites.remove(&id).into_iter().flatten().for_each(|(site, lines)| self.goroutines(id, &site, &lines));
            self.threads(id, threads.remove(&id).unwrap_or_default());
        }
        let more = |all: usize| all.saturating_sub(MOST_OTHERS);
        self.left_out.others = more(timeline.processes.len()) + more(timeline.threads.len()) + more(timeline.units.len());
        self.units();
    }

    /// The place of a process in the list.
    pub fn process(&mut self, id: ProcessId) -> usize {
        let replayed = self.timeline.replayed;
        let processes = &mut self.processes;
        *self.of_process.entry(id).or_insert_with(|| {
            let process = replayed.engine.processes().process(id);
            processes.push(Process { tgid: process.tgid.0, command: command(replayed, process) });
            processes.len() - 1
        })
    }

    pub fn detail(&mut self, state: &'static str, word: Option<&str>, stack: Option<u32>) -> u32 {
        self.left_out.words |= self.words.all().len() > MOST_WORDS;
        let word = word.map(|word| if self.words.all().len() < MOST_WORDS { word } else { "(too many to tell)" });
        let (state, word) = (self.states.number(&state), word.map(|word| self.words.number(word)));
        self.details.number(&Detail(state, word, stack))
    }

    /// The number of a stack; `None`: it is not known, or there are too many.
    pub fn stack(&mut self, image: ImageId, stack: StackId) -> Option<u32> {
        if let Some(number) = self.of_stack.get(&(image, stack)) {
            return *number;
        }
        let frames = self.symbols.stack(image, stack).map(|(ids, _)| ids).unwrap_or_default();
        let number = self.stack_of(frames);
        self.of_stack.insert((image, stack), number);
        number
    }

    pub fn stack_of(&mut self, ids: Vec<FrameId>) -> Option<u32> {
        if ids.is_empty() || self.stacks.all().len() >= MOST_STACKS {
            self.left_out.stacks |= !ids.is_empty();
            return None;
        }
        let (symbols, frames) = (&self.symbols, &mut self.frames);
        let number = |id| *self.of_frame.entry(id).or_insert_with(|| frames.number(&symbols.frame(id)));
        let stack: Vec<u32> = ids.into_iter().map(number).collect();
        Some(self.stacks.number(&stack))
    }

    /// Adds a lane to the newest group. Runs of spans that are too short to be told apart become one.
    pub fn lane(&mut self, lane: Lane, spans: impl Iterator<Item = Span>) {
        if let Some(group) = self.groups.last_mut() {
            group.lanes += 1;
        }
        if self.merged_below_ns == 0 {
            return self.columns.lane(lane, spans, self.gap);
        }
        let many = self.detail("many", None, None);
        let spans = merging::merged(spans, self.merged_below_ns, many);
        self.columns.lane(lane, spans, self.gap);
    }

    pub fn named_lane(&mut self, name: String, spans: &[Span]) {
        if let Some(group) = self.groups.last_mut() {
            group.names.push(name);
            group.count += 1;
        }
        let since_ns = spans.first().map_or(0, |span| span.start_ns);
        self.lane(Lane { since_ns, ..Lane::default() }, spans.iter().copied());
    }

    pub fn group(&mut self, id: ProcessId, kind: &'static str) {
        let process = self.process(id);
        let (title, by, names) = (kind.to_owned(), String::new(), Vec::new());
        self.groups.push(Group { process, kind, of: None, title, by, count: 0, lanes: 0, names });
    }

    pub fn group_of_goroutines(&mut self, id: ProcessId, title: String, by: String, count: usize) {
        let process = self.process(id);
        self.groups.push(Group { process, kind: "goroutines", of: Some("go"), title, by, count, lanes: 0, names: Vec::new() });
    }

    pub fn span(&self, (from, to): (KtimeNs, KtimeNs), detail: u32, more: More) -> Span {
        let replayed = self.timeline.replayed;
        let start_ns = replayed.since_zero(from);
        Span { start_ns, end_ns: replayed.since_zero(to).max(start_ns), detail, more }
    }
}
