//! Flamegraphs of creation, life, blocking and CPU time: tallied while a recording is replayed, written as SVG or folded lines.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
};

use inferno::flamegraph::{self as inferno_flamegraph, Options};
use rustc_hash::FxHashMap;

use crate::{
    clock::KtimeNs,
    correlate::{
        LabelsId, Life, ReasonId, Sink, Span, SpanState, SumOfMany,
        goroutine::{Origin, Who},
        process::{ImageId, Process, ProcessId},
        replay::Replayed,
        sample::Sample,
    },
    event::Runner,
    id::{Address, Goid, StackId},
    recording::contract::{Frame, Tier},
    symbolize::{FrameId, Symbolizer, is_system, label},
};

/// What a flamegraph's widths are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Goroutines made, by creation stack.
    Created,
    /// Goroutines alive when their process or the recording ended, by creation stack.
    Alive,
    /// Time blocked, by blocking stack and reason.
    Blocked,
    /// Time lived, by creation stack.
    Lifetime,
    /// Time waiting for a CPU, by the stack at which it goes on: where it blocked or stopped last, else its creation stack.
    Runnable,
    /// CPU time, by creation site and the code that ran. Sampled: each sample stands for its period.
    OnCpu,
}

/// Whose flamegraph it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    Goroutines,
    Threads,
}

impl By {
    pub fn title(self, of: Of) -> &'static str {
        match (self, of) {
            (Self::Created, Of::Goroutines) => "Goroutines created",
            (Self::Created, Of::Threads) => "Threads created",
            (Self::Alive, Of::Goroutines) => "Goroutines alive at the end",
            (Self::Alive, Of::Threads) => "Threads alive at the end",
            (Self::Blocked, Of::Goroutines) => "Time blocked",
            (Self::Blocked, Of::Threads) => "Time off CPU",
            (Self::Lifetime, _) => "Time lived",
            (Self::Runnable, _) => "Time waiting for a CPU",
            (Self::OnCpu, _) => "CPU time (sampled)",
        }
    }

    /// Whether the width is a time; else it is a count.
    pub fn is_time(self) -> bool {
        matches!(self, Self::Blocked | Self::Lifetime | Self::Runnable | Self::OnCpu)
    }

    pub(super) fn width(self, weight: Weight) -> u64 {
        if self.is_time() { weight.ns } else { weight.count }
    }
}

/// How often, and how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    pub count: u64,
    pub ns: u64,
}

impl Weight {
    pub(super) fn add(&mut self, count: u64, ns: u64) {
        self.count = self.count.saturating_add(count);
        self.ns = self.ns.saturating_add(ns);
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    image: ImageId,
    /// Of the birth; `None` where that was not seen.
    gopc: Option<Address>,
    startpc: Option<Address>,
    /// The creation stack, or the blocking stack.
    stack: Option<StackId>,
    reason: Option<ReasonId>,
    /// The newest labels that a look had found on the goroutine.
    labels: Option<LabelsId>,
    sampled: Option<Sampled>,
}

/// What a key of CPU time has besides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Sampled {
    ran: Ran,
    in_kernel: bool,
}

/// On whose behalf the CPU ran.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Ran {
    Goroutine,
    Nobody,
    Unknown,
}

/// The sink.
pub struct Tally {
    by: By,
    weights: FxHashMap<Key, Weight>,
    /// Of those who live.
    labels: FxHashMap<(ImageId, Goid), LabelsId>,
}

impl Tally {
    pub fn new(by: By) -> Self {
        Self { by, weights: FxHashMap::default(), labels: FxHashMap::default() }
    }

    /// By creation stack.
    fn key(&self, who: &Who) -> Key {
        let (gopc, startpc) = who.origin.map(|origin| (origin.gopc, origin.startpc)).unzip();
        Key {
            image: who.image,
            gopc,
            startpc,
            stack: who.origin.and_then(|origin| origin.stack),
            reason: None,
            labels: self.labels_of(who),
            sampled: None,
        }
    }

    fn labels_of(&self, who: &Who) -> Option<LabelsId> {
        // Mostly nobody has any.
        if self.labels.is_empty() { None } else { self.labels.get(&(who.image, who.goid)).copied() }
    }
}

