//! Flamegraphs: weighted stacks, as SVG or folded lines.

use std::io::{self, Write};

use rustc_hash::FxHashMap;

use crate::{
    correlate::{
        Life, ReasonId, Sink, Span, SpanState,
        goroutine::{Origin, Who},
        process::ImageId,
        replay::Replayed,
    },
    id::StackId,
    recording::contract::Frame,
    symbolize::{Symbolizer, is_system, label},
    timeline::human,
};

/// What is weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Births, by creation stack.
    Created,
    /// Nanoseconds blocked, by blocking stack.
    Blocked,
    /// Goroutines alive at the end, by creation stack.
    Alive,
    /// Nanoseconds lived, by creation stack.
    Lifetime,
}

impl By {
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Blocked => "blocked",
            Self::Alive => "alive",
            Self::Lifetime => "lifetime",
        }
    }

    /// The unit of the weights.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Created | Self::Alive => "goroutines",
            Self::Blocked | Self::Lifetime => "ns",
        }
    }
}

/// What distinguishes stacks before they have names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    image: ImageId,
    origin: Option<OriginKey>,
    /// Where and why it blocked.
    blocked: Option<(Option<StackId>, Option<ReasonId>)>,
}

/// An [`Origin`] less the parent: brothers share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct OriginKey {
    gopc: u64,
    startpc: u64,
    stack: Option<StackId>,
}

/// Gathers weights while a recording is replayed.
pub struct Weights {
    by: By,
    weights: FxHashMap<Key, u64>,
}

impl Weights {
    pub fn new(by: By) -> Self {
        Self { by, weights: FxHashMap::default() }
    }

    fn add(&mut self, who: &Who, blocked: Option<(Option<StackId>, Option<ReasonId>)>, weight: u64) {
        let origin = who.origin.map(|origin| OriginKey {
            gopc: origin.gopc.0,
            startpc: origin.startpc.0,
            stack: origin.stack.filter(|_| blocked.is_none()),
        });
        *self.weights.entry(Key { image: who.image, origin, blocked }).or_default() += weight;
    }
}

impl Sink for Weights {
    fn span(&mut self, who: &Who, span: &Span) {
        if self.by == By::Blocked && span.state == SpanState::Blocked {
            self.add(who, Some((span.stack, span.reason)), span.end.since(span.start));
        }
    }

    fn life(&mut self, who: &Who, life: &Life) {
        match self.by {
            By::Created if who.born_at.is_some() => self.add(who, None, 1),
            By::Alive if life.alive_at_end() => self.add(who, None, 1),
            By::Lifetime => self.add(who, None, life.ended_at.since(who.since)),
            _ => {}
        }
    }
}

/// One named stack with its weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Root first.
    pub frames: Vec<Frame>,
    pub weight: u64,
}

/// Named stacks of the program's own goroutines, heaviest first, and the weight of the runtime's own that was left out.
pub struct Flame {
    pub by: By,
    pub stacks: Vec<Stack>,
    pub system_weight: u64,
}

impl Flame {
    pub fn new(replayed: &Replayed, weights: Weights) -> Self {
        let symbols = Symbolizer::new(replayed);
        let by = weights.by;
        let mut named: FxHashMap<Vec<Frame>, u64> = FxHashMap::default();
        let mut system_weight = 0;
        let several = replayed.engine.processes().images().filter(|(_, image)| image.binary.is_some()).count() > 1;
        for (key, weight) in weights.weights {
            let start = key.origin.map(|origin| symbols.entry(key.image, crate::id::Address(origin.startpc)));
            if start.as_ref().is_some_and(|start| is_system(&start.function)) {
                system_weight += weight;
                continue;
            }
            let mut frames = stack_of(&symbols, replayed, &key, start);
            if several {
                let tgid = replayed.engine.processes().of_image(key.image).tgid;
                frames.insert(0, synthetic(format!("pid:{tgid}")));
            }
            *named.entry(frames).or_default() += weight;
        }
        let mut stacks: Vec<Stack> = named.into_iter().map(|(frames, weight)| Stack { frames, weight }).collect();
        stacks.retain(|stack| stack.weight > 0);
        stacks.sort_by(|a, b| b.weight.cmp(&a.weight).then_with(|| a.frames.cmp(&b.frames)));
        Self { by, stacks, system_weight }
    }

    /// One line a stack: frames root first, joined by semicolons, then the weight.
    pub fn folded(&self) -> Vec<String> {
        self.stacks
            .iter()
            .map(|stack| {
                let frames: Vec<String> = stack.frames.iter().map(|frame| clean(&label(frame))).collect();
                format!("{} {}", frames.join(";"), stack.weight)
            })
            .collect()
    }

    /// An interactive SVG. The subtitle says what can be trusted.
    pub fn svg(&self, replayed: &Replayed, out: &mut dyn Write) -> io::Result<()> {
        let mut options = inferno::flamegraph::Options::default();
        options.title = format!("goroutines, {}: {}", self.by.name(), human::plain(&replayed.meta.command.join(" ")));
        options.subtitle = Some(self.trust(replayed));
        options.count_name = self.by.unit().to_owned();
        options.deterministic = true;
        let lines = self.folded();
        let lines = if lines.is_empty() { vec!["nothing 1".to_owned()] } else { lines };
        inferno::flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), out).map_err(io::Error::other)
    }

    /// One line: loss, coverage, and what was left out.
    pub fn trust(&self, replayed: &Replayed) -> String {
        let system = match self.by.unit() {
            "ns" => human::duration(self.system_weight),
            _ => self.system_weight.to_string(),
        };
        format!("{}; the runtime's own goroutines left out ({system})", replayed.trust())
    }
}

fn stack_of(symbols: &Symbolizer<'_>, replayed: &Replayed, key: &Key, start: Option<Frame>) -> Vec<Frame> {
    let mut frames;
    if let Some((stack, reason)) = key.blocked {
        frames = match stack.and_then(|stack| symbols.stack(key.image, stack)) {
            Some((ids, truncated)) => outermost_first(symbols, &ids, truncated),
            None => vec![synthetic("stack unknown".into())],
        };
        let reason = reason.map_or("unknown", |reason| replayed.engine.reason(reason));
        frames.push(synthetic(format!("[{reason}]")));
        return frames;
    }
    let Some(origin) = key.origin else {
        return vec![synthetic("birth not seen".into())];
    };
    let (gopc, startpc) = (crate::id::Address(origin.gopc), crate::id::Address(origin.startpc));
    let (ids, truncated) = symbols.creation(key.image, &Origin { parent: None, gopc, startpc, stack: origin.stack });
    frames = outermost_first(symbols, &ids, truncated);
    if let Some(mut start) = start {
        start.function = format!("go {}", start.function);
        frames.push(start);
    }
    frames
}

fn outermost_first(symbols: &Symbolizer<'_>, ids: &[crate::symbolize::FrameId], truncated: bool) -> Vec<Frame> {
    let cut = truncated.then(|| synthetic("…".into()));
    cut.into_iter().chain(ids.iter().rev().map(|id| symbols.frame(*id))).collect()
}

/// A frame that is no code.
fn synthetic(function: String) -> Frame {
    Frame { function, file: String::new(), line: 0 }
}

/// Without what would end a frame or a line.
fn clean(function: &str) -> String {
    human::plain(function).replace(';', ":")
}
