//! Where Go keeps things at a probe: the only file that knows registers.
//!
//! Source: `src/cmd/compile/abi-internal.md`: arguments in RAX, RBX, RCX, RDI, RSI, …, the current g in R14, frame pointers
//! in RBP.

use aya_ebpf::programs::ProbeContext;

/// Bit of the zero flag in RFLAGS.
const ZERO_FLAG: u64 = 1 << 6;

/// A register by its x86-64 number. The context cannot be indexed by a variable (the verifier wants constant offsets).
#[inline(always)]
pub fn register(ctx: &ProbeContext, number: u8) -> u64 {
    // SAFETY: the kernel passes a valid pt_regs to every uprobe program.
    let regs = unsafe { &*ctx.regs };
    match number {
        0 => regs.rax,
        1 => regs.rcx,
        2 => regs.rdx,
        3 => regs.rbx,
        4 => regs.rsp,
        5 => regs.rbp,
        6 => regs.rsi,
        7 => regs.rdi,
        8 => regs.r8,
        9 => regs.r9,
        10 => regs.r10,
        11 => regs.r11,
        12 => regs.r12,
        13 => regs.r13,
        14 => regs.r14,
        _ => regs.r15,
    }
}

macro_rules! named {
    ($($(#[$doc:meta])* $name:ident => $field:ident;)*) => {
        $($(#[$doc])*
        #[inline(always)]
        pub fn $name(ctx: &ProbeContext) -> u64 {
            // SAFETY: the kernel passes a valid pt_regs to every uprobe program.
            unsafe { (*ctx.regs).$field }
        })*
    };
}

named! {
    /// The second argument.
    arg1 => rbx;
    /// The third argument.
    arg2 => rcx;
    /// The current g.
    current_g => r14;
    frame_pointer => rbp;
    stack_pointer => rsp;
    instruction_pointer => rip;
}

/// Whether the zero flag is as a cookie wants it (0: any, 1: clear, 2: set).
#[inline(always)]
pub fn zero_flag_is(ctx: &ProbeContext, wanted: u8) -> bool {
    // SAFETY: the kernel passes a valid pt_regs to every uprobe program.
    let set = unsafe { (*ctx.regs).eflags } & ZERO_FLAG != 0;
    match wanted {
        0 => true,
        1 => !set,
        _ => set,
    }
}
