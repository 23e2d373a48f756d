//! The subcommands: parse, replay, write. One file each.
//!
//! [`main`] is the whole program but the process's own exit. Every failure carries its exit code ([`Failure`]).

use std::{
    ffi::{OsStr, OsString},
    fmt,
    fs::{self, File},
    io,
    io::{BufWriter, IsTerminal, Write},
    path::Path,
};

use anyhow::{Context, anyhow};
use clap::Parser;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

mod agent;
pub mod args;
#[cfg(feature = "live")]
mod asker;
#[cfg(feature = "live")]
mod attach;
#[cfg(feature = "live")]
mod begin;
#[cfg(feature = "live")]
mod doctor;
pub mod export;
pub mod flame;
#[cfg(feature = "live")]
mod follow;
#[cfg(feature = "live")]
mod join;
pub mod leaks;
mod live;
mod manual;
#[cfg(feature = "live")]
mod marks;
#[cfg(feature = "live")]
mod memory;
mod page;
#[cfg(all(feature = "live", any(feature = "top", feature = "agent")))]
mod piped;
mod progress;
#[cfg(feature = "live")]
mod recorder;
#[cfg(feature = "live")]
mod relay;
pub mod report;
#[cfg(feature = "live")]
mod run;
#[cfg(feature = "live")]
mod seldom;
#[cfg(feature = "live")]
mod snapshot;
mod subject;
pub mod timeline;
mod top;
#[cfg(feature = "live")]
mod trial;
#[cfg(feature = "live")]
mod usdt;
#[cfg(feature = "live")]
mod watch;

use args::{Cli, Color, Command, Global};
use progress::Progress;

use crate::{
    correlate::{
        Sink,
        replay::{Replayed, View, replay_only},
    },
    index::Only,
    recording::{
        RecordingError,
        place::{Place, PlaceError, expect_own},
        reader::Recording,
    },
};

/// Wrong usage or bad input.
pub const USAGE: u8 = 2;
/// The environment does not allow it.
pub const ENVIRONMENT: u8 = 3;
/// Any failure of ours where CMD's own status is passed through.
pub const OURS: u8 = 125;

/// CMD is there but cannot be executed, as `env` and `timeout` say it.
pub const NOT_EXECUTABLE: u8 = 126;
/// There is no such CMD.
pub const NOT_FOUND: u8 = 127;

/// Why a subcommand failed, and what the process exits with.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    pub error: anyhow::Error,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

/// So that it can travel through code that does not care about exit codes, and be found again.
impl std::error::Error for Failure {}

impl Failure {
    /// With `-- CMD`: whatever failed was ours.
    pub fn ours(error: impl Into<anyhow::Error>) -> Self {
        Self { code: OURS, error: error.into() }
    }

    /// Wrong usage or bad input: exit code 2.
    pub fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { code: USAGE, error: error.into() }
    }

    /// Privilege, kernel, target, disk: exit code 3.
    pub fn environment(error: impl Into<anyhow::Error>) -> Self {
        Self { code: ENVIRONMENT, error: error.into() }
    }

    fn is_broken_pipe(&self) -> bool {
        let broken = |source: &(dyn std::error::Error + 'static)| {
            let io = source.downcast_ref::<io::Error>().map(io::Error::kind);
            let json = source.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
            io.or(json) == Some(io::ErrorKind::BrokenPipe)
        };
        self.error.chain().any(broken)
    }
}

/// Parses the arguments, runs the subcommand, prints its failure, and returns what to exit with.
pub fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let args: Vec<OsString> = args.into_iter().collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(err) => {
            // Help and version are errors to clap, of code 0. A closed pipe is none to us.
            let _ = err.print();
            return match err.exit_code() {
                0 => 0,
                _ if names_command(&args) => OURS,
                _ => USAGE,
            };
        }
    };
    say_through_tracing(cli.global);
    let runs_command = cli.command.runs_command();
    match dispatch(&cli) {
        Ok(code) => code,
        Err(failure) if failure.is_broken_pipe() => 0,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "lifetrace: {:#}", failure.error);
            if runs_command && matches!(failure.code, USAGE | ENVIRONMENT) { OURS } else { failure.code }
        }
    }
}

