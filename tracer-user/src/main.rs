//! The program: parse, dispatch, exit code.

use std::{
    ffi::OsStr,
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use anyhow::Result;
use clap::Parser;
use tracer_user::cli::{
    args::{Cli, Color, Command, Global},
    exit::{CliError, Exit},
    flame, report, timeline,
};
#[cfg(feature = "live")]
use tracer_user::{
    cli::{doctor, run},
    kernel::gate,
};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(refused) => return usage(&refused),
    };
    let fallback = fallback(&cli.command);
    say_through_tracing(&cli.global);
    let exit = dispatch(cli).unwrap_or_else(|error| {
        if is_broken_pipe(&error) {
            return Exit::FINE;
        }
        // A reader that is gone is no reason to fail differently.
        let _ = writeln!(io::stderr(), "lifetrace: {error:#}");
        error.downcast_ref::<CliError>().map_or(fallback, |error| error.exit)
    });
    ExitCode::from(exit.0)
}

fn dispatch(cli: Cli) -> Result<Exit> {
    match cli.command {
        #[cfg(feature = "live")]
        Command::Run(args) => run::run(&args, &cli.global),
        Command::Report(args) => report::report(&args),
        Command::Timeline(args) => timeline::timeline(&args),
        Command::Flame(args) => flame::flame(&args),
        #[cfg(feature = "live")]
        Command::Doctor(args) => doctor::doctor(&args, &mut io::stdout().lock()),
        #[cfg(feature = "live")]
        Command::ExecGate => Ok(gate::server::serve().map(|()| Exit::FINE)?),
    }
}

/// The exit code of an error that does not know its own.
fn fallback(command: &Command) -> Exit {
    match command {
        #[cfg(feature = "live")]
        Command::Run(_) => Exit::OURS,
        _ => Exit::BAD_INPUT,
    }
}

/// clap's own refusals, and its help. A wrong `run` is a failure of ours under a command: 125.
fn usage(refused: &clap::Error) -> ExitCode {
    let _ = refused.print();
    if !refused.use_stderr() {
        return ExitCode::SUCCESS;
    }
    let with_command = std::env::args_os().skip(1).find(|word| !word.as_encoded_bytes().starts_with(b"-"));
    let exit = if with_command.as_deref() == Some(OsStr::new("run")) { Exit::OURS } else { Exit::BAD_INPUT };
    ExitCode::from(exit.0)
}

/// Messages for people go to stderr, through tracing; LIFETRACE_LOG sets the level. What the BPF side logs comes the same way.
fn say_through_tracing(global: &Global) {
    let ansi = match global.color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    };
    let level = if global.quiet { LevelFilter::ERROR } else { LevelFilter::INFO };
    let filter = EnvFilter::builder().with_default_directive(level.into()).with_env_var("LIFETRACE_LOG").from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(ansi)
        .with_target(false)
        .without_time()
        .init();
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let direct = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        let json = cause.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
        direct.or(json) == Some(io::ErrorKind::BrokenPipe)
    })
}
