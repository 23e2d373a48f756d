//! What the kernel did with threads. It is told beside the goroutines, and is never said to be theirs.

use std::io::{self, Write};

use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::{
    correlate::{
        replay::Replayed,
        thread::{ThreadEnd, ThreadId, ThreadLife, ThreadSpan, ThreadState, ThreadWho},
    },
    id::{StackId, Tid},
    recording::contract::{Frame, IN_KERNEL, Threads as Followed},
    symbolize::{Symbolizer, label},
};

use super::{GoroutineLine, Id, State, Timeline, human, write};

/// One thread's life with its spans, in order of time.
#[derive(Clone, Debug)]
pub struct ThreadLine {
    pub who: ThreadWho,
    pub life: ThreadLife,
    pub spans: Vec<ThreadSpan>,
}

/// Collects threads while a recording is replayed.
#[derive(Default)]
pub(super) struct Threads {
    /// Nobody is asked for.
    none: bool,
    only: Option<Tid>,
    open: FxHashMap<ThreadId, Vec<ThreadSpan>>,
    closed: Vec<ThreadLine>,
}

impl Threads {
    pub fn wanted(id: Option<Id>) -> Self {
        let only = match id {
            Some(Id::Thread(tid)) => Some(tid),
            _ => None,
        };
        Self { none: matches!(id, Some(Id::Goroutine(..) | Id::Runtime(_))), only, ..Self::default() }
    }

    fn is_wanted(&self, who: &ThreadWho) -> bool {
        !self.none && self.only.is_none_or(|tid| tid == who.tid)
    }

    pub fn span(&mut self, who: &ThreadWho, span: &ThreadSpan) {
        if self.is_wanted(who) {
            self.open.entry(who.id).or_default().push(*span);
        }
    }

    pub fn life(&mut self, who: &ThreadWho, life: &ThreadLife) {
        if self.is_wanted(who) {
            let spans = self.open.remove(&who.id).unwrap_or_default();
            self.closed.push(ThreadLine { who: *who, life: *life, spans });
        }
    }

    /// By process and number. Of a process that has goroutines, threads are told of if they were asked for, or followed in detail.
    pub fn sorted(self, replayed: &Replayed, goroutines: &[GoroutineLine]) -> Vec<ThreadLine> {
        let all = replayed.engine.processes();
        let mut go: Vec<_> = goroutines.iter().map(|line| all.image(line.who.image).process).collect();
        go.dedup();
        let mut closed = self.closed;
        if self.only.is_none() {
            let detailed = replayed.meta.threads == Followed::On;
            closed.retain(|line| replayed.meta.threads != Followed::Off && (detailed || !go.contains(&line.who.process)));
        }
        closed.sort_by_key(|line| (all.process(line.who.process).tgid, line.who.tid, line.who.id));
        closed
    }
}

/// One line: a state from when to when.
struct Row<'s> {
    state: State,
    start_ns: u64,
    end_ns: u64,
    span: Option<&'s ThreadSpan>,
    death: Option<&'static str>,
    cpus: &'s [u16],
}

/// What it did, by time.
pub fn states<'s>(timeline: &Timeline<'_>, line: &'s ThreadLine) -> impl Iterator<Item = (State, &'s ThreadSpan)> {
    let followed = timeline.replayed.meta.threads;
    line.spans.iter().map(move |span| (state(span, followed), span))
}

/// What a span says of a thread.
pub fn state(span: &ThreadSpan, followed: Followed) -> State {
    match span.state {
        ThreadState::Running => State::Running,
        ThreadState::Runnable => State::Runnable,
        ThreadState::Blocked => State::Blocked,
        // That it lived is known all the time.
        ThreadState::Unknown if followed == Followed::Off => State::Alive,
        ThreadState::Unknown => State::Unknown,
    }
}

fn rows<'s>(timeline: &'s Timeline<'_>, line: &'s ThreadLine) -> Vec<Row<'s>> {
    let since_zero = |at| timeline.replayed.since_zero(at);
    let row = |state, start, end| Row {
        state,
        start_ns: since_zero(start),
        end_ns: since_zero(end),
        span: None,
        death: None,
        cpus: &[],
    };
    let of_span = |(state, span): (State, &'s ThreadSpan)| Row { span: Some(span), ..row(state, span.start, span.end) };
    let mut rows: Vec<Row<'s>> = states(timeline, line).map(of_span).collect();
    let before = rows.len();
    let (from, to) = (line.who.since, line.life.ended_at);
    let lost = timeline.lost_between(from, to);
    rows.extend(lost.map(|lost| Row { cpus: &lost.cpus, ..row(State::Lost, lost.from.max(from), lost.to.min(to)) }));
    if rows.len() > before {
        rows.sort_by_key(|row| (row.start_ns, row.state == State::Lost));
    }
    let death = match line.life.end {
        ThreadEnd::Exit => Some("exit"),
        ThreadEnd::ExitOfAll => Some("exit, with all of its process"),
        ThreadEnd::Exec => Some("exec: goes on under its process's number"),
        ThreadEnd::ProcessEnd => Some("process end"),
        ThreadEnd::Gone => Some("gone by then"),
        ThreadEnd::RecordingEnd => None,
    };
    let at = line.life.ended_at;
    rows.extend(death.map(|death| Row { death: Some(death), ..row(State::Dead, at, at) }));
    rows
}

