//! USDT probes: whose hits count, and what their arguments are.

use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_get_attach_cookie, bpf_get_current_pid_tgid,
        generated::{bpf_probe_read_user, bpf_probe_read_user_str},
    },
    programs::ProbeContext,
};
use core::arch::asm;
use tracer_common::{
    counters,
    header::Kind,
    usdt::{ARG_MEMORY, ARG_NONE, ArgSpec, MAX_ARGS, NO_REGISTER, TEXT_MAX, UsdtCookie, UsdtHit, UsdtSpec},
};

use crate::{
    emit, filter,
    maps::{FOLLOWED, USDT_SPECS, count, count_hit},
    mem::read_kernel,
};

/// Tells of a hit by a followed process.
#[inline(always)]
pub fn hit(ctx: &ProbeContext) {
    // SAFETY: the context is the one the kernel passed.
    let cookie = UsdtCookie::from_u64(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
    count_hit(cookie.object, 0);
    let pid_tgid = bpf_get_current_pid_tgid();
    let tgid = (pid_tgid >> 32) as u32;
    if FOLLOWED.get_ptr(&tgid).is_none() && filter::adopt(cookie.adopt, tgid).is_none() {
        count(counters::FOREIGN_HITS);
        return;
    }
    let Some(spec) = USDT_SPECS.get(cookie.spec as u32) else {
        return;
    };
    let header = emit::header(Kind::UsdtHit, cookie.object, cookie.site, pid_tgid);
    let Some(mut entry) = emit::reserve::<UsdtHit>(Kind::UsdtHit) else {
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is a reserved, writable UsdtHit. Bytes of `text` beyond `text_len` are whatever the ring held before;
    // userspace does not read them.
    unsafe {
        (*record).header = header;
        (*record)._pad = 0;
    }
    let fetched = arguments(ctx, spec, record);
    // SAFETY: as above.
    unsafe { (*record).fetched = fetched };
    entry.submit(emit::wakeup(header.seq));
}

/// Fills in the arguments and the text; returns which arguments there are.
#[inline(always)]
fn arguments(ctx: &ProbeContext, spec: &UsdtSpec, record: *mut UsdtHit) -> u8 {
    let mut fetched = 0;
    let (mut text, mut length) = (0, TEXT_MAX as u64);
    for index in 0..MAX_ARGS {
        let value = argument(ctx, &spec.args[index]);
        if value.is_some() {
            fetched |= 1 << index;
        }
        let value = value.unwrap_or(0);
        if index == spec.text as usize {
            text = value;
        }
        if index == spec.text_len as usize {
            length = value;
        }
        // SAFETY: the record is reserved and writable, and has a place for each argument.
        unsafe { (*record).args[index] = value };
    }
    // SAFETY: as above; the helpers write no more than the length they are given, and report a fault.
    unsafe {
        (*record).has_text = 0;
        (*record).text_len = 0;
        if text == 0 {
            return fetched;
        }
        let into = (&raw mut (*record).text).cast();
        let copied = if (spec.text_len as usize) < MAX_ARGS {
            let mut wanted = if length >= TEXT_MAX as u64 { TEXT_MAX as u64 - 1 } else { length };
            // Changes nothing, but is what the verifier of Linux 6.1 understands; LLVM would leave it out.
            asm!("{0} &= {1}", inout(reg) wanted, const TEXT_MAX - 1);
            let copied = bpf_probe_read_user(into, wanted as u32, text as *const _);
            if copied == 0 { wanted as i64 } else { -1 }
        } else {
            // The NUL counts.
            bpf_probe_read_user_str(into, TEXT_MAX as u32, text as *const _) - 1
        };
        if copied < 0 {
            count(counters::FAULTS);
            return fetched;
        }
        (*record).has_text = 1;
        (*record).text_len = copied as u16;
    }
    fetched
}

/// The value of one argument; `None` where there is none, or memory could not be read.
#[inline(always)]
fn argument(ctx: &ProbeContext, spec: &ArgSpec) -> Option<u64> {
    if spec.kind == ARG_NONE {
        return None;
    }
    let mut value = spec.offset as u64;
    if spec.base != NO_REGISTER {
        value = value.wrapping_add(register(ctx, spec.base) >> (spec.skip_bits & 63));
    }
    if spec.index != NO_REGISTER {
        value = value.wrapping_add(register(ctx, spec.index) << (spec.shift & 63));
    }
    let size = (spec.size_less_one & 7) as u32 + 1;
    if spec.kind == ARG_MEMORY {
        let address = value;
        value = 0;
        // SAFETY: the helper writes at most 8 bytes to a local of 8, and reports a fault.
        if unsafe { bpf_probe_read_user((&raw mut value).cast(), size, address as *const _) } != 0 {
            count(counters::FAULTS);
            return None;
        }
    }
    let unused = (64 - 8 * size) & 63;
    value <<= unused;
    Some(if spec.signed != 0 { ((value as i64) >> unused) as u64 } else { value >> unused })
}

/// The register at an offset in `struct pt_regs`.
#[inline(always)]
fn register(ctx: &ProbeContext, offset: u8) -> u64 {
    read_kernel::<u64>(ctx.regs.cast(), offset as u32).unwrap_or(0)
}
