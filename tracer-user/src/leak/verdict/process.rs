//! Processes that live on, and those that are dead and were not reaped: by parent and program.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::{Because, Kind, Leak, MAX_NAMED, Strength};
use crate::{
    clock::KtimeNs,
    correlate::{
        process::{ImageId, Process, ProcessId, Processes},
        replay::Replayed,
    },
    id::Tgid,
    leak::{
        advice,
        fingerprint::Fingerprint,
        growth::{Growth, Lives},
        tally::{ended_within_ns, record},
        tests::ByTest,
    },
    recording::contract::Tier,
};

/// A parent that has left a zombie for so long does not wait for it.
const UNREAPED_NS: u64 = 10_000_000_000;
/// So many zombies of one program, one after the other, are ever more of them.
const MIN_ZOMBIES: usize = 3;
/// Whoever is found to be gone by a look went at some time since the look before.
const LOOKS_NS: u64 = 2_000_000_000;

/// Children of one parent that run one program.
type Key = (ProcessId, String);

/// A time of a child's: its life with one of its parents, or its time as a zombie.
#[derive(Clone, Copy, Debug)]
struct Stay {
    tgid: Tgid,
    from: KtimeNs,
    /// `None`: to the end of its parent, or of the recording.
    to: Option<KtimeNs>,
    /// It began while it was followed.
    seen: bool,
    /// No record that might have told of its end is lost.
    certain: bool,
}

#[derive(Default)]
struct Children {
    lives: Vec<Stay>,
    zombies: Vec<Stay>,
}

/// All groups of parents that are followed.
pub(super) fn leaks(replayed: &Replayed, is_judged: &impl Fn(ImageId) -> bool) -> Vec<Leak> {
    let processes = replayed.engine.processes();
    let owners = Owners::of(processes);
    // Nobody looks whether a process is still there; whether a zombie is, somebody does.
    let lost_until = replayed.lost_until();
    let mut families: BTreeMap<Key, Children> = BTreeMap::new();
    for (_, process) in processes.processes() {
        let Some(image) = process.images.last() else { continue };
        let name = program(processes, *image);
        let born = process.parent.map(|parent| (parent, process.first_seen, process.forked_at.is_some()));
        let adopted = process.life.adoptions.iter().map(|adoption| (adoption.parent, adoption.at, true));
        for (parent, from, seen) in born.into_iter().chain(adopted) {
            let Some(parent) = owners.at(parent, from) else { continue };
            let stay = Stay {
                tgid: process.tgid,
                from,
                to: process.ended.map(|(at, _)| at),
                seen,
                certain: processes.image(*image).since >= lost_until || replayed.meta.tier == Tier::T0,
            };
            families.entry((parent, name.clone())).or_default().lives.push(stay);
        }
        if let Some((parent, stay)) = zombie(&owners, process) {
            families.entry((parent, name)).or_default().zombies.push(stay);
        }
    }
    let mut leaks = Vec::new();
    for ((parent, name), children) in families {
        let parent = processes.process(parent);
        if !parent.images.last().is_some_and(|image| is_judged(*image)) {
            continue;
        }
        leaks.extend(Group::new(replayed, parent, &name, Kind::Zombie, children.zombies).verdict());
        leaks.extend(Group::new(replayed, parent, &name, Kind::Process, children.lives).verdict());
    }
    leaks
}

/// Whose a number was when.
struct Owners<'a> {
    processes: &'a Processes,
    by_number: FxHashMap<Tgid, Vec<ProcessId>>,
}

impl<'a> Owners<'a> {
    fn of(processes: &'a Processes) -> Self {
        let mut by_number: FxHashMap<Tgid, Vec<ProcessId>> = FxHashMap::default();
        for (id, process) in processes.processes() {
            by_number.entry(process.tgid).or_default().push(id);
        }
        Self { processes, by_number }
    }

    fn at(&self, tgid: Tgid, at: KtimeNs) -> Option<ProcessId> {
        let had = |id: &&ProcessId| {
            let process = self.processes.process(**id);
            process.first_seen <= at && process.ended.is_none_or(|(end, _)| end >= at)
        };
        self.by_number.get(&tgid)?.iter().rev().find(had).copied()
    }
}

