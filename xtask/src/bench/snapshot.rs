//! Snapshots of many goroutines beside what the program's own `/debug/pprof/goroutine` takes: how long, and how long the target
//! stands still meanwhile.
//!
//! Each round asks the same process for all of it, one after the other; medians count.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use super::{median, spread};
use crate::{place, setup};

/// How long the target is watched with nobody asking for anything.
const IDLE: Duration = Duration::from_millis(200);
const PEERS: [&str; 2] = ["debug=2", "debug=0"];

/// One line of the benchmark's JSON (docs: "bench").
#[derive(Serialize)]
struct Row {
    row: String,
    unit: &'static str,
    /// Reading alone, as lifetrace measures it; of a stall, the longest gap while it read.
    ours: f64,
    /// What is aimed at.
    aim: f64,
    /// The whole command, its start and a pprof profile written included.
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<f64>,
    /// Of a stall, the longest gap with nobody asking.
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline: Option<f64>,
    /// The same of `/debug/pprof/goroutine`.
    peers: BTreeMap<&'static str, f64>,
    /// ours / debug=2.
    ratio: f64,
    rounds: usize,
    /// Spread of `ours` over the rounds: (largest - smallest) / median.
    spread: f64,
}

struct Case {
    row: &'static str,
    what: What,
    goroutines: u32,
    rounds: usize,
    /// Milliseconds, at most.
    aim: f64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    WithoutStacks,
    Whole,
    /// The longest gap between two looks of the target at its clock.
    Stall,
    /// The same where it also has pages mapped and unmapped, for which it needs a lock that the reading takes.
    MappingStall,
}

impl What {
    /// How the target is asked to watch itself.
    fn watch(self) -> Option<&'static str> {
        match self {
            Self::WithoutStacks | Self::Whole => None,
            Self::Stall => Some("/watch"),
            Self::MappingStall => Some("/watch?pages"),
        }
    }
}

const CASES: [Case; 6] = [
    Case { row: "snapshot of 100,000, no stacks", what: What::WithoutStacks, goroutines: 100_000, rounds: 7, aim: 40.0 },
    Case { row: "snapshot of 100,000", what: What::Whole, goroutines: 100_000, rounds: 7, aim: 150.0 },
    Case { row: "snapshot of 100,000, stall", what: What::Stall, goroutines: 100_000, rounds: 7, aim: 1.0 },
    Case { row: "snapshot of 100,000, stall of mappings", what: What::MappingStall, goroutines: 100_000, rounds: 7, aim: 1.0 },
    Case { row: "snapshot of 472,000, no stacks", what: What::WithoutStacks, goroutines: 472_000, rounds: 3, aim: 200.0 },
    Case { row: "snapshot of 472,000", what: What::Whole, goroutines: 472_000, rounds: 3, aim: 800.0 },
];

/// Measures the rows whose name holds `only`.
pub fn bench(lifetrace: &Path, only: &str, json_only: bool) -> Result<()> {
    let cases: Vec<_> = CASES.iter().filter(|case| case.row.contains(only)).collect();
    if cases.is_empty() {
        return Ok(());
    }
    let program = place::target().join("bench/crowd");
    setup::go_program(&place::root().join("xtask/bench/crowd"), &program)?;
    if !json_only {
        println!(
            "{:<38} {:>5} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8}",
            "row", "unit", "aim", "ours", "command", "baseline", "debug=2", "debug=0", "spread"
        );
    }
    let mut crowd: Option<Crowd> = None;
    for case in cases {
        let there = match crowd.take_if(|crowd| crowd.goroutines == case.goroutines) {
            Some(there) => there,
            None => {
                drop(crowd.take());
                Crowd::gather(&program, case.goroutines)?
            }
        };
        let row = case.measure(&there, lifetrace)?;
        crowd = Some(there);
        if !json_only {
            row.print();
        }
        println!("{}", serde_json::to_string(&row)?);
    }
    Ok(())
}

