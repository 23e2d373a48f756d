//! What userspace tells the BPF programs: the cookie of an attachment, the layout of a Go runtime, the kernel's offsets.

use crate::assert_size;

/// Binaries that can be probed in one session; ids run from 1.
pub const MAX_BINARIES: u32 = 1024;

/// The largest offset into a runtime structure that a program follows. A larger one is a wrong table.
pub const MAX_OFFSET: u32 = 4096;

/// What `bpf_get_attach_cookie` returns at a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    pub binary: u16,
    pub site: u16,
    /// Where the register that holds the `*g` the event is about lies in `struct pt_regs` ([`pt_regs_offset`]).
    pub register: u8,
    /// What the zero flag must be for the hit to count: 0 anything, 1 clear, 2 set (a jump after a compare-and-swap is also
    /// reached when the swap failed).
    pub zero_flag: u8,
}

impl Cookie {
    #[inline(always)]
    pub fn to_u64(self) -> u64 {
        self.binary as u64 | (self.site as u64) << 16 | (self.register as u64) << 32 | (self.zero_flag as u64 & 3) << 40
    }

    #[inline(always)]
    pub fn from_u64(value: u64) -> Self {
        Self {
            binary: value as u16,
            site: (value >> 16) as u16,
            register: (value >> 32) as u8,
            zero_flag: (value >> 40) as u8 & 3,
        }
    }
}

/// Byte offset in `struct pt_regs` (`arch/x86/include/uapi/asm/ptrace.h`) of a register by its x86-64 number (0 = rax,
/// 3 = rbx, … 15 = r15).
pub const fn pt_regs_offset(number: u8) -> u8 {
    const OFFSETS: [u8; 16] = [80, 88, 96, 40, 152, 32, 104, 112, 72, 64, 56, 48, 24, 16, 8, 0];
    OFFSETS[(number & 15) as usize]
}

/// Byte offsets into the structures of one binary's Go runtime (`runtime2.go`), and what is at no offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct GoLayout {
    /// 1 once userspace has filled the entry.
    pub valid: u32,
    pub g_goid: u32,
    /// 1 where `parentGoid` lies just before `gopc` (since Go 1.21), else 0.
    pub has_parent_goid: u32,
    /// `g.gopc`; `g.startpc` lies 16 bytes behind it in every version.
    pub g_gopc: u32,
    pub g_m: u32,
    pub m_curg: u32,
    /// `g.waitreason` (a byte) and `m.waitlock`: what gopark was given, where it has stored it. `m_waitlock` 0: nobody knows.
    pub g_waitreason: u32,
    pub m_waitlock: u32,
}
assert_size!(GoLayout, 32);

/// Byte offsets into the running kernel's structures, from its BTF.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct KernelLayout {
    pub task_tgid: u32,
    pub task_group_leader: u32,
    pub task_start_boottime: u32,
    pub task_exit_code: u32,
    pub task_signal: u32,
    pub task_mm: u32,
    pub signal_live: u32,
    pub mm_arg_start: u32,
    pub mm_arg_end: u32,
    /// The thread whose next forked child is followed: the tracer's, while it starts the command. 0 for none.
    pub spawner_tid: u32,
}
assert_size!(KernelLayout, 40);

/// What is known of a followed process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct Followed {
    /// The binary whose hits are accepted; 0 until the first hit after an exec.
    pub binary: u16,
    pub _pad: [u16; 3],
}
assert_size!(Followed, 8);
