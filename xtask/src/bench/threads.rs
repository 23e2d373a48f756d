//! What it costs to follow threads on and off their CPUs, beside perf and bpfcc doing the same.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{
    median,
    page::{THREADS, tell},
    spread, switches,
};
use crate::{place, setup, shell};

const ROW: &str = "threads";
const ROUNDS: usize = 5;
/// One line of the benchmark's JSON (docs: "bench").
#[derive(Serialize)]
struct Row {
    row: &'static str,
    ours: Option<f64>,
    /// To what it takes alone.
    ratio: Option<f64>,
    spread: Option<f64>,
    note: String,
    rounds: usize,
}

#[derive(Clone, Copy)]
enum Mode {
    Alone,
    Lifetrace,
    Perf,
    OffCpuTime,
    AloneTenfold,
    LifetraceTenfold,
}

impl Mode {
    const ALL: [Self; 6] =
        [Self::Alone, Self::Lifetrace, Self::Perf, Self::OffCpuTime, Self::AloneTenfold, Self::LifetraceTenfold];

    fn name(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Lifetrace => "lifetrace run --threads on",
            Self::Perf => "perf sched record",
            Self::OffCpuTime => "offcputime-bpfcc",
            Self::AloneTenfold => "ten times as many, alone",
            Self::LifetraceTenfold => "ten times as many, lifetrace run --threads on",
        }
    }

    fn is_tenfold(self) -> bool {
        matches!(self, Self::AloneTenfold | Self::LifetraceTenfold)
    }

    /// The time of a switch, ns.
    fn once(self, lifetrace: &Path, program: &Path) -> Result<f64> {
        let into: PathBuf = place::target().join("bench/threads.out");
        let mut command = match self {
            Self::Alone | Self::OffCpuTime | Self::AloneTenfold => Command::new(program),
            Self::Lifetrace | Self::LifetraceTenfold => {
                let mut command = Command::new(lifetrace);
                command.args(["run", "--quiet", "--threads", "on", "-o"]).arg(&into).arg("--").arg(program);
                command
            }
            Self::Perf => {
                let mut command = Command::new("perf");
                command.args(["sched", "record", "-q", "-o"]).arg(&into).arg("--").arg(program);
                command
            }
        };
        let beside = matches!(self, Self::OffCpuTime).then(OffCpuTime::start).transpose()?;
        let once = switches::once(&mut command, if self.is_tenfold() { switches::MANY_TURNS } else { switches::TURNS });
        drop(beside);
        let _ = fs::remove_file(&into);
        once
    }
}

/// bpfcc's tool for all threads of the host, until it is dropped.
struct OffCpuTime(Child);

impl OffCpuTime {
    fn start() -> Result<Self> {
        let program = setup::which("offcputime-bpfcc").context("offcputime-bpfcc is not installed (bpfcc-tools)")?;
        let mut child = Command::new(program).args(["-f", "60"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        // It compiles its program first.
        for _ in 0..200 {
            thread::sleep(Duration::from_millis(100));
            if child.try_wait()?.is_some() {
                anyhow::bail!("offcputime-bpfcc does not run here");
            }
            let counts = shell::output(Command::new("bpftool").args(["prog", "list"]))?;
            if counts.contains("oncpu") {
                return Ok(Self(child));
            }
        }
        let _ = child.kill();
        anyhow::bail!("offcputime-bpfcc does not begin")
    }
}

impl Drop for OffCpuTime {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}

/// Measures the rows if their name holds `only`.
pub fn bench(lifetrace: &Path, only: &str) -> Result<()> {
    if !ROW.contains(only) {
        return Ok(());
    }
    let program = switches::build()?;
    let mut all: Vec<Result<Vec<f64>>> = Mode::ALL.iter().map(|_| Ok(Vec::new())).collect();
    for _ in 0..ROUNDS {
        for (mode, times) in Mode::ALL.iter().zip(&mut all) {
            // One that cannot run here is not tried again.
            if let Ok(known) = times {
                match mode.once(lifetrace, &program) {
                    Ok(ns) => known.push(ns),
                    Err(error) => *times = Err(error),
                }
            }
        }
    }
    let alone = |mode: Mode| {
        let mode = if mode.is_tenfold() { Mode::AloneTenfold } else { Mode::Alone };
        all[mode as usize].as_deref().map(median).unwrap_or(f64::NAN)
    };
    for (mode, times) in Mode::ALL.iter().zip(&all) {
        let row = match times {
            Ok(times) => {
                let ours = median(times);
                let (ratio, spread) = (Some(ours / alone(*mode)), Some(spread(times)));
                Row { row: mode.name(), ours: Some(ours), ratio, spread, note: String::new(), rounds: ROUNDS }
            }
            Err(error) => {
                let note = format!("did not run here: {}", error.to_string().lines().next().unwrap_or_default());
                Row { row: mode.name(), ours: None, ratio: None, spread: None, note, rounds: 0 }
            }
        };
        tell(&THREADS, &row)?;
    }
    Ok(())
}
