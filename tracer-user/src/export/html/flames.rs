//! Flamegraphs for the page's script: every one that the recording can answer, as a tree.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    correlate::{
        Life, Sink, Span, SumOfMany,
        goroutine::Who,
        process::ImageId,
        replay::Replayed,
        sample::Sample,
        thread::{ThreadLife, ThreadSpan, ThreadWho},
    },
    export::{
        flamegraph::{By, Graph, Of, Tally, graph},
        interned::Interned,
        thread_flame::{self, ThreadTally},
    },
    recording::contract::Frame,
};

/// Frames that a flamegraph has at most: the narrowest are left out.
const MOST_NODES: usize = 20_000;

/// Frames that stand on one another: deeper ones count for the last of them.
const MOST_DEEP: usize = 512;

const OF_GOROUTINES: [By; 6] = [By::Blocked, By::Alive, By::Created, By::Lifetime, By::Runnable, By::OnCpu];
const OF_THREADS: [By; 3] = [By::Blocked, By::Runnable, By::OnCpu];

/// Listens for all of them.
pub struct Flames {
    goroutines: Vec<Tally>,
    threads: Vec<ThreadTally>,
}

impl Default for Flames {
    fn default() -> Self {
        Self { goroutines: OF_GOROUTINES.map(Tally::new).into(), threads: OF_THREADS.map(ThreadTally::new).into() }
    }
}

impl Sink for Flames {
    fn span(&mut self, who: &Who, span: &Span) {
        self.goroutines.iter_mut().for_each(|tally| tally.span(who, span));
    }

    fn life(&mut self, who: &Who, life: &Life) {
        self.goroutines.iter_mut().for_each(|tally| tally.life(who, life));
    }

    fn thread_span(&mut self, who: &ThreadWho, span: &ThreadSpan) {
        self.threads.iter_mut().for_each(|tally| tally.thread_span(who, span));
    }

    fn thread_life(&mut self, who: &ThreadWho, life: &ThreadLife) {
        self.threads.iter_mut().for_each(|tally| tally.thread_life(who, life));
    }

    fn summed(&mut self, sum: &SumOfMany<'_>) {
        self.goroutines.iter_mut().for_each(|tally| tally.summed(sum));
    }

    fn sample(&mut self, image: ImageId, sample: &Sample) {
        self.goroutines.iter_mut().for_each(|tally| tally.sample(image, sample));
        self.threads.iter_mut().for_each(|tally| tally.sample(image, sample));
    }
}

/// A flamegraph.
#[derive(Serialize)]
pub(super) struct FlameOut {
    title: &'static str,
    /// Widths are times, ns; else they are counts.
    time: bool,
    /// Narrower frames are left out.
    cut_below: u64,
    root: Node,
}

/// A frame: its number, its width, those that stand on it.
#[derive(Serialize)]
struct Node(u32, u64, Vec<Node>);

impl Flames {
    /// Those that have anything to show.
    pub(super) fn named(&self, replayed: &Replayed, frames: &mut Interned<Frame>) -> Vec<FlameOut> {
        let goroutines = self.goroutines.iter().map(|tally| graph(replayed, tally, true));
        let threads = self.threads.iter().map(|tally| thread_flame::graph(replayed, tally, true));
        let answered = goroutines.chain(threads).filter_map(Result::ok);
        answered.map(|graph| flame(&graph, frames)).filter(|flame| flame.root.1 > 0).collect()
    }
}

fn flame(graph: &Graph, frames: &mut Interned<Frame>) -> FlameOut {
    let mut tree = Tree::default();
    for (stack, weight) in &graph.stacks {
        tree.add(stack.frames.iter().map(|frame| frames.number(frame)), graph.by.width(*weight));
    }
    let cut_below = tree.narrowest_of(MOST_NODES);
    let title = match (graph.of, graph.by) {
        (Of::Threads, By::Runnable) => "Threads: time waiting for a CPU",
        (Of::Threads, By::OnCpu) => "Threads: CPU time (sampled)",
        _ => graph.by.title(graph.of),
    };
    let root = tree.node(0, frames.number(&Frame { function: "all".to_owned(), file: String::new(), line: 0 }), cut_below);
    FlameOut { title, time: graph.by.is_time(), cut_below, root }
}

/// Stacks with their common beginnings put together. The root has number 0.
struct Tree(Vec<Branch>);

#[derive(Default)]
struct Branch {
    width: u64,
    on_it: BTreeMap<u32, usize>,
}

impl Default for Tree {
    fn default() -> Self {
        Self(vec![Branch::default()])
    }
}

impl Tree {
    fn add(&mut self, stack: impl Iterator<Item = u32>, width: u64) {
        let mut at = 0;
        self.0[at].width = self.0[at].width.saturating_add(width);
        for frame in stack.take(MOST_DEEP) {
            let next = self.0.len();
            at = *self.0[at].on_it.entry(frame).or_insert(next);
            if at == next {
                self.0.push(Branch::default());
            }
            self.0[at].width = self.0[at].width.saturating_add(width);
        }
    }

    /// The width below which frames must go so that not many more than `most` stay. What stands on a frame is never wider than it.
    fn narrowest_of(&self, most: usize) -> u64 {
        if self.0.len() <= most {
            return 0;
        }
        let mut widths: Vec<u64> = self.0.iter().map(|branch| branch.width).collect();
        widths.sort_unstable();
        widths[widths.len() - most].saturating_add(1)
    }

    fn node(&self, at: usize, frame: u32, cut_below: u64) -> Node {
        let wide = self.0[at].on_it.iter().filter(|(_, next)| self.0[**next].width >= cut_below);
        Node(frame, self.0[at].width, wide.map(|(frame, next)| self.node(*next, *frame, cut_below)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(node: &Node) -> usize {
        1 + node.2.iter().map(depth).max().unwrap_or(0)
    }

    fn nodes(node: &Node) -> usize {
        1 + node.2.iter().map(nodes).sum::<usize>()
    }

    /// Check that a stack of any depth is drawn as far as can be, and counts in full.
    #[test]
    fn deep() {
        let mut tree = Tree::default();
        tree.add(0..1_000_000, 7);
        tree.add(0..3, 2);
        let root = tree.node(0, 0, 0);
        assert_eq!((root.1, depth(&root)), (9, MOST_DEEP + 1));
    }

    /// Check that of too many frames the widest stay, each on what it stands on.
    #[test]
    fn narrow() {
        let mut tree = Tree::default();
        (0..1000).for_each(|frame| tree.add([frame, frame + 1].into_iter(), u64::from(frame) + 1));
        let cut_below = tree.narrowest_of(100);
        let root = tree.node(0, 0, cut_below);
        assert!((90..=100).contains(&nodes(&root)), "{}", nodes(&root));
        assert!(root.2.iter().all(|node| node.1 >= cut_below && node.2.len() == 1));
    }
}
