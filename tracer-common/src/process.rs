//! Process records: which binary a process runs; fork, exec, exit, reaping; signals; its cgroup.

use crate::{assert_size, header::Header};

/// The first accepted hit of a process since its exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct ProcessImage {
    pub header: Header,
    /// Instruction pointer at `header.site`: minus the site's link address it is the load bias.
    pub ip: u64,
}
assert_size!(ProcessImage, 40);

/// A followed process forked. `header` is the parent's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct ProcessFork {
    pub header: Header,
    /// `task_struct.start_boottime` of the child, ns of CLOCK_BOOTTIME.
    pub child_start_boottime_ns: u64,
    /// The same of the parent.
    pub parent_start_boottime_ns: u64,
    pub child_tgid: u32,
    /// The child's parent: the forking process, or with CLONE_PARENT that one's own (`task_struct.real_parent`).
    pub parent_tgid: u32,
    pub cgroup: Cgroup,
}
assert_size!(ProcessFork, 72);

/// Where a task is accounted: kernfs ids, which are the inode numbers of the cgroups' directories. 0 for not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct Cgroup {
    /// In the unified hierarchy (v2).
    pub unified: u64,
    /// In the hierarchy of the memory controller; the same as `unified` where that is v2's.
    pub memory: u64,
}
assert_size!(Cgroup, 16);

/// Room for argv; of a longer one the first `ARGS_MAX - 1` bytes are kept. A power of two: the BPF side bounds it by a mask.
pub const ARGS_MAX: usize = 1024;

/// Room for the path of an executed file.
pub const EXE_MAX: usize = 256;

/// A followed process executed a new program; or ([`crate::header::Kind::ProcessMet`]) one that ran already is followed from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct ProcessExec {
    pub header: Header,
    pub start_boottime_ns: u64,
    /// Length of the whole argument area, in bytes; more than `args_copied` means that `args` is cut.
    pub args_len: u32,
    /// Valid bytes of `args`.
    pub args_copied: u32,
    pub cgroup: Cgroup,
    /// The thread that executed it, by its number before: an exec gives it that of the leader. 0 for not known.
    pub old_tid: u32,
    /// Valid bytes of `exe`.
    pub exe_copied: u32,
    /// The path that was executed, as the caller gave it (`linux_binprm.filename`); a script's own for a script.
    pub exe: [u8; EXE_MAX],
    /// NUL-separated arguments.
    pub args: [u8; ARGS_MAX],
}
assert_size!(ProcessExec, 72 + EXE_MAX + ARGS_MAX);

/// The last thread of a followed process exited: it is a zombie from here on, until it is reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct ProcessExit {
    pub header: Header,
    pub start_boottime_ns: u64,
    /// What its parent gets from wait(2) (`code << 8 | signal`, bit 7 for a core dump): that of the whole group where it was ended
    /// as one, else the leader's, whichever thread was the last.
    pub wait_status: u32,
    /// Its parent by now (`task_struct.real_parent`): another than at its birth if it was adopted.
    pub parent_tgid: u32,
    /// [`AUTOREAPED`], [`STATUS_UNKNOWN`].
    pub flags: u32,
    pub _pad: u32,
}
assert_size!(ProcessExit, 56);

/// Nobody waits for it: its parent ignores SIGCHLD, or set SA_NOCLDWAIT.
pub const AUTOREAPED: u32 = 1;
/// Nobody could read the wait status.
pub const STATUS_UNKNOWN: u32 = 2;

/// A process that had exited was taken out of the kernel's tables. `header` is that of the task which did it; where only the end of
/// its memory is seen ([`REAPER_KNOWN`] is not set), that of a bystander, some time later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct ProcessReaped {
    pub header: Header,
    pub start_boottime_ns: u64,
    pub reaped_tgid: u32,
    /// Its parent by then.
    pub parent_tgid: u32,
    /// [`REAPER_KNOWN`].
    pub flags: u32,
    pub _pad: u32,
}
assert_size!(ProcessReaped, 56);

/// The record was made in the task that reaped.
pub const REAPER_KNOWN: u32 = 1;

/// Signals to a process, and taken by it, that are told of in about a second (2^30 ns); further ones are counted.
pub const SIGNALS_A_SECOND: u32 = 2000;

/// A signal was sent (`signal:signal_generate`). `header` is that of the task that ran: the sender, unless `code` says that the
/// kernel sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct SignalSent {
    pub header: Header,
    /// `task_struct.start_boottime` of the receiving process, ns.
    pub target_start_boottime_ns: u64,
    pub target_tgid: u32,
    pub target_tid: u32,
    pub signal: u32,
    /// `si_code` (`include/uapi/asm-generic/siginfo.h`): SI_USER 0, SI_KERNEL 0x80, SI_TKILL -6, SI_TIMER -2, …
    pub code: i32,
    /// `TRACE_SIGNAL_…` of `include/trace/events/signal.h`: 0 delivered, 1 ignored, 2 already pending, 3 and 4 lost.
    pub result: u32,
    /// To the whole process (1), or to one thread (0).
    pub group: u32,
}
assert_size!(SignalSent, 64);

/// A thread of a followed process takes a signal (`signal:signal_deliver`), and will act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct SignalTaken {
    pub header: Header,
    pub signal: u32,
    pub code: i32,
    /// What it has set for it: [`ACTION_DEFAULT`] or [`ACTION_HANDLER`].
    pub action: u32,
    pub _pad: u32,
}
assert_size!(SignalTaken, 48);

pub const ACTION_DEFAULT: u32 = 0;
pub const ACTION_HANDLER: u32 = 1;

/// Memory ran out, and the kernel chose a followed process to be killed (`oom:mark_victim`). `header` is that of the task that ran,
/// often the one that wanted memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct OomVictim {
    pub header: Header,
    pub victim_tgid: u32,
    pub _pad: u32,
}
assert_size!(OomVictim, 40);

/// A followed process was moved to another cgroup (`cgroup:cgroup_attach_task`). `header` is that of the mover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct CgroupMoved {
    pub header: Header,
    /// Where to: kernfs id.
    pub cgroup: u64,
    pub moved_tgid: u32,
    pub moved_tid: u32,
    /// `cgroup_root.hierarchy_id`: 0 for the unified one.
    pub hierarchy: u32,
    pub _pad: u32,
}
assert_size!(CgroupMoved, 56);
