//! A timeline as text for people, or as JSON lines.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::{
    clock::KtimeNs,
    correlate::{
        LabelsId,
        process::{ImageId, Process},
        replay::Replayed,
    },
    id::StackId,
    recording::contract::Frame,
    symbolize::{Symbolizer, label},
};

use super::{GoroutineLine, Row, Timeline, gc, human, process, thread, unit};

/// One line of JSON. The fields are a contract (docs: "timeline").
#[derive(Serialize)]
struct JsonRow<'a> {
    id: &'a str,
    tgid: u32,
    state: &'a str,
    start_ns: u64,
    end_ns: u64,
    /// Wait reason; for `dead`, how it came about.
    reason: Option<&'a str>,
    stack: Option<&'a [Frame]>,
    woken_by: Option<String>,
    tid: Option<u32>,
    object: Option<String>,
    /// What of it no event told, but a snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    repaired: Option<&'a str>,
    /// The newest labels that a snapshot had seen by the end of the line; those that make a request findable once more by themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<BTreeMap<&'a str, &'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<&'a str>,
    /// Of `lost`: the CPUs whose events are missing.
    #[serde(skip_serializing_if = "<[u16]>::is_empty")]
    cpus: &'a [u16],
}

/// Writes a timeline in one of its forms.
pub struct Writer<'a> {
    timeline: &'a Timeline<'a>,
    replayed: &'a Replayed,
    symbols: Symbolizer<'a>,
    stacks: FxHashMap<(ImageId, StackId), Option<Vec<Frame>>>,
}

impl<'a> Writer<'a> {
    pub fn new(timeline: &'a Timeline<'a>) -> Self {
        let replayed = timeline.replayed;
        Self { timeline, replayed, symbols: Symbolizer::new(replayed), stacks: FxHashMap::default() }
    }

    /// JSON lines: each process, what its runtime did, then its goroutines and other units of work by id, each by time.
    pub fn jsonl(&mut self, out: &mut impl Write) -> io::Result<()> {
        let timeline = self.timeline;
        for process in &timeline.processes {
            process::jsonl(timeline, *process, out)?;
        }
        gc::jsonl(&timeline.tracks, self.replayed, out)?;
        for line in &timeline.goroutines {
            let tgid = self.replayed.engine.processes().of_image(line.who.image).tgid;
            let id = format!("go:{}", line.who.goid);
            for row in timeline.rows(line) {
                self.json_row(out, (&id, tgid.0, Some(line.who.image)), line.labels_at(row.end), &row)?;
            }
        }
        unit::jsonl(timeline, out)?;
        thread::jsonl(timeline, &self.symbols, out)
    }

    fn json_row(
        &mut self,
        out: &mut impl Write,
        who: (&str, u32, Option<ImageId>),
        labels: Option<LabelsId>,
        row: &Row<'_>,
    ) -> io::Result<()> {
        let (id, tgid, image) = who;
        let replayed = self.replayed;
        let span = row.span;
        let reason = span.and_then(|span| span.reason).map(|reason| replayed.engine.reason(reason)).or(row.death);
        let stack = image.zip(span.and_then(|span| span.stack));
        let row = JsonRow {
            id,
            tgid,
            state: row.state.name(),
            start_ns: replayed.since_zero(row.start),
            end_ns: replayed.since_zero(row.end),
            reason,
            stack: stack.and_then(|(image, stack)| self.stack(image, stack)),
            woken_by: span.and_then(|span| span.woken_by).map(|by| by.to_string()),
            tid: span.and_then(|span| span.tid).map(|tid| tid.0),
            object: span.and_then(|span| span.object).map(|object| format!("{:#x}", object.0)),
            repaired: row.repaired,
            trace_id: labels.and_then(|labels| replayed.engine.labels().value(labels, "trace_id")),
            span_id: labels.and_then(|labels| replayed.engine.labels().value(labels, "span_id")),
            labels: labels.map(|labels| {
                replayed.engine.labels().get(labels).iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
            }),
            cpus: row.cpus,
        };
        serde_json::to_writer(&mut *out, &row)?;
        out.write_all(b"\n")
    }

    fn stack(&mut self, image: ImageId, stack: StackId) -> Option<&[Frame]> {
        let symbols = &self.symbols;
        let frames = self.stacks.entry((image, stack)).or_insert_with(|| {
            let (ids, _) = symbols.stack(image, stack)?;
            Some(ids.into_iter().map(|id| symbols.frame(id)).collect())
        });
        frames.as_deref()
    }

    /// Text: a block for each process and each goroutine.
    pub fn text(&mut self, out: &mut impl Write) -> io::Result<()> {
        let timeline = self.timeline;
        writeln!(out, "{}", self.replayed.trust())?;
        for id in &timeline.processes {
            process::text(timeline, *id, out)?;
        }
        gc::text(&timeline.tracks, self.replayed, out)?;
        let mut group = None;
        for line in &timeline.goroutines {
            let of = timeline.group(line);
            if let Some((key, value)) = of.filter(|of| group.replace(*of) != Some(*of)) {
                let value = value.map_or("(not seen with it)".to_owned(), human::plain);
                writeln!(out, "\n── {}: {value}", human::plain(key))?;
            }
            self.text_header(out, line)?;
            self.text_rows(out, Some(line.who.image), &timeline.rows(line))?;
        }
        unit::text(timeline, out)?;
        thread::text(timeline, &self.symbols, out)
    }

