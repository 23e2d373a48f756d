//! The processes of a report as a person reads them: a tree, parents before their children.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use super::{
    report::{CgroupOut, ProcessOut},
    report_text::{shorten, table},
};
use crate::{
    signal,
    timeline::human::{bytes, count, duration, instant, plain},
};

/// Processes shown; the rest is counted.
const MAX_SHOWN: usize = 200;
/// Deeper ones are not moved further to the right.
const MAX_DEPTH: usize = 12;

/// Columns of the table.
const COLUMNS: usize = 11;
/// Which of them are numbers.
pub(super) const RIGHT: [bool; COLUMNS] = [true, true, false, false, true, true, true, true, false, false, false];

/// Writes the table.
pub(super) fn write(processes: &[ProcessOut], out: &mut impl Write) -> io::Result<()> {
    table(&rows(processes), &RIGHT, out)?;
    if let Some(more) = more(processes) {
        writeln!(out, "  {more}")?;
    }
    Ok(())
}

/// What the table has no room for.
pub(super) fn more(processes: &[ProcessOut]) -> Option<String> {
    let more = processes.len().saturating_sub(MAX_SHOWN);
    (more > 0).then(|| format!("and {} more processes (--format json has all)", count(more as u64)))
}

/// The table, its header first.
pub(super) fn rows(processes: &[ProcessOut]) -> Vec<[String; COLUMNS]> {
    let go = processes.iter().any(|process| process.tier.is_some() || process.go_version.is_some());
    let of_go = |text: &str| if go { text.to_owned() } else { String::new() };
    let zombies = processes.iter().any(|process| is_zombie(process) || process.zombie_ns >= Some(LONG_ZOMBIE_NS));
    let zombie = |text: String| if zombies { text } else { String::new() };
    let mut rows = vec![[
        "TGID".to_owned(),
        "PARENT".to_owned(),
        of_go("GO"),
        of_go("TIER"),
        of_go("BORN"),
        of_go("ALIVE"),
        "STARTED".to_owned(),
        "LIVED".to_owned(),
        "ENDED".to_owned(),
        zombie("ZOMBIE".to_owned()),
        "COMMAND".to_owned(),
    ]];
    let dash = || "-".to_owned();
    let tree = tree(processes);
    for (index, depth) in tree.iter().take(MAX_SHOWN) {
        let process = &processes[*index];
        let lived = process.started_at_ns.zip(process.exited_at_ns).map(|(start, end)| duration(end.saturating_sub(start)));
        let indent = "  ".repeat((*depth).min(MAX_DEPTH));
        rows.push([
            process.tgid.to_string(),
            process.parent.map_or_else(dash, |parent| parent.to_string()),
            process.go_version.clone().unwrap_or_else(|| of_go("-")),
            process.tier.map_or_else(|| of_go("-"), |tier| format!("{tier:?}")),
            process.goroutines.map_or_else(|| of_go("-"), |totals| count(totals.own.born)),
            process.goroutines.map_or_else(|| of_go("-"), |totals| count(totals.own.alive)),
            process.started_at_ns.map_or_else(|| "before".to_owned(), instant),
            lived.unwrap_or_else(dash),
            ended(process),
            zombie(zombie_text(process)),
            plain(&format!("{indent}{}", command(process))),
        ]);
    }
    rows
}

/// Shorter ones are the ordinary business of parents.
const LONG_ZOMBIE_NS: u64 = 1_000_000_000;

fn is_zombie(process: &ProcessOut) -> bool {
    process.zombie_ns.is_some() && process.life.reaped_at_ns.is_none()
}

fn zombie_text(process: &ProcessOut) -> String {
    match process.zombie_ns {
        Some(ns) if is_zombie(process) => format!("{}, not reaped", duration(ns)),
        Some(ns) if ns >= LONG_ZOMBIE_NS => duration(ns),
        _ => "-".to_owned(),
    }
}

