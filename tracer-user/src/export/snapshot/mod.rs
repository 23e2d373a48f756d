//! A snapshot with names: as Go's own goroutine dumps are written, as JSON (docs/json.md), and as a profile for `go tool pprof`.
//!
//! Owns the naming of addresses, which the three share; each format has a file.

mod json;
mod pprof;
mod text;

use std::rc::Rc;

use rustc_hash::FxHashMap;

pub use self::{json::write as write_json, pprof::write as write_pprof, text::write as write_text};
use crate::{
    clock::KtimeNs,
    golang::GoBinary,
    id::Address,
    recording::contract::{CodeUse, Frame},
    snapshot::{Goroutine, LabelsRead, Snapshot, StackRead, labels::LabelSet},
};

/// More different code addresses than this are named anew each time.
const MAX_NAMED: usize = 1 << 20;

/// Frames by code address of the process.
struct Names<'a> {
    binary: &'a GoBinary,
    bias: u64,
    known: FxHashMap<(u64, CodeUse), Rc<[Frame]>>,
}

impl<'a> Names<'a> {
    fn new(binary: &'a GoBinary, bias: u64) -> Self {
        Self { binary, bias, known: FxHashMap::default() }
    }

    /// Innermost first; empty outside of known code.
    fn frames(&mut self, address: u64, use_as: CodeUse) -> Rc<[Frame]> {
        if self.known.len() >= MAX_NAMED {
            self.known.clear();
        }
        let (binary, bias) = (self.binary, self.bias);
        let frames = || binary.symbolize(address.wrapping_sub(bias), use_as).into();
        Rc::clone(self.known.entry((address, use_as)).or_insert_with(frames))
    }

    /// Frames of a whole stack. What is no Go code (C, the vDSO) keeps its address.
    fn stack(&mut self, pcs: &[u64]) -> Vec<Frame> {
        let mut stack = Vec::new();
        for (index, &pc) in pcs.iter().enumerate() {
            // The first one may be the entry of a function that has not begun: the byte before is another's.
            let first = index == 0 && self.is_entry(pc);
            let frames = self.frames(pc, if first { CodeUse::Entry } else { CodeUse::Return });
            if frames.is_empty() {
                stack.push(Frame { function: format!("{pc:#x}"), file: String::new(), line: 0 });
            }
            stack.extend(frames.iter().cloned());
        }
        // What every goroutine returns to; Go does not show it either.
        while stack.last().is_some_and(|frame| frame.function == "runtime.goexit") {
            stack.pop();
        }
        stack
    }

    fn is_entry(&self, pc: u64) -> bool {
        self.binary.is_entry(pc.wrapping_sub(self.bias))
    }

    /// Its last frame is the function that begins at an address.
    fn start_function(&mut self, startpc: Address) -> Rc<[Frame]> {
        self.frames(startpc.0, CodeUse::Entry)
    }

    /// Its first frame is the go statement.
    fn go_statement(&mut self, gopc: Address) -> Rc<[Frame]> {
        self.frames(gopc.0, CodeUse::Return)
    }
}

fn missing(read: StackRead) -> Option<&'static str> {
    match read {
        StackRead::Known(_) => None,
        StackRead::Running => Some("running"),
        StackRead::Changed => Some("changed"),
        StackRead::Unreadable => Some("unreadable"),
        StackRead::TooMuch => Some("too much to read"),
        StackRead::LeftOut => Some("left out"),
    }
}

/// Each stack of the snapshot, with names.
fn stacks(snapshot: &Snapshot, names: &mut Names<'_>) -> Vec<Vec<Frame>> {
    snapshot.found.stacks.iter().map(|stack| names.stack(&stack.pcs)).collect()
}

fn waited(goroutine: &Goroutine, now: KtimeNs) -> Option<u64> {
    goroutine.waits_since.map(|since| now.since(since))
}

/// Its labels, if they are known.
fn labels<'s>(goroutine: &Goroutine, snapshot: &'s Snapshot) -> Option<&'s LabelSet> {
    static NONE: LabelSet = LabelSet::new();
    match goroutine.labels {
        LabelsRead::None => Some(&NONE),
        LabelsRead::Known(index) => snapshot.found.labels.get(index as usize),
        LabelsRead::Unknown => None,
    }
}
