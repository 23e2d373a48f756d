//! What every record begins with.

use crate::assert_size;

/// The kinds of record on the wire. Discriminants are part of the recording format: they are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    GoroutineBirth = 1,
    GoroutinePark = 2,
    /// A park that did not happen: the runtime's unlock function said no, and the goroutine runs on.
    GoroutineParkAbort = 3,
    GoroutineWake = 4,
    GoroutineExit = 5,
    /// Any other change of a goroutine's state.
    GoroutineTransition = 6,
    /// Return addresses of one stack, sent when it is first seen.
    Stack = 16,
    /// The first accepted hit of a process since its exec: ties the process to a binary and its load bias.
    ProcessImage = 32,
    ProcessFork = 33,
    ProcessExec = 34,
    ProcessExit = 35,
    /// A process that ran already is followed from here on; the structure is that of [`Self::ProcessExec`].
    ProcessMet = 36,
    StopTheWorld = 40,
    StartTheWorld = 41,
    GcCycleStart = 42,
    /// A tick of the sampling clock that met a followed process.
    OnCpuSample = 43,
}

impl Kind {
    /// Every kind, in the order of the discriminants.
    pub const ALL: [Self; 16] = [
        Self::GoroutineBirth,
        Self::GoroutinePark,
        Self::GoroutineParkAbort,
        Self::GoroutineWake,
        Self::GoroutineExit,
        Self::GoroutineTransition,
        Self::Stack,
        Self::ProcessImage,
        Self::ProcessFork,
        Self::ProcessExec,
        Self::ProcessExit,
        Self::ProcessMet,
        Self::StopTheWorld,
        Self::StartTheWorld,
        Self::GcCycleStart,
        Self::OnCpuSample,
    ];

    /// One more than the largest discriminant: the size of a table indexed by kind.
    pub const LIMIT: u32 = 44;

    pub fn from_u8(value: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == value)
    }

    /// The name used in outputs (`lost.by_kind`).
    pub fn name(self) -> &'static str {
        match self {
            Self::GoroutineBirth => "goroutine_birth",
            Self::GoroutinePark => "goroutine_park",
            Self::GoroutineParkAbort => "goroutine_park_abort",
            Self::GoroutineWake => "goroutine_wake",
            Self::GoroutineExit => "goroutine_exit",
            Self::GoroutineTransition => "goroutine_transition",
            Self::Stack => "stack",
            Self::ProcessImage => "process_image",
            Self::ProcessFork => "process_fork",
            Self::ProcessExec => "process_exec",
            Self::ProcessExit => "process_exit",
            Self::ProcessMet => "process_met",
            Self::StopTheWorld => "stop_the_world",
            Self::StartTheWorld => "start_the_world",
            Self::GcCycleStart => "gc_cycle_start",
            Self::OnCpuSample => "on_cpu_sample",
        }
    }
}

/// The first 32 bytes of every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct Header {
    /// `bpf_ktime_get_ns`: CLOCK_MONOTONIC, taken after `seq`.
    pub ktime_ns: u64,
    /// Counts the records this CPU tried to send, lost ones included, from 0: a gap is a loss.
    pub seq: u64,
    /// Thread group of the task that hit the probe, in the initial pid namespace.
    pub tgid: u32,
    /// Thread that hit the probe, in the initial pid namespace.
    pub tid: u32,
    pub cpu: u16,
    /// The binary whose attachment was hit ([`crate::config::Cookie`]); 0 where no uprobe was involved.
    pub binary: u16,
    /// The site within the binary's plan that was hit; 0 where no uprobe was involved.
    pub site: u16,
    /// A [`Kind`].
    pub kind: u8,
    pub _pad: u8,
}
assert_size!(Header, 32);
