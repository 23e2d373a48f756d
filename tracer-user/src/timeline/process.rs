//! The life of a process as rows: what state it was in from when to when, and what happened to it.

use std::io::{self, Write};

use serde::Serialize;

use super::{PROCESS_BY_SNAPSHOT, State, Timeline, human, write::missing_from};
use crate::{
    clock::KtimeNs,
    correlate::{
        process::{
            Process, ProcessId,
            life::{Reaped, Signal, SignalWhat},
        },
        replay::Replayed,
    },
    id::{Tgid, Tid},
    signal,
};

/// Children that are shown of one process; more are counted.
const MAX_FORKS: usize = 1000;

/// One row: a state that lasted, or an event.
#[derive(Clone, Debug)]
pub struct ProcessRow<'a> {
    pub state: State,
    pub start: KtimeNs,
    pub end: KtimeNs,
    pub what: What<'a>,
}

/// What a row says besides its state.
#[derive(Clone, Debug)]
pub enum What<'a> {
    /// It was in this state. `repaired`: no event told what it runs.
    State {
        repaired: Option<&'static str>,
        signal: Option<u32>,
    },
    Lost {
        cpus: &'a [u16],
    },
    /// The end: `exit` or `gone by then`, and the wait status.
    Dead {
        reason: &'static str,
        status: Option<u32>,
        reaped: Option<Reaped>,
    },
    Event(Happened<'a>),
}

/// What happened to a process, or what it did.
#[derive(Clone, Debug)]
pub enum Happened<'a> {
    Forked {
        child: Tgid,
        runs: String,
    },
    /// So many children more.
    ForkedMore(u64),
    Executed {
        exe: &'a str,
        argv: &'a [String],
        by: Option<Tid>,
    },
    /// Its parent had ended.
    Adopted {
        parent: Tgid,
    },
    Signal(Signal),
    /// So many signals more, before the first that is shown.
    SignalsBefore(u64),
    OomVictim,
    Moved {
        cgroup: String,
    },
    /// Its cgroup had used up its CPU quota for so long since the row before.
    Throttled {
        cgroup: &'a str,
        throttled_ns: u64,
        periods: u64,
    },
}

