//! Numbers by steps of time: a fixed number of steps, which become twice as long when a recording outgrows them.

use std::collections::VecDeque;

use crate::clock::KtimeNs;

/// Steps that a recording is cut into at most.
pub const MAX_STEPS: usize = 500;
/// The first length of a step, ns: 5⁹, so that after nine doublings it is a second.
const FIRST_NS: u64 = 1_953_125;

/// Which step a time is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    zero: KtimeNs,
    pub step_ns: u64,
}

impl Clock {
    pub fn new(zero: KtimeNs) -> Self {
        Self { zero, step_ns: FIRST_NS }
    }

    /// The step that holds `at`; what is before zero counts to the first.
    pub fn step(&self, at: KtimeNs) -> u64 {
        at.since(self.zero) / self.step_ns
    }

    /// How often the steps have to be doubled until one of the first [`MAX_STEPS`] holds `at`. They are, from here on.
    pub fn stretch(&mut self, at: KtimeNs) -> u32 {
        let mut doublings = 0;
        while self.step(at) >= MAX_STEPS as u64 {
            self.step_ns *= 2;
            doublings += 1;
        }
        doublings
    }
}

/// What two steps become that are made one.
pub trait Merge: Copy + Default {
    fn merge(&mut self, later: Self);
}

/// Changes add up.
impl Merge for i64 {
    fn merge(&mut self, later: Self) {
        *self = self.saturating_add(later);
    }
}

/// Sums add up.
impl Merge for u64 {
    fn merge(&mut self, later: Self) {
        *self = self.saturating_add(later);
    }
}

/// Of what was seen, the newest counts.
impl Merge for Option<u64> {
    fn merge(&mut self, later: Self) {
        *self = later.or(*self);
    }
}

/// A value for each step; only the stretch in which something was said takes room.
#[derive(Clone, Debug, Default)]
pub struct Steps<T> {
    first: u64,
    values: VecDeque<T>,
}

impl<T: Merge> Steps<T> {
    /// Adds to a step, which must be one of the first [`MAX_STEPS`].
    pub fn add(&mut self, step: u64, value: T) {
        if self.values.is_empty() {
            self.first = step;
        }
        while step < self.first {
            self.first -= 1;
            self.values.push_front(T::default());
        }
        let index = (step - self.first) as usize;
        if index >= self.values.len() {
            self.values.resize(index + 1, T::default());
        }
        self.values[index].merge(value);
    }

    /// Makes two steps one.
    pub fn halve(&mut self) {
        let old = std::mem::take(self);
        for (step, value) in (old.first..).zip(old.values) {
            self.add(step / 2, value);
        }
    }

    pub fn get(&self, step: u64) -> T {
        let index = step.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| self.values.get(index).copied()).unwrap_or_default()
    }
}

impl Steps<i64> {
    /// What the changes up to the end of a step come to.
    pub fn level(&self, step: u64) -> u64 {
        let count = step.checked_sub(self.first).map_or(0, |last| last.saturating_add(1));
        let all = self.values.iter().take(usize::try_from(count).unwrap_or(usize::MAX));
        // A life that ended before it began would make it negative; there is none.
        u64::try_from(all.fold(0i64, |sum, change| sum.saturating_add(*change))).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Check that levels and sums at the end are the same however often steps are made one, in whatever order things come.
        #[test]
        fn halving(changes in proptest::collection::vec((0u64..500, -3i64..5), 1..60), halvings in 0u32..9) {
            let mut steps: Steps<i64> = Steps::default();
            changes.iter().for_each(|(step, change)| steps.add(*step, *change));
            (0..halvings).for_each(|_| steps.halve());
            for step in 0..=500 >> halvings {
                let until = (step + 1) << halvings;
                let sum: i64 = changes.iter().filter(|(at, _)| *at < until).map(|(_, change)| change).sum();
                prop_assert_eq!(steps.level(step), u64::try_from(sum).unwrap_or(0));
            }
        }
    }

    /// Check that the newest of what was seen stays, and nothing is nothing.
    #[test]
    fn newest() {
        let mut steps: Steps<Option<u64>> = Steps::default();
        for (step, value) in [(6, Some(60)), (4, Some(40)), (7, None), (5, Some(50))] {
            steps.add(step, value);
        }
        assert_eq!([3, 4, 5, 6, 7].map(|step| steps.get(step)), [None, Some(40), Some(50), Some(60), None]);
        steps.halve();
        assert_eq!([1, 2, 3, 4].map(|step| steps.get(step)), [None, Some(50), Some(60), None]);
    }

    /// Check that steps stretch to whole seconds, and to the end of time.
    #[test]
    fn clock() {
        let mut clock = Clock::new(KtimeNs(1_000));
        assert_eq!((clock.stretch(KtimeNs(1_000)), clock.step(KtimeNs(0))), (0, 0));
        assert_eq!(clock.stretch(KtimeNs(400_000_000_000)), 9);
        assert_eq!((clock.step_ns, clock.step(KtimeNs(1_000 + 399_000_000_000))), (1_000_000_000, 399));
        clock.stretch(KtimeNs::MAX);
        assert!(clock.step(KtimeNs::MAX) < MAX_STEPS as u64);
    }
}
