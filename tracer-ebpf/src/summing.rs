//! Short waits and lives, summed instead of told ([`tracer_common::summing`]).
//!
//! Each function says whether it has dealt with the event: if not, it is told as always. So a table that is full costs detail of nobody.

use core::{
    arch::asm,
    intrinsics::{AtomicOrdering, atomic_xadd},
};

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_ktime_get_ns};
use tracer_common::{
    config::{Cookie, GoLayout},
    counters,
    goroutine::{GoroutineLateBirth, GoroutineWait},
    header::Kind,
    summing::{BUCKETS, Kept, SumKey, bucket},
};

use crate::{
    emit,
    goroutine::{Origin, Waiting},
    maps::{KEPT, NO_SUM, SUMS, count},
};

#[inline(always)]
fn now() -> u64 {
    // SAFETY: takes no pointer.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
fn key(pid_tgid: u64, goid: u64) -> [u64; 2] {
    [pid_tgid >> 32, goid]
}

#[inline(always)]
fn keep(key: &[u64; 2], kept: &Kept) -> bool {
    let kept = KEPT.insert(key, kept, 0).is_ok();
    if !kept {
        count(counters::UNKEPT);
    }
    kept
}

/// A goroutine is made: that is told once there is something to tell of it.
#[inline(always)]
pub fn birth(cookie: Cookie, pid_tgid: u64, goid: u64, origin: &Origin, stack_id: u64) -> bool {
    let Origin { parent_goid, gopc, startpc } = *origin;
    let (born_at, birth_stack_id, binary) = (now(), stack_id, cookie.binary);
    keep(&key(pid_tgid, goid), &Kept { born_at, parent_goid, gopc, startpc, birth_stack_id, binary, ..Kept::default() })
}

/// Where a park of a goroutine is kept; `None`: it must be told. One that is not kept lived before, or found no place at its birth.
#[inline(always)]
pub fn place(cookie: Cookie, pid_tgid: u64, layout: &GoLayout, g: u64, goid: u64) -> Option<*mut Kept> {
    let key = key(pid_tgid, goid);
    if let Some(kept) = KEPT.get_ptr_mut(&key) {
        return Some(kept);
    }
    let Origin { parent_goid, gopc, startpc } = Origin::of(g, layout)?;
    if !keep(&key, &Kept { parent_goid, gopc, startpc, binary: cookie.binary, ..Kept::default() }) {
        return None;
    }
    KEPT.get_ptr_mut(&key)
}

/// A goroutine parks.
#[inline(always)]
pub fn park(place: *mut Kept, pid_tgid: u64, waiting: &Waiting) {
    // SAFETY: a map value; nobody else writes to that of a goroutine that is about to park. Who reads it from outside looks at the time.
    unsafe {
        (*place).park_stack_id = waiting.stack_id;
        (*place).lock = waiting.lock;
        (*place).park_tid = pid_tgid as u32;
        (*place).wait_reason = waiting.wait_reason;
        (*place).parked_at = now();
    }
}

/// The park is taken back.
#[inline(always)]
pub fn park_abort(pid_tgid: u64, goid: u64) -> bool {
    match KEPT.get_ptr_mut(&key(pid_tgid, goid)) {
        // SAFETY: a map value; the goroutine is still parking, and nobody else writes.
        Some(kept) if unsafe { (*kept).parked_at } != 0 => unsafe {
            (*kept).parked_at = 0;
            true
        },
        _ => false,
    }
}

/// A wait is over: it is summed, or told.
#[inline(always)]
pub fn wake(cookie: Cookie, pid_tgid: u64, layout: &GoLayout, goid: u64, waker_goid: u64) -> bool {
    let Some(entry) = KEPT.get_ptr_mut(&key(pid_tgid, goid)) else {
        return false;
    };
    // SAFETY: a map value; the goroutine waits, and one alone can wake it.
    let kept = unsafe { *entry };
    if kept.parked_at == 0 {
        // It was stopped for a look at its stack, which ends by a wake, too.
        return true;
    }
    let ns = now().saturating_sub(kept.parked_at);
    // SAFETY: as above.
    unsafe { (*entry).parked_at = 0 };
    let Kept { binary, wait_reason, gopc, startpc, park_stack_id: stack_id, .. } = kept;
    let of = SumKey { tgid: (pid_tgid >> 32) as u32, binary, lives: 0, wait_reason, gopc, startpc, stack_id };
    if ns < layout.min_block_ns && kept.parked_at >= layout.summing_since && add(&of, ns) {
        return true;
    }
    if kept.told == 0 && kept.born_at != 0 {
        tell_birth(cookie, pid_tgid, goid, &kept);
        // SAFETY: as above.
        unsafe { (*entry).told = 1 };
    }
    let Kept { parked_at, lock, park_tid, .. } = kept;
    let header = emit::header(Kind::GoroutineWait, cookie.binary, cookie.site, pid_tgid);
    let wait = GoroutineWait { header, goid, waker_goid, parked_at, stack_id, lock, park_tid, wait_reason, _pad: [0; 3] };
    emit::send(Kind::GoroutineWait, header.seq, wait);
    true
}

/// A goroutine ends. One of which something was told is told to have ended.
#[inline(always)]
pub fn exit(cookie: Cookie, pid_tgid: u64, layout: &GoLayout, goid: u64) -> bool {
    let key = key(pid_tgid, goid);
    let Some(entry) = KEPT.get_ptr(&key) else {
        return false;
    };
    // SAFETY: a map value; the goroutine has ended, and nobody else writes.
    let kept = unsafe { *entry };
    let _ = KEPT.remove(&key);
    if kept.told != 0 || kept.born_at == 0 {
        return false;
    }
    let ns = now().saturating_sub(kept.born_at);
    let Kept { binary, gopc, startpc, birth_stack_id: stack_id, .. } = kept;
    let of = SumKey { tgid: (pid_tgid >> 32) as u32, binary, lives: 1, wait_reason: 0, gopc, startpc, stack_id };
    if ns < layout.min_block_ns && kept.born_at >= layout.summing_since && add(&of, ns) {
        return true;
    }
    tell_birth(cookie, pid_tgid, goid, &kept);
    false
}

#[inline(always)]
fn tell_birth(cookie: Cookie, pid_tgid: u64, goid: u64, kept: &Kept) {
    let Kept { born_at, parent_goid, gopc, startpc, birth_stack_id: stack_id, .. } = *kept;
    let header = emit::header(Kind::GoroutineLateBirth, cookie.binary, cookie.site, pid_tgid);
    let birth = GoroutineLateBirth { header, goid, born_at, parent_goid, gopc, startpc, stack_id };
    emit::send(Kind::GoroutineLateBirth, header.seq, birth);
}

/// Adds a time to a sum, if there is a place for it.
#[inline(always)]
fn add(of: &SumKey, ns: u64) -> bool {
    let sum = match SUMS.get_ptr_mut(of) {
        Some(sum) => sum,
        None => {
            let Some(nothing) = NO_SUM.get(0) else {
                return false;
            };
            // Another CPU may have been first.
            let _ = SUMS.insert(of, nothing, BPF_NOEXIST as u64);
            let Some(sum) = SUMS.get_ptr_mut(of) else {
                count(counters::UNSUMMED);
                return false;
            };
            sum
        }
    };
    // SAFETY: a map value that lives as long as the program runs; its fields are as wide as they are aligned, and the index is within the table.
    unsafe {
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(&raw mut (*sum).count, 1);
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(&raw mut (*sum).total_ns, ns);
        let slot = (&raw mut (*sum).buckets).cast::<u32>().add(in_bounds(bucket(ns)));
        atomic_xadd::<u32, u32, { AtomicOrdering::Relaxed }>(slot, 1);
    }
    true
}

/// An index into the buckets, so that the verifier sees that it is one: what LLVM knows of it, it would not repeat.
#[inline(always)]
fn in_bounds(index: usize) -> usize {
    const _: () = assert!(BUCKETS == 64);
    let mut index = index;
    // SAFETY: touches that register alone.
    unsafe { asm!("{0} &= 63", inout(reg) index) };
    index
}