impl Case {
    fn measure(&self, crowd: &Crowd, lifetrace: &Path) -> Result<Row> {
        // Once to warm up: pages of the target, of the peers' buffers.
        crowd.snapshot(lifetrace, self.what)?;
        let (mut ours, mut command, mut idle) = (Vec::new(), Vec::new(), Vec::new());
        let mut peers: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
        for _ in 0..self.rounds {
            if let Some(watch) = self.what.watch() {
                let nothing = || {
                    thread::sleep(IDLE);
                    Ok(())
                };
                idle.push(crowd.stall_while(watch, nothing)?);
                ours.push(crowd.stall_while(watch, || crowd.snapshot(lifetrace, self.what).map(drop))?);
            } else {
                let (reading, whole) = crowd.snapshot(lifetrace, self.what)?;
                ours.push(reading);
                command.push(whole);
            }
            for peer in PEERS {
                let ask = || crowd.ask(&format!("/debug/pprof/goroutine?{peer}"));
                let took = match self.what.watch() {
                    Some(watch) => crowd.stall_while(watch, || ask().map(drop))?,
                    None => timed(ask)?.1,
                };
                peers.entry(peer).or_default().push(took);
            }
        }
        let peers: BTreeMap<_, _> = peers.into_iter().map(|(peer, values)| (peer, median(&values))).collect();
        let typical = |values: &[f64]| (!values.is_empty()).then(|| median(values));
        Ok(Row {
            row: self.row.to_owned(),
            unit: "ms",
            ours: median(&ours),
            aim: self.aim,
            command: typical(&command),
            baseline: typical(&idle),
            ratio: median(&ours) / peers["debug=2"],
            peers,
            rounds: self.rounds,
            spread: spread(&ours),
        })
    }
}

impl Row {
    fn print(&self) {
        let maybe = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        println!(
            "{:<38} {:>5} {:>9.0} {:>9.2} {:>9} {:>9} {:>9.2} {:>9.2} {:>7.0}%",
            self.row,
            self.unit,
            self.aim,
            self.ours,
            maybe(self.command),
            maybe(self.baseline),
            self.peers["debug=2"],
            self.peers["debug=0"],
            self.spread * 100.0
        );
    }
}

/// The program with its goroutines parked; killed when it is dropped.
struct Crowd {
    child: Child,
    socket: PathBuf,
    goroutines: u32,
}

impl Crowd {
    fn gather(program: &Path, goroutines: u32) -> Result<Self> {
        let socket = place::target().join(format!("bench/crowd-{goroutines}.sock"));
        let _ = std::fs::remove_file(&socket);
        let mut command = Command::new(program);
        command.arg("-n").arg(goroutines.to_string()).arg("-socket").arg(&socket).stdout(Stdio::piped());
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let mut crowd = Self { child, socket, goroutines };
        let mut line = String::new();
        BufReader::new(crowd.child.stdout.take().context("no stdout")?).read_line(&mut line)?;
        ensure!(!line.is_empty(), "crowd ended before its goroutines were there");
        Ok(crowd)
    }

    /// Milliseconds of the reading, and of the whole command.
    fn snapshot(&self, lifetrace: &Path, what: What) -> Result<(f64, f64)> {
        let mut command = Command::new(lifetrace);
        let pid = self.child.id().to_string();
        command
            .args(["snapshot", "--format", "pprof", "--pid", &pid])
            .args((what == What::WithoutStacks).then_some("--no-stacks"));
        let file = place::target().join("bench/crowd.pb.gz");
        let (output, took) = timed(|| Ok(command.arg("-o").arg(file).output()?))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "lifetrace snapshot: {said}");
        // "lifetrace: 100012 goroutines read in 31.2 ms; 0 changed meanwhile"
        let words: Vec<&str> = said.split_whitespace().collect();
        let (Some(found), Some(reading)) = (words.get(1), words.get(5)) else { bail!("lifetrace said {said:?}") };
        ensure!(found.parse::<u32>()? >= self.goroutines, "only {found} goroutines were found");
        Ok((reading.parse()?, took))
    }

    fn ask(&self, path: &str) -> Result<Vec<u8>> {
        let mut stream = UnixStream::connect(&self.socket)?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        ensure!(answer.starts_with(b"HTTP/1.0 200"), "{path}: {}", String::from_utf8_lossy(answer.get(..100).unwrap_or(&answer)));
        Ok(answer)
    }

    /// The longest gap in the target's own time while `body` ran, in milliseconds.
    fn stall_while(&self, watch: &str, body: impl FnOnce() -> Result<()>) -> Result<f64> {
        self.ask(watch)?;
        body()?;
        let answer = String::from_utf8(self.ask("/stall")?)?;
        let (_, longest) = answer.split_once("\r\n\r\n").context("no answer")?;
        Ok(longest.parse::<f64>()? / 1e6)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// What `body` answers, and how many milliseconds it took.
fn timed<T>(body: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let began = Instant::now();
    let answer = body()?;
    Ok((answer, began.elapsed().as_secs_f64() * 1e3))
}
