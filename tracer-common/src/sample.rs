//! What a CPU did when the sampling clock ticked.

use crate::{assert_size, header::Header};

/// The tick came while the kernel ran on behalf of the thread.
pub const IN_KERNEL: u32 = 1;
/// `goid` is known; 0 then means that the thread ran no goroutine (the scheduler looked for one).
pub const GOID_KNOWN: u32 = 2;

/// A followed process was on this CPU. `header.binary` is 0 where the process is not known to be a Go program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct OnCpuSample {
    pub header: Header,
    /// The goroutine on whose behalf the thread ran.
    pub goid: u64,
    /// The user stack, the interrupted instruction itself first; 0 where it could not be walked.
    pub stack_id: u64,
    /// Time between two ticks: what the sample stands for.
    pub period_ns: u32,
    /// [`IN_KERNEL`], [`GOID_KNOWN`].
    pub flags: u32,
}
assert_size!(OnCpuSample, 56);
