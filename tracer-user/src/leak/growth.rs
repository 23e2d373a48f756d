//! Whether a population grows without bound: a test on times alone, so that a recording gives the same answer on any machine.
//!
//! What lives at the end is no leak by that: servers idle, pools are full. A leak is told from these by three things. Its goroutines are
//! older than those of the same site that have ended ever became ([`Lives::settled_ns`]). Their births go on to the end: a pool's stop when
//! it is full. And they are spread over time: a burst is over some time. Of a process that ran before, the population must really have risen:
//! where as many of the old end as new are born, these take their places.
//!
//! Of what is only counted ([`Levels`]), the number under which the count does not fall any more takes the place of births.

/// Fewer prove nothing.
pub const MIN_STUCK: usize = 12;
/// Parts of equal length into which the time since the first of them was born is cut.
pub const SLICES: usize = 6;
/// The time since the first birth is at least this share of what was watched; shorter is a burst.
const MIN_SPAN: f64 = 0.25;
/// Births in each third, and in the last slice, are at least this share of an even spread.
const MIN_SHARE: f64 = 0.35;
/// How often longer than most of the ended lived one must have lived to be no longer one of them.
const OUTLIVED: u64 = 2;
/// At the very end nobody has had the time to end: that share of the watched time does not count.
const YOUNG_SHARE: u64 = 20;

/// The goroutines of one site, as times since the watching began.
#[derive(Clone, Copy, Debug)]
pub struct Lives<'a> {
    /// Births of those who are alive, sorted.
    pub born_ns: &'a [u64],
    /// How long they were watched.
    pub watched_ns: u64,
    /// The time that nine of ten of the ended did not outlive; `None`: none has ended, or hardly any.
    pub ended_within_ns: Option<u64>,
    /// By how many there are more of them at the end than at the beginning, those included that lived before.
    pub risen: i64,
}

/// Something that was counted now and then.
#[derive(Clone, Copy, Debug)]
pub struct Levels<'a> {
    /// When, since the watching began, and how many there were; in order of time.
    pub counts: &'a [(u64, u64)],
}

/// Counts in each of the [`SLICES`] that it takes at least.
const MIN_COUNTS: usize = 2;

/// What the test saw.
#[derive(Clone, Debug, PartialEq)]
pub struct Growth {
    /// Those who are older than `settled_ns`.
    pub stuck: usize,
    /// Older ones are no longer among those who are about to end.
    pub settled_ns: u64,
    /// Births of the stuck in each [`SLICES`]th of the time between the first birth and `settled_ns` before the end.
    pub slices: [u64; SLICES],
    /// How long one such part is.
    pub slice_ns: u64,
    pub per_hour: f64,
    /// Whether all conditions hold.
    pub unbounded: bool,
}

impl Lives<'_> {
    /// How old one must be not to be one that is about to end.
    pub fn settled_ns(&self) -> u64 {
        self.ended_within_ns.map_or(0, |ns| ns.saturating_mul(OUTLIVED)).max(self.watched_ns / YOUNG_SHARE)
    }

    /// The test.
    pub fn growth(&self) -> Growth {
        let settled_ns = self.settled_ns();
        let end = self.watched_ns.saturating_sub(settled_ns);
        let stuck = &self.born_ns[..self.born_ns.partition_point(|born| *born <= end)];
        let first = stuck.first().copied().unwrap_or(end);
        let span = end - first;
        let slice_ns = (span / SLICES as u64).max(1);
        let mut slices = [0; SLICES];
        for born in stuck {
            slices[(((born - first) / slice_ns) as usize).min(SLICES - 1)] += 1;
        }
        let even = stuck.len() as f64 / SLICES as f64;
        let enough = |part: &[u64]| part.iter().sum::<u64>() as f64 >= MIN_SHARE * even * part.len() as f64;
        let spread = slices.chunks(SLICES / 3).all(enough) && enough(&slices[SLICES - 1..]);
        let long = span as f64 >= MIN_SPAN * self.watched_ns as f64;
        let risen = self.risen.saturating_mul(2) >= i64::try_from(stuck.len()).unwrap_or(i64::MAX);
        let hours = span as f64 / 3.6e12;
        Growth {
            stuck: stuck.len(),
            settled_ns,
            slices,
            slice_ns,
            per_hour: if hours > 0.0 { stuck.len() as f64 / hours } else { 0.0 },
            unbounded: stuck.len() >= MIN_STUCK && long && spread && risen,
        }
    }
}

