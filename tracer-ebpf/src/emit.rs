//! Sending records: sequence numbers, loss, and when the reader is woken.

use aya_ebpf::{
    bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
    maps::ring_buf::RingBufEntry,
};
use tracer_common::{
    counters,
    header::{Header, Kind},
};

use crate::maps::{RINGS, count, count_and_get};

/// The reader is woken once in this many records of a CPU, and otherwise looks by itself: a wake-up a record would cost over
/// a microsecond inside the target's trap.
const WAKE_EVERY: u64 = 1024;

/// The header of a record made now. Takes the next sequence number of this CPU, whether the record will fit or not: from here on it
/// must be submitted, or counted as lost.
///
/// First the number, then the time: whoever reads the clock and then finds a number not yet taken knows that its record will be
/// younger (docs/order.md).
#[inline(always)]
pub fn header(kind: Kind, binary: u16, site: u16, pid_tgid: u64) -> Header {
    let seq = count_and_get(counters::SEQ);
    // SAFETY: takes no pointer.
    let ktime_ns = unsafe { bpf_ktime_get_ns() };
    Header {
        ktime_ns,
        seq,
        tgid: (pid_tgid >> 32) as u32,
        tid: pid_tgid as u32,
        // SAFETY: takes no pointer.
        cpu: unsafe { bpf_get_smp_processor_id() } as u16,
        binary,
        site,
        kind: kind as u8,
        _pad: 0,
    }
}

/// Room for a record, or a counted loss.
#[inline(always)]
pub fn reserve<T: 'static>(kind: Kind) -> Option<RingBufEntry<T>> {
    // SAFETY: takes no pointer.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let entry = RINGS.get(cpu).and_then(|ring| ring.reserve_untyped::<T>(0));
    if entry.is_none() {
        count(counters::LOST + kind as u32);
        count(counters::LOST_RECORDS);
    }
    entry
}

/// The flags with which the record of `seq` is submitted.
#[inline(always)]
pub fn wakeup(seq: u64) -> u64 {
    if seq % WAKE_EVERY == 0 { BPF_RB_FORCE_WAKEUP as u64 } else { BPF_RB_NO_WAKEUP as u64 }
}

/// Sends a record that was built on the stack.
#[inline(always)]
pub fn send<T: Copy + 'static>(kind: Kind, seq: u64, record: T) -> bool {
    let Some(mut entry) = reserve::<T>(kind) else {
        return false;
    };
    entry.write(record);
    entry.submit(wakeup(seq));
    true
}
