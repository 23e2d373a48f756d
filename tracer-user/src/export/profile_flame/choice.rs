//! Which of a recording's profiles are meant.

use std::collections::BTreeMap;

use super::{By, Unanswerable};
use crate::{
    correlate::{process::ProcessId, replay::Replayed},
    export::{flamegraph, owner::Owners},
    id::Tgid,
    recording::contract::{Frame, Profile},
    timeline::human,
};

/// A profile, and whose it is as far as that is known.
#[derive(Clone, Copy)]
pub struct Chosen<'a> {
    pub profile: &'a Profile,
    process: Option<ProcessId>,
}

impl Chosen<'_> {
    /// The frame below all of its stacks.
    pub(super) fn root(&self, replayed: &Replayed) -> Frame {
        let process = self.process.map(|id| replayed.engine.processes().process(id));
        let unknown = || Frame { function: format!("pid {}", self.profile.tgid), file: String::new(), line: 0 };
        process.map_or_else(unknown, |process| flamegraph::root(replayed, process))
    }
}

/// By process: its profiles in order of time.
type ByProcess<'a> = BTreeMap<(Tgid, Option<ProcessId>), Vec<Chosen<'a>>>;

fn all(replayed: &Replayed, by: By, at_ns: Option<u64>) -> Result<ByProcess<'_>, Unanswerable> {
    let (kind, how) = by.wanted();
    let fitting = || replayed.profiles.iter().filter(|profile| by.is_in(profile.kind));
    let first = fitting().map(|profile| profile.at).min().ok_or(Unanswerable::None { kind, how })?;
    let owners = Owners::new(replayed);
    let mut processes = ByProcess::new();
    for profile in fitting().filter(|profile| at_ns.is_none_or(|limit| replayed.since_zero(profile.at) <= limit)) {
        let process = owners.at(profile.tgid, profile.at);
        processes.entry((profile.tgid, process)).or_default().push(Chosen { profile, process });
    }
    if processes.is_empty() {
        let (at_ns, first_ns) = (at_ns.unwrap_or(0), replayed.since_zero(first));
        return Err(Unanswerable::NotYet { kind, at_ns, first_ns });
    }
    processes.values_mut().for_each(|profiles| profiles.sort_by_key(|chosen| chosen.profile.at));
    Ok(processes)
}

/// The newest of each process.
pub fn newest(replayed: &Replayed, by: By, at_ns: Option<u64>) -> Result<Vec<Chosen<'_>>, Unanswerable> {
    Ok(all(replayed, by, at_ns)?.into_values().filter_map(|profiles| profiles.last().copied()).collect())
}

/// Profiles of several processes, one each.
type Several<'a> = Vec<Chosen<'a>>;

/// The first and the newest of each process that has two, and how many have but one.
pub fn first_and_last(
    replayed: &Replayed,
    by: By,
    at_ns: Option<u64>,
) -> Result<(Several<'_>, Several<'_>, usize), Unanswerable> {
    let processes = all(replayed, by, at_ns)?;
    let count = processes.len();
    let two = processes.into_values().filter(|profiles| profiles.len() > 1);
    let (first, last): (Vec<_>, Vec<_>) = two.filter_map(|profiles| Some((*profiles.first()?, *profiles.last()?))).unzip();
    if first.is_empty() {
        let (kind, how) = by.wanted();
        return Err(Unanswerable::One { kind, how });
    }
    let alone = count - first.len();
    Ok((first, last, alone))
}

/// When they were taken: `12.3 s`, or `10 s to 12.3 s`.
pub fn times(replayed: &Replayed, chosen: &[Chosen<'_>]) -> String {
    let at = || chosen.iter().map(|chosen| replayed.since_zero(chosen.profile.at));
    match (at().min(), at().max()) {
        (Some(first), Some(last)) if first != last => format!("{} to {}", human::duration(first), human::duration(last)),
        (first, _) => human::duration(first.unwrap_or(0)),
    }
}
