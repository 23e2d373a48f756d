//! Memory, time to attach and to let go, bytes of recordings, and replay; beside Go's own tools where they do the same. Each at two sizes, so
//! that it shows how it grows.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use super::{
    page::{SIZES, tell},
    process::{Running, cpu_seconds, memory_now, most_memory},
};
use crate::{go, place, setup, shell};

const ROWS: [&str; 3] = ["memory with live goroutines", "attaching to a binary of 100 MB", "recording and replay of a ping-pong"];
const MIB: f64 = 1_048_576.0;

/// One line of the benchmark's JSON (docs: "bench").
#[derive(Default, Serialize)]
struct Row {
    row: String,
    unit: &'static str,
    ours: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    aim: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<f64>,
    #[serde(skip_serializing_if = "str::is_empty")]
    of: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    note: String,
}

/// Measures the rows whose name holds `only`.
pub fn bench(lifetrace: &Path, only: &str) -> Result<()> {
    fs::create_dir_all(place::target().join("bench"))?;
    if ROWS[0].contains(only) {
        for goroutines in [100_000, 1_000_000] {
            memory(lifetrace, goroutines)?;
        }
    }
    if ROWS[1].contains(only) {
        attaching(lifetrace)?;
    }
    if ROWS[2].contains(only) {
        for turns in [200_000, 2_000_000] {
            replay(lifetrace, turns)?;
        }
    }
    Ok(())
}

fn recording() -> PathBuf {
    place::target().join("bench/sizes.lifetrace")
}

