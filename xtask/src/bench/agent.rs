//! What `lifetrace agent` takes itself: beside a hundred idle programs of one file and of a hundred, and while ten thousand come and go.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use super::{
    page,
    process::{Running, cpu_seconds, memory_now},
};
use crate::{place, setup};

/// Until the agent must have done what is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many are idle, and how long that is watched, once what joining took is given back.
const IDLE: usize = 100;
const SETTLES: Duration = Duration::from_secs(40);
const WATCHED: Duration = Duration::from_secs(20);
/// Programs that live until they are followed, and how many at once.
const MANY: usize = 10_000;
const AT_ONCE: usize = 200;
/// Of those, who have been told to have ended: a look at one may have been its last moment.
const HEARD: f64 = 0.99;
/// 100 MB, and one hundredth of a CPU.
const AIM_MIB: f64 = 100e6 / (1 << 20) as f64;
const AIM_PERCENT: f64 = 1.0;

/// One line of the benchmark's JSON.
#[derive(Serialize)]
struct Row {
    row: &'static str,
    unit: &'static str,
    ours: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    aim: Option<f64>,
    note: String,
}

/// Measures the rows whose name holds `only`.
pub fn bench(lifetrace: &Path, only: &str) -> Result<()> {
    let wanted = |rows: &[&str]| rows.iter().any(|row| row.contains(only));
    let beat = place::target().join("bench/beat");
    let folder = place::target().join("bench/followed");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let build = || setup::go_program(&place::root().join("xtask/bench/beat"), &beat);
    let [memory, cpu] = ["agent beside 100 idle programs, memory", "agent beside 100 idle programs, CPU"];
    if wanted(&[memory, cpu]) {
        build()?;
        let (mib, percent) = beside(lifetrace, &folder, &[copied(&beat, &folder, 0)?])?;
        tell(&Row { row: memory, unit: "MiB", ours: mib, aim: Some(AIM_MIB), note: "T1, one file".to_owned() })?;
        tell(&Row { row: cpu, unit: "% of one", ours: percent, aim: Some(AIM_PERCENT), note: "T1, one file".to_owned() })?;
    }
    let of_many = "agent beside 100 idle programs of 100 files, memory";
    if wanted(&[of_many]) {
        build()?;
        let files = (0..IDLE).map(|number| copied(&beat, &folder, number)).collect::<Result<Vec<_>>>()?;
        let (mib, percent) = beside(lifetrace, &folder, &files)?;
        let note = format!("T1; {percent:.2} % of one CPU");
        tell(&Row { row: of_many, unit: "MiB", ours: mib, aim: Some(AIM_MIB), note })?;
    }
    let storm = "agent, 10,000 programs that came and went, memory more";
    if wanted(&[storm]) {
        build()?;
        let file = copied(&beat, &folder, 0)?;
        let agent = Agent::start(lifetrace, "tier = \"T1\"\nbudget = \"none\"\n", &format!("{}/*", folder.display()))?;
        let _idle = idle(&file)?;
        agent.until("it to be followed", |metrics| metrics.sum("lifetrace_processes", "") >= 1.0)?;
        thread::sleep(SETTLES);
        let (before, open) = (agent.memory()?, agent.metrics()?.sum("process_open_fds", ""));
        let began = Instant::now();
        for _ in 0..MANY / AT_ONCE {
            let there = (0..AT_ONCE).map(|_| idle(&file)).collect::<Result<Vec<_>>>()?;
            agent.until("all to be followed", |metrics| metrics.sum("lifetrace_processes", "") > AT_ONCE as f64)?;
            drop(there);
            agent.until("all to be gone", |metrics| metrics.sum("lifetrace_processes", "") <= 1.0)?;
        }
        let took = began.elapsed();
        thread::sleep(SETTLES);
        let (after, metrics) = (agent.memory()?, agent.metrics()?);
        let ends = metrics.sum("lifetrace_process_exits_total", "");
        ensure!(ends >= MANY as f64 * HEARD, "{ends} ends were heard of");
        let note = format!(
            "from {before:.0}, within {:.0} s; descriptors {open} before, {} after; {ends} were followed to their end",
            took.as_secs_f64(),
            metrics.sum("process_open_fds", "")
        );
        tell(&Row { row: storm, unit: "MiB", ours: after - before, aim: None, note })?;
    }
    Ok(())
}

fn tell(row: &Row) -> Result<()> {
    if row.aim.is_some_and(|aim| row.ours > aim) {
        println!("missed: {}", row.row);
    }
    page::tell(&page::SIZES, row)
}

/// Memory, MiB, and CPU time, % of one, beside idle programs that run these files in turn.
fn beside(lifetrace: &Path, folder: &Path, files: &[PathBuf]) -> Result<(f64, f64)> {
    let agent = Agent::start(lifetrace, "tier = \"T1\"\n", &format!("{}/*", folder.display()))?;
    let _idle = files.iter().cycle().take(IDLE).map(|file| idle(file)).collect::<Result<Vec<_>>>()?;
    agent.until("all to be followed", |metrics| metrics.sum("lifetrace_processes", "") >= IDLE as f64)?;
    thread::sleep(SETTLES);
    let cpu = || cpu_seconds(agent.running.pid()).context("the agent has ended");
    let (used, began) = (cpu()?, Instant::now());
    thread::sleep(WATCHED);
    let percent = (cpu()? - used) / began.elapsed().as_secs_f64() * 100.0;
    Ok((agent.memory()?, percent))
}

fn copied(beat: &Path, folder: &Path, number: usize) -> Result<PathBuf> {
    let file = folder.join(format!("beat{number}"));
    fs::copy(beat, &file)?;
    Ok(file)
}

fn idle(file: &Path) -> Result<Running> {
    Ok(Running(Command::new(file).args(["-what", "sleep"]).stdout(Stdio::null()).spawn()?))
}

/// An agent that follows the files of one pattern.
pub struct Agent {
    address: String,
    running: Running,
}

/// What it says of itself, in OpenMetrics.
pub struct Metrics(String);

impl Metrics {
    /// Of all series of this name that have this label; 0 if there is none.
    pub fn sum(&self, series: &str, label: &str) -> f64 {
        let is_of =
            |line: &&str| line.strip_prefix(series).is_some_and(|rest| rest.starts_with([' ', '{']) && rest.contains(label));
        let values = self.0.lines().filter(is_of).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.sum()
    }
}

impl Agent {
    /// `more`: of its file, before the rule.
    pub fn start(lifetrace: &Path, more: &str, pattern: &str) -> Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let config = place::target().join("bench/agent.toml");
        let rule = format!("[[rule]]\naction = \"follow\"\nexe = \"{pattern}\"\n");
        fs::write(&config, format!("listen = \"{address}\"\n{more}{rule}"))?;
        let agent = Command::new(lifetrace).args(["agent", "--config"]).arg(&config).stderr(Stdio::null()).spawn()?;
        Ok(Self { address, running: Running(agent) })
    }

    pub fn metrics(&self) -> Result<Metrics> {
        let mut stream = TcpStream::connect(&self.address)?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(Metrics(answer))
    }

    pub fn until(&self, what: &str, holds: impl Fn(&Metrics) -> bool) -> Result<()> {
        let began = Instant::now();
        while !self.metrics().is_ok_and(|metrics| holds(&metrics)) {
            if began.elapsed() > PATIENCE {
                bail!("waited in vain for {what}");
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn memory(&self) -> Result<f64> {
        memory_now(self.running.pid()).context("the agent has ended")
    }
}