impl Sink for Tally {
    fn span(&mut self, who: &Who, span: &Span) {
        let counted = match self.by {
            By::Blocked => span.state == SpanState::Blocked,
            By::Runnable => span.state == SpanState::Runnable,
            By::Created | By::Alive | By::Lifetime | By::OnCpu => false,
        };
        if counted {
            let mut key = self.key(who);
            // One that has stopped before is told by where it goes on; its creation stack would only split that.
            if self.by == By::Blocked || span.stack.is_some() {
                key = Key { gopc: None, stack: span.stack, reason: span.reason, ..key };
            }
            self.weights.entry(key).or_default().add(1, span.end.since(span.start));
        }
    }

    fn life(&mut self, who: &Who, life: &Life) {
        let counted = match self.by {
            By::Created => who.born_at.is_some(),
            By::Alive => life.alive_at_end(),
            By::Lifetime => true,
            By::Blocked | By::Runnable | By::OnCpu => false,
        };
        if counted {
            self.weights.entry(self.key(who)).or_default().add(1, life.ended_at.since(who.since));
        }
        if !self.labels.is_empty() {
            self.labels.remove(&(who.image, who.goid));
        }
    }

    fn labels(&mut self, who: &Who, _at: KtimeNs, labels: LabelsId) {
        self.labels.insert((who.image, who.goid), labels);
    }

    fn summed(&mut self, sum: &SumOfMany<'_>) {
        let of_waits = Key {
            image: sum.site.image,
            gopc: None,
            startpc: sum.site.startpc,
            stack: sum.stack,
            reason: sum.reason,
            labels: None,
            sampled: None,
        };
        let key = match self.by {
            By::Blocked if !sum.lives => of_waits,
            By::Created | By::Lifetime if sum.lives => Key { gopc: sum.site.gopc, reason: None, ..of_waits },
            _ => return,
        };
        self.weights.entry(key).or_default().add(sum.count, sum.total_ns);
    }

    fn sample(&mut self, image: ImageId, sample: &Sample) {
        if self.by != By::OnCpu {
            return;
        }
        let ran = match sample.runner {
            Runner::Goroutine(_) => Ran::Goroutine,
            Runner::Nobody => Ran::Nobody,
            Runner::Unknown => Ran::Unknown,
        };
        let origin = sample.who.and_then(|who| who.origin);
        let (gopc, startpc) = origin.map(|origin| (origin.gopc, origin.startpc)).unzip();
        let sampled = Some(Sampled { ran, in_kernel: sample.in_kernel });
        let labels = sample.who.as_ref().and_then(|who| self.labels_of(who));
        let key = Key { image, gopc, startpc, stack: sample.stack, reason: None, labels, sampled };
        self.weights.entry(key).or_default().add(1, sample.ns);
    }
}

/// Where somebody was, and who.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stack {
    /// From the root to the leaf. Frames without a file are ours: a process, a state, a wait reason.
    pub frames: Vec<Frame>,
    /// 0: of several.
    pub tgid: u32,
    /// pprof labels.
    pub labels: Vec<(String, String)>,
}

/// A flamegraph's content, named.
pub struct Graph {
    pub by: By,
    pub of: Of,
    pub stacks: BTreeMap<Stack, Weight>,
    /// What is lost and covered.
    pub trust: String,
    pub command: String,
    pub zero_unix_ns: u64,
    pub duration_ns: u64,
}

/// The recording cannot answer the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswerable {
    #[error(
        "the recording holds no block times: it was made at tier {0:?}, and --by blocked needs T2; follow with --tier 2, whatever it costs, or ask --by alive"
    )]
    NoBlockTimes(Tier),
    #[error(
        "the recording holds no scheduling delays: it was made at tier {0:?}, and --by runnable needs T3; follow with --tier 3, whatever it costs"
    )]
    NoDelays(Tier),
    #[error("the recording does not follow threads: it was made with --threads off")]
    NoThreads,
    #[error("the recording holds no CPU samples: record with --cpu-hz 99 (T3 samples without being asked)")]
    NoSamples,
}

