//! Verdicts: which groups of goroutines are there for good, how sure that is, and on what that stands.

use std::{cmp::Reverse, collections::BTreeMap};

use rustc_hash::FxHashMap;

use super::{
    advice::Shape,
    fingerprint::Fingerprint,
    growth::{Growth, Lives},
    singletons,
    tally::{LeakTally, Site, Survivor, Waiting},
    tests::{ByTest, UnderTest},
};
use crate::{
    correlate::{
        goroutine::{Origin, SiteKey},
        replay::Replayed,
    },
    id::{Address, Goid, Tgid},
    recording::contract::Frame,
    symbolize::{Symbolizer, is_system, label},
};

/// The goroutine of `main`.
const MAIN: Goid = Goid(1);
/// Goroutines that are named in a verdict.
const MAX_NAMED: usize = 5;

/// How sure it is. A gate asks for [`Strength::Suspected`] and up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Strength {
    /// Alive at the end; no more is known.
    Watched,
    /// Blocked, and their number grows without bound ([`super::growth`]); or born under a test that they outlived.
    Suspected,
}

/// What a strength above the lowest stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Because {
    /// Their number grows without bound.
    Growth,
    /// They were born under a test, and outlived it.
    Test,
}

impl Because {
    pub fn name(self) -> &'static str {
        match self {
            Self::Growth => "growth",
            Self::Test => "test",
        }
    }
}

/// Which processes are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// Where any of them ran tests, those that did; otherwise all.
    Tests,
    All,
}

impl Strength {
    pub fn name(self) -> &'static str {
        match self {
            Self::Watched => "watched",
            Self::Suspected => "suspected",
        }
    }
}

/// Goroutines of one process that were made in one place and are blocked in one place.
#[derive(Clone, Debug)]
pub struct Leak {
    pub strength: Strength,
    /// `None`: watched.
    pub because: Option<Because>,
    /// Under which tests they were born, as far as under any.
    pub tests: ByTest,
    pub fingerprint: Fingerprint,
    pub tgid: Tgid,
    pub created_by: Option<Frame>,
    /// Who called, innermost first; `created_by` is its first.
    pub creation: Vec<Frame>,
    pub start_function: Option<String>,
    /// Where that begins: of a closure that a timer runs, the only place in the program's own code.
    pub starts_at: Option<Frame>,
    /// `None`: not known to be blocked.
    pub blocked: Option<Blocked>,
    pub count: usize,
    /// Of these, those that may have ended: records were lost since they were last seen.
    pub unconfirmed: usize,
    pub oldest_ns: u64,
    pub growth: Growth,
    /// Without what was lost the strength would be higher.
    pub weakened_by_loss: bool,
    pub advice: Option<&'static str>,
    /// The oldest.
    pub goids: Vec<Goid>,
}

/// What a group waits for.
#[derive(Clone, Debug)]
pub struct Blocked {
    pub reason: String,
    /// Innermost first; empty where it was lost.
    pub stack: Vec<Frame>,
    /// Never woken since they blocked there.
    pub never_woken: usize,
    /// Woken by timers alone.
    pub by_timers: usize,
    /// How long those have waited that have waited longest and shortest.
    pub longest_ns: u64,
    pub shortest_ns: u64,
    /// Different objects (channels, locks) they wait on; that of most of them, and how many these are.
    pub objects: usize,
    pub most_on: Option<(Address, usize)>,
}

/// Who belongs together, with the sites they are of.
#[derive(Default)]
struct Group<'a> {
    survivors: Vec<(SiteKey, &'a Survivor)>,
    /// Of each of these: the test under which it was born.
    under: Vec<Option<UnderTest>>,
    ended_within_ns: Option<u64>,
}

/// By process, creation site and place of blocking, as people read them.
type Key = (Tgid, Option<Frame>, Option<String>, Option<(Option<String>, Vec<Frame>)>);

/// How long after its test's end a goroutine may take to end itself.
const AFTER_TEST_NS: u64 = 1_000_000_000;

