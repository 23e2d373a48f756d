//! What it takes to make something of recordings of many goroutines and events: time, memory at most, and the size of what is made.
//!
//! The recordings are made here (`tracer-user/examples/replay_load.rs`): nothing is traced.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{median, page, spread};
use crate::{place, setup, shell};

const ROUNDS: usize = 3;

/// A row: how many goroutines and events, what is made of them, and what is aimed at.
struct Making {
    row: &'static str,
    goroutines: u64,
    events: u64,
    what: &'static [&'static str],
    aim_s: f64,
    aim_mib: f64,
    /// Of what is made.
    aim_bytes: Option<u64>,
}

const ROWS: [Making; 4] = [
    Making {
        row: "replay of 500,000 goroutines, 5 million events",
        goroutines: 500_000,
        events: 5_000_000,
        what: &["report", "--format", "json"],
        aim_s: 10.0,
        aim_mib: 1024.0,
        aim_bytes: None,
    },
    Making {
        row: "Perfetto trace of 100,000 goroutines, 1 million events",
        goroutines: 100_000,
        events: 1_000_000,
        what: &["timeline", "--format", "perfetto"],
        aim_s: 5.0,
        aim_mib: 500e6 / 1_048_576.0,
        aim_bytes: None,
    },
    Making {
        row: "HTML page of 100,000 goroutines, 1 million events",
        goroutines: 100_000,
        events: 1_000_000,
        what: &["report", "--format", "html"],
        aim_s: 5.0,
        aim_mib: 500e6 / 1_048_576.0,
        aim_bytes: Some(5_000_000),
    },
    Making {
        row: "Parquet tables of 100,000 goroutines, 1 million events",
        goroutines: 100_000,
        events: 1_000_000,
        what: &["export", "--format", "parquet"],
        aim_s: 5.0,
        aim_mib: 500e6 / 1_048_576.0,
        aim_bytes: None,
    },
];

/// What one round tells.
#[derive(Deserialize)]
struct Round {
    seconds: f64,
    cpu_seconds: f64,
    mib: f64,
    bytes_an_event: f64,
    made_bytes: u64,
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
    /// The size of what is made.
    made_bytes: u64,
    aim_bytes: Option<u64>,
    rounds: usize,
    /// Spread of `ours` over the rounds: (largest - smallest) / median.
    spread: f64,
}

/// Measures the rows whose names hold `only`.
pub fn bench(lifetrace: &Path, only: &str, json_only: bool) -> Result<()> {
    let rows: Vec<&Making> = ROWS.iter().filter(|making| making.row.contains(only)).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let load = load()?;
    if !json_only {
        println!(
            "{:<56} {:>5} {:>6} {:>8} {:>8} {:>8} {:>8} {:>12} {:>8}",
            "row", "unit", "aim", "ours", "cpu", "aim MiB", "MiB", "made bytes", "spread"
        );
    }
    for making in rows {
        let row = making.measured(&load, lifetrace)?;
        if !json_only {
            println!(
                "{:<56} {:>5} {:>6.0} {:>8.2} {:>8.2} {:>8.0} {:>8.0} {:>12} {:>7.0}%",
                row.row,
                row.unit,
                row.aim,
                row.ours,
                row.cpu,
                row.aim_mib,
                row.mib,
                row.made_bytes,
                row.spread * 100.0
            );
        }
        if row.ours > row.aim || row.mib > row.aim_mib || row.aim_bytes.is_some_and(|most| row.made_bytes > most) {
            println!("missed: {}", row.row);
        }
        page::tell(&page::MAKING, &row)?;
    }
    Ok(())
}

impl Making {
    fn measured(&self, load: &Path, lifetrace: &Path) -> Result<Row> {
        let recording = place::target().join("bench/load.lifetrace");
        let rounds: Vec<Round> = (0..ROUNDS).map(|_| self.round(load, lifetrace, &recording)).collect::<Result<_>>()?;
        std::fs::remove_file(&recording)?;
        let typical = |value: fn(&Round) -> f64| median(&rounds.iter().map(value).collect::<Vec<_>>());
        let seconds: Vec<f64> = rounds.iter().map(|round| round.seconds).collect();
        Ok(Row {
            row: self.row,
            unit: "s",
            ours: median(&seconds),
            aim: self.aim_s,
            cpu: typical(|round| round.cpu_seconds),
            mib: typical(|round| round.mib),
            aim_mib: self.aim_mib,
            bytes_an_event: typical(|round| round.bytes_an_event),
            made_bytes: rounds.iter().map(|round| round.made_bytes).max().unwrap_or(0),
            aim_bytes: self.aim_bytes,
            rounds: ROUNDS,
            spread: spread(&seconds),
        })
    }

    fn round(&self, load: &Path, lifetrace: &Path, recording: &Path) -> Result<Round> {
        std::fs::create_dir_all(place::target().join("bench"))?;
        let sizes = [self.goroutines, self.events].map(|size| size.to_string());
        let said = shell::output(Command::new(load).arg(lifetrace).arg(recording).args(sizes).args(self.what))?;
        serde_json::from_str(&said).with_context(|| format!("replay_load said {said:?}"))
    }
}

/// Builds what makes the recordings.
fn load() -> Result<PathBuf> {
    Ok(setup::released(&["--example", "replay_load"])?.join("examples/replay_load"))
}
