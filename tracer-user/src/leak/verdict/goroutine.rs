//! Goroutines: by process, `go` statement, start function and place of blocking.

use std::{cmp::Reverse, collections::BTreeMap};

use rustc_hash::{FxHashMap, FxHashSet};

use super::{Because, Kind, LabelCount, Leak, MAX_NAMED, Strength};
use crate::{
    clock::KtimeNs,
    correlate::{
        ReasonId, WokenBy,
        goroutine::{Origin, SiteKey},
        process::ImageId,
        replay::Replayed,
    },
    id::{Address, Goid, StackId, Tgid},
    leak::{
        advice::Shape,
        fingerprint::Fingerprint,
        growth::Lives,
        proof::{self, Place, Proofs},
        singletons,
        tally::{LeakTally, Site, Survivor, Waiting},
        tests::{ByTest, TestsOf, UnderTest},
    },
    recording::contract::{Frame, Tier},
    symbolize::{Symbolizer, is_system, label},
};

/// The goroutine of `main`.
const MAIN: Goid = Goid(1);
/// How long after its test's end a goroutine may take to end itself.
const AFTER_TEST_NS: u64 = 1_000_000_000;
/// Labels of a group that are told, the most frequent.
const MAX_LABELS: usize = 10;

/// What a group waits for.
#[derive(Clone, Debug)]
pub struct Blocked {
    pub reason: String,
    /// Innermost first; empty where it was lost.
    pub stack: Vec<Frame>,
    /// Never woken since they blocked there; `None`: nothing tells of wakes.
    pub never_woken: Option<usize>,
    /// Woken by timers alone.
    pub by_timers: Option<usize>,
    /// How long those have waited that have waited longest and shortest.
    pub longest_ns: u64,
    pub shortest_ns: u64,
    /// `None`: it is not known of any what it waits on.
    pub on: Option<Objects>,
}

/// The channels, locks and the like that a group waits on.
#[derive(Clone, Debug)]
pub struct Objects {
    /// How many different ones.
    pub objects: usize,
    /// That of most of them, as people read it, and how many these are.
    pub most_on: String,
    pub waiters: usize,
    /// Who was last seen to do something about that one; `None`: nobody was.
    pub last_touched: Option<LastTouch>,
}

impl Stacks {
    fn of(survivors: &[(SiteKey, &Survivor)]) -> Option<Self> {
        let mut stacks = Self { bytes: 0, known: 0 };
        for bytes in survivors.iter().filter_map(|(_, survivor)| survivor.stack_bytes) {
            stacks = Self { bytes: stacks.bytes.saturating_add(bytes), known: stacks.known + 1 };
        }
        (stacks.known > 0).then_some(stacks)
    }
}

/// Somebody waited on an object and went on, or made somebody go on who did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastTouch {
    /// Who went on.
    pub by: String,
    /// Who let it.
    pub woken_by: Option<String>,
    pub at: KtimeNs,
}

/// Memory set aside for the stacks of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stacks {
    pub bytes: u64,
    /// Of how many that is known: those that a look found.
    pub known: usize,
}

/// Who belongs together as a recording has it, before frames are looked up: many groups of these may read alike.
type Spot = (SiteKey, Option<(Option<ReasonId>, Option<StackId>)>);
/// By process, creation site and place of blocking, as people read them.
type Key = (Tgid, Option<Frame>, Option<String>, Option<(Option<String>, Vec<Frame>)>);

/// Who belongs together.
#[derive(Default)]
struct Group<'a> {
    /// With the images they are of.
    survivors: Vec<(SiteKey, &'a Survivor)>,
    /// Under which test they were born, where that is known.
    under: FxHashMap<(ImageId, Goid), UnderTest>,
    ended_within_ns: Option<u64>,
    /// By how many its sites' population is larger at the end than it was at the beginning.
    risen: i64,
}

/// All groups.
pub(super) fn leaks(
    replayed: &Replayed,
    symbols: &Symbolizer<'_>,
    tally: &LeakTally,
    is_judged: &impl Fn(ImageId) -> bool,
) -> Vec<Leak> {
    let mut sites: Vec<(&SiteKey, &Site)> =
        tally.sites.iter().filter(|(key, site)| !site.alive.is_empty() && is_judged(key.image)).collect();
    sites.sort_unstable_by_key(|(key, _)| **key);
    let mut groups: BTreeMap<Key, Group<'_>> = BTreeMap::new();
    let mut tests = FxHashMap::default();
    for (key, site) in sites {
        let tests = tests.entry(key.image).or_insert_with(|| tally.tests.of(key.image, symbols));
        collect(replayed, symbols, tests.as_mut(), (*key, site), &mut groups);
    }
    let images: FxHashSet<ImageId> = tally.sites.keys().map(|site| site.image).collect();
    let untold_until = images.into_iter().filter_map(|image| Some((image, replayed.untold_until(image)?))).collect();
    let judge = Judge { replayed, symbols, tally, proven: Proven::new(replayed, &groups), untold_until };
    groups.into_iter().map(|(key, group)| judge.verdict(key, group)).collect()
}

