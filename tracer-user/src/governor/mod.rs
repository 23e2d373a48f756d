//! Keeps what the probes cost a target within its budget: in which detail it is followed when.
//!
//! Pure: what was paid, what the target used and the time are handed in, a step comes out. Who takes it removes probes or sets them: only
//! that changes the price, for most of it is the trap itself.
//!
//! There is a *base*, the tier that can be paid for all the time. Above it there are *windows*: for a second or more the next tier is
//! followed, once enough of the budget was saved for it. A tier of which nothing is known is *tried* for a moment first. What costs many
//! times the budget is not bought in windows either: the target would feel these, however rare they are.

use crate::{
    clock::KtimeNs,
    recording::contract::{Tier, Why},
};

mod account;
pub mod vitals;

use account::{Account, ByTier};

/// How long a tier is tried of which the price is not known.
const TRIAL_NS: u64 = 100_000_000;
/// The shortest window, and the shortest time between two.
const WINDOW_NS: u64 = 1_000_000_000;
/// A window that has been paid for out of the income for so long is none: it is the new base.
const SETTLED_NS: u64 = 3_000_000_000;
/// A tier is followed all the time up to this share of the budget, and left above that one.
const ROOM: f64 = 0.6;
const FULL: f64 = 0.9;
/// What costs so many times the budget is not bought at all, and at so many times it is left at once.
const DEAR: f64 = 10.0;
pub const RUNAWAY: f64 = 15.0;
/// How long a tier is left alone that was left for its price, at first and at most: twice as long each time.
const HOLD_NS: u64 = 10_000_000_000;
const MAX_HOLD_NS: u64 = 600_000_000_000;
/// How long everything is left alone after an alarm, at first.
const ALARM_HOLD_NS: u64 = 60_000_000_000;
/// A hold that is so long ago is forgotten.
const FORGOTTEN_NS: u64 = 300_000_000_000;

/// A budget as people write it: `1%` is 0.01. Above 0 % and up to 100 %.
pub fn share(text: &str) -> Option<f64> {
    let percent = text.strip_suffix('%')?.trim_end().parse::<f64>().ok()?;
    Some(percent / 100.0).filter(|share| *share > 0.0 && *share <= 1.0)
}

/// A share as people read it: 0.0125 is `1.25`.
pub fn percent(share: f64) -> f64 {
    (share * 1e6).round() / 1e4
}

/// What may be followed of a program, and what that may cost it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Care {
    /// The most; without a budget it is followed all the time.
    pub tier: Tier,
    /// The share of its CPU time that probes may cost it, 0.01 for 1 %; `None`: no matter what.
    pub budget: Option<f64>,
}

impl Care {
    /// What both ask for: probes are set on a file, whoever runs it. The higher tier, for the smaller budget.
    pub fn and(self, other: Self) -> Self {
        let budget = match (self.budget, other.budget) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        Self { tier: self.tier.max(other.tier), budget }
    }
}

/// By how much the budgets of several programs are cut, so that they keep a budget of all together. `programs`: each one's budget and the
/// CPUs it uses; `all`: what they may cost together, as a number of CPUs. What an idle program may cost is what one may that uses a
/// hundredth of a CPU.
pub fn cut(programs: impl Iterator<Item = (f64, f64)>, all: f64) -> f64 {
    let allowed: f64 = programs.map(|(budget, cpus)| budget * cpus.max(account::IDLE)).sum();
    if allowed > all { all / allowed } else { 1.0 }
}

/// What was paid and used so far, at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    pub at: KtimeNs,
    /// What the hits of T1's, T2's and T3's probes cost, ns.
    pub paid_ns: [u64; 3],
    /// CPU time of the target, ns.
    pub cpu_ns: u64,
}

/// A change of tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub tier: Tier,
    pub why: Why,
}

/// What is done besides following at the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Base,
    Trial,
    Window,
}

/// When a tier may be bought again.
#[derive(Clone, Copy, Debug, Default)]
struct Hold {
    until: KtimeNs,
    length_ns: u64,
}

impl Hold {
    fn again(&mut self, at: KtimeNs, first_ns: u64) {
        let forgotten = at.since(self.until) > FORGOTTEN_NS;
        let length_ns = if forgotten { first_ns } else { (self.length_ns * 2).clamp(first_ns, MAX_HOLD_NS) };
        *self = Self { until: at + length_ns, length_ns };
    }
}

/// Decides for the processes of one binary.
#[derive(Debug)]
pub struct Governor {
    ceiling: Tier,
    base: Tier,
    phase: Phase,
    since: KtimeNs,
    account: Account,
    /// When T1, T2 and T3 may be bought again.
    holds: [Hold; 3],
}

impl Governor {
    /// `budget`: the share of the target's CPU time that may be paid, 0.01 for 1 %. Begins without a probe.
    pub fn new(budget: f64, ceiling: Tier, begin: Reading) -> Self {
        Self {
            ceiling,
            base: Tier::T0,
            phase: Phase::Base,
            since: begin.at,
            account: Account::new(budget, begin),
            holds: [Hold::default(); 3],
        }
    }

    /// What may be followed, and for how much, from here on. Beyond a ceiling it goes with the next reading.
    pub fn allow(&mut self, ceiling: Tier, budget: f64) {
        self.ceiling = ceiling;
        self.account.allow(budget);
    }

    /// How many CPUs the target uses of late.
    pub fn cpus(&self) -> f64 {
        self.account.cpus()
    }

    /// The tier that probes should be set for now.
    pub fn tier(&self) -> Tier {
        match self.phase {
            Phase::Base => self.base,
            Phase::Trial | Phase::Window => self.base.above(),
        }
    }

    /// Whether the next reading should come soon.
    pub fn in_a_hurry(&self) -> bool {
        self.phase == Phase::Trial
    }

