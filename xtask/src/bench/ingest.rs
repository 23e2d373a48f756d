//! How many records a second are read with nothing lost, and what each costs lifetrace: records that the kernel makes (`examples/ingest.rs`
//! of tracer-user), on one CPU and on two, ever more of them.

use std::{collections::BTreeMap, process::Command};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{
    median,
    page::{INGEST, tell},
};
use crate::{setup, shell};

const ROW: &str = "ingest";
const ROUNDS: usize = 3;
const SECONDS: &str = "3";
const RATES: [u32; 6] = [100_000, 300_000, 1_000_000, 1_500_000, 2_000_000, 4_000_000];

#[derive(Deserialize)]
struct Round {
    a_second: f64,
    lost: f64,
    cpu_ns: f64,
    drain_ns: f64,
    made_ns: f64,
}

/// One line of the benchmark's JSON (docs: "bench").
#[derive(Serialize)]
struct Row {
    row: String,
    a_second: f64,
    /// In the worst round.
    lost: f64,
    cpu_ns: f64,
    drain_ns: f64,
    made_ns: f64,
    rounds: usize,
}

/// Measures the rows if their name holds `only`.
pub fn bench(only: &str) -> Result<()> {
    if !ROW.contains(only) {
        return Ok(());
    }
    let program = setup::released(&["--example", "ingest"])?.join("examples/ingest");
    let mut rounds: BTreeMap<(u32, u32), Vec<Round>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        for (producers, rate) in [1, 2].into_iter().flat_map(|producers| RATES.map(|rate| (producers, rate))) {
            let said = shell::output(Command::new(&program).args([&producers.to_string(), &rate.to_string(), SECONDS]))?;
            let round = serde_json::from_str(&said).with_context(|| format!("ingest says {said:?}"))?;
            rounds.entry((producers, rate)).or_default().push(round);
        }
    }
    for ((producers, rate), rounds) in rounds {
        let of = |value: fn(&Round) -> f64| median(&rounds.iter().map(value).collect::<Vec<_>>());
        let row = Row {
            row: format!("{producers}, {:>4.1} million a second", f64::from(rate) / 1e6),
            a_second: of(|round| round.a_second),
            lost: rounds.iter().map(|round| round.lost).fold(0.0, f64::max),
            cpu_ns: of(|round| round.cpu_ns),
            drain_ns: of(|round| round.drain_ns),
            made_ns: of(|round| round.made_ns),
            rounds: ROUNDS,
        };
        tell(&INGEST, &row)?;
    }
    Ok(())
}
