//! `cargo xtask bench`: what tracing costs the target, as ratios of figures from one run.
//!
//! Each row runs the same program untraced, with an empty probe on the same instructions (the floor: what the trap alone
//! costs), and traced, in turn, several rounds; medians count.

mod bystander;
mod judging;
pub mod leaks;
mod replay;
mod snapshot;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::{place, setup, shell::output};

const ROUNDS: usize = 7;

/// One line of the benchmark's JSON (docs: "bench").
#[derive(Serialize)]
struct Row {
    row: &'static str,
    unit: &'static str,
    /// Added by lifetrace, for one unit of the row.
    ours: f64,
    /// The program alone.
    baseline: f64,
    /// Added by empty probes on the same instructions.
    floor: f64,
    peers: std::collections::BTreeMap<String, f64>,
    /// ours / floor.
    ratio: f64,
    rounds: usize,
    /// Spread of `ours` over the rounds: (largest - smallest) / median.
    spread: f64,
}

struct Case {
    row: &'static str,
    unit: &'static str,
    what: &'static str,
    tier: &'static str,
    /// Options of `lifetrace run` that the floor goes without.
    options: &'static [&'static str],
    /// Units of the row in one beat of the program.
    per_beat: f64,
}

const CASES: [Case; 5] = [
    Case { row: "goroutine life, T1", unit: "ns/life", what: "life", tier: "T1", options: &[], per_beat: 1.0 },
    Case { row: "park and wake, T2", unit: "ns/pair", what: "pingpong", tier: "T2", options: &[], per_beat: 2.0 },
    Case {
        row: "the same, sampled at 99 Hz",
        unit: "ns/pair",
        what: "pingpong",
        tier: "T2",
        options: &["--cpu-hz=99"],
        per_beat: 2.0,
    },
    Case { row: "park, wake, run, T3", unit: "ns/turn", what: "pingpong", tier: "T3", options: &[], per_beat: 2.0 },
    Case { row: "HTTP request, T3", unit: "ns/request", what: "http", tier: "T3", options: &[], per_beat: 1.0 },
];

/// Measures the rows whose name holds `only`.
pub fn bench(json_only: bool, only: &str) -> Result<()> {
    if !setup::is_root() {
        bail!("the benchmarks set real probes: run them as root");
    }
    let lifetrace = setup::lifetrace()?;
    beats(&lifetrace, only, json_only)?;
    bystander::bench(&lifetrace, only, json_only)?;
    snapshot::bench(&lifetrace, only, json_only)?;
    replay::bench(&lifetrace, only, json_only)?;
    judging::bench(&lifetrace, only, json_only)
}

fn beats(lifetrace: &Path, only: &str, json_only: bool) -> Result<()> {
    let cases: Vec<_> = CASES.iter().filter(|case| case.row.contains(only)).collect();
    if cases.is_empty() {
        return Ok(());
    }
    let beat = place::target().join("bench/beat");
    setup::go_program(&place::root().join("xtask/bench/beat"), &beat)?;
    if !json_only {
        println!("{:<28} {:>8} {:>12} {:>12} {:>12} {:>8} {:>8}", "row", "unit", "baseline", "floor", "ours", "ratio", "spread");
    }
    for case in cases {
        let row = measure(case, lifetrace, &beat)?;
        if !json_only {
            println!(
                "{:<28} {:>8} {:>12.0} {:>+12.0} {:>+12.0} {:>8.2} {:>7.0}%",
                row.row,
                row.unit,
                row.baseline,
                row.floor,
                row.ours,
                row.ratio,
                row.spread * 100.0
            );
        }
        println!("{}", serde_json::to_string(&row)?);
    }
    Ok(())
}

fn measure(case: &Case, lifetrace: &Path, beat: &Path) -> Result<Row> {
    let (mut bare, mut floor, mut ours) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(once(&mut beat_command(beat, case))?);
        floor.push(once(&mut traced(lifetrace, beat, case, &["--empty-probes"]))?);
        ours.push(once(&mut traced(lifetrace, beat, case, case.options))?);
    }
    let baseline = median(&bare);
    let added = |values: &[f64]| (median(values) - baseline) / case.per_beat;
    let (floor_added, ours_added) = (added(&floor), added(&ours));
    Ok(Row {
        row: case.row,
        unit: case.unit,
        ours: ours_added,
        baseline: baseline / case.per_beat,
        floor: floor_added,
        peers: std::collections::BTreeMap::new(),
        ratio: ours_added / floor_added,
        rounds: ROUNDS,
        spread: spread(&ours),
    })
}

fn beat_command(beat: &Path, case: &Case) -> Command {
    let mut command = Command::new(beat);
    command.args(["-what", case.what]);
    command
}

fn traced(lifetrace: &Path, beat: &Path, case: &Case, more: &[&str]) -> Command {
    let recording: PathBuf = place::target().join("bench/bench.lifetrace");
    let mut command = Command::new(lifetrace);
    command.args(["run", "--quiet", "--tier", case.tier]).args(more).arg("-o").arg(recording).arg("--").arg(beat);
    command.args(["-what", case.what]);
    command
}

fn once(command: &mut Command) -> Result<f64> {
    output(command)?.parse().context("beat prints one number")
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// (largest - smallest) / median.
fn spread(values: &[f64]) -> f64 {
    let (smallest, largest) = values.iter().fold((f64::MAX, f64::MIN), |(min, max), value| (min.min(*value), max.max(*value)));
    (largest - smallest) / median(values)
}