    /// Whether everything is followed that may be: as long as nothing is paid, there is nothing to decide.
    pub fn rests(&self) -> bool {
        self.phase == Phase::Base && self.base == self.ceiling
    }

    /// Takes a reading. What is returned has been decided; the caller does it.
    pub fn tick(&mut self, reading: Reading) -> Option<Step> {
        let tier = self.tier();
        let shares = self.account.add(reading, tier)?;
        let at = reading.at;
        let lasted = at.since(self.since);
        let smooth = shares.up_to(tier);
        let budget = self.account.budget();
        if tier > self.ceiling {
            return Some(self.go(at, self.base.min(self.ceiling), Phase::Base, Why::WindowOver));
        }
        if smooth > RUNAWAY * budget && self.account.is_telling(tier) {
            return self.retreat(at, &shares);
        }
        match self.phase {
            Phase::Trial if lasted < TRIAL_NS => None,
            Phase::Trial if smooth <= ROOM * budget => self.settle(at, Why::Room),
            // What was tried goes on, if it is paid for.
            Phase::Trial if self.account.affords(smooth, WINDOW_NS.saturating_sub(lasted)) => {
                self.phase = Phase::Window;
                None
            }
            Phase::Trial => self.close(at, Why::WindowOver),
            Phase::Window if lasted < WINDOW_NS => None,
            Phase::Window if self.account.is_spent() => self.close(at, Why::WindowOver),
            Phase::Window if lasted >= SETTLED_NS && smooth <= ROOM * budget => self.settle(at, Why::Room),
            Phase::Window => None,
            Phase::Base if self.base > Tier::T0 && lasted >= WINDOW_NS && smooth > FULL * budget => self.descend(at, Why::Dear),
            Phase::Base => self.look_up(at, lasted, smooth),
        }
    }

    /// Everything goes at once, whatever our own figures say.
    pub fn alarm(&mut self, at: KtimeNs, why: Why) -> Option<Step> {
        if self.tier() == Tier::T0 && self.holds.iter().all(|hold| hold.until > at) {
            return None;
        }
        for hold in &mut self.holds {
            hold.again(at, ALARM_HOLD_NS);
        }
        (self.tier() > Tier::T0).then(|| self.go(at, Tier::T0, Phase::Base, why))
    }

    /// The tier that was to be followed from here on could not be had: it goes on as before.
    pub fn refused(&mut self, at: KtimeNs) {
        let tier = self.tier();
        self.hold(tier).again(at, HOLD_NS);
        self.go(at, self.base.min(tier.below()), Phase::Base, Why::Trial);
    }

    /// The probes of a step up are set by now: what they cost counts from here on.
    pub fn set(&mut self, reading: Reading) {
        let (from, to) = (self.base, self.tier());
        self.account.add(reading, from);
        self.account.stepped(from, to, reading.at);
        self.since = reading.at;
    }

    /// Whether there is something to be bought.
    fn look_up(&mut self, at: KtimeNs, lasted: u64, smooth: f64) -> Option<Step> {
        let next = self.base.above();
        if self.base >= self.ceiling || at < self.hold(next).until {
            return None;
        }
        let budget = self.account.budget();
        let Some(own) = self.account.known(next) else {
            // A trial may cost anything, for a moment.
            return self.account.affords(DEAR * budget, TRIAL_NS).then(|| self.go(at, self.base, Phase::Trial, Why::Trial));
        };
        let price = smooth + own;
        if price > DEAR * budget {
            // It was so when it was tried; by now it may be otherwise.
            self.account.forget(next);
            self.hold(next).again(at, HOLD_NS);
            return None;
        }
        if price <= ROOM * budget {
            return Some(self.go(at, self.base, Phase::Trial, Why::Trial));
        }
        let rested = lasted >= WINDOW_NS;
        (rested && self.account.affords(price, WINDOW_NS)).then(|| self.go(at, self.base, Phase::Window, Why::Window))
    }

    /// The tier that is followed just now is the base from here on. Nothing is to be done for it.
    fn settle(&mut self, at: KtimeNs, why: Why) -> Option<Step> {
        Some(self.go(at, self.tier(), Phase::Base, why))
    }

    fn close(&mut self, at: KtimeNs, why: Why) -> Option<Step> {
        Some(self.go(at, self.base, Phase::Base, why))
    }

    fn descend(&mut self, at: KtimeNs, why: Why) -> Option<Step> {
        self.hold(self.base).again(at, HOLD_NS);
        Some(self.go(at, self.base.below(), Phase::Base, why))
    }

    /// To the highest tier that does not cost too much.
    fn retreat(&mut self, at: KtimeNs, shares: &ByTier) -> Option<Step> {
        let tier = self.tier();
        let budget = self.account.budget();
        let cheap = [Tier::T2, Tier::T1].into_iter().find(|lower| *lower < tier && shares.up_to(*lower) <= budget);
        let to = cheap.unwrap_or(Tier::T0).min(tier.below());
        for dear in [Tier::T1, Tier::T2, Tier::T3].into_iter().filter(|dear| *dear > to && *dear <= tier) {
            self.hold(dear).again(at, HOLD_NS);
        }
        Some(self.go(at, to, Phase::Base, Why::Runaway))
    }

    fn go(&mut self, at: KtimeNs, base: Tier, phase: Phase, why: Why) -> Step {
        let from = self.tier();
        (self.base, self.phase, self.since) = (base, phase, at);
        self.account.stepped(from, self.tier(), at);
        Step { tier: self.tier(), why }
    }

    fn hold(&mut self, tier: Tier) -> &mut Hold {
        &mut self.holds[usize::from(tier.number()).saturating_sub(1)]
    }
}

#[cfg(test)]
mod tests;
