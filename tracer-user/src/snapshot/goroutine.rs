//! One `runtime.g` out of its bytes.

use crate::golang::{Saved, SnapshotLayout};

/// Set in the status while a garbage collection scans the stack (`runtime/runtime2.go`, `_Gscan`).
const SCAN: u32 = 0x1000;

/// What a goroutine does (`runtime/runtime2.go`, `_Grunnable` and so on).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    Runnable,
    Running,
    Syscall,
    Waiting,
    /// Its stack is being moved.
    CopyStack,
    /// Stopped itself for a garbage collection.
    Preempted,
    /// Found by the garbage collector to wait for what nobody can reach (Go 1.26 and later).
    Leaked,
}

impl State {
    /// As Go's own dumps have it (`runtime/traceback.go`, `gStatusStrings`).
    pub fn name(self) -> &'static str {
        match self {
            Self::Runnable => "runnable",
            Self::Running => "running",
            Self::Syscall => "syscall",
            Self::Waiting => "waiting",
            Self::CopyStack => "copystack",
            Self::Preempted => "preempted",
            Self::Leaked => "leaked",
        }
    }

    pub fn waits(self) -> bool {
        matches!(self, Self::Waiting | Self::Leaked)
    }
}

/// What a slot of the runtime's list holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    Alive(Raw),
    /// Ended, not yet begun, or standing by for a thread of C: no goroutine.
    Vacant,
    /// No status that is known.
    Nonsense,
}

/// The fields of a goroutine, as they are in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raw {
    pub goid: u64,
    pub state: State,
    pub wait_reason: u8,
    pub wait_since: u64,
    pub stack_lo: u64,
    pub stack_hi: u64,
    pub registers: Option<Registers>,
    pub parent: Option<u64>,
    pub gopc: u64,
    pub startpc: u64,
    pub locked: bool,
    /// Address of its labels, 0 for none.
    pub labels: u64,
    /// Address of the first `runtime.sudog` that it waits with, 0 for none.
    pub waiting: u64,
}

/// Where the walk of its stack begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    pub pc: u64,
    pub sp: u64,
    pub bp: Option<u64>,
}

impl Raw {
    /// Whether `later` is the same goroutine in the same state at the same place: what was read of its stack in between belongs to
    /// it. (Its labels can change meanwhile, if it runs.)
    pub fn stands_still(&self, later: &Self) -> bool {
        let still = |raw: &Self| (raw.goid, raw.state, raw.stack_lo, raw.registers, raw.gopc, raw.wait_reason);
        still(self) == still(later)
    }
}

/// Reads a slot from the bytes of its `g`.
pub fn parse(bytes: &[u8], layout: &SnapshotLayout) -> Option<Slot> {
    let word = |offset: u32| {
        let at = offset as usize;
        Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
    };
    // Status and goid stand side by side.
    let status = word(layout.atomicstatus)? as u32 & !SCAN;
    let state = match status {
        0 | 6 | 11 => return Some(Slot::Vacant),
        1 => State::Runnable,
        2 => State::Running,
        3 => State::Syscall,
        4 => State::Waiting,
        8 => State::CopyStack,
        9 => State::Preempted,
        10 => State::Leaked,
        _ => return Some(Slot::Nonsense),
    };
    let registers = |saved: &Saved| {
        let bp = match saved.bp {
            Some(bp) => Some(word(bp)?),
            None => None,
        };
        Some(Registers { pc: word(saved.pc)?, sp: word(saved.sp)?, bp })
    };
    Some(Slot::Alive(Raw {
        goid: word(layout.goid)?,
        state,
        wait_reason: *bytes.get(layout.waitreason as usize)?,
        wait_since: word(layout.waitsince)?,
        stack_lo: word(layout.stack_lo)?,
        stack_hi: word(layout.stack_hi)?,
        registers: match state {
            State::Running | State::CopyStack => None,
            State::Syscall => registers(&layout.syscall),
            _ => registers(&layout.sched),
        },
        parent: match layout.parent_goid {
            Some(parent) => Some(word(parent)?).filter(|goid| *goid != 0),
            None => None,
        },
        gopc: word(layout.gopc)?,
        startpc: word(layout.startpc)?,
        locked: word(layout.lockedm)? != 0,
        labels: word(layout.labels)?,
        waiting: word(layout.waiting)?,
    }))
}
