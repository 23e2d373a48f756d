//! The target is unharmed: the same output and the same status as without lifetrace, whatever its runtime is busy with.

use std::{path::Path, process::Command, time::Duration};

use anyhow::Result;
use lifetrace_tests::{
    fixture,
    lifetrace::Run,
    process::Running,
    scenario::{Need, along},
    truth::{self, Births},
};

const ROUNDS: usize = 20;
/// The checking collector is slow, and so is a stopped world on a loaded machine.
const LONG: Duration = Duration::from_secs(300);

/// Check that growing stacks under a collector that never rests survive, 20 times in a row.
#[test]
fn stack_growth_under_constant_gc() -> Result<()> {
    unharmed("deepstack", &[], &[])
}

/// Check the same with a collection at every percent of growth.
#[test]
fn stack_growth_with_gogc_1() -> Result<()> {
    unharmed("deepstack", &[], &[("GOGC", "1")])
}

/// Check the same with a collector that stops the world.
#[test]
fn stack_growth_with_gcstoptheworld() -> Result<()> {
    unharmed("deepstack", &[], &[("GODEBUG", "gcstoptheworld=1")])
}

/// Check the same with a collector that verifies its own marks.
#[test]
fn stack_growth_with_gccheckmark() -> Result<()> {
    unharmed("deepstack", &[], &[("GODEBUG", "gccheckmark=1"), ("GOGC", "1")])
}

/// Check that a program that panics prints the same trace and ends the same, 20 times in a row, with the collector at work.
#[test]
fn panics_the_same() -> Result<()> {
    unharmed("panics", &["-n", "50"], &[("GOGC", "1")])
}

/// Check that goroutines by the ten thousand come and go under each of these collectors, and that the counts stay exact.
#[test]
fn births_under_each_collector() -> Result<()> {
    along(&[Need::Root], || {
        for setting in ["gcstoptheworld=1", "gccheckmark=1", "gcstoptheworld=2,gccheckmark=1"] {
            let run = Run::of(fixture::go("births")?).args(["-n", "10000"]).env("GOGC", "1").env("GODEBUG", setting);
            let (finished, recording) = run.finish_within(LONG)?;
            let births: Births = truth::read(finished.expect_code(0)?.last_line())?;
            let report = recording.report()?;
            truth::assert_sites(&report, births.pid, &births.sites);
            truth::assert_waits(&report, births.pid, &births.sites);
        }
        Ok(())
    })
}

/// Runs a fixture bare once, and traced 20 times, and compares.
fn unharmed(name: &str, args: &[&str], env: &[(&str, &str)]) -> Result<()> {
    along(&[Need::Root], || {
        let program = fixture::go(name)?;
        let (expected, said) = bare(&program, args, env)?;
        for round in 1..=ROUNDS {
            let run = env.iter().fold(Run::of(&program).args(args), |run, (name, value)| run.env(name, value));
            let (finished, _) = run.finish_within(LONG)?;
            let code = finished.code();
            assert_eq!((without_pid(&finished.stdout), code), expected, "round {round}: {}", finished.stderr);
            // Our own notes may stand around what the program said, not in it.
            assert!(finished.stderr.contains(&said), "round {round}: {}, expected {said}", finished.stderr);
        }
        Ok(())
    })
}

/// Output and status without lifetrace, and what it said on stderr.
fn bare(program: &Path, args: &[&str], env: &[(&str, &str)]) -> Result<((String, i32), String)> {
    let mut command = Command::new(program);
    command.args(args).envs(env.iter().copied());
    let finished = Running::start(command, None)?.finish_within(LONG)?;
    Ok(((without_pid(&finished.stdout), finished.code()), finished.stderr))
}

/// The process id is the one thing that differs from run to run.
fn without_pid(output: &str) -> String {
    let Some((before, after)) = output.split_once("\"pid\":") else { return output.to_owned() };
    format!("{before}\"pid\":{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
}
