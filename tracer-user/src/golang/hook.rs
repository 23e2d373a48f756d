//! The vocabulary of an attach plan: which events, at which instructions, and what could not be found.

use std::fmt;

use crate::{event::Transition, recording::contract::Tier};

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
    /// The world is about to be stopped: at the site AX is the reason.
    StopTheWorld,
    /// The world is about to be started again.
    StartTheWorld,
    /// A cycle of the garbage collector begins.
    GcCycle,
    /// A test is about to be started: at the site BX and CX are its name.
    TestRun,
    /// Any other change of state.
    Transition(Transition),
}

impl Hook {
    pub fn all() -> impl Iterator<Item = Self> {
        let lives = [Self::Birth, Self::Exit, Self::Park, Self::ParkAbort, Self::Wake];
        lives.into_iter().chain(Self::GC).chain([Self::TestRun]).chain(Transition::ALL.map(Self::Transition))
    }

    /// What the track of the garbage collector is made of: all of these, or there is none.
    pub const GC: [Self; 3] = [Self::StopTheWorld, Self::StartTheWorld, Self::GcCycle];

    pub fn name(self) -> &'static str {
        match self {
            Self::Birth => "birth",
            Self::Exit => "exit",
            Self::Park => "park",
            Self::ParkAbort => "park abort",
            Self::Wake => "wake",
            Self::Transition(transition) => transition.name(),
            Self::StopTheWorld => "stop the world",
            Self::StartTheWorld => "start the world",
            Self::GcCycle => "GC cycle",
            Self::TestRun => "test",
        }
    }

    /// The first tier that has it. Pauses, cycles and tests are so rare that they cost nothing worth a tier.
    pub fn tier(self) -> Tier {
        match self {
            Self::Birth | Self::Exit | Self::TestRun => Tier::T1,
            Self::StopTheWorld | Self::StartTheWorld | Self::GcCycle => Tier::T1,
            Self::Park | Self::ParkAbort | Self::Wake => Tier::T2,
            Self::Transition(_) => Tier::T3,
        }
    }

    /// Whether every Go program has a site for it. Coroutines are linked where they are used; which way leads back from a
    /// system call without a processor depends on the version; goroutines of C threads are rare.
    pub fn is_everywhere(self) -> bool {
        use Transition::{Preempt, Run, Syscall, SyscallExit, Yield};
        match self {
            Self::Birth | Self::Exit | Self::Park | Self::ParkAbort | Self::Wake => true,
            Self::StopTheWorld | Self::StartTheWorld | Self::GcCycle => true,
            Self::TestRun => false,
            Self::Transition(transition) => matches!(transition, Run | Yield | Preempt | Syscall | SyscallExit),
        }
    }

    /// Whether a tier is whole without it: what is known of goroutines does not depend on the track of the collector, nor on tests.
    pub fn is_optional(self) -> bool {
        self.is_of_gc() || self == Self::TestRun
    }

    /// Whether it is a part of [`Self::GC`].
    pub fn is_of_gc(self) -> bool {
        Self::GC.contains(&self)
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
    /// The function has begun its own frame at the site: RBP is no longer its caller's.
    pub framed: bool,
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
        let missing = Hook::all().filter(|hook| hook.is_everywhere());
        let missing = missing.map(|hook| MissingHook { hook, reason: reason.to_owned() }).collect();
        Self { sites: Vec::new(), missing }
    }

    /// Every hook that the tier needs was found, and nothing of them was left unexplained.
    pub fn complete(&self) -> bool {
        self.missing.iter().all(|missing| missing.hook.is_optional())
    }

    /// Why there will be no track of the garbage collector; `None` if there will be one.
    pub fn without_gc(&self) -> Option<&str> {
        self.missing.iter().find(|missing| missing.hook.is_of_gc()).map(|missing| missing.reason.as_str())
    }

    pub fn count(&self, hook: Hook) -> usize {
        self.sites.iter().filter(|site| site.hook == hook).count()
    }
}
