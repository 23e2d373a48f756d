//! Thread records: born, off its CPU and why, woken by whom, on a CPU again, ended.

use crate::{assert_size, header::Header};

/// Room for a thread's name (`TASK_COMM_LEN`), NUL-padded.
pub const COMM_MAX: usize = 16;

/// A followed process made a thread. `header` is that of the thread which did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct ThreadBirth {
    pub header: Header,
    pub start_boottime_ns: u64,
    pub child_tid: u32,
    pub _pad: u32,
}
assert_size!(ThreadBirth, 48);

/// A thread of a followed process exited; of the last one a [`crate::process::ProcessExit`] tells too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct ThreadExit {
    pub header: Header,
    /// `task_struct.exit_code`: a wait status.
    pub exit_code: u32,
    /// [`WITH_PROCESS`].
    pub flags: u32,
    /// Its name by then.
    pub comm: [u8; COMM_MAX],
}
assert_size!(ThreadExit, 56);

/// In [`ThreadExit::flags`]: its process exits as a whole, by `exit_group` or by a signal (`SIGNAL_GROUP_EXIT`).
pub const WITH_PROCESS: u32 = 1;

/// A thread of a followed process leaves its CPU (`sched:sched_switch`). `header` is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct ThreadOff {
    pub header: Header,
    /// Where in the kernel it is; 0 for not known, or not asked for.
    pub kernel_stack_id: u64,
    /// Where user code entered the kernel; the same.
    pub user_stack_id: u64,
    /// `task_struct.__state` as the tracepoint gives it: 0 runnable, 1 interruptible, 2 uninterruptible, 4 stopped, 8 traced, 16 and more dead.
    pub state: u32,
    /// [`PREEMPTED`].
    pub flags: u32,
    /// The number of the system call it is in; [`NO_SYSCALL`] for none (a fault), [`UNKNOWN_SYSCALL`] where nobody can tell.
    pub syscall: i32,
    pub _pad: u32,
    /// The first two arguments of that system call: a futex's address and operation, the descriptor of an epoll.
    pub args: [u64; 2],
}
assert_size!(ThreadOff, 80);

/// It did not leave by itself.
pub const PREEMPTED: u32 = 1;

pub const NO_SYSCALL: i32 = -1;
pub const UNKNOWN_SYSCALL: i32 = -2;

/// A thread of a followed process gets a CPU. `header` is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct ThreadOn {
    pub header: Header,
}
assert_size!(ThreadOn, 32);

/// A thread of a followed process is made runnable (`sched:sched_waking`). `header` is that of the task that ran then: the waker,
/// unless an interrupt did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct ThreadWake {
    pub header: Header,
    pub woken_tgid: u32,
    pub woken_tid: u32,
    /// One of `WAKER_…`.
    pub waker: u32,
    pub _pad: u32,
}
assert_size!(ThreadWake, 48);

/// Whether a task or an interrupt woke is not known.
pub const WAKER_UNKNOWN: u32 = 0;
/// The task of the header.
pub const WAKER_TASK: u32 = 1;
/// An interrupt: a timer, a device, another CPU.
pub const WAKER_INTERRUPT: u32 = 2;

/// A thread of a followed process begins to wait for something that a kprobe sees. `header` is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct ThreadWait {
    pub header: Header,
    pub kernel_stack_id: u64,
    pub user_stack_id: u64,
    /// The futex's address, or 0.
    pub object: u64,
    /// One of `WAIT_…`.
    pub what: u32,
    pub _pad: u32,
}
assert_size!(ThreadWait, 64);

pub const WAIT_FUTEX: u32 = 1;
pub const WAIT_EPOLL: u32 = 2;
