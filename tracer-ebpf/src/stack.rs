//! Walking frame pointers, and naming a stack by its addresses so that it is sent once.

use core::intrinsics::{AtomicOrdering, atomic_xchg};

use aya_ebpf::helpers::generated::{bpf_get_stack, bpf_probe_read_user};
use tracer_common::{
    config::Cookie,
    counters,
    header::Kind,
    stack::{EXACT, KERNEL, MAX_FRAMES, NATIVE, Stack, TOP_WORD, TRUNCATED, hash_add, hash_end, hash_start},
};

use crate::{
    emit,
    maps::{KERNEL_STACK, SCRATCH, STACKS, count},
};

/// Stacks are copied up to the next multiple of this: a copy costs about as much as its call, so one copy for several frames
/// is what makes a walk cheap, and what lies on one page with a live frame can be read without a fault.
const WINDOW_BYTES: u64 = 1024;
/// A saved frame pointer and a return address.
const RECORD_BYTES: u64 = 16;
/// Word offsets into a window, as a mask: it tells the verifier what the arithmetic guarantees.
const OFFSET_MASK: u64 = 0x7f8;

/// How far from each other two addresses of one program's code are at most.
const CODE_SPAN: u64 = 1 << 29;

/// A place to copy a piece of stack to; BPF's own stack is too small. One that is taken belongs to a task that was preempted
/// inside a program. What is known of the copy lies here too, and not in registers, so that the verifier does not follow
/// every value it may have.
#[repr(C)]
pub struct Scratch {
    taken: u64,
    /// Address of the first byte copied.
    base: u64,
    /// The largest offset at which a record lies whole in the copy.
    last: u64,
    words: [u64; (OFFSET_MASK as usize + 8 + 16) / 8],
    /// How many of `pcs` the walk has.
    depth: u64,
    /// The stack as far as it was walked: half of what a program may have on its own stack.
    pcs: [u64; MAX_FRAMES],
}

/// Scratch places of a CPU. More tasks than that preempted at once inside a program: their stacks are unknown.
pub const SCRATCHES: u32 = 4;

/// A taken scratch place.
struct Window(*mut Scratch);

impl Window {
    #[inline(always)]
    fn take() -> Option<Self> {
        for index in 0..SCRATCHES {
            let scratch = SCRATCH.get_ptr_mut(index)?;
            // SAFETY: an aligned word of a map value.
            if unsafe { atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(&raw mut (*scratch).taken, 1) } == 0 {
                // SAFETY: the place is ours. No address is below this base, so the first record is copied.
                unsafe {
                    (&raw mut (*scratch).base).write_volatile(u64::MAX);
                    (&raw mut (*scratch).last).write_volatile(0);
                    (&raw mut (*scratch).depth).write_volatile(0);
                }
                return Some(Self(scratch));
            }
        }
        count(counters::NO_SCRATCH);
        None
    }

    #[inline(always)]
    fn give_back(self) {
        // SAFETY: an aligned word of a map value that we took.
        unsafe { (&raw mut (*self.0).taken).write_volatile(0) };
    }

    /// How many addresses the walk has; [`MAX_FRAMES`] at most.
    #[inline(always)]
    fn depth(&self) -> usize {
        // SAFETY: the place is ours.
        unsafe { (&raw const (*self.0).depth).read_volatile() as usize }
    }

    /// Keeps one address more; `false` where there is no room for it.
    #[inline(always)]
    fn keep(&self, pc: u64) -> bool {
        let depth = self.depth();
        if depth >= MAX_FRAMES {
            return false;
        }
        // SAFETY: the place is ours, and the index was checked.
        unsafe {
            (&raw mut (*self.0).pcs).cast::<u64>().add(depth).write(pc);
            (&raw mut (*self.0).depth).write_volatile(depth as u64 + 1);
        }
        true
    }

    /// The two words at `at`; `None` where no record can be.
    #[inline(always)]
    fn record(&self, at: u64) -> Option<(u64, u64)> {
        // SAFETY: the place is ours.
        let (base, last) = unsafe { ((&raw const (*self.0).base).read_volatile(), (&raw const (*self.0).last).read_volatile()) };
        if at % 8 != 0 {
            return None;
        }
        let mut offset = at.wrapping_sub(base);
        if offset > last {
            self.copy_from(at)?;
            offset = 0;
        }
        offset &= OFFSET_MASK;
        // SAFETY: an offset within the mask and the word behind it lie in `words`.
        unsafe {
            let word = (&raw const (*self.0).words).cast::<u64>().byte_add(offset as usize);
            Some((word.read(), word.add(1).read()))
        }
    }

