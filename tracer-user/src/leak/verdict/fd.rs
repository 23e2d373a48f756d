//! Descriptors: by process and kind, as they were counted now and then.

use std::collections::BTreeMap;

use super::{Because, Kind, Leak, Strength};
use crate::{
    clock::KtimeNs,
    correlate::{process::ImageId, replay::Replayed},
    id::Tgid,
    leak::{advice, fingerprint::Fingerprint, growth::Levels, tests::ByTest},
};

/// Kinds whose number rises without bound. Others are no leak anybody would want to read of: they are in the report's table.
pub(super) fn leaks(replayed: &Replayed, is_judged: &impl Fn(ImageId) -> bool) -> Vec<Leak> {
    let mut counts: BTreeMap<(Tgid, &str), Vec<(KtimeNs, u64)>> = BTreeMap::new();
    let mut looks: BTreeMap<Tgid, Vec<KtimeNs>> = BTreeMap::new();
    for memory in &replayed.memory {
        for process in memory.processes.iter().filter(|process| process.beside.is_none()) {
            let Some(descriptors) = &process.descriptors else { continue };
            looks.entry(process.tgid).or_default().push(memory.at);
            for (kind, count) in descriptors {
                counts.entry((process.tgid, kind)).or_default().push((memory.at, *count));
            }
        }
    }
    let leaks = counts.into_iter().filter_map(|((tgid, kind), counted)| {
        // A kind that was not there was there no times.
        let mut counted = counted.into_iter().peekable();
        let at_each = looks.get(&tgid)?.iter().map(|at| (*at, counted.next_if(|(then, _)| then == at).map_or(0, |(_, n)| n)));
        verdict(replayed, tgid, kind, &at_each.collect::<Vec<_>>(), is_judged)
    });
    leaks.collect()
}

fn verdict(
    replayed: &Replayed,
    tgid: Tgid,
    kind: &str,
    counted: &[(KtimeNs, u64)],
    is_judged: &impl Fn(ImageId) -> bool,
) -> Option<Leak> {
    let (first, last) = (counted.first()?, counted.last()?);
    let since_first: Vec<(u64, u64)> = counted.iter().map(|(at, count)| (at.since(first.0), *count)).collect();
    let growth = Levels { counts: &since_first }.growth();
    let processes = replayed.engine.processes();
    // The number may have been another process's before.
    let process = processes.processes().map(|(_, process)| process).filter(|process| process.tgid == tgid).last()?;
    let image = *process.images.last()?;
    if first.0 < process.first_seen {
        return None;
    }
    if !growth.unbounded || !is_judged(image) {
        return None;
    }
    let exe = processes.image(image).exe.rsplit('/').next().unwrap_or_default();
    Some(Leak {
        kind: Kind::Fd,
        strength: Strength::Suspected,
        because: Some(Because::Growth),
        tests: ByTest::default(),
        fingerprint: Fingerprint::of_children("fd", exe, kind),
        tgid,
        name: Some(kind.to_owned()),
        created_by: None,
        creation: Vec::new(),
        start_function: None,
        starts_at: None,
        blocked: None,
        count: usize::try_from(last.1).unwrap_or(usize::MAX),
        proven: 0,
        unconfirmed: 0,
        oldest_ns: last.0.since(first.0),
        growth,
        weakened_by_loss: false,
        labels: Vec::new(),
        stacks: None,
        counts: counted.iter().map(|(at, count)| (replayed.since_zero(*at), *count)).collect(),
        advice: Some(advice::DESCRIPTORS),
        ids: Vec::new(),
    })
}
