//! Leaks as a person reads them.

use std::io::{self, Write};

use super::{LeakOut, LeaksOut, Summary};
use crate::{
    recording::contract::Frame,
    timeline::human::{count, duration, plain},
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
            let on = leak.blocked_on.as_ref().map_or("not known to be blocked", |blocked| &blocked.reason);
            let loss = if leak.weakened_by_loss { "; only watched because records were lost" } else { "" };
            writeln!(out, "  {:>8}  {}, {on}{loss}", count(leak.count as u64), place(leak.created_by.as_ref()))?;
        }
        if watched.len() > MAX_WATCHED {
            writeln!(out, "  and {} more groups (--format json has all)", watched.len() - MAX_WATCHED)?;
        }
    }
    Ok(())
}

/// All groups in a line.
pub(super) fn sum(summary: Summary) -> String {
    let mut text = format!("{} suspected, {} watched", summary.suspected, summary.watched);
    for (count, what) in [(summary.known, "known to the baseline"), (summary.ignored, "ignored")] {
        if count > 0 {
            text += &format!(", {count} {what}");
        }
    }
    text
}

/// A group in a line.
pub(super) fn headline(leak: &LeakOut) -> String {
    let noun = if leak.count == 1 { "goroutine" } else { "goroutines" };
    format!("{} {noun} of {}", count(leak.count as u64), place(leak.created_by.as_ref()))
}

/// All that is known of a group, for people.
pub(super) fn one(leak: &LeakOut, strength: &str, out: &mut impl Write) -> io::Result<()> {
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
    let births: Vec<String> = leak.test.births.iter().map(|births| count(*births)).collect();
    let hourly = leak.growth_per_hour.map_or_else(String::new, |hourly| format!("{} an hour: ", count(hourly as u64)));
    if leak.because != Some("test") {
        writeln!(
            out,
            "  growth     {hourly}{} are older than {}, {} born in each {}",
            count(leak.test.stuck as u64),
            duration(leak.test.settled_ns),
            births.join(" "),
            duration(leak.test.slice_ns)
        )?;
    }
    if let Some(blocked) = &leak.blocked_on {
        writeln!(
            out,
            "  blocked    {} for {} to {}; {} were never woken there, {} by timers alone",
            plain(&blocked.reason),
            duration(blocked.shortest_ns),
            duration(blocked.longest_ns),
            count(blocked.never_woken as u64),
            count(blocked.by_timers as u64)
        )?;
        if let (Some(object), Some(waiters)) = (&blocked.object, blocked.object_waiters) {
            match blocked.objects {
                1 => writeln!(out, "  waits on   {object}, all of them")?,
                objects if objects == leak.count => writeln!(out, "  waits on   {} objects, one each", count(objects as u64))?,
                objects => {
                    let (objects, waiters) = (count(objects as u64), count(waiters as u64));
                    writeln!(out, "  waits on   {objects} objects; {waiters} of them on {object}")?;
                }
            }
        }
        frames("at", &blocked.stack, out)?;
    }
    if leak.starts_at.is_some() {
        writeln!(out, "  {:<10} {}", "runs", place(leak.starts_at.as_ref()))?;
    }
    frames("made by", &leak.creation, out)?;
    if leak.unconfirmed > 0 {
        writeln!(out, "  loss       {} may have ended: records were lost since they were seen", count(leak.unconfirmed as u64))?;
    }
    if let Some(advice) = leak.advice {
        writeln!(out, "  advice     {advice}")?;
    }
    writeln!(out, "  for one    lifetrace timeline REC --id {}", leak.ids.first().map_or("", String::as_str))
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
            format!("{} ({}:{})", plain(&frame.function), plain(file), frame.line)
        },
    )
}
