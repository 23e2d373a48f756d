//! Goroutines: birth, park, wake, exit. What each site guarantees stands at its function. Other changes of state:
//! [`crate::transition`].

use aya_ebpf::programs::ProbeContext;
use tracer_common::{
    config::GoLayout,
    goroutine::{GoroutineBirth, GoroutineExit, GoroutinePark, GoroutineParkAbort, GoroutineWake},
    header::Kind,
    summing::Kept,
};

use crate::{
    emit,
    filter::{Hit, accept},
    go_abi,
    mem::read_user,
    stack, summing, transition,
};

/// The goroutine on whose behalf the current thread runs: `getg().m.curg`, 0 for none. On a system stack that is not the
/// current g.
#[inline(always)]
fn current_user_g(ctx: &ProbeContext, layout: &GoLayout) -> u64 {
    let Some(m) = read_user::<u64>(go_abi::current_g(ctx) + layout.g_m as u64) else {
        return 0;
    };
    if m == 0 {
        return 0;
    }
    read_user::<u64>(m + layout.m_curg as u64).unwrap_or(0)
}

/// Its goid, 0 for none.
#[inline(always)]
pub fn current_goid(ctx: &ProbeContext, layout: &GoLayout) -> u64 {
    match current_user_g(ctx, layout) {
        0 => 0,
        g => goid_of(g, layout).unwrap_or(0),
    }
}

#[inline(always)]
pub fn goid_of(g: u64, layout: &GoLayout) -> Option<u64> {
    read_user::<u64>(g + layout.g_goid as u64)
}

/// Length of a call with a relative target.
const CALL_BYTES: u64 = 5;
/// Where a function keeps its first argument, from its frame pointer: behind what it saved of its caller's and its return address.
const FIRST_ARGUMENT: u64 = 16;

/// Neighbours in `struct g`: `parentGoid` (since Go 1.21), `gopc`, `ancestors`, `startpc`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Fields {
    parent_goid: u64,
    gopc: u64,
    _ancestors: u64,
    startpc: u64,
}

/// Where a goroutine comes from, as its g says.
#[derive(Clone, Copy)]
pub struct Origin {
    /// 0 for none.
    pub parent_goid: u64,
    pub gopc: u64,
    pub startpc: u64,
}

impl Origin {
    #[inline(always)]
    pub fn of(g: u64, layout: &GoLayout) -> Option<Self> {
        let Fields { parent_goid, gopc, startpc, .. } = read_user::<Fields>(g + layout.g_gopc as u64 - 8)?;
        let parent_goid = if layout.has_parent_goid == 0 { 0 } else { parent_goid };
        Some(Self { parent_goid, gopc, startpc })
    }
}

/// The new g is complete (goid, parentGoid, gopc, startpc are set) and not yet in any run queue: nothing can happen to it
/// before this record. Runs in a closure on the system stack of the creating thread.
#[inline(always)]
pub fn birth(ctx: &ProbeContext) {
    let Some(Hit { cookie, pid_tgid, layout }) = accept(ctx, 1) else {
        return;
    };
    let g = go_abi::register(ctx, cookie.register);
    let Some(goid) = goid_of(g, layout) else {
        return;
    };
    let Some(origin) = Origin::of(g, layout) else {
        return;
    };
    // The closure's own frame lies on the system stack, but systemstack leaves RBP alone when it switches (asm_amd64.s): what
    // the closure saved is the frame pointer of newproc, on the stack of whoever executed the `go` statement.
    let newproc_frame = read_user::<u64>(go_abi::frame_pointer(ctx)).unwrap_or(0);
    let stack_id = stack::above(cookie, pid_tgid, newproc_frame);
    if layout.min_block_ns != 0 && summing::birth(cookie, pid_tgid, goid, &origin, stack_id) {
        return;
    }
    let Origin { parent_goid, gopc, startpc } = origin;
    let header = emit::header(Kind::GoroutineBirth, cookie.binary, cookie.site, pid_tgid);
    emit::send(Kind::GoroutineBirth, header.seq, GoroutineBirth { header, goid, parent_goid, gopc, startpc, stack_id });
}

/// The semaphore that `semacquire1` parks for, whose frame this is; `lock` where that is not what parks, or nobody knows.
#[inline(always)]
fn waits_on(layout: &GoLayout, wait_reason: u8, frame: u64, lock: u64) -> u64 {
    // The shift must be in bounds for the verifier as well.
    if wait_reason >= 64 || layout.semaphore_reasons >> (wait_reason & 63) & 1 == 0 {
        return lock;
    }
    read_user::<u64>(frame + FIRST_ARGUMENT).unwrap_or(0)
}

/// Why a goroutine waits, where, and for what.
pub struct Waiting {
    pub wait_reason: u8,
    pub stack_id: u64,
    pub lock: u64,
}

/// Where a park is to be kept, if short waits are summed. Asked before the stack is walked: what the verifier has to go through behind that, it
/// goes through for every depth.
#[inline(always)]
fn place_of(Hit { cookie, pid_tgid, layout }: &Hit, g: u64, goid: u64) -> Option<*mut Kept> {
    if layout.min_block_ns == 0 {
        return None;
    }
    summing::place(*cookie, *pid_tgid, layout, g, goid)
}

