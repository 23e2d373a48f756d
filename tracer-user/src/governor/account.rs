//! What comes in and what is spent.

use super::Reading;
use crate::{clock::KtimeNs, recording::contract::Tier};

/// The budget of so much time can be saved, and that of so much is there at the beginning.
const SAVED_NS: f64 = 10e9;
const BEGIN_NS: f64 = 2e9;
/// A target that uses less than this share of one CPU is taken to use that much: nobody feels what is paid then.
pub(super) const IDLE: f64 = 0.01;
/// How fast an average follows.
const SMOOTH_NS: f64 = 500e6;
/// What is known of a tier's price is believed for so long.
const KNOWN_NS: u64 = 120_000_000_000;

/// Shares of the target's CPU time, by tier: T1, T2, T3.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ByTier([f64; 3]);

impl ByTier {
    /// Of all tiers up to one.
    pub fn up_to(&self, tier: Tier) -> f64 {
        self.0.iter().take(usize::from(tier.number())).sum()
    }
}

/// The first reading tells how much the target uses, and what is there at the beginning goes by that: it must not be of a moment.
const FIRST_NS: f64 = 100e6;
/// An average of less time than this says little.
const TELLING_NS: u64 = 30_000_000;

/// What is paid and used of late, as numbers of CPUs. Both are averaged, and not their ratio: the kernel brings CPU time up to date every few
/// milliseconds only, so between two readings there may be hits and no time.
#[derive(Clone, Copy, Debug, Default)]
struct Rates {
    paid: f64,
    used: f64,
}

impl Rates {
    fn average(&mut self, weight: f64, paid: f64, used: f64) {
        self.paid += weight * (paid - self.paid);
        self.used += weight * (used - self.used);
    }

    fn share(&self) -> f64 {
        self.paid / self.used.max(IDLE)
    }
}

/// The account of one target.
#[derive(Debug)]
pub(super) struct Account {
    budget: f64,
    last: Reading,
    begin: Reading,
    saved_ns: f64,
    /// Of T1's, T2's and T3's probes, since they were set.
    rates: [Rates; 3],
    /// CPU time the target uses in a second, as a number of CPUs.
    cpus: f64,
    /// Since when each tier's probes are set.
    since: [KtimeNs; 3],
    /// What T1's, T2's and T3's probes cost when they were last set, and when that was.
    known: [Option<(f64, KtimeNs)>; 3],
}

impl Account {
    pub fn new(budget: f64, begin: Reading) -> Self {
        Self {
            budget,
            last: begin,
            begin,
            saved_ns: budget * BEGIN_NS * IDLE,
            rates: Default::default(),
            cpus: 0.0,
            since: [begin.at; 3],
            known: [None; 3],
        }
    }

    pub fn budget(&self) -> f64 {
        self.budget
    }

    /// Another budget comes in from here on; no more of the old one stays saved than could be of this one.
    pub fn allow(&mut self, budget: f64) {
        self.budget = budget;
        self.saved_ns = self.saved_ns.min(budget * SAVED_NS * self.cpus);
    }

    pub fn cpus(&self) -> f64 {
        self.cpus
    }

    /// Books a reading, while `tier` was followed; what each tier costs of late. `None`: no time has passed.
    pub fn add(&mut self, reading: Reading, tier: Tier) -> Option<ByTier> {
        let passed = reading.at.since(self.last.at) as f64;
        let first = self.last == self.begin;
        if passed <= 0.0 || first && passed < FIRST_NS {
            return None;
        }
        let used = reading.cpu_ns.saturating_sub(self.last.cpu_ns) as f64;
        let mut spent = 0.0;
        for (index, (rates, since)) in self.rates.iter_mut().zip(self.since).enumerate() {
            let paid = reading.paid_ns[index].saturating_sub(self.last.paid_ns[index]) as f64;
            spent += paid;
            // All of the time since they were set, until that is long.
            let share = passed / (reading.at.since(since) as f64).max(passed);
            rates.average(share.max(1.0 - (-passed / SMOOTH_NS).exp()), paid / passed, used / passed);
        }
        self.last = reading;
        let used = used.max(IDLE * passed);
        let weight = if first { 1.0 } else { 1.0 - (-passed / (4.0 * SMOOTH_NS)).exp() };
        self.cpus += weight * (used / passed - self.cpus);
        if first {
            self.saved_ns = self.budget * BEGIN_NS * self.cpus;
        }
        self.saved_ns = (self.saved_ns + self.budget * used - spent).min(self.budget * SAVED_NS * self.cpus);
        let shares = self.rates.map(|rates| rates.share());
        for (known, share) in self.known.iter_mut().zip(shares).take(usize::from(tier.number())) {
            *known = Some((share, reading.at));
        }
        Some(ByTier(shares))
    }

    /// From here on `to` is followed in place of `from`: what the probes cost that are set now is averaged anew.
    pub fn stepped(&mut self, from: Tier, to: Tier, at: KtimeNs) {
        for tier in usize::from(from.number())..usize::from(to.number()) {
            (self.since[tier], self.rates[tier]) = (at, Rates::default());
        }
        for tier in usize::from(to.number())..3 {
            self.rates[tier] = Rates::default();
        }
    }

    /// Whether what a tier's probes cost was averaged long enough to act on.
    pub fn is_telling(&self, tier: Tier) -> bool {
        let since = usize::from(tier.number()).checked_sub(1).and_then(|index| self.since.get(index));
        since.is_none_or(|since| self.last.at.since(*since) >= TELLING_NS)
    }

    /// Whether a price can be paid for so long out of what was saved, beside what comes in.
    pub fn affords(&self, share: f64, ns: u64) -> bool {
        self.saved_ns > 0.0 && self.saved_ns >= (share - self.budget) * self.cpus * ns as f64
    }

    /// Whether nothing is saved any more.
    pub fn is_spent(&self) -> bool {
        self.saved_ns <= 0.0
    }

    /// What the probes of a tier themselves cost, without those below, as far as that is known.
    pub fn known(&self, tier: Tier) -> Option<f64> {
        let (share, at) = self.known[usize::from(tier.number()).checked_sub(1)?]?;
        (self.last.at.since(at) <= KNOWN_NS).then_some(share)
    }

    pub fn forget(&mut self, tier: Tier) {
        if let Some(known) = usize::from(tier.number()).checked_sub(1).and_then(|index| self.known.get_mut(index)) {
            *known = None;
        }
    }
}
