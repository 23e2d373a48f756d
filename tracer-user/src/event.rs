//! What happened: the typed form of a wire record. Everything after `decode` speaks of these.

use tracer_common::{goroutine::status, process::Cgroup, thread::COMM_MAX, usdt::MAX_ARGS};

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
    /// A birth that is told late: when something of the goroutine is told for the first time (`--min-block`).
    GoroutineLateBirth {
        goid: Goid,
        born_at: KtimeNs,
        parent: Option<Goid>,
        gopc: Address,
        startpc: Address,
        stack: Option<StackId>,
    },
    /// A wait that is over: a park and a wake in one (`--min-block`).
    GoroutineWait {
        goid: Goid,
        parked_at: KtimeNs,
        wait_reason: u8,
        lock: Option<Address>,
        stack: Option<StackId>,
        /// The thread that it parked on.
        park_tid: Tid,
        waker: Option<Goid>,
    },
    /// Any other change of state (T3).
    GoroutineTransition {
        goid: Goid,
        transition: Transition,
        /// Where it stopped running.
        stack: Option<StackId>,
    },
    Stack {
        id: StackId,
        /// Return addresses, innermost first, but for what `top` says.
        pcs: Vec<Address>,
        truncated: bool,
        top: Top,
        of: CodeOf,
    },
    ProcessImage {
        ip: Address,
    },
    ProcessFork(ProcessFork),
    ProcessExec(Box<Program>),
    /// It ran before it was followed.
    ProcessMet(Box<Program>),
    ProcessExit(ProcessExit),
    /// It is a zombie no more.
    ProcessReaped(ProcessReaped),
    SignalSent(SignalSent),
    /// A thread takes a signal.
    SignalTaken {
        signal: u32,
        /// `si_code`.
        code: i32,
        /// By a handler of its own; else the default action.
        handled: bool,
    },
    /// Memory ran out, and this process was chosen to be killed.
    OomVictim {
        victim: Tgid,
    },
    CgroupMoved {
        tgid: Tgid,
        tid: Tid,
        /// Kernfs id of the new one.
        cgroup: u64,
        /// 0: the unified one.
        hierarchy: u32,
    },
    /// The event's thread made another one.
    ThreadBirth {
        child: Tid,
        start_boottime_ns: u64,
    },
    ThreadExit {
        /// A wait status.
        exit_code: u32,
        /// Its process exits as a whole.
        with_process: bool,
        /// Its name by then; lossy UTF-8.
        name: ThreadName,
    },
    /// The event's thread leaves its CPU.
    ThreadOff(ThreadOff),
    /// The event's thread gets a CPU.
    ThreadOn,
    /// A thread that waited can run again.
    ThreadWake {
        tgid: Tgid,
        tid: Tid,
        waker: Waker,
    },
    /// The event's thread begins to wait for something that a kprobe sees.
    ThreadWait {
        on: WaitsOn,
        kernel_stack: Option<StackId>,
        user_stack: Option<StackId>,
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
    /// Go's test framework is about to start a test, in the next goroutine that `goid` makes there.
    TestRun {
        goid: Option<Goid>,
        /// What the test was called by who started it: without its parents' names. Lossy UTF-8; cut where `cut`.
        name: String,
        cut: bool,
    },
    /// The sampling clock met the process on a CPU.
    OnCpuSample {
        runner: Runner,
        stack: Option<StackId>,
        in_kernel: bool,
        /// What the sample stands for.
        period_ns: u32,
    },
    /// A USDT probe: which one, the site tells.
    UsdtHit {
        /// Those that could be fetched.
        args: Box<[Option<u64>; MAX_ARGS]>,
        /// The argument that is text, cut if it is long. Lossy UTF-8.
        text: Option<String>,
    },
}

/// A process made another one. The event's process is the one that called fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessFork {
    pub child: Tgid,
    pub child_start_boottime_ns: u64,
    /// Of the process that called fork.
    pub parent_start_boottime_ns: u64,
    /// The child's parent: the one that called, or with CLONE_PARENT that one's own.
    pub parent: Tgid,
    pub cgroup: Cgroup,
}

/// What a process runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    pub start_boottime_ns: u64,
    /// Lossy UTF-8; `args_truncated` if the argument area was longer than a record holds.
    pub args: Vec<String>,
    pub args_truncated: bool,
    /// The path that was executed, as the caller gave it; empty where nobody told.
    pub exe: String,
    /// The thread that executed it, by its number before.
    pub old_tid: Option<Tid>,
    pub cgroup: Cgroup,
}

/// The last thread of a process exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessExit {
    pub start_boottime_ns: u64,
    /// A wait status: `code << 8 | signal`, bit 7 for a core dump; `None` where nobody could read it.
    pub wait_status: Option<u32>,
    /// Its parent by then; `None` where nobody told.
    pub parent: Option<Tgid>,
    /// Its parent ignores its end: it is no zombie.
    pub autoreaped: bool,
}

/// A process that had exited was taken out of the kernel's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessReaped {
    pub tgid: Tgid,
    pub start_boottime_ns: u64,
    pub parent: Option<Tgid>,
    /// The event's task did it, at the event's time; else somebody did, somewhat earlier.
    pub reaper_known: bool,
}

