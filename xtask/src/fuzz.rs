//! `cargo xtask fuzz`: every parser of what the traced side controls, under libFuzzer.
//!
//! Stable Rust suffices: coverage comes from LLVM's own pass (`fuzz/instrument`), and no sanitizer is used. What is found grows in `target/fuzz/corpus`; an
//! input that fails lies in `target/fuzz/failed`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    place,
    shell::{output, run},
};

/// The targets of `fuzz/src/targets`, and the longest input of each.
const TARGETS: [(&str, u32); 16] = [
    ("go_binary", 1 << 20),
    ("what_is", 64 << 10),
    ("build_info", 64 << 10),
    ("snapshot", 64 << 10),
    ("go_tests", 64 << 10),
    ("records", 64 << 10),
    ("recording", 1 << 20),
    ("maps", 64 << 10),
    ("native_symbols", 256 << 10),
    ("native_maps", 64 << 10),
    ("pprof_goroutines", 256 << 10),
    ("pprof_pages", 64 << 10),
    ("pprof_packed", 256 << 10),
    ("profile", 256 << 10),
    ("usdt_object", 256 << 10),
    ("usdt_arguments", 64 << 10),
];

/// What to fuzz.
pub struct Wish {
    /// One target instead of all.
    pub target: Option<String>,
    /// For all targets together.
    pub seconds: u64,
    /// Inputs to run once instead.
    pub inputs: Vec<PathBuf>,
}

/// Whether libFuzzer, which is C++, can be built here.
pub fn possible() -> bool {
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    output(Command::new(compiler).arg("--version")).is_ok()
}

pub fn fuzz(wish: &Wish) -> Result<()> {
    let known = |name: &str| TARGETS.iter().any(|(target, _)| *target == name);
    if let Some(name) = wish.target.as_deref().filter(|name| !known(name)) {
        let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
        bail!("no target {name}; there are {}", names.join(", "));
    }
    let fuzzer = build()?;
    let wanted = TARGETS.iter().filter(|(name, _)| wish.target.as_deref().is_none_or(|wanted| wanted == *name));
    let wanted: Vec<_> = wanted.collect();
    if !wish.inputs.is_empty() {
        let [(name, _)] = wanted[..] else { bail!("which --target are these inputs for?") };
        return run(libfuzzer(&fuzzer, name).args(&wish.inputs));
    }
    catches_planted_faults(&fuzzer)?;
    let seconds = wish.seconds.div_ceil(wanted.len() as u64).max(1);
    for (name, longest) in wanted {
        println!("== fuzz {name}, {seconds} s");
        campaign(&fuzzer, name, *longest, seconds)?;
    }
    Ok(())
}

/// Builds the fuzzer. Only the crates of this workspace are instrumented, so that their dependencies are not built once more.
fn build() -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo
        .args(["build", "--quiet", "--package", "lifetrace-fuzz", "--features", "run", "--bin", "fuzz"])
        .current_dir(place::root());
    run(cargo.env("RUSTC_WORKSPACE_WRAPPER", place::root().join("fuzz/instrument")))?;
    Ok(place::target().join("debug/fuzz"))
}

fn libfuzzer(fuzzer: &Path, name: &str) -> Command {
    let mut command = Command::new(fuzzer);
    command.env("LIFETRACE_FUZZ_TARGET", name).env("RUST_BACKTRACE", "1");
    // The memory of an input is counted by the fuzzer itself; this bound is for all of libFuzzer's own, its corpus included.
    command.args(["-timeout=60", "-rss_limit_mb=2048"]);
    command
}

/// Checks that the fuzzer fails where it must: one that cannot find anything would pass for ever.
fn catches_planted_faults(fuzzer: &Path) -> Result<()> {
    let dir = place::target().join("fuzz/planted");
    fs::create_dir_all(&dir)?;
    for (fault, caught) in [("panic", true), ("overflow", true), ("memory", true), ("time", true), ("nothing", false)] {
        let input = dir.join(fault);
        fs::write(&input, fault)?;
        let ended = libfuzzer(fuzzer, "planted").arg(&input).output().context("cannot start the fuzzer")?;
        if ended.status.success() == caught {
            bail!("the planted fault {fault:?}: {}\n{}", ended.status, String::from_utf8_lossy(&ended.stderr));
        }
    }
    Ok(())
}

fn campaign(fuzzer: &Path, name: &str, longest: u32, seconds: u64) -> Result<()> {
    let (grown, failed) = (place::target().join("fuzz/corpus").join(name), place::target().join("fuzz/failed"));
    fs::create_dir_all(&grown)?;
    fs::create_dir_all(&failed)?;
    let prefix = format!("{}/{name}-", failed.display());
    let mut command = libfuzzer(fuzzer, name);
    command.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={longest}"));
    command.arg(format!("-artifact_prefix={prefix}")).args(["-verbosity=1", "-print_final_stats=1"]);
    let log = place::target().join("fuzz").join(format!("{name}.log"));
    command.arg(&grown).arg(place::root().join("fuzz/corpus").join(name));
    let said = command.output().context("cannot start the fuzzer")?;
    fs::write(&log, &said.stderr)?;
    let text = String::from_utf8_lossy(&said.stderr);
    if said.status.success() {
        for line in text.lines().filter(|line| line.starts_with("stat::number_of_executed") || line.starts_with("stat::peak_rss"))
        {
            println!("   {line}");
        }
        return Ok(());
    }
    let mut last: Vec<_> = text.lines().rev().take(40).collect();
    last.reverse();
    println!("{}", last.join("\n"));
    bail!("target {name} failed; the input is {prefix}*, and `cargo xtask fuzz --target {name} FILE` runs it again")
}
