//! Which hits count: those of followed processes, through the one attachment that is theirs.

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_attach_cookie, bpf_get_current_pid_tgid},
    programs::ProbeContext,
};
use aya_log_ebpf::warn;
use tracer_common::{
    config::{ADOPT_ANYBODY, ADOPT_NOBODY, Cookie, Followed, GoLayout, MAX_OFFSET},
    counters,
    header::Kind,
    process::ProcessImage,
};

use crate::{
    emit, go_abi,
    maps::{FOLLOWED, LAYOUTS, count, count_and_get, count_hit},
    process,
};

/// A hit that counts.
pub struct Hit {
    pub cookie: Cookie,
    pub pid_tgid: u64,
    pub layout: &'static GoLayout,
}

/// Decides whether this hit of a probe of `tier` counts. One that does not is counted as what it is; one that does makes a record.
#[inline(always)]
pub fn accept(ctx: &ProbeContext, tier: u8) -> Option<Hit> {
    // SAFETY: the context is the one the kernel passed.
    let cookie = Cookie::from_u64(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
    count_hit(cookie.binary, tier);
    let pid_tgid = bpf_get_current_pid_tgid();
    let tgid = (pid_tgid >> 32) as u32;
    let Some(followed) = FOLLOWED.get_ptr_mut(&tgid).or_else(|| adopt(cookie.adopt, tgid)) else {
        count(counters::FOREIGN_HITS);
        return None;
    };
    // SAFETY: a map value; a race with another thread of the process writes the same kind of value.
    let binary = unsafe { (*followed).binary };
    if binary != cookie.binary {
        if binary != 0 {
            count(counters::DUPLICATE_HITS);
            return None;
        }
        first_hit(ctx, cookie, pid_tgid, followed)?;
    }
    if !go_abi::zero_flag_is(ctx, cookie.zero_flag) {
        count(counters::FAILED_SWAPS);
        return None;
    }
    let layout = LAYOUTS.get(cookie.binary as u32)?;
    if !plausible(layout) {
        if count_and_get(counters::BAD_LAYOUT) == 0 {
            bad_layout(ctx, cookie);
        }
        return None;
    }
    Some(Hit { cookie, pid_tgid, layout })
}

/// Follows a process that is not, if the attachment says so.
#[inline(always)]
pub fn adopt(whom: u8, tgid: u32) -> Option<*mut Followed> {
    if whom == ADOPT_NOBODY {
        return None;
    }
    if whom != ADOPT_ANYBODY && !process::in_adopted_cgroup() {
        return None;
    }
    process::meet(tgid);
    FOLLOWED.get_ptr_mut(&tgid)
}

/// The first hit since the process's exec settles which attachment is its own, and tells userspace where it is mapped. If
/// that record does not fit, the next hit tries again.
#[inline(always)]
fn first_hit(ctx: &ProbeContext, cookie: Cookie, pid_tgid: u64, followed: *mut Followed) -> Option<()> {
    let header = emit::header(Kind::ProcessImage, cookie.binary, cookie.site, pid_tgid);
    let record = ProcessImage { header, ip: go_abi::instruction_pointer(ctx) };
    if !emit::send(Kind::ProcessImage, header.seq, record) {
        return None;
    }
    // SAFETY: a map value that lives as long as the program runs.
    unsafe { (*followed).binary = cookie.binary };
    Some(())
}

/// Whether a layout can be that of a Go runtime.
#[inline(always)]
pub fn plausible(layout: &GoLayout) -> bool {
    layout.valid == 1
        && layout.g_goid <= MAX_OFFSET
        && layout.g_gopc >= 8
        && layout.g_gopc <= MAX_OFFSET
        && layout.g_m <= MAX_OFFSET
        && layout.m_curg <= MAX_OFFSET
        && layout.g_sched_pc <= MAX_OFFSET
        && layout.g_sched_bp <= MAX_OFFSET
}

#[inline(never)]
fn bad_layout(ctx: &ProbeContext, cookie: Cookie) {
    warn!(ctx, "binary {} has no plausible runtime layout: its hits are dropped", cookie.binary);
}
