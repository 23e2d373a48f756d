//! What it takes to judge half a million leaked goroutines: from a recording, and of a process that runs, a look.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::Value;

use super::{median, process::Running, spread};
use crate::{place, setup, shell::output};

const ROWS: [&str; 2] = ["leaks of a recording with 472,108 leaked goroutines", "leaks --pid of as many, CPU a look"];
const LEAKED: &str = "472108";
const ROUNDS: usize = 5;
const WATCH: &str = "20s";
const PATIENCE: Duration = Duration::from_secs(300);

/// One line of the benchmark's JSON (docs: "bench").
#[derive(Serialize)]
struct Row {
    row: &'static str,
    unit: &'static str,
    ours: f64,
    /// What is aimed at.
    aim: f64,
    /// CPU time of the same.
    cpu: f64,
    rounds: usize,
    /// Spread of `ours` over the rounds: (largest - smallest) / median.
    spread: f64,
}

/// Measures the rows whose name holds `only`.
pub fn bench(lifetrace: &Path, only: &str, json_only: bool) -> Result<()> {
    if !ROWS.iter().any(|row| row.contains(only)) {
        return Ok(());
    }
    let folder = place::target().join("bench");
    let (orders, recording) = (folder.join("orders"), folder.join("judged.lifetrace"));
    setup::go_program(&place::root().join("examples/orders"), &orders)?;
    if !json_only {
        println!("{:<52} {:>6} {:>6} {:>8} {:>8} {:>8}", "row", "unit", "aim", "ours", "cpu", "spread");
    }
    if ROWS[0].contains(only) {
        tell(&from_recording(lifetrace, &orders, &recording)?, json_only)?;
    }
    if ROWS[1].contains(only) {
        tell(&live(lifetrace, &orders, &recording)?, json_only)?;
    }
    Ok(fs::remove_file(recording)?)
}

fn tell(row: &Row, json_only: bool) -> Result<()> {
    if !json_only {
        println!(
            "{:<52} {:>6} {:>6.2} {:>8.2} {:>8.2} {:>7.0}%",
            row.row,
            row.unit,
            row.aim,
            row.ours,
            row.cpu,
            row.spread * 100.0
        );
    }
    println!("{}", serde_json::to_string(row)?);
    Ok(())
}

fn from_recording(lifetrace: &Path, orders: &Path, recording: &Path) -> Result<Row> {
    let mut run = Command::new(lifetrace);
    run.args(["run", "--quiet", "-o"]).arg(recording).arg("--").arg(orders).args(["-leak", "afterfunc", "-n", LEAKED]);
    if !run.stdout(Stdio::null()).stderr(Stdio::null()).status()?.success() {
        bail!("the order service was not recorded");
    }
    let mut leaks = Command::new(lifetrace);
    leaks.args(["leaks", "--quiet", "--fail-on", "never"]).arg(recording);
    let rounds: Vec<Timed> = (0..ROUNDS).map(|_| timed(&leaks)).collect::<Result<_>>()?;
    let seconds: Vec<f64> = rounds.iter().map(|round| round.seconds).collect();
    let cpu: Vec<f64> = rounds.iter().map(|round| round.cpu).collect();
    Ok(Row {
        row: ROWS[0],
        unit: "s",
        ours: median(&seconds),
        aim: 2.0,
        cpu: median(&cpu),
        rounds: ROUNDS,
        spread: spread(&seconds),
    })
}

/// All CPU time of a watch, judging included, over its looks.
fn live(lifetrace: &Path, orders: &Path, recording: &Path) -> Result<Row> {
    let mut service = Command::new(orders);
    service.args(["-leak", "afterfunc", "-n", LEAKED, "-for", "10m"]).stdout(Stdio::null()).stderr(Stdio::null());
    let service = Running(service.spawn()?);
    let pid = service.0.id().to_string();
    let began = Instant::now();
    while !all_are_there(lifetrace, &pid)? {
        if began.elapsed() > PATIENCE {
            bail!("the order service does not leak as it should");
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    let mut per_look = Vec::new();
    for _ in 0..3 {
        let mut watch = Command::new(lifetrace);
        watch.args(["leaks", "--quiet", "--fail-on", "never", "--watch", WATCH, "--pid", &pid, "--record"]).arg(recording);
        let timed = timed(&watch)?;
        let report: Value =
            serde_json::from_str(&output(Command::new(lifetrace).args(["report", "--format", "json"]).arg(recording))?)?;
        // The first one is not counted as a snapshot: it belongs to the process's being joined.
        let looks = report["snapshots"]["taken"].as_f64().context("the report counts snapshots")? + 1.0;
        per_look.push(timed.cpu / looks);
    }
    let ours = median(&per_look);
    Ok(Row { row: ROWS[1], unit: "s", ours, aim: 1.0, cpu: ours, rounds: per_look.len(), spread: spread(&per_look) })
}

fn all_are_there(lifetrace: &Path, pid: &str) -> Result<bool> {
    let said = output(Command::new(lifetrace).args(["snapshot", "--quiet", "--no-stacks", "--format", "json", "--pid", pid]))?;
    Ok(said.matches("time.goFunc").count() >= 472_108)
}

struct Timed {
    seconds: f64,
    cpu: f64,
}

/// What a command takes, as the shell measures it.
fn timed(command: &Command) -> Result<Timed> {
    let mut through = Command::new("bash");
    through
        .args(["-c", "TIMEFORMAT='%R %U %S'; time \"$@\" > /dev/null", "bash"])
        .arg(command.get_program())
        .args(command.get_args());
    let said = through.stdout(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&said.stderr);
    let numbers: Vec<f64> = text.lines().last().unwrap_or_default().split(' ').filter_map(|number| number.parse().ok()).collect();
    let [seconds, user, system] = numbers[..] else { bail!("{command:?}: {text}") };
    if !said.status.success() {
        bail!("{command:?}: {}: {text}", said.status);
    }
    Ok(Timed { seconds, cpu: user + system })
}
