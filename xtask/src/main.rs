//! `cargo xtask …`: everything a contributor or a newcomer runs. Each subcommand does its own set-up.

mod bench;
mod demo;
mod ebpf;
mod fuzz;
mod place;
mod programs;
mod setup;
mod shell;
mod test;
mod toolchain;

use std::path::PathBuf;

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
    /// Trace examples/orders and show what comes out; does all set-up; needs root
    Demo,
    /// Run every test, set-up included; needs root for the end-to-end ones
    Test,
    /// Feed every parser of what the traced side controls with nonsense, under libFuzzer
    Fuzz {
        /// Only this target
        #[arg(long)]
        target: Option<String>,
        /// For all targets together
        #[arg(long, default_value_t = 70)]
        seconds: u64,
        /// Run these inputs of a target once instead
        inputs: Vec<PathBuf>,
    },
    /// Measure what tracing costs the target, beside an empty probe; needs root
    Bench {
        /// Only the JSON lines
        #[arg(long)]
        json: bool,
    },
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::BuildEbpf { check: false } => ebpf::build(),
        Command::BuildEbpf { check: true } => ebpf::check(),
        Command::Demo => demo::demo(),
        Command::Test => test::test(),
        Command::Fuzz { target, seconds, inputs } => fuzz::fuzz(&fuzz::Wish { target, seconds, inputs }),
        Command::Bench { json } => bench::bench(json),
    }
}
