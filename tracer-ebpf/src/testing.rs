//! Go's test framework: tests that are started, by name.

use core::arch::asm;

use aya_ebpf::{helpers::generated::bpf_probe_read_user, programs::ProbeContext};
use tracer_common::{
    counters,
    header::Kind,
    testing::{NAME_MAX, TestRun},
};

use crate::{
    emit,
    filter::{Hit, accept},
    go_abi,
    goroutine::current_goid,
    maps::count,
};

/// In `(*T).Run(name string, f func(t *T))`: the receiver is the first argument, the name the two behind it.
#[inline(always)]
pub fn run(ctx: &ProbeContext) {
    let Some(Hit { cookie, pid_tgid, layout }) = accept(ctx, 1) else {
        return;
    };
    let goid = current_goid(ctx, layout);
    let (name, length) = (go_abi::arg1(ctx), go_abi::arg2(ctx));
    let header = emit::header(Kind::TestRun, cookie.binary, cookie.site, pid_tgid);
    let Some(mut entry) = emit::reserve::<TestRun>(Kind::TestRun) else {
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is a reserved, writable TestRun. Bytes of `name` beyond `name_copied` are whatever the ring held before;
    // userspace does not read them.
    unsafe {
        (*record).header = header;
        (*record).goid = goid;
        (*record).name_len = length.min(u32::MAX as u64) as u32;
        let mut wanted = if length >= NAME_MAX as u64 { NAME_MAX as u64 - 1 } else { length };
        // Changes nothing, but is what the verifier of Linux 6.1 understands; LLVM would leave it out.
        asm!("{0} &= {1}", inout(reg) wanted, const NAME_MAX - 1);
        let copied = bpf_probe_read_user((&raw mut (*record).name).cast(), wanted as u32, name as *const _);
        if copied != 0 {
            count(counters::FAULTS);
        }
        (*record).name_copied = if copied == 0 { wanted as u32 } else { 0 };
    }
    entry.submit(emit::wakeup(header.seq));
}
