//! Leaks as a person reads them.

use std::io::{self, Write};

use super::{LeakOut, LeaksOut, Summary};
use crate::{
    export::runtime_text,
    recording::contract::{Frame, IN_KERNEL},
    timeline::human::{self, count, duration, plain},
};

/// Groups that are alive at the end and no more: shown so many, the rest is counted.
const MAX_WATCHED: usize = 10;
/// Tests of each group.
const MAX_TESTS: usize = 8;
/// Frames of each stack.
const MAX_FRAMES: usize = 6;

/// Writes the verdicts; `color` allows for escape sequences.
pub fn write(leaks: &LeaksOut, color: bool, out: &mut impl Write) -> io::Result<()> {
    let heading = |text: &str| if color { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() };
    let summary = leaks.summary;
    writeln!(out, "{}", heading(&sum(summary)))?;
    writeln!(out, "trust      {}", leaks.trust)?;
    if !leaks.not_watched.is_empty() {
        let packages: Vec<String> = leaks.not_watched.iter().map(|package| plain(package)).collect();
        writeln!(out, "not run    {} (from go's test cache; -count=1 runs them)", packages.join(", "))?;
    }
    for (index, what) in leaks.not_seen.iter().enumerate() {
        writeln!(out, "{:<10} {what}", if index == 0 { "not seen" } else { "" })?;
    }
    for entry in &leaks.expired {
        let what = entry.fingerprint.as_ref().or(entry.function.as_ref()).map_or("", String::as_str);
        writeln!(out, "expired    {} was ignored until {}: {}", plain(what), plain(&entry.expires), plain(&entry.reason))?;
    }
    let (suspected, watched): (Vec<&LeakOut>, Vec<&LeakOut>) = leaks.leaks.iter().partition(|leak| leak.strength != "watched");
    for leak in suspected {
        writeln!(out)?;
        one(leak, &heading(leak.strength), out)?;
    }
    if !watched.is_empty() {
        writeln!(out, "\n{}", heading("watched: alive at the end, no more is known"))?;
        for leak in watched.iter().take(MAX_WATCHED) {
            let on = match (&leak.blocked_on, leak.kind) {
                (Some(blocked), _) => format!(", {}", plain(&blocked.reason)),
                (None, "goroutine" | "thread") => ", not known to be blocked".to_owned(),
                (None, _) => String::new(),
            };
            let loss = if leak.weakened_by_loss { "; only watched because records were lost" } else { "" };
            writeln!(out, "  {:>8}  {}{on}{loss}", count(leak.count as u64), subject(leak))?;
        }
        if watched.len() > MAX_WATCHED {
            writeln!(out, "  and {} more groups (--format json has all)", watched.len() - MAX_WATCHED)?;
        }
    }
    if !leaks.findings.is_empty() {
        writeln!(out, "\n{}", heading("findings"))?;
        runtime_text::findings(&leaks.findings, out)?;
    }
    Ok(())
}

/// All groups in a line.
pub(in crate::export) fn sum(summary: Summary) -> String {
    let mut text = format!("{} proven, {} suspected, {} watched", summary.proven, summary.suspected, summary.watched);
    for (count, what) in [(summary.known, "known to the baseline"), (summary.ignored, "ignored")] {
        if count > 0 {
            text += &format!(", {count} {what}");
        }
    }
    text
}

/// A group in a line.
pub(in crate::export) fn headline(leak: &LeakOut) -> String {
    let noun = match (leak.kind, leak.count) {
        ("process", 1) => "process",
        ("process", _) => "processes",
        ("fd", 1) => "descriptor",
        ("fd", _) => "descriptors",
        ("thread", 1) => "thread",
        ("thread", _) => "threads",
        ("zombie", 1) => "zombie",
        ("zombie", _) => "zombies",
        (_, 1) => "goroutine",
        _ => "goroutines",
    };
    let of = if leak.kind == "goroutine" { "of " } else { "" };
    format!("{} {noun} {of}{}", count(leak.count as u64), subject(leak))
}

/// What a group is, without how many they are and of what kind.
pub(super) fn subject(leak: &LeakOut) -> String {
    let name = leak.name.as_deref().map(plain).unwrap_or_default();
    match leak.kind {
        "thread" => format!("{name:?} of process {}", leak.tgid),
        "process" | "zombie" => format!("{name:?}, children of process {}", leak.tgid),
        "fd" => format!("of kind {name}, of process {}", leak.tgid),
        _ => place(leak.created_by.as_ref()),
    }
}