/// Puts the survivors of a site into their groups.
fn collect<'a>(
    replayed: &Replayed,
    symbols: &Symbolizer<'_>,
    mut tests: Option<&mut TestsOf<'_>>,
    (key, site): (SiteKey, &'a Site),
    groups: &mut BTreeMap<Key, Group<'a>>,
) {
    let tgid = replayed.engine.processes().of_image(key.image).tgid;
    let start = key.startpc.filter(|pc| pc.0 != 0).map(|pc| label(&symbols.entry(key.image, pc)));
    if start.as_deref().is_some_and(is_system) {
        return;
    }
    let created_by = key.gopc.map(|gopc| symbols.go_statement(key.image, gopc));
    let mut places: FxHashMap<Spot, Vec<&'a Survivor>> = FxHashMap::default();
    for survivor in site.alive.iter().filter(|survivor| survivor.goid != MAIN) {
        let place = survivor.waiting.map(|waiting| (waiting.reason, waiting.stack));
        places.entry((key, place)).or_default().push(survivor);
    }
    let mut places: Vec<_> = places.into_iter().collect();
    places.sort_unstable_by_key(|(place, _)| *place);
    for ((_, place), survivors) in places {
        let place = place.map(|(reason, stack)| {
            let stack = stack.and_then(|id| symbols.stack(key.image, id)).map(|(ids, _)| ids).unwrap_or_default();
            let frames = stack.into_iter().map(|id| symbols.frame(id)).collect();
            (reason.map(|reason| replayed.engine.reason(reason).to_owned()), frames)
        });
        let group = groups.entry((tgid, created_by.clone(), start.clone(), place)).or_default();
        if let Some(tests) = tests.as_deref_mut() {
            for survivor in &survivors {
                if !tests.is_test(survivor.goid)
                    && let Some(under) = tests.above(survivor.goid)
                {
                    group.under.insert((key.image, survivor.goid), under);
                }
            }
        }
        group.survivors.extend(survivors.into_iter().map(|survivor| (key, survivor)));
        group.ended_within_ns = group.ended_within_ns.max(site.ended_within_ns());
        group.risen += site.risen();
    }
}

/// What Go's collector proved, and who waits where it did.
struct Proven {
    proofs: Proofs,
    /// How many wait at a place, whoever made them, since before the collector looked.
    waiting: FxHashMap<(Tgid, Place), usize>,
}

impl Proven {
    fn new(replayed: &Replayed, groups: &BTreeMap<Key, Group<'_>>) -> Self {
        let proofs = Proofs::of(replayed);
        let mut waiting = FxHashMap::default();
        for ((tgid, _, _, place), group) in groups {
            if let (Some(at), Some((_, stack))) = (proofs.told_at(*tgid), place) {
                *waiting.entry((*tgid, proof::place(stack))).or_default() += waiting_since(&group.survivors, at);
            }
        }
        Self { proofs, waiting }
    }

    /// How many of a group: those that a look found in that state, or as many as a profile of the leaked counted where they wait. A profile
    /// counts by place: of several groups at one it can speak only where it speaks of all.
    fn of(&self, tgid: Tgid, survivors: &[(SiteKey, &Survivor)], stack: &[Frame]) -> usize {
        let looked_at = survivors.iter().filter(|(_, survivor)| survivor.leaked).count();
        let Some(at) = self.proofs.told_at(tgid) else { return looked_at };
        let place = proof::place(stack);
        let profiled = usize::try_from(self.proofs.count(tgid, &place)).unwrap_or(usize::MAX);
        let ours = waiting_since(survivors, at);
        let all = self.waiting.get(&(tgid, place)).copied().unwrap_or(ours);
        looked_at.max(if ours == all || profiled >= all { profiled.min(ours) } else { 0 })
    }
}

/// How many have waited where they are since then.
fn waiting_since(survivors: &[(SiteKey, &Survivor)], at: KtimeNs) -> usize {
    let waits = |survivor: &Survivor| survivor.waiting.is_some_and(|waiting| waiting.here_since <= at);
    survivors.iter().filter(|(_, survivor)| waits(survivor)).count()
}