impl Levels<'_> {
    /// The test: in each part of the time the least count is higher than in the part before, by enough in each third and in the last part.
    pub fn growth(&self) -> Growth {
        let begin = self.counts.first().map_or(0, |(at, _)| *at);
        let slice_ns = (self.counts.last().map_or(0, |(at, _)| *at - begin) / (SLICES + 1) as u64).max(1);
        // One part more than there are rises.
        let mut floors = [(0usize, u64::MAX); SLICES + 1];
        for (at, count) in self.counts {
            let floor = &mut floors[(((at - begin) / slice_ns) as usize).min(SLICES)];
            *floor = (floor.0 + 1, floor.1.min(*count));
        }
        let counted = floors.iter().all(|(counts, _)| *counts >= MIN_COUNTS);
        let mut slices = [0; SLICES];
        // Where nothing was counted, nothing rose.
        for (rise, pair) in slices.iter_mut().zip(floors.windows(2)).filter(|_| counted) {
            *rise = pair[1].1.saturating_sub(pair[0].1);
        }
        let stuck = slices.iter().fold(0u64, |sum, rise| sum.saturating_add(*rise));
        let even = stuck as f64 / SLICES as f64;
        let enough = |part: &[u64]| part.iter().sum::<u64>() as f64 >= MIN_SHARE * even * part.len() as f64;
        let spread =
            slices.iter().all(|rise| *rise > 0) && slices.chunks(SLICES / 3).all(enough) && enough(&slices[SLICES - 1..]);
        let hours = slice_ns as f64 * SLICES as f64 / 3.6e12;
        Growth {
            stuck: usize::try_from(stuck).unwrap_or(usize::MAX),
            settled_ns: 0,
            slices,
            slice_ns,
            per_hour: stuck as f64 / hours,
            unbounded: counted && spread && stuck >= MIN_STUCK as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn test(born: impl IntoIterator<Item = f64>, ended_within: Option<f64>) -> Growth {
        let ns = |seconds: f64| (seconds * SECOND as f64) as u64;
        let mut born_ns: Vec<u64> = born.into_iter().map(ns).collect();
        born_ns.sort_unstable();
        let risen = born_ns.len() as i64;
        Lives { born_ns: &born_ns, watched_ns: 10 * SECOND, ended_within_ns: ended_within.map(ns), risen }.growth()
    }

    fn evenly(from: f64, to: f64, count: usize) -> impl Iterator<Item = f64> {
        (0..count).map(move |index| from + (to - from) * index as f64 / count as f64)
    }

    /// Check that steady growth is found, slow and fast, late begun, with others that end, and when no one else ends.
    #[test]
    fn leaks() {
        for (from, count, ended) in
            [(0.1, 13, None), (0.1, 400, Some(0.01)), (0.1, 100_000, None), (5.0, 60, Some(0.2)), (0.5, 40, Some(1.0))]
        {
            let growth = test(evenly(from, 10.0, count), ended);
            assert!(growth.unbounded, "{from} {count} {ended:?}: {growth:?}");
        }
        let growth = test(evenly(0.0, 10.0, 1000), None);
        assert_eq!((growth.stuck, growth.settled_ns), (951, SECOND / 2));
        assert!((growth.per_hour - 360_000.0).abs() < 4000.0, "{growth:?}");
    }

    /// Check that what is full, over, young or few is no growth.
    #[test]
    fn healthy() {
        let plateau = evenly(0.1, 7.0, 200);
        let started_together = evenly(0.0, 0.2, 500);
        let burst = evenly(6.0, 6.5, 300);
        let turnover = evenly(8.2, 10.0, 90);
        let few = evenly(0.1, 10.0, 11);
        let once_and_at_the_end = evenly(0.0, 0.2, 100).chain(evenly(9.0, 9.4, 3));
        assert!(!test(plateau, None).unbounded);
        assert!(!test(started_together, None).unbounded);
        assert!(!test(burst, None).unbounded);
        assert!(!test(turnover, Some(1.0)).unbounded);
        assert!(!test(few, None).unbounded);
        assert!(!test(once_and_at_the_end, None).unbounded);
        assert!(!test([], None).unbounded);
    }

    /// Check that births that take the places of older ones are no growth.
    #[test]
    fn turnover() {
        let born_ns: Vec<u64> = (0..100).map(|n| n * SECOND / 10).collect();
        for (risen, unbounded) in [(0, false), (40, false), (60, true), (-90, false)] {
            let growth = Lives { born_ns: &born_ns, watched_ns: 10 * SECOND, ended_within_ns: None, risen }.growth();
            assert_eq!(growth.unbounded, unbounded, "{risen}");
        }
    }

    /// Check which counts rise without bound: the least of each part counts, and it must rise to the end.
    #[test]
    fn levels() {
        let unbounded = |count: &dyn Fn(u64) -> u64| {
            let counts: Vec<(u64, u64)> = (0..60).map(|second| (second * SECOND, count(second))).collect();
            Levels { counts: &counts }.growth().unbounded
        };
        assert!(unbounded(&|second| 10 + second / 2));
        assert!(unbounded(&|second| 10 + second + second % 7 * 3));
        for (what, count) in [
            ("constant", &(|_: u64| -> u64 { 500 }) as &dyn Fn(u64) -> u64),
            ("a plateau", &|second| second.min(40)),
            ("waves", &|second| 100 + second % 20 * 5),
            ("a burst", &|second| if second < 30 { 10 } else { 500 }),
            ("few", &|second| second / 6),
            ("falling", &|second| 100 - second),
        ] {
            assert!(!unbounded(count), "{what}");
        }
        let extreme: Vec<(u64, u64)> = (0..40).map(|n| (n << 58, if n % 2 == 0 { 0 } else { u64::MAX })).collect();
        for counts in [&[][..], &[(5, 5)], &[(0, 0), (u64::MAX, u64::MAX)], &[(0, 1), (1, 2), (9, 3)], &extreme] {
            assert!(!Levels { counts }.growth().unbounded);
        }
    }

    /// Check that no input makes it fail.
    #[test]
    fn degenerate() {
        for watched_ns in [0, 1, 5, u64::MAX] {
            for born in [&[][..], &[0], &[0, 0, 0], &[0, u64::MAX]] {
                for ended_within_ns in [None, Some(0), Some(u64::MAX)] {
                    let growth = Lives { born_ns: born, watched_ns, ended_within_ns, risen: i64::MIN }.growth();
                    assert!(!growth.unbounded);
                }
            }
        }
    }
}
