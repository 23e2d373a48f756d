//! How many there are over time.

use crate::clock::KtimeNs;

/// Values of one counter at most: more than a screen has columns.
const POINTS: u64 = 4096;

/// Comings and goings, in any order.
#[derive(Default)]
pub(super) struct Steps(Vec<(KtimeNs, i64)>);

impl Steps {
    pub fn add(&mut self, at: KtimeNs, change: i64) {
        self.0.push((at, change));
    }

    /// One more from then until then.
    pub fn during(&mut self, from: KtimeNs, to: KtimeNs) {
        if from < to {
            self.add(from, 1);
            self.add(to, -1);
        }
    }

    /// The number from when on each, by time; where there are too many changes, the last of each stretch of time.
    pub fn values(mut self) -> Vec<(KtimeNs, i64)> {
        self.0.sort_unstable();
        let (Some(first), Some(last)) = (self.0.first(), self.0.last()) else { return Vec::new() };
        let stretch = if self.0.len() as u64 > POINTS { (last.0.since(first.0) / POINTS).max(1) } else { 1 };
        let begin = first.0;
        let (mut values, mut now): (Vec<(KtimeNs, i64)>, i64) = (Vec::new(), 0);
        for (at, change) in self.0 {
            now += change;
            match values.last_mut() {
                Some((since, value)) if since.since(begin) / stretch == at.since(begin) / stretch => *value = now,
                _ => values.push((at, now)),
            }
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the number is right after each change, and at the end of each stretch where there are many.
    #[test]
    fn steps() {
        let mut few = Steps::default();
        few.during(KtimeNs(5), KtimeNs(9));
        few.during(KtimeNs(7), KtimeNs(9));
        few.during(KtimeNs(8), KtimeNs(8));
        assert_eq!(few.values(), [(KtimeNs(5), 1), (KtimeNs(7), 2), (KtimeNs(9), 0)]);

        let mut many = Steps::default();
        (0..100_000).for_each(|at| many.during(KtimeNs(at), KtimeNs(200_000)));
        let values = many.values();
        assert!(values.len() as u64 <= POINTS + 1);
        assert_eq!(values.last(), Some(&(KtimeNs(200_000), 0)));
        // Each is the number at the end of its stretch: as many as there were nanoseconds until the next one.
        let [(_, value), (next, _)] = values[1000..1002] else { unreachable!() };
        assert_eq!(u64::try_from(value), Ok(next.0));
    }
}
