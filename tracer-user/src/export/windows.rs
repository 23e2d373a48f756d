//! Sums over windows, scaled to the whole time, with their error bounds.
//!
//! Where a budget is kept, births are told while a program is followed at T1 or above, and waits while at T2 or above: in windows. What
//! was counted in a window is taken for a sample of all the time: the whole is the ratio of what was counted to the time in which it was,
//! times all the time (ratio estimator of survey sampling; W. G. Cochran, *Sampling Techniques*, 1977, chapter 6). The bounds hold for 95 of
//! 100 recordings if windows do not prefer busy times or idle ones. Long windows count as several, of a second each.

use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::{
    clock::KtimeNs,
    correlate::{
        Span, SpanState, SumOfMany,
        goroutine::{SiteKey, Who},
        process::ImageId,
    },
    recording::contract::Tier,
};

/// A longer window counts as several.
const SLICE_NS: u64 = 1_000_000_000;
/// Fewer windows have no error bounds.
const LEAST_WINDOWS: u64 = 3;

/// What is told from which tier on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    /// Births, from T1 on.
    Births,
    /// Waits and blocked time, from T2 on.
    Waits,
}

impl Of {
    fn needs(self) -> Tier {
        match self {
            Self::Births => Tier::T1,
            Self::Waits => Tier::T2,
        }
    }
}

/// A sum over all the time, as far as windows tell.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    pub value: f64,
    /// With 95 % the true one lies within `value ± error`; `null`: too few windows.
    pub error: Option<f64>,
}

/// Sums over windows of one quantity.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    y: f64,
    yy: f64,
    yw: f64,
}

/// The windows themselves.
#[derive(Clone, Copy, Debug, Default)]
struct Widths {
    count: u64,
    w: f64,
    ww: f64,
}

/// Births, waits and blocked time of one site.
type Counts = [f64; 3];
const OF: [Of; 3] = [Of::Births, Of::Waits, Of::Waits];

/// The windows of one kind of an image: what was counted in the open one, and in all that are closed.
#[derive(Debug)]
struct Kind {
    of: Of,
    open: Option<KtimeNs>,
    /// Some time was not covered.
    gap: bool,
    widths: Widths,
    now: FxHashMap<SiteKey, Counts>,
    closed: FxHashMap<SiteKey, [Sums; 3]>,
    whole: [Sums; 3],
}

impl Kind {
    fn new(of: Of) -> Self {
        Self {
            of,
            open: None,
            gap: false,
            widths: Widths::default(),
            now: FxHashMap::default(),
            closed: FxHashMap::default(),
            whole: Default::default(),
        }
    }

    fn cover(&mut self, tier: Tier, at: KtimeNs) {
        let covers = tier >= self.of.needs();
        self.gap |= !covers;
        if self.open.is_some() != covers {
            self.close(at);
            self.open = covers.then_some(at);
        }
    }

    /// Time has come to `at`: a window that is long enough is over, and the next one begins.
    fn tick(&mut self, at: KtimeNs) {
        if self.open.is_some_and(|since| at.since(since) >= SLICE_NS) {
            self.close(at);
            self.open = Some(at);
        }
    }

    fn close(&mut self, at: KtimeNs) {
        let Some(since) = self.open.take() else { return };
        let width = at.since(since) as f64;
        self.widths.add(width);
        let mut whole = Counts::default();
        for (site, counts) in self.now.drain() {
            let sums = self.closed.entry(site).or_default();
            for ((sums, whole), count) in sums.iter_mut().zip(&mut whole).zip(counts) {
                sums.add(count, width);
                *whole += count;
            }
        }
        self.whole.iter_mut().zip(whole).for_each(|(sums, count)| sums.add(count, width));
    }

    /// The sums of one quantity, of all sites or one, and the windows: the one that is open until then, too.
    fn with_open(&self, quantity: usize, site: Option<&SiteKey>, until: KtimeNs) -> (Sums, Widths) {
        let mut sums = match site {
            Some(site) => self.closed.get(site).map_or_else(Sums::default, |sums| sums[quantity]),
            None => self.whole[quantity],
        };
        let mut widths = self.widths;
        if let Some(width) = self.open.map(|since| until.since(since) as f64).filter(|width| *width > 0.0) {
            let count = match site {
                Some(site) => self.now.get(site).map_or(0.0, |counts| counts[quantity]),
                None => self.now.values().map(|counts| counts[quantity]).sum(),
            };
            sums.add(count, width);
            widths.add(width);
        }
        (sums, widths)
    }

    fn count(&mut self, site: SiteKey, quantity: usize, amount: f64) {
        if self.open.is_some() {
            self.now.entry(site).or_default()[quantity] += amount;
        }
    }
}

