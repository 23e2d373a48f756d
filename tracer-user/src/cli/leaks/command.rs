//! `lifetrace leaks -- CMD`: runs a command, records it, and judges the recording.

use anyhow::{Context, Result};

use super::Gate;
use crate::cli::{
    Failure,
    args::{Global, LeaksArgs},
    run,
};

/// CMD's own status where it is not 0, else what the gate says.
pub fn judge(args: &LeaksArgs, global: Global) -> Result<u8> {
    let gate = Gate { to_stderr: true, ..Gate::open(&args.gate, global)? };
    // Nobody asked for it: it goes when it has been read.
    let folder = tempfile::Builder::new()
        .prefix("lifetrace-")
        .tempdir()
        .context("no place for a recording")
        .map_err(Failure::environment)?;
    let recording = args.record.clone().unwrap_or_else(|| folder.path().join("leaks.rec"));
    let recorded = run::recorded(&args.how, &args.command, &recording, true)?;
    let command = recorded.whole(&recording)?;
    let verdict = gate.judge(&recording)?;
    Ok(if command == 0 { verdict } else { command })
}
