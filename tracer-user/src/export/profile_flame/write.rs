//! Folded lines, SVG, and pprof.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use pprof::protos::{self, Profile, Sample};

use super::{Flame, Stack, Weight, labels::Label};
use crate::{
    export::{
        flamegraph::{Drawing, folded_path},
        pprof::{Tables, signed, write_gzipped},
    },
    recording::contract::Frame,
};

/// Bytes of all folded lines: a profile can name a lot with little.
const MAX_FOLDED: usize = 256 << 20;

impl Flame {
    /// Folded lines: frames joined by `;` from the root, a blank, the value; of a growth the value before and the value after. Sorted.
    pub fn folded(&self) -> io::Result<Vec<String>> {
        let mut lines: BTreeMap<String, Weight> = BTreeMap::new();
        let mut bytes = 0;
        for (stack, weight) in self.unlabelled() {
            let path = folded_path(stack.iter().map(|id| &self.frames.all()[*id as usize]));
            bytes += path.len();
            if bytes > MAX_FOLDED {
                return Err(io::Error::other("the profile's stacks are too much text"));
            }
            let into = lines.entry(if path.is_empty() { "[no stack]".into() } else { path }).or_default();
            into.before = into.before.saturating_add(weight.before);
            into.after = into.after.saturating_add(weight.after);
        }
        let line = |(path, Weight { before, after }): (String, Weight)| match self.differential {
            true => format!("{path} {before} {after}"),
            false => format!("{path} {after}"),
        };
        Ok(lines.into_iter().filter(|(_, weight)| weight.before | weight.after != 0).map(line).collect())
    }

    pub fn write_folded(&self, out: &mut impl Write) -> io::Result<()> {
        self.folded()?.iter().try_for_each(|line| writeln!(out, "{line}"))
    }

    fn title(&self) -> String {
        let what = if self.differential { ": growth" } else { "" };
        format!("{}{what}", self.by.title())
    }

    /// Red grew, blue shrank; the widths are the values after.
    pub fn write_svg(&self, out: &mut impl Write) -> io::Result<()> {
        let lines = if self.total.after == 0 { Vec::new() } else { self.folded()? };
        let (title, notes) = (self.title(), self.notes.join("; "));
        Drawing { title: &title, command: &self.command, notes: &notes, unit: self.by.value().1 }.write(&lines, out)
    }

    /// A growth's values are differences, as those of `go tool pprof -base`. Samples keep the labels that the target gave them.
    pub fn write_pprof(&self, out: &mut impl Write) -> io::Result<()> {
        let mut tables = Tables::default();
        let types = vec![tables.value_type(self.by.value().0, self.by.proto_unit())];
        let mut stacks: Vec<(&Stack, i64)> =
            self.stacks.iter().map(|(stack, weight)| (stack, signed(weight.after) - signed(weight.before))).collect();
        stacks.retain(|(_, value)| *value != 0);
        stacks.sort_unstable();
        for (stack, value) in stacks {
            let frame = |id: &u32| -> &Frame { &self.frames.all()[*id as usize] };
            let location_id = stack.frames.iter().rev().map(|id| tables.location(frame(id))).collect();
            let label = self.labels.all()[stack.labels as usize].iter().map(|label| written(label, &mut tables)).collect();
            tables.profile.sample.push(Sample { location_id, value: vec![value], label });
        }
        let default = tables.string(self.by.value().0);
        let comment = std::iter::once(format!("lifetrace: {}", self.command)).chain(self.notes.iter().cloned());
        let comment = comment.collect::<Vec<_>>().iter().map(|text| tables.string(text)).collect();
        let profile = tables.finish(Profile {
            sample_type: types,
            time_nanos: signed(self.zero_unix_ns),
            duration_nanos: signed(self.duration_ns),
            comment,
            default_sample_type: default,
            ..Profile::default()
        });
        write_gzipped(&profile, out)
    }
}

fn written(label: &Label, tables: &mut Tables) -> protos::Label {
    protos::Label {
        key: tables.string(&label.key),
        str: tables.string(&label.text),
        num: label.number,
        num_unit: tables.string(&label.unit),
    }
}
