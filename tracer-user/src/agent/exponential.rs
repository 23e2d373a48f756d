//! Times in classes each of which is by the same factor wider than the one before: Prometheus's native histograms, and OTLP's exponential
//! ones, of scale [`SCALE`] (a factor of 2^(1/8), so 9 %).

use std::collections::BTreeMap;

/// `schema` of io.prometheus.client.Histogram.
pub const SCALE: i32 = 3;

/// Counts by class: class `i` holds what is longer than `2^((i-1)/8)` s and no longer than `2^(i/8)` s. As times are whole nanoseconds in 64
/// bits there are no more than 505 classes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exponential {
    /// Those that took no time.
    pub zero: u64,
    pub counts: BTreeMap<i32, u64>,
}

/// Counts as messages have them: runs of classes that follow one another, and by how much each class has more than the one before.
#[derive(Debug, Default, PartialEq)]
pub struct Sparse {
    /// Classes between this run and the one before, or its first class; and its length.
    pub spans: Vec<(i32, u32)>,
    pub deltas: Vec<i64>,
}

impl Exponential {
    pub fn record(&mut self, ns: u64) {
        let count = match ns {
            0 => &mut self.zero,
            _ => self.counts.entry(class(ns)).or_default(),
        };
        *count = count.saturating_add(1);
    }

    pub fn add(&mut self, other: &Self) {
        self.zero = self.zero.saturating_add(other.zero);
        for (class, more) in &other.counts {
            let count = self.counts.entry(*class).or_default();
            *count = count.saturating_add(*more);
        }
    }

    /// How many took longer, as far as that is known: in the class of `ns` itself nobody counts.
    pub fn longer_than(&self, ns: u64) -> u64 {
        let classes = if ns == 0 { i32::MIN } else { class(ns).saturating_add(1) };
        self.counts.range(classes..).fold(0, |sum, (_, count)| count.saturating_add(sum))
    }

    pub fn sparse(&self) -> Sparse {
        let mut sparse = Sparse::default();
        let (mut next, mut before) = (None, 0);
        for (class, count) in &self.counts {
            match sparse.spans.last_mut().filter(|_| next == Some(*class)) {
                Some((_, length)) => *length += 1,
                None => sparse.spans.push((class - next.unwrap_or(0), 1)),
            }
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            sparse.deltas.push(count - before);
            (next, before) = (Some(class + 1), count);
        }
        sparse
    }
}

fn class(ns: u64) -> i32 {
    let steps = f64::from(1 << SCALE);
    ((ns as f64 / 1e9).log2() * steps).ceil() as i32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Check that a time is in the class whose bounds it lies between, the upper one included, whatever it is.
    #[test]
    fn classes() {
        for (ns, expected) in
            [(1_000_000_000, 0), (1_000_000_001, 1), (500_000_000, -8), (2_000_000_000, 8), (1, -239), (u64::MAX, 273)]
        {
            assert_eq!(class(ns), expected, "{ns}");
        }
    }

    proptest! {
        #[test]
        fn bounds(ns in 1u64..) {
            let bound = |class: i32| (f64::from(class) / 8.0).exp2();
            let (seconds, class) = (ns as f64 / 1e9, class(ns));
            let near = 1.0 + 1e-12;
            prop_assert!(seconds <= bound(class) * near && seconds * near > bound(class - 1), "{ns} in {class}");
        }
    }

    /// Check that runs and differences give the counts back.
    #[test]
    fn runs() {
        let mut times = Exponential::default();
        for ns in [0, 1_000_000_000, 1_000_000_000, 1_050_000_000, 4_000_000_000] {
            times.record(ns);
        }
        let twice = {
            let mut twice = times.clone();
            twice.add(&times);
            twice
        };
        assert_eq!((twice.zero, twice.counts), (2, [(0, 4), (1, 2), (16, 2)].into()));
        assert_eq!(times.sparse(), Sparse { spans: vec![(0, 2), (14, 1)], deltas: vec![2, -1, 0] });
        assert_eq!(Exponential::default().sparse(), Sparse::default());
        for (ns, longer) in [(0, 4), (900_000_000, 4), (990_000_000, 2), (1_100_000_000, 1), (4_000_000_000, 0), (u64::MAX, 0)] {
            assert_eq!(times.longer_than(ns), longer, "{ns}");
        }
    }
}
