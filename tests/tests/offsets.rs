//! Binaries without debug information whose Go is in no table: believed where the process bears the offsets out, and only there.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use lifetrace_tests::{
    fixture,
    lifetrace::{Run, command},
    process::{self, Running},
    scenario::{Need, alone, along},
    truth::{self, Matrix},
};
use serde_json::Value;
use tempfile::TempDir;

/// Fixture `matrix`, stripped, by the machine's own Go, that says it was built by another release: `rename` gets the version's minor
/// and patch number and answers those it is to have, of the same length.
fn renamed(dir: &TempDir, rename: impl Fn(u32, &str) -> String) -> Result<PathBuf> {
    let go = fixture::go_command().context("no go command")?;
    let program = dir.path().join("matrix");
    let mut build = Command::new(&go);
    build.args(["build", "-buildvcs=false", "-ldflags=-s -w", "-o"]).arg(&program).arg("./matrix");
    build.env("GOTOOLCHAIN", "local").env("CGO_ENABLED", "0").current_dir(fixture::go_sources());
    let built = build.output()?;
    ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let version = Command::new(&go).args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local").output()?;
    let version = String::from_utf8(version.stdout)?.trim().to_owned();
    let numbers = version.strip_prefix("go1.").and_then(|numbers| numbers.split_once('.'));
    let (minor, patch) = numbers.with_context(|| format!("{version} is no release"))?;
    let other = rename(minor.parse()?, patch);
    ensure!(other.len() == version.len(), "{other} for {version}");
    let bytes = replaced(&fs::read(&program)?, version.as_bytes(), other.as_bytes());
    fs::write(&program, bytes)?;
    let target = doctor(&["--exe".as_ref(), program.as_os_str()], 0)?["target"].clone();
    ensure!(target["go_version"] == other.as_str(), "{target:#}");
    ensure!(target["offsets_source"]["source"] == "table_unverified", "{}", target["offsets_source"]);
    Ok(program)
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(from.len()).position(|window| window == from) {
        at += found;
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    bytes
}

/// A patch release that nobody has measured yet.
fn later_patch(minor: u32, patch: &str) -> String {
    format!("go1.{minor}.{}", "9".repeat(patch.len()))
}

/// A minor version whose structures differ.
fn lie(minor: u32, patch: &str) -> String {
    let other = if matches!(minor, 23 | 24) { 25 } else { 23 };
    format!("go1.{other}.{}", "8".repeat(patch.len()))
}

fn doctor(args: &[&std::ffi::OsStr], code: i32) -> Result<Value> {
    let mut doctor = command();
    doctor.args(["doctor", "--json"]).args(args);
    Ok(serde_json::from_str(&process::run(doctor)?.expect_code(code)?.stdout)?)
}

fn standing(program: &Path) -> Result<(Running, Matrix)> {
    let mut command = Command::new(program);
    command.args(["-stay", "-n", "100", "-rounds", "1"]);
    let mut running = Running::start(command, None)?;
    let truth = truth::read(&running.line(0)?)?;
    Ok((running, truth))
}

fn snapshot(pid: u32) -> Result<process::Finished> {
    let mut snapshot = command();
    snapshot.args(["snapshot", "--format", "json", "--pid", &pid.to_string()]);
    process::run(snapshot)
}

/// Check that an unknown patch release is traced as exactly as any other once the process has borne the offsets out.
#[test]
fn unknown_patch_release_is_traced() -> Result<()> {
    alone(&[Need::Root], || {
        let dir = TempDir::new()?;
        let (finished, recording) =
            Run::of(renamed(&dir, later_patch)?).args(["-n", "60000"]).env("LIFETRACE_LOG", "info").finish()?;
        let finished = finished.expect_code(0)?;
        finished.expect_said(&["bears out the offsets"])?;
        let truth: Matrix = truth::read(finished.last_line())?;
        let report = recording.report()?;
        report.assert_nothing_lost();
        truth::assert_sites(&report, truth.pid, &truth.sites);
        truth::assert_waits(&report, truth.pid, &truth.sites);
        Ok(())
    })
}

/// Check that doctor says of a process that it bears the offsets out, and that a snapshot of it is whole.
#[test]
fn unknown_patch_release_is_looked_at() -> Result<()> {
    along(&[Need::Root], || {
        let dir = TempDir::new()?;
        let (_running, truth) = standing(&renamed(&dir, later_patch)?)?;
        let said = doctor(&["--pid".as_ref(), truth.pid.to_string().as_ref()], 0)?;
        ensure!(said["process"]["bears_out"] == true, "{:#}", said["process"]);
        let found: Value = serde_json::from_str(&snapshot(truth.pid)?.expect_code(0)?.stdout)?;
        let parked = found["goroutines"].as_array().context("no goroutines")?.iter();
        let parked = parked.filter(|goroutine| goroutine["created_by"]["function"] == "main.makeSelectors").count();
        assert_eq!(parked, 50);
        Ok(())
    })
}

/// Check that a program which lies about its Go runs to its end unharmed, loses its probes, and that the recording says why.
#[test]
fn lying_binary_loses_its_probes() -> Result<()> {
    alone(&[Need::Root], || {
        let dir = TempDir::new()?;
        let (finished, recording) = Run::of(renamed(&dir, lie)?).args(["-n", "60000"]).finish()?;
        let finished = finished.expect_code(0)?;
        let truth: Matrix = truth::read(finished.last_line())?;
        finished.expect_said(&["does not bear out", "its probes were taken away"])?;
        let report: Value = serde_json::from_str(&recording.answer("report", &["--format", "json"])?)?;
        let coverage = report["coverage"].as_array().context("no coverage")?;
        let last = coverage.iter().rfind(|span| span["tgid"] == truth.pid).context("the process is not in the coverage")?;
        assert_eq!(last["tier"], "T0", "{coverage:#?}");
        Ok(())
    })
}

/// Check that doctor and snapshot refuse a process that contradicts its binary's version.
#[test]
fn lying_binary_is_refused() -> Result<()> {
    along(&[Need::Root], || {
        let dir = TempDir::new()?;
        let (_running, truth) = standing(&renamed(&dir, lie)?)?;
        let said = doctor(&["--pid".as_ref(), truth.pid.to_string().as_ref()], 3)?;
        ensure!(said["process"]["bears_out"] == false, "{:#}", said["process"]);
        snapshot(truth.pid)?.expect_code(3)?.expect_said(&["does not bear out"])?;
        Ok(())
    })
}