impl<'a> Timeline<'a> {
    /// The lines of one process.
    pub fn process_rows(&self, id: ProcessId) -> Vec<ProcessRow<'_>> {
        let process = self.replayed.engine.processes().process(id);
        let mut rows = self.states(process);
        rows.extend(self.losses(process));
        rows.extend(self.events(id, process));
        // What happened comes behind the state that it led to, and before the end.
        rows.sort_by_key(|row| {
            (row.start, matches!(row.what, What::Dead { .. }), matches!(row.what, What::Event(_)), row.state == State::Lost)
        });
        rows
    }

    fn states(&self, process: &'a Process) -> Vec<ProcessRow<'a>> {
        let end = process.ended.map_or(self.replayed.ended_at, |(at, _)| at);
        let by_look = process.images.iter().any(|image| self.replayed.engine.processes().image(*image).by_look);
        let row = |state, start, end, signal| ProcessRow { state, start, end, what: What::State { repaired: None, signal } };
        let mut rows = Vec::new();
        let mut since = process.first_seen;
        for stop in &process.life.stops {
            let from = stop.from.clamp(since, end);
            let to = stop.to.unwrap_or(end).clamp(from, end);
            rows.push(row(State::Alive, since, from, None));
            rows.push(row(State::Stopped, from, to, Some(stop.signal)));
            since = to;
        }
        if since < end || rows.is_empty() {
            rows.push(row(State::Alive, since, end, None));
        }
        if by_look && let Some(ProcessRow { what: What::State { repaired, .. }, .. }) = rows.first_mut() {
            *repaired = Some(PROCESS_BY_SNAPSHOT);
        }
        if let Some((from, to)) = zombie(self.replayed, process) {
            let by_look = process.life.reaped.is_some_and(|reaped| reaped.by_look);
            let state = if by_look { State::Unknown } else { State::Zombie };
            rows.push(row(state, from, to.unwrap_or(self.replayed.ended_at).max(from), None));
            if to.is_none() {
                return rows;
            }
        }
        if let Some((at, status)) = process.ended {
            let reaped = process.life.reaped;
            let at = reaped.map_or(at, |reaped| reaped.at.max(at));
            let reason = if status.is_some() { "exit" } else { "gone by then" };
            rows.push(ProcessRow { state: State::Dead, start: at, end: at, what: What::Dead { reason, status, reaped } });
        }
        rows
    }

    fn losses(&self, process: &Process) -> impl Iterator<Item = ProcessRow<'_>> {
        let (from, to) = (process.first_seen, process.ended.map_or(self.replayed.ended_at, |(at, _)| at));
        self.lost_between(from, to).map(move |lost| ProcessRow {
            state: State::Lost,
            start: lost.from.max(from),
            end: lost.to.min(to),
            what: What::Lost { cpus: &lost.cpus },
        })
    }

    fn events(&self, id: ProcessId, process: &'a Process) -> Vec<ProcessRow<'_>> {
        let all = self.replayed.engine.processes();
        let mut events: Vec<(KtimeNs, Happened<'_>)> = Vec::new();
        let images = process.images.iter().map(|image| all.image(*image)).filter(|image| image.executed);
        events.extend(
            images.map(|image| (image.since, Happened::Executed { exe: &image.exe, argv: &image.args, by: image.by_thread })),
        );
        let mut children = self.children(id);
        if children.len() > MAX_FORKS {
            let more = children.len() - MAX_FORKS;
            events.extend(children.get(MAX_FORKS).map(|(at, _)| (*at, Happened::ForkedMore(more as u64))));
            children.truncate(MAX_FORKS);
        }
        events.extend(children.into_iter().map(|(at, child)| {
            let child = all.process(child);
            (at, Happened::Forked { child: child.tgid, runs: runs(self.replayed, child) })
        }));
        let life = &process.life;
        events.extend(life.adoptions.iter().map(|one| (one.at, Happened::Adopted { parent: one.parent })));
        if life.signals.left_out() > 0 {
            let first = life.signals.kept.front().map_or(process.first_seen, |signal| signal.at);
            events.push((first, Happened::SignalsBefore(life.signals.left_out())));
        }
        events.extend(life.signals.kept.iter().map(|signal| (signal.at, Happened::Signal(*signal))));
        events.extend(life.oom_at.map(|at| (at, Happened::OomVictim)));
        events.extend(life.moves.iter().map(|moved| {
            let place = self.replayed.cgroups.path(moved.hierarchy, moved.cgroup).map(str::to_owned);
            let cgroup = place.unwrap_or_else(|| format!("{}:{}", moved.hierarchy, moved.cgroup));
            (moved.at, Happened::Moved { cgroup })
        }));
        let state_at = |at: KtimeNs| match process.ended {
            Some((ended, _)) if at > ended => State::Zombie,
            _ if life.stops.iter().any(|stop| stop.from <= at && stop.to.is_none_or(|to| at < to)) => State::Stopped,
            _ => State::Alive,
        };
        let row = |(at, what)| ProcessRow { state: state_at(at), start: at, end: at, what: What::Event(what) };
        let mut rows: Vec<ProcessRow<'_>> = events.into_iter().map(row).collect();
        rows.extend(self.replayed.throttled(process).into_iter().map(|one| ProcessRow {
            state: state_at(one.to),
            start: one.from,
            end: one.to,
            what: What::Event(Happened::Throttled { cgroup: one.cgroup, throttled_ns: one.throttled_ns, periods: one.periods }),
        }));
        rows
    }

    /// Those whose first parent a process is, by birth.
    fn children(&self, id: ProcessId) -> Vec<(KtimeNs, ProcessId)> {
        let all = self.replayed.engine.processes();
        let parent = all.process(id);
        let end = parent.ended.map_or(KtimeNs::MAX, |(at, _)| at);
        let born = |child: &Process| {
            child.forked_at.filter(|at| child.parent == Some(parent.tgid) && (parent.first_seen..=end).contains(at))
        };
        let mut children: Vec<_> = all.processes().filter_map(|(child, process)| Some((born(process)?, child))).collect();
        children.sort_unstable();
        children
    }
}

/// From when to when a process was a zombie; `None` too where this recording does not tell of reaping.
pub fn zombie(replayed: &Replayed, process: &Process) -> Option<(KtimeNs, Option<KtimeNs>)> {
    process.zombie().filter(|(_, to)| to.is_some() || replayed.tells("process reaped"))
}

/// What a child was to run, in a word.
fn runs(replayed: &Replayed, process: &Process) -> String {
    let all = replayed.engine.processes();
    let executed = process.images.iter().map(|image| all.image(*image)).find(|image| image.executed);
    executed.map_or(String::new(), |image| match image.args.is_empty() {
        true => image.exe.clone(),
        false => image.args.join(" "),
    })
}

/// How a process ended, for people: `exit 3`, `SIGKILL`, `SIGSEGV (core dumped)`.
pub fn ending(status: u32) -> String {
    match status & 0x7f {
        0 => format!("exit {}", status >> 8 & 0xff),
        number => format!("{}{}", signal::name(number), if status & 0x80 != 0 { " (core dumped)" } else { "" }),
    }
}

/// One line of JSON: the fields of a goroutine's line, and what is a process's own.
#[derive(Default, Serialize)]
struct JsonRow<'a> {
    id: &'a str,
    tgid: u32,
    state: &'a str,
    start_ns: u64,
    end_ns: u64,
    reason: Option<&'a str>,
    stack: Option<()>,
    woken_by: Option<()>,
    tid: Option<u32>,
    object: Option<()>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repaired: Option<&'a str>,
    #[serde(skip_serializing_if = "<[u16]>::is_empty")]
    cpus: &'a [u16],
    /// What happened; lines of states have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exe: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    argv: Option<&'a [String]>,
    /// An id: the child, the new parent, whom a signal was sent to.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    /// An id, or `kernel`: who sent a signal, who reaped.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal_name: Option<String>,
    /// Of a signal: `si_code`; what became of it (`delivered`, `ignored`, …), or what was done (`handler`, `default`).
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    throttled_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u32>,
    /// Of `dead`: whether the reaper was seen, or is told by who was the parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    reaper_seen: Option<bool>,
}

