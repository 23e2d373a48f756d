//! `lifetrace.snapshot/1`: one goroutine a line, written as they come.

use std::io::{self, Write};

use serde::Serialize;

use super::{Names, labels, missing, stacks, waited};
use crate::{
    golang::GoBinary,
    recording::contract::Frame,
    snapshot::{Snapshot, StackRead, labels::LabelSet},
    symbolize::is_system,
};

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
    /// `null`: unknown.
    labels: Option<&'a LabelSet>,
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

/// Writes one JSON object.
pub fn write(snapshot: &Snapshot, binary: &GoBinary, bias: u64, out: &mut impl Write) -> io::Result<()> {
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
        let start_function = start_function.last().map(|frame| frame.function.as_str());
        let creator = names.go_statement(goroutine.gopc);
        let creator = creator.first();
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
                function: creator.map(|frame| frame.function.as_str()),
                file: creator.map(|frame| frame.file.as_str()),
                line: creator.map(|frame| frame.line),
            },
            start_function,
            stack: known.and_then(|index| stacks.get(index)).map(|frames| frames.iter().collect()),
            stack_truncated: known.and_then(|index| snapshot.found.stacks.get(index)).is_some_and(|stack| stack.truncated),
            stack_missing: missing(goroutine.stack),
            labels: labels(goroutine, snapshot),
            locked_to_thread: goroutine.locked_to_thread,
            system: start_function.is_some_and(is_system),
        };
        serde_json::to_writer(&mut *out, &line)?;
    }
    out.write_all(b"\n]}\n")
}