/// The modes.
fn dispatch(cli: &Cli) -> Result<u8, Failure> {
    match &cli.command {
        Command::Run(args) => live::run(args, cli.global),
        Command::Attach(args) => live::attach(args, cli.global),
        Command::Report(args) => report::main(args, cli.global).map(|()| 0),
        Command::Timeline(args) => timeline::main(args, cli.global).map(|()| 0),
        Command::Flame(args) => flame::main(args, cli.global).map(|()| 0),
        Command::Export(args) => export::main(args, cli.global).map(|()| 0),
        Command::Leaks(args) => leaks::main(args, cli.global),
        Command::Snapshot(args) => live::snapshot(args, cli.global),
        Command::Top(args) => top::main(args, cli.global),
        Command::Agent(args) => agent::main(args, cli.global),
        Command::Usdt(args) => live::usdt(args, cli.global),
        Command::Doctor(args) => live::doctor(args, cli.global),
        Command::Completions(args) => manual::completions(*args),
        Command::Man(args) => manual::pages(args),
        Command::ExecGate => live::exec_gate(),
    }
}

/// Whether a line that does not parse was meant to run a command.
fn names_command(args: &[OsString]) -> bool {
    let mut words = args.iter().skip(1).map(OsString::as_os_str);
    while let Some(word) = words.next() {
        if word == "--color" {
            words.next();
        } else if !word.as_encoded_bytes().starts_with(b"-") {
            return word == "run" || word == "leaks" && words.any(|word| word == "--");
        }
    }
    false
}

/// Messages for people go to stderr through tracing, and so does what the BPF side logs. LIFETRACE_LOG sets the level.
fn say_through_tracing(global: Global) {
    let level = if global.quiet { LevelFilter::ERROR } else { LevelFilter::INFO };
    let ansi = match global.color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => io::stderr().is_terminal() && !no_color(),
    };
    let mut filter = EnvFilter::builder().with_default_directive(level.into()).with_env_var("LIFETRACE_LOG").from_env_lossy();
    // It says the same again and again, and prints what it was sent: what matters of that is said and counted by who asked it.
    if !std::env::var("LIFETRACE_LOG").is_ok_and(|wanted| wanted.contains("kube")) {
        let quiet = ["kube_client=off", "kube_runtime=off"].into_iter().filter_map(|quiet| quiet.parse().ok());
        filter = quiet.fold(filter, EnvFilter::add_directive);
    }
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(ansi);
    // A second one in the same process (tests) leaves the first in place.
    let _ = lines.with_target(false).without_time().try_init();
}

fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Replays a recording into `sink`, and says on stderr what is wrong with it.
fn load(path: &Path, view: View, global: Global, sink: &mut impl Sink) -> Result<Replayed, Failure> {
    let replayed = load_only(path, view, None, global, sink)?;
    say_what_lacks(&replayed, global);
    Ok(replayed)
}

/// Says on stderr what is wrong with a recording.
fn say_what_lacks(replayed: &Replayed, global: Global) {
    let whole = replayed.completeness == crate::recording::Completeness::Complete;
    if !global.quiet && (!whole || replayed.losses().events > 0) {
        let _ = writeln!(io::stderr(), "lifetrace: note: {}", replayed.trust());
    }
}

/// Replays a recording, all of it or for one goroutine, for an output that says itself what is wrong with it.
fn load_only(path: &Path, view: View, only: Option<Only>, global: Global, sink: &mut impl Sink) -> Result<Replayed, Failure> {
    let open = || -> Result<(Recording, Progress), RecordingError> {
        let file = File::open(path).map_err(|source| RecordingError::Io { path: path.into(), source })?;
        let progress = Progress::of_reading(&file, format!("reading {}", path.display()), global);
        Ok((Recording::of_file(file, path)?, progress))
    };
    let (recording, _progress) = open().map_err(Failure::usage)?;
    replay_only(recording, view, only, sink).map_err(Failure::usage)
}

/// Whether results on stdout may carry colour.
fn colored(global: Global, output: Option<&Path>) -> bool {
    match global.color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => output.is_none() && !no_color() && io::stdout().is_terminal(),
    }
}

