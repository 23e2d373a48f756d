//! Walking frame pointers, and naming a stack by its addresses so that it is sent once.

use tracer_common::{
    header::Kind,
    stack::{MAX_FRAMES, Stack, hash_add, hash_end, hash_start},
};

use crate::{
    emit,
    maps::STACKS,
    mem::read_user,
};

/// A frame as Go's prologues leave it: the caller's frame pointer, then the return address.
#[derive(Clone, Copy)]
#[repr(C)]
struct FrameRecord {
    caller: u64,
    return_address: u64,
}

/// Walks from `frame_pointer` (its record holds the first return address, unless `first` is one already) and returns the
/// stack's id, or 0 if nothing could be read. A stack not seen before is sent.
#[inline(always)]
pub fn walk(binary: u16, site: u16, first: u64, frame_pointer: u64) -> u64 {
    let mut pcs = [0u64; MAX_FRAMES];
    let mut depth = 0usize;
    let mut hash = hash_start(binary);
    if first != 0 {
        pcs[0] = first;
        hash = hash_add(hash, first);
        depth = 1;
    }
    let mut at = frame_pointer;
    let mut truncated = 1u32;
    for _ in 0..MAX_FRAMES {
        if depth >= MAX_FRAMES {
            break;
        }
        if at == 0 || at % 8 != 0 {
            truncated = 0;
            break;
        }
        let Some(frame) = read_user::<FrameRecord>(at) else {
            truncated = 0;
            break;
        };
        if frame.return_address == 0 {
            truncated = 0;
            break;
        }
        // SAFETY: depth < MAX_FRAMES was checked above; a bounds check by core would bring in its panic.
        unsafe { *pcs.get_unchecked_mut(depth) = frame.return_address };
        hash = hash_add(hash, frame.return_address);
        depth += 1;
        // Stacks grow down: a caller's frame lies above, or the chain is broken.
        if frame.caller <= at {
            truncated = 0;
            break;
        }
        at = frame.caller;
    }
    if depth == 0 {
        return 0;
    }
    let id = hash_end(hash);
    // SAFETY: the value is not read.
    if unsafe { STACKS.get(&id) }.is_none() {
        send(binary, site, id, depth as u32, truncated, &pcs);
    }
    id
}

/// Sends a new stack. One that does not fit stays unknown to the map, so that the next hit tries again.
#[inline(always)]
fn send(binary: u16, site: u16, id: u64, depth: u32, truncated: u32, pcs: &[u64; MAX_FRAMES]) {
    let header = emit::header(Kind::Stack, binary, site);
    let Some(mut entry) = emit::reserve::<Stack>(Kind::Stack) else {
        return;
    };
    let stack = entry.as_mut_ptr();
    // SAFETY: the entry is a reserved, writable Stack; every field is written before it is submitted.
    unsafe {
        (*stack).header = header;
        (*stack).stack_id = id;
        (*stack).depth = depth;
        (*stack).truncated = truncated;
        (*stack).pcs = *pcs;
    }
    entry.submit(emit::wakeup(header.seq));
    let _ = STACKS.insert(&id, &1, 0);
}
