//! What is judged, and what a gate makes of it.

use std::{ffi::OsString, path::PathBuf};

use clap::{ArgGroup, Args, ValueEnum};

use super::{LaunchArgs, OutputArg, ViewArg};

#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("judged").args(["recording", "command"]).required(true))]
pub struct LeaksArgs {
    /// The recording to judge
    #[arg(value_name = "REC")]
    pub recording: Option<PathBuf>,
    /// Keep the recording of CMD here
    #[arg(long, value_name = "REC", requires = "command")]
    pub record: Option<PathBuf>,
    #[command(flatten)]
    pub how: LaunchArgs,
    #[command(flatten)]
    pub gate: GateArgs,
    /// A command to run and judge, with its arguments
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
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
    /// Blocked, and their number grows without bound
    Suspected,
    Never,
}
