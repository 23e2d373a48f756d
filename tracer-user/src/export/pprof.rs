//! Flamegraph weights as a pprof profile (`github.com/google/pprof/proto/profile.proto`), gzipped as pprof writes it.

use std::io::{self, Write};

use flate2::{Compression, write::GzEncoder};
use pprof::protos::{Function, Line, Location, Profile, Sample, ValueType};
use prost::Message;
use rustc_hash::FxHashMap;

use crate::{correlate::replay::Replayed, recording::contract::Frame};

use super::flamegraph::Flame;

/// Writes `flame` so that `go tool pprof` opens it. Loss and coverage are its comments.
pub fn write(flame: &Flame, replayed: &Replayed, out: &mut dyn Write) -> io::Result<()> {
    let mut builder = Builder::default();
    builder.profile.string_table.push(String::new());
    let (kind, unit) = match flame.by.unit() {
        "ns" => (flame.by.name(), "nanoseconds"),
        _ => (flame.by.name(), "count"),
    };
    let value_type = ValueType { ty: builder.string(kind), unit: builder.string(unit) };
    builder.profile.sample_type.push(value_type);
    builder.profile.default_sample_type = builder.string(kind);
    for stack in &flame.stacks {
        let location_id = stack.frames.iter().rev().map(|frame| builder.location(frame)).collect();
        let value = vec![i64::try_from(stack.weight).unwrap_or(i64::MAX)];
        builder.profile.sample.push(Sample { location_id, value, label: Vec::new() });
    }
    let comment = builder.string(&flame.trust(replayed));
    let command = builder.string(&replayed.meta.command.join(" "));
    builder.profile.comment.extend([command, comment]);
    builder.profile.time_nanos = i64::try_from(replayed.meta.clock.wall_ns.0).unwrap_or_default();
    builder.profile.duration_nanos = i64::try_from(replayed.duration_ns()).unwrap_or_default();
    let mut gzip = GzEncoder::new(out, Compression::default());
    gzip.write_all(&builder.profile.encode_to_vec())?;
    gzip.finish().map(drop)
}

#[derive(Default)]
struct Builder {
    profile: Profile,
    strings: FxHashMap<String, i64>,
    locations: FxHashMap<Frame, u64>,
    functions: FxHashMap<(String, String), u64>,
}

impl Builder {
    fn string(&mut self, text: &str) -> i64 {
        if text.is_empty() {
            return 0;
        }
        if let Some(index) = self.strings.get(text) {
            return *index;
        }
        let index = self.profile.string_table.len() as i64;
        self.profile.string_table.push(text.to_owned());
        self.strings.insert(text.to_owned(), index);
        index
    }

    fn location(&mut self, frame: &Frame) -> u64 {
        if let Some(id) = self.locations.get(frame) {
            return *id;
        }
        let function_id = self.function(frame);
        let id = self.profile.location.len() as u64 + 1;
        let line = vec![Line { function_id, line: i64::from(frame.line) }];
        self.profile.location.push(Location { id, line, ..Location::default() });
        self.locations.insert(frame.clone(), id);
        id
    }

    fn function(&mut self, frame: &Frame) -> u64 {
        let key = (frame.function.clone(), frame.file.clone());
        if let Some(id) = self.functions.get(&key) {
            return *id;
        }
        let id = self.profile.function.len() as u64 + 1;
        let (name, filename) = (self.string(&frame.function), self.string(&frame.file));
        self.profile.function.push(Function { id, name, system_name: name, filename, start_line: 0 });
        self.functions.insert(key, id);
        id
    }
}
