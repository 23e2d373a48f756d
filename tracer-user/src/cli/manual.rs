//! What a package installs beside the program: completions for shells, and man pages.

use std::io::{self, Write};

use clap::CommandFactory;

use super::{
    Failure,
    args::{Cli, CompletionsArgs, ManArgs},
};

/// Writes a shell's completion script to stdout.
pub fn completions(args: CompletionsArgs) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "lifetrace", &mut script);
    io::stdout().write_all(&script).map_err(|error| Failure::usage(anyhow::Error::from(error)))?;
    Ok(0)
}

/// Writes a page for lifetrace and one for each subcommand.
pub fn pages(args: &ManArgs) -> Result<u8, Failure> {
    let failed = |error| Failure::usage(anyhow::Error::from(error).context(format!("cannot write into {}", args.dir.display())));
    clap_mangen::generate_to(Cli::command(), &args.dir).map_err(failed)?;
    Ok(0)
}
