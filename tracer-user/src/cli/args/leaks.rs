//! What is judged, and what a gate makes of it.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, ValueEnum};

use super::{LaunchArgs, OutputArg, TierArg, ViewArg};

#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("judged").args(["recording", "pid", "command"]).required(true))]
#[command(group = ArgGroup::new("recorded").args(["pid", "command"]))]
pub struct LeaksArgs {
    /// The recording to judge
    #[arg(value_name = "REC")]
    pub recording: Option<PathBuf>,
    /// Watch this process, by looks at its memory alone: no probe, no pause, and no root for one's own processes
    #[arg(long, value_name = "N")]
    pub pid: Option<u32>,
    /// For how long; Ctrl-C ends it, and judges what was seen
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_watch, conflicts_with_all = ["recording", "command"])]
    pub watch: Duration,
    /// Keep the recording of CMD, or of the process, here
    #[arg(long, value_name = "REC", requires = "recorded")]
    pub record: Option<PathBuf>,
    /// Fail (with -- CMD by 125) where what is judged was followed in less detail: T1, T2 or T3
    #[arg(long, value_enum, value_name = "TIER")]
    pub require_tier: Option<TierArg>,
    #[command(flatten)]
    pub how: LaunchArgs,
    #[command(flatten)]
    pub gate: GateArgs,
    /// A command to run and judge, with its arguments
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// Two looks at least.
const MIN_WATCH: Duration = Duration::from_secs(1);

fn parse_watch(text: &str) -> Result<Duration, String> {
    let watch = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if watch < MIN_WATCH { Err("at least 1s".to_owned()) } else { Ok(watch) }
}

/// What is told of leaks, and what they do to a gate.
#[derive(Clone, Debug, Args)]
pub struct GateArgs {
    #[arg(long, value_enum, default_value_t = LeaksFormat::Text)]
    pub format: LeaksFormat,
    /// Exit with 1 if there are leaks that are as sure as this, and that the baseline does not know
    #[arg(long, value_enum, default_value_t = FailOn::Suspected, value_name = "STRENGTH")]
    pub fail_on: FailOn,
    /// Which processes are judged: where any of them run Go's tests, those that do, else all [default]; or all in any case
    #[arg(long, value_enum, default_value_t = Judge::Tests, value_name = "WHICH")]
    pub judge: Judge,
    /// Leaks that are known: they are told, and fail nothing
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
    /// Write the leaks that are found into the baseline
    #[arg(long, requires = "baseline")]
    pub update_baseline: bool,
    /// Leaks to live with for a while, each with a reason and a last day (TOML; docs/leaks.md)
    #[arg(long, value_name = "FILE")]
    pub ignore: Option<PathBuf>,
    /// Draw what is proven or suspected into this file, and the difference to the baseline into FILE.diff.svg; FILE.folded and FILE.pb.gz
    /// hold folded lines and a pprof profile
    #[arg(long, value_name = "FILE.svg")]
    pub flame: Option<PathBuf>,
    /// The checkout, for formats that name files in it [default: the working directory]
    #[arg(long, value_name = "DIR", default_value = ".", hide_default_value = true)]
    pub source_root: PathBuf,
    #[command(flatten)]
    pub view: ViewArg,
    #[command(flatten)]
    pub output: OutputArg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LeaksFormat {
    Text,
    Json,
    /// For Jenkins, GitLab: a test case a group
    Junit,
    /// 2.1.0, for what shows findings beside the code
    Sarif,
    /// A job's summary
    Markdown,
    /// Annotations of GitHub Actions
    Github,
    /// One page with everything to look at: leaks, timeline, flamegraphs, report
    Html,
}

/// Which processes are judged. The Go toolchain itself never is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Judge {
    Tests,
    All,
}

/// What a gate fails on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    /// Proven by Go's collector; or dead children that their parent never waits for
    Proven,
    /// That, or blocked for good and growing without bound, or outliving the test they were born under
    Suspected,
    Never,
}
