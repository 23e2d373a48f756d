//! Counts threads, what kept them off their CPUs, and their delays, by process.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::{
    correlate::{
        ReasonId,
        process::ProcessId,
        replay::Replayed,
        thread::{ThreadEnd, ThreadLife, ThreadSpan, ThreadState, ThreadWho},
    },
    recording::contract::Threads,
    timeline::human::{count, duration},
};

use super::{
    report::{ProcessOut, Quantiles, WaitOut},
    tally::Waits,
};

/// Reasons shown for a process.
const MAX_WAITS: usize = 6;

/// Threads of one process.
#[derive(Clone, Debug, Default)]
struct OfProcess {
    born: u64,
    preexisting: u64,
    exited: u64,
    gone: u64,
    alive: u64,
    running_ns: u64,
    unknown_ns: u64,
    runnable: Waits,
    off_cpu: FxHashMap<Option<ReasonId>, Waits>,
}

/// The sink's part.
#[derive(Default)]
pub struct ThreadTally {
    processes: FxHashMap<ProcessId, OfProcess>,
}

impl ThreadTally {
    pub fn span(&mut self, who: &ThreadWho, span: &ThreadSpan) {
        let of = self.processes.entry(who.process).or_default();
        let ns = span.end.since(span.start);
        match span.state {
            ThreadState::Running => of.running_ns = of.running_ns.saturating_add(ns),
            ThreadState::Unknown => of.unknown_ns = of.unknown_ns.saturating_add(ns),
            ThreadState::Runnable => of.runnable.record(ns),
            ThreadState::Blocked => of.off_cpu.entry(span.reason).or_default().record(ns),
        }
    }

    pub fn life(&mut self, who: &ThreadWho, life: &ThreadLife) {
        let of = self.processes.entry(who.process).or_default();
        match life.end {
            // It goes on under another number, and is counted there.
            ThreadEnd::Exec => return,
            ThreadEnd::Exit | ThreadEnd::ExitOfAll => of.exited += 1,
            ThreadEnd::Gone => of.gone += 1,
            ThreadEnd::ProcessEnd | ThreadEnd::RecordingEnd => of.alive += 1,
        }
        *(if who.born_at.is_some() { &mut of.born } else { &mut of.preexisting }) += 1;
    }

    /// What is reported of a process; `None`: nothing was heard of its threads.
    pub(super) fn out(&self, replayed: &Replayed, process: ProcessId) -> Option<ThreadsOut> {
        let of = self.processes.get(&process)?;
        let seen = of.running_ns > 0 || of.runnable.count > 0 || !of.off_cpu.is_empty();
        let detail = (replayed.meta.threads != Threads::Off && seen).then(|| {
            let name = |id: &Option<ReasonId>| id.map_or("unknown", |id| replayed.engine.reason(id)).to_owned();
            DetailOut {
                running_ns: of.running_ns,
                unknown_ns: of.unknown_ns,
                runnable: wait_out(&of.runnable),
                off_cpu: of.off_cpu.iter().map(|(id, waits)| (name(id), wait_out(waits))).collect(),
            }
        });
        let OfProcess { born, preexisting, exited, gone, alive, .. } = *of;
        Some(ThreadsOut { born, preexisting, exited, gone, alive, detail })
    }
}

fn wait_out(waits: &Waits) -> WaitOut {
    WaitOut { count: waits.count, blocked_ns: waits.total_ns, quantiles: Quantiles::of(waits) }
}

/// The threads of one process: `born + preexisting = exited + gone + alive`.
#[derive(Serialize)]
pub struct ThreadsOut {
    pub born: u64,
    pub preexisting: u64,
    pub exited: u64,
    /// Their exit was lost.
    pub gone: u64,
    /// When the process or the recording ended.
    pub alive: u64,
    /// `null`: they were not followed on and off their CPUs.
    #[serde(flatten)]
    pub detail: Option<DetailOut>,
}

/// What the scheduler told of them.
#[derive(Serialize)]
pub struct DetailOut {
    pub running_ns: u64,
    /// Time of which nothing is known.
    pub unknown_ns: u64,
    /// Delays between being able to run and running; `blocked_ns` is their sum.
    pub runnable: WaitOut,
    /// By reason: a system call, `fault`, `stopped`.
    pub off_cpu: BTreeMap<String, WaitOut>,
}

/// A block of lines for each process whose threads were followed.
pub(super) fn text(processes: &[ProcessOut], out: &mut impl Write) -> io::Result<()> {
    for process in processes {
        let Some(threads) = &process.threads else { continue };
        let Some(detail) = &threads.detail else { continue };
        let before = if threads.preexisting > 0 { format!("+{}", count(threads.preexisting)) } else { String::new() };
        writeln!(
            out,
            "  pid {}: {}{before} born, {} exited, {} alive; {} on CPU; waiting for one {}x, {}: median {}, p99 {}, max {}",
            process.tgid,
            count(threads.born),
            count(threads.exited),
            count(threads.alive),
            duration(detail.running_ns),
            count(detail.runnable.count),
            duration(detail.runnable.blocked_ns),
            duration(detail.runnable.quantiles.p50_ns),
            duration(detail.runnable.quantiles.p99_ns),
            duration(detail.runnable.quantiles.max_ns),
        )?;
        let mut waits: Vec<_> = detail.off_cpu.iter().collect();
        waits.sort_by_key(|(name, wait)| (std::cmp::Reverse(wait.blocked_ns), name.as_str()));
        for (name, wait) in waits.iter().take(MAX_WAITS) {
            writeln!(
                out,
                "      {name} {}x, {}: median {}, p99 {}, max {}",
                count(wait.count),
                duration(wait.blocked_ns),
                duration(wait.quantiles.p50_ns),
                duration(wait.quantiles.p99_ns),
                duration(wait.quantiles.max_ns)
            )?;
        }
        if waits.len() > MAX_WAITS {
            writeln!(out, "      and {} more (--format json has all)", waits.len() - MAX_WAITS)?;
        }
    }
    Ok(())
}
