//! Flamegraphs of threads: where they were off their CPUs, waited for one, or ran, by user and kernel stack.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;

use crate::{
    correlate::{
        Life, ReasonId, Sink, Span,
        goroutine::Who,
        process::{ImageId, ProcessId},
        replay::Replayed,
        sample::Sample,
        thread::{ThreadEnd, ThreadLife, ThreadSpan, ThreadState, ThreadWho},
    },
    event::ThreadName,
    id::StackId,
    recording::contract::{Frame, Threads},
    symbolize::{Symbolizer, label},
};

use super::flamegraph::{By, Graph, Of, Stack, Unanswerable, Weight, ours, root};

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Stack { image: ImageId, user: Option<StackId>, kernel: Option<StackId>, reason: Option<ReasonId>, in_kernel: bool },
    Name { process: ProcessId, name: Option<ThreadName> },
}

/// The sink.
pub struct ThreadTally {
    by: By,
    weights: FxHashMap<Key, Weight>,
}

impl ThreadTally {
    pub fn new(by: By) -> Self {
        Self { by, weights: FxHashMap::default() }
    }
}

impl Sink for ThreadTally {
    fn span(&mut self, _: &Who, _: &Span) {}
    fn life(&mut self, _: &Who, _: &Life) {}

    fn thread_span(&mut self, _: &ThreadWho, span: &ThreadSpan) {
        let counted = match self.by {
            By::Blocked => span.state == ThreadState::Blocked,
            By::Runnable => span.state == ThreadState::Runnable,
            By::Created | By::Alive | By::Lifetime | By::OnCpu => false,
        };
        if counted {
            let ThreadSpan { image, user_stack: user, kernel_stack: kernel, reason, .. } = *span;
            let key = Key::Stack { image, user, kernel, reason, in_kernel: false };
            self.weights.entry(key).or_default().add(1, span.end.since(span.start));
        }
    }

    fn thread_life(&mut self, who: &ThreadWho, life: &ThreadLife) {
        let counted = match self.by {
            By::Created => who.born_at.is_some() && life.end != ThreadEnd::Exec,
            By::Alive => matches!(life.end, ThreadEnd::ExitOfAll | ThreadEnd::ProcessEnd | ThreadEnd::RecordingEnd),
            By::Lifetime => true,
            By::Blocked | By::Runnable | By::OnCpu => false,
        };
        if counted {
            let key = Key::Name { process: who.process, name: life.name };
            self.weights.entry(key).or_default().add(1, life.ended_at.since(who.since));
        }
    }

    fn sample(&mut self, image: ImageId, sample: &Sample) {
        if self.by == By::OnCpu {
            let key = Key::Stack { image, user: sample.stack, kernel: None, reason: None, in_kernel: sample.in_kernel };
            self.weights.entry(key).or_default().add(1, sample.ns);
        }
    }
}

/// Names what was tallied. `apart`: where there are several processes, each has a frame of its own.
pub fn graph(replayed: &Replayed, tally: &ThreadTally, apart: bool) -> Result<Graph, Unanswerable> {
    if matches!(tally.by, By::Blocked | By::Runnable) && replayed.meta.threads == Threads::Off {
        return Err(Unanswerable::NoThreads);
    }
    if tally.by == By::OnCpu && tally.weights.is_empty() && replayed.sampling().is_none() {
        return Err(Unanswerable::NoSamples);
    }
    let processes = replayed.engine.processes();
    let process_of = |key: &Key| match key {
        Key::Stack { image, .. } => processes.image(*image).process,
        Key::Name { process, .. } => *process,
    };
    let many = apart && tally.weights.keys().map(process_of).collect::<BTreeSet<_>>().len() > 1;
    let symbols = Symbolizer::new(replayed);
    let mut stacks: BTreeMap<Stack, Weight> = BTreeMap::new();
    for (key, weight) in &tally.weights {
        let mut frames = Vec::new();
        if many {
            frames.push(root(replayed, processes.process(process_of(key))));
        }
        push(replayed, &symbols, tally.by, key, &mut frames);
        let tgid = processes.process(process_of(key)).tgid.0;
        stacks.entry(Stack { frames, tgid, labels: Vec::new() }).or_default().add(weight.count, weight.ns);
    }
    Ok(Graph::new(replayed, tally.by, Of::Threads, stacks))
}

/// Root to leaf.
fn push(replayed: &Replayed, symbols: &Symbolizer<'_>, by: By, key: &Key, frames: &mut Vec<Frame>) {
    let Key::Stack { image, user, kernel, reason, in_kernel } = *key else {
        let Key::Name { name, .. } = key else { return };
        let name = name.map(|name| name.text()).filter(|name| !name.is_empty());
        return frames.push(ours(name.unwrap_or_else(|| "[name unknown]".to_owned())));
    };
    let outermost_first = |id: StackId| {
        let (ids, truncated) = symbols.stack(image, id)?;
        let cut = truncated.then(|| ours("[deeper]".into()));
        Some(cut.into_iter().chain(ids.into_iter().rev().map(|id| symbols.frame(id))).collect::<Vec<_>>())
    };
    match user.map(outermost_first) {
        Some(Some(stack)) => frames.extend(stack),
        Some(None) => frames.push(ours("[stack lost]".into())),
        None if by == By::OnCpu => frames.push(ours("[no stack]".into())),
        None => {}
    }
    // As flamegraph tools mark the kernel's.
    let kernel = kernel.and_then(outermost_first).unwrap_or_default();
    frames.extend(kernel.into_iter().map(|frame| Frame { function: format!("{}_[k]", label(&frame)), ..frame }));
    frames.extend(in_kernel.then(|| ours("[kernel]".into())));
    if by != By::OnCpu {
        frames.push(ours(format!("[{}]", reason.map_or("unknown", |reason| replayed.engine.reason(reason)))));
    }
}