    #[inline(always)]
    fn copy_from(&self, at: u64) -> Option<()> {
        let mut length = WINDOW_BYTES - at % WINDOW_BYTES;
        if length < RECORD_BYTES {
            length = RECORD_BYTES;
        }
        // SAFETY: `words` is larger than length can be; the helper checks the source.
        let failed = unsafe { bpf_probe_read_user((&raw mut (*self.0).words).cast(), length as u32, at as *const _) };
        if failed != 0 {
            count(counters::FAULTS);
            return None;
        }
        // SAFETY: the place is ours.
        unsafe {
            (&raw mut (*self.0).base).write_volatile(at);
            (&raw mut (*self.0).last).write_volatile(length - RECORD_BYTES);
        }
        Some(())
    }
}

/// The stack of a goroutine that is just calling the probed function: the return address is at `stack_pointer`, and
/// `frame_pointer` is still the caller's, unless the cookie says that the function has begun a frame of its own.
#[inline(always)]
pub fn of_caller(cookie: Cookie, pid_tgid: u64, stack_pointer: u64, frame_pointer: u64) -> u64 {
    let Some(window) = Window::take() else {
        return 0;
    };
    let top = if cookie.framed { Some((0, 0)) } else { window.record(stack_pointer) };
    let id = match top {
        Some((return_address, _)) => walk(&window, cookie, pid_tgid, Begin::with(return_address), frame_pointer),
        None => 0,
    };
    window.give_back();
    id
}

/// The stack of a goroutine that has stopped at `pc`, in the function whose frame record is at `frame_pointer`.
#[inline(always)]
pub fn from(cookie: Cookie, pid_tgid: u64, pc: u64, frame_pointer: u64) -> u64 {
    let Some(window) = Window::take() else {
        return 0;
    };
    let id = walk(&window, cookie, pid_tgid, Begin::with(pc), frame_pointer);
    window.give_back();
    id
}

/// The stack above the function whose frame record is at `frame_pointer`.
#[inline(always)]
pub fn above(cookie: Cookie, pid_tgid: u64, frame_pointer: u64) -> u64 {
    from(cookie, pid_tgid, 0, frame_pointer)
}

/// The stack of code that was interrupted at `ip`. A function without a frame (or before it has made it) does not show in the
/// chain of frame pointers, nor does its caller: its return address is on top of the stack. Whether it is one of these,
/// userspace knows; a word that cannot be the address of code of the same program is left out here.
#[inline(always)]
pub fn interrupted(cookie: Cookie, pid_tgid: u64, ip: u64, stack_pointer: u64, frame_pointer: u64) -> u64 {
    let Some(window) = Window::take() else {
        return 0;
    };
    let word = match window.record(stack_pointer) {
        Some((word, _)) if word.wrapping_sub(ip).wrapping_add(CODE_SPAN) < 2 * CODE_SPAN => word,
        _ => 0,
    };
    let id = walk(&window, cookie, pid_tgid, Begin { first: ip, second: word, flags: EXACT }, frame_pointer);
    window.give_back();
    id
}

/// The stack of a process of which nothing is known but its registers. Its code may lie anywhere: what the word on top of the stack is
/// worth, userspace decides.
#[inline(always)]
pub fn native(pid_tgid: u64, ip: u64, stack_pointer: u64, frame_pointer: u64) -> u64 {
    let Some(window) = Window::take() else {
        return 0;
    };
    let word = window.record(stack_pointer).map_or(0, |(word, _)| word);
    let begin = Begin { first: ip, second: word, flags: EXACT | NATIVE };
    let id = walk(&window, Cookie::default(), pid_tgid, begin, frame_pointer);
    window.give_back();
    id
}

/// A kernel stack, as the helper fills it in.
#[repr(C)]
pub struct KernelStack {
    pcs: [u64; MAX_FRAMES],
}

