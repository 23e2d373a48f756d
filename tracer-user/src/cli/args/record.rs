//! What is recorded, how, and for how long.

use std::{ffi::OsString, fmt, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, ValueEnum};

use crate::{
    governor,
    pprof::base::{Base, BaseError},
    recording::contract::{MIN_BLOCKS, ProfileKind, Threads, Tier},
};

#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Where to write the recording (mode 0600)
    #[arg(long, short, value_name = "REC", default_value = "lifetrace.rec")]
    pub output: PathBuf,
    #[command(flatten)]
    pub how: LaunchArgs,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// How a command is started and followed.
#[derive(Clone, Debug, Args)]
pub struct LaunchArgs {
    #[command(flatten)]
    pub detail: DetailArgs,
    #[command(flatten)]
    pub beside: BesideArgs,
    #[command(flatten)]
    pub pprof: PprofArgs,
    #[command(flatten)]
    pub usdt: UsdtTableArg,
    /// Run CMD as this user (default: who called sudo)
    #[arg(long, value_name = "NAME", conflicts_with = "as_root")]
    pub user: Option<String>,
    /// Run CMD as root, even under sudo
    #[arg(long)]
    pub as_root: bool,
    /// Probes that do nothing: the floor of a benchmark
    #[arg(long, hide = true)]
    pub empty_probes: bool,
    #[command(flatten)]
    pub knobs: Knobs,
}

/// Ticks a second of the sampling clock at T3: a prime-ish number, so that it does not beat with the program's own timers.
const DEFAULT_CPU_HZ: u32 = 99;

/// How much is followed.
#[derive(Clone, Debug, Args)]
pub struct DetailArgs {
    /// How much to follow: 1 births and deaths; 2 parks and wakes too; 3 scheduling and system calls as well; with --budget, at most
    /// [default: 2, with --budget 3]
    #[arg(long, value_enum, value_name = "TIER")]
    pub tier: Option<TierArg>,
    /// Follow as much as costs a program no more than this share of its CPU time, now more, now less: 1%, 0.5% [default of attach without
    /// --tier: 1%]
    #[arg(long, value_name = "PERCENT")]
    pub budget: Option<Share>,
    /// Take all probes away, for a while, once this URL of the target answers much later than without them, fails, or, where it answers
    /// with a number alone, with a much lower one
    #[arg(long, value_name = "URL", value_parser = parse_guard)]
    pub guard_url: Option<String>,
    /// Sum waits and lives that are shorter by creation site, reason and stack, in the kernel, instead of telling each: 1ms. For always-on use
    /// (docs/summing.md); not with --tier 3
    #[arg(long, value_name = "TIME", value_parser = parse_min_block)]
    pub min_block: Option<Duration>,
    /// Whose threads to follow on and off their CPUs: those of all programs, of all but Go's, of none [default: auto, at T3 on]
    #[arg(long, value_enum, value_name = "WHOSE")]
    pub threads: Option<ThreadsArg>,
    /// Sample what the CPUs do N times a second; 0 for not at all [default: 0, at T3 99]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub cpu_hz: Option<u32>,
    /// Read the goroutines of each process out of its memory so often, and at the end, and hold events against that: 10s, 500ms; 0 for
    /// never
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_every)]
    pub snapshot_every: Every,
}

/// A share of the target's CPU time; 0.01 is 1 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(pub f64);

/// What an attached process pays if nothing else is said.
pub const DEFAULT_BUDGET: Share = Share(0.01);

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        governor::share(text).map(Self).ok_or_else(|| "a percentage above 0 % and up to 100 % is wanted, such as 1%".to_owned())
    }
}

/// A page that is asked again and again.
fn parse_guard(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("http://").ok_or("a URL such as http://127.0.0.1:8080/healthz is wanted, without TLS")?;
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let fine =
        !host.is_empty() && !host.starts_with(':') && !host.contains('@') && rest.bytes().all(|byte| byte.is_ascii_graphic());
    fine.then(|| text.to_owned()).ok_or_else(|| "that is no URL that can be asked".to_owned())
}

/// How often something is done, if ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Every(pub Option<Duration>);

/// As often as the recorder looks around.
const MIN_EVERY: Duration = Duration::from_millis(250);