/// All groups of the processes that are judged, the strongest and largest first.
pub fn leaks(replayed: &Replayed, tally: &LeakTally, judged: Judged) -> Vec<Leak> {
    let symbols = Symbolizer::new(replayed);
    let mut groups: BTreeMap<Key, Group<'_>> = BTreeMap::new();
    let mut stacks = FxHashMap::default();
    let mut tests = FxHashMap::default();
    let is_judged = |image| judged == Judged::All || tally.tests.is_empty() || tally.tests.has(image);
    let mut sites: Vec<(&SiteKey, &Site)> =
        tally.sites.iter().filter(|(key, site)| !site.alive.is_empty() && is_judged(key.image)).collect();
    sites.sort_unstable_by_key(|(key, _)| **key);
    for (key, site) in sites {
        let tgid = replayed.engine.processes().of_image(key.image).tgid;
        let start = key.startpc.filter(|pc| pc.0 != 0).map(|pc| label(&symbols.entry(key.image, pc)));
        if start.as_deref().is_some_and(is_system) {
            continue;
        }
        let created_by = key.gopc.map(|gopc| symbols.go_statement(key.image, gopc));
        let tests = tests.entry(key.image).or_insert_with(|| tally.tests.of(key.image, &symbols));
        for survivor in site.alive.iter().filter(|survivor| survivor.goid != MAIN) {
            let is_test = tests.as_mut().is_some_and(|tests| tests.is_test(survivor.goid));
            let under = tests.as_mut().filter(|_| !is_test).and_then(|tests| tests.above(survivor.goid));
            let place = survivor.waiting.map(|waiting| {
                let frames = stacks.entry((key.image, waiting.stack)).or_insert_with(|| {
                    let stack = waiting.stack.and_then(|id| symbols.stack(key.image, id));
                    stack.map_or_else(Vec::new, |(ids, _)| ids.into_iter().map(|id| symbols.frame(id)).collect())
                });
                let reason = waiting.reason.map(|reason| replayed.engine.reason(reason).to_owned());
                (reason, frames.clone())
            });
            let group = groups.entry((tgid, created_by.clone(), start.clone(), place)).or_default();
            group.survivors.push((*key, survivor));
            group.under.push(under);
            group.ended_within_ns = group.ended_within_ns.max(site.ended_within_ns());
        }
    }
    let mut leaks: Vec<Leak> = groups.into_iter().map(|(key, group)| verdict(replayed, &symbols, key, group)).collect();
    leaks.sort_by_cached_key(|leak| (Reverse((leak.strength, leak.count)), leak.fingerprint.clone(), leak.tgid));
    leaks
}

