//! The command line, as clap sees it (DESIGN: "The command line").

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::recording::contract::Tier;

const EXIT_CODES: &str = "\
Exit codes:
  0    fine
  2    wrong usage, or a recording that cannot be read
  3    the kernel, the privileges or the target do not allow it
  With `-- CMD`: CMD's own non-zero status (128+n for signal n);
  125  lifetrace itself failed (usage included), 126 CMD cannot be executed, 127 CMD was not found";

/// Follows the life of every goroutine of a Go program, from birth to exit, without touching it.
#[derive(Parser)]
#[command(name = "lifetrace", version, after_help = EXIT_CODES, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What every subcommand takes.
#[derive(Args, Clone, Debug, Default)]
pub struct Global {
    /// Say nothing but results and errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Colour in messages; `auto` looks at the terminal and at NO_COLOR
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Subcommand)]
pub enum Command {
    /// Start a command under trace from its first instruction, its children included
    #[cfg(feature = "live")]
    Run(RunArgs),
    /// What lived, by creation site: counts, waits, losses, coverage, price
    Report(ReportArgs),
    /// What each goroutine did from when to when
    Timeline(TimelineArgs),
    /// Flamegraphs of creation, blocking and lifetimes
    Flame(FlameArgs),
    /// What this kernel and this target allow, and what to do about the rest
    #[cfg(feature = "live")]
    Doctor(DoctorArgs),
    /// The exec gate's own process (lifetrace starts it itself)
    #[cfg(feature = "live")]
    #[command(hide = true)]
    ExecGate,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  sudo lifetrace run -o orders.lifetrace -- ./orders -n 1000
  sudo lifetrace run --tier T1 -- make test

CMD's input, output, signals and exit status pass through. Under sudo CMD runs as the user who called,
and the recording belongs to that user.")]
pub struct RunArgs {
    /// Where to record; the default is CMD's name, our process id and `.lifetrace`
    #[arg(short, long, value_name = "REC")]
    pub output: Option<PathBuf>,
    /// How much to see: T1 births and exits, T2 parks and wakes as well
    #[arg(long, value_name = "T", default_value = "T2", value_parser = parse_tier)]
    pub tier: Tier,
    /// Run CMD as this user (default under sudo: the user who called)
    #[arg(long, value_name = "NAME", conflicts_with = "as_root")]
    pub user: Option<String>,
    /// Run CMD as root, even under sudo
    #[arg(long)]
    pub as_root: bool,
    /// Probes that do nothing: the floor of a benchmark
    #[arg(long, hide = true)]
    pub empty_probes: bool,
    /// Provoke what is rare (tests): `ring-bytes=N`, `max-processes=N`, `bad-layout=1`
    #[arg(long, hide = true, value_name = "NAME=VALUE", value_parser = parse_knob)]
    pub knob: Vec<(String, u32)>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

impl RunArgs {
    /// The value of a test knob.
    pub fn knob(&self, name: &str) -> Option<u32> {
        self.knob.iter().rev().find(|(known, _)| known == name).map(|(_, value)| *value)
    }
}

#[derive(Args)]
#[command(after_help = "Example: lifetrace report orders.lifetrace --format json | jq '.sites[] | select(.alive > 0)'")]
pub struct ReportArgs {
    /// The recording
    #[arg(value_name = "REC")]
    pub recording: PathBuf,
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: ReportFormat,
    /// Write here instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    Text,
    Json,
}

#[derive(Args)]
#[command(after_help = "Examples:
  lifetrace timeline orders.lifetrace --id go:17
  lifetrace timeline orders.lifetrace --format jsonl -o orders.jsonl")]
pub struct TimelineArgs {
    /// The recording
    #[arg(value_name = "REC")]
    pub recording: PathBuf,
    /// Only this one: go:GOID, go:GOID@TGID or pid:TGID
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: TimelineFormat,
    /// Write here instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TimelineFormat {
    Text,
    Jsonl,
}

#[derive(Args)]
#[command(after_help = "Examples:
  lifetrace flame orders.lifetrace --by alive -o alive.svg
  lifetrace flame orders.lifetrace --by blocked --format pprof -o blocked.pb.gz && go tool pprof -top blocked.pb.gz")]
pub struct FlameArgs {
    /// The recording
    #[arg(value_name = "REC")]
    pub recording: PathBuf,
    /// What counts: births by creation stack, nanoseconds blocked by blocking stack, goroutines alive at the end, or nanoseconds lived by creation stack
    #[arg(long, value_name = "WEIGHT")]
    pub by: FlameBy,
    #[arg(long, value_name = "FORMAT", default_value = "svg")]
    pub format: FlameFormat,
    /// Write here instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FlameBy {
    Created,
    Blocked,
    Alive,
    Lifetime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FlameFormat {
    Svg,
    Folded,
    Pprof,
}

#[derive(Args)]
#[command(after_help = "Example: lifetrace doctor --exe ./orders")]
pub struct DoctorArgs {
    /// Look at this executable too
    #[arg(long, value_name = "PATH")]
    pub exe: Option<PathBuf>,
    /// Look at this process's executable too
    #[arg(long, value_name = "N", conflicts_with = "exe")]
    pub pid: Option<u32>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

fn parse_tier(text: &str) -> Result<Tier, String> {
    match text {
        "T1" => Ok(Tier::T1),
        "T2" => Ok(Tier::T2),
        "T0" | "T3" => Err(format!("{text} is not available yet: T1 or T2")),
        _ => Err("T1 or T2".to_owned()),
    }
}

fn parse_knob(text: &str) -> Result<(String, u32), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE")?;
    Ok((name.to_owned(), value.parse().map_err(|error| format!("{value}: {error}"))?))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Check that the command line is consistent, as clap sees it.
    #[test]
    fn consistent() {
        Cli::command().debug_assert();
    }
}
