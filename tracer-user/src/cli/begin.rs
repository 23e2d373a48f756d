//! What every recording begins with: the right to trace, the facts of its first block, its file.

use std::{fs::File, path::Path};

use anyhow::{Result, bail};
use nix::unistd::{getegid, geteuid, setfsgid, setfsuid};

use super::args::DetailArgs;
use crate::{
    clock::ClockTie,
    kernel::{
        calibrate::Traps,
        command::Identity,
        facts::Offers,
        features,
        session::{Session, Sizes},
    },
    recording::{
        contract::{Meta, Threads, Tier},
        writer::Writer,
    },
};

/// Whether we are allowed to set probes, and see processes as the kernel names them.
pub fn may_trace() -> Result<()> {
    if let Some(missing) = features::missing_privilege() {
        bail!(missing);
    }
    if !features::in_initial_pid_namespace() {
        bail!("lifetrace must see the initial pid namespace: run it on the host, or in a container with the host's");
    }
    if let Some(missing) = features::missing_in_kernel() {
        bail!("this kernel ({}) has no {}; it takes {}", features::kernel_release(), missing.name, missing.advice);
    }
    Ok(())
}

/// What a probe's trap costs here, if that can be measured.
pub fn calibrated(session: &mut Session) -> Option<Traps> {
    Traps::measure(session).inspect_err(|error| tracing::warn!(%error, "the cost of a hit could not be measured")).ok()
}

/// The facts of this machine and this moment, where no probe is asked for; what is traced is for the caller to add.
pub fn bare_meta() -> Meta {
    Meta {
        lifetrace: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: features::hostname(),
        kernel: features::kernel_release(),
        cpus: std::thread::available_parallelism().map_or(0, |cpus| cpus.get() as u32),
        clock: ClockTie::now(),
        tier: Tier::T0,
        budget_ppm: None,
        command: Vec::new(),
        target: None,
        hit_cost_ns: None,
        threads: Threads::Off,
        min_block_ns: None,
        cut: None,
    }
}

/// Bytes of a command that a recording keeps: as many as `target::procfs` keeps of a process's arguments.
const MAX_COMMAND: usize = 4096;

/// The same, with the detail that is asked for.
pub fn meta(detail: &DetailArgs, traps: Option<Traps>) -> Meta {
    Meta {
        tier: detail.tier(),
        budget_ppm: detail.budget().map(|share| (share * 1e6) as u32),
        hit_cost_ns: traps.map(|traps| traps.push),
        threads: detail.threads(),
        min_block_ns: detail.min_block.map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)),
        ..bare_meta()
    }
}

/// The command as the recording keeps it: its beginning, where it is longer than anybody reads.
pub fn kept(command: Vec<String>) -> Vec<String> {
    let mut room = MAX_COMMAND;
    let mut kept = Vec::new();
    for mut word in command {
        if word.len() > room {
            word.truncate(word.floor_char_boundary(room));
            word.push('…');
            kept.push(word);
            break;
        }
        room -= word.len();
        kept.push(word);
    }
    kept
}

/// Creates the recording with the rights of the user it is to belong to.
pub fn create(output: &Path, meta: &Meta, identity: Option<&Identity>) -> Result<Writer<File>> {
    if let Some(identity) = identity {
        setfsgid(identity.gid);
        setfsuid(identity.uid);
    }
    let writer = Writer::create(output, meta);
    setfsuid(geteuid());
    setfsgid(getegid());
    Ok(writer?)
}

/// The sizes where short waits and lives are summed: so many goroutines are kept, and so many sums counted.
pub fn summing_sizes() -> Sizes {
    Sizes { kept: 1 << 18, sums: 1 << 14, ..Sizes::default() }
}

/// How large the BPF side's tables are to be.
pub fn sizes(detail: &DetailArgs, knob: impl Fn(&str) -> Option<u32>) -> Sizes {
    let default = summing_sizes();
    let summing = |size: u32, name: &str| detail.min_block.map_or(0, |_| knob(name).unwrap_or(size));
    // A table that is not used is as small as can be.
    Sizes {
        ring_bytes: knob("ring-bytes"),
        processes: knob("max-processes").unwrap_or(default.processes),
        kept: summing(default.kept, "max-kept"),
        sums: summing(default.sums, "max-sums"),
    }
}

/// What the kernel offers to hook into; hidden knobs make less of it, to test what serves on kernels that offer less.
pub fn offers(has_knob: impl Fn(&str) -> bool) -> Offers {
    let offers = if has_knob("no-btf") { Offers::look_without_btf() } else { Offers::look() };
    let offers = if has_knob("one-by-one") { offers.one_by_one() } else { offers };
    if has_knob("seconds-only") { offers.seconds_only() } else { offers }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a long command is cut where it is too long, between letters, and a short one is not.
    #[test]
    fn long_commands() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(kept(words(&["a", "", "b"])), words(&["a", "", "b"]));
        let long = kept(vec!["go".to_owned(), "ä".repeat(5000), "never".to_owned()]);
        assert_eq!(long, ["go".to_owned(), "ä".repeat(2047) + "…"]);
        assert_eq!(kept(vec!["x".repeat(4096), "y".to_owned()]), ["x".repeat(4096), "…".to_owned()]);
    }
}