/// Names what was tallied. `apart`: where there are several processes, each has a frame of its own.
pub fn graph(replayed: &Replayed, tally: &Tally, apart: bool) -> Result<Graph, Unanswerable> {
    let best = replayed.engine.processes().images().filter_map(|(id, _)| replayed.tier(id)).max();
    let best = best.unwrap_or(replayed.meta.tier);
    if tally.by == By::Blocked && best < Tier::T2 {
        return Err(Unanswerable::NoBlockTimes(best));
    }
    if tally.by == By::Runnable && best < Tier::T3 {
        return Err(Unanswerable::NoDelays(best));
    }
    if tally.by == By::OnCpu && tally.weights.is_empty() && replayed.sampling().is_none() {
        return Err(Unanswerable::NoSamples);
    }
    let namer = Namer::new(replayed, tally, apart);
    let mut stacks: BTreeMap<Stack, Weight> = BTreeMap::new();
    for (key, weight) in &tally.weights {
        let labels = key.labels.map(|labels| replayed.engine.labels().get(labels).to_vec());
        let tgid = replayed.engine.processes().of_image(key.image).tgid.0;
        let stack = Stack { frames: namer.frames(tally.by, key), tgid, labels: labels.unwrap_or_default() };
        stacks.entry(stack).or_default().add(weight.count, weight.ns);
    }
    Ok(Graph::new(replayed, tally.by, Of::Goroutines, stacks))
}

struct Namer<'a> {
    replayed: &'a Replayed,
    symbols: Symbolizer<'a>,
    /// More than one process: each gets a frame of its own.
    many: bool,
}

impl<'a> Namer<'a> {
    fn new(replayed: &'a Replayed, tally: &Tally, apart: bool) -> Self {
        let process = |key: &Key| replayed.engine.processes().image(key.image).process;
        let seen: BTreeSet<ProcessId> = tally.weights.keys().map(process).collect();
        Self { replayed, symbols: Symbolizer::new(replayed), many: apart && seen.len() > 1 }
    }

    /// Root to leaf.
    fn frames(&self, by: By, key: &Key) -> Vec<Frame> {
        let start = key.startpc.map(|pc| self.symbols.entry(key.image, pc));
        let mut frames = Vec::new();
        if self.many {
            frames.push(self.process(key.image));
        }
        if start.as_ref().is_some_and(|start| is_system(&start.function)) {
            frames.push(ours("[runtime]".into()));
        }
        if let Some(Sampled { ran, in_kernel }) = key.sampled {
            frames.push(match (ran, key.gopc) {
                (Ran::Goroutine, Some(gopc)) => self.created_by(key.image, gopc),
                (Ran::Goroutine, None) => ours("[birth not seen]".into()),
                (Ran::Nobody, _) => ours("[no goroutine]".into()),
                (Ran::Unknown, _) => ours("[goroutine unknown]".into()),
            });
            self.push_stack_of(key, &mut frames);
            frames.extend(in_kernel.then(|| ours("[kernel]".into())));
            return frames;
        }
        let stopped = by == By::Runnable && key.gopc.is_none() && key.stack.is_some();
        if by == By::Blocked || stopped {
            self.push_stack_of(key, &mut frames);
            if by == By::Blocked {
                let reason = key.reason.map_or("unknown", |reason| self.replayed.engine.reason(reason));
                frames.push(ours(format!("[{reason}]")));
            }
            return frames;
        }
        match (key.gopc, key.startpc, start) {
            (Some(gopc), Some(startpc), Some(start)) => {
                let origin = Origin { parent: None, gopc, startpc, stack: key.stack };
                self.push_stack(&self.symbols.creation(key.image, &origin), &mut frames);
                frames.push(Frame { function: format!("go {}", label(&start)), ..start });
            }
            _ => frames.push(ours("[birth not seen]".into())),
        }
        frames
    }

    /// The `go` statement of a goroutine, as the root of what it ran.
    fn created_by(&self, image: ImageId, gopc: Address) -> Frame {
        let site = self.symbols.go_statement(image, gopc);
        Frame { function: format!("created by {}", label(&site)), ..site }
    }

    fn push_stack_of(&self, key: &Key, frames: &mut Vec<Frame>) {
        match key.stack.map(|id| self.symbols.stack(key.image, id)) {
            Some(Some(stack)) => self.push_stack(&stack, frames),
            Some(None) => frames.push(ours("[stack lost]".into())),
            None => frames.push(ours("[no stack]".into())),
        }
    }

    fn push_stack(&self, (stack, truncated): &(Vec<FrameId>, bool), frames: &mut Vec<Frame>) {
        if *truncated {
            frames.push(ours("[deeper]".into()));
        }
        frames.extend(stack.iter().rev().map(|id| self.symbols.frame(*id)));
    }