/// What became of a signal that was sent (`TRACE_SIGNAL_…`).
fn result_name(result: u32) -> &'static str {
    match result {
        0 => "delivered",
        1 => "ignored",
        2 => "already_pending",
        _ => "lost",
    }
}

/// Writes the rows of one process as JSON lines.
pub(super) fn jsonl(timeline: &Timeline<'_>, id: ProcessId, out: &mut impl Write) -> io::Result<()> {
    let tgid = timeline.replayed.engine.processes().process(id).tgid.0;
    let name = format!("pid:{tgid}");
    for row in timeline.process_rows(id) {
        let base = JsonRow {
            id: &name,
            tgid,
            state: row.state.name(),
            start_ns: timeline.replayed.since_zero(row.start),
            end_ns: timeline.replayed.since_zero(row.end),
            ..JsonRow::default()
        };
        serde_json::to_writer(&mut *out, &json_row(&row, base))?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

fn json_row<'a>(row: &'a ProcessRow<'_>, base: JsonRow<'a>) -> JsonRow<'a> {
    let pid = |tgid: Tgid| Some(format!("pid:{tgid}"));
    match &row.what {
        What::State { repaired, signal } => {
            JsonRow { repaired: *repaired, signal: *signal, signal_name: signal.map(signal::name), ..base }
        }
        What::Lost { cpus } => JsonRow { cpus, ..base },
        What::Dead { reason, status, reaped } => {
            let signal = status.map(|status| status & 0x7f).filter(|signal| *signal != 0);
            JsonRow {
                reason: Some(reason),
                signal,
                signal_name: signal.map(signal::name),
                exit_code: status.filter(|status| status & 0x7f == 0).map(|status| status >> 8 & 0xff),
                by: reaped.and_then(|reaped| reaped.by).and_then(pid),
                reaper_seen: reaped.map(|reaped| reaped.seen),
                ..base
            }
        }
        What::Event(happened) => json_event(happened, base),
    }
}