/// All that is known of a group, for people.
pub(in crate::export) fn one(leak: &LeakOut, strength: &str, out: &mut impl Write) -> io::Result<()> {
    let known = if leak.known { ", known" } else { "" };
    writeln!(out, "{strength}  {}  [{}{known}]", headline(leak), leak.fingerprint)?;
    if let Some(ignored) = &leak.ignored {
        writeln!(out, "  ignored    until {}: {}", plain(&ignored.expires), plain(&ignored.reason))?;
    }
    for test in leak.born_under.iter().take(MAX_TESTS) {
        let exact = if test.exact { "" } else { " (not all of its name is known)" };
        writeln!(out, "  born under {}: {}{exact}", plain(&test.name), count(test.count as u64))?;
    }
    if leak.born_under.len() > MAX_TESTS {
        writeln!(out, "             and {} more tests (--format json has all)", leak.born_under.len() - MAX_TESTS)?;
    }
    if let Some(because) = because(leak) {
        writeln!(out, "  {because}")?;
    }
    if let Some(blocked) = &leak.blocked_on {
        let woken = blocked.never_woken.map(|count_of| format!("; {} were never woken there", count(count_of as u64)));
        let by_timers = blocked.by_timers.map(|count_of| format!(", {} by timers alone", count(count_of as u64)));
        writeln!(
            out,
            "  blocked    {} for {} to {}{}{}",
            plain(&blocked.reason),
            duration(blocked.shortest_ns),
            duration(blocked.longest_ns),
            woken.unwrap_or_default(),
            by_timers.unwrap_or_default()
        )?;
        if let (Some(object), Some(waiters)) = (&blocked.object, blocked.object_waiters) {
            let (objects, waiters) = (blocked.objects.unwrap_or(0), count(waiters as u64));
            let on = match objects {
                1 => format!("{object}, all of them"),
                objects if objects == leak.count => format!("{} objects, one each", count(objects as u64)),
                objects => format!("{} objects; {waiters} of them on {object}", count(objects as u64)),
            };
            writeln!(out, "  waits on   {on}")?;
        }
        if let Some(touch) = &blocked.last_touched {
            let woken = touch.woken_by.as_ref().map_or_else(String::new, |by| format!(", woken by {by}"));
            writeln!(out, "  last       {} went on from there at {}{woken}", touch.by, duration(touch.at_ns))?;
        }
        frames("at", own(&blocked.stack), out)?;
    }
    if leak.starts_at.is_some() {
        writeln!(out, "  {:<10} {}", "runs", place(leak.starts_at.as_ref()))?;
    }
    if leak.kind == "goroutine" {
        frames("made by", &leak.creation, out)?;
    }
    if let Some(bytes) = leak.stack_bytes {
        let of = match leak.stacks_known {
            known if known == leak.count => String::new(),
            known => format!(" of {}, the others were not looked at", count(known as u64)),
        };
        writeln!(out, "  stacks     {}{of}", human::bytes(bytes))?;
    }
    if !leak.labels.is_empty() {
        let labels: Vec<String> = leak
            .labels
            .iter()
            .map(|label| format!("{}={} {}x", plain(&label.key), plain(&label.value), count(label.count as u64)))
            .collect();
        writeln!(out, "  labels     {}", labels.join(", "))?;
    }
    if leak.unconfirmed > 0 {
        writeln!(out, "  loss       {} may have ended: records were lost since they were seen", count(leak.unconfirmed as u64))?;
    }
    if let Some(advice) = leak.advice {
        writeln!(out, "  advice     {advice}")?;
    }
    match leak.ids.first() {
        Some(id) => writeln!(out, "  for one    lifetrace timeline REC --id {id}"),
        None => Ok(()),
    }
}

/// What the strength stands on.
fn because(leak: &LeakOut) -> Option<String> {
    let births: Vec<String> = leak.test.births.iter().map(|births| count(*births)).collect();
    let (births, slice) = (births.join(" "), duration(leak.test.slice_ns));
    let hourly = leak.growth_per_hour.map_or_else(String::new, |hourly| format!("{} an hour: ", count(hourly as u64)));
    Some(match leak.because {
        Some("test") => return None,
        Some("collector") => {
            format!("proof      Go's collector found that nobody can wake {} of them", count(leak.proven as u64))
        }
        Some("unreaped") => {
            format!("proof      their parent has not waited for them for {}, and they became more", duration(leak.oldest_ns))
        }
        _ if leak.kind == "fd" => {
            let first = leak.counts.first().map_or(0, |first| first.count);
            format!("growth     {hourly}from {}; at least {births} more in each {slice}", count(first))
        }
        _ => format!(
            "growth     {hourly}{} are older than {}, {births} born in each {slice}",
            count(leak.test.stuck as u64),
            duration(leak.test.settled_ns),
        ),
    })
}

/// A blocking stack without what the runtime did to block, which the reason says.
fn own(stack: &[Frame]) -> &[Frame] {
    let is_runtimes = |frame: &&Frame| {
        let function = frame.function.as_str();
        frame.file == IN_KERNEL || ["runtime.", "internal/", "sync.runtime_"].iter().any(|inner| function.starts_with(inner))
    };
    let inner = stack.iter().take_while(is_runtimes).count();
    stack.get(inner..).filter(|own| !own.is_empty()).unwrap_or(stack)
}

fn frames(title: &str, frames: &[Frame], out: &mut impl Write) -> io::Result<()> {
    for (index, frame) in frames.iter().take(MAX_FRAMES).enumerate() {
        let title = if index == 0 { title } else { "" };
        writeln!(out, "  {title:<10} {}", place(Some(frame)))?;
    }
    Ok(())
}

pub(super) fn place(frame: Option<&Frame>) -> String {
    frame.map_or_else(
        || "(born before, or lost)".to_owned(),
        |frame| {
            let file = frame.file.rsplit('/').next().unwrap_or_default();
            let line = if frame.line == 0 { String::new() } else { format!(":{}", frame.line) };
            format!("{} ({}{line})", plain(&frame.function), plain(file))
        },
    )
}
