//! Weeks of an agent in compressed time: many programs that start and end at random, some leaking, some killed, while the collector and the
//! disk fail in turns, and what the agent itself takes is watched.

mod outside;

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{
    agent::{Agent, Metrics},
    deadline::{PATIENCE, let_pass, wait_for},
    fixture,
    process::Running,
};
use outside::{Account, Outside};

/// Files that programs run, half of them leaking: each is run again and again.
const FILES: usize = 20;
/// How long a program lives.
const LIVES: [Duration; 2] = [Duration::from_secs(4), Duration::from_secs(40)];
/// Between two samples of the agent.
const SAMPLE_EVERY: Duration = Duration::from_secs(2);
/// An end that is told at all is told so soon.
const TOLD_WITHIN: Duration = Duration::from_secs(10);
/// One that has run for less may not have been met yet, on a machine that is busy beyond measure.
const YOUNG: Duration = Duration::from_secs(10);
/// A recording lasts so long: verdicts take ten seconds of it. No part of a minute: the last programs are killed at the end of one.
const RENEW: &str = "45s";

/// How long, with how many programs at once.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub lasting: Duration,
    pub programs: usize,
    /// Of what happens when; another one is another run.
    pub seed: u64,
}

/// The agent at one moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Duration,
    rss_bytes: f64,
    cpu_s: f64,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    samples: Vec<Sample>,
    pub started: u64,
    /// Programs that ended of themselves, and that were killed.
    pub ended: u64,
    pub killed: u64,
    /// Programs that were killed at the end, and had hardly begun: whether anybody had seen them by then is left open.
    pub young: u64,
    /// Ends that the agent counted.
    pub counted: u64,
    pub recordings: u64,
    pub lost: u64,
    /// Leaking files of which a verdict was seen, and others.
    pub found: usize,
    pub wronged: Vec<String>,
    /// Descriptors when nobody was followed: before, and after.
    pub descriptors: [f64; 2],
    /// What probes cost programs, as a share of their CPU time.
    pub price: f64,
    /// Of what it was to send and write.
    pub account: Account,
}

/// A program under way.
struct Program {
    running: Running,
    began: Instant,
    ends: Instant,
    kill: bool,
}

/// Runs it.
pub fn run(plan: Plan) -> Result<Outcome> {
    let dir = TempDir::new()?;
    let files = files(dir.path())?;
    let rule = format!("[[rule]]\naction = \"follow\"\nexe = \"{}/*\"\n", dir.path().display());
    let mut outside = Outside::new(plan.lasting)?;
    let config = format!("tier = \"T1\"\nsnapshot_every = \"5s\"\nrenew = \"{RENEW}\"\n{rule}{}", outside.config());
    let agent = Agent::start(&config)?;
    // Connected from now on, as at the end.
    agent.until("a batch sent", |metrics| {
        metrics.sum("lifetrace_otlp_batches_total", &["result=\"sent\""]).filter(|sent| *sent > 0.0)
    })?;
    let mut outcome = Outcome { descriptors: [descriptors(&agent)?, 0.0], ..Outcome::default() };
    let mut dice = Dice(plan.seed);
    let mut programs: Vec<Program> = Vec::new();
    let mut found: Vec<String> = Vec::new();
    let began = Instant::now();
    let mut sampled = began;
    while began.elapsed() < plan.lasting {
        outside.at(began.elapsed())?;
        if programs.len() < plan.programs {
            let file = &files[dice.below(files.len() as u64) as usize];
            programs.push(start(file, &mut dice)?);
            outcome.started += 1;
        }
        end_those_due(&mut programs, &mut outcome)?;
        if sampled.elapsed() >= SAMPLE_EVERY {
            sampled = Instant::now();
            let metrics = agent.metrics()?;
            outcome.samples.push(sample(&metrics, began.elapsed())?);
            for line in metrics.0.lines().filter(|line| line.starts_with("lifetrace_goroutines_growth_per_hour{")) {
                note_verdict(line, &mut found, &mut outcome.wronged);
            }
        }
        let_pass(Duration::from_millis(100));
    }
    for program in &programs {
        program.running.signal(Signal::SIGKILL)?;
        *if program.began.elapsed() < YOUNG { &mut outcome.young } else { &mut outcome.killed } += 1;
    }
    drop(programs);
    outside.mend()?;
    outcome.found = found.len();
    // What was followed goes with the recording.
    wait_for("no more descriptors than before", PATIENCE * 4, || {
        outcome.descriptors[1] = descriptors(&agent)?;
        Ok((outcome.descriptors[1] <= outcome.descriptors[0]).then_some(()))
    })
    .with_context(|| format!("{:?}", outcome.descriptors))?;
    // Who began and ended in the moment between two recordings is not counted: who has not been counted soon never will be.
    let asked = Instant::now();
    let metrics = loop {
        let metrics = agent.metrics()?;
        outcome.counted = total(&metrics, "lifetrace_process_exits_total") as u64;
        if outcome.counted >= outcome.ended + outcome.killed + outcome.young || asked.elapsed() >= TOLD_WITHIN {
            break metrics;
        }
        let_pass(Duration::from_millis(200));
    };
    outcome.recordings = total(&metrics, "lifetrace_agent_recordings_total") as u64;
    outcome.lost = total(&metrics, "lifetrace_lost_events_total") as u64;
    let cpu = total(&metrics, "lifetrace_followed_cpu_seconds_total");
    outcome.price = total(&metrics, "lifetrace_probe_cost_seconds_total") / cpu.max(1e-9);
    outcome.account = outside.settle(agent)?;
    Ok(outcome)
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let orders = fixture::orders()?;
    let name = |index: usize| format!("{}{index}", if index.is_multiple_of(2) { "leaking" } else { "healthy" });
    (0..FILES).map(|index| fixture::copied(&orders, &dir.join(name(index)))).collect()
}

