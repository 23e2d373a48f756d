//! Goroutine records: birth, park, wake, exit, and every other change of state (T3).

use crate::{assert_size, header::Header};

/// A goroutine was made (`runtime.newproc1` returned it) and is about to be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct GoroutineBirth {
    pub header: Header,
    pub goid: u64,
    /// `g.parentGoid` (Go 1.21+): the goroutine that executed the `go` statement; 0 where there was none or it is unknown.
    pub parent_goid: u64,
    /// `g.gopc`: return address of the `go` statement.
    pub gopc: u64,
    /// `g.startpc`: entry of the start function.
    pub startpc: u64,
    /// The creator's stack; 0 where it could not be walked.
    pub stack_id: u64,
}
assert_size!(GoroutineBirth, 72);

/// A goroutine calls `runtime.gopark`. Sent before it has stopped; [`GoroutineParkAbort`] takes it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct GoroutinePark {
    pub header: Header,
    pub goid: u64,
    /// The blocking stack; 0 where it could not be walked.
    pub stack_id: u64,
    /// The `lock` argument of gopark: the channel's lock, a condition's, …; of those that wait for a semaphore the semaphore itself, if the
    /// layout says where it is, else the lock of the root that it hangs on. 0 for none.
    pub lock: u64,
    /// The `reason` argument of gopark: an index into the Go version's own table of wait reasons.
    pub wait_reason: u8,
    pub _pad: [u8; 7],
}
assert_size!(GoroutinePark, 64);

/// A goroutine that was about to park does not: `park_m` puts it back to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct GoroutineParkAbort {
    pub header: Header,
    pub goid: u64,
}
assert_size!(GoroutineParkAbort, 40);

/// A waiting goroutine becomes runnable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct GoroutineWake {
    pub header: Header,
    pub goid: u64,
    /// The goroutine on whose behalf the waking thread ran (`g.m.curg`); 0 for none (scheduler, netpoll, timer, GC).
    pub waker_goid: u64,
}
assert_size!(GoroutineWake, 48);

/// A goroutine has ended; its g structure will be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct GoroutineExit {
    pub header: Header,
    pub goid: u64,
}
assert_size!(GoroutineExit, 40);

/// What [`GoroutineBirth`] says, told when something of the goroutine is to be told for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct GoroutineLateBirth {
    pub header: Header,
    pub goid: u64,
    /// When it was made, by the clock of the header.
    pub born_at: u64,
    pub parent_goid: u64,
    pub gopc: u64,
    pub startpc: u64,
    pub stack_id: u64,
}
assert_size!(GoroutineLateBirth, 80);

/// A goroutine that waited becomes runnable: [`GoroutinePark`] and [`GoroutineWake`] in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct GoroutineWait {
    pub header: Header,
    pub goid: u64,
    pub waker_goid: u64,
    /// When it parked, by the clock of the header.
    pub parked_at: u64,
    pub stack_id: u64,
    pub lock: u64,
    /// The thread that it parked on.
    pub park_tid: u32,
    pub wait_reason: u8,
    pub _pad: [u8; 3],
}
assert_size!(GoroutineWait, 80);

/// Goroutine states, in Go's own numbers (`runtime/runtime2.go`), which are the same in every version that is probed.
pub mod status {
    pub const RUNNABLE: u8 = 1;
    pub const RUNNING: u8 = 2;
    pub const SYSCALL: u8 = 3;
    pub const WAITING: u8 = 4;
    /// No goroutine, or one that belongs to a C thread that is not in Go.
    pub const DEAD: u8 = 6;
    /// Stopped on behalf of one that looks at its stack.
    pub const PREEMPTED: u8 = 9;
}

/// A goroutine's state changes otherwise than by the records above (T3): it begins to run, yields, is preempted, enters or
/// leaves a system call, hands its thread to a coroutine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct GoroutineTransition {
    pub header: Header,
    pub goid: u64,
    /// Where it stopped running; 0 where it does not stop, or the stack could not be walked.
    pub stack_id: u64,
    /// One of [`status`], as is `to`.
    pub from: u8,
    pub to: u8,
    pub _pad: [u8; 6],
}
assert_size!(GoroutineTransition, 56);
