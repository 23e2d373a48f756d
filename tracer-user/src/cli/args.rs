//! The command line, as clap parses it. What the flags mean is each subcommand's own business.

use std::{ffi::OsString, fmt, path::PathBuf, str::FromStr, time::Duration};

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

use crate::{
    correlate::replay::View,
    export::{flamegraph::By, profile_flame},
    pprof::base::{Base, BaseError},
    recording::contract::{ProfileKind, Tier},
    timeline::Id,
};

const AFTER_HELP: &str = "\
Exit codes:
  0    fine
  2    wrong usage or bad input
  3    the environment does not allow it (privilege, kernel, target)
With -- CMD (run):
  N    CMD's own non-zero status; 128+n if signal n ended it
  125  lifetrace itself failed, usage and environment included
  126  CMD could not be executed
  127  CMD was not found

Examples:
  sudo lifetrace run -o app.rec -- ./app --flag
  sudo lifetrace attach --pid 4711 --for 30s -o app.rec
  lifetrace report app.rec
  lifetrace timeline app.rec --id go:17
  lifetrace flame app.rec --by blocked -o blocked.svg
  lifetrace flame app.rec --by alive --format pprof -o alive.pb.gz
  lifetrace flame app.rec --by inuse_space --diff -o growth.svg
  lifetrace snapshot --pid 4711";

/// Follows the life of every goroutine and process, from birth to exit, without touching the program.
#[derive(Debug, Parser)]
#[command(name = "lifetrace", version, after_help = AFTER_HELP, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Copy, Debug, Args)]
pub struct Global {
    /// Say nothing on stderr but errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// When to use colour on a terminal; NO_COLOR is obeyed
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a command under trace, from its first instruction, children included
    Run(RunArgs),
    /// Follow processes that run already, and those of their kind that start later
    Attach(AttachArgs),
    /// Say what lived, by creation site: delays, totals, loss, coverage, price
    Report(ReportArgs),
    /// Say what each goroutine did from when to when
    Timeline(TimelineArgs),
    /// Draw a flamegraph of creation, life, blocking, or of what the program's own profiles say
    Flame(FlameArgs),
    /// Say what every goroutine of a running program does now, out of its memory: no probe, no pause
    Snapshot(SnapshotArgs),
    /// Say what this kernel and a target allow, and what to do about the rest
    Doctor(DoctorArgs),
    /// The exec gate's own process; lifetrace starts it itself
    #[command(name = "exec-gate", hide = true)]
    ExecGate,
}

#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Where to write the recording (mode 0600)
    #[arg(long, short, value_name = "REC", default_value = "lifetrace.rec")]
    pub output: PathBuf,
    #[command(flatten)]
    pub detail: DetailArgs,
    #[command(flatten)]
    pub beside: BesideArgs,
    #[command(flatten)]
    pub pprof: PprofArgs,
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
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// Ticks a second of the sampling clock at T3: a prime-ish number, so that it does not beat with the program's own timers.
const DEFAULT_CPU_HZ: u32 = 99;

/// How much is followed.
#[derive(Clone, Copy, Debug, Args)]
pub struct DetailArgs {
    /// How much to follow: 1 births and deaths; 2 parks and wakes too; 3 scheduling and system calls as well
    #[arg(long, value_enum, default_value_t = TierArg::T2, value_name = "TIER")]
    pub tier: TierArg,
    /// Sample what the CPUs do N times a second; 0 for not at all [default: 0, at T3 99]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub cpu_hz: Option<u32>,
    /// Read the goroutines of each process out of its memory so often, and at the end, and hold events against that: 10s, 500ms; 0 for
    /// never
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_every)]
    pub snapshot_every: Every,
}

/// How often something is done, if ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Every(pub Option<Duration>);

/// More often than that is no time between.
const MIN_EVERY: Duration = Duration::from_millis(100);

fn parse_every(text: &str) -> Result<Every, String> {
    let time = if text == "0" { Duration::ZERO } else { humantime::parse_duration(text).map_err(|error| error.to_string())? };
    match time {
        Duration::ZERO => Ok(Every(None)),
        time if time < MIN_EVERY => Err(format!("at most every {}", humantime::format_duration(MIN_EVERY))),
        time => Ok(Every(Some(time))),
    }
}

/// What is looked at beside the target.
#[derive(Clone, Debug, Args)]
pub struct BesideArgs {
    /// Record the memory of this process too, a sidecar for one; can be given more than once
    #[arg(long = "with-pid", value_name = "N")]
    pub with_pid: Vec<u32>,
}

impl DetailArgs {
    /// How often a second CPUs are sampled.
    pub fn cpu_hz(&self) -> u32 {
        let default = if Tier::from(self.tier) >= Tier::T3 { DEFAULT_CPU_HZ } else { 0 };
        self.cpu_hz.unwrap_or(default)
    }
}

impl RunArgs {
    /// The value of a test knob.
    pub fn knob(&self, name: &str) -> Option<u32> {
        self.knobs.get(name)
    }
}

