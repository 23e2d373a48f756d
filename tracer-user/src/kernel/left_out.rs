//! Runs of our programs on tracepoints that the kernel left out.
//!
//! A program on a tracepoint is not run while it runs already on that CPU, and that is counted. Until Linux 6.19 such a program is not
//! preempted, and the count stays 0; from 7.0 on it can be. Forks, execs and exits have a second program each, which is left out only
//! where another task was preempted in it, too (tracer-ebpf/src/turn.rs).
//!
//! Source: `kernel/trace/bpf_trace.c` (`__bpf_trace_run`), `include/uapi/linux/bpf.h` (`bpf_prog_info.recursion_misses`, Linux 5.12).

use std::{
    ffi::c_int,
    io,
    mem::{size_of, zeroed},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use aya::{Ebpf, programs::Program};
use aya_obj::generated::{bpf_attr__bindgen_ty_9 as ObjectInfo, bpf_prog_info};

use super::{facts::{is_second, second}, multi::bpf};
use crate::recording::contract::LeftOut;

/// `BPF_OBJ_GET_INFO_BY_FD` of `linux/bpf.h`.
const BPF_OBJ_GET_INFO_BY_FD: c_int = 15;

/// By tracepoint: how many runs were left out at most, whichever process they were about. Zeros are not listed.
pub fn runs(ebpf: &Ebpf) -> Vec<LeftOut> {
    let misses = |name: &str| match ebpf.program(name) {
        Some(Program::BtfTracePoint(program)) => program.fd().ok().and_then(|fd| misses(fd.as_fd()).ok()),
        _ => None,
    };
    let hooks = ebpf.programs().filter_map(|(name, _)| {
        let first = misses(name)?;
        // What both left out is at most what each did.
        let runs = second(name).and_then(misses).map_or(first, |second| second.min(first));
        (runs > 0).then(|| LeftOut { hook: name.to_owned(), runs })
    });
    // A second program's own count says nothing: the first was there.
    let mut hooks: Vec<LeftOut> = hooks.filter(|left_out| !is_second(&left_out.hook)).collect();
    hooks.sort_by(|one, other| one.hook.cmp(&other.hook));
    hooks
}

fn misses(program: BorrowedFd<'_>) -> io::Result<u64> {
    // SAFETY: a structure of integers.
    let mut info: bpf_prog_info = unsafe { zeroed() };
    let info_len = size_of::<bpf_prog_info>() as u32;
    let attr = ObjectInfo { bpf_fd: program.as_raw_fd().cast_unsigned(), info_len, info: std::ptr::from_mut(&mut info) as u64 };
    // SAFETY: `info` outlives the call and is as long as it says; what the kernel does not know stays zero.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &attr) }?;
    Ok(info.recursion_misses)
}
