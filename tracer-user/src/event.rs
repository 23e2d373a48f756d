//! What happened: the typed form of a wire record. Everything after `decode` speaks of these.

use crate::{
    clock::KtimeNs,
    id::{Address, BinaryId, Goid, SiteId, StackId, Tgid, Tid},
};

/// One event, with where and when it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub at: KtimeNs,
    pub cpu: u16,
    /// Per-CPU sequence number: a gap is a loss.
    pub seq: u64,
    pub tgid: Tgid,
    pub tid: Tid,
    /// The binary whose site was hit; `None` for tracepoints.
    pub binary: Option<BinaryId>,
    pub site: SiteId,
    pub what: What,
}

/// The kinds of event, one for each record kind of [`tracer_common`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    GoroutineBirth {
        goid: Goid,
        /// `None`: no goroutine executed the `go` statement (a timer did), or the Go version does not tell.
        parent: Option<Goid>,
        gopc: Address,
        startpc: Address,
        stack: Option<StackId>,
    },
    GoroutinePark {
        goid: Goid,
        /// Index into the Go version's table of wait reasons.
        wait_reason: u8,
        /// The `lock` argument of gopark; `None` for nil.
        lock: Option<Address>,
        stack: Option<StackId>,
    },
    GoroutineParkAbort {
        goid: Goid,
    },
    GoroutineWake {
        goid: Goid,
        /// `None`: the scheduler, netpoll, a timer or the GC; the site tells which.
        waker: Option<Goid>,
    },
    GoroutineExit {
        goid: Goid,
    },
    Stack {
        id: StackId,
        /// Return addresses, innermost first, but for what `top` says.
        pcs: Vec<Address>,
        truncated: bool,
        top: Top,
    },
    ProcessImage {
        ip: Address,
    },
    ProcessFork {
        child: Tgid,
        child_start_boottime_ns: u64,
        parent_start_boottime_ns: u64,
    },
    ProcessExec {
        start_boottime_ns: u64,
        /// Lossy UTF-8; `args_truncated` if the argument area was longer than a record holds.
        args: Vec<String>,
        args_truncated: bool,
    },
    ProcessExit {
        start_boottime_ns: u64,
        /// A wait status: `code << 8 | signal`, bit 7 for a core dump.
        wait_status: u32,
    },
    /// The world is about to be stopped.
    StopTheWorld {
        /// Who asked; `None`: no goroutine.
        goid: Option<Goid>,
        /// Index into the Go version's table of reasons.
        reason: u8,
    },
    /// The world is about to be started again.
    StartTheWorld {
        goid: Option<Goid>,
    },
    /// A cycle of the garbage collector begins.
    GcCycleStart {
        goid: Option<Goid>,
    },
    /// The sampling clock met the process on a CPU.
    OnCpuSample {
        runner: Runner,
        stack: Option<StackId>,
        in_kernel: bool,
        /// What the sample stands for.
        period_ns: u32,
    },
}

/// On whose behalf a thread ran when it was sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Runner {
    Goroutine(Goid),
    /// No goroutine: the scheduler looked for one, or the thread is C's.
    Nobody,
    Unknown,
}

/// What the first addresses of a stack are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Top {
    /// Return addresses like the others.
    Return,
    /// The first is that of an interrupted instruction.
    Instruction,
    /// So it is, and the second is the word on top of the stack: a return address where the instruction's function has no
    /// frame, else nothing.
    InstructionAndWord,
}