impl Widths {
    fn add(&mut self, width: f64) {
        self.count += 1;
        self.w += width;
        self.ww += width * width;
    }
}

impl Sums {
    fn add(&mut self, y: f64, width: f64) {
        self.y += y;
        self.yy += y * y;
        self.yw += y * width;
    }

    /// Scaled to so much time. `None`: there was no window.
    fn scaled(&self, Widths { count, w, ww }: Widths, time_ns: f64) -> Option<Estimate> {
        if w <= 0.0 {
            return None;
        }
        let ratio = self.y / w;
        let n = count as f64;
        let error = (count >= LEAST_WINDOWS).then(|| {
            let residuals = (self.yy - 2.0 * ratio * self.yw + ratio * ratio * ww).max(0.0);
            let unseen = (1.0 - w / time_ns).max(0.0);
            student(count - 1) * time_ns * (unseen * residuals / (n - 1.0) / n).sqrt() / (w / n)
        });
        Some(Estimate { value: ratio * time_ns, error })
    }
}

/// How many standard errors hold 95 %: quantiles of Student's distribution.
fn student(degrees: u64) -> f64 {
    const FEW: [f64; 10] = [12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23];
    let index = usize::try_from(degrees).unwrap_or(usize::MAX).saturating_sub(1);
    FEW.get(index).copied().unwrap_or(1.96 + 2.5 / degrees as f64)
}

/// Births, waits and blocked time over all the time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Scaled {
    pub born: Option<Estimate>,
    pub waits: Option<Estimate>,
    pub blocked_ns: Option<Estimate>,
}

impl Estimate {
    /// Of two that know nothing of each other.
    fn and(self, other: Self) -> Self {
        let error = self.error.zip(other.error).map(|(one, other)| one.hypot(other));
        Self { value: self.value + other.value, error }
    }
}

impl Scaled {
    /// Of two that know nothing of each other.
    pub fn sum(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        let (Some(one), Some(other)) = (one, other) else { return one.or(other) };
        let both = |one: Option<Estimate>, other: Option<Estimate>| Some(one?.and(other?));
        Some(Self {
            born: both(one.born, other.born),
            waits: both(one.waits, other.waits),
            blocked_ns: both(one.blocked_ns, other.blocked_ns),
        })
    }
}

/// The windows of all images of which some time was not covered.
#[derive(Debug, Default)]
pub struct Windows(FxHashMap<ImageId, Image>);

#[derive(Debug)]
struct Image {
    since: KtimeNs,
    births: Kind,
    waits: Kind,
}

impl Windows {
    /// From here on an image is followed at a tier.
    pub fn cover(&mut self, image: ImageId, tier: Tier, at: KtimeNs) {
        let fresh = || Image { since: at, births: Kind::new(Of::Births), waits: Kind::new(Of::Waits) };
        let image = self.0.entry(image).or_insert_with(fresh);
        image.births.cover(tier, at);
        image.waits.cover(tier, at);
    }

    pub fn born(&mut self, who: &Who) {
        if let Some(image) = self.0.get_mut(&who.image) {
            image.births.tick(who.since);
            image.births.count(SiteKey::of(who), 0, 1.0);
        }
    }

    pub fn span(&mut self, who: &Who, span: &Span) {
        if let Some(image) = self.0.get_mut(&who.image) {
            if span.state == SpanState::Blocked {
                // One that is cut off by the end of a window is not over: each counts where it ends.
                image.waits.count(SiteKey::of(who), 1, f64::from(u8::from(span.woken_by.is_some())));
                image.waits.count(SiteKey::of(who), 2, span.end.since(span.start) as f64);
            }
            image.waits.tick(span.end);
        }
    }

    /// Short waits and lives, which count when they were summed.
    pub fn summed(&mut self, sum: &SumOfMany<'_>) {
        let Some(image) = self.0.get_mut(&sum.site.image) else { return };
        if sum.lives {
            image.births.tick(sum.at);
            image.births.count(sum.site, 0, sum.count as f64);
        } else {
            image.waits.count(sum.site, 1, sum.count as f64);
            image.waits.count(sum.site, 2, sum.total_ns as f64);
            image.waits.tick(sum.at);
        }
    }

