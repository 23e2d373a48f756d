//! Identities. A bare integer never crosses a module's border: each of these says what it numbers.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($repr:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $repr);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// Thread group id (what the shell calls a pid), in the initial pid namespace. Reused by the kernel.
    Tgid(u32)
);
number!(
    /// Thread id, in the initial pid namespace.
    Tid(u32)
);
number!(
    /// Goroutine id (`g.goid`): never reused within a process.
    Goid(u64)
);
number!(
    /// A file as it was attached in one session; 1 is the first.
    BinaryId(u16)
);
number!(
    /// An index into a binary's attach plan.
    SiteId(u16)
);
number!(
    /// A stack of return addresses ([`tracer_common::stack`]).
    StackId(u64)
);
number!(
    /// A runtime or program address in a process, load bias included.
    Address(u64)
);

/// A process that cannot be mistaken for another one with the same tgid.
///
/// `start_ticks` is `start_boottime` in USER_HZ (100 a second), the unit of field 22 of `/proc/PID/stat`, so that BPF and
/// /proc name a process alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessKey {
    pub tgid: Tgid,
    pub start_ticks: u64,
}

impl ProcessKey {
    /// From `task_struct.start_boottime` in nanoseconds.
    pub fn from_boottime(tgid: Tgid, start_boottime_ns: u64) -> Self {
        Self { tgid, start_ticks: start_boottime_ns / NS_PER_TICK }
    }
}

/// Nanoseconds in one USER_HZ tick (`include/asm-generic/param.h`: USER_HZ is 100 for every architecture we know).
const NS_PER_TICK: u64 = 10_000_000;
