//! Whether a process bears out the offsets that are believed of its runtime, before anything is made of them.
//!
//! For binaries whose release of Go is in no table and which have no debug information: the offsets of another release of the same
//! minor version are held against the goroutines that live. Each of them must look like one in every respect: a known
//! status, an id of its own, saved registers inside of its stack, a start that is the beginning of a function, a thread that leads
//! back to it. The process runs on meanwhile, so whoever fails is looked at again; wrong offsets fail every time. Nothing is
//! written, and all that is read is bounded.

use rustc_hash::FxHashSet;

use super::{
    MAX_GOROUTINES,
    memory::{Memory, MemoryError, Piece, Reading},
};
use crate::golang::{AllGoroutines, Offsets};

/// Goroutines that are looked at: the oldest, and with them those of the runtime itself.
const MAX_LOOKED_AT: u64 = 512;
/// How often one is looked at before it counts as failing.
const LOOKS: usize = 5;
/// One failure in so many is put down to the process running on.
const TOLERANCE: usize = 8;
/// With fewer goroutines than this nothing is said yet.
const ENOUGH: usize = 2;
/// Of so many in the list, that many live.
const MANY: usize = 4;
/// Ids beyond this are none: below it lie no heap addresses.
const MAX_GOID: u64 = 1 << 39;
const STACK_SIZES: std::ops::RangeInclusive<u64> = 1 << 10..=4 << 30;

/// Set in the status while a garbage collection scans the stack (`runtime/runtime2.go`, `_Gscan`).
const SCAN: u32 = 0x1000;
const RUNNABLE: u32 = 1;
const RUNNING: u32 = 2;
const SYSCALL: u32 = 3;
const WAITING: u32 = 4;
const PREEMPTED: u32 = 9;
const LEAKED: u32 = 10;
/// Every status of Go 1.19 to 1.27, and those in which there is no goroutine.
const STATUSES: [u32; 10] = [0, RUNNABLE, RUNNING, SYSCALL, WAITING, 6, 8, PREEMPTED, LEAKED, 11];
const VACANT: [u32; 3] = [0, 6, 11];

/// Offsets, and what they are held against.
pub struct Subject<'a> {
    /// Where its list is, load bias included.
    pub all: AllGoroutines,
    pub offsets: &'a Offsets,
    /// How many wait reasons there are.
    pub wait_reasons: usize,
    /// Whether an address of the process lies in known code, and whether a function begins there.
    pub in_code: &'a dyn Fn(u64) -> bool,
    pub is_entry: &'a dyn Fn(u64) -> bool,
}

/// What bore the offsets out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Borne {
    pub goroutines: usize,
    /// Goroutines on a thread whose thread leads back to them; 0 where none ran.
    pub threads: usize,
}

/// Why the offsets are not to be used.
#[derive(Debug, thiserror::Error)]
pub enum Doubt {
    #[error("it has no goroutines to check them with yet")]
    NotYet,
    #[error("{what} is wrong in {failed} of {of} goroutines")]
    Contradicted { what: &'static str, failed: usize, of: usize },
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// What must hold of every goroutine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Claim {
    Pointer,
    Status,
    Goid,
    Stack,
    Saved,
    Reason,
    Start,
    Creator,
    Parent,
    Thread,
}

impl Claim {
    const ALL: [(Self, &'static str); 10] = [
        (Self::Pointer, "the pointer to it"),
        (Self::Status, "its status"),
        (Self::Goid, "its id"),
        (Self::Stack, "its stack's bounds"),
        (Self::Saved, "its saved registers"),
        (Self::Reason, "its wait reason"),
        (Self::Start, "its start function"),
        (Self::Creator, "its go statement"),
        (Self::Parent, "its parent"),
        (Self::Thread, "its thread"),
    ];
}

/// Holds the offsets against up to [`MAX_LOOKED_AT`] goroutines.
pub fn check(memory: &impl Memory, subject: &Subject<'_>) -> Result<Borne, Doubt> {
    let look = Look { memory, subject };
    let mut held = [0usize; Claim::ALL.len()];
    let mut failed = [0usize; Claim::ALL.len()];
    let (mut alive, mut goids) = (0, FxHashSet::default());
    let pointers = look.pointers()?;
    for &pointer in &pointers {
        let mut seen = look.at(pointer)?;
        for _ in 1..LOOKS {
            if seen.failed.is_empty() {
                break;
            }
            seen = look.at(pointer)?;
        }
        if seen.goid.is_some_and(|goid| !goids.insert(goid)) {
            seen.failed.push(Claim::Goid);
        }
        alive += usize::from(seen.goid.is_some() || !seen.failed.is_empty());
        seen.held.iter().for_each(|claim| held[*claim as usize] += 1);
        seen.failed.iter().for_each(|claim| failed[*claim as usize] += 1);
    }
    for (claim, what) in Claim::ALL {
        let (failed, of) = (failed[claim as usize], failed[claim as usize] + held[claim as usize]);
        if failed * TOLERANCE > of {
            return Err(Doubt::Contradicted { what, failed, of });
        }
    }
    if alive < ENOUGH {
        // The runtime's own goroutines live as long as the process: a list of the dead is none.
        let of = pointers.len();
        return Err(if of < MANY { Doubt::NotYet } else { Doubt::Contradicted { what: "its status", failed: of - alive, of } });
    }
    Ok(Borne { goroutines: alive, threads: held[Claim::Thread as usize] })
}

/// What one look at a goroutine gave.
#[derive(Default)]
struct Seen {
    /// Of one that is alive.
    goid: Option<u64>,
    held: Vec<Claim>,
    failed: Vec<Claim>,
}

impl Seen {
    fn claim(&mut self, claim: Claim, holds: bool) {
        if holds { self.held.push(claim) } else { self.failed.push(claim) }
    }
}

struct Look<'a, M> {
    memory: &'a M,
    subject: &'a Subject<'a>,
}

impl<M: Memory> Look<'_, M> {
    fn pointers(&self) -> Result<Vec<u64>, Doubt> {
        let AllGoroutines { len, first } = self.subject.all;
        let (count, start) = (self.word(len)?.unwrap_or(0), self.word(first)?.unwrap_or(0));
        if count > MAX_GOROUTINES {
            return Err(Doubt::Contradicted { what: "the length of the list", failed: 1, of: 1 });
        }
        if count == 0 || start == 0 {
            return Err(Doubt::NotYet);
        }
        let list = self.bytes(start, count.min(MAX_LOOKED_AT) as usize * 8)?;
        Ok(list.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect())
    }

