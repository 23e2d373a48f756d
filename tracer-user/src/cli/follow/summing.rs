//! Reads what the BPF side sums and keeps (`--min-block`) into the recording: each second, when a process ends or executes another program,
//! when probes change, and at the end.

use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};
use tracer_common::summing::{BUCKETS, Kept, Sum, SumKey};

use super::Follower;
use crate::{
    capture::Message,
    clock::{KtimeNs, ktime_now},
    id::{Address, BinaryId, Goid, StackId, Tgid, Tid},
    recording::contract::{KeptAt, KeptGoroutine, KeptWait, SumOf, Summed, Tier},
};

/// Between two looks at everything: so long, and so many times as long as one takes.
const EVERY_NS: u64 = 1_000_000_000;
const TIMES_AS_LONG: u64 = 50;
/// Goroutines and sums in one block.
const IN_A_BLOCK: usize = 16_384;

/// Short waits and lives are summed.
pub(super) struct Summing {
    min_block_ns: u64,
    /// What was read of each sum.
    read: FxHashMap<SumKey, Sum>,
    /// Goroutines that looks have told of, and since when each waits that was told to.
    told: FxHashMap<(Tgid, Goid), KtimeNs>,
    /// Programs of which every life is told: a look at their goroutines is due, or under way.
    telling: FxHashSet<BinaryId>,
    due: KtimeNs,
}

/// What a look is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// What is old enough to be told.
    Old,
    /// Everything of all programs, or of one: detail is about to change, or the recording to end.
    All(Option<BinaryId>),
    /// Everything of a program's process that has ended, or executed another program, then.
    Ended(Tgid, BinaryId),
}

impl Whose {
    fn concerns(self, tgid: Tgid, binary: BinaryId) -> bool {
        match self {
            Self::Old => true,
            Self::All(of) => of.is_none_or(|of| of == binary),
            Self::Ended(ended, of) => (ended, of) == (tgid, binary),
        }
    }
}

impl Summing {
    pub fn new(min_block: Duration) -> Self {
        let min_block_ns = u64::try_from(min_block.as_nanos()).unwrap_or(u64::MAX);
        Self {
            min_block_ns,
            read: FxHashMap::default(),
            told: FxHashMap::default(),
            telling: FxHashSet::default(),
            due: KtimeNs(0),
        }
    }

    /// What was added to a sum since it was read.
    fn news(&mut self, key: SumKey, sum: &Sum) -> Option<SumOf> {
        let before = self.read.insert(key, *sum);
        // One that is being added to may have its count already and its time not yet: that comes with the next.
        if before.is_some_and(|before| before == *sum) {
            return None;
        }
        let (count, total_ns) = before.map_or((0, 0), |before| (before.count, before.total_ns));
        let fell = |index: usize| sum.buckets[index].wrapping_sub(before.map_or(0, |before| before.buckets[index]));
        let buckets = (0..BUCKETS).map(|index| (index as u8, fell(index))).filter(|(_, count)| *count != 0).collect();
        Some(SumOf {
            tgid: Tgid(key.tgid),
            binary: BinaryId(key.binary),
            wait_reason: (key.lives == 0).then_some(key.wait_reason),
            gopc: Address(key.gopc),
            startpc: Address(key.startpc),
            stack: (key.stack_id != 0).then_some(StackId(key.stack_id)),
            count: sum.count.wrapping_sub(count),
            total_ns: sum.total_ns.wrapping_sub(total_ns),
            buckets,
        })
    }

    /// What is to be told of a goroutine by now.
    fn tells(&mut self, (tgid, goid): (Tgid, Goid), kept: &Kept, at: KtimeNs, whose: Whose) -> Option<KeptGoroutine> {
        let old_enough = if whose == Whose::Old { self.min_block_ns } else { 0 };
        let long_ago = |then: u64| then != 0 && then.saturating_add(old_enough) <= at.0;
        let waits = long_ago(kept.parked_at);
        let before = self.told.get(&(tgid, goid)).copied();
        let since = KtimeNs(if waits { kept.parked_at } else { 0 });
        // What was told of a process while its end was on the way, a reader could not take.
        let again = matches!(whose, Whose::Ended(..));
        let told = !again && if waits { before == Some(since) } else { before.is_some() };
        if told || !waits && !long_ago(kept.born_at) {
            return None;
        }
        self.told.insert((tgid, goid), since);
        let nonzero = |value: u64| (value != 0).then_some(value);
        Some(KeptGoroutine {
            tgid,
            goid,
            binary: BinaryId(kept.binary),
            born_at: nonzero(kept.born_at).map(KtimeNs),
            parent: nonzero(kept.parent_goid).map(Goid),
            gopc: Address(kept.gopc),
            startpc: Address(kept.startpc),
            stack: nonzero(kept.birth_stack_id).map(StackId),
            waits: waits.then_some(KeptWait {
                since,
                wait_reason: kept.wait_reason,
                lock: nonzero(kept.lock).map(Address),
                stack: nonzero(kept.park_stack_id).map(StackId),
                tid: Tid(kept.park_tid),
            }),
        })
    }
}

impl Follower {
    /// Goroutines of a program are about to be looked at: whoever is found must be told to end, however short it lived.
    pub(super) fn tell_every_life(&mut self, binary: BinaryId) {
        let Some(summing) = &mut self.summing else { return };
        summing.telling.insert(binary);
        if let Err(error) = self.session.sum_lives_since(binary, KtimeNs::MAX) {
            tracing::warn!(%error, "short lives are summed although a look is due");
        }
    }

