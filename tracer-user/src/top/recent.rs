//! What happened in the newest seconds: counts for rates, and delays for their quantiles. In bounded memory, by the recording's own time.

use crate::{clock::KtimeNs, export::tally::Waits};

/// Whole seconds over which rates are taken.
pub const RATE_S: u64 = 5;
/// Seconds that are kept: some more, for what is told late.
const KEPT: u64 = 8;
const SECOND_NS: u64 = 1_000_000_000;

/// How many there were in each of the newest seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct PerSecond {
    counts: [u64; KEPT as usize],
    /// The newest one.
    second: u64,
}

impl PerSecond {
    pub fn add(&mut self, at: KtimeNs, count: u64) {
        let second = at.0 / SECOND_NS;
        if second > self.second {
            let passed = (second - self.second).min(KEPT);
            (0..passed).for_each(|back| self.counts[((second - back) % KEPT) as usize] = 0);
            self.second = second;
        }
        if second + KEPT > self.second {
            let place = &mut self.counts[(second % KEPT) as usize];
            *place = place.saturating_add(count);
        }
    }

    /// How many there were in the whole seconds that [`window`] spans.
    pub fn in_window(&self, now: KtimeNs) -> u64 {
        let (from, to) = (window(now).0.0 / SECOND_NS, window(now).1.0 / SECOND_NS);
        let known = (from..to).filter(|second| *second <= self.second && second + KEPT > self.second);
        known.fold(0, |sum, second| sum.saturating_add(self.counts[(second % KEPT) as usize]))
    }
}

/// The time over which rates are taken: the newest whole seconds that are over.
pub fn window(now: KtimeNs) -> (KtimeNs, KtimeNs) {
    let to = now.0 / SECOND_NS * SECOND_NS;
    (KtimeNs(to.saturating_sub(RATE_S * SECOND_NS)), KtimeNs(to))
}

/// How long delays count: for as long again at most.
const DELAYS_NS: u64 = 10 * SECOND_NS;

/// Delays of the newest ten to twenty seconds.
#[derive(Clone, Debug, Default)]
pub struct Delays {
    /// The newer ones, and since when.
    now: Option<Box<Waits>>,
    since: KtimeNs,
    before: Option<Box<Waits>>,
}

impl Delays {
    pub fn record(&mut self, at: KtimeNs, ns: u64) {
        self.turn(at);
        self.now.get_or_insert_default().record(ns);
    }

    fn turn(&mut self, at: KtimeNs) {
        let age = at.since(self.since);
        if age >= DELAYS_NS {
            let newer = self.now.take();
            self.before = newer.filter(|_| age < 2 * DELAYS_NS);
            self.since = at;
        }
    }

    /// Adds those that count to others.
    pub fn add_to(&self, now: KtimeNs, all: &mut Option<Box<Waits>>) {
        let age = now.since(self.since);
        let fresh = self.now.as_ref().filter(|_| age < 2 * DELAYS_NS);
        let older = self.before.as_ref().filter(|_| age < DELAYS_NS);
        fresh.into_iter().chain(older).for_each(|waits| all.get_or_insert_default().add(waits));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> KtimeNs {
        KtimeNs(seconds * SECOND_NS)
    }

    /// Check that a rate takes whole seconds, late ones too, and forgets what is older.
    #[test]
    fn rates() {
        let mut births = PerSecond::default();
        for second in 100..110 {
            births.add(s(second), 10);
        }
        assert_eq!(births.in_window(s(110)), 50);
        assert_eq!(births.in_window(s(109) + 5), 50);
        births.add(s(106), 7);
        births.add(s(90), 1000);
        assert_eq!(births.in_window(s(110)), 57);
        assert_eq!(births.in_window(s(112)), 30);
        assert_eq!(births.in_window(s(1000)), 0);
        births.add(s(1000), 3);
        assert_eq!((births.in_window(s(1001)), births.in_window(s(110))), (3, 0));
        births.add(KtimeNs::MAX, u64::MAX);
        assert_eq!(PerSecond::default().in_window(KtimeNs(0)), 0);
    }

    /// Check that delays count for ten seconds, and no longer than twenty.
    #[test]
    fn delays() {
        let mut delays = Delays::default();
        let count = |delays: &Delays, now| {
            let mut all = None;
            delays.add_to(now, &mut all);
            all.map_or(0, |waits| waits.count)
        };
        delays.record(s(100), 5);
        assert_eq!((count(&delays, s(101)), count(&delays, s(121))), (1, 0));
        delays.record(s(112), 5);
        assert_eq!((count(&delays, s(113)), count(&delays, s(123)), count(&delays, s(133))), (2, 1, 0));
        delays.record(s(500), 5);
        assert_eq!(count(&delays, s(500)), 1);
    }
}