fn parse_every(text: &str) -> Result<Every, String> {
    let time = if text == "0" { Duration::ZERO } else { humantime::parse_duration(text).map_err(|error| error.to_string())? };
    match time {
        Duration::ZERO => Ok(Every(None)),
        time if time < MIN_EVERY => Err(format!("at most every {}", humantime::format_duration(MIN_EVERY))),
        time => Ok(Every(Some(time))),
    }
}

fn parse_min_block(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let [shortest, longest] = MIN_BLOCKS;
    if (shortest..=longest).contains(&time) { Ok(time) } else { Err("from 1us to 1s".to_owned()) }
}

/// What is looked at beside the target.
#[derive(Clone, Debug, Args)]
pub struct BesideArgs {
    /// Record the memory of this process too, a sidecar for one; can be given more than once
    #[arg(long = "with-pid", value_name = "N")]
    pub with_pid: Vec<u32>,
}

/// Whose threads are followed in detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ThreadsArg {
    Auto,
    On,
    Off,
}

impl DetailArgs {
    /// How much is followed; where there is a budget, at most.
    pub fn tier(&self) -> Tier {
        match self.tier {
            Some(tier) => tier.into(),
            None if self.budget.is_some() && self.min_block.is_none() => Tier::T3,
            None => Tier::T2,
        }
    }

    /// What the probes may cost, as a share of the target's CPU time.
    pub fn budget(&self) -> Option<f64> {
        self.budget.map(|Share(share)| share)
    }

    /// The same, with a budget where neither that nor a tier was asked for.
    pub fn within_a_budget(&self) -> Self {
        Self { budget: self.budget.or(self.tier.is_none().then_some(DEFAULT_BUDGET)), ..self.clone() }
    }

    /// Whether what was asked for goes together.
    pub fn check(&self) -> Result<(), anyhow::Error> {
        if self.guard_url.is_some() && self.budget.is_none() {
            anyhow::bail!("--guard-url takes probes away that --budget sets: give a --budget");
        }
        if self.min_block.is_some() && self.tier == Some(TierArg::T3) {
            anyhow::bail!("--tier 3 tells every change of state, and --min-block sums waits: give one of them");
        }
        Ok(())
    }

    /// Everything was asked for.
    fn wants_all(&self) -> bool {
        self.tier == Some(TierArg::T3)
    }

    /// Whose threads are followed in detail.
    pub fn threads(&self) -> Threads {
        match self.threads {
            Some(ThreadsArg::Off) => Threads::Off,
            Some(ThreadsArg::On) => Threads::On,
            None if self.wants_all() => Threads::On,
            Some(ThreadsArg::Auto) | None => Threads::Auto,
        }
    }

    /// How often a second CPUs are sampled.
    pub fn cpu_hz(&self) -> u32 {
        let default = if self.wants_all() { DEFAULT_CPU_HZ } else { 0 };
        self.cpu_hz.unwrap_or(default)
    }
}

impl LaunchArgs {
    /// The value of a test knob.
    pub fn knob(&self, name: &str) -> Option<u32> {
        self.knobs.get(name)
    }
}

/// What tests provoke.
#[derive(Clone, Debug, Args)]
pub struct Knobs {
    /// Provoke what is rare (tests). `ring-bytes=N`; of `run` also `max-processes=N`, `max-kept=N`, `max-sums=N`, `bad-layout=1`, `probe-each-mount=1`; of both `one-by-one=1`, `no-btf=1`, `seconds-only=1`. Records:
    /// `drop-permille=N` with `drop-seed`; `drop-kind=K` with `drop-from-ms`, `drop-for-ms`. The reader: `freeze-ms=N` with `freeze-from-ms`
    #[arg(long, hide = true, value_name = "NAME=VALUE", value_parser = parse_knob)]
    pub knob: Vec<(String, u32)>,
}

impl Knobs {
    /// The value that was given last.
    pub fn get(&self, name: &str) -> Option<u32> {
        self.knob.iter().rev().find(|(known, _)| known == name).map(|(_, value)| *value)
    }
}