    fn text_header(&self, out: &mut impl Write, line: &GoroutineLine) -> io::Result<()> {
        let who = &line.who;
        let process = self.replayed.engine.processes().of_image(who.image);
        let (id, tgid) = (who.goid, process.tgid);
        match &who.origin {
            Some(origin) => {
                let site = place(&self.symbols.go_statement(who.image, origin.gopc));
                writeln!(out, "\ngo:{id}@{tgid}  {}", label(&self.symbols.entry(who.image, origin.startpc)))?;
                let parent = origin.parent.map_or(String::new(), |parent| format!(", by go:{parent}"));
                writeln!(out, "  created by {site}{parent}")?;
            }
            None => {
                writeln!(out, "\ngo:{id}@{tgid}  start function unknown")?;
                writeln!(out, "  its birth was not seen")?;
            }
        }
        // That it never had any goes without saying.
        let labelled = line.labels.iter().skip_while(|(_, labels)| self.replayed.engine.labels().get(*labels).is_empty());
        for (at, labels) in labelled {
            let set: Vec<String> = self
                .replayed
                .engine
                .labels()
                .get(*labels)
                .iter()
                .map(|(key, value)| human::plain(&format!("{key}={value}")))
                .collect();
            let set = if set.is_empty() { "none".to_owned() } else { set.join(" ") };
            writeln!(out, "  labels seen at {}: {set}", human::instant(self.replayed.since_zero(*at)))?;
        }
        if line.who.born_by.is_some() && line.who.unseen {
            writeln!(out, "  its birth was not seen: a snapshot found it, no probe was there to tell")?;
        } else if line.who.born_by.is_some() {
            writeln!(out, "  its birth was lost: a snapshot found it")?;
        } else if line.who.origin_by_look {
            writeln!(out, "  its birth was lost: a snapshot told where it comes from")?;
        }
        writeln!(out, "  in {}", command(self.replayed, process))
    }

    fn text_rows(&mut self, out: &mut impl Write, image: Option<ImageId>, rows: &[Row<'_>]) -> io::Result<()> {
        let at = |at: KtimeNs| human::instant(self.replayed.since_zero(at));
        let times: Vec<(String, String)> =
            rows.iter().map(|row| (at(row.start), human::duration(row.end.since(row.start)))).collect();
        let wide = times.iter().map(|(start, _)| start.chars().count()).max().unwrap_or(0);
        let state_wide = rows.iter().map(|row| row.state.name().len()).max().unwrap_or(0).max("blocked".len());
        for (row, (start, lasted)) in rows.iter().zip(&times) {
            let lasted = if row.death.is_some() { "" } else { lasted };
            let what = self.what(image, row);
            let text = format!("  {start:>wide$}  {lasted:>11}  {:<state_wide$}  {what}", row.state.name());
            writeln!(out, "{}", text.trim_end())?;
        }
        Ok(())
    }

    fn what(&mut self, image: Option<ImageId>, row: &Row<'_>) -> String {
        if let Some(death) = row.death {
            let found = if row.repaired.is_some() { " (its exit was lost; snapshots found it gone)" } else { "" };
            return format!("{death}{found}");
        }
        if row.state == super::State::Lost {
            return missing_from(row.cpus);
        }
        let Some(span) = row.span else {
            return row.repaired.map_or(String::new(), |_| "what it runs was told by a snapshot, not by events".to_owned());
        };
        let mut what = span.reason.map_or(String::new(), |reason| self.replayed.engine.reason(reason).to_owned());
        if let Some((image, stack)) = image.zip(span.stack)
            && let Some(frame) = self.stack(image, stack).and_then(own_frame)
        {
            let blank = if what.is_empty() { "" } else { " " };
            what += &format!("{blank}at {}", place(frame));
        }
        if let Some(by) = span.woken_by {
            what += &format!(", woken by {by}");
        }
        if span.by_look {
            what += " (as snapshots found it, not events)";
        }
        what
    }
}

pub(super) fn missing_from(cpus: &[u16]) -> String {
    let noun = if cpus.len() == 1 { "CPU" } else { "CPUs" };
    let names: Vec<String> = cpus.iter().map(u16::to_string).collect();
    format!("events of {noun} {} are missing here", names.join(", "))
}

/// The innermost frame that is not of the runtime or the packages just above it: where the program itself waits.
pub fn own_frame(stack: &[Frame]) -> Option<&Frame> {
    const BELOW: [&str; 4] = ["runtime.", "sync.", "internal/", "time.Sleep"];
    let own = stack.iter().find(|frame| !BELOW.iter().any(|prefix| frame.function.starts_with(prefix)));
    own.or(stack.first())
}

/// A frame with its place in the source.
pub fn place(frame: &Frame) -> String {
    match frame.line {
        0 => label(frame),
        line => format!("{} ({}:{line})", label(frame), frame.file),
    }
}

/// What a process runs: its arguments, else the path of its binary.
pub fn command(replayed: &Replayed, process: &Process) -> String {
    let processes = replayed.engine.processes();
    let args = process.images.iter().rev().map(|image| processes.image(*image)).find(|image| !image.args.is_empty());
    if let Some(image) = args {
        let cut = if image.args_truncated { " …" } else { "" };
        return human::plain(&image.args.join(" ")) + cut;
    }
    let binary = process.images.last().and_then(|image| replayed.binary(processes.image(*image)));
    binary.map_or_else(|| "?".to_owned(), |binary| human::plain(&binary.path))
}
