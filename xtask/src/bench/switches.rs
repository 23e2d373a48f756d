//! The program that does nothing but switch between two processes (tests/fixtures/c/switches.c).

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{place, shell};

/// Bytes that the two hand to and fro, two switches each.
pub const TURNS: &str = "100000";
/// Ten times as many.
pub const MANY_TURNS: &str = "1000000";

#[derive(Deserialize)]
struct Said {
    ns_per_switch: f64,
}

/// Builds it.
pub fn build() -> Result<PathBuf> {
    let program = place::target().join("bench/switches");
    fs::create_dir_all(place::target().join("bench"))?;
    shell::run(Command::new("gcc").arg("-O2").arg("-o").arg(&program).arg(place::root().join("tests/fixtures/c/switches.c")))?;
    Ok(program)
}

/// How long a switch took, ns, as it says itself, whatever else is said beside it by what it runs under.
pub fn once(command: &mut Command, turns: &str) -> Result<f64> {
    let said = shell::output(command.arg(turns).stderr(Stdio::null()))?;
    let line = said.lines().find(|line| line.contains("ns_per_switch")).with_context(|| format!("{command:?} says {said:?}"))?;
    Ok(serde_json::from_str::<Said>(line)?.ns_per_switch)
}
