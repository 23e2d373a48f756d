//! A flamegraph of what leaked, and the difference to what a baseline knows.
//!
//! A stack leads from who made them to where they are stuck: the creation stack, the wait reason in brackets, the blocking stack.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
};

use pprof::protos::{Profile, Sample};

use super::{LeakOut, LeaksOut, text};
use crate::{
    export::{
        flamegraph::{Drawing, Stack, folded_path, ours},
        pprof::{Tables, signed, write_gzipped},
    },
    leak::baseline::Baseline,
    recording::contract::Frame,
    symbolize::label,
};

/// What a file is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Svg,
    Folded,
    Pprof,
}

impl Format {
    /// By its name: `.folded`, `.pb.gz`, `.pb` and `.pprof`, else SVG.
    pub fn of(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
        match () {
            () if is(&[".folded"]) => Self::Folded,
            () if is(&[".pb.gz", ".pb", ".pprof"]) => Self::Pprof,
            () => Self::Svg,
        }
    }
}

/// What is drawn.
pub struct Flame {
    title: &'static str,
    notes: String,
    /// There is a value before and one now; else one.
    difference: bool,
    /// How many leaked, before and now.
    stacks: BTreeMap<Stack, (u64, u64)>,
}

impl Flame {
    /// What is suspected or proven.
    pub fn now(leaks: &LeaksOut) -> Self {
        let notes = [text::sum(leaks.summary), leaks.trust.clone()].join("; ");
        let mut flame = Self { title: "Leaked", notes, difference: false, stacks: BTreeMap::new() };
        for leak in strong(leaks) {
            flame.add(stack(leak), (0, leak.count as u64));
        }
        flame
    }

    /// What grew and shrank since the baseline was written; what leaks no more has no width, and is counted in the notes.
    pub fn difference(leaks: &LeaksOut, baseline: &Baseline) -> Self {
        let title = "Leaked: difference to the baseline";
        let mut flame = Self { title, notes: String::new(), difference: true, stacks: BTreeMap::new() };
        let mut gone = 0;
        for (fingerprint, known) in baseline.iter() {
            gone += usize::from(!strong(leaks).any(|leak| leak.fingerprint == *fingerprint));
            flame.add(known_at(&known.path), (known.count, 0));
        }
        for leak in strong(leaks) {
            // Another build has other closures and lines of the same leak: it stands where it stood.
            let stack = baseline.get(&leak.fingerprint).map_or_else(|| known_at(&path(leak)), |known| known_at(&known.path));
            flame.add(stack, (0, leak.count as u64));
        }
        flame.notes = format!("since the baseline; {gone} of it leak no more; {}", leaks.trust);
        flame
    }

    fn add(&mut self, stack: Stack, (before, now): (u64, u64)) {
        let counts = self.stacks.entry(stack).or_default();
        *counts = (counts.0.saturating_add(before), counts.1.saturating_add(now));
    }

    pub fn write(&self, format: Format, out: &mut impl Write) -> io::Result<()> {
        match format {
            Format::Svg => {
                // Without any width there is nothing to draw.
                let some = self.stacks.values().any(|(_, now)| *now > 0);
                let lines = if some { self.folded() } else { Vec::new() };
                Drawing { title: self.title, command: "", notes: &self.notes, unit: "leaked" }.write(&lines, out)
            }
            Format::Folded => self.folded().iter().try_for_each(|line| writeln!(out, "{line}")),
            Format::Pprof => self.pprof(out),
        }
    }

    fn folded(&self) -> Vec<String> {
        let mut lines: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for (stack, (before, now)) in &self.stacks {
            let counts = lines.entry(folded_path(&stack.frames)).or_default();
            *counts = (counts.0.saturating_add(*before), counts.1.saturating_add(*now));
        }
        let line =
            |(path, (before, now))| if self.difference { format!("{path} {before} {now}") } else { format!("{path} {now}") };
        lines.into_iter().map(line).collect()
    }

    /// Values of a difference are differences.
    fn pprof(&self, out: &mut impl Write) -> io::Result<()> {
        let mut tables = Tables::default();
        let types = vec![tables.value_type("leaked", "count")];
        for (stack, (before, now)) in &self.stacks {
            let location_id = stack.frames.iter().rev().map(|frame| tables.location(frame)).collect();
            let (value, label) = (vec![signed(*now) - signed(*before)], tables.labels(stack));
            tables.profile.sample.push(Sample { location_id, value, label });
        }
        let default = tables.string("leaked");
        let comment = vec![tables.string(&format!("lifetrace: {}", self.title)), tables.string(&self.notes)];
        let profile = tables.finish(Profile { sample_type: types, comment, default_sample_type: default, ..Profile::default() });
        write_gzipped(&profile, out)
    }
}

fn strong(leaks: &LeaksOut) -> impl Iterator<Item = &LeakOut> {
    leaks.leaks.iter().filter(|leak| leak.strength != "watched")
}

fn stack(leak: &LeakOut) -> Stack {
    let mut labels =
        vec![("strength".to_owned(), leak.strength.to_owned()), ("fingerprint".to_owned(), leak.fingerprint.clone())];
    labels.extend(leak.born_under.first().map(|test| ("test".to_owned(), test.name.clone())));
    Stack { frames: frames(leak), tgid: leak.tgid, labels }
}

/// As a baseline has it: names alone.
fn known_at(path: &[String]) -> Stack {
    // One that was written before it held places.
    let nowhere = ["[in the baseline]".to_owned()];
    let path = if path.is_empty() { &nowhere } else { path };
    Stack { frames: path.iter().cloned().map(ours).collect(), ..Stack::default() }
}

/// From the root to the leaf.
fn frames(leak: &LeakOut) -> Vec<Frame> {
    let mut frames = vec![ours(format!("[{}]", leak.kind))];
    if leak.kind != "goroutine" && leak.kind != "thread" {
        frames.push(ours(text::subject(leak)));
        return frames;
    }
    frames.extend(leak.name.clone().map(ours));
    frames.extend(leak.creation.iter().rev().cloned());
    if let Some(blocked) = &leak.blocked_on {
        frames.push(ours(format!("[{}]", blocked.reason)));
        frames.extend(blocked.stack.iter().rev().cloned());
    }
    frames
}

/// The same by name, for a baseline.
pub fn path(leak: &LeakOut) -> Vec<String> {
    frames(leak).iter().map(label).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a file's name says what it is to hold.
    #[test]
    fn formats() {
        for (name, format) in [
            ("leaks.svg", Format::Svg),
            ("leaks", Format::Svg),
            ("out/leaks.folded", Format::Folded),
            ("leaks.pb.gz", Format::Pprof),
            ("leaks.pprof", Format::Pprof),
            ("leaks.gz", Format::Svg),
        ] {
            assert_eq!(Format::of(Path::new(name)), format, "{name}");
        }
    }
}
