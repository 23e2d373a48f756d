//! What `lifetrace report` takes to read a recording of half a million goroutines and five million events: time, and memory at most.
//!
//! The recording is made here (`tracer-user/examples/replay_load.rs`): nothing is traced.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{median, spread};
use crate::{place, setup, shell};

const ROW: &str = "replay of 500,000 goroutines, 5 million events";
const ROUNDS: usize = 3;
const AIM_S: f64 = 10.0;
const AIM_MIB: f64 = 1024.0;

/// What one round tells.
#[derive(Deserialize)]
struct Round {
    seconds: f64,
    cpu_seconds: f64,
    mib: f64,
    bytes_an_event: f64,
}

/// One line of the benchmark's JSON (docs: "bench").
#[derive(Serialize)]
struct Row {
    row: &'static str,
    unit: &'static str,
    ours: f64,
    /// What is aimed at.
    aim: f64,
    /// CPU time of the same: on a busy machine it is less than `ours`.
    cpu: f64,
    /// The most memory that was resident at once, in MiB.
    mib: f64,
    aim_mib: f64,
    bytes_an_event: f64,
    rounds: usize,
    /// Spread of `ours` over the rounds: (largest - smallest) / median.
    spread: f64,
}

/// Measures the row if its name holds `only`.
pub fn bench(lifetrace: &Path, only: &str, json_only: bool) -> Result<()> {
    if !ROW.contains(only) {
        return Ok(());
    }
    let load = load()?;
    let recording = place::target().join("bench/load.lifetrace");
    let rounds: Vec<Round> = (0..ROUNDS).map(|_| round(&load, lifetrace, &recording)).collect::<Result<_>>()?;
    std::fs::remove_file(&recording)?;
    let typical = |value: fn(&Round) -> f64| median(&rounds.iter().map(value).collect::<Vec<_>>());
    let seconds: Vec<f64> = rounds.iter().map(|round| round.seconds).collect();
    let row = Row {
        row: ROW,
        unit: "s",
        ours: median(&seconds),
        aim: AIM_S,
        cpu: typical(|round| round.cpu_seconds),
        mib: typical(|round| round.mib),
        aim_mib: AIM_MIB,
        bytes_an_event: typical(|round| round.bytes_an_event),
        rounds: ROUNDS,
        spread: spread(&seconds),
    };
    if !json_only {
        println!(
            "{:<48} {:>5} {:>6} {:>8} {:>8} {:>8} {:>8} {:>8}",
            "row", "unit", "aim", "ours", "cpu", "aim MiB", "MiB", "spread"
        );
        println!(
            "{:<48} {:>5} {:>6.0} {:>8.2} {:>8.2} {:>8.0} {:>8.0} {:>7.0}%",
            row.row,
            row.unit,
            row.aim,
            row.ours,
            row.cpu,
            row.aim_mib,
            row.mib,
            row.spread * 100.0
        );
    }
    println!("{}", serde_json::to_string(&row)?);
    Ok(())
}

/// Builds what makes the recording.
fn load() -> Result<PathBuf> {
    Ok(setup::released(&["--example", "replay_load"])?.join("examples/replay_load"))
}

fn round(load: &Path, lifetrace: &Path, recording: &Path) -> Result<Round> {
    std::fs::create_dir_all(place::target().join("bench"))?;
    let said = shell::output(Command::new(load).arg(lifetrace).arg(recording))?;
    serde_json::from_str(&said).with_context(|| format!("replay_load said {said:?}"))
}
