//! USDT probes: how a probe's arguments are fetched, and what a hit tells.

use crate::{assert_size, header::Header};

/// Arguments of a probe that are fetched; later ones are not looked at.
pub const MAX_ARGS: usize = 6;
/// Room for an argument that is text. A power of two: the BPF side bounds lengths by a mask.
pub const TEXT_MAX: usize = 64;
/// Ways to fetch the arguments of a probe that one session can hold. Sites that are alike share one.
pub const MAX_SPECS: u32 = 4096;

/// What `bpf_get_attach_cookie` returns at a USDT probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsdtCookie {
    /// The file that holds the probe, numbered like the Go binaries.
    pub object: u16,
    /// The probe within that file.
    pub site: u16,
    /// Index of its [`UsdtSpec`].
    pub spec: u16,
    /// Who is followed from its first hit on: `ADOPT_…` of [`crate::config`].
    pub adopt: u8,
}

impl UsdtCookie {
    #[inline(always)]
    pub fn to_u64(self) -> u64 {
        self.object as u64 | (self.site as u64) << 16 | (self.spec as u64) << 32 | (self.adopt as u64) << 48
    }

    #[inline(always)]
    pub fn from_u64(value: u64) -> Self {
        Self { object: value as u16, site: (value >> 16) as u16, spec: (value >> 32) as u16, adopt: (value >> 48) as u8 }
    }
}

/// There is no such argument, or no way to fetch it.
pub const ARG_NONE: u8 = 0;
/// The sum of `base`, `index << shift` and `offset`, as far as it has them: a register or a constant.
pub const ARG_VALUE: u8 = 1;
/// What is in memory at that sum.
pub const ARG_MEMORY: u8 = 2;

/// In place of a register's offset in `struct pt_regs`: there is none.
pub const NO_REGISTER: u8 = u8::MAX;

/// How one argument is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct ArgSpec {
    /// [`ARG_NONE`], [`ARG_VALUE`] or [`ARG_MEMORY`].
    pub kind: u8,
    /// Byte offsets of registers in `struct pt_regs`, or [`NO_REGISTER`].
    pub base: u8,
    pub index: u8,
    /// By how many bits the index is shifted.
    pub shift: u8,
    /// Bytes of the value less one: 0, 1, 3 or 7.
    pub size_less_one: u8,
    /// 1: the value is signed.
    pub signed: u8,
    /// By how many bits a register's value is shifted to the right first: 8 for `%ah`.
    pub skip_bits: u8,
    pub _pad: u8,
    /// The constant, or the displacement.
    pub offset: i64,
}
assert_size!(ArgSpec, 16);

impl ArgSpec {
    /// An argument that is not there.
    pub const NONE: Self = Self {
        kind: ARG_NONE,
        base: NO_REGISTER,
        index: NO_REGISTER,
        shift: 0,
        size_less_one: 7,
        signed: 0,
        skip_bits: 0,
        _pad: 0,
        offset: 0,
    };
}

/// In place of an argument's index: there is none.
pub const NO_ARG: u8 = u8::MAX;

/// How the arguments of a probe are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct UsdtSpec {
    pub args: [ArgSpec; MAX_ARGS],
    /// Which argument points to text, from 0, or [`NO_ARG`].
    pub text: u8,
    /// Which one is its length in bytes; [`NO_ARG`]: it ends with a NUL.
    pub text_len: u8,
    pub _pad: [u8; 6],
}
assert_size!(UsdtSpec, 16 * MAX_ARGS + 8);

impl UsdtSpec {
    /// A probe without arguments.
    pub const NONE: Self = Self { args: [ArgSpec::NONE; MAX_ARGS], text: NO_ARG, text_len: NO_ARG, _pad: [0; 6] };
}

/// A followed process ran over a USDT probe. `header.binary` is the file that holds it, `header.site` the probe in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct UsdtHit {
    pub header: Header,
    pub args: [u64; MAX_ARGS],
    /// Bit n: argument n was fetched.
    pub fetched: u8,
    /// 1: `text` was read, be it empty.
    pub has_text: u8,
    /// Valid bytes of `text`. What is longer was cut.
    pub text_len: u16,
    pub _pad: u32,
    pub text: [u8; TEXT_MAX],
}
assert_size!(UsdtHit, 32 + 8 * MAX_ARGS + 8 + TEXT_MAX);