/// What it ran, without the folder.
fn program(processes: &Processes, image: ImageId) -> String {
    let image = processes.image(image);
    let path = if image.exe.is_empty() { image.args.first().map_or("", String::as_str) } else { &image.exe };
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

/// Under whom it was dead, from when to when that one could have reaped it.
fn zombie(owners: &Owners<'_>, process: &Process) -> Option<(ProcessId, Stay)> {
    let (from, reaped) = process.zombie()?;
    // Its parent as it died, or who got it soon after, when that one had ended.
    let adopted = process.life.adoptions.iter().rev().find(|adoption| adoption.at <= from);
    let parent = owners.at(adopted.map(|adoption| adoption.parent).or(process.parent)?, from)?;
    let parents_end = owners.processes.process(parent).ended.map(|(at, _)| at);
    // Of whom a look found it gone it is not known when; it counts as reaped unless its parent had certainly ended before.
    let slack = if process.life.reaped.is_some_and(|reaped| reaped.by_look) { LOOKS_NS } else { 0 };
    let by_parent = reaped.filter(|at| parents_end.is_none_or(|end| end.0.saturating_add(slack) > at.0));
    Some((parent, Stay { tgid: process.tgid, from, to: by_parent, seen: true, certain: true }))
}

struct Group<'a> {
    replayed: &'a Replayed,
    parent: &'a Process,
    name: &'a str,
    kind: Kind,
    /// Those that have ended, and those that have not.
    ended: Vec<Stay>,
    left: Vec<Stay>,
    /// When the parent, or the recording, ended.
    until: KtimeNs,
}

impl<'a> Group<'a> {
    fn new(replayed: &'a Replayed, parent: &'a Process, name: &'a str, kind: Kind, stays: Vec<Stay>) -> Self {
        let until = parent.ended.map_or(replayed.ended_at, |(at, _)| at);
        let (mut left, ended): (Vec<Stay>, Vec<Stay>) = stays.into_iter().partition(|stay| stay.to.is_none_or(|to| to > until));
        left.sort_unstable_by_key(|stay| (stay.from, stay.tgid));
        Self { replayed, parent, name, kind, ended, left, until }
    }

    fn verdict(self) -> Option<Leak> {
        let oldest = self.left.first()?;
        let oldest_ns = self.until.since(oldest.from);
        let growth = self.growth(false);
        let because = match self.kind {
            Kind::Zombie if self.is_unreaped(oldest_ns) => Some(Because::Unreaped),
            _ if growth.unbounded => Some(Because::Growth),
            _ => None,
        };
        let weakened_by_loss = because.is_none() && self.growth(true).unbounded;
        // A parent that ended has left them to somebody else, who reaps them.
        if because.is_none() && self.parent.ended.is_some() {
            return None;
        }
        let tgid = self.parent.tgid;
        let parent = self.parent.images.last().map(|image| program(self.replayed.engine.processes(), *image)).unwrap_or_default();
        Some(Leak {
            kind: self.kind,
            strength: because.map_or(Strength::Watched, Because::strength),
            because,
            tests: ByTest::default(),
            fingerprint: Fingerprint::of_children(self.kind.name(), &parent, self.name),
            tgid,
            name: Some(self.name.to_owned()),
            created_by: None,
            creation: Vec::new(),
            start_function: None,
            starts_at: None,
            blocked: None,
            count: self.left.len(),
            proven: if because == Some(Because::Unreaped) { self.left.len() } else { 0 },
            unconfirmed: self.left.iter().filter(|stay| !stay.certain).count(),
            oldest_ns,
            growth,
            weakened_by_loss,
            labels: Vec::new(),
            stacks: None,
            counts: Vec::new(),
            advice: because.map(|_| if self.kind == Kind::Zombie { advice::ZOMBIES } else { advice::PROCESSES }),
            ids: self.left.iter().take(MAX_NAMED).map(|stay| format!("pid:{}", stay.tgid)).collect(),
        })
    }

    /// Their parent lived on for long after the first of them died, did not reap it while others died, and reaps none of the kind so late.
    fn is_unreaped(&self, oldest_ns: u64) -> bool {
        let slowest_ns = self.ended.iter().filter_map(|stay| Some(stay.to?.since(stay.from))).max().unwrap_or(0);
        oldest_ns >= UNREAPED_NS && self.left.len() >= MIN_ZOMBIES && slowest_ns < oldest_ns / 2
    }

    /// With those whose end may be lost, or without.
    fn growth(&self, all: bool) -> Growth {
        let from = self.parent.first_seen;
        let counted = self.left.iter().filter(|stay| stay.seen && (all || stay.certain));
        let born_ns: Vec<u64> = counted.map(|stay| stay.from.since(from)).collect();
        let mut ended = None;
        for stay in &self.ended {
            record(&mut ended, stay.to.unwrap_or(self.until).since(stay.from), 1);
        }
        let exited = self.ended.len() as u64;
        let ended_within_ns = ended_within_ns(ended.as_ref(), exited, exited + self.left.len() as u64);
        let unseen = self.ended.iter().chain(&self.left).filter(|stay| !stay.seen).count();
        let risen = self.left.len() as i64 - unseen as i64;
        Lives { born_ns: &born_ns, watched_ns: self.until.since(from), ended_within_ns, risen }.growth()
    }
}