fn json_event<'a>(happened: &'a Happened<'_>, base: JsonRow<'a>) -> JsonRow<'a> {
    let pid = |tgid: &Tgid| Some(format!("pid:{tgid}"));
    match happened {
        Happened::Forked { child, .. } => JsonRow { event: Some("fork"), to: pid(child), ..base },
        Happened::ForkedMore(count) => JsonRow { event: Some("more_forks"), count: Some(*count), ..base },
        Happened::Executed { exe, argv, by } => JsonRow {
            event: Some("exec"),
            exe: Some(exe).copied().filter(|exe| !exe.is_empty()),
            argv: Some(argv),
            tid: by.map(|tid| tid.0),
            ..base
        },
        Happened::Adopted { parent } => JsonRow { event: Some("adopted"), to: pid(parent), ..base },
        Happened::Signal(signal) => {
            let base = JsonRow {
                signal: Some(signal.signal),
                signal_name: Some(signal::name(signal.signal)),
                code: Some(signal.code),
                ..base
            };
            match &signal.what {
                SignalWhat::Sent { to } => JsonRow { event: Some("signal_sent"), to: pid(to), ..base },
                SignalWhat::Received { from, result } => JsonRow {
                    event: Some("signal_received"),
                    by: from.as_ref().map_or_else(|| Some("kernel".to_owned()), pid),
                    result: Some(result_name(*result)),
                    ..base
                },
                SignalWhat::Taken { handled, tid } => JsonRow {
                    event: Some("signal_taken"),
                    result: Some(if *handled { "handler" } else { "default" }),
                    tid: Some(tid.0),
                    ..base
                },
            }
        }
        Happened::SignalsBefore(count) => JsonRow { event: Some("more_signals"), count: Some(*count), ..base },
        Happened::OomVictim => JsonRow { event: Some("oom_victim"), by: Some("kernel".to_owned()), ..base },
        Happened::Moved { cgroup } => JsonRow { event: Some("cgroup"), cgroup: Some(cgroup), ..base },
        Happened::Throttled { cgroup, throttled_ns, periods } => JsonRow {
            event: Some("throttled"),
            cgroup: Some(cgroup),
            throttled_ns: Some(*throttled_ns),
            count: Some(*periods),
            ..base
        },
    }
}

