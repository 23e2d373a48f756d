//! What is made of a recording.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::{ArgGroup, Args, ValueEnum};

use super::TierArg;
use crate::{
    correlate::replay::View,
    export::{flamegraph::By, profile_flame},
    timeline::Id,
};

/// What is told of.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("subject").args(["recording", "pid"]).required(true))]
pub struct SubjectArg {
    /// The recording
    #[arg(value_name = "REC")]
    pub recording: Option<PathBuf>,
    /// In place of a recording: follow this process now, as `attach` does, for 1 % of its CPU time at most
    #[arg(long, value_name = "N")]
    pub pid: Option<u32>,
    /// Follow it in this detail, whatever that costs it: 1, 2 or 3 (see `attach --help`)
    #[arg(long, value_enum, value_name = "TIER", conflicts_with = "recording")]
    pub tier: Option<TierArg>,
    /// For how long
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration, conflicts_with = "recording")]
    pub duration: Duration,
}

#[derive(Clone, Debug, Args)]
pub struct ReportArgs {
    #[command(flatten)]
    pub subject: SubjectArg,
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
    /// One page with everything to look at: report, leaks, timeline, flamegraphs
    Html,
}

/// For people, or for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    Text,
    Json,
}

#[derive(Clone, Debug, Args)]
pub struct TimelineArgs {
    #[command(flatten)]
    pub subject: SubjectArg,
    /// Only this: go:GOID, go:GOID@TGID (needed where several processes have that goroutine), pid:TGID, gc:TGID, or RUNTIME:ID
    /// for units of work of other runtimes (java:12)
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
    /// A trace for the Perfetto UI (ui.perfetto.dev)
    Perfetto,
    /// One page with everything to look at: timeline, report, leaks, flamegraphs
    Html,
}

#[derive(Clone, Debug, Args)]
pub struct FlameArgs {
    #[command(flatten)]
    pub subject: SubjectArg,
    /// What the widths are
    #[arg(long, value_enum)]
    pub by: FlameBy,
    /// Whose: of threads, `blocked` is the time off CPU [default: goroutines, if there are any]
    #[arg(long, value_enum)]
    pub of: Option<FlameSubject>,
    /// Draw what grew from REC to REC2; without REC2, of profiles, from the first profile of REC to its newest
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

/// Whose flamegraph is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FlameSubject {
    Goroutines,
    Threads,
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
pub struct ExportArgs {
    /// The recording; it is read twice
    #[arg(value_name = "REC")]
    pub recording: PathBuf,
    #[arg(long, value_enum)]
    pub format: ExportFormat,
    #[command(flatten)]
    pub view: ViewArg,
    /// Write into DIR, whole or not at all; an export that is there is replaced
    #[arg(long, short, value_name = "DIR")]
    pub output: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// A file for each table (docs/parquet.md)
    Parquet,
}

#[derive(Clone, Debug, Args)]
pub struct OutputArg {
    /// Write to FILE, whole or not at all (default: stdout)
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}