#[inline(always)]
fn tell_park(Hit { cookie, pid_tgid, .. }: &Hit, place: Option<*mut Kept>, goid: u64, waiting: &Waiting) {
    if let Some(place) = place {
        return summing::park(place, *pid_tgid, waiting);
    }
    let Waiting { wait_reason, stack_id, lock } = *waiting;
    let header = emit::header(Kind::GoroutinePark, cookie.binary, cookie.site, *pid_tgid);
    emit::send(Kind::GoroutinePark, header.seq, GoroutinePark { header, goid, stack_id, lock, wait_reason, _pad: [0; 7] });
}

/// gopark's caller is at the top of the stack, its frame pointer still in the register; before Go 1.21, gopark's own is.
#[inline(always)]
pub fn park(ctx: &ProbeContext) {
    let Some(Hit { cookie, pid_tgid, layout }) = accept(ctx, 2) else {
        return;
    };
    let g = go_abi::current_g(ctx);
    let Some(goid) = goid_of(g, layout) else {
        return;
    };
    transition::leaves_thread(layout, pid_tgid);
    let hit = Hit { cookie, pid_tgid, layout };
    let place = place_of(&hit, g, goid);
    let stack_id = stack::of_caller(cookie, pid_tgid, go_abi::stack_pointer(ctx), go_abi::frame_pointer(ctx));
    let wait_reason = go_abi::arg2(ctx) as u8;
    let lock = waits_on(layout, wait_reason, go_abi::frame_pointer(ctx), go_abi::arg1(ctx));
    tell_park(&hit, place, goid, &Waiting { wait_reason, stack_id, lock });
}

/// A copy of gopark in its caller is about to call `mcall(park_m)`: what gopark is given has been stored, and the frame is that of
/// the function that holds the copy.
#[inline(always)]
pub fn inlined_park(ctx: &ProbeContext) {
    let Some(Hit { cookie, pid_tgid, layout }) = accept(ctx, 2) else {
        return;
    };
    let g = go_abi::current_g(ctx);
    let Some(goid) = goid_of(g, layout) else {
        return;
    };
    let wait_reason = read_user::<u8>(g + layout.g_waitreason as u64).unwrap_or(0);
    let lock = match read_user::<u64>(g + layout.g_m as u64) {
        Some(m) if m != 0 && layout.m_waitlock != 0 => read_user::<u64>(m + layout.m_waitlock as u64).unwrap_or(0),
        _ => 0,
    };
    let lock = waits_on(layout, wait_reason, go_abi::frame_pointer(ctx), lock);
    let hit = Hit { cookie, pid_tgid, layout };
    let place = place_of(&hit, g, goid);
    let return_address = go_abi::instruction_pointer(ctx) + CALL_BYTES;
    let stack_id = stack::from(cookie, pid_tgid, return_address, go_abi::frame_pointer(ctx));
    tell_park(&hit, place, goid, &Waiting { wait_reason, stack_id, lock });
}

/// `park_m` is about to call `casgstatus(gp, _Gwaiting, _Grunnable)` because the unlock function returned false.
#[inline(always)]
pub fn park_abort(ctx: &ProbeContext) {
    let Some(Hit { cookie, pid_tgid, layout }) = accept(ctx, 2) else {
        return;
    };
    let Some(goid) = goid_of(go_abi::register(ctx, cookie.register), layout) else {
        return;
    };
    if layout.min_block_ns != 0 && summing::park_abort(pid_tgid, goid) {
        return;
    }
    let header = emit::header(Kind::GoroutineParkAbort, cookie.binary, cookie.site, pid_tgid);
    emit::send(Kind::GoroutineParkAbort, header.seq, GoroutineParkAbort { header, goid });
}

/// The runtime is about to call `casgstatus(gp, _Gwaiting, _Grunnable)`: the goroutine cannot run before this record.
#[inline(always)]
pub fn wake(ctx: &ProbeContext) {
    let Some(Hit { cookie, pid_tgid, layout }) = accept(ctx, 2) else {
        return;
    };
    let Some(goid) = goid_of(go_abi::register(ctx, cookie.register), layout) else {
        return;
    };
    let waker_goid = current_goid(ctx, layout);
    if layout.min_block_ns != 0 && summing::wake(cookie, pid_tgid, layout, goid, waker_goid) {
        return;
    }
    let header = emit::header(Kind::GoroutineWake, cookie.binary, cookie.site, pid_tgid);
    emit::send(Kind::GoroutineWake, header.seq, GoroutineWake { header, goid, waker_goid });
}

/// The runtime is about to call `casgstatus(gp, _Grunning, _Gdead)`: the g still has its goid.
#[inline(always)]
pub fn exit(ctx: &ProbeContext) {
    let Some(Hit { cookie, pid_tgid, layout }) = accept(ctx, 1) else {
        return;
    };
    let Some(goid) = goid_of(go_abi::register(ctx, cookie.register), layout) else {
        return;
    };
    transition::leaves_thread(layout, pid_tgid);
    if layout.min_block_ns != 0 && summing::exit(cookie, pid_tgid, layout, goid) {
        return;
    }
    let header = emit::header(Kind::GoroutineExit, cookie.binary, cookie.site, pid_tgid);
    emit::send(Kind::GoroutineExit, header.seq, GoroutineExit { header, goid });
}
