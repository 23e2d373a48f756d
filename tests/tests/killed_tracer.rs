//! `kill -9` of lifetrace: the target goes on, no probe is left, no exec hangs, and the recording opens.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lifetrace_tests::{
    bpf::Inventory,
    deadline::{PATIENCE, let_pass, wait_for},
    fixture,
    lifetrace::{Run, Traced},
    memory, process,
    scenario::{Need, alone},
    truth::{self, Births, Waiter},
};
use nix::sys::signal::{Signal, kill};

/// The kernel takes probes away when it gets to it.
const PROBES_GONE: Duration = Duration::from_secs(30);

/// Check that after a kill in full traffic the target goes on, its code is as it was, the kernel holds nothing of ours, and the recording
/// opens with what was written.
#[test]
fn target_goes_on_and_no_probe_is_left() -> Result<()> {
    alone(&[Need::Root], || {
        let program = fixture::go("sleeper")?;
        let before = Inventory::take()?;
        let addresses = memory::hook_addresses(&program)?;
        let mut traced = Run::of(&program).args(["-n", "1000", "-churn", "-tick", "20ms"]).start()?;
        let births: Births = truth::read(&traced.running.line(0)?)?;
        let target = process::pid(births.pid);
        assert!(memory::breakpoints(target, &addresses)? > 0, "no probe to be left: the test proves nothing");
        assert!(!before.new_in(&Inventory::take()?).is_empty(), "no BPF program: the test proves nothing");
        wait_for_bytes(&traced)?;
        kill_tracer(&mut traced)?;

        before.wait_restored(PROBES_GONE)?;
        wait_for("the target's code to be as it was", PROBES_GONE, || {
            Ok((memory::breakpoints(target, &addresses)? == 0).then_some(()))
        })?;
        let ticks = traced.running.stdout().lines().count();
        let _ = traced.running.line(ticks + 5).context("the target stopped ticking")?;
        assert!(process::is_alive(target));
        kill(target, Signal::SIGTERM)?;
        let (finished, recording) = traced.finish()?;
        assert_eq!(finished.last_line(), "terminated");
        let report = recording.report()?;
        assert!(report.goroutines.born.unwrap_or_default() > 0, "the recording is empty");
        Ok(())
    })
}

/// Check that a death at any instant of a program that keeps executing Go programs leaves no exec hanging and shows its parent nothing.
#[test]
fn no_exec_hangs_at_any_instant() -> Result<()> {
    const INSTANTS: u32 = 24;
    const CHILDREN: u32 = 20;
    alone(&[Need::Root], || {
        let (waiter, births) = (fixture::c("waiter")?, fixture::go("births")?);
        let before = Inventory::take()?;
        let run = Run::of(&waiter).args([CHILDREN.to_string()]).args([&births]).args(["-n", "30"]);
        let began = Instant::now();
        run.clone().finish()?.0.expect_code(0)?;
        let whole = began.elapsed();
        let mut started = 0;
        for instant in 0..INSTANTS {
            let mut traced = run.clone().start()?;
            // From the first steps of lifetrace itself to the end of the children.
            let_pass(whole * instant / INSTANTS);
            kill_tracer(&mut traced)?;
            let (finished, _) = traced.finish().with_context(|| format!("killed at instant {instant}: something hangs"))?;
            if !finished.stdout.is_empty() {
                started += 1;
                truth::read::<Waiter>(finished.last_line())?.assert_undisturbed(CHILDREN);
            }
        }
        assert!(started > 0, "lifetrace never came to start the command");
        before.wait_restored(PROBES_GONE)
    })
}

/// Check that a recording cut off in the middle of traffic opens each time, with a report that loses nothing it had written before.
#[test]
fn recordings_of_killed_tracers_open() -> Result<()> {
    alone(&[Need::Root], || {
        for _ in 0..5 {
            let mut traced = Run::of(fixture::go("sleeper")?).args(["-n", "10000", "-churn"]).start()?;
            let births: Births = truth::read(&traced.running.line(0)?)?;
            wait_for_bytes(&traced)?;
            kill_tracer(&mut traced)?;
            kill(process::pid(births.pid), Signal::SIGTERM)?;
            let (_, recording) = traced.finish()?;
            let report = recording.report()?;
            assert!(report.sites.iter().all(|site| site.exited + site.alive <= site.born), "{:#?}", report.sites);
            recording.timeline(None)?;
        }
        Ok(())
    })
}

/// Kills lifetrace alone; what it traces lives on.
fn kill_tracer(traced: &mut Traced) -> Result<()> {
    // It may have ended by itself before a late instant.
    if traced.running.signal(Signal::SIGKILL).is_ok() {
        let _ = traced.running.wait_exit()?;
    }
    Ok(())
}

/// Waits until the recording has grown beyond its first blocks.
fn wait_for_bytes(traced: &Traced) -> Result<()> {
    const SOME: u64 = 4096;
    let path = traced.recording().path();
    wait_for("the recording to grow", PATIENCE, || Ok(path.metadata().is_ok_and(|file| file.len() >= SOME).then_some(())))
}
