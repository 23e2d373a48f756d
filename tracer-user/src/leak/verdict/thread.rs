//! Threads: by process, by their names without digits, and by where they are off their CPU.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{Because, Blocked, Kind, Leak, MAX_NAMED, Objects, Strength};
use crate::{
    clock::KtimeNs,
    correlate::{
        process::{ImageId, ProcessId},
        replay::Replayed,
        thread::WaitObject,
    },
    leak::{
        advice,
        fingerprint::Fingerprint,
        growth::Lives,
        tally::LeakTally,
        tests::ByTest,
        threads::{OffCpu, Pool, ThreadSurvivor},
    },
    recording::contract::Frame,
    symbolize::Symbolizer,
};

/// The reason and both stacks, innermost first, the kernel's before the program's.
type Place = Option<(Option<String>, Vec<Frame>)>;

/// All groups. Threads that Go's runtime keeps are its own business, unless they are suspected.
pub(super) fn leaks(
    replayed: &Replayed,
    symbols: &Symbolizer<'_>,
    tally: &LeakTally,
    is_judged: &impl Fn(ImageId) -> bool,
) -> Vec<Leak> {
    let processes = replayed.engine.processes();
    let mut pools: Vec<(&(ProcessId, String), &Pool)> = tally.threads.pools.iter().collect();
    pools.sort_unstable_by_key(|(key, _)| *key);
    let mut leaks = Vec::new();
    for ((id, name), pool) in pools {
        let process = processes.process(*id);
        let Some(image) = process.images.last().copied().filter(|image| is_judged(*image)) else { continue };
        let mut places: BTreeMap<Place, Vec<&ThreadSurvivor>> = BTreeMap::new();
        // The first thread is the process itself.
        for survivor in pool.alive.iter().filter(|survivor| survivor.tid.0 != process.tgid.0) {
            places.entry(survivor.off_cpu.map(|off| place(replayed, symbols, &off))).or_default().push(survivor);
        }
        for (place, survivors) in places {
            let leak = verdict(replayed, (*id, image, name), pool, place, survivors);
            leaks.extend(leak.filter(|leak| leak.strength > Strength::Watched || processes.image(image).binary.is_none()));
        }
    }
    leaks
}

fn place(replayed: &Replayed, symbols: &Symbolizer<'_>, off: &OffCpu) -> (Option<String>, Vec<Frame>) {
    let stacks = [off.kernel_stack, off.user_stack].into_iter().flatten();
    let frames = stacks.filter_map(|id| symbols.stack(off.image, id)).flat_map(|(ids, _)| ids);
    (off.reason.map(|reason| replayed.engine.reason(reason).to_owned()), frames.map(|id| symbols.frame(id)).collect())
}

fn verdict(
    replayed: &Replayed,
    (id, image, name): (ProcessId, ImageId, &str),
    pool: &Pool,
    place: Place,
    mut survivors: Vec<&ThreadSurvivor>,
) -> Option<Leak> {
    let processes = replayed.engine.processes();
    let tgid = processes.process(id).tgid;
    survivors.sort_unstable_by_key(|survivor| (survivor.since, survivor.tid));
    let lost_until = replayed.lost_until();
    // Nobody looks at threads: one of which no event has come since something was lost may have ended.
    let certain = |survivor: &ThreadSurvivor| survivor.off_cpu.map_or(survivor.since, |off| off.since) >= lost_until;
    let from = processes.image(image).since;
    let ended_at = survivors.iter().map(|survivor| survivor.ended_at).max().unwrap_or(KtimeNs(0));
    let growth_of = |all: bool| {
        let counted = survivors.iter().filter(|survivor| survivor.born && (all || certain(survivor)));
        let born_ns: Vec<u64> = counted.map(|survivor| survivor.since.since(from)).collect();
        let (watched_ns, ended_within_ns) = (ended_at.since(from), pool.ended_within_ns());
        Lives { born_ns: &born_ns, watched_ns, ended_within_ns, risen: pool.risen() }.growth()
    };
    let growth = growth_of(false);
    let because = (place.is_some() && growth.unbounded).then_some(Because::Growth);
    let blocked = place.map(|(reason, stack)| blocked(reason, stack, &survivors));
    let exe = processes.image(image).exe.rsplit('/').next().unwrap_or_default();
    let stack = blocked.as_ref().map(|blocked| &blocked.stack[..]);
    let fingerprint = Fingerprint::of_threads(exe, name, blocked.as_ref().map(|blocked| blocked.reason.as_str()), stack);
    Some(Leak {
        kind: Kind::Thread,
        strength: because.map_or(Strength::Watched, Because::strength),
        because,
        tests: ByTest::default(),
        fingerprint,
        tgid,
        name: Some(name.to_owned()),
        created_by: None,
        creation: Vec::new(),
        start_function: None,
        starts_at: None,
        count: survivors.len(),
        proven: 0,
        unconfirmed: survivors.iter().filter(|survivor| !certain(survivor)).count(),
        oldest_ns: survivors.first().map_or(0, |survivor| survivor.ended_at.since(survivor.since)),
        weakened_by_loss: because.is_none() && blocked.is_some() && growth_of(true).unbounded,
        growth,
        blocked,
        labels: Vec::new(),
        stacks: None,
        counts: Vec::new(),
        advice: because.is_some().then_some(advice::THREADS),
        ids: survivors.iter().take(MAX_NAMED).map(|survivor| format!("tid:{}", survivor.tid)).collect(),
    })
}

fn blocked(reason: Option<String>, stack: Vec<Frame>, survivors: &[&ThreadSurvivor]) -> Blocked {
    let off = || survivors.iter().filter_map(|survivor| Some((survivor.off_cpu?, survivor.ended_at)));
    let ns = || off().map(|(off, ended_at)| ended_at.since(off.since));
    Blocked {
        reason: reason.unwrap_or_else(|| "unknown".to_owned()),
        stack,
        never_woken: Some(off().filter(|(off, _)| off.wakes == 0).count()),
        by_timers: None,
        longest_ns: ns().max().unwrap_or(0),
        shortest_ns: ns().min().unwrap_or(0),
        on: objects(survivors),
    }
}

/// What they wait on; of one process, so that an address is one thing.
fn objects(survivors: &[&ThreadSurvivor]) -> Option<Objects> {
    let mut objects: BTreeMap<WaitObject, usize> = BTreeMap::new();
    for object in survivors.iter().filter_map(|survivor| survivor.off_cpu?.object) {
        *objects.entry(object).or_default() += 1;
    }
    let (most_on, waiters) = objects.iter().max_by_key(|(object, count)| (**count, Reverse(**object)))?;
    Some(Objects { objects: objects.len(), most_on: most_on.to_string(), waiters: *waiters, last_touched: None })
}
