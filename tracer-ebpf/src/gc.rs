//! The garbage collector: cycles begun, the world stopped and started.

use aya_ebpf::programs::ProbeContext;
use tracer_common::{
    gc::{GcCycleStart, StartTheWorld, StopTheWorld},
    header::Kind,
};

use crate::{
    emit,
    filter::{Hit, accept},
    go_abi,
    goroutine::current_goid,
};

/// Runs on a system stack: R14 is not the goroutine that asks.
#[inline(always)]
pub fn stop_the_world(ctx: &ProbeContext) {
    let Some(Hit { cookie, pid_tgid, layout }) = accept(ctx, 1) else {
        return;
    };
    let goid = current_goid(ctx, layout);
    let header = emit::header(Kind::StopTheWorld, cookie.binary, cookie.site, pid_tgid);
    let record = StopTheWorld { header, goid, reason: go_abi::arg0(ctx) as u8, _pad: [0; 7] };
    emit::send(Kind::StopTheWorld, header.seq, record);
}

/// Runs on a system stack too.
#[inline(always)]
pub fn start_the_world(ctx: &ProbeContext) {
    let Some(Hit { cookie, pid_tgid, layout }) = accept(ctx, 1) else {
        return;
    };
    let goid = current_goid(ctx, layout);
    let header = emit::header(Kind::StartTheWorld, cookie.binary, cookie.site, pid_tgid);
    emit::send(Kind::StartTheWorld, header.seq, StartTheWorld { header, goid });
}

/// The goroutine that begins the cycle has passed every check that could call it off.
#[inline(always)]
pub fn cycle_start(ctx: &ProbeContext) {
    let Some(Hit { cookie, pid_tgid, layout }) = accept(ctx, 1) else {
        return;
    };
    let goid = current_goid(ctx, layout);
    let header = emit::header(Kind::GcCycleStart, cookie.binary, cookie.site, pid_tgid);
    emit::send(Kind::GcCycleStart, header.seq, GcCycleStart { header, goid });
}
