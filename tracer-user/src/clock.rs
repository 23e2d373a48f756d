//! Time: the one place where clocks are read.

use std::{
    ops::{Add, Sub},
    time::{SystemTime, UNIX_EPOCH},
};

#[cfg(feature = "live")]
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Nanoseconds of CLOCK_MONOTONIC, as `bpf_ktime_get_ns` gives them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KtimeNs(pub u64);

impl KtimeNs {
    pub const MAX: Self = Self(u64::MAX);

    /// Nanoseconds from `earlier` to here; 0 if `earlier` is later (records of two CPUs may be that close).
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<u64> for KtimeNs {
    type Output = Self;
    fn add(self, ns: u64) -> Self {
        Self(self.0.saturating_add(ns))
    }
}

impl Sub<u64> for KtimeNs {
    type Output = Self;
    fn sub(self, ns: u64) -> Self {
        Self(self.0.saturating_sub(ns))
    }
}

/// Nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WallTime(pub u64);

/// One instant read on both clocks: what ties ktime to the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockTie {
    pub ktime_ns: KtimeNs,
    pub wall_ns: WallTime,
    /// Half of the time between the two reads of ktime around the read of wall time: the tie is that exact.
    pub error_ns: u64,
}

impl ClockTie {
    /// How much further wall time went than ktime from this tie to a later one: clocks that are set or slewed show here.
    pub fn drift_ns(&self, later: &Self) -> i64 {
        let wall = i128::from(later.wall_ns.0) - i128::from(self.wall_ns.0);
        let ktime = i128::from(later.ktime_ns.0) - i128::from(self.ktime_ns.0);
        i64::try_from(wall - ktime).unwrap_or(if wall > ktime { i64::MAX } else { i64::MIN })
    }

    /// Both clocks now.
    #[cfg(feature = "live")]
    pub fn now() -> Self {
        let (ktime_ns, wall_ns, error_ns) = beside_ktime(wall_now);
        Self { ktime_ns, wall_ns, error_ns }
    }
}

/// Reads another clock between two reads of ktime and keeps the closest of eight tries: ktime, the other's time, and half of the time between
/// the two reads.
#[cfg(feature = "live")]
fn beside_ktime<T>(other: impl Fn() -> T) -> (KtimeNs, T, u64) {
    let tries = (0..8).map(|_| {
        let before = ktime_now();
        let there = other();
        let error_ns = ktime_now().since(before).div_ceil(2);
        (KtimeNs(before.0 + error_ns), there, error_ns)
    });
    tries.min_by_key(|(_, _, error_ns)| *error_ns).expect("eight tries")
}

/// How long the machine has slept since it was booted: ktime stands still meanwhile, and CLOCK_BOOTTIME does not.
#[cfg(feature = "live")]
pub fn slept_ns() -> u64 {
    let (ktime, boot_ns, _) = beside_ktime(|| clock_ns(ClockId::CLOCK_BOOTTIME));
    boot_ns.saturating_sub(ktime.0)
}

/// CLOCK_MONOTONIC now, the clock of the BPF programs.
#[cfg(feature = "live")]
pub fn ktime_now() -> KtimeNs {
    KtimeNs(clock_ns(ClockId::CLOCK_MONOTONIC))
}

/// CPU time of the calling thread, ns.
#[cfg(feature = "live")]
pub fn thread_cpu_ns() -> u64 {
    clock_ns(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

#[cfg(feature = "live")]
fn clock_ns(clock: ClockId) -> u64 {
    let now = clock_gettime(clock).expect("every kernel has this clock");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

pub fn wall_now() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime(since.as_nanos() as u64)
}
