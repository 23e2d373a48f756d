//! What `lifetrace agent` says that its probes cost a program, beside what they cost it: the CPU time that the same work takes with and
//! without it.
//!
//! Probes are on the file as long as somebody is followed who runs it, so one that sleeps keeps them there, and one that works finds them
//! at its start. In turn, several rounds; medians count.

use std::{
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::Result;
use serde::Serialize;

use super::{agent::Agent, median, once, page, process::Running, spread};
use crate::{place, setup};

const ROUNDS: usize = 5;
const BEATS: u32 = 2_000_000;
/// Of what is told and what is measured, the larger is at most so much more.
const AIM: f64 = 1.25;

/// One line of the benchmark's JSON (docs: "bench").
#[derive(Serialize)]
struct Row {
    row: String,
    unit: &'static str,
    /// CPU time of the program alone, a beat.
    baseline: f64,
    /// What it takes more while it is followed.
    measured: f64,
    /// What `lifetrace_probe_cost_seconds_total` says.
    told: f64,
    /// told / measured.
    ratio: f64,
    aim: f64,
    rounds: usize,
    /// Spread of `ratio` over the rounds: (largest - smallest) / median.
    spread: f64,
}

struct Case {
    row: &'static str,
    what: &'static str,
    tier: &'static str,
}

const CASES: [Case; 4] = [
    Case { row: "price, goroutine lives, T1", what: "life", tier: "T1" },
    Case { row: "price, round trips, T2", what: "pingpong", tier: "T2" },
    Case { row: "price, round trips, T3", what: "pingpong", tier: "T3" },
    Case { row: "price, HTTP requests, T2", what: "http", tier: "T2" },
];

/// Measures the rows whose name holds `only`.
pub fn bench(lifetrace: &Path, only: &str, json_only: bool) -> Result<()> {
    let cases: Vec<_> = CASES.iter().filter(|case| case.row.contains(only)).collect();
    if cases.is_empty() {
        return Ok(());
    }
    let beat = place::target().join("bench/beat");
    setup::go_program(&place::root().join("xtask/bench/beat"), &beat)?;
    if !json_only {
        println!("{:<28} {:>8} {:>10} {:>10} {:>10} {:>8} {:>8}", "row", "unit", "alone", "measured", "told", "ratio", "spread");
    }
    for case in cases {
        let row = measure(case, lifetrace, &beat)?;
        if !json_only {
            println!(
                "{:<28} {:>8} {:>10.0} {:>+10.0} {:>+10.0} {:>8.2} {:>7.0}%",
                row.row,
                row.unit,
                row.baseline,
                row.measured,
                row.told,
                row.ratio,
                row.spread * 100.0
            );
        }
        if !(1.0 / AIM..=AIM).contains(&row.ratio) {
            println!("missed: {} is told as {:.2} of what was measured", row.row, row.ratio);
        }
        page::tell(&page::PRICE, &row)?;
    }
    Ok(())
}

fn measure(case: &Case, lifetrace: &Path, beat: &Path) -> Result<Row> {
    let (mut bare, mut measured, mut told, mut ratios) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    // Of http a twentieth is asked for (beat), and a tenth of all comes before the clock runs.
    let beats = f64::from(BEATS) / if case.what == "http" { 20.0 } else { 1.0 };
    let all = beats * 1.1;
    for _ in 0..ROUNDS {
        let alone = once(&mut working(beat, case))?;
        let followed_by = Followed::start(lifetrace, beat, case.tier)?;
        let before = followed_by.cost()?;
        let followed = once(&mut working(beat, case))?;
        let paid = (followed_by.settled()? - before) * 1e9 / all;
        bare.push(alone);
        measured.push(followed - alone);
        told.push(paid);
        ratios.push(paid / (followed - alone));
    }
    Ok(Row {
        row: case.row.to_owned(),
        unit: "ns/beat",
        baseline: median(&bare),
        measured: median(&measured),
        told: median(&told),
        ratio: median(&ratios),
        aim: AIM,
        rounds: ROUNDS,
        spread: spread(&ratios),
    })
}

fn working(beat: &Path, case: &Case) -> Command {
    let mut command = Command::new(beat);
    command.args(["-cpu", "-what", case.what, "-n", &BEATS.to_string()]);
    command
}

/// An agent that follows one file, and a program that keeps it followed.
struct Followed {
    agent: Agent,
    label: String,
    _sleeper: Running,
}

impl Followed {
    fn start(lifetrace: &Path, beat: &Path, tier: &str) -> Result<Self> {
        let sleeper = Running(Command::new(beat).args(["-what", "sleep"]).stdout(Stdio::null()).spawn()?);
        let agent = Agent::start(lifetrace, &format!("tier = \"{tier}\"\nbudget = \"none\"\n"), &beat.display().to_string())?;
        let label = format!("program=\"{}\"", beat.display());
        agent.until("the program to be followed", |metrics| metrics.sum("lifetrace_processes", &label) > 0.0)?;
        Ok(Self { agent, label, _sleeper: sleeper })
    }

    /// What probes cost so far, s.
    fn cost(&self) -> Result<f64> {
        Ok(self.agent.metrics()?.sum("lifetrace_probe_cost_seconds_total", &self.label))
    }

    /// The same, once it has stood still for a second: it is told every quarter of one.
    fn settled(&self) -> Result<f64> {
        let mut last = self.cost()?;
        loop {
            thread::sleep(Duration::from_secs(1));
            let now = self.cost()?;
            if now <= last + 1e-3 {
                return Ok(now);
            }
            last = now;
        }
    }
}
