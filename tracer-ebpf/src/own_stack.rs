//! Keeps uprobe programs on the stack of the task that hit the probe.
//!
//! From Linux 6.13 on, the x86-64 compiler gives a program of this type whose frames take 64 bytes or more a stack of its own, one for each CPU: the kernel counts
//! on such programs never running inside one another (`bpf_enable_priv_stack`, kernel/bpf/verifier.c). Those of uprobes do: they can be preempted, nothing guards
//! them against recursion, and the next task on this CPU writes over the frames of the first (seen on 7.3 with PREEMPT_LAZY: a general protection fault in the
//! program). A program that makes a tail call gets no such stack (`has_tail_call` in `check_max_stack_depth`), and the call counts wherever it stands.

use core::arch::asm;

use aya_ebpf::{macros::map, maps::ProgramArray, programs::ProbeContext};

/// Of no program, ever.
#[map]
static NOWHERE: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// To be called first by each uprobe program. Costs nothing: the verifier knows that it is never taken, and takes it out.
#[inline(always)]
pub fn keep(ctx: &ProbeContext) {
    let never: u64;
    // SAFETY: sets a register. It is an instruction, not nothing: two lines of source must not begin at one instruction, or the kernel refuses the line table.
    unsafe { asm!("{0} = 0", out(reg) never) };
    if never != 0 {
        // SAFETY: the context is this program's own. There is no program to go to.
        unsafe { NOWHERE.tail_call(ctx, 0) };
    }
}
