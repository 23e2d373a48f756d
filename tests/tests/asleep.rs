//! The machine put to sleep while programs are followed, and CPUs that go and come back: only on machines that are ours, as `cargo xtask vm` emulates
//! them.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use lifetrace_tests::{
    agent::Agent,
    attach::Attached,
    bpf::Inventory,
    deadline::{PATIENCE, wait_for},
    fixture,
    process::Running,
    recording::Recording,
    scenario::{Need, alone},
};

/// After so many seconds the machine wakes up; it is asleep for some of them.
const WAKES_AFTER: u32 = 8;
/// How the clock that wakes it is told, and the kernel that it is to sleep (`Documentation/admin-guide/pm/sleep-states.rst`).
const ALARM: &str = "/sys/class/rtc/rtc0/wakealarm";
const STATE: &str = "/sys/power/state";
/// Seldom enough for an emulated machine.
const HZ: u32 = 19;
const SECOND_CPU: &str = "/sys/devices/system/cpu/cpu1/online";

/// A program that makes goroutines all the time.
fn busy(app: &Path) -> Result<Running> {
    fixture::orders_at(app, &["-leak", "afterfunc", "-n", "20000", "-rate", "50", "-for", "3600s"])
}

/// Puts the machine to sleep; when this returns it is awake again.
fn sleep() -> Result<()> {
    fs::write(ALARM, "0").context("the clock that is to wake the machine")?;
    fs::write(ALARM, format!("+{WAKES_AFTER}"))?;
    fs::write(STATE, "mem").context("the machine does not sleep")
}

/// Waits for a while in which about as many ticks come as there are CPUs for: an emulated machine may itself be kept from its CPU, but not each time.
fn all_tick(recording: &Recording) -> Result<()> {
    const SECONDS: u64 = 6;
    let ticks = || -> Result<(u64, u64)> {
        let cpu = recording.report()?.cpu.context("nothing is sampled")?;
        Ok((cpu.ticks, cpu.expected_ticks))
    };
    for _ in 0..4 {
        let (before, expected_before) = ticks()?;
        let (now, expected) = wait_for("time to pass", PATIENCE, || {
            Ok(Some(ticks()?).filter(|(_, expected)| *expected >= expected_before + SECONDS * u64::from(HZ)))
        })?;
        let (came, due) = (now - before, expected - expected_before);
        println!("ticks: {came} of {due}");
        if came * 10 >= due * 8 {
            return Ok(());
        }
    }
    bail!("too few ticks of the CPUs that are there")
}

/// On how many CPUs ticks are waited for.
fn cpus_waited_for(recording: &Recording) -> Result<f64> {
    let so_far = || -> Result<(u64, u64)> {
        let report = recording.report()?;
        Ok((report.cpu.context("nothing is sampled")?.expected_ticks, report.duration_ns))
    };
    let (ticks, from) = so_far()?;
    let (more, to) = wait_for("three seconds", PATIENCE, || Ok(Some(so_far()?).filter(|(_, to)| to - from > 3_000_000_000)))?;
    Ok((more - ticks) as f64 / f64::from(HZ) / ((to - from) as f64 / 1e9))
}

/// Check that a sleep of the machine loses nothing and ends nobody, that what is followed before is followed on, CPUs' samples among it, and that
/// recordings say that there was one.
#[test]
#[ignore = "puts the machine to sleep"]
fn machine() -> Result<()> {
    alone(&[Need::Root, Need::OwnMachine], || {
        let dir = tempfile::tempdir()?;
        let app = dir.path().join("app");
        let running = busy(&app)?;
        let inventory = Inventory::take()?;
        let agent = Agent::start(&format!(
            "budget = \"none\"\n[[rule]]\naction = \"follow\"\nexe = \"{}\"\n[record]\ndir = {:?}\nbefore = \"60s\"\nafter = \"1s\"\n",
            app.display(),
            dir.path().join("windows")
        ))?;
        let attached = Attached::to(&["--pid", &running.pid().to_string(), "--cpu-hz", &HZ.to_string()])?;
        let born = |metrics: &lifetrace_tests::agent::Metrics| metrics.sum("lifetrace_goroutines_born_total", &["time.goFunc"]);
        agent.until("births", born)?;
        wait_for("a tick", PATIENCE, || Ok(attached.recording().report()?.cpu.filter(|cpu| cpu.ticks > 0)))?;
        let before = agent.metrics()?;

        sleep()?;

        let after = agent.metrics()?;
        assert!(born(&after) >= born(&before), "{:?} after {:?}", born(&after), born(&before));
        let awake = born(&after).unwrap_or_default();
        agent.until("births since", |metrics| born(metrics).filter(|born| *born > awake))?;
        let metrics = agent.metrics()?;
        for series in ["lifetrace_lost_events_total", "lifetrace_process_exits_total"] {
            assert_eq!(metrics.sum(series, &[]), None, "{series}");
        }
        assert_eq!(metrics.sum("lifetrace_processes", &[]), Some(1.0));
        assert!(agent.get("/healthz")?.starts_with("HTTP/1.1 200"));
        agent.terminate()?;

        all_tick(attached.recording())?;
        let (_, recording) = attached.interrupt()?;
        let report = recording.report()?;
        report.assert_nothing_lost_since_joined();
        let drift = Duration::from_nanos(report.meta.clock_drift_ns.context("no drift")?.unsigned_abs());
        println!("the calendar went {drift:?} further than the recording");
        assert!((1..=u64::from(WAKES_AFTER) + 1).contains(&drift.as_secs()), "{drift:?}");
        let told = report.meta.warnings.iter().any(|warning| warning.contains("the machine slept for"));
        assert!(told, "{:?}", report.meta.warnings);
        inventory.wait_restored(PATIENCE)
    })
}

/// Check that a CPU that was away is sampled again, that while it is away none of its ticks are waited for, and that no event is lost for it.
#[test]
#[ignore = "takes a CPU away from the machine"]
fn cpu() -> Result<()> {
    alone(&[Need::Root, Need::OwnMachine], || {
        let dir = tempfile::tempdir()?;
        let app = dir.path().join("app");
        let running = busy(&app)?;
        let attached = Attached::to(&["--pid", &running.pid().to_string(), "--cpu-hz", &HZ.to_string()])?;
        for (state, here) in [("0", "0"), ("1", "0-1")] {
            fs::write(SECOND_CPU, state).context("the second CPU")?;
            let online = fs::read_to_string("/sys/devices/system/cpu/online")?;
            ensure!(online.trim() == here, "online: {online}");
            all_tick(attached.recording())?;
            let cpus = cpus_waited_for(attached.recording())?;
            ensure!((cpus - if state == "1" { 2.0 } else { 1.0 }).abs() < 0.3, "ticks of {cpus:.1} CPUs are waited for");
        }
        let (_, recording) = attached.interrupt()?;
        let report = recording.report()?;
        report.assert_nothing_lost_since_joined();
        Ok(())
    })
}
