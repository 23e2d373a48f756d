//! Where a snapshot finds things in the runtime's goroutines.

use super::offsets::Offsets;

/// Offsets into `runtime.g`, in bytes (`runtime/runtime2.go`: `type g`, `type gobuf`, `type stack`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotLayout {
    /// Size of the whole structure.
    pub g_size: u32,
    /// Lowest address of the stack, and the one behind its highest.
    pub stack_lo: u32,
    pub stack_hi: u32,
    /// Where it goes on when it runs again; stale while it runs.
    pub sched: Saved,
    /// Where it entered its system call; 0 outside of one.
    pub syscall: Saved,
    /// `u32`.
    pub atomicstatus: u32,
    pub goid: u32,
    /// `nanotime` (CLOCK_MONOTONIC) since when it waits; 0 until a garbage collection has looked at it.
    pub waitsince: u32,
    /// `u8`.
    pub waitreason: u32,
    /// The thread it is locked to, 0 for none.
    pub lockedm: u32,
    /// From Go 1.21 on.
    pub parent_goid: Option<u32>,
    /// Return address of the go statement that made it.
    pub gopc: u32,
    /// Entry of its function.
    pub startpc: u32,
    /// Where its labels are (`runtime/pprof/label.go`, `labelMap`), 0 for none.
    pub labels: u32,
    /// The first `runtime.sudog` that it waits with, 0 for none.
    pub waiting: u32,
    pub sudog: Sudog,
}

/// Offsets into `runtime.sudog`: who waits, on which channel, and beside which others (`select`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sudog {
    pub g: u32,
    pub channel: u32,
    pub next: u32,
}

/// Offsets of saved registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    pub sp: u32,
    pub pc: u32,
    /// `None`: this Go version does not save the frame pointer here (`syscallbp` came with Go 1.23).
    pub bp: Option<u32>,
}

impl Sudog {
    /// How much of one has to be read.
    pub fn bytes(&self) -> usize {
        self.g.max(self.channel).max(self.next) as usize + 8
    }
}

impl SnapshotLayout {
    pub(super) fn of(offsets: &Offsets) -> Self {
        Self {
            g_size: offsets.g_size,
            stack_lo: offsets.g_stack_lo,
            stack_hi: offsets.g_stack_hi,
            sched: Saved { sp: offsets.g_sched_sp, pc: offsets.g_sched_pc, bp: Some(offsets.g_sched_bp) },
            syscall: Saved { sp: offsets.g_syscallsp, pc: offsets.g_syscallpc, bp: offsets.g_syscallbp },
            atomicstatus: offsets.g_atomicstatus,
            goid: offsets.g_goid,
            waitsince: offsets.g_waitsince,
            waitreason: offsets.g_waitreason,
            lockedm: offsets.g_lockedm,
            parent_goid: offsets.g_parent_goid,
            gopc: offsets.g_gopc,
            startpc: offsets.g_startpc,
            labels: offsets.g_labels,
            waiting: offsets.g_waiting,
            sudog: Sudog { g: offsets.sudog_g, channel: offsets.sudog_c, next: offsets.sudog_waitlink },
        }
    }

    /// A small one that no Go version has.
    #[cfg(test)]
    pub fn for_test(g_size: u32, sched: Saved, syscall: Saved) -> Self {
        Self {
            g_size,
            stack_lo: 0,
            stack_hi: 8,
            sched,
            syscall,
            atomicstatus: 40,
            goid: 48,
            waitsince: 56,
            waitreason: 64,
            lockedm: 72,
            parent_goid: None,
            gopc: 80,
            startpc: 88,
            labels: 96,
            waiting: 104,
            sudog: Sudog { g: 0, channel: 16, next: 8 },
        }
    }
}