    fn process(&self, image: ImageId) -> Frame {
        root(self.replayed, self.replayed.engine.processes().of_image(image))
    }
}

/// A process, below its stacks.
pub(super) fn root(replayed: &Replayed, process: &Process) -> Frame {
    let command = crate::timeline::write::command(replayed, process);
    let program = command.split(' ').next().unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or(program);
    ours(format!("{name} (pid {})", process.tgid))
}

/// A frame that is no code.
pub(super) fn ours(function: String) -> Frame {
    Frame { function, file: String::new(), line: 0 }
}

impl Graph {
    pub(super) fn new(replayed: &Replayed, by: By, of: Of, stacks: BTreeMap<Stack, Weight>) -> Self {
        Self {
            by,
            of,
            stacks,
            trust: replayed.trust(),
            command: crate::timeline::human::plain(&replayed.meta.command.join(" ")),
            zero_unix_ns: replayed.meta.clock.wall_ns.0,
            duration_ns: replayed.duration_ns(),
        }
    }

    /// Folded lines: frames joined by `;` from the root, a blank, the width. Sorted.
    pub fn folded(&self) -> Vec<String> {
        let mut lines: BTreeMap<String, u64> = BTreeMap::new();
        for (stack, weight) in &self.stacks {
            let width: &mut u64 = lines.entry(folded_path(&stack.frames)).or_default();
            *width = width.saturating_add(self.by.width(*weight));
        }
        lines.into_iter().filter(|(_, width)| *width > 0).map(|(path, width)| format!("{path} {width}")).collect()
    }

    pub fn write_folded(&self, out: &mut impl Write) -> io::Result<()> {
        self.folded().iter().try_for_each(|line| writeln!(out, "{line}"))
    }

    pub fn write_svg(&self, out: &mut impl Write) -> io::Result<()> {
        let lines = self.folded();
        let title = self.by.title(self.of);
        Drawing { title, command: &self.command, notes: &self.trust, unit: self.unit() }.write(&lines, out)
    }

    /// What the widths are counted in.
    pub(super) fn unit(&self) -> &'static str {
        match (self.by.is_time(), self.of) {
            (true, _) => "ns",
            (false, Of::Goroutines) => "goroutines",
            (false, Of::Threads) => "threads",
        }
    }
}

/// A flamegraph as SVG.
pub(super) struct Drawing<'a> {
    pub title: &'a str,
    pub command: &'a str,
    pub notes: &'a str,
    pub unit: &'a str,
}

impl Drawing<'_> {
    /// Of folded lines; with two values each, red grew and blue shrank, and the widths are the values after.
    pub fn write(&self, lines: &[String], out: &mut impl Write) -> io::Result<()> {
        if lines.is_empty() {
            return write_empty_svg(self.title, self.notes, out);
        }
        let mut options = Options::default();
        options.title = if self.command.is_empty() { self.title.to_owned() } else { format!("{}: {}", self.title, self.command) };
        options.subtitle = Some(self.notes.to_owned());
        options.count_name = self.unit.to_owned();
        options.name_type = "Frame:".to_owned();
        options.deterministic = true;
        inferno_flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), out).map_err(io::Error::other)
    }
}

/// Frames from the root to the leaf, as a folded line has them.
pub(super) fn folded_path<'a>(frames: impl IntoIterator<Item = &'a Frame>) -> String {
    frames.into_iter().map(|frame| folded_name(&label(frame))).collect::<Vec<_>>().join(";")
}

/// A name as it may stand in a folded line: those of generic types hold semicolons, and line breaks would end the line.
pub(super) fn folded_name(name: &str) -> String {
    name.replace(';', ":").replace(char::is_control, " ")
}

/// Nothing to show is an answer too.
fn write_empty_svg(title: &str, trust: &str, out: &mut impl Write) -> io::Result<()> {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    writeln!(
        out,
        r#"<?xml version="1.0" standalone="no"?>
<svg version="1.1" width="1200" height="90" xmlns="http://www.w3.org/2000/svg" font-family="monospace" font-size="12">
<rect width="100%" height="100%" fill="rgb(248,248,248)"/>
<text x="600" y="28" text-anchor="middle" font-size="17">{}: none</text>
<text x="600" y="56" text-anchor="middle">{}</text>
</svg>"#,
        escape(title),
        escape(trust)
    )
}
