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
    /// Go's test framework is about to start a test.
    TestRun = 7,
    /// A birth that was not told when it happened (`--min-block`).
    GoroutineLateBirth = 8,
    /// A wait that is over, in place of a park and a wake (`--min-block`).
    GoroutineWait = 9,
    /// Return addresses of one stack, sent when it is first seen.
    Stack = 16,
    /// The first accepted hit of a process since its exec: ties the process to a binary and its load bias.
    ProcessImage = 32,
    ProcessFork = 33,
    ProcessExec = 34,
    ProcessExit = 35,
    /// A process that ran already is followed from here on; the structure is that of [`Self::ProcessExec`].
    ProcessMet = 36,
    /// A signal was sent, to or by a followed process.
    SignalSent = 37,
    /// A followed process takes a signal.
    SignalTaken = 38,
    /// A process that had exited was reaped: it is a zombie no more.
    ProcessReaped = 39,
    StopTheWorld = 40,
    StartTheWorld = 41,
    GcCycleStart = 42,
    /// A tick of the sampling clock that met a followed process.
    OnCpuSample = 43,
    /// The kernel chose a followed process to be killed, because memory ran out.
    OomVictim = 44,
    /// A followed process was moved to another cgroup.
    CgroupMoved = 45,
    ThreadBirth = 48,
    ThreadExit = 49,
    /// A thread leaves its CPU.
    ThreadOff = 50,
    /// A thread gets a CPU.
    ThreadOn = 51,
    /// A thread that waited is made runnable.
    ThreadWake = 52,
    /// A thread begins to wait in the kernel for something that has a name.
    ThreadWait = 53,
    /// A USDT probe that somebody asked for.
    UsdtHit = 56,
}

impl Kind {
    /// Every kind, in the order of the discriminants.
    pub const ALL: [Self; 31] = [
        Self::GoroutineBirth,
        Self::GoroutinePark,
        Self::GoroutineParkAbort,
        Self::GoroutineWake,
        Self::GoroutineExit,
        Self::GoroutineTransition,
        Self::TestRun,
        Self::GoroutineLateBirth,
        Self::GoroutineWait,
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
        Self::SignalSent,
        Self::SignalTaken,
        Self::ProcessReaped,
        Self::OomVictim,
        Self::CgroupMoved,
        Self::ThreadBirth,
        Self::ThreadExit,
        Self::ThreadOff,
        Self::ThreadOn,
        Self::ThreadWake,
        Self::ThreadWait,
        Self::UsdtHit,
    ];

    /// More than the largest discriminant: the size of a table indexed by kind.
    pub const LIMIT: u32 = 64;

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
            Self::TestRun => "test_run",
            Self::GoroutineLateBirth => "goroutine_late_birth",
            Self::GoroutineWait => "goroutine_wait",
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
            Self::SignalSent => "signal_sent",
            Self::SignalTaken => "signal_taken",
            Self::ProcessReaped => "process_reaped",
            Self::OomVictim => "oom_victim",
            Self::CgroupMoved => "cgroup_moved",
            Self::ThreadBirth => "thread_birth",
            Self::ThreadExit => "thread_exit",
            Self::ThreadOff => "thread_off",
            Self::ThreadOn => "thread_on",
            Self::ThreadWake => "thread_wake",
            Self::ThreadWait => "thread_wait",
            Self::UsdtHit => "usdt_hit",
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
