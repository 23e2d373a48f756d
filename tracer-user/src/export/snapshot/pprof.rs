//! A snapshot as a profile of its goroutines, as `/debug/pprof/goroutine` has it: one sample for each stack and set of labels.
//!
//! Other than Go's own it has the runtime's goroutines too, and those whose stack is unknown: their innermost frame says why.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use pprof::protos::{Label, Profile, Sample};

use super::{Names, labels, missing, stacks};
use crate::{
    export::pprof::{Tables, signed, write_gzipped},
    golang::GoBinary,
    recording::contract::Frame,
    snapshot::{Goroutine, Snapshot, StackRead},
};

/// What goroutines have in common.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key<'s> {
    stack: Result<u32, (Option<&'static str>, Option<Frame>)>,
    labels: Vec<(&'s str, &'s str)>,
}

/// Writes the profile.
pub fn write(snapshot: &Snapshot, binary: &GoBinary, bias: u64, out: &mut impl Write) -> io::Result<()> {
    let mut names = Names::new(binary, bias);
    let stacks = stacks(snapshot, &mut names);
    let mut groups: BTreeMap<Key<'_>, u64> = BTreeMap::new();
    for goroutine in &snapshot.found.all {
        *groups.entry(key(goroutine, snapshot, &mut names)).or_default() += 1;
    }
    write_gzipped(&profile(snapshot, &stacks, &groups), out)
}

fn key<'s>(goroutine: &Goroutine, snapshot: &'s Snapshot, names: &mut Names<'_>) -> Key<'s> {
    let stack = match goroutine.stack {
        StackRead::Known(index) => Ok(index),
        other => Err((missing(other), names.start_function(goroutine.startpc).last().cloned())),
    };
    let labels = labels(goroutine, snapshot).into_iter().flatten();
    Key { stack, labels: labels.map(|(key, value)| (key.as_str(), value.as_str())).collect() }
}

fn profile(snapshot: &Snapshot, stacks: &[Vec<Frame>], groups: &BTreeMap<Key<'_>, u64>) -> Profile {
    let mut tables = Tables::default();
    let goroutines = tables.value_type("goroutine", "count");
    let period_type = tables.value_type("goroutine", "count");
    for (key, count) in groups {
        let location_id = match &key.stack {
            Ok(index) => stacks.get(*index as usize).into_iter().flatten().map(|frame| tables.location(frame)).collect(),
            Err((missing, start)) => unknown_stack(*missing, start.as_ref(), &mut tables),
        };
        let label = key.labels.iter().map(|(key, value)| text_label(key, value, &mut tables)).collect();
        tables.profile.sample.push(Sample { location_id, value: vec![signed(*count)], label });
    }
    let torn = snapshot.found.torn;
    let comment = format!("lifetrace: snapshot of a program of {}; {torn} goroutines changed meanwhile", snapshot.go_version);
    let comment = vec![tables.string(&comment)];
    let default_sample_type = tables.string("goroutine");
    tables.finish(Profile {
        sample_type: vec![goroutines],
        time_nanos: signed(snapshot.taken_at.0),
        duration_nanos: signed(snapshot.duration_ns),
        period_type: Some(period_type),
        period: 1,
        comment,
        default_sample_type,
        ..Profile::default()
    })
}

fn unknown_stack(missing: Option<&str>, start: Option<&Frame>, tables: &mut Tables) -> Vec<u64> {
    let function = format!("[stack unknown: {}]", missing.unwrap_or("?"));
    let why = tables.location(&Frame { function, file: String::new(), line: 0 });
    std::iter::once(why).chain(start.map(|frame| tables.location(frame))).collect()
}

fn text_label(key: &str, value: &str, tables: &mut Tables) -> Label {
    Label { key: tables.string(key), str: tables.string(value), num: 0, num_unit: 0 }
}
