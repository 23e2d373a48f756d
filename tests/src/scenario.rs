//! One test: what it needs, whether it must be alone on the machine, and what became of it.

use std::{fs, io::Write, thread};

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;
use serde::Serialize;

use crate::{fixture, image, lifetrace, program, user};

/// What a scenario cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// To be root: for probes, mounts and other users' processes.
    Root,
    /// A command in `PATH`.
    Command(&'static str),
    /// A Go toolchain, where fixtures are there without one.
    Go,
    /// The user `nobody`.
    Nobody,
    /// That users may look into their own processes: no Yama, or one that lets them (`kernel.yama.ptrace_scope`).
    FreePtrace,
    /// A program that the set-up fetches.
    Program(&'static str),
    /// The agent's container image.
    Image,
    /// A machine that is there for the test alone: it is put to sleep.
    OwnMachine,
}

/// Runs a scenario while no other one runs: it counts exactly, or looks at the whole kernel.
pub fn alone(needs: &[Need], body: impl FnOnce() -> Result<()>) -> Result<()> {
    run(needs, true, body)
}

/// Runs a scenario beside others.
pub fn along(needs: &[Need], body: impl FnOnce() -> Result<()>) -> Result<()> {
    run(needs, false, body)
}

fn run(needs: &[Need], alone: bool, body: impl FnOnce() -> Result<()>) -> Result<()> {
    if let Some(reason) = missing(needs) {
        return skip(&reason);
    }
    let target = fixture::target_dir();
    fs::create_dir_all(&target)?;
    // Released when it is closed, so also by a test that panics or a test binary that is killed.
    let lock = fs::File::create(target.join("scenario.lock"))?;
    let locked = if alone { lock.lock() } else { lock.lock_shared() };
    locked?;
    body()
}

fn missing(needs: &[Need]) -> Option<String> {
    // Without these there is nothing to trace and nothing to trace with.
    if !lifetrace::binary().is_file() {
        return Some(format!("no {}: `cargo build` makes it", lifetrace::binary().display()));
    }
    let compilers: &[Need] = if fixture::prebuilt().is_some() { &[] } else { &[Need::Go, Need::Command("gcc")] };
    compilers.iter().chain(needs).find_map(|need| match need {
        Need::Root if !geteuid().is_root() => Some("not root".to_owned()),
        Need::Command(name) if !in_path(name) => Some(format!("no {name} command")),
        Need::Program(path) if !program::fetched(path).is_file() => Some(format!("no {path}: `cargo xtask test` fetches it")),
        Need::Image if !image::archive().is_file() => {
            Some(format!("no {}: `cargo xtask image --dev` makes it", image::archive().display()))
        }
        Need::Go if fixture::go_command().is_none() => Some("no go command".to_owned()),
        Need::OwnMachine if std::env::var_os("LIFETRACE_OWN_MACHINE").is_none() => {
            Some("others use this machine: `cargo xtask vm` emulates one".to_owned())
        }
        Need::Nobody if user::nobody().is_none() => Some("no user nobody".to_owned()),
        Need::FreePtrace if restricted_ptrace() => Some("kernel.yama.ptrace_scope is not 0".to_owned()),
        _ => None,
    })
}

fn restricted_ptrace() -> bool {
    fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").is_ok_and(|scope| scope.trim() != "0")
}

fn in_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}

#[derive(Serialize)]
struct Skip<'a> {
    test: &'a str,
    reason: &'a str,
}

/// Records a skip: one line in `target/skips.jsonl` and one on stderr, past the capture of the test runner.
pub fn skip(reason: &str) -> Result<()> {
    let current = thread::current();
    let test = current.name().unwrap_or("?");
    if std::env::var_os("LIFETRACE_REQUIRE_ALL").is_some_and(|value| value == "1") {
        bail!("would be skipped: {reason}");
    }
    let mut line = serde_json::to_vec(&Skip { test, reason })?;
    line.push(b'\n');
    fs::create_dir_all(fixture::target_dir())?;
    let path = fixture::target_dir().join("skips.jsonl");
    let file = fs::OpenOptions::new().create(true).append(true).open(&path);
    file.and_then(|mut file| file.write_all(&line))
        .with_context(|| format!("cannot record in {} that {reason}", path.display()))?;
    writeln!(std::io::stderr(), "skipped: {test}: {reason}")?;
    Ok(())
}
