//! A snapshot with names: as Go's own goroutine dumps are written, and as JSON (docs/json.md).

use std::{
    io::{self, Write},
    rc::Rc,
};

use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::{
    clock::KtimeNs,
    golang::GoBinary,
    id::Address,
    recording::contract::{CodeUse, Frame},
    snapshot::{Goroutine, Snapshot, StackRead},
    symbolize::is_system,
    timeline::human::plain,
};

/// More different code addresses than this are named anew each time.
const MAX_NAMED: usize = 1 << 20;
const MINUTE_NS: u64 = 60_000_000_000;

/// `lifetrace.snapshot/1`, without its goroutines, which follow one by one: there may be millions.
#[derive(Serialize)]
struct Head<'a> {
    schema: &'static str,
    go_version: &'a str,
    /// Nanoseconds since the Unix epoch: a snapshot has no recording to count from.
    taken_at_ns: u64,
    duration_ns: u64,
    torn: u64,
}

#[derive(Serialize)]
struct GoroutineOut<'a> {
    goid: u64,
    /// `null`: it changed whenever it was looked at.
    state: Option<&'static str>,
    wait_reason: Option<&'static str>,
    /// `null`: it does not wait, or no garbage collection has seen it wait.
    waited_ns: Option<u64>,
    created_by: CreatedBy<'a>,
    start_function: Option<&'a str>,
    /// `null`: unknown; `stack_missing` says why.
    stack: Option<Vec<&'a Frame>>,
    stack_truncated: bool,
    stack_missing: Option<&'static str>,
    labels: Option<()>,
    locked_to_thread: bool,
    system: bool,
}

#[derive(Serialize)]
struct CreatedBy<'a> {
    goid: Option<u64>,
    function: Option<&'a str>,
    file: Option<&'a str>,
    line: Option<u32>,
}

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

    fn start_function(&mut self, startpc: Address) -> Option<String> {
        self.frames(startpc.0, CodeUse::Entry).last().map(|frame| frame.function.clone())
    }

    fn go_statement(&mut self, gopc: Address) -> Option<Frame> {
        self.frames(gopc.0, CodeUse::Return).first().cloned()
    }
}

fn missing(read: StackRead) -> Option<&'static str> {
    match read {
        StackRead::Known(_) => None,
        StackRead::Running => Some("running"),
        StackRead::Changed => Some("changed"),
        StackRead::Unreadable => Some("unreadable"),
        StackRead::TooMuch => Some("too much to read"),
    }
}

/// Each stack of the snapshot, with names.
fn stacks(snapshot: &Snapshot, names: &mut Names<'_>) -> Vec<Vec<Frame>> {
    snapshot.found.stacks.iter().map(|stack| names.stack(&stack.pcs)).collect()
}

fn waited(goroutine: &Goroutine, now: KtimeNs) -> Option<u64> {
    goroutine.waits_since.map(|since| now.since(since))
}

/// Writes one JSON object.
pub fn write_json(snapshot: &Snapshot, binary: &GoBinary, bias: u64, out: &mut impl Write) -> io::Result<()> {
    let mut names = Names::new(binary, bias);
    let stacks = stacks(snapshot, &mut names);
    let head = Head {
        schema: "lifetrace.snapshot/1",
        go_version: &snapshot.go_version,
        taken_at_ns: snapshot.taken_at.0,
        duration_ns: snapshot.duration_ns,
        torn: snapshot.found.torn,
    };
    let head = serde_json::to_string(&head)?;
    write!(out, "{},\"goroutines\":[", head.strip_suffix('}').unwrap_or(&head))?;
    for (index, goroutine) in snapshot.found.all.iter().enumerate() {
        out.write_all(if index == 0 { b"\n" } else { b",\n" })?;
        let start_function = names.start_function(goroutine.startpc);
        let creator = names.go_statement(goroutine.gopc);
        let known = match goroutine.stack {
            StackRead::Known(index) => Some(index as usize),
            _ => None,
        };
        let line = GoroutineOut {
            goid: goroutine.goid.0,
            state: goroutine.state.map(|state| state.name()),
            wait_reason: goroutine.wait_reason,
            waited_ns: waited(goroutine, snapshot.taken_at_ktime),
            created_by: CreatedBy {
                goid: goroutine.parent.map(|goid| goid.0),
                function: creator.as_ref().map(|frame| frame.function.as_str()),
                file: creator.as_ref().map(|frame| frame.file.as_str()),
                line: creator.as_ref().map(|frame| frame.line),
            },
            start_function: start_function.as_deref(),
            stack: known.and_then(|index| stacks.get(index)).map(|frames| frames.iter().collect()),
            stack_truncated: known.and_then(|index| snapshot.found.stacks.get(index)).is_some_and(|stack| stack.truncated),
            stack_missing: missing(goroutine.stack),
            labels: None,
            locked_to_thread: goroutine.locked_to_thread,
            system: start_function.as_deref().is_some_and(is_system),
        };
        serde_json::to_writer(&mut *out, &line)?;
    }
    out.write_all(b"\n]}\n")
}

/// Writes what `runtime.Stack` and a panic write (`runtime/traceback.go`), without what only they can know: arguments.
pub fn write_text(snapshot: &Snapshot, binary: &GoBinary, bias: u64, out: &mut impl Write) -> io::Result<()> {
    let mut names = Names::new(binary, bias);
    let stacks = stacks(snapshot, &mut names);
    for (index, goroutine) in snapshot.found.all.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        writeln!(out, "goroutine {} [{}]:", goroutine.goid, header(goroutine, snapshot.taken_at_ktime))?;
        match goroutine.stack {
            StackRead::Known(index) => {
                for frame in stacks.get(index as usize).into_iter().flatten() {
                    write_frame(&format!("{}(...)", plain(&frame.function)), frame, out)?;
                }
                if snapshot.found.stacks.get(index as usize).is_some_and(|stack| stack.truncated) {
                    writeln!(out, "...additional frames elided...")?;
                }
            }
            StackRead::Running => writeln!(out, "\tgoroutine running; stack unavailable")?,
            StackRead::Changed => writeln!(out, "\tgoroutine changing; state and stack unavailable")?,
            StackRead::Unreadable | StackRead::TooMuch => writeln!(out, "\tstack unavailable")?,
        }
        // The first goroutine is made by the program's entry, which is no go statement.
        if goroutine.goid.0 != 1
            && let Some(frame) = names.go_statement(goroutine.gopc)
        {
            let parent = goroutine.parent.map(|goid| format!(" in goroutine {goid}")).unwrap_or_default();
            write_frame(&format!("created by {}{parent}", plain(&frame.function)), &frame, out)?;
        }
    }
    Ok(())
}

fn header(goroutine: &Goroutine, now: KtimeNs) -> String {
    let state = goroutine.state.map_or("unknown", |state| state.name());
    let mut header = goroutine.wait_reason.unwrap_or(state).to_owned();
    let minutes = waited(goroutine, now).unwrap_or(0) / MINUTE_NS;
    if minutes >= 1 {
        header.push_str(&format!(", {minutes} minutes"));
    }
    if goroutine.locked_to_thread {
        header.push_str(", locked to thread");
    }
    header
}

fn write_frame(function: &str, frame: &Frame, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{function}")?;
    if frame.file.is_empty() { Ok(()) } else { writeln!(out, "\t{}:{}", plain(&frame.file), frame.line) }
}
