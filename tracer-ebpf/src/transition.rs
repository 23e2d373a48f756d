//! Changes of state that are no park, wake, birth or exit (T3), and what each thread runs.
//!
//! Which change a site makes stands in its cookie: userspace has read it from the code.

use aya_ebpf::programs::ProbeContext;
use tracer_common::{
    config::{CurrentG, GoLayout},
    goroutine::{GoroutineTransition, status},
    header::Kind,
};

use crate::{
    emit,
    filter::{Hit, accept},
    go_abi,
    goroutine::goid_of,
    maps::CURRENT,
    mem::read_user,
    stack,
};

/// From which stack a transition is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StackFrom {
    /// None is of interest: it begins to run, or has not run.
    Nowhere,
    /// The goroutine is on its own stack, and the frame record of the probed function is at RBP.
    FramePointer,
    /// The thread is on its system stack; where the goroutine stopped is saved in its g.
    Saved,
}

/// It begins to run, or is queued while it does not.
#[inline(always)]
pub fn without_stack(ctx: &ProbeContext) {
    change(ctx, StackFrom::Nowhere);
}

/// It enters a system call.
#[inline(always)]
pub fn on_own_stack(ctx: &ProbeContext) {
    change(ctx, StackFrom::FramePointer);
}

/// It yields, is preempted, or hands its thread to a coroutine.
#[inline(always)]
pub fn on_system_stack(ctx: &ProbeContext) {
    change(ctx, StackFrom::Saved);
}

#[inline(always)]
fn change(ctx: &ProbeContext, stack: StackFrom) {
    let Some(Hit { cookie, pid_tgid, layout }) = accept(ctx, 3) else {
        return;
    };
    let g = go_abi::register(ctx, cookie.register);
    let Some(goid) = goid_of(g, layout) else {
        return;
    };
    let (tgid, since) = ((pid_tgid >> 32) as u32, layout.scheduling as u16);
    let current = CurrentG { goid, tgid, binary: cookie.binary, since };
    match cookie.to {
        status::RUNNING => runs_on_thread(pid_tgid, current),
        // A system call is its own doing: the thread is still its.
        status::SYSCALL => {}
        _ => leaves_thread(layout, pid_tgid),
    }
    let stack_id = match stack {
        StackFrom::Nowhere => 0,
        StackFrom::FramePointer => stack::above(cookie, pid_tgid, go_abi::frame_pointer(ctx)),
        StackFrom::Saved => saved_stack(cookie, pid_tgid, g, layout),
    };
    let header = emit::header(Kind::GoroutineTransition, cookie.binary, cookie.site, pid_tgid);
    emit::send(
        Kind::GoroutineTransition,
        header.seq,
        GoroutineTransition { header, goid, stack_id, from: cookie.from, to: cookie.to, _pad: [0; 6] },
    );
}

/// Where a goroutine that has just stopped will go on.
#[inline(always)]
fn saved_stack(cookie: tracer_common::config::Cookie, pid_tgid: u64, g: u64, layout: &GoLayout) -> u64 {
    let Some(pc) = read_user::<u64>(g + layout.g_sched_pc as u64) else {
        return 0;
    };
    let Some(frame_pointer) = read_user::<u64>(g + layout.g_sched_bp as u64) else {
        return 0;
    };
    stack::from(cookie, pid_tgid, pc, frame_pointer)
}

/// Only the thread itself writes its entry, so the words need not change together.
#[inline(always)]
fn runs_on_thread(pid_tgid: u64, current: CurrentG) {
    let tid = pid_tgid as u32;
    match CURRENT.get_ptr_mut(&tid) {
        // SAFETY: a map value that lives as long as the program runs.
        Some(entry) => unsafe { *entry = current },
        None => {
            let _ = CURRENT.insert(&tid, &current, 0);
        }
    }
}

/// The thread goes on without the goroutine.
#[inline(always)]
pub fn leaves_thread(layout: &GoLayout, pid_tgid: u64) {
    if layout.scheduling == 0 {
        return;
    }
    if let Some(entry) = CURRENT.get_ptr_mut(&(pid_tgid as u32)) {
        // SAFETY: a map value that lives as long as the program runs.
        unsafe { (*entry).goid = 0 };
    }
}