    /// The looks are over: lives that begin from here on are summed.
    fn sum_lives_again(&mut self, at: KtimeNs) {
        let Some(summing) = &mut self.summing else { return };
        for binary in summing.telling.drain() {
            if let Err(error) = self.session.sum_lives_since(binary, at) {
                tracing::warn!(%error, "short lives are not summed");
            }
        }
    }

    /// Takes what is kept and summed, if it is time.
    pub fn look_at_sums(&mut self) {
        let at = ktime_now();
        if self.looks_are_done() && !self.looks_are_due(at) {
            self.sum_lives_again(at);
        }
        if self.summing.as_ref().is_some_and(|summing| at >= summing.due) {
            self.take_sums(at, Whose::Old);
            let took = ktime_now().since(at);
            if let Some(summing) = &mut self.summing {
                summing.due = KtimeNs(at.0 + EVERY_NS.max(took.saturating_mul(TIMES_AS_LONG)));
            }
        }
    }

    /// The recording is about to end: from here on nothing is summed, so that what is taken next is not told twice.
    pub fn tell_everything(&mut self) {
        let binaries: Vec<BinaryId> = self.prices.binaries().collect();
        binaries.into_iter().for_each(|binary| self.tell_every_life(binary));
    }

    /// Takes all of it, as of a moment that has come.
    pub fn take_all_sums(&mut self, at: KtimeNs) {
        self.take_sums(at, Whose::All(None));
    }

    /// Processes have ended, or executed another program: takes what is left of them, before the recording says so.
    pub fn take_sums_of_ended(&mut self, ended: Vec<(Tgid, BinaryId, KtimeNs)>) {
        for (tgid, binary, at) in ended {
            self.take_sums(KtimeNs(at.0.saturating_sub(1)), Whose::Ended(tgid, binary));
        }
    }

    /// A program comes to another tier: what is summed and kept until then is taken, and what is kept from before a gap is dropped.
    pub(super) fn part_with_sums(&mut self, binary: BinaryId, tier: Tier) {
        let from = self.tier_of(binary);
        if self.summing.is_none() || tier == from {
            return;
        }
        // Whoever is told of now must be told to end.
        self.tell_every_life(binary);
        let at = ktime_now();
        self.take_sums(at, Whose::All(Some(binary)));
        if tier > from {
            self.session.await_closing(binary);
            self.drop_kept(binary, at);
        }
    }

    /// Drops what is kept from before `at`.
    fn drop_kept(&mut self, binary: BinaryId, at: KtimeNs) {
        let mut stale = Vec::new();
        let read = self.session.summing().kept(|tgid, goid, kept| {
            if kept.binary == binary.0 && kept.born_at <= at.0 {
                stale.push((tgid, goid));
            }
        });
        if let Err(error) = read {
            tracing::warn!(%error, "what is kept of goroutines cannot be read");
        }
        stale.into_iter().for_each(|(tgid, goid)| self.session.summing().drop_kept(tgid, goid));
    }

    fn take_sums(&mut self, at: KtimeNs, whose: Whose) {
        let Some(summing) = &mut self.summing else { return };
        let tables = self.session.summing();
        let (mut goroutines, mut gone, mut living) = (Vec::new(), Vec::new(), FxHashSet::default());
        let mut untold = 0;
        let read = tables.kept(|tgid, goid, kept| {
            living.insert((tgid, goid));
            if !whose.concerns(tgid, BinaryId(kept.binary)) || kept.born_at > at.0 {
                return;
            }
            if matches!(whose, Whose::Ended(..)) {
                gone.push((tgid, goid));
            }
            let last = matches!(whose, Whose::All(None) | Whose::Ended(..));
            untold += u64::from(last && kept.born_at != 0 && kept.told == 0);
            goroutines.extend(summing.tells((tgid, goid), kept, at, whose));
        });
        let mut sums = Vec::new();
        let mut over = Vec::new();
        let read = read.and_then(|()| {
            tables.sums(|key, sum| {
                if whose.concerns(Tgid(key.tgid), BinaryId(key.binary)) {
                    sums.extend(summing.news(key, sum));
                    if matches!(whose, Whose::Ended(..)) {
                        over.push(key);
                    }
                }
            })
        });
        if let Err(error) = read {
            tracing::warn!(%error, "what was summed cannot be read");
        }
        gone.iter().for_each(|of| _ = living.remove(of));
        summing.told.retain(|of, _| living.contains(of));
        gone.into_iter().for_each(|(tgid, goid)| tables.drop_kept(tgid, goid));
        for key in over {
            tables.drop_sum(&key);
            summing.read.remove(&key);
        }
        // Those who made others come first.
        goroutines.sort_unstable_by_key(|kept| (kept.tgid, kept.goid));
        let in_blocks = |count: usize| (0..count).step_by(IN_A_BLOCK).map(move |from| from..count.min(from + IN_A_BLOCK));
        for range in in_blocks(goroutines.len()) {
            self.capture.send(Message::Kept(KeptAt { at, goroutines: goroutines[range].to_vec() }));
        }
        self.capture.send(Message::BornUntold(untold));
        for range in in_blocks(sums.len()) {
            self.capture.send(Message::Summed(Summed { at, sums: sums[range].to_vec() }));
        }
    }
}
