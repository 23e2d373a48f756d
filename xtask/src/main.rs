//! `cargo xtask …`: everything a contributor or a newcomer runs. Each subcommand does its own set-up.

mod ebpf;
mod place;
mod shell;
mod toolchain;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "lifetrace's own commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the BPF object into tracer-ebpf/prebuilt/, fetching the pinned toolchain into .cache/ first
    BuildEbpf {
        /// Build it again elsewhere and prove the committed one identical; write nothing
        #[arg(long)]
        check: bool,
    },
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::BuildEbpf { check: false } => ebpf::build(),
        Command::BuildEbpf { check: true } => ebpf::check(),
    }
}
