//! Units of work of other runtimes: `java:12`, `job:7`, `go:3` of a program that follows the convention.

use std::{
    fmt,
    io::{self, Write},
    str::FromStr,
};

use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::{
    clock::KtimeNs,
    correlate::{
        Life, LifeEnd, SpanState,
        replay::Replayed,
        unit::{UnitNumber, UnitSpan, UnitWho},
    },
    id::{Goid, Tgid},
};

use super::{State, Timeline, human};

/// The longest name of a runtime that a table may give.
const MAX_NAME: usize = 32;

/// A runtime's name, as an id begins with it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RuntimeName([u8; MAX_NAME]);

impl RuntimeName {
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(MAX_NAME);
        std::str::from_utf8(&self.0[..end]).unwrap_or_default()
    }
}

impl FromStr for RuntimeName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
        let bytes = text.as_bytes();
        if bytes.is_empty() || bytes.len() > MAX_NAME || !bytes.iter().all(plain) {
            return Err(());
        }
        let mut name = [0; MAX_NAME];
        name[..bytes.len()].copy_from_slice(bytes);
        Ok(Self(name))
    }
}

impl fmt::Display for RuntimeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RuntimeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// One unit's life with its spans, in order of time.
#[derive(Clone, Debug)]
pub struct UnitLine {
    pub who: UnitWho,
    pub life: Life,
    pub spans: Vec<UnitSpan>,
}

/// Collects units while a recording is replayed.
#[derive(Clone, Debug, Default)]
pub struct Units {
    only: Option<UnitNumber>,
    open: FxHashMap<u64, Vec<UnitSpan>>,
    pub(super) closed: Vec<UnitLine>,
}

impl Units {
    /// Collects the units of this number, or all.
    pub(super) fn only(only: Option<UnitNumber>) -> Self {
        Self { only, ..Self::default() }
    }

    pub(super) fn span(&mut self, who: &UnitWho, span: &UnitSpan) {
        self.open.entry(who.serial).or_default().push(*span);
    }

    pub(super) fn life(&mut self, who: &UnitWho, life: &Life) {
        let spans = self.open.remove(&who.serial).unwrap_or_default();
        if self.only.is_none_or(|only| only == who.number) {
            self.closed.push(UnitLine { who: who.clone(), life: *life, spans });
        }
    }
}

impl UnitLine {
    pub(super) fn tgid(&self, replayed: &Replayed) -> Tgid {
        replayed.engine.processes().of_image(self.who.image).tgid
    }

    /// Whether it is what people call `go:GOID`.
    pub(super) fn is_goroutine(&self, replayed: &Replayed, goid: Goid) -> bool {
        self.who.number == UnitNumber::Id(goid.0) && replayed.engine.runtime(self.who.runtime) == "go"
    }

    pub fn id(&self, replayed: &Replayed) -> String {
        format!("{}:{}", replayed.engine.runtime(self.who.runtime), self.who.number)
    }
}

impl UnitLine {
    /// What it did and why, by time.
    pub fn states<'s>(&'s self, replayed: &'s Replayed) -> impl Iterator<Item = (State, Option<&'s str>, &'s UnitSpan)> {
        self.spans.iter().map(|span| {
            let state = match span.state {
                SpanState::Blocked => State::Blocked,
                SpanState::Unknown => State::Unknown,
                _ => State::Awake,
            };
            (state, span.reason.map(|reason| replayed.engine.reason(reason)), span)
        })
    }
}

/// A line before it is written.
struct Line<'a> {
    state: State,
    start: KtimeNs,
    end: KtimeNs,
    reason: Option<&'a str>,
    span: Option<&'a UnitSpan>,
    cpus: &'a [u16],
}

/// The lines of one unit, by start.
fn lines<'a>(timeline: &'a Timeline<'_>, unit: &'a UnitLine) -> Vec<Line<'a>> {
    let of_span = |(state, reason, span): (State, Option<&'a str>, &'a UnitSpan)| Line {
        state,
        start: span.start,
        end: span.end,
        reason,
        span: Some(span),
        cpus: &[],
    };
    let mut lines: Vec<Line<'a>> = unit.states(timeline.replayed).map(of_span).collect();
    let bare = |state, start, end, reason| Line { state, start, end, reason, span: None, cpus: &[] };
    for lost in timeline.lost_between(unit.who.since, unit.life.ended_at) {
        let (start, end) = (lost.from.max(unit.who.since), lost.to.min(unit.life.ended_at));
        lines.push(Line { cpus: &lost.cpus, ..bare(State::Lost, start, end, None) });
    }
    lines.sort_by_key(|line| (line.start, line.state == State::Lost));
    let death = match unit.life.end {
        LifeEnd::Exit => Some("exit"),
        LifeEnd::ProcessEnd => Some("process end"),
        LifeEnd::Gone => Some("gone by then"),
        LifeEnd::RecordingEnd => None,
    };
    let at = unit.life.ended_at;
    lines.extend(death.map(|death| bare(State::Dead, at, at, Some(death))));
    lines
}

