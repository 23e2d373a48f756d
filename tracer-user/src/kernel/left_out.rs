//! Runs of our programs on tracepoints that the kernel left out.
//!
//! A program on a tracepoint is not run while it runs already on that CPU, and that is counted. Up to Linux 6.18 it is not preempted and
//! the count stays 0; on 7.3 it can be (docs/limits.md). Forks, execs and exits have a second program each, which is left out only
//! where another task was preempted in it, too (tracer-ebpf/src/turn.rs).
//!
//! Source: `kernel/trace/bpf_trace.c` (`__bpf_trace_run`), `include/uapi/linux/bpf.h` (`bpf_prog_info.recursion_misses`, Linux 5.12).

use std::{collections::BTreeMap, os::fd::AsFd};

use aya::{Ebpf, programs::Program};

use super::{facts::first_of, program_info};
use crate::recording::contract::LeftOut;

/// By tracepoint: how many runs were left out at most, whichever process they were about. Zeros are not listed.
pub fn runs(ebpf: &Ebpf) -> Vec<LeftOut> {
    let mut by_hook: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, program) in ebpf.programs() {
        let Program::BtfTracePoint(program) = program else { continue };
        // One that is not attached has nothing to tell.
        let Some(info) = program.fd().ok().and_then(|fd| program_info::of(fd.as_fd()).ok()) else { continue };
        let misses = info.recursion_misses;
        // What both of two left out is at most what each did.
        let least = by_hook.entry(first_of(name)).or_insert(misses);
        *least = misses.min(*least);
    }
    by_hook.into_iter().filter(|(_, runs)| *runs > 0).map(|(hook, runs)| LeftOut { hook: hook.to_owned(), runs }).collect()
}