struct Judge<'a> {
    replayed: &'a Replayed,
    /// Until when no probe told of an image, where there is such a time.
    untold_until: FxHashMap<ImageId, KtimeNs>,
    symbols: &'a Symbolizer<'a>,
    tally: &'a LeakTally,
    proven: Proven,
}

impl Judge<'_> {
    fn verdict(&self, key: Key, group: Group<'_>) -> Leak {
        let replayed = self.replayed;
        let (tgid, created_by, start_function, place) = key;
        let mut tests = ByTest::default();
        let (mut outlived, mut perhaps) = (false, false);
        let mut survivors = group.survivors;
        survivors.sort_by_key(|(_, survivor)| (survivor.since, survivor.goid));
        for (site, survivor) in &survivors {
            let Some(under) = group.under.get(&(site.image, survivor.goid)) else { continue };
            tests.add(under);
            let left_behind = |(until, to_the_end): (KtimeNs, bool)| {
                under.ended_at.is_some_and(|ended| to_the_end || until.since(ended) >= AFTER_TEST_NS)
            };
            outlived |= self.known_until(site.image, survivor).is_some_and(left_behind);
            perhaps |= left_behind((survivor.ended_at, survivor.outlived_all));
        }
        let watched_from = survivors.iter().map(|(site, _)| replayed.engine.processes().image(site.image).since).min();
        let from = watched_from.unwrap_or(replayed.meta.clock.ktime_ns);
        let certain = |site: &SiteKey, survivor: &Survivor| self.known_until(site.image, survivor).is_some();
        let growth_of = |all: bool| {
            let until = survivors.iter().filter_map(|(site, survivor)| match all {
                true => Some(survivor.ended_at),
                false => self.known_until(site.image, survivor).map(|(until, _)| until),
            });
            let until = until.max().unwrap_or(from);
            let counted = survivors.iter().filter(|(site, survivor)| survivor.born && (all || certain(site, survivor)));
            let born_ns: Vec<u64> = counted.map(|(_, survivor)| survivor.since.since(from)).collect();
            let lives = Lives {
                born_ns: &born_ns,
                watched_ns: until.since(from),
                ended_within_ns: group.ended_within_ns,
                risen: group.risen,
            };
            lives.growth()
        };
        let growth = growth_of(false);
        let blocked = place.is_some();
        let (reason, stack) = place.unwrap_or_default();
        let excused =
            || singletons::excuse(created_by.as_ref(), start_function.as_deref(), reason.as_deref().unwrap_or_default(), &stack);
        let proven = if blocked { self.proven.of(tgid, &survivors, &stack) } else { 0 };
        let because = match blocked {
            true if proven > 0 => Some(Because::Collector),
            true if growth.unbounded => Some(Because::Growth),
            true if outlived && !excused() => Some(Because::Test),
            _ => None,
        };
        let weakened_by_loss = because.is_none() && blocked && (growth_of(true).unbounded || perhaps && !excused());
        let blocked = blocked.then(|| self.blocked_on(reason.clone(), stack, &survivors));
        let creation = self.creation(&survivors);
        let starts_at =
            survivors.first().and_then(|(site, _)| Some(self.symbols.entry(site.image, site.startpc.filter(|pc| pc.0 != 0)?)));
        let fingerprint = Fingerprint::of_goroutines(
            created_by.as_ref(),
            start_function.as_deref(),
            reason.as_deref(),
            blocked.as_ref().map(|blocked| &blocked.stack[..]),
        );
        let advice = blocked.as_ref().and_then(|blocked| {
            let shape = Shape {
                start_function: start_function.as_deref().unwrap_or_default(),
                reason: &blocked.reason,
                stack: &blocked.stack,
                creation: &creation,
                by_timers: blocked.by_timers.is_some_and(|by_timers| by_timers * 2 > survivors.len()),
            };
            shape.advice()
        });
        Leak {
            kind: Kind::Goroutine,
            strength: because.map_or(Strength::Watched, Because::strength),
            because,
            tests,
            fingerprint,
            tgid,
            name: None,
            created_by,
            creation,
            start_function,
            starts_at,
            blocked,
            count: survivors.len(),
            proven,
            unconfirmed: survivors.iter().filter(|(site, survivor)| !certain(site, survivor)).count(),
            oldest_ns: survivors.first().map_or(0, |(_, survivor)| survivor.ended_at.since(survivor.since)),
            growth,
            weakened_by_loss,
            labels: self.labels(&survivors),
            stacks: Stacks::of(&survivors),
            counts: Vec::new(),
            advice,
            ids: survivors.iter().take(MAX_NAMED).map(|(_, survivor)| format!("go:{}@{tgid}", survivor.goid)).collect(),
        }
    }

    /// Until when it is sure that it lived, and whether that is to its process's end. Where records were lost since it was last seen, its exit
    /// may be among them: then it is sure as of the newest look at all of its process, if that found it. `None`: nothing is.
    fn known_until(&self, image: ImageId, survivor: &Survivor) -> Option<(KtimeNs, bool)> {
        // Without events the last look is the last word.
        if self.replayed.meta.tier == Tier::T0 && survivor.last_known >= self.replayed.lost_until() {
            return Some((survivor.last_known, false));
        }
        let untold_until = self.untold_until.get(&image).copied().unwrap_or_default();
        if survivor.last_known >= self.replayed.lost_until().max(untold_until) {
            return Some((survivor.ended_at, survivor.outlived_all));
        }
        let looked_at = self.tally.looked_at.get(&image)?;
        (survivor.last_known >= *looked_at).then_some((survivor.last_known, false))
    }

    fn blocked_on(&self, reason: Option<String>, stack: Vec<Frame>, survivors: &[(SiteKey, &Survivor)]) -> Blocked {
        let waiting: Vec<(ImageId, &Waiting, u64)> = survivors
            .iter()
            .filter_map(|(site, survivor)| {
                let waiting = survivor.waiting.as_ref()?;
                Some((site.image, waiting, survivor.ended_at.since(waiting.blocked_since)))
            })
            .collect();
        let ns = || waiting.iter().map(|(_, _, ns)| *ns);
        let told = survivors.iter().all(|(site, survivor)| {
            let since = survivor.waiting.as_ref().map_or(survivor.since, |waiting| waiting.here_since);
            self.untold_until.get(&site.image).is_none_or(|until| since >= *until)
        });
        let told = told && self.replayed.meta.tier > Tier::T0;
        Blocked {
            reason: reason.unwrap_or_else(|| "unknown".to_owned()),
            stack,
            never_woken: told.then(|| waiting.iter().filter(|(_, waiting, _)| waiting.wakes == 0).count()),
            by_timers: told
                .then(|| waiting.iter().filter(|(_, waiting, _)| waiting.wakes > 0 && waiting.by_timers_alone).count()),
            longest_ns: ns().max().unwrap_or(0),
            shortest_ns: ns().min().unwrap_or(0),
            on: self.objects(&waiting),
        }
    }

    fn objects(&self, waiting: &[(ImageId, &Waiting, u64)]) -> Option<Objects> {
        let mut objects: FxHashMap<(ImageId, Address), usize> = FxHashMap::default();
        for (image, waiting, _) in waiting {
            if let Some(object) = waiting.object {
                *objects.entry((*image, object)).or_default() += 1;
            }
        }
        let (most_on, waiters) =
            objects.iter().map(|(key, count)| (*key, *count)).max_by_key(|(key, count)| (*count, Reverse(*key)))?;
        let name = |goid: Goid| format!("go:{goid}");
        let last_touched = self.tally.touched(most_on).map(|touch| LastTouch {
            by: name(touch.by),
            woken_by: touch.woken_by.filter(|by| *by != WokenBy::Unknown).map(|by| by.to_string()),
            at: touch.at,
        });
        Some(Objects { objects: objects.len(), most_on: format!("{:#x}", most_on.1.0), waiters, last_touched })
    }

    fn labels(&self, survivors: &[(SiteKey, &Survivor)]) -> Vec<LabelCount> {
        let mut sets = FxHashMap::default();
        for labels in survivors.iter().filter_map(|(_, survivor)| survivor.labels) {
            *sets.entry(labels).or_insert(0) += 1;
        }
        let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for (set, count) in &sets {
            for (key, value) in self.replayed.engine.labels().get(*set) {
                *counts.entry((key, value)).or_default() += count;
            }
        }
        let mut counts: Vec<LabelCount> = counts
            .into_iter()
            .map(|((key, value), count)| LabelCount { key: key.to_owned(), value: value.to_owned(), count })
            .collect();
        counts.sort_by_key(|label| Reverse(label.count));
        counts.truncate(MAX_LABELS);
        counts
    }

    /// The stack of the oldest one's birth.
    fn creation(&self, survivors: &[(SiteKey, &Survivor)]) -> Vec<Frame> {
        let with_stack = || survivors.iter().find(|(_, survivor)| survivor.parent_stack.is_some());
        let Some((site, survivor)) = with_stack().or(survivors.first()) else { return Vec::new() };
        let (Some(gopc), Some(startpc)) = (site.gopc, site.startpc) else { return Vec::new() };
        let origin = Origin { parent: None, gopc, startpc, stack: survivor.parent_stack };
        self.symbols.creation(site.image, &origin).0.into_iter().map(|id| self.symbols.frame(id)).collect()
    }
}