/// What tests provoke.
#[derive(Clone, Debug, Args)]
pub struct Knobs {
    /// Provoke what is rare (tests). `ring-bytes=N`; of `run` also `max-processes=N`, `bad-layout=1`, `probe-each-mount=1`. Records:
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

#[derive(Clone, Debug, Args)]
pub struct ReportArgs {
    /// The recording
    #[arg(value_name = "REC")]
    pub recording: PathBuf,
    #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
    pub format: ReportFormat,
    /// Count goroutines by the value of a label, as looks at the process saw it
    #[arg(long, value_name = "label:KEY")]
    pub group_by: Option<LabelKey>,
    #[command(flatten)]
    pub view: ViewArg,
    #[command(flatten)]
    pub output: OutputArg,
}

/// What of a recording is shown.
#[derive(Clone, Copy, Debug, Args)]
pub struct ViewArg {
    /// What events alone tell: without what snapshots confirmed, supplied and repaired
    #[arg(long)]
    pub events_only: bool,
}

impl ViewArg {
    pub fn view(self) -> View {
        if self.events_only { View::EventsOnly } else { View::Repaired }
    }
}

/// `label:KEY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelKey(pub String);

impl FromStr for LabelKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let key = text.strip_prefix("label:").filter(|key| !key.is_empty());
        key.map(|key| Self(key.to_owned())).ok_or_else(|| "label:KEY".to_owned())
    }
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    Text,
    Json,
}

#[derive(Clone, Debug, Args)]
pub struct TimelineArgs {
    /// The recording
    #[arg(value_name = "REC")]
    pub recording: PathBuf,
    /// Only this: go:GOID, go:GOID@TGID (needed where several processes have that goroutine), pid:TGID, or gc:TGID
    #[arg(long)]
    pub id: Option<Id>,
    /// Only goroutines that were seen with this label; all of them, if several are given
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label)]
    pub label: Vec<(String, String)>,
    /// In groups by the value of a label
    #[arg(long, value_name = "label:KEY")]
    pub group_by: Option<LabelKey>,
    #[command(flatten)]
    pub view: ViewArg,
    #[arg(long, value_enum, default_value_t = TimelineFormat::Text)]
    pub format: TimelineFormat,
    #[command(flatten)]
    pub output: OutputArg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TimelineFormat {
    Text,
    Jsonl,
}

#[derive(Clone, Debug, Args)]
pub struct FlameArgs {
    /// The recording
    #[arg(value_name = "REC")]
    pub recording: PathBuf,
    /// What the widths are
    #[arg(long, value_enum)]
    pub by: FlameBy,
    /// Draw the growth of a profile's values: from the first profile of REC to its newest, or from REC's newest to that of REC2
    #[arg(long, value_name = "REC2", num_args = 0..=1)]
    pub diff: Option<Option<PathBuf>>,
    /// Take the newest profile of this time after the recording's begin, or before: 30s, 5m
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub at: Option<Duration>,
    #[arg(long, value_enum, default_value_t = FlameFormat::Svg)]
    pub format: FlameFormat,
    #[command(flatten)]
    pub output: OutputArg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FlameBy {
    /// Goroutines made, by creation stack
    Created,
    /// Goroutines alive at the end, by creation stack
    Alive,
    /// Time blocked, by blocking stack
    Blocked,
    /// Time lived, by creation stack
    Lifetime,
    /// Time waiting for a CPU, by the stack at which it goes on (T3)
    Runnable,
    /// CPU time, by the code that ran (sampled)
    Oncpu,
    /// Heap in use, by the code that allocated it; this and what follows: out of the program's own profiles
    #[value(name = "inuse_space")]
    InuseSpace,
    /// Objects in use
    #[value(name = "inuse_objects")]
    InuseObjects,
    /// Heap allocated since the program's start
    #[value(name = "alloc_space")]
    AllocSpace,
    /// Objects allocated since the program's start
    #[value(name = "alloc_objects")]
    AllocObjects,
    /// Time that mutexes were held against others, since the program's start
    Mutex,
    /// Time blocked, since the program's start
    Block,
    /// CPU time while the profile was taken
    Cpu,
    /// Goroutines that nobody can wake any more
    Goroutineleak,
}

/// What a flamegraph is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlameOf {
    Events(By),
    Profiles(profile_flame::By),
}