fn ended(process: &ProcessOut) -> String {
    let core = if process.life.core_dumped == Some(true) { " (core dumped)" } else { "" };
    let oom = if process.life.oom_killed { " (out of memory)" } else { "" };
    match (process.exited_at_ns, process.exit_code, process.signal) {
        (None, ..) => "running".to_owned(),
        (Some(_), Some(code), _) => format!("exit {code}"),
        (Some(_), None, Some(number)) => format!("{}{core}{oom}", signal::name(number)),
        (Some(_), None, None) => "unknown".to_owned(),
    }
}

fn command(process: &ProcessOut) -> String {
    let argv = process.argv.as_ref().map(|argv| argv.join(" ")).filter(|argv| !argv.is_empty());
    let mut text = shorten(&argv.or(process.exe.clone()).unwrap_or_else(|| "-".to_owned()), 80);
    if let Some(adopter) = process.life.adopted_by {
        text += &format!("  (orphaned; adopted by {adopter})");
    }
    if let Some(id) = &process.life.pod_uid {
        text += &format!("  [pod {id}]");
    } else if let Some(id) = &process.container_id {
        text += &format!("  [{} {}]", process.life.runtime.unwrap_or("container"), &id[..12.min(id.len())]);
    }
    if let Some(reason) = &process.unprobed {
        text += &format!("  (not followed: {reason})");
    }
    text
}

/// Every process with how deep it stands, parents first. A number that was used twice is its younger owner's from then on.
fn tree(processes: &[ProcessOut]) -> Vec<(usize, usize)> {
    let mut children: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut owner: BTreeMap<u32, usize> = BTreeMap::new();
    let mut roots = Vec::new();
    for (index, process) in processes.iter().enumerate() {
        // In order of appearance: a parent comes before its children.
        match process.parent.and_then(|parent| owner.get(&parent)) {
            Some(parent) => children.entry(*parent).or_default().push(index),
            None => roots.push(index),
        }
        owner.insert(process.tgid, index);
    }
    let mut out = Vec::with_capacity(processes.len());
    let mut open: Vec<(usize, usize)> = roots.into_iter().rev().map(|root| (root, 0)).collect();
    while let Some((index, depth)) = open.pop() {
        out.push((index, depth));
        open.extend(children.remove(&index).into_iter().flatten().rev().map(|child| (child, depth + 1)));
    }
    out
}

/// What cgroups had to bear, where that was anything.
pub(super) fn cgroups(cgroups: &[CgroupOut], out: &mut impl Write) -> io::Result<()> {
    for cgroup in cgroups.iter().filter(|cgroup| said(cgroup)) {
        let path = cgroup.cpu_path.as_deref().filter(|path| *path != "/").or(cgroup.memory_path.as_deref()).unwrap_or("/");
        let mut parts = Vec::new();
        if let (Some(quota), Some(period)) = (cgroup.quota_ns, cgroup.period_ns) {
            parts.push(format!("{} of CPU time in {}", duration(quota), duration(period)));
        }
        if let (Some(throttled), Some(periods), Some(of)) = (cgroup.throttled_ns, cgroup.throttled_periods, cgroup.periods)
            && cgroup.quota_ns.is_some()
        {
            parts.push(format!("throttled for {} in {} of {} periods", duration(throttled), count(periods), count(of)));
        }
        if let Some(limit) = cgroup.limit_bytes {
            parts.push(format!("memory limit {}", bytes(limit)));
        }
        for (name, value) in
            [("limit met", cgroup.limit_hits), ("out of memory", cgroup.oom), ("killed for it", cgroup.oom_kills)]
        {
            parts.extend(value.filter(|value| *value > 0).map(|value| format!("{name} {}x", count(value))));
        }
        writeln!(out, "  {}: {}", plain(path), parts.join(", "))?;
    }
    Ok(())
}

/// Whether there is anything to say of a cgroup.
pub(super) fn said(cgroup: &CgroupOut) -> bool {
    let some = |value: Option<u64>| value.is_some_and(|value| value > 0);
    cgroup.quota_ns.is_some()
        || cgroup.limit_bytes.is_some()
        || some(cgroup.limit_hits)
        || some(cgroup.oom)
        || some(cgroup.oom_kills)
}
