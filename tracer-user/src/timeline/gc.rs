//! The track of the Go runtime: cycles of the collector (`gc`) and pauses of the whole process (`stw`).

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use serde::Serialize;

use crate::{
    clock::KtimeNs,
    correlate::{
        gc::{Cycle, Pause},
        process::ImageId,
        replay::Replayed,
    },
    id::{Goid, Tgid},
};

use super::human;

/// What one image's runtime did.
#[derive(Clone, Debug, Default)]
pub struct Track {
    pub cycles: Vec<Cycle>,
    pub pauses: Vec<Pause>,
}

/// All tracks of a recording.
#[derive(Clone, Debug, Default)]
pub struct Tracks(BTreeMap<ImageId, Track>);

impl Tracks {
    pub fn pause(&mut self, image: ImageId, pause: &Pause) {
        self.0.entry(image).or_default().pauses.push(*pause);
    }

    pub fn cycle(&mut self, image: ImageId, cycle: &Cycle) {
        self.0.entry(image).or_default().cycles.push(*cycle);
    }

    /// Keeps the tracks of one process. Whether there were any.
    pub fn retain(&mut self, replayed: &Replayed, tgid: Tgid) -> bool {
        let processes = replayed.engine.processes();
        self.0.retain(|image, _| processes.of_image(*image).tgid == tgid);
        !self.0.is_empty()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Each image's, by image.
    pub fn iter(&self) -> impl Iterator<Item = (ImageId, &Track)> {
        self.0.iter().map(|(image, track)| (*image, track))
    }

    /// The lines of each image, by start.
    fn lines<'a>(&self, replayed: &'a Replayed) -> impl Iterator<Item = (ImageId, Vec<Line<'a>>)> {
        self.0.iter().map(move |(image, track)| {
            let mut lines: Vec<Line<'a>> = track.cycles.iter().map(Line::of_cycle).collect();
            lines.extend(track.pauses.iter().map(|pause| Line::of_pause(pause, replayed)));
            lines.sort_by_key(|line| (line.start, line.what));
            (*image, lines)
        })
    }
}

/// A line before it is written. `gc` sorts before `stw`: a cycle before the pause that it begins with.
struct Line<'a> {
    what: &'static str,
    state: &'static str,
    start: KtimeNs,
    end: KtimeNs,
    reason: Option<&'a str>,
    by: Option<Goid>,
    tid: Option<u32>,
    /// What was not seen of it.
    unsure: Option<&'static str>,
}

impl<'a> Line<'a> {
    fn of_cycle(cycle: &Cycle) -> Self {
        let unsure = match (cycle.start_seen, cycle.end_seen) {
            (true, true) => None,
            (false, true) => Some("its beginning was not seen"),
            (true, false) => Some("its end was not seen"),
            (false, false) => Some("neither its beginning nor its end was seen"),
        };
        let state = if unsure.is_some() { "unknown" } else { "running" };
        Self { what: "gc", state, start: cycle.start, end: cycle.end, reason: None, by: cycle.by, tid: None, unsure }
    }

    fn of_pause(pause: &Pause, replayed: &'a Replayed) -> Self {
        let unsure = (!pause.end_seen).then_some("its end was not seen");
        Self {
            what: "stw",
            state: if pause.end_seen { "stopped" } else { "unknown" },
            start: pause.start,
            end: pause.end,
            reason: Some(replayed.engine.reason(pause.reason)),
            by: pause.by,
            tid: Some(pause.tid.0),
            unsure,
        }
    }
}

/// One line of JSON: fewer fields than a goroutine's, of the same meaning, and who caused it.
#[derive(Serialize)]
struct JsonLine<'a> {
    id: &'a str,
    tgid: u32,
    state: &'a str,
    start_ns: u64,
    end_ns: u64,
    reason: Option<&'a str>,
    caused_by: Option<String>,
    tid: Option<u32>,
}

/// Writes the tracks as JSON lines.
pub fn jsonl(tracks: &Tracks, replayed: &Replayed, out: &mut impl Write) -> io::Result<()> {
    for (image, lines) in tracks.lines(replayed) {
        let tgid = replayed.engine.processes().of_image(image).tgid.0;
        for line in lines {
            let json = JsonLine {
                id: line.what,
                tgid,
                state: line.state,
                start_ns: replayed.since_zero(line.start),
                end_ns: replayed.since_zero(line.end),
                reason: line.reason,
                caused_by: line.by.map(|goid| format!("go:{goid}")),
                tid: line.tid,
            };
            serde_json::to_writer(&mut *out, &json)?;
            out.write_all(b"\n")?;
        }
    }
    Ok(())
}

/// Writes the tracks as text, a block an image.
pub fn text(tracks: &Tracks, replayed: &Replayed, out: &mut impl Write) -> io::Result<()> {
    for (image, lines) in tracks.lines(replayed) {
        let process = replayed.engine.processes().of_image(image);
        writeln!(out, "\ngc:{}  the Go runtime of {}", process.tgid, super::write::command(replayed, process))?;
        let at = |line: &Line<'_>| human::instant(replayed.since_zero(line.start));
        let wide = lines.iter().map(|line| at(line).chars().count()).max().unwrap_or(0);
        for line in &lines {
            let lasted = human::duration(line.end.since(line.start));
            let name = if line.what == "gc" { "cycle" } else { "stopped" };
            let by = line.by.map_or(String::new(), |goid| format!("by go:{goid}"));
            let what = [line.reason.unwrap_or_default(), &by, line.unsure.unwrap_or_default()];
            let what: Vec<&str> = what.into_iter().filter(|part| !part.is_empty()).collect();
            writeln!(out, "  {:>wide$}  {lasted:>11}  {name:<7}  {}", at(line), human::plain(&what.join(", ")))?;
        }
    }
    Ok(())
}
