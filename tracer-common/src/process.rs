//! Process records: which binary a process runs, fork, exec, exit.

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
    pub _pad: u32,
}
assert_size!(ProcessFork, 56);

/// Room for argv; of a longer one the first `ARGS_MAX - 1` bytes are kept. A power of two: the BPF side bounds it by a mask.
pub const ARGS_MAX: usize = 1024;

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
    /// NUL-separated arguments.
    pub args: [u8; ARGS_MAX],
}
assert_size!(ProcessExec, 48 + ARGS_MAX);

/// The last thread of a followed process exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct ProcessExit {
    pub header: Header,
    pub start_boottime_ns: u64,
    /// `task_struct.exit_code`: a wait status (`code << 8 | signal`, bit 7 for a core dump).
    pub wait_status: u32,
    pub _pad: u32,
}
assert_size!(ProcessExit, 48);
