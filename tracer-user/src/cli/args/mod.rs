//! The command line, as clap parses it. What the flags mean is each subcommand's own business.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

mod agent;
mod examples;
mod leaks;
mod read;
mod record;
mod top;

pub use agent::*;
pub use leaks::*;
pub use read::*;
pub use record::*;
pub use top::*;

const AFTER_HELP: &str = "\
Exit codes:
  0    fine
  1    there are leaks (leaks)
  2    wrong usage or bad input
  3    the environment does not allow it (privilege, kernel, target)
With -- CMD (run, leaks):
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
  lifetrace export app.rec --format parquet -o app.tables
  lifetrace leaks app.rec --baseline leaks.json
  sudo lifetrace leaks -- go test ./...
  lifetrace leaks --pid 4711 --watch 60s
  lifetrace snapshot --pid 4711
  sudo lifetrace top --pid 4711";

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
    #[command(after_help = examples::RUN)]
    Run(RunArgs),
    /// Follow processes that run already, and those of their kind that start later
    #[command(after_help = examples::ATTACH)]
    Attach(AttachArgs),
    /// Say what lived, by creation site: delays, totals, loss, coverage, price
    #[command(after_help = examples::REPORT)]
    Report(ReportArgs),
    /// Say what each goroutine did from when to when
    #[command(after_help = examples::TIMELINE)]
    Timeline(TimelineArgs),
    /// Draw a flamegraph of creation, life, blocking, or of what the program's own profiles say
    #[command(after_help = examples::FLAME)]
    Flame(FlameArgs),
    /// Write tables for SQL: goroutines, spans, threads, processes, stacks, and more
    #[command(after_help = examples::EXPORT)]
    Export(ExportArgs),
    /// Say what leaks in a recording, a running process or a command: goroutines, threads, children, descriptors; how sure that is, and why
    #[command(after_help = examples::LEAKS)]
    Leaks(LeaksArgs),
    /// Say what every goroutine of a running program does now, out of its memory: no probe, no pause
    #[command(after_help = examples::SNAPSHOT)]
    Snapshot(SnapshotArgs),
    /// Show what lives now on the terminal, by creation site; go into a site, a goroutine and what it does
    #[command(after_help = examples::TOP, mut_arg("snapshot_every", |arg| arg.default_value("2s")))]
    Top(TopArgs),
    /// Follow the programs that a file chooses, for as long as it runs, and serve what they do as metrics
    #[command(after_help = examples::AGENT)]
    Agent(AgentArgs),
    /// Say which USDT probes a program has, and what they mean to lifetrace
    #[command(after_help = examples::USDT)]
    Usdt(UsdtArgs),
    /// Say what this kernel and a target allow, and what to do about the rest
    #[command(after_help = examples::DOCTOR)]
    Doctor(DoctorArgs),
    /// Write a script that completes lifetrace's words in a shell
    #[command(after_help = examples::COMPLETIONS)]
    Completions(CompletionsArgs),
    /// Write the man pages into a folder
    #[command(hide = true)]
    Man(ManArgs),
    /// The exec gate's own process; lifetrace starts it itself
    #[command(name = "exec-gate", hide = true)]
    ExecGate,
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
#[command(group = ArgGroup::new("target").args(["exe", "pid"]))]
pub struct DoctorArgs {
    /// Check this Go program
    #[arg(long, value_name = "PATH")]
    pub exe: Option<PathBuf>,
    /// Check the program of this process
    #[arg(long, value_name = "N")]
    pub pid: Option<u32>,
    /// Load every BPF program, say what the kernel's verifier thinks of it, and throw it away
    #[arg(long)]
    pub programs: bool,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, Args)]
