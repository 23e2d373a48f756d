//! A flamegraph's content as a pprof profile (`profile.proto`), gzipped, as `go tool pprof` opens it.

use std::io::{self, Write};

use flate2::{Compression, write::GzEncoder};
use pprof::protos::{Function, Label, Line, Location, Message, Profile, Sample, ValueType};
use rustc_hash::FxHashMap;

use crate::recording::contract::Frame;

use super::flamegraph::{By, Graph, Stack};

/// Writes the profile of a graph.
pub fn write(graph: &Graph, out: &mut impl Write) -> io::Result<()> {
    write_gzipped(&profile(graph), out)
}

/// Writes a profile as `go tool pprof` opens it.
pub(super) fn write_gzipped(profile: &Profile, out: &mut impl Write) -> io::Result<()> {
    let mut gzip = GzEncoder::new(out, Compression::default());
    gzip.write_all(&profile.encode_to_vec())?;
    gzip.finish()?.flush()
}

/// Strings and frames, each once.
pub(super) struct Tables {
    strings: Vec<String>,
    known: FxHashMap<String, i64>,
    locations: FxHashMap<Frame, u64>,
    pub profile: Profile,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            strings: vec![String::new()],
            known: FxHashMap::from_iter([(String::new(), 0)]),
            locations: FxHashMap::default(),
            profile: Profile::default(),
        }
    }
}

/// The names of what is counted, and of the time.
pub(super) fn values(by: By) -> (&'static str, Option<&'static str>) {
    match by {
        By::Blocked => ("waits", Some("blocked")),
        By::Lifetime => ("goroutines", Some("lifetime")),
        By::Runnable => ("delays", Some("runnable")),
        By::Created => ("created", None),
        By::Alive => ("alive", None),
        By::OnCpu => ("samples", Some("cpu")),
    }
}

fn profile(graph: &Graph) -> Profile {
    let mut tables = Tables::default();
    let (count, time) = values(graph.by);
    let mut types = vec![tables.value_type(count, "count")];
    types.extend(time.map(|time| tables.value_type(time, "nanoseconds")));
    for (stack, weight) in &graph.stacks {
        let location_id = stack.frames.iter().rev().map(|frame| tables.location(frame)).collect();
        let mut value = vec![signed(weight.count)];
        if time.is_some() {
            value.push(signed(weight.ns));
        }
        let label = tables.labels(stack);
        tables.profile.sample.push(Sample { location_id, value, label });
    }
    let default = tables.string(time.unwrap_or(count));
    let comments = [format!("lifetrace: {}", graph.command), graph.trust.clone()].map(|text| tables.string(&text));
    tables.finish(Profile {
        sample_type: types,
        time_nanos: signed(graph.zero_unix_ns),
        duration_nanos: signed(graph.duration_ns),
        comment: comments.to_vec(),
        default_sample_type: default,
        ..Profile::default()
    })
}

pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Tables {
    pub fn string(&mut self, text: &str) -> i64 {
        if let Some(index) = self.known.get(text) {
            return *index;
        }
        let index = self.strings.len() as i64;
        self.strings.push(text.to_owned());
        self.known.insert(text.to_owned(), index);
        index
    }

    pub fn value_type(&mut self, ty: &str, unit: &str) -> ValueType {
        ValueType { ty: self.string(ty), unit: self.string(unit) }
    }

    /// One location and one function for each distinct frame: addresses of many binaries in one profile would clash.
    pub fn location(&mut self, frame: &Frame) -> u64 {
        if let Some(id) = self.locations.get(frame) {
            return *id;
        }
        let id = self.locations.len() as u64 + 1;
        let name = self.string(&crate::symbolize::label(frame));
        let filename = self.string(&frame.file);
        self.profile.function.push(Function { id, name, system_name: name, filename, start_line: 0 });
        let line = Line { function_id: id, line: i64::from(frame.line) };
        self.profile.location.push(Location { id, mapping_id: 0, address: 0, line: vec![line], is_folded: false });
        self.locations.insert(frame.clone(), id);
        id
    }

    /// Whose a sample is: its process, and the labels that looks found.
    pub fn labels(&mut self, stack: &Stack) -> Vec<Label> {
        let mut labels = Vec::with_capacity(1 + stack.labels.len());
        if stack.tgid != 0 {
            labels.push(Label { key: self.string("tgid"), num: i64::from(stack.tgid), ..Label::default() });
        }
        labels.extend(stack.labels.iter().map(|(key, value)| Label {
            key: self.string(key),
            str: self.string(value),
            ..Label::default()
        }));
        labels
    }

    /// `profile` with what was gathered.
    pub fn finish(self, profile: Profile) -> Profile {
        let Profile { sample, location, function, .. } = self.profile;
        Profile { sample, location, function, string_table: self.strings, ..profile }
    }
}
