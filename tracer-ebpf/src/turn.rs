//! Which of two programs on one tracepoint tells of an event: the first, or the second where the kernel left the first out.
//!
//! A program on a tracepoint is not run while it runs already on that CPU (`__bpf_trace_run` in `kernel/trace/bpf_trace.c`). On
//! Linux 7.3 it can be preempted, so a task that forks, execs or ends on that CPU meanwhile would go untold. The second program is
//! another one to the kernel: both are left out only where two tasks were preempted, one in each.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;

use crate::maps::TOLD;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    First,
    Second,
}

impl Turn {
    /// Whether nothing is left to do about what the current thread does to `object`, a kernel address. To be asked before anything else.
    #[inline(always)]
    pub fn is_over(self, object: *const u8) -> bool {
        let tid = bpf_get_current_pid_tgid() as u32;
        // SAFETY: the value is copied at once, and only this thread writes it.
        self == Self::Second && unsafe { TOLD.get(&tid) }.copied() == Some(object as u64) && TOLD.remove(&tid).is_ok()
    }

    /// Takes it on. Where the table is full, the second program tells.
    #[inline(always)]
    pub fn take(self, object: *const u8) -> bool {
        self == Self::Second || TOLD.insert(&(bpf_get_current_pid_tgid() as u32), &(object as u64), 0).is_ok()
    }
}