#[derive(Clone, Debug, Args)]
pub struct AttachArgs {
    #[command(flatten)]
    pub target: TargetArg,
    /// Where to write the recording (mode 0600)
    #[arg(long, short, value_name = "REC", default_value = "lifetrace.rec")]
    pub output: PathBuf,
    /// End after this time: 30s, 5m, 1h 30m (default: at Ctrl-C, or when the process of --pid has ended)
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    #[command(flatten)]
    pub detail: DetailArgs,
    #[command(flatten)]
    pub knobs: Knobs,
    #[command(flatten)]
    pub beside: BesideArgs,
    #[command(flatten)]
    pub pprof: PprofArgs,
    #[command(flatten)]
    pub usdt: UsdtTableArg,
}

/// Which USDT probes mean something.
#[derive(Clone, Debug, Default, Args)]
pub struct UsdtTableArg {
    /// Follow these USDT probes too (docs/usdt.md); can be given more than once
    #[arg(long, value_name = "FILE.toml")]
    pub usdt_table: Vec<PathBuf>,
}

/// What Go processes are asked by HTTP.
#[derive(Clone, Debug, Default, Args)]
pub struct PprofArgs {
    /// Ask the net/http/pprof of Go processes too: at this URL, or `auto` for the sockets they listen on
    #[arg(long, value_name = "URL|auto")]
    pub pprof: Option<PprofServer>,
    /// Store heap profiles and heap numbers at the start, so often, and before the end: 30s, 5m
    #[arg(long, value_name = "TIME", value_parser = parse_interval, requires = "pprof")]
    pub heap_every: Option<Duration>,
    /// Store these too, at the start, with each --heap-every, and before the end (cpu: once, 5 s)
    #[arg(long, value_name = "KIND", value_enum, value_delimiter = ',', requires = "pprof")]
    pub profile: Vec<ProfileArg>,
}

/// Where profiles are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PprofServer {
    Auto,
    At(Base),
}

impl FromStr for PprofServer {
    type Err = BaseError;

    fn from_str(text: &str) -> Result<Self, BaseError> {
        if text == "auto" { Ok(Self::Auto) } else { text.parse().map(Self::At) }
    }
}

/// Profiles that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProfileArg {
    Allocs,
    Mutex,
    Block,
    /// Goroutines by stack
    Goroutine,
    /// Goroutines that nobody can wake (Go 1.27, or 1.26 with its experiment); forces a garbage collection
    Goroutineleak,
    Cpu,
}

impl From<ProfileArg> for ProfileKind {
    fn from(kind: ProfileArg) -> Self {
        match kind {
            ProfileArg::Allocs => Self::Allocs,
            ProfileArg::Mutex => Self::Mutex,
            ProfileArg::Block => Self::Block,
            ProfileArg::Goroutine => Self::Goroutine,
            ProfileArg::Goroutineleak => Self::GoroutineLeak,
            ProfileArg::Cpu => Self::Cpu,
        }
    }
}

/// A time between two questions.
fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if interval < Duration::from_millis(100) { Err("at least 100ms".to_owned()) } else { Ok(interval) }
}

/// What is attached to.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct TargetArg {
    /// This process, and the processes that it starts
    #[arg(long, value_name = "N")]
    pub pid: Option<u32>,
    /// Every process that runs this file, now or later
    #[arg(long, value_name = "PATH")]
    pub exe: Option<PathBuf>,
    /// Every process of this cgroup (version 2) and those below it, now or later
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<PathBuf>,
}

impl fmt::Display for TargetArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [("--exe", &self.exe), ("--cgroup", &self.cgroup)];
        match (self.pid, named.into_iter().find_map(|(name, path)| Some((name, path.as_ref()?)))) {
            (Some(pid), _) => write!(f, "--pid {pid}"),
            (None, Some((name, path))) => write!(f, "{name} {}", path.display()),
            (None, None) => Ok(()),
        }
    }
}

fn parse_knob(text: &str) -> Result<(String, u32), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE")?;
    Ok((name.to_owned(), value.parse().map_err(|error| format!("{value}: {error}"))?))
}

/// Tiers that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TierArg {
    #[value(name = "T1", aliases = ["t1", "1"])]
    T1,
    #[value(name = "T2", aliases = ["t2", "2"])]
    T2,
    #[value(name = "T3", aliases = ["t3", "3"])]
    T3,
}

impl From<TierArg> for Tier {
    fn from(tier: TierArg) -> Self {
        match tier {
            TierArg::T1 => Self::T1,
            TierArg::T2 => Self::T2,
            TierArg::T3 => Self::T3,
        }
    }
}
