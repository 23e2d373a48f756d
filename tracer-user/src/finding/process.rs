//! Findings about processes: the same program started again and again as it fails, and those that did not end when they were asked to.

use rustc_hash::FxHashMap;
use serde::Serialize;

use super::{Evidence, Finding};
use crate::{
    clock::KtimeNs,
    correlate::{
        process::{
            Image, Process,
            life::{SignalWhat, number},
        },
        replay::Replayed,
    },
    id::Tgid,
    signal,
    timeline::{human, process::ending},
};

/// Starts in a row that make a loop.
const MIN_STARTS: usize = 3;
/// Runs, and intervals between them, that are told of one loop.
const MAX_RUNS: usize = 100;

/// One program that one parent started again and again.
#[derive(Serialize)]
pub struct RestartLoop {
    pub exe: Option<String>,
    pub starts: u64,
    /// Between the end of one run and the start of the next, in order.
    pub pauses_ns: Vec<u64>,
    pub runs: Vec<RunOut>,
}

#[derive(Serialize)]
pub struct RunOut {
    pub id: String,
    pub start_ns: u64,
    pub end_ns: Option<u64>,
    /// `exit 1`, `SIGKILL`; `null`: it still ran, or its exit was lost.
    pub ended: Option<String>,
}

/// A process was asked to end, and then killed.
#[derive(Serialize)]
pub struct KilledAfterTimeout {
    /// Who sent both signals.
    pub by: String,
    pub asked_with: String,
    pub asked_at_ns: u64,
    pub killed_at_ns: u64,
    pub waited_ns: u64,
    /// What the process did about the first signal: `handler`, `default`, or `null` if it did not take it.
    pub took: Option<&'static str>,
}

/// All of them.
pub(super) fn findings(replayed: &Replayed) -> Vec<Finding> {
    let mut found = restart_loops(replayed);
    found.extend(replayed.engine.processes().processes().filter_map(|(_, process)| killed_after_timeout(replayed, process)));
    found
}

/// What a process executed last, if that was seen.
fn program<'a>(replayed: &'a Replayed, process: &Process) -> Option<&'a Image> {
    let all = replayed.engine.processes();
    process.images.iter().rev().map(|image| all.image(*image)).find(|image| image.executed)
}

fn restart_loops(replayed: &Replayed) -> Vec<Finding> {
    let mut groups: FxHashMap<(Tgid, &str, &str), Vec<&Process>> = FxHashMap::default();
    for (_, process) in replayed.engine.processes().processes() {
        let (Some(parent), Some(image)) = (process.parent, program(replayed, process)) else { continue };
        let name = image.args.first().map_or("", String::as_str);
        groups.entry((parent, &image.exe, name)).or_default().push(process);
    }
    let mut found = Vec::new();
    for ((parent, exe, name), mut runs) in groups {
        runs.sort_by_key(|process| process.first_seen);
        let mut chain: Vec<&Process> = Vec::new();
        for process in runs {
            if !chain.last().is_some_and(|last| follows(last, process)) {
                found.extend(restart_loop(replayed, parent, (exe, name), &chain));
                chain.clear();
            }
            chain.push(process);
        }
        found.extend(restart_loop(replayed, parent, (exe, name), &chain));
    }
    found
}

/// Whether one is started because the one before failed.
fn follows(before: &Process, next: &Process) -> bool {
    before.ended.is_some_and(|(at, status)| at <= next.first_seen && status.is_some_and(|status| status != 0))
}

fn restart_loop(replayed: &Replayed, parent: Tgid, (exe, name): (&str, &str), chain: &[&Process]) -> Option<Finding> {
    let (first, last) = (chain.first()?, chain.last()?);
    if chain.len() < MIN_STARTS {
        return None;
    }
    let end_of = |process: &Process| process.ended.map(|(at, _)| at);
    let pauses: Vec<u64> =
        chain.windows(2).map(|pair| end_of(pair[0]).map_or(0, |end| pair[1].first_seen.since(end))).take(MAX_RUNS).collect();
    let run = |process: &&Process| RunOut {
        id: format!("pid:{}", process.tgid),
        start_ns: replayed.since_zero(process.first_seen),
        end_ns: end_of(process).map(|at| replayed.since_zero(at)),
        ended: process.ended.and_then(|(_, status)| status).map(ending),
    };
    let shown = if exe.is_empty() { name } else { exe };
    let growing = pauses.len() > 1 && pauses.windows(2).all(|pair| pair[1] > pair[0]);
    let shortest = pauses.iter().min().copied().unwrap_or(0);
    let longest = pauses.iter().max().copied().unwrap_or(0);
    let end = end_of(last).unwrap_or(replayed.ended_at);
    Some(Finding {
        kind: "restart_loop",
        id: format!("pid:{parent}"),
        tgid: parent.0,
        start_ns: replayed.since_zero(first.first_seen),
        end_ns: replayed.since_zero(end),
        cause: format!(
            "{} started {} times, each time after it had failed; pauses of {} to {}{}",
            human::plain(shown),
            chain.len(),
            human::duration(shortest),
            human::duration(longest),
            if growing { ", growing" } else { "" }
        ),
        evidence: Evidence::Restarts(RestartLoop {
            exe: (!exe.is_empty()).then(|| exe.to_owned()),
            starts: chain.len() as u64,
            pauses_ns: pauses,
            runs: chain.iter().take(MAX_RUNS).map(run).collect(),
        }),
        weight: end.since(first.first_seen),
    })
}

/// One that got a signal which asks for its end, then SIGKILL of the same sender, and died of that.
fn killed_after_timeout(replayed: &Replayed, process: &Process) -> Option<Finding> {
    const ASKING: [u32; 4] = [1, 2, 3, number::SIGTERM];
    let (ended, status) = process.ended?;
    if status? & 0x7f != number::SIGKILL {
        return None;
    }
    let kept = || process.life.signals.kept.iter();
    let killed =
        kept().rev().find(|signal| signal.signal == number::SIGKILL && matches!(signal.what, SignalWhat::Received { .. }))?;
    let SignalWhat::Received { from: Some(by), .. } = killed.what else { return None };
    let asked = kept().find(|signal| {
        let same = matches!(signal.what, SignalWhat::Received { from: Some(from), .. } if from == by);
        same && ASKING.contains(&signal.signal) && signal.at <= killed.at
    })?;
    let took = kept().find_map(|signal| match signal.what {
        SignalWhat::Taken { handled, .. } if signal.signal == asked.signal && signal.at >= asked.at => {
            Some(if handled { "handler" } else { "default" })
        }
        _ => None,
    });
    let waited_ns = killed.at.since(asked.at);
    let at = |at: KtimeNs| replayed.since_zero(at);
    Some(Finding {
        kind: "killed_after_timeout",
        id: format!("pid:{}", process.tgid),
        tgid: process.tgid.0,
        start_ns: at(asked.at),
        end_ns: at(ended),
        cause: format!("{} by pid:{by}, and SIGKILL {} later", signal::name(asked.signal), human::duration(waited_ns)),
        evidence: Evidence::Killed(KilledAfterTimeout {
            by: format!("pid:{by}"),
            asked_with: signal::name(asked.signal),
            asked_at_ns: at(asked.at),
            killed_at_ns: at(killed.at),
            waited_ns,
            took,
        }),
        weight: waited_ns,
    })
}
