//! The fuzzer: libFuzzer around one of the [`targets`], which `LIFETRACE_FUZZ_TARGET` names.
//!
//! `cargo xtask fuzz` builds and runs it. Beside panics and overflows, which end the process by themselves, an input fails that
//! takes more than [`CPU_LIMIT`] of processor time or [`limit::MEMORY`] of memory: both are counted, so that a busy machine changes
//! nothing. libFuzzer's own time-out is for what hangs.

#![no_main]

mod limit;
mod targets;

use std::{sync::OnceLock, time::Duration};

use libfuzzer_sys::fuzz_target;

/// Processor time that one input may take.
const CPU_LIMIT: Duration = Duration::from_secs(2);

#[global_allocator]
static ALLOCATOR: limit::Counting = limit::Counting;

static TARGET: OnceLock<targets::Target> = OnceLock::new();

fuzz_target!(init: choose(), |input: &[u8]| {
    if let Some(target) = TARGET.get() {
        let began = limit::cpu_time();
        limit::of_memory(|| target(input));
        let took = limit::cpu_time().saturating_sub(began);
        assert!(took <= CPU_LIMIT, "{} bytes of input took {took:?} of processor time", input.len());
    }
});

fn choose() {
    let name = std::env::var("LIFETRACE_FUZZ_TARGET").unwrap_or_default();
    let Some((_, target)) = targets::ALL.iter().find(|(known, _)| *known == name) else {
        let known: Vec<_> = targets::ALL.iter().map(|(name, _)| *name).collect();
        panic!("LIFETRACE_FUZZ_TARGET is {name:?}, none of {known:?}");
    };
    let _ = TARGET.set(*target);
}