/// A signal was sent. The event's task is the sender, unless `code` says that the kernel was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalSent {
    pub to: Tgid,
    pub to_tid: Tid,
    pub to_start_boottime_ns: u64,
    pub signal: u32,
    /// `si_code`.
    pub code: i32,
    /// `TRACE_SIGNAL_…`: 0 delivered, 1 ignored, 2 already pending, 3 and 4 lost.
    pub result: u32,
    /// To the whole process, or to one thread.
    pub group: bool,
}

/// A thread left its CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadOff {
    /// `task_struct.__state`: 0 runnable, 1 interruptible, 2 uninterruptible, 4 stopped, 8 traced, 16 and more dead.
    pub state: u32,
    /// It did not leave by itself.
    pub preempted: bool,
    pub syscall: Syscall,
    pub kernel_stack: Option<StackId>,
    pub user_stack: Option<StackId>,
}

/// The system call that a thread is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syscall {
    Unknown,
    /// It is in none: it faulted, or was interrupted.
    None,
    Known {
        number: u32,
        /// Its first two arguments.
        args: [u64; 2],
    },
}

/// Who made a thread runnable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Waker {
    Unknown,
    /// The event's task.
    Task,
    /// A timer, a device, another CPU.
    Interrupt,
}

/// What a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitsOn {
    Futex(Address),
    Epoll,
}

/// A thread's name: at most 15 bytes, NUL-padded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ThreadName(pub [u8; COMM_MAX]);

impl ThreadName {
    /// Of the first 15 bytes of a text.
    pub fn new(text: &str) -> Self {
        let mut name = [0; COMM_MAX];
        name[..COMM_MAX - 1].iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
        Self(name)
    }

    /// Lossy UTF-8.
    pub fn text(&self) -> String {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(COMM_MAX);
        String::from_utf8_lossy(&self.0[..end]).into_owned()
    }
}

/// On whose behalf a thread ran when it was sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Runner {
    Goroutine(Goid),
    /// No goroutine: the scheduler looked for one, or the thread is C's.
    Nobody,
    Unknown,
}

/// Whose code the addresses of a stack are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CodeOf {
    /// The probed binary's that its process runs.
    #[default]
    Binary,
    /// The event's process's, whatever it has mapped.
    Process,
    Kernel,
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

/// The changes of state that are no park, wake, birth or exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transition {
    /// A runnable goroutine begins to run.
    Run,
    /// It yields, or its time is up: it stops running and can run again at once.
    Yield,
    /// It is stopped on behalf of one that looks at its stack, which then makes it runnable.
    Preempt,
    /// It enters a system call.
    Syscall,
    /// It is back from a system call and runs on.
    SyscallExit,
    /// It is back from a system call, and its processor is taken: it has to wait for one.
    SyscallExitQueued,
    /// It hands its thread to a coroutine and waits to be switched to.
    CoroutineStop,
    /// It was waiting in a coroutine switch and runs on the thread of who switched to it.
    CoroutineRun,
    /// A C thread takes a goroutine to call into Go with, and is still in C.
    ThreadAttach,
    /// A C thread gives its goroutine back.
    ThreadDetach,
}

impl Transition {
    pub const ALL: [Self; 10] = [
        Self::Run,
        Self::Yield,
        Self::Preempt,
        Self::Syscall,
        Self::SyscallExit,
        Self::SyscallExitQueued,
        Self::CoroutineStop,
        Self::CoroutineRun,
        Self::ThreadAttach,
        Self::ThreadDetach,
    ];

    /// The states that it leads from and to, in Go's numbers: no two have both in common.
    pub fn states(self) -> (u8, u8) {
        match self {
            Self::Run => (status::RUNNABLE, status::RUNNING),
            Self::Yield => (status::RUNNING, status::RUNNABLE),
            Self::Preempt => (status::RUNNING, status::PREEMPTED),
            Self::Syscall => (status::RUNNING, status::SYSCALL),
            Self::SyscallExit => (status::SYSCALL, status::RUNNING),
            Self::SyscallExitQueued => (status::SYSCALL, status::RUNNABLE),
            Self::CoroutineStop => (status::RUNNING, status::WAITING),
            Self::CoroutineRun => (status::WAITING, status::RUNNING),
            Self::ThreadAttach => (status::DEAD, status::SYSCALL),
            Self::ThreadDetach => (status::SYSCALL, status::DEAD),
        }
    }

    /// The one that leads from one state to another.
    pub fn between(from: u8, to: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|transition| transition.states() == (from, to))
    }

    /// As `doctor` calls the place where it is seen.
    pub fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Yield => "yield",
            Self::Preempt => "preempt",
            Self::Syscall => "syscall",
            Self::SyscallExit => "syscall exit",
            Self::SyscallExitQueued => "queued after syscall",
            Self::CoroutineStop => "coroutine stop",
            Self::CoroutineRun => "coroutine run",
            Self::ThreadAttach => "thread attach",
            Self::ThreadDetach => "thread detach",
        }
    }
}