pub struct CompletionsArgs {
    /// For which shell
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// The folder, which must be there
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub struct UsdtArgs {
    #[command(subcommand)]
    pub command: UsdtCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub enum UsdtCommand {
    /// List the probes: where they are, their arguments, what they mean, and what they need to fire
    #[command(after_help = examples::USDT)]
    List(UsdtListArgs),
}

#[derive(Clone, Debug, Args)]
pub struct UsdtListArgs {
    #[command(flatten)]
    pub target: UsdtTarget,
    #[command(flatten)]
    pub table: UsdtTableArg,
    #[arg(long, value_enum, default_value_t = ListFormat::Text)]
    pub format: ListFormat,
    #[command(flatten)]
    pub output: OutputArg,
}

/// Whose probes are listed.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct UsdtTarget {
    /// Of what this process has mapped
    #[arg(long, value_name = "N")]
    pub pid: Option<u32>,
    /// Of this program, and of the libraries that it needs
    #[arg(long, value_name = "PATH")]
    pub exe: Option<PathBuf>,
}

impl Command {
    /// Whether a failure of ours must not be taken for CMD's own: it exits 125.
    pub fn runs_command(&self) -> bool {
        matches!(self, Self::Run(_)) || matches!(self, Self::Leaks(args) if !args.command.is_empty())
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

    /// Check that every subcommand that is shown comes with examples, and that each of them would be taken.
    #[test]
    fn examples() {
        let (mut shown, mut tried) = (0, 0);
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help") {
            shown += 1;
            let help = command.get_after_help().map_or(String::new(), ToString::to_string);
            let lines: Vec<&str> = help.lines().filter_map(|line| line.strip_prefix("  ")).collect();
            assert!(!lines.is_empty(), "{} has no examples", command.get_name());
            for line in lines {
                // What a shell, or a person, would make of it.
                let line = line.strip_prefix("sudo ").unwrap_or(line);
                let line = line.split(" > ").next().unwrap_or(line).split("   (").next().unwrap_or(line);
                assert!(line.starts_with(&format!("lifetrace {}", command.get_name())), "{line}");
                let parsed = Cli::try_parse_from(line.split(' '));
                assert!(parsed.is_ok(), "{line}: {}", parsed.err().map_or(String::new(), |error| error.to_string()));
                tried += 1;
            }
        }
        assert!(shown >= 10 && tried >= 30, "{tried} examples of {shown} subcommands");
    }

    /// Check that who looks on is shown what snapshots tell sooner than it is recorded.
    #[test]
    fn snapshots() {
        let every = |line: &str| match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Top(args) => args.detail.snapshot_every,
            Command::Attach(args) => args.detail.snapshot_every,
            _ => unreachable!(),
        };
        let seconds = |seconds| Every(Some(std::time::Duration::from_secs(seconds)));
        assert_eq!(every("lifetrace top --pid 7"), seconds(2));
        assert_eq!(every("lifetrace top --pid 7 --snapshot-every 5s"), seconds(5));
        assert_eq!(every("lifetrace attach --pid 7"), seconds(10));
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
            ("leaks a.rec --require-tier T2", true),
            ("leaks --pid 7 --watch 30s --pprof auto --profile goroutineleak", true),
            ("leaks --pid 7 --watch 1ms", false),
            ("leaks --pid 7 -- ./app", false),
            ("leaks a.rec --pid 7", false),
            ("leaks a.rec --watch 30s", false),
            ("leaks a.rec --record b.rec", false),
            ("leaks --require-tier T2 -- ./app", true),
            ("usdt list --exe a", true),
            ("usdt list --pid 7 --usdt-table a.toml --format json", true),
            ("usdt list", false),
            ("usdt list --exe a --pid 7", false),
            ("usdt", false),
            ("run --usdt-table a.toml --usdt-table b.toml -- ./app", true),
            ("timeline a.rec --id java:12@7", true),
            ("timeline a.rec --id java:", false),
            ("timeline a.rec --id Java:12", false),
            ("top --pid 7", true),
            ("top --all --budget 0.5%", true),
            ("top a.rec", true),
            ("top", false),
            ("top --all --pid 7", false),
            ("top --pid 7 --tier T3", true),
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