impl From<FlameBy> for FlameOf {
    fn from(by: FlameBy) -> Self {
        use profile_flame::By as Of;
        match by {
            FlameBy::Created => Self::Events(By::Created),
            FlameBy::Alive => Self::Events(By::Alive),
            FlameBy::Blocked => Self::Events(By::Blocked),
            FlameBy::Lifetime => Self::Events(By::Lifetime),
            FlameBy::Runnable => Self::Events(By::Runnable),
            FlameBy::Oncpu => Self::Events(By::OnCpu),
            FlameBy::InuseSpace => Self::Profiles(Of::InuseSpace),
            FlameBy::InuseObjects => Self::Profiles(Of::InuseObjects),
            FlameBy::AllocSpace => Self::Profiles(Of::AllocSpace),
            FlameBy::AllocObjects => Self::Profiles(Of::AllocObjects),
            FlameBy::Mutex => Self::Profiles(Of::Mutex),
            FlameBy::Block => Self::Profiles(Of::Block),
            FlameBy::Cpu => Self::Profiles(Of::Cpu),
            FlameBy::Goroutineleak => Self::Profiles(Of::GoroutineLeak),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FlameFormat {
    Svg,
    /// Folded lines, for flamegraph tools
    Folded,
    /// Gzipped profile.proto, for `go tool pprof`
    Pprof,
}

#[derive(Clone, Debug, Args)]
pub struct SnapshotArgs {
    /// The process; one's own needs no root where ptrace is allowed
    #[arg(long, value_name = "N")]
    pub pid: u32,
    #[arg(long, value_enum, default_value_t = SnapshotFormat::Text)]
    pub format: SnapshotFormat,
    /// Leave stacks out: they are most of what has to be read
    #[arg(long)]
    pub no_stacks: bool,
    #[command(flatten)]
    pub output: OutputArg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SnapshotFormat {
    /// As Go writes its own dumps
    Text,
    Json,
    /// Gzipped profile.proto, for `go tool pprof`: goroutines by stack and labels
    Pprof,
}

#[derive(Clone, Debug, Args)]
pub struct OutputArg {
    /// Write to FILE, whole or not at all (default: stdout)
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("target").args(["exe", "pid"]))]
pub struct DoctorArgs {
    /// Check this Go program
    #[arg(long, value_name = "PATH")]
    pub exe: Option<PathBuf>,
    /// Check the program of this process
    #[arg(long, value_name = "N")]
    pub pid: Option<u32>,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

impl Command {
    /// Whether a failure of ours must not be taken for CMD's own: it exits 125.
    pub fn runs_command(&self) -> bool {
        matches!(self, Self::Run(_))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Check that the definition holds together.
    #[test]
    fn definition() {
        Cli::command().debug_assert();
    }

    /// Check what is accepted and what is refused.
    #[test]
    fn lines() {
        let cases: &[(&str, bool)] = &[
            ("report a.rec", true),
            ("report a.rec --format json -o out.json --quiet", true),
            ("report", false),
            ("report a.rec --format yaml", false),
            ("timeline a.rec --id go:17@4", true),
            ("timeline a.rec --id seventeen", false),
            ("timeline a.rec --label a=b --label c= --group-by label:endpoint --events-only", true),
            ("timeline a.rec --label a", false),
            ("report a.rec --group-by endpoint", false),
            ("flame a.rec --by blocked --format pprof", true),
            ("flame a.rec", false),
            ("flame a.rec --by runnable --format folded", true),
            ("flame a.rec --by oncpu", true),
            ("flame a.rec --by nothing", false),
            ("flame a.rec --by inuse_space", true),
            ("flame a.rec --by alloc_objects --diff", true),
            ("flame a.rec --by inuse_space --diff b.rec --format folded", true),
            ("flame a.rec --by mutex --at 30s", true),
            ("flame a.rec --by mutex --at soon", false),
            ("run --snapshot-every 500ms -- ./app", true),
            ("run --snapshot-every 0 -- ./app", true),
            ("run --snapshot-every 1ms -- ./app", false),
            ("attach --pid 7 --snapshot-every often", false),
            ("run --cpu-hz 99 -- ./app", true),
            ("run --cpu-hz 10001 -- ./app", false),
            ("run -o x.rec --tier T1 -- ./app --its-own-flag", true),
            ("run --tier t2 --user nobody -- ./app", true),
            ("run --tier T3 -- ./app", true),
            ("run --tier T4 -- ./app", false),
            ("run --user nobody --as-root -- ./app", false),
            ("run -o x.rec", false),
            ("attach --pid 7 --for 30s", true),
            ("attach --exe a --for 1h -o x.rec --tier T1", true),
            ("attach --cgroup /system.slice/a.service", true),
            ("attach --pid 7 --with-pid 8 --with-pid 9", true),
            ("run --with-pid 8 -- ./app", true),
            ("run --with-pid envoy -- ./app", false),
            ("attach", false),
            ("attach --pid 7 --exe a", false),
            ("attach --pid 7 --for soon", false),
            ("attach --pid 7 --pprof auto --heap-every 30s --profile mutex,cpu", true),
            ("run --pprof http://127.0.0.1:6060 -- ./app", true),
            ("attach --pid 7 --pprof https://a", false),
            ("attach --pid 7 --heap-every 30s", false),
            ("attach --pid 7 --pprof auto --heap-every 1ms", false),
            ("attach --pid 7 --pprof auto --profile heat", false),
            ("doctor --exe a --pid 1", false),
            ("doctor --json", true),
            ("snapshot --pid 7 --format json -o out.json", true),
            ("snapshot --pid 7 --format pprof --no-stacks", true),
            ("snapshot --pid seven", false),
            ("--color never --quiet doctor --pid 1", true),
        ];
        for (line, fine) in cases {
            let parsed = Cli::try_parse_from(["lifetrace"].into_iter().chain(line.split(' ')));
            assert_eq!(parsed.is_ok(), *fine, "{line}");
        }
    }
}
