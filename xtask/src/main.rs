//! `cargo xtask …`: everything a contributor or a newcomer runs. Each subcommand does its own set-up.

mod bench;
mod demo;
mod ebpf;
mod faults;
mod fuzz;
mod go;
mod image;
mod matrix;
mod offsets;
mod place;
mod programs;
mod setup;
mod shell;
mod test;
mod toolchain;
mod vm;

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
    Test {
        /// Only the matrix of Go versions and build modes, but all of it; otherwise a slice is among the tests
        #[arg(long)]
        matrix: bool,
        /// Tiers that the matrix is tried at
        #[arg(long, value_name = "TIER", default_values = ["T2", "T3"])]
        tier: Vec<String>,
    },
    /// Generate the table of runtime offsets out of every Go toolchain, fetching them into .cache/ first
    Offsets {
        /// Measure this release again (1.26.6), compare it with the table, write nothing
        #[arg(long, value_name = "RELEASE")]
        check: Option<String>,
    },
    /// Let the agent follow programs that start and end at random, and watch what it takes; needs root
    Soak {
        /// How long; a recording of 45 s stands for one of an hour
        #[arg(long, default_value_t = 20)]
        minutes: u64,
        /// Programs at once
        #[arg(long, default_value_t = 100)]
        programs: u64,
        /// Of what happens when
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Build the agent's container image, one program linked statically on nothing; needs root. Prints where its archive (OCI) is
    Image {
        /// What it is called in the archive
        #[arg(long, default_value = concat!("lifetrace:", env!("CARGO_PKG_VERSION")))]
        name: String,
        /// Out of the development build, as tests have it: quick to make, large and slow
        #[arg(long)]
        dev: bool,
    },
    /// Write the man pages into target/man/
    Man,
    /// Write the screens and pictures of docs/guide.md anew, and of README.md, out of tests/recordings
    Guide,
    /// Lose records in every way, and print what snapshots made of it; needs root
    Faults,
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
    /// Run the end-to-end tests on the kernels that distributions ship, in emulated machines, and write docs/kernels.md
    Vm {
        /// This kernel; `host` is the one that runs here. Otherwise another one with each commit
        #[arg(long, value_name = "NAME")]
        kernel: Option<String>,
        /// All of them
        #[arg(long, conflicts_with = "kernel")]
        all: bool,
        /// Only what `cargo xtask test` runs
        #[arg(long, conflicts_with = "only")]
        slice: bool,
        /// A test program, NAME or NAME:FILTER; may be given again. Only its row of docs/kernels.md is renewed, with a filter none
        #[arg(long, value_name = "TEST")]
        only: Vec<String>,
        /// Fetch the kernel again: there may be a newer one
        #[arg(long)]
        fetch: bool,
        /// Keep the archive that the machine booted into
        #[arg(long)]
        keep: bool,
    },
    /// Measure what tracing costs the target, beside an empty probe; needs root. `bench leaks`: verdicts on the labelled set, and docs/leakset.md
    Bench {
        #[arg(value_parser = ["leaks"])]
        what: Option<String>,
        /// Only the JSON lines
        #[arg(long)]
        json: bool,
        /// Only the rows whose name holds this ("snapshot")
        #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
        only: String,
    },
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::BuildEbpf { check: false } => ebpf::build(),
        Command::BuildEbpf { check: true } => ebpf::check(),
        Command::Demo => demo::demo(),
        Command::Test { matrix: true, tier } => matrix::test(&tier),
        Command::Test { matrix: false, tier } => test::test(&tier),
        Command::Offsets { check: None } => offsets::generate(),
        Command::Offsets { check: Some(release) } => offsets::check(&release, &setup::lifetrace()?),
        Command::Soak { minutes, programs, seed } => setup::soak([minutes, programs, seed]),
        Command::Image { name, dev } => image::image(&name, !dev),
        Command::Man => setup::man(),
        Command::Guide => setup::guide(),
        Command::Faults => faults::faults(),
        Command::Fuzz { target, seconds, inputs } => fuzz::fuzz(&fuzz::Wish { target, seconds, inputs }),
        Command::Vm { kernel, all, slice, only, fetch, keep } => vm::vm(&vm::Wish { kernel, all, slice, only, fetch, keep }),
        Command::Bench { what: Some(_), only, .. } => bench::leaks::bench(&setup::lifetrace()?, &only),
        Command::Bench { what: None, json, only } => bench::bench(json, &only),
    }
}