/// The kernel stack of the current task. `ctx` is that of a program that cannot be preempted, so the CPU's place to copy to is ours.
#[inline(always)]
pub fn kernel(ctx: *mut core::ffi::c_void, pid_tgid: u64) -> u64 {
    let Some(place) = KERNEL_STACK.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: a map value; the helper writes at most as much as it is told it holds.
    let (copied, pcs) = unsafe {
        let bytes = size_of::<KernelStack>() as u32;
        (bpf_get_stack(ctx.cast(), place.cast(), bytes, 0), &(*place).pcs)
    };
    if copied <= 0 {
        return 0;
    }
    let depth = (copied as u64 / 8) as usize;
    let mut flags = KERNEL;
    // All words, without a look at how many were copied: the helper has set the others to zero, and a loop whose end is not known
    // costs the verifier a state for each turn.
    let hash = pcs.iter().fold(hash_start(0, flags), |hash, pc| hash_add(hash, *pc));
    if depth >= MAX_FRAMES {
        flags |= TRUNCATED;
    }
    let id = hash_end(hash);
    // SAFETY: the value is not read.
    if unsafe { STACKS.get(&id) }.is_none() {
        send(Cookie::default(), pid_tgid, id, depth.min(MAX_FRAMES) as u32, flags, pcs);
    }
    id
}

/// What stands before the frames that the walk finds; 0 for nothing.
#[derive(Clone, Copy)]
struct Begin {
    first: u64,
    second: u64,
    flags: u32,
}

impl Begin {
    #[inline(always)]
    fn with(return_address: u64) -> Self {
        Self { first: return_address, second: 0, flags: 0 }
    }
}

/// Follows the frame pointers and returns the stack's id, or 0 if nothing could be read. A stack not seen before is sent.
#[inline(always)]
fn walk(window: &Window, cookie: Cookie, pid_tgid: u64, begin: Begin, frame_pointer: u64) -> u64 {
    let mut flags = begin.flags;
    if begin.second != 0 {
        flags |= TOP_WORD;
    }
    let mut hash = hash_start(cookie.binary, flags);
    if flags & NATIVE != 0 {
        hash = hash_add(hash, pid_tgid >> 32);
    }
    for pc in [begin.first, begin.second] {
        if pc != 0 && window.keep(pc) {
            hash = hash_add(hash, pc);
        }
    }
    let mut at = frame_pointer;
    let mut truncated = TRUNCATED;
    for _ in 0..MAX_FRAMES {
        let frame = if at == 0 { None } else { window.record(at) };
        let Some((caller, return_address)) = frame else {
            truncated = 0;
            break;
        };
        if return_address == 0 {
            truncated = 0;
            break;
        }
        if !window.keep(return_address) {
            break;
        }
        hash = hash_add(hash, return_address);
        // Stacks grow down: a caller's frame lies above, or the chain is at its end (or broken).
        if caller <= at {
            truncated = 0;
            break;
        }
        at = caller;
    }
    let depth = window.depth();
    if depth == 0 {
        return 0;
    }
    let id = hash_end(hash);
    // SAFETY: the value is not read.
    if unsafe { STACKS.get(&id) }.is_none() {
        // SAFETY: the place is ours.
        let pcs = unsafe { &raw const (*window.0).pcs };
        send(cookie, pid_tgid, id, depth as u32, truncated | flags, pcs);
    }
    id
}

/// Sends a new stack. One that does not fit stays unknown to the map, so that the next hit tries again.
#[inline(always)]
fn send(cookie: Cookie, pid_tgid: u64, id: u64, depth: u32, flags: u32, pcs: *const [u64; MAX_FRAMES]) {
    let header = emit::header(Kind::Stack, cookie.binary, cookie.site, pid_tgid);
    let Some(mut entry) = emit::reserve::<Stack>(Kind::Stack) else {
        return;
    };
    let stack = entry.as_mut_ptr();
    // SAFETY: the entry is a reserved, writable Stack; every field is written before it is submitted. Words of `pcs` beyond `depth` are
    // of older stacks; userspace does not read them.
    unsafe {
        (*stack).header = header;
        (*stack).stack_id = id;
        (*stack).depth = depth;
        (*stack).flags = flags;
        (*stack).pcs = *pcs;
    }
    entry.submit(emit::wakeup(header.seq));
    let _ = STACKS.insert(&id, &1, 0);
}
