//! The kernel's side: loading and attaching the BPF programs, draining the ring, starting the command, holding execs.
//!
//! The only user of aya. It hands on raw records and never interprets them beyond what following processes needs.

pub mod calibrate;
pub mod cgroups;
mod classic;
pub mod command;
pub mod counters;
pub mod facts;
pub mod faults;
pub mod features;
pub mod gate;
#[cfg(feature = "agent")]
pub mod heap;
mod left_out;
mod links;
pub mod memory;
mod multi;
pub mod offsets;
#[cfg(feature = "agent")]
pub mod priority;
#[cfg(feature = "agent")]
pub mod privileges;
mod program_info;
pub mod programs;
pub mod readiness;
pub mod ring;
mod rings;
pub mod sampling;
pub mod session;
pub mod shared;
pub mod signals;
pub mod summing;
pub mod synthetic;
pub mod usdt;
pub mod watermark;

use std::path::PathBuf;

use thiserror::Error;

/// What can go wrong between lifetrace and the kernel.
#[derive(Debug, Error)]
pub enum KernelError {
    #[error("the kernel's type information cannot be read ({path})")]
    NoBtf { path: PathBuf, source: btf_rs::Error },
    #[error("this kernel's {structure} has no field {field}")]
    NoField { structure: &'static str, field: &'static str },
    #[error("the BPF object cannot be loaded")]
    Load(#[from] aya::EbpfError),
    #[error("BPF program {program} cannot be {step}")]
    Program {
        program: &'static str,
        step: &'static str,
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    #[error("the kernel's verifier refuses BPF program {program}: {verdict} (the whole log: LIFETRACE_LOG=debug)")]
    Refused { program: &'static str, verdict: String },
    #[error("no BPF program or map {0} in the object")]
    Missing(&'static str),
    #[error("BPF map {map} cannot be used")]
    Map {
        map: &'static str,
        #[source]
        source: Box<aya::maps::MapError>,
    },
    #[error("the probe at byte {file_offset:#x} of {path} cannot be set")]
    Attach {
        file_offset: u64,
        path: PathBuf,
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    #[error("probes in {path} cannot be set")]
    AttachAll {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "this kernel has no hook that tells of: {0}; it needs BTF (CONFIG_DEBUG_INFO_BTF), or tracefs (mount -t tracefs nodev /sys/kernel/tracing)"
    )]
    NoHook(&'static str),
    #[error("too many different USDT probes in one session (at most {0})")]
    TooManySpecs(u32),
    #[error("too many binaries in one session (at most {0})")]
    TooManyBinaries(u32),
    #[error("{what}")]
    Io {
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
}

impl KernelError {
    pub(crate) fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { what, source }
    }

    pub(crate) fn program(program: &'static str, step: &'static str) -> impl FnOnce(aya::programs::ProgramError) -> Self {
        move |source| match source {
            aya::programs::ProgramError::LoadError { io_error, verifier_log } => {
                let log = verifier_log.to_string();
                tracing::debug!("{log}");
                Self::Refused { program, verdict: verdict(&log).unwrap_or_else(|| io_error.to_string()) }
            }
            source => Self::Program { program, step, source: Box::new(source) },
        }
    }

    pub(crate) fn map(map: &'static str) -> impl FnOnce(aya::maps::MapError) -> Self {
        move |source| Self::Map { map, source: Box::new(source) }
    }
}

/// The line of a verifier's log that says why: the last one before its statistics.
fn verdict(log: &str) -> Option<String> {
    let statistics = |line: &&str| {
        let of_subprogram = line.starts_with("subprog ") && line.contains(" insns_self ");
        of_subprogram || ["verification time", "stack depth", "processed "].iter().any(|start| line.starts_with(start))
    };
    log.lines().map(str::trim).rfind(|line| !line.is_empty() && !statistics(line)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that of a verifier's log the line is shown that gives the reason.
    #[test]
    fn verdicts() {
        let log = "0: R1=ctx()\n145: (85) call bpf_probe_read_user#112\nR2 unbounded memory access\nverification time 5581 usec\n\
                   stack depth 56\nsubprog 1 (memset) static insns_self 0 insns_total 0 stack 0\nprocessed 342 insns (limit 1000000) max_states_per_insn 2\n\n";
        assert_eq!(verdict(log).as_deref(), Some("R2 unbounded memory access"));
        assert_eq!(verdict(""), None);
    }
}