/// One line of JSON: fields of the same meaning as a goroutine's.
#[derive(Serialize)]
struct JsonLine<'a> {
    id: &'a str,
    tgid: u32,
    state: &'a str,
    start_ns: u64,
    end_ns: u64,
    reason: Option<&'a str>,
    name: Option<&'a str>,
    tid: Option<u32>,
    object: Option<String>,
    /// Only with `true`: it ended at some time before `end_ns`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    at_most: bool,
    #[serde(skip_serializing_if = "<[u16]>::is_empty")]
    cpus: &'a [u16],
}

/// Writes the units as JSON lines.
pub fn jsonl(timeline: &Timeline<'_>, out: &mut impl Write) -> io::Result<()> {
    let replayed = timeline.replayed;
    for unit in &timeline.units {
        let (id, tgid) = (unit.id(replayed), unit.tgid(replayed).0);
        for line in lines(timeline, unit) {
            let json = JsonLine {
                id: &id,
                tgid,
                state: line.state.name(),
                start_ns: replayed.since_zero(line.start),
                end_ns: replayed.since_zero(line.end),
                reason: line.reason,
                name: unit.who.name.as_deref(),
                tid: line.span.and_then(|span| span.tid).map(|tid| tid.0),
                object: line.span.and_then(|span| span.object).map(|object| format!("{:#x}", object.0)),
                at_most: line.span.is_some_and(|span| span.at_most),
                cpus: line.cpus,
            };
            serde_json::to_writer(&mut *out, &json)?;
            out.write_all(b"\n")?;
        }
    }
    Ok(())
}

/// Writes the units as text, a block each.
pub fn text(timeline: &Timeline<'_>, out: &mut impl Write) -> io::Result<()> {
    let replayed = timeline.replayed;
    for unit in &timeline.units {
        let process = replayed.engine.processes().of_image(unit.who.image);
        let name = unit.who.name.as_deref().map_or(String::new(), |name| format!("  {}", human::plain(name)));
        writeln!(out, "\n{}@{}{name}", unit.id(replayed), process.tgid)?;
        if unit.who.born_at.is_none() {
            writeln!(out, "  its start was not seen")?;
        }
        writeln!(out, "  in {}", super::write::command(replayed, process))?;
        let lines = lines(timeline, unit);
        let at = |line: &Line<'_>| human::instant(replayed.since_zero(line.start));
        let wide = lines.iter().map(|line| at(line).chars().count()).max().unwrap_or(0);
        for line in &lines {
            let lasted = if line.state == State::Dead { String::new() } else { human::duration(line.end.since(line.start)) };
            let text = format!("  {:>wide$}  {lasted:>11}  {:<7}  {}", at(line), line.state.name(), what(line));
            writeln!(out, "{}", text.trim_end())?;
        }
    }
    Ok(())
}

fn what(line: &Line<'_>) -> String {
    if line.state == State::Lost {
        return super::write::missing_from(line.cpus);
    }
    let mut what = human::plain(line.reason.unwrap_or_default());
    let Some(span) = line.span else { return what };
    if let Some(object) = span.object {
        what += &format!(" on {:#x}", object.0);
    }
    if span.at_most {
        what += " (or less: no probe tells of its end)";
    }
    if let Some(tid) = span.tid {
        what += &format!("{}tid {tid}", if what.is_empty() { "" } else { ", " });
    }
    what
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check which names a runtime can have.
    #[test]
    fn names() {
        let name = |text: &str| RuntimeName::from_str(text).map(|name| name.to_string());
        assert_eq!(name("java"), Ok("java".to_owned()));
        assert_eq!(name(&"x".repeat(32)), Ok("x".repeat(32)));
        for bad in ["", "Java", "a b", "é", &"x".repeat(33)] {
            assert_eq!(name(bad), Err(()), "{bad}");
        }
    }
}
