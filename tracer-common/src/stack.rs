//! Stacks: sent once, then named by their id.

use crate::{assert_size, header::Header};

/// Frames walked at most. Deeper stacks are cut at the root and marked.
pub const MAX_FRAMES: usize = 32;

/// The walk stopped at [`MAX_FRAMES`] with frames left.
pub const TRUNCATED: u32 = 1;
/// The first address is that of an interrupted instruction, not a return address.
pub const EXACT: u32 = 2;
/// The second one is the word on top of the stack: the return address if the function has no frame there, else anything.
pub const TOP_WORD: u32 = 4;
/// The addresses are the kernel's.
pub const KERNEL: u32 = 8;
/// The addresses belong to the process of the header alone, whatever it runs: no probe of its binary was hit.
pub const NATIVE: u32 = 16;

/// The return addresses of one stack, innermost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct Stack {
    pub header: Header,
    /// A hash over the binary and the addresses; never 0.
    pub stack_id: u64,
    /// Valid entries of `pcs`, at most [`MAX_FRAMES`].
    pub depth: u32,
    /// [`TRUNCATED`], [`EXACT`], [`TOP_WORD`], [`KERNEL`], [`NATIVE`].
    pub flags: u32,
    pub pcs: [u64; MAX_FRAMES],
}
assert_size!(Stack, 48 + 8 * MAX_FRAMES);

/// Starts the hash that names a stack: one that begins exactly differs from one of the same addresses that does not.
#[inline(always)]
pub fn hash_start(binary: u16, flags: u32) -> u64 {
    0x9e37_79b9_7f4a_7c15 ^ (binary as u64) ^ (flags as u64) << 32
}

/// Adds one return address (a multiply and a fold: cheap in BPF, where there is no 128-bit product).
#[inline(always)]
pub fn hash_add(hash: u64, pc: u64) -> u64 {
    let mixed = (hash ^ pc).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 32)
}

/// Ends the hash; 0 is kept for "no stack".
#[inline(always)]
pub fn hash_end(hash: u64) -> u64 {
    if hash == 0 { 1 } else { hash }
}