fn verdict(replayed: &Replayed, symbols: &Symbolizer<'_>, key: Key, group: Group<'_>) -> Leak {
    let (tgid, created_by, start_function, place) = key;
    let lost_until = replayed.lost_until();
    let certain = |survivor: &Survivor| survivor.last_known >= lost_until;
    let mut tests = ByTest::default();
    let (mut outlived, mut perhaps) = (false, false);
    for ((_, survivor), under) in group.survivors.iter().zip(&group.under) {
        let Some(under) = under else { continue };
        tests.add(under);
        let left_behind =
            under.ended_at.is_some_and(|ended| survivor.outlived_all || survivor.ended_at.since(ended) >= AFTER_TEST_NS);
        outlived |= left_behind && certain(survivor);
        perhaps |= left_behind;
    }
    let mut survivors = group.survivors;
    survivors.sort_by_key(|(_, survivor)| (survivor.since, survivor.goid));
    let watched_from = survivors.iter().map(|(site, _)| replayed.engine.processes().image(site.image).since).min();
    let ended_at = survivors.iter().map(|(_, survivor)| survivor.ended_at).max().unwrap_or(replayed.ended_at);
    let from = watched_from.unwrap_or(replayed.meta.clock.ktime_ns);
    let growth_of = |all: bool| {
        let counted = survivors.iter().filter(|(_, survivor)| all || certain(survivor));
        let born_ns: Vec<u64> = counted.map(|(_, survivor)| survivor.since.since(from)).collect();
        Lives { born_ns: &born_ns, watched_ns: ended_at.since(from), ended_within_ns: group.ended_within_ns }.growth()
    };
    let growth = growth_of(false);
    let blocked = place.is_some();
    let (reason, stack) = place.unwrap_or_default();
    let excused =
        || singletons::excuse(created_by.as_ref(), start_function.as_deref(), reason.as_deref().unwrap_or_default(), &stack);
    let because = match blocked {
        true if growth.unbounded => Some(Because::Growth),
        true if outlived && !excused() => Some(Because::Test),
        _ => None,
    };
    let strength = if because.is_some() { Strength::Suspected } else { Strength::Watched };
    let weakened_by_loss = because.is_none() && blocked && (growth_of(true).unbounded || perhaps && !excused());
    let waiting: Vec<(&Waiting, u64)> = survivors
        .iter()
        .filter_map(|(_, survivor)| {
            survivor.waiting.as_ref().map(|waiting| (waiting, survivor.ended_at.since(waiting.blocked_since)))
        })
        .collect();
    let blocked = blocked.then(|| blocked_on(reason.clone(), &stack, &waiting));
    let creation = creation(symbols, &survivors);
    let starts_at = survivors.first().and_then(|(site, _)| Some(symbols.entry(site.image, site.startpc.filter(|pc| pc.0 != 0)?)));
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
            by_timers: blocked.by_timers * 2 > survivors.len(),
        };
        shape.advice()
    });
    Leak {
        strength,
        because,
        tests,
        fingerprint,
        tgid,
        created_by,
        creation,
        start_function,
        starts_at,
        blocked,
        count: survivors.len(),
        unconfirmed: survivors.iter().filter(|(_, survivor)| !certain(survivor)).count(),
        oldest_ns: survivors.first().map_or(0, |(_, survivor)| survivor.ended_at.since(survivor.since)),
        growth,
        weakened_by_loss,
        advice,
        goids: survivors.iter().take(MAX_NAMED).map(|(_, survivor)| survivor.goid).collect(),
    }
}

fn blocked_on(reason: Option<String>, stack: &[Frame], waiting: &[(&Waiting, u64)]) -> Blocked {
    let mut objects: BTreeMap<Address, usize> = BTreeMap::new();
    for object in waiting.iter().filter_map(|(waiting, _)| waiting.object) {
        *objects.entry(object).or_default() += 1;
    }
    Blocked {
        reason: reason.unwrap_or_else(|| "unknown".to_owned()),
        stack: stack.to_vec(),
        never_woken: waiting.iter().filter(|(waiting, _)| waiting.wakes == 0).count(),
        by_timers: waiting.iter().filter(|(waiting, _)| waiting.wakes > 0 && waiting.by_timers_alone).count(),
        longest_ns: waiting.iter().map(|(_, ns)| *ns).max().unwrap_or(0),
        shortest_ns: waiting.iter().map(|(_, ns)| *ns).min().unwrap_or(0),
        objects: objects.len(),
        most_on: objects.into_iter().max_by_key(|(address, count)| (*count, Reverse(*address))),
    }
}

/// The stack of the oldest one's birth.
fn creation(symbols: &Symbolizer<'_>, survivors: &[(SiteKey, &Survivor)]) -> Vec<Frame> {
    let oldest =
        survivors.first().and_then(|(site, survivor)| Some((site.image, site.gopc?, site.startpc?, survivor.parent_stack)));
    let Some((image, gopc, startpc, stack)) = oldest else { return Vec::new() };
    let origin = Origin { parent: None, gopc, startpc, stack };
    symbols.creation(image, &origin).0.into_iter().map(|id| symbols.frame(id)).collect()
}
