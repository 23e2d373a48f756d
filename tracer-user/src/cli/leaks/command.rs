//! `lifetrace leaks -- CMD`: runs a command, records it, and judges the recording.

use anyhow::{Context, Result};

use super::{
    Bench,
    go_test::{self, Ear},
};
use crate::cli::{
    Failure,
    args::{Global, LeaksArgs},
    run::{self, Asked},
};

/// CMD's own status where it is not 0, else what the gate says.
pub fn judge(args: &LeaksArgs, global: Global) -> Result<u8> {
    let bench = Bench { to_stderr: true, ..Bench::open(&args.gate, global)? };
    // Nobody asked for it: it goes when it has been read.
    let folder = tempfile::Builder::new()
        .prefix("lifetrace-")
        .tempdir()
        .context("no place for a recording")
        .map_err(Failure::environment)?;
    let recording = args.record.clone().unwrap_or_else(|| folder.path().join("leaks.rec"));
    let (ear, stdout) = match go_test::is_go_test(&args.command) {
        true => Ear::open().map(|(ear, stdout)| (Some(ear), Some(stdout)))?,
        false => (None, None),
    };
    let recorded =
        run::recorded(Asked { how: &args.how, command: &args.command, output: &recording, spare_toolchain: true, stdout })?;
    let command = recorded.whole(&recording)?;
    let not_watched = ear.map(Ear::cached).unwrap_or_default();
    let verdict = bench.judge(&recording, not_watched)?;
    Ok(if command == 0 { verdict } else { command })
}