    /// Holds every claim that applies against one goroutine.
    fn at(&self, pointer: u64) -> Result<Seen, Doubt> {
        let offsets = self.subject.offsets;
        let mut seen = Seen::default();
        let bytes = self.bytes(pointer, offsets.g_size as usize)?;
        let word = |offset: u32| {
            let word = bytes.get(offset as usize..).and_then(|rest| rest.first_chunk::<8>());
            word.map_or(0, |word| u64::from_le_bytes(*word))
        };
        let readable = pointer.is_multiple_of(8) && bytes.len() == offsets.g_size as usize;
        seen.claim(Claim::Pointer, readable);
        if !readable {
            return Ok(seen);
        }
        let status = word(offsets.g_atomicstatus) as u32 & !SCAN;
        seen.claim(Claim::Status, STATUSES.contains(&status));
        if VACANT.contains(&status) || !STATUSES.contains(&status) {
            return Ok(seen);
        }
        let goid = word(offsets.g_goid);
        seen.goid = Some(goid);
        seen.claim(Claim::Goid, (1..MAX_GOID).contains(&goid));
        self.hold_stack(&mut seen, status, &word);
        if matches!(status, WAITING | LEAKED) {
            let reason = bytes.get(offsets.g_waitreason as usize).map_or(usize::MAX, |reason| usize::from(*reason));
            seen.claim(Claim::Reason, reason < self.subject.wait_reasons);
        }
        self.hold_origin(&mut seen, status, &word);
        if matches!(status, RUNNING | SYSCALL) {
            let holds = self.thread_leads_back(pointer, word(offsets.g_m))?;
            seen.claim(Claim::Thread, holds);
        }
        Ok(seen)
    }

    fn hold_stack(&self, seen: &mut Seen, status: u32, word: &impl Fn(u32) -> u64) {
        let offsets = self.subject.offsets;
        let (lo, hi) = (word(offsets.g_stack_lo), word(offsets.g_stack_hi));
        seen.claim(Claim::Stack, lo.is_multiple_of(8) && STACK_SIZES.contains(&hi.wrapping_sub(lo)));
        let inside = |address: u64| address.is_multiple_of(8) && lo < address && address <= hi;
        let (sp, pc, bp) = match status {
            RUNNABLE | WAITING | PREEMPTED | LEAKED => (offsets.g_sched_sp, offsets.g_sched_pc, Some(offsets.g_sched_bp)),
            SYSCALL => (offsets.g_syscallsp, offsets.g_syscallpc, offsets.g_syscallbp),
            _ => return,
        };
        let frame = bp.map_or(0, word);
        seen.claim(Claim::Saved, inside(word(sp)) && (self.subject.in_code)(word(pc)) && (frame == 0 || inside(frame)));
    }

    fn hold_origin(&self, seen: &mut Seen, status: u32, word: &impl Fn(u32) -> u64) {
        let offsets = self.subject.offsets;
        let (start, creator) = (word(offsets.g_startpc), word(offsets.g_gopc));
        // A thread of C that called in has a goroutine that no go statement made.
        if status == SYSCALL && start == 0 && creator == 0 {
            return;
        }
        seen.claim(Claim::Start, (self.subject.is_entry)(start));
        seen.claim(Claim::Creator, (self.subject.in_code)(creator));
        if let Some(parent) = offsets.g_parent_goid {
            seen.claim(Claim::Parent, word(parent) < MAX_GOID);
        }
    }

    /// Whether `m.curg` is this goroutine, and `m.g0` one of the same thread.
    fn thread_leads_back(&self, g: u64, m: u64) -> Result<bool, Doubt> {
        let offsets = self.subject.offsets;
        let Some((curg, g0)) = self.field(m, offsets.m_curg)?.zip(self.field(m, offsets.m_g0)?) else { return Ok(false) };
        Ok(curg == g && self.field(g0, offsets.g_m)? == Some(m))
    }

    fn field(&self, base: u64, offset: u32) -> Result<Option<u64>, Doubt> {
        match base.checked_add(u64::from(offset)) {
            Some(address) if base != 0 => self.word(address),
            _ => Ok(None),
        }
    }

    fn word(&self, address: u64) -> Result<Option<u64>, Doubt> {
        Ok(self.bytes(address, 8)?.try_into().ok().map(u64::from_le_bytes))
    }

    /// As many of `len` bytes as can be read.
    fn bytes(&self, address: u64, len: usize) -> Result<Vec<u8>, Doubt> {
        Ok(Reading::of(self.memory, &[Piece { address, len }])?.piece(0).to_vec())
    }
}

#[cfg(test)]
mod tests;