fn is_leaking(name: &str) -> bool {
    name.contains("/leaking")
}

fn start(file: &Path, dice: &mut Dice) -> Result<Program> {
    let [shortest, longest] = LIVES;
    let life = shortest + Duration::from_millis(dice.below((longest - shortest).as_millis() as u64));
    let mut command = Command::new(file);
    // One that leaks goes on as long as it lives; one that does not makes as many goroutines, and all of them end.
    let leak = if is_leaking(&file.to_string_lossy()) { "afterfunc" } else { "none" };
    command.args(["-leak", leak, "-n", "2000", "-rate", "20", "-for", "600s"]);
    let running = Running::start(command, None)?;
    let began = Instant::now();
    Ok(Program { running, began, ends: began + life, kill: dice.below(3) == 0 })
}

fn end_those_due(programs: &mut Vec<Program>, outcome: &mut Outcome) -> Result<()> {
    let now = Instant::now();
    let (due, going): (Vec<_>, Vec<_>) = programs.drain(..).partition(|program| program.ends <= now);
    *programs = going;
    for mut program in due {
        program.running.signal(if program.kill { Signal::SIGKILL } else { Signal::SIGTERM })?;
        program.running.wait_exit()?;
        *if program.kill { &mut outcome.killed } else { &mut outcome.ended } += 1;
    }
    Ok(())
}

/// Of a leaking program the reminders are what grows; of a healthy one nothing does.
fn note_verdict(line: &str, found: &mut Vec<String>, wronged: &mut Vec<String>) {
    let name = line.split('"').nth(1).unwrap_or_default().to_owned();
    let right = is_leaking(&name) && line.contains("time.goFunc");
    let list = if right { found } else { wronged };
    let entry = if right { name } else { line.to_owned() };
    if !list.contains(&entry) {
        list.push(entry);
    }
}

fn sample(metrics: &Metrics, at: Duration) -> Result<Sample> {
    let of = |series: &str| metrics.sum(series, &[]).with_context(|| format!("no {series}"));
    Ok(Sample { at, rss_bytes: of("process_resident_memory_bytes")?, cpu_s: of("process_cpu_seconds_total")? })
}

fn descriptors(agent: &Agent) -> Result<f64> {
    agent.metrics()?.sum("process_open_fds", &[]).context("no descriptors")
}

fn total(metrics: &Metrics, series: &str) -> f64 {
    metrics.sum(series, &[]).unwrap_or_default()
}

impl Outcome {
    /// How much memory rises a minute over the last half, as a share of what it is.
    pub fn rise_per_minute(&self) -> f64 {
        let half = &self.samples[self.samples.len() / 2..];
        let count = half.len() as f64;
        let mean = |of: fn(&Sample) -> f64| half.iter().map(of).sum::<f64>() / count.max(1.0);
        let (time, memory) = (mean(|sample| sample.at.as_secs_f64()), mean(|sample| sample.rss_bytes));
        let both: f64 = half.iter().map(|sample| (sample.at.as_secs_f64() - time) * (sample.rss_bytes - memory)).sum();
        let square: f64 = half.iter().map(|sample| (sample.at.as_secs_f64() - time).powi(2)).sum();
        both / square.max(1e-9) / memory.max(1.0) * 60.0
    }

    /// The most memory, in bytes.
    pub fn most_bytes(&self) -> f64 {
        self.samples.iter().map(|sample| sample.rss_bytes).fold(0.0, f64::max)
    }

    /// What holds where every file was run often enough.
    pub fn check_all(&self) -> Result<()> {
        ensure!(self.found == FILES / 2, "not every leak was found: {self}");
        self.check()
    }

    /// What holds however short it was.
    pub fn check(&self) -> Result<()> {
        ensure!(self.started > 0 && self.samples.len() > 5, "nothing happened: {self}");
        ensure!(self.wronged.is_empty(), "verdicts on who does not leak: {:?}", self.wronged);
        ensure!(self.found > 0, "no leak was found: {self}");
        ensure!(self.counted <= self.ended + self.killed + self.young, "{self}");
        ensure!(self.counted * 10 >= (self.ended + self.killed) * 9, "{self}");
        ensure!(self.lost == 0, "{self}");
        ensure!(self.descriptors[1] <= self.descriptors[0], "{:?}", self.descriptors);
        self.account.check(self.recordings)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.samples.last();
        let lasting = last.map_or(0.0, |sample| sample.at.as_secs_f64());
        let cpu = last.map_or(0.0, |sample| sample.cpu_s);
        writeln!(f, "{:.1} min, {} recordings", lasting / 60.0, self.recordings)?;
        writeln!(
            f,
            "programs     {} started; {} ended, {} killed, {} ends counted",
            self.started, self.ended, self.killed, self.counted
        )?;
        writeln!(f, "leaks        {} of {} leaking files found, {} wrong verdicts", self.found, FILES / 2, self.wronged.len())?;
        writeln!(
            f,
            "memory       {:.1} MB at most, {:+.2} % a minute over the last half",
            self.most_bytes() / 1e6,
            self.rise_per_minute() * 100.0
        )?;
        writeln!(f, "descriptors  {} before, {} after", self.descriptors[0], self.descriptors[1])?;
        writeln!(f, "cpu          {:.2} % of one", cpu / lasting.max(1.0) * 100.0)?;
        writeln!(f, "price        {:.2} % of the programs' CPU time", self.price * 100.0)?;
        writeln!(f, "lost         {} events", self.lost)?;
        write!(f, "{}", self.account)
    }
}

/// Numbers that seem to be chance and are the same for one seed: xorshift64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides.max(1)
    }
}
