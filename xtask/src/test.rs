//! `cargo xtask test`: all set-up, then every test there is.

use std::{
    fs,
    io::Write,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{
    fuzz, go, image,
    matrix::{self, Matrix},
    offsets, place, programs, setup,
    shell::run,
    vm,
};

pub fn test(tiers: &[String]) -> Result<()> {
    let go = go::go()?;
    setup::tools();
    let root = setup::is_root();
    let skips = place::target().join("skips.jsonl");
    let _ = fs::remove_file(&skips);
    fs::create_dir_all(place::target())?;
    stage("build", || setup::lifetrace().map(drop))?;
    stage("without the kernel", || {
        let check = ["check", "--quiet", "--package", "tracer-user", "--no-default-features", "--tests"];
        run(Command::new("cargo").args(check).current_dir(place::root()))
    })?;
    stage("fuzzing", fuzz_shortly)?;
    let programs = programs::fetch();
    if !root {
        println!(
            "not root: the end-to-end tests that set probes are skipped and counted; run `sudo -E cargo xtask test` for them"
        );
    }
    stage("the table of offsets", check_offsets)?;
    stage("the labelled set: list, halves, labels", || {
        run(Command::new(&go).args(["test", "."]).current_dir(place::root().join("tests/leakset")).env("GOWORK", "off"))
    })?;
    stage("the container image", make_image)?;
    let slice = Matrix::slice(tiers)?;
    let tests = stage("all crates, end to end", || {
        let mut tests = cargo_test();
        slice.name_to(&mut tests);
        run(tests.arg("--workspace").env("LIFETRACE_GO", &go).env("LIFETRACE_PROGRAMS", &programs))
    });
    slice.report()?;
    tests?;
    stage("a kernel of the matrix", boot_a_kernel)?;
    report_skips(&fs::read_to_string(&skips).unwrap_or_default());
    Ok(())
}

/// Measures one release again: another one with each commit.
fn check_offsets() -> Result<()> {
    let release = matrix::release_of_the_day();
    let had = go::toolchain(release);
    match had {
        Ok(_) => offsets::check(release, &setup::lifetrace()?),
        Err(error) => skipped("the table of offsets", &format!("no go{release}: {error:#}")),
    }
}

/// Tests that need it say that it is not there.
fn make_image() -> Result<()> {
    image::image("lifetrace:test", false).or_else(|error| skipped("the container image", &format!("{error:#}")))
}

/// Boots the kernel whose turn it is.
fn boot_a_kernel() -> Result<()> {
    match vm::slice()? {
        Ok(()) => Ok(()),
        Err(reason) => skipped("a kernel of the matrix", &reason),
    }
}

/// Records a skip as the end-to-end tests record theirs, where one is allowed.
fn skipped(test: &str, reason: &str) -> Result<()> {
    if std::env::var_os("LIFETRACE_REQUIRE_ALL").is_some_and(|value| value == "1") {
        bail!("{test} would be skipped: {reason}");
    }
    let skip = serde_json::json!({"test": test, "reason": reason});
    let mut skips = fs::OpenOptions::new().create(true).append(true).open(place::target().join("skips.jsonl"))?;
    Ok(writeln!(skips, "{skip}")?)
}

/// Every target for a few seconds, the committed inputs first.
fn fuzz_shortly() -> Result<()> {
    const SECONDS: u64 = 70;
    if fuzz::possible() {
        return fuzz::fuzz(&fuzz::Wish { target: None, seconds: SECONDS, inputs: Vec::new() });
    }
    skipped("fuzzing", "no C++ compiler for libFuzzer")
}

fn cargo_test() -> Command {
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--quiet", "--no-fail-fast"]).current_dir(place::root());
    cargo
}

/// Runs one stage and prints its minutes.
pub fn stage(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("== {name}");
    let began = Instant::now();
    let result = work();
    println!("== {name}: {} min", minutes(began.elapsed()));
    result
}

fn minutes(took: Duration) -> String {
    format!("{:.1}", took.as_secs_f64() / 60.0)
}

fn report_skips(lines: &str) {
    let count = lines.lines().count();
    println!("== {count} skipped");
    lines.lines().for_each(|line| println!("   {line}"));
}