/// Waits for the end of a process: how long it took, s, its CPU time, s, and the most memory that it had, MiB.
fn watched(command: &mut Command) -> Result<(f64, f64, f64)> {
    let began = Instant::now();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().with_context(|| format!("{command:?}"))?;
    let (mut memory, mut cpu) = (0.0f64, 0.0f64);
    loop {
        memory = most_memory(child.id()).unwrap_or(0.0).max(memory);
        cpu = cpu_seconds(child.id()).unwrap_or(0.0).max(cpu);
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "{command:?}: {status}");
            return Ok((began.elapsed().as_secs_f64(), cpu, memory));
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// lifetrace, following a program at T2, until it says so; and how long that took.
fn attached(lifetrace: &Path, pid: u32) -> Result<(Running, f64)> {
    let began = Instant::now();
    let mut command = Command::new(lifetrace);
    command.args(["attach", "--tier", "T2", "--pid", &pid.to_string(), "-o"]).arg(recording()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let mut lines = BufReader::new(child.stderr.take().context("no stderr")?).lines();
    ensure!(lines.by_ref().map_while(Result::ok).any(|line| line.contains("following")), "lifetrace does not follow");
    let took = began.elapsed().as_secs_f64();
    thread::spawn(move || lines.for_each(drop));
    Ok((Running(child), took))
}

fn interrupt(mut tracer: Running) -> Result<()> {
    shell::run(Command::new("kill").args(["-INT", &tracer.0.id().to_string()]))?;
    ensure!(tracer.0.wait()?.success(), "lifetrace failed");
    Ok(())
}

fn report(lifetrace: &Path) -> Result<Value> {
    let said = shell::output(Command::new(lifetrace).args(["report", "--format", "json"]).arg(recording()))?;
    Ok(serde_json::from_str(&said)?)
}

fn memory(lifetrace: &Path, goroutines: u32) -> Result<()> {
    let crowd = place::target().join("bench/crowd");
    setup::go_program(&place::root().join("xtask/bench/crowd"), &crowd)?;
    let socket = place::target().join("bench/sizes.socket");
    let _ = fs::remove_file(&socket);
    let mut command = Command::new(&crowd);
    command.args(["-n", &goroutines.to_string(), "-socket"]).arg(&socket).stdout(Stdio::piped());
    let mut program = Running(command.spawn()?);
    let mut line = String::new();
    BufReader::new(program.0.stdout.take().context("no stdout")?).read_line(&mut line)?;
    let (tracer, _) = attached(lifetrace, program.0.id())?;
    // Its first look, and one more.
    let mut memory = 0.0f64;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(20) {
        memory = memory_now(tracer.0.id()).unwrap_or(0.0).max(memory);
        thread::sleep(Duration::from_millis(50));
    }
    interrupt(tracer)?;
    let aim = (goroutines == 1_000_000).then_some(250e6 / MIB);
    let theirs = most_memory(program.0.id());
    let row = format!("lifetrace while {goroutines} goroutines live, two looks and the ring (64 MiB) included");
    tell(&SIZES, &Row { row, unit: "MiB", ours: memory, aim, peer: theirs, of: "the program itself", ..Row::default() })
}

fn attaching(lifetrace: &Path) -> Result<()> {
    let source = place::target().join("bench/big");
    fs::create_dir_all(&source)?;
    fs::write(source.join("go.mod"), "module lifetrace.dev/bench/big\n\ngo 1.22\n")?;
    let main = "package main\n\nimport (\n\t_ \"embed\"\n\t\"net/http\"\n\t\"time\"\n)\n\n//go:embed blob\nvar blob string\n\nfunc main() {\n\tgo http.ListenAndServe(\"127.0.0.1:0\", nil)\n\ttime.Sleep(time.Hour)\n\tprintln(len(blob))\n}\n";
    fs::write(source.join("main.go"), main)?;
    let noise: Vec<u8> = (0..95u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(source.join("blob"), noise)?;
    let program = place::target().join("bench/big.program");
    setup::go_program(&source, &program)?;
    let bytes = fs::metadata(&program)?.len() as f64;
    let running = Running(Command::new(&program).spawn()?);
    let (mut attach, mut detach) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let (tracer, took) = attached(lifetrace, running.0.id())?;
        attach.push(took);
        interrupt(tracer)?;
        detach.push(report(lifetrace)?["meta"]["detach_ns"].as_f64().context("no detach_ns")? / 1e9);
    }
    let note = format!("{:.0} MB, all but 8 of them data", bytes / 1e6);
    let row = |row: &str, values: &[f64]| Row {
        row: row.to_owned(),
        unit: "s",
        ours: super::median(values),
        note: note.clone(),
        ..Row::default()
    };
    tell(&SIZES, &row("attaching to a large binary, from the command to following", &attach))?;
    tell(&SIZES, &row("letting go of it", &detach))
}

/// The same run recorded by lifetrace and by Go, and both read.
fn replay(lifetrace: &Path, turns: u32) -> Result<()> {
    let (beat, trace) = (place::target().join("bench/beat"), place::target().join("bench/sizes.trace"));
    setup::go_program(&place::root().join("xtask/bench/beat"), &beat)?;
    let n = turns.to_string();
    let mut run = Command::new(lifetrace);
    run.args(["run", "--quiet", "--tier", "T2", "-o"])
        .arg(recording())
        .arg("--")
        .arg(&beat)
        .args(["-what", "pingpong", "-n", &n]);
    shell::output(&mut run)?;
    shell::output(Command::new(&beat).args(["-what", "pingpong", "-n", &n, "-trace"]).arg(&trace))?;
    let (ours, theirs) = (fs::metadata(recording())?.len() as f64, fs::metadata(&trace)?.len() as f64);
    // Two parks and two wakes a turn; ours has the warm-up too.
    let (events, turns_traced) = (4.4 * f64::from(turns), 4.0 * f64::from(turns));
    let (_, cpu, memory) = watched(Command::new(lifetrace).args(["report", "--format", "json"]).arg(recording()))?;
    // The tool itself: what starts it would be watched in its place.
    let tool = shell::output(Command::new(go::go()?).args(["tool", "-n", "trace"]))?;
    let (_, go_cpu, go_memory) = watched(Command::new(tool.trim()).arg("-d=parsed").arg(&trace))?;
    let named = |what: &str| format!("{what}, {turns} turns of a ping-pong");
    let go_trace = "runtime/trace";
    let rows = [
        Row {
            row: named("recording"),
            unit: "bytes an event",
            ours: ours / events,
            aim: Some(8.0),
            peer: Some(theirs / turns_traced),
            of: go_trace,
            ..Row::default()
        },
        Row {
            row: named("report"),
            unit: "million events a CPU second",
            ours: events / cpu / 1e6,
            aim: Some(5.0),
            peer: Some(turns_traced / go_cpu / 1e6),
            of: "go tool trace -d=parsed",
            ..Row::default()
        },
        Row {
            row: named("report, most memory"),
            unit: "MiB",
            ours: memory,
            aim: None,
            peer: Some(go_memory),
            of: "go tool trace -d=parsed",
            ..Row::default()
        },
    ];
    for row in rows {
        tell(&SIZES, &row)?;
    }
    fs::remove_file(trace)?;
    Ok(())
}