/// Hands `write` a place for the results: stdout, or a file that appears whole or not at all.
fn write_output(output: Option<&Path>, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let Some(path) = output.filter(|path| *path != OsStr::new("-")) else {
        let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
        let written = write(&mut out).and_then(|()| out.flush());
        // What is still buffered must not be tried again on drop.
        let _ = out.into_parts();
        return written.context("cannot write to stdout").map_err(Failure::environment);
    };
    let written = write_to(path, write);
    written.with_context(|| format!("cannot write {}", path.display())).map_err(|error| match error.downcast_ref::<io::Error>() {
        // A path that leads nowhere is a slip of the caller's; a full disk is not.
        Some(cause) if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Failure::usage(error),
        _ => Failure::environment(error),
    })
}

fn write_to(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> anyhow::Result<()> {
    // Through a link, the file it names is replaced, not the link.
    let place = Place::behind(path).map_err(io_or_said)?;
    match fs::metadata(place.path()) {
        // A device, a FIFO: nothing to replace.
        Ok(metadata) if !metadata.is_file() && !metadata.is_dir() => {
            let file = fs::OpenOptions::new().write(true).open(place.path())?;
            expect_own(&file, path).map_err(io_or_said)?;
            let mut out = BufWriter::new(file);
            write(&mut out)?;
            Ok(out.flush()?)
        }
        _ => replace(&place, write),
    }
}

/// What the system says is looked at for its kind.
fn io_or_said(error: PlaceError) -> anyhow::Error {
    match error {
        PlaceError::Io(error) => error.into(),
        other => other.into(),
    }
}

/// By a file that belongs to us alone: what is told of programs can be secret.
fn replace(place: &Place, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> anyhow::Result<()> {
    if place.path().is_dir() {
        return Err(anyhow!("it is a directory"));
    }
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    let mut temp = tempfile::Builder::new().prefix(".lifetrace-").permissions(mode).tempfile_in(place.folder())?;
    let mut out = BufWriter::with_capacity(1 << 16, temp.as_file_mut());
    write(&mut out)?;
    out.flush()?;
    drop(out);
    temp.persist(place.path())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(line: &str) -> u8 {
        main(["lifetrace"].into_iter().chain(line.split(' ')).map(OsString::from))
    }

    /// Check the exit codes of lines that go wrong.
    #[test]
    fn exit_codes() {
        for (line, code) in [
            ("report", 2),
            ("nonsense", 2),
            ("report /nonexistent/file.rec", 2),
            ("timeline /nonexistent/file.rec --id go:x", 2),
            ("run", 125),
            ("--color never run --bogus -- true", 125),
            ("flame x --by nothing", 2),
            ("export REC --format parquet", 2),
            // Without its writer there is nothing to read it for.
            ("export /nonexistent/file.rec --format parquet -o /nonexistent/dir", if cfg!(feature = "parquet") { 2 } else { 3 }),
            ("snapshot", 2),
            ("top", 2),
            ("leaks", 2),
            ("leaks REC --record x", 2),
            ("leaks --bogus -- true", 125),
            ("leaks --baseline /nonexistent/leaks.json -- true", 125),
        ] {
            assert_eq!(exit(line), code, "{line}");
        }
    }

    /// Check that a write that fails leaves the old file as it was, and no other.
    #[test]
    fn nothing_half_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.txt");
        fs::write(&path, "old").unwrap();
        let failed = write_output(Some(&path), |out| {
            out.write_all(b"new")?;
            Err(io::Error::other("disk on fire"))
        });
        let failure = failed.unwrap_err();
        assert_eq!(failure.code, ENVIRONMENT);
        assert!(format!("{:#}", failure.error).contains("disk on fire"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        write_output(Some(&path), |out| out.write_all(b"new")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    }

    /// Check that a broken pipe is found however it is wrapped.
    #[test]
    fn broken_pipe() {
        let pipe = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(Failure::environment(anyhow::Error::from(pipe()).context("cannot write to stdout")).is_broken_pipe());
        assert!(!Failure::environment(io::Error::other("else")).is_broken_pipe());
    }
}
