//! `cargo xtask faults`: what each fault did to a recording, and what snapshots made of it, as a table for docs/snapshots.md.

use std::{collections::BTreeMap, fs, process::Command};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{go, place, setup, shell::run};

/// A line of what `tests/tests/faults.rs` writes down.
#[derive(Deserialize)]
struct Outcome {
    case: String,
    tier: String,
    lost: u64,
    alive_truth: u64,
    alive_by_events: u64,
    unconfirmed_by_events: u64,
    sites_wrong_by_events: u64,
    alive_repaired: u64,
    sites_wrong_repaired: u64,
    repairs: BTreeMap<String, u64>,
}

pub fn faults() -> Result<()> {
    setup::lifetrace()?;
    let results = place::target().join("faults.jsonl");
    let _ = fs::remove_file(&results);
    let mut tests = Command::new("cargo");
    tests.args(["test", "--quiet", "--package", "lifetrace-tests", "--test", "faults"]).current_dir(place::root());
    let tried = run(tests.env("LIFETRACE_FAULTS", &results).env("LIFETRACE_GO", go::go()?));
    let text = fs::read_to_string(&results).context("no case was tried: the faults need root")?;
    let mut outcomes: Vec<Outcome> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    outcomes.sort_by(|one, other| (&one.case, &one.tier).cmp(&(&other.case, &other.tier)));
    println!(
        "| fault | tier | records lost | alive in truth | by events (unconfirmed; sites wrong) | with snapshots (sites wrong) | repairs |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for outcome in &outcomes {
        let Outcome { case, tier, lost, alive_truth, alive_by_events, unconfirmed_by_events, .. } = outcome;
        let repairs: Vec<String> = outcome.repairs.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        println!(
            "| {case} | {tier} | {lost} | {alive_truth} | {alive_by_events} ({unconfirmed_by_events}; {}) | {} ({}) | {} |",
            outcome.sites_wrong_by_events,
            outcome.alive_repaired,
            outcome.sites_wrong_repaired,
            repairs.join(", ")
        );
    }
    tried
}
