//! Records of Go's own test framework.

use crate::{assert_size, header::Header};

/// Bytes of a test's name that are copied; a power of two.
pub const NAME_MAX: usize = 128;

/// A test is about to be started (`testing.(*T).Run`): the next goroutine that this one makes there runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct TestRun {
    pub header: Header,
    /// The goroutine that starts it.
    pub goid: u64,
    /// Of the `name` argument, in bytes.
    pub name_len: u32,
    /// Bytes of `name` that were copied; the rest is not to be read. 0 also where it could not be read.
    pub name_copied: u32,
    pub name: [u8; NAME_MAX],
}
assert_size!(TestRun, 176);