    /// What is known of an image from its beginning, as far as that was told, to `until`; `site`: of these alone. `None`: nothing needs to be
    /// scaled.
    pub fn scaled(&self, image: ImageId, site: Option<&SiteKey>, until: KtimeNs) -> Option<Scaled> {
        let image = self.0.get(&image)?;
        let time_ns = until.since(image.since) as f64;
        let of = |quantity: usize| {
            let kind = if OF[quantity] == Of::Births { &image.births } else { &image.waits };
            let (sums, widths) = kind.with_open(quantity, site, until);
            sums.scaled(widths, time_ns)
        };
        // Of what has no gap the sum itself is known, and what has no window is not known at all.
        let told = |kind: &Kind, quantity: usize| if kind.gap { of(quantity) } else { None };
        let scaled = Scaled { born: told(&image.births, 0), waits: told(&image.waits, 1), blocked_ns: told(&image.waits, 2) };
        (scaled.born.is_some() || scaled.waits.is_some()).then_some(scaled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Goid;

    const S: u64 = 1_000_000_000;

    fn who(at: u64) -> Who {
        Who {
            image: ImageId(0),
            goid: Goid(at),
            born_at: Some(KtimeNs(at)),
            born_by: None,
            origin: None,
            origin_by_look: false,
            unseen: false,
            since: KtimeNs(at),
            depth: 0,
            slot: 0,
        }
    }

    /// Births in windows of a second out of ten, `rate` of them in the second that begins at `s`.
    fn recorded(seconds: u64, rate: impl Fn(u64) -> u64) -> Scaled {
        let mut windows = Windows::default();
        windows.cover(ImageId(0), Tier::T0, KtimeNs(0));
        for s in (3..seconds).step_by(10) {
            windows.cover(ImageId(0), Tier::T1, KtimeNs(s * S));
            let count = rate(s);
            (0..count).for_each(|n| windows.born(&who(s * S + n * S / count)));
            windows.cover(ImageId(0), Tier::T0, KtimeNs((s + 1) * S));
        }
        windows.scaled(ImageId(0), None, KtimeNs(seconds * S)).unwrap()
    }

    /// Check that an even rate is scaled exactly, that a single window has no bounds, and that what has no windows is not made up.
    #[test]
    fn even() {
        let scaled = recorded(100, |_| 50);
        assert_eq!(scaled.born, Some(Estimate { value: 5000.0, error: Some(0.0) }));
        assert_eq!((scaled.waits, scaled.blocked_ns), (None, None));
        let born = recorded(10, |_| 50).born.unwrap();
        assert_eq!((born.value, born.error), (500.0, None));
        let mut whole = Windows::default();
        whole.cover(ImageId(0), Tier::T1, KtimeNs(0));
        whole.born(&who(S));
        assert_eq!(whole.scaled(ImageId(0), None, KtimeNs(9 * S)), None, "nothing was left out");
    }

    /// Check that a long window counts as several, so that it has bounds.
    #[test]
    fn long() {
        let mut windows = Windows::default();
        windows.cover(ImageId(0), Tier::T1, KtimeNs(0));
        (0..1000).for_each(|n| windows.born(&who(n * S / 100)));
        windows.cover(ImageId(0), Tier::T0, KtimeNs(10 * S));
        let born = windows.scaled(ImageId(0), None, KtimeNs(20 * S)).unwrap().born.unwrap();
        assert!((1990.0..2010.0).contains(&born.value), "{born:?}");
        assert!(born.error.is_some_and(|error| error < 40.0), "{born:?}");
    }

    /// Check that time in which nothing happened counts, to the end.
    #[test]
    fn quiet_end() {
        let mut windows = Windows::default();
        windows.cover(ImageId(0), Tier::T0, KtimeNs(0));
        windows.cover(ImageId(0), Tier::T1, KtimeNs(S));
        (0..1000).for_each(|n| windows.born(&who(S + n * S / 100)));
        let born = windows.scaled(ImageId(0), None, KtimeNs(3600 * S)).unwrap().born.unwrap();
        assert!((1000.0..1001.0).contains(&born.value), "{born:?}");
    }

    /// Check that the truth lies within the bounds as often as they say, where each second brings what it likes.
    #[test]
    fn bounds() {
        let seeds = 200;
        let mut beyond = 0;
        for seed in 0..seeds {
            let rate = |s: u64| {
                let mut mixed = (s << 32 | seed).wrapping_add(0x9e37_79b9_7f4a_7c15);
                mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
                20 + (mixed ^ mixed >> 31) % 200
            };
            let truth = (0..400).map(rate).sum::<u64>() as f64;
            let born = recorded(400, rate).born.unwrap();
            let error = born.error.unwrap();
            assert!(error < 0.3 * truth, "{born:?} of {truth}");
            beyond += u64::from((born.value - truth).abs() > error);
        }
        // Five of a hundred are to be expected.
        assert!((2..=20).contains(&beyond), "{beyond} of {seeds}");
    }
}
