//! Records of the garbage collector: cycles begun, and pauses of the whole process.

use crate::{assert_size, header::Header};

/// The world is about to be stopped (`runtime.stopTheWorldWithSema`); it is stopped a little later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct StopTheWorld {
    pub header: Header,
    /// The goroutine that asks for it (`g.m.curg`); 0 for none.
    pub goid: u64,
    /// The `reason` argument: an index into the Go version's own table.
    pub reason: u8,
    pub _pad: [u8; 7],
}
assert_size!(StopTheWorld, 48);

/// The world is about to be started again (`runtime.startTheWorldWithSema`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct StartTheWorld {
    pub header: Header,
    pub goid: u64,
}
assert_size!(StartTheWorld, 40);

/// A cycle of the garbage collector begins (`runtime.gcBgMarkStartWorkers`): nothing can call it off any more, and the pause
/// for sweep termination is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct GcCycleStart {
    pub header: Header,
    /// The goroutine whose allocation or call began it.
    pub goid: u64,
}
assert_size!(GcCycleStart, 40);
