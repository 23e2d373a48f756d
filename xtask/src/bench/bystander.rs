//! What a program pays that nobody follows: its context switches pass our programs on the scheduler's path while another one's threads are followed.
//!
//! Side by side in one run: alone, beside a lifetrace that follows no threads (the floor), and beside one that does.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::{median, spread, switches};
use crate::place;

const ROW: &str = "switch of a bystander";
const ROUNDS: usize = 9;
/// Until lifetrace must have begun.
const PATIENCE: Duration = Duration::from_secs(20);

/// One line of the benchmark's JSON (docs: "bench").
#[derive(Serialize)]
struct Row {
    row: &'static str,
    unit: &'static str,
    /// Added while threads of another program are followed.
    ours: f64,
    /// Nobody traces anything.
    baseline: f64,
    /// Added while another program is followed without its threads.
    floor: f64,
    rounds: usize,
    /// Spread of the whole time beside ours over the rounds: (largest - smallest) / median.
    spread: f64,
}

/// A lifetrace that follows a sleeping program.
struct Other(Child);

impl Other {
    fn start(lifetrace: &Path, threads: &str) -> Result<Self> {
        let recording = place::target().join("bench/other.lifetrace");
        let mark = place::target().join("bench/other.began");
        let _ = fs::remove_file(&mark);
        let mut command = Command::new(lifetrace);
        command.args(["run", "--quiet", "--threads", threads, "-o"]).arg(recording).args(["--", "sh", "-c"]);
        command.arg("touch \"$0\"; exec sleep 1000").arg(&mark).stdout(Stdio::null());
        let this = Self(command.spawn().context("cannot start lifetrace")?);
        let began = Instant::now();
        while !mark.exists() {
            if began.elapsed() > PATIENCE {
                bail!("lifetrace did not begin");
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(this)
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // lifetrace hands it on to the command, and ends with it.
        let _ = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}

/// Measures the row if its name holds `only`.
pub fn bench(lifetrace: &Path, only: &str, json_only: bool) -> Result<()> {
    if !ROW.contains(only) {
        return Ok(());
    }
    let program = switches::build()?;
    let once = || switches::once(&mut Command::new(&program), switches::TURNS);
    let beside = |threads: &str| -> Result<f64> {
        let _other = Other::start(lifetrace, threads)?;
        once()
    };
    let (mut alone, mut floor, mut ours) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(once()?);
        floor.push(beside("off")?);
        ours.push(beside("on")?);
    }
    let baseline = median(&alone);
    let row = Row {
        row: ROW,
        unit: "ns/switch",
        ours: median(&ours) - baseline,
        baseline,
        floor: median(&floor) - baseline,
        rounds: ROUNDS,
        spread: spread(&ours),
    };
    if !json_only {
        println!("{:<28} {:>9} {:>12} {:>12} {:>12} {:>8}", "row", "unit", "baseline", "floor", "ours", "spread");
        println!(
            "{:<28} {:>9} {:>12.0} {:>+12.0} {:>+12.0} {:>7.0}%",
            row.row,
            row.unit,
            row.baseline,
            row.floor,
            row.ours,
            row.spread * 100.0
        );
    }
    println!("{}", serde_json::to_string(&row)?);
    Ok(())
}
