//! The vocabulary of an attach plan: which events, at which instructions, and what could not be found.

use std::fmt;

use crate::recording::contract::Tier;

/// An event of a goroutine's life that a probe can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// A new goroutine is complete (goid, creator and start are set) and about to become runnable.
    Birth,
    /// A goroutine is about to become dead.
    Exit,
    /// A goroutine enters `runtime.gopark`: at the site AX is the unlock function, BX its lock, CX the wait reason; or it leaves a
    /// copy of it, where these are stored.
    Park,
    /// The unlock function refused: the goroutine that parked goes on.
    ParkAbort,
    /// A waiting goroutine becomes runnable.
    Wake,
}

impl Hook {
    pub const ALL: [Self; 5] = [Self::Birth, Self::Exit, Self::Park, Self::ParkAbort, Self::Wake];

    pub fn name(self) -> &'static str {
        match self {
            Self::Birth => "birth",
            Self::Exit => "exit",
            Self::Park => "park",
            Self::ParkAbort => "park abort",
            Self::Wake => "wake",
        }
    }

    /// The first tier that needs it.
    pub fn tier(self) -> Tier {
        match self {
            Self::Birth | Self::Exit => Tier::T1,
            Self::Park | Self::ParkAbort | Self::Wake => Tier::T2,
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One instruction to probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookSite {
    pub hook: Hook,
    /// Runtime function it is in.
    pub function: String,
    /// Link-time address.
    pub address: u64,
    pub file_offset: u64,
    /// As a person reads it.
    pub instruction: String,
    /// The kernel emulates the instruction (cheap) instead of single-stepping it (some 20 times dearer).
    pub emulated: bool,
    /// x86 number of the register that holds the `*g` the event is about: 0 rax, 1 rcx, 2 rdx, 3 rbx, … 14 r14.
    pub register: u8,
    /// The event happened only if ZF has this value at the site (a jump behind a compare-and-swap); `None`: always.
    pub needs_zf: Option<bool>,
    /// What the event is about is no more in registers: at a park, the reason is in `g.waitreason` and the lock in `m.waitlock`.
    pub stored: bool,
    /// How it was found, where that is worth knowing.
    pub note: String,
}

/// A hook without a site, or with one that could not be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingHook {
    pub hook: Hook,
    pub reason: String,
}

/// What to attach for a tier, by address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub sites: Vec<HookSite>,
    pub missing: Vec<MissingHook>,
}

impl Plan {
    /// A plan without a single site, for one reason.
    pub(super) fn nothing(reason: &str) -> Self {
        let missing = Hook::ALL.map(|hook| MissingHook { hook, reason: reason.to_owned() });
        Self { sites: Vec::new(), missing: missing.into() }
    }

    /// Every hook of the tier was found, and nothing was left unexplained.
    pub fn complete(&self) -> bool {
        self.missing.is_empty()
    }

    pub fn count(&self, hook: Hook) -> usize {
        self.sites.iter().filter(|site| site.hook == hook).count()
    }
}