/// One line of JSON. The fields are a contract (docs: "timeline").
#[derive(Serialize)]
struct JsonRow<'a> {
    id: &'a str,
    tgid: u32,
    state: &'a str,
    start_ns: u64,
    end_ns: u64,
    /// Why it left its CPU; for `dead`, how it came about.
    reason: Option<&'a str>,
    /// Innermost first: the kernel's frames, then those of user code.
    stack: Option<Vec<JsonFrame>>,
    woken_by: Option<String>,
    tid: u32,
    object: Option<String>,
    /// The thread that made it.
    created_by: Option<String>,
    name: Option<&'a str>,
    /// Of `lost`: the CPUs whose events are missing.
    #[serde(skip_serializing_if = "<[u16]>::is_empty")]
    cpus: &'a [u16],
}

#[derive(Serialize)]
struct JsonFrame {
    #[serde(flatten)]
    frame: Frame,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    kernel: bool,
}

/// The kernel's frames, then those of user code, innermost first; `None` if neither is there.
pub fn frames(symbols: &Symbolizer<'_>, span: &ThreadSpan) -> Option<Vec<Frame>> {
    let frames = |id: StackId| symbols.stack(span.image, id).map(|(ids, _)| ids.into_iter().map(|id| symbols.frame(id)));
    let (kernel, user) = (span.kernel_stack.and_then(frames), span.user_stack.and_then(frames));
    if kernel.is_none() && user.is_none() {
        return None;
    }
    Some(kernel.into_iter().flatten().chain(user.into_iter().flatten()).collect())
}

/// JSON lines: each thread's rows, by time.
pub(super) fn jsonl(timeline: &Timeline<'_>, symbols: &Symbolizer<'_>, out: &mut impl Write) -> io::Result<()> {
    let replayed = timeline.replayed;
    for line in &timeline.threads {
        let id = format!("tid:{}", line.who.tid);
        let tgid = replayed.engine.processes().process(line.who.process).tgid.0;
        let name = line.life.name.map(|name| name.text());
        for row in rows(timeline, line) {
            let span = row.span;
            let reason = span.and_then(|span| span.reason).map(|reason| replayed.engine.reason(reason)).or(row.death);
            let stack = span
                .and_then(|span| frames(symbols, span))
                .map(|frames| frames.into_iter().map(|frame| JsonFrame { kernel: frame.file == IN_KERNEL, frame }).collect());
            let row = JsonRow {
                id: &id,
                tgid,
                state: row.state.name(),
                start_ns: row.start_ns,
                end_ns: row.end_ns,
                reason,
                stack,
                woken_by: span.and_then(|span| span.woken_by).map(|by| by.to_string()),
                tid: line.who.tid.0,
                object: span.and_then(|span| span.object).map(|object| object.to_string()),
                created_by: line.who.born_by.map(|tid| format!("tid:{tid}")),
                name: name.as_deref(),
                cpus: row.cpus,
            };
            serde_json::to_writer(&mut *out, &row)?;
            out.write_all(b"\n")?;
        }
    }
    Ok(())
}

/// Text: a block for each thread.
pub(super) fn text(timeline: &Timeline<'_>, symbols: &Symbolizer<'_>, out: &mut impl Write) -> io::Result<()> {
    for line in &timeline.threads {
        let process = timeline.replayed.engine.processes().process(line.who.process);
        let name = line.life.name.map_or(String::new(), |name| format!("  {}", human::plain(&name.text())));
        writeln!(out, "\ntid:{}{name}", line.who.tid)?;
        match (line.who.born_at, line.who.born_by) {
            (Some(_), Some(by)) => writeln!(out, "  created by tid:{by}")?,
            (Some(_), None) => {}
            (None, _) => writeln!(out, "  its birth was not seen")?,
        }
        writeln!(out, "  in pid:{}  {}", process.tgid, write::command(timeline.replayed, process))?;
        let rows = rows(timeline, line);
        let times: Vec<String> = rows.iter().map(|row| human::instant(row.start_ns)).collect();
        let wide = times.iter().map(|start| start.chars().count()).max().unwrap_or(0);
        for (row, start) in rows.iter().zip(&times) {
            let lasted =
                if row.death.is_some() { String::new() } else { human::duration(row.end_ns.saturating_sub(row.start_ns)) };
            let what = what(timeline.replayed, symbols, row);
            let text = format!("  {start:>wide$}  {lasted:>11}  {:<8}  {what}", row.state.name());
            writeln!(out, "{}", text.trim_end())?;
        }
    }
    Ok(())
}

fn what(replayed: &Replayed, symbols: &Symbolizer<'_>, row: &Row<'_>) -> String {
    if let Some(death) = row.death {
        return death.to_owned();
    }
    if row.state == State::Lost {
        return write::missing_from(row.cpus);
    }
    let Some(span) = row.span else { return String::new() };
    let mut parts = Vec::new();
    parts.extend(span.reason.map(|reason| replayed.engine.reason(reason).to_owned()));
    parts.extend(span.object.map(|object| format!("of {object}")));
    let frames = frames(symbols, span).unwrap_or_default();
    // The program's own code, else the library's, else the kernel's.
    let user = frames.iter().find(|frame| frame.file != IN_KERNEL && !is_library(frame));
    let place = user.or_else(|| frames.iter().find(|frame| frame.file != IN_KERNEL)).or(frames.first());
    parts.extend(place.map(|frame| format!("at {}", human::plain(&label(frame)))));
    let mut what = parts.join(" ");
    if let Some(by) = span.woken_by {
        what += &format!(", woken by {by}");
    }
    what
}

/// Whether a frame is of a library through which every program waits.
fn is_library(frame: &Frame) -> bool {
    let name = frame.file.rsplit('/').next().unwrap_or_default();
    ["libc.so", "libc-", "libpthread", "ld-linux", "[vdso]"].iter().any(|prefix| name.starts_with(prefix))
}
