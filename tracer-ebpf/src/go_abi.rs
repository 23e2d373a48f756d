//! Where Go keeps things at a probe: the only file that knows registers.
//!
//! Source: `src/cmd/compile/abi-internal.md`: arguments in RAX, RBX, RCX, RDI, RSI, …, the current g in R14, frame pointers
//! in RBP.

use core::arch::asm;

use aya_ebpf::programs::ProbeContext;

use crate::mem::read_kernel;

/// Bit of the zero flag in RFLAGS.
const ZERO_FLAG: u64 = 1 << 6;

/// One load from the context at a constant offset, opaque to LLVM: it would merge the loads of several arms into one with a
/// computed address, which the verifier refuses.
macro_rules! load {
    ($ctx:expr, $offset:literal) => {{
        let value: u64;
        // SAFETY: the kernel passes a valid pt_regs to every uprobe program; the offset is that of a register in it.
        unsafe { asm!(concat!("{0} = *(u64 *)({1} + ", $offset, ")"), out(reg) value, in(reg) $ctx.regs) };
        value
    }};
}

/// The register whose value lies `offset` bytes into `struct pt_regs`: rax and rbx directly, which is where arguments are;
/// any other (after a compare-and-swap that the compiler has inlined) by the slower helper.
#[inline(always)]
pub fn register(ctx: &ProbeContext, offset: u8) -> u64 {
    match offset {
        80 => load!(ctx, 80),
        40 => load!(ctx, 40),
        _ => read_kernel::<u64>(ctx.regs.cast(), offset as u32).unwrap_or(0),
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
    /// The first argument.
    arg0 => rax;
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