/// Writes a process as text: a heading, then its rows.
pub(super) fn text(timeline: &Timeline<'_>, id: ProcessId, out: &mut impl Write) -> io::Result<()> {
    let replayed = timeline.replayed;
    let process = replayed.engine.processes().process(id);
    writeln!(out, "\npid:{}  {}", process.tgid, super::write::command(replayed, process))?;
    if let Some(parent) = process.parent {
        writeln!(out, "  started by pid:{parent}")?;
    }
    if let Some(path) = replayed.cgroups.place(process, KtimeNs::MAX).path().filter(|path| *path != "/") {
        writeln!(out, "  in cgroup {}", human::plain(path))?;
    }
    let rows = timeline.process_rows(id);
    let at = |at: KtimeNs| human::instant(replayed.since_zero(at));
    let wide = rows.iter().map(|row| at(row.start).chars().count()).max().unwrap_or(0);
    let state_wide = rows.iter().map(|row| word(row).len()).max().unwrap_or(0).max("blocked".len());
    for row in &rows {
        let start = at(row.start);
        let lasted = match row.what {
            What::State { .. } | What::Lost { .. } | What::Event(Happened::Throttled { .. }) => {
                human::duration(row.end.since(row.start))
            }
            _ => String::new(),
        };
        let line = format!("  {start:>wide$}  {lasted:>11}  {:<state_wide$}  {}", word(row), human::plain(&detail(row)));
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// What a row is about, in a word.
pub fn word(row: &ProcessRow<'_>) -> &'static str {
    let What::Event(happened) = &row.what else { return row.state.name() };
    match happened {
        Happened::Forked { .. } | Happened::ForkedMore(_) => "forks",
        Happened::Executed { .. } => "executes",
        Happened::Adopted { .. } => "adopted",
        Happened::Signal(Signal { what: SignalWhat::Sent { .. }, .. }) => "sends",
        Happened::Signal(Signal { what: SignalWhat::Received { .. }, .. }) => "is sent",
        Happened::Signal(Signal { what: SignalWhat::Taken { .. }, .. }) => "takes",
        Happened::SignalsBefore(_) => "signals",
        Happened::OomVictim => "chosen",
        Happened::Moved { .. } => "moved",
        Happened::Throttled { .. } => "throttled",
    }
}

pub fn detail(row: &ProcessRow<'_>) -> String {
    match &row.what {
        What::State { repaired: Some(_), .. } => "what it runs was told by a snapshot, not by events".to_owned(),
        What::State { signal, .. } => signal.map_or(String::new(), |number| format!("by {}", signal::name(number))),
        What::Lost { cpus } => missing_from(cpus),
        What::Dead { reason, status, reaped } => {
            let how = status.filter(|status| *status != 0).map_or((*reason).to_owned(), ending);
            match reaped {
                Some(Reaped { by: Some(by), seen: true, .. }) => format!("{how}, reaped by pid:{by}"),
                Some(Reaped { by: Some(by), seen: false, .. }) => format!("{how}, reaped by then (its parent is pid:{by})"),
                Some(Reaped { by_look: true, .. }) => format!("{how}, reaped by then (it was found gone)"),
                _ => how,
            }
        }
        What::Event(happened) => event_detail(happened),
    }
}

fn event_detail(happened: &Happened<'_>) -> String {
    match happened {
        Happened::Forked { child, runs } => format!("pid:{child}  {runs}"),
        Happened::ForkedMore(count) => format!("{} more", human::count(*count)),
        Happened::Executed { exe, argv, by } => {
            let by = by.map_or(String::new(), |tid| format!(" (by thread {tid})"));
            let argv = argv.join(" ");
            if exe.is_empty() { format!("{argv}{by}") } else { format!("{exe}: {argv}{by}") }
        }
        Happened::Adopted { parent } => format!("by pid:{parent}, as its parent had ended"),
        Happened::Signal(signal) => {
            let name = signal::name(signal.signal);
            match signal.what {
                SignalWhat::Sent { to } => format!("{name} to pid:{to}"),
                SignalWhat::Received { from, result } => {
                    let by = from.map_or("the kernel".to_owned(), |from| format!("pid:{from}"));
                    let became =
                        if result == 0 { String::new() } else { format!(" ({})", result_name(result).replace('_', " ")) };
                    format!("{name} by {by}{became}")
                }
                SignalWhat::Taken { handled: true, .. } => format!("{name} in its handler"),
                SignalWhat::Taken { .. } => format!("{name} by default"),
            }
        }
        Happened::SignalsBefore(count) => format!("{} more before these", human::count(*count)),
        Happened::OomVictim => "to be killed: memory ran out".to_owned(),
        Happened::Moved { cgroup } => format!("to cgroup {cgroup}"),
        Happened::Throttled { cgroup, throttled_ns, periods } => {
            format!("{} in {periods} periods: cgroup {cgroup} had used up its CPU quota", human::duration(*throttled_ns))
        }
    }
}
