//! `cargo xtask bench`: what tracing costs the target, as ratios of figures from one run.
//!
//! Each row runs the same program untraced, with an empty probe on the same instructions (the floor: what the trap alone
//! costs), and traced, in turn, several rounds; medians count.

mod agent;
mod bystander;
mod ingest;
mod judging;
pub mod leaks;
mod page;
mod price;
mod process;
mod replay;
mod server;
mod sizes;
mod snapshot;
mod switches;
mod threads;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::{place, setup, shell::output};

const ROUNDS: usize = 7;
/// Rounds with ten times as many beats as usual, to see how the cost grows, and how many these are.
const LONG_ROUNDS: usize = 3;
const LONG: &str = "2000000";

/// One line of the benchmark's JSON (docs: "bench").
#[derive(Serialize)]
struct Row {
    row: &'static str,
    unit: &'static str,
    /// Added by lifetrace, for one unit of the row.
    ours: f64,
    /// The program alone.
    baseline: f64,
    /// Added by lifetrace where ten times as many happen.
    ours_tenfold: f64,
    /// Added by empty probes on the same instructions.
    floor: f64,
    /// Added by others that do the same.
    peers: BTreeMap<&'static str, f64>,
    /// Hits of probes for one unit.
    hits: f64,
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
    /// What bpftrace does at function entry.
    bpftrace: &'static str,
    /// Options of `lifetrace run` that the floor goes without.
    options: &'static [&'static str],
    /// Units of the row in one beat of the program.
    per_beat: f64,
}

/// Births with where they come from, and exits; parks with where, and wakes; what begins to run.
const LIVES: &str =
    "uprobe:PATH:\"runtime.newproc1\" { @born[ustack(8)] = count(); } uprobe:PATH:\"runtime.gdestroy\" { @exited = count(); }";
const PARKS: &str =
    "uprobe:PATH:\"runtime.gopark\" { @parked[ustack(8)] = count(); } uprobe:PATH:\"runtime.ready\" { @woken = count(); }";
const RUNS: &str = "uprobe:PATH:\"runtime.gopark\" { @parked[ustack(8)] = count(); } uprobe:PATH:\"runtime.ready\" { @woken = count(); } \
                    uprobe:PATH:\"runtime.execute\" { @ran = count(); }";

const CASES: [Case; 5] = [
    Case { row: "goroutine life, T1", unit: "ns/life", what: "life", tier: "T1", options: &[], per_beat: 1.0, bpftrace: LIVES },
    Case {
        row: "park and wake, T2",
        unit: "ns/pair",
        what: "pingpong",
        tier: "T2",
        options: &[],
        per_beat: 2.0,
        bpftrace: PARKS,
    },
    Case {
        row: "the same, sampled at 99 Hz",
        unit: "ns/pair",
        what: "pingpong",
        tier: "T2",
        options: &["--cpu-hz=99"],
        per_beat: 2.0,
        bpftrace: PARKS,
    },
    Case {
        row: "park, wake, run, T3",
        unit: "ns/turn",
        what: "pingpong",
        tier: "T3",
        options: &[],
        per_beat: 2.0,
        bpftrace: RUNS,
    },
    Case { row: "HTTP request, T3", unit: "ns/request", what: "http", tier: "T3", options: &[], per_beat: 1.0, bpftrace: RUNS },
];

/// Measures the rows whose name holds `only`.
pub fn bench(json_only: bool, only: &str) -> Result<()> {
    if !setup::is_root() {
        bail!("the benchmarks set real probes: run them as root");
    }
    let lifetrace = setup::released(&["--bin", "lifetrace"])?.join("lifetrace");
    beats(&lifetrace, only, json_only)?;
    price::bench(&lifetrace, only, json_only)?;
    agent::bench(&lifetrace, only)?;
    server::bench(&lifetrace, only, json_only)?;
    ingest::bench(only)?;
    sizes::bench(&lifetrace, only)?;
    threads::bench(&lifetrace, only)?;
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
        page::tell(&page::BEATS, &row)?;
    }
    Ok(())
}

fn measure(case: &Case, lifetrace: &Path, beat: &Path) -> Result<Row> {
    let (mut bare, mut floor, mut ours) = (Vec::new(), Vec::new(), Vec::new());
    let mut peers: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        bare.push(once(&mut beat_command(beat, case))?);
        floor.push(once(&mut traced(lifetrace, beat, case, &["--empty-probes"]))?);
        ours.push(once(&mut traced(lifetrace, beat, case, case.options))?);
        let trace = place::target().join("bench/beat.trace");
        peers.entry("runtime/trace").or_default().push(once(beat_command(beat, case).arg("-trace").arg(&trace))?);
        peers.entry("bpftrace").or_default().push(once(&mut under_bpftrace(beat, case))?);
    }
    let (mut long_bare, mut long_ours) = (Vec::new(), Vec::new());
    for _ in 0..LONG_ROUNDS {
        long_bare.push(once(beat_command(beat, case).args(["-n", LONG]))?);
        long_ours.push(once(traced(lifetrace, beat, case, case.options).args(["-n", LONG]))?);
    }
    // The last recording is one of ours.
    once(&mut traced(lifetrace, beat, case, case.options))?;
    let hits = hits(lifetrace, BEATS_RUN)?;
    let baseline = median(&bare);
    let added = |values: &[f64]| (median(values) - baseline) / case.per_beat;
    let (floor_added, ours_added) = (added(&floor), added(&ours));
    Ok(Row {
        row: case.row,
        unit: case.unit,
        ours: ours_added,
        ours_tenfold: (median(&long_ours) - median(&long_bare)) / case.per_beat,
        baseline: baseline / case.per_beat,
        floor: floor_added,
        peers: peers.iter().map(|(peer, values)| (*peer, added(values))).collect(),
        hits: hits / case.per_beat / if case.what == "http" { 1.0 / 20.0 } else { 1.0 },
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
    let mut command = Command::new(lifetrace);
    command.args(["run", "--quiet", "--tier", case.tier]).args(more).arg("-o").arg(recording()).arg("--").arg(beat);
    command.args(["-what", case.what]);
    command
}

/// The program below bpftrace, which sets its probes before it runs.
fn under_bpftrace(beat: &Path, case: &Case) -> Command {
    let mut command = Command::new("bpftrace");
    let program = case.bpftrace.replace("PATH", &beat.display().to_string());
    command.args(["-e", &program, "-c", &format!("{} -what {}", beat.display(), case.what)]);
    command
}

/// Beats of one run, the warm-up included.
const BEATS_RUN: f64 = 220_000.0;

/// Hits of the last recording, a beat.
fn hits(lifetrace: &Path, beats: f64) -> Result<f64> {
    let report = output(Command::new(lifetrace).args(["report", "--format", "json"]).arg(recording()))?;
    let report: serde_json::Value = serde_json::from_str(&report)?;
    let programs = report["price"]["programs"].as_array().context("no price")?;
    let hits: u64 = programs
        .iter()
        .flat_map(|paid| paid["hits"].as_object())
        .flat_map(|hits| hits.values())
        .filter_map(|hits| hits.as_u64())
        .sum();
    Ok(hits as f64 / beats)
}

fn recording() -> PathBuf {
    place::target().join("bench/bench.lifetrace")
}

/// What the program says, whatever else is said beside it.
fn once(command: &mut Command) -> Result<f64> {
    let said = output(command)?;
    said.lines().find_map(|line| line.trim().parse().ok()).with_context(|| format!("beat prints one number, not {said:?}"))
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
