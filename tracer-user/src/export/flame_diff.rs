//! The difference between the flamegraphs of two recordings: what grew, and what shrank.
//!
//! Processes are not told apart: they have other numbers in another recording. Values are compared as they are, whatever the recordings' lengths.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use pprof::protos::{Profile, Sample};

use super::{
    flamegraph::{Drawing, Graph, Stack, Weight, folded_path},
    pprof::{Tables, signed, values, write_gzipped},
};
use crate::timeline::human::{count, duration};

/// A flamegraph before, and one after.
pub struct Difference {
    before: Graph,
    after: Graph,
    notes: String,
}

impl Difference {
    /// Both answer the same question.
    pub fn new(before: Graph, after: Graph) -> Self {
        let mut difference = Self { before, after, notes: String::new() };
        let vanished: u64 = difference.paths().values().filter(|(_, after)| *after == 0).map(|(before, _)| before).sum();
        let Self { before, after, .. } = &difference;
        let mut notes = vec![format!(
            "growth from a recording of {} to one of {}",
            duration(before.duration_ns),
            duration(after.duration_ns)
        )];
        if vanished > 0 {
            let amount = if after.by.is_time() { duration(vanished) } else { format!("{} {}", count(vanished), after.unit()) };
            notes.push(format!("{amount} are gone from stacks that have none left: these have no width"));
        }
        notes.extend([format!("before: {}", before.trust), format!("after: {}", after.trust)]);
        difference.notes = notes.join("; ");
        difference
    }

    /// What must be known to read it.
    pub fn notes(&self) -> &str {
        &self.notes
    }

    /// By folded path, the width before and after.
    fn paths(&self) -> BTreeMap<String, (u64, u64)> {
        let mut paths: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for (stack, weight) in &self.before.stacks {
            let width = &mut paths.entry(folded_path(&stack.frames)).or_default().0;
            *width = width.saturating_add(self.before.by.width(*weight));
        }
        for (stack, weight) in &self.after.stacks {
            let width = &mut paths.entry(folded_path(&stack.frames)).or_default().1;
            *width = width.saturating_add(self.after.by.width(*weight));
        }
        paths.retain(|_, (before, after)| *before | *after > 0);
        paths
    }

    /// Folded lines: frames joined by `;` from the root, a blank, the width before, a blank, the width after. Sorted.
    pub fn folded(&self) -> Vec<String> {
        self.paths().into_iter().map(|(path, (before, after))| format!("{path} {before} {after}")).collect()
    }

    pub fn write_folded(&self, out: &mut impl Write) -> io::Result<()> {
        self.folded().iter().try_for_each(|line| writeln!(out, "{line}"))
    }

    /// Red grew, blue shrank; the widths are those after.
    pub fn write_svg(&self, out: &mut impl Write) -> io::Result<()> {
        let some = self.after.stacks.values().any(|weight| self.after.by.width(*weight) > 0);
        let lines = if some { self.folded() } else { Vec::new() };
        let title = format!("{}: growth", self.after.by.title(self.after.of));
        Drawing { title: &title, command: &self.after.command, notes: &self.notes, unit: self.after.unit() }.write(&lines, out)
    }

    /// Values are differences, as those of `go tool pprof -diff_base`. Processes are left out of the labels.
    pub fn write_pprof(&self, out: &mut impl Write) -> io::Result<()> {
        let mut tables = Tables::default();
        let (count, time) = values(self.after.by);
        let mut types = vec![tables.value_type(count, "count")];
        types.extend(time.map(|time| tables.value_type(time, "nanoseconds")));
        let mut stacks: BTreeMap<Stack, (Weight, Weight)> = BTreeMap::new();
        let known = |stack: &Stack| Stack { tgid: 0, ..stack.clone() };
        for (stack, weight) in &self.before.stacks {
            stacks.entry(known(stack)).or_default().0.add(weight.count, weight.ns);
        }
        for (stack, weight) in &self.after.stacks {
            stacks.entry(known(stack)).or_default().1.add(weight.count, weight.ns);
        }
        for (stack, (before, after)) in stacks.iter().filter(|(_, (before, after))| before != after) {
            let location_id = stack.frames.iter().rev().map(|frame| tables.location(frame)).collect();
            let mut value = vec![signed(after.count) - signed(before.count)];
            value.extend(time.map(|_| signed(after.ns) - signed(before.ns)));
            let label = tables.labels(stack);
            tables.profile.sample.push(Sample { location_id, value, label });
        }
        let default = tables.string(time.unwrap_or(count));
        let comments = [format!("lifetrace: {}", self.after.command), self.notes.clone()].map(|text| tables.string(&text));
        let profile = tables.finish(Profile {
            sample_type: types,
            time_nanos: signed(self.after.zero_unix_ns),
            duration_nanos: signed(self.after.duration_ns),
            comment: comments.to_vec(),
            default_sample_type: default,
            ..Profile::default()
        });
        write_gzipped(&profile, out)
    }
}
