//! The table over time: goroutines and memory of a program that grows by known amounts, and of a process beside it.

use std::{fs, process::Command};

use anyhow::{Context, Result};
use lifetrace_tests::{
    attach::Attached,
    deadline::{PATIENCE, wait_for},
    fixture,
    lifetrace::{self, Run},
    process::{self, Running},
    recording::Recording,
    report::Report,
    scenario::{Need, alone, along},
    series::{Cell, Series},
    truth::{self, Grown},
};
use nix::sys::signal::{Signal, kill};

/// Check a command's table: at every row of each phase the goroutines and those of each site are exact, memory is what the program reads
/// itself, collections are all there, and the process beside it is shown with its name and memory.
#[test]
fn run_beside_a_sidecar() -> Result<()> {
    alone(&[Need::Root, Need::Command("sleep")], || {
        let sidecar = sleeping()?;
        let mut traced =
            Run::of(fixture::go("grower")?).env("GOGC", "off").option("--with-pid").option(sidecar.pid().to_string()).start()?;
        let recording = Recording::at(traced.recording().path());
        let phases = grow(&mut traced.running, &recording, 3)?;
        let (finished, recording) = traced.finish()?;
        finished.expect_code(0)?;
        let report = recording.report()?;
        report.assert_nothing_lost();
        assert_phases(&report, &phases);
        let series = &report.series;
        let pid = phases[0].pid;
        let cycles: u64 = series.cells(pid).filter_map(|(_, cell)| Some(cell.gc.as_ref()?.cycles)).sum();
        assert_eq!(cycles, u64::from(phases[2].cycles));
        // Nobody lived before the command did: all of it is growth.
        for site in &phases[2].sites {
            let found = series.of(pid).site(&site.function, site.line);
            assert_eq!((found.goroutines, found.growth), (site.alive, site.alive as i64));
        }
        assert_sidecar(series, &sidecar)
    })
}

/// Check the table of a process that was attached to in its second phase: those who lived before are counted, and are no growth.
#[test]
fn attach_in_the_middle() -> Result<()> {
    alone(&[Need::Root, Need::Command("sleep")], || {
        let mut command = Command::new(fixture::go("grower")?);
        command.env("GOGC", "off");
        let mut grower = Running::start(command, None)?;
        let first: Grown = truth::read(&grower.line(0)?)?;
        let sidecar = sleeping()?;
        let attached = Attached::to(&["--pid", &first.pid.to_string(), "--with-pid", &sidecar.pid().to_string()])?;
        let recording = Recording::at(attached.recording().path());
        kill(process::pid(first.pid), Signal::SIGUSR1)?;
        let second: Grown = truth::read(&grower.line(1)?)?;
        wait_for_look(&recording, &second)?;
        let (_, recording) = attached.interrupt()?;
        let report = recording.report()?;
        assert_phases(&report, std::slice::from_ref(&second));
        for (site, before) in second.sites.iter().zip(&first.sites) {
            let found = report.series.of(second.pid).site(&site.function, site.line);
            assert_eq!((found.goroutines, found.growth), (site.alive, (site.alive - before.alive) as i64));
        }
        assert_sidecar(&report.series, &sidecar)
    })
}

/// Check that a process that is not there is refused as wrong usage, by `run` as a failure of its own, and that the recording of that
/// name is left alone.
#[test]
fn nobody_beside() -> Result<()> {
    along(&[Need::Root], || {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("kept.rec");
        fs::write(&path, "older")?;
        for (subcommand, code) in [(vec!["attach", "--pid", "1"], 2), (vec!["run"], 125)] {
            let mut command = lifetrace::command();
            command.args(&subcommand).args(["--with-pid", "4194305", "-o"]).arg(&path);
            if subcommand[0] == "run" {
                command.args(["--", "true"]);
            }
            let finished = process::run(command)?.expect_code(code)?;
            finished.expect_said(&["there is no process 4194305"])?;
            assert_eq!(fs::read_to_string(&path)?, "older");
        }
        Ok(())
    })
}

fn sleeping() -> Result<Running> {
    let mut command = Command::new("sleep");
    command.arg("1000");
    Running::start(command, None)
}

/// Lets the program grow, each time after somebody has looked at its memory.
fn grow(running: &mut Running, recording: &Recording, phases: usize) -> Result<Vec<Grown>> {
    let mut all = Vec::new();
    for phase in 0..phases {
        let grown: Grown = truth::read(&running.line(phase)?)?;
        wait_for_look(recording, &grown)?;
        kill(process::pid(grown.pid), Signal::SIGUSR1)?;
        all.push(grown);
    }
    Ok(all)
}

/// Waits until the recording holds a look at its memory since it has grown.
fn wait_for_look(recording: &Recording, grown: &Grown) -> Result<()> {
    wait_for("a look at memory", PATIENCE, || {
        let report = recording.report()?;
        let since = since_zero(&report, grown);
        // A row's look may be from before the time it was grown at; the one behind it is not.
        let mut looked = report.series.cells(grown.pid).filter(|(at, cell)| *at > since && cell.rss_bytes.is_some());
        Ok(looked.nth(1).map(|_| ()))
    })
}

fn since_zero(report: &Report, grown: &Grown) -> u64 {
    grown.unix_ns.saturating_sub(report.meta.zero_unix_ns)
}

/// Claims what held from each phase's end to the last look in it.
fn assert_phases(report: &Report, phases: &[Grown]) {
    let series = &report.series;
    for (n, grown) in phases.iter().enumerate() {
        let from = since_zero(report, grown) + series.step_ns;
        // It goes on at once when it was looked at twice.
        let looks: Vec<(u64, &Cell)> =
            series.cells(grown.pid).filter(|(at, cell)| *at > from && cell.rss_bytes.is_some()).take(1).collect();
        let (until, look) = *looks.first().unwrap_or_else(|| panic!("nobody looked in phase {n}"));
        for (at, cell) in series.cells(grown.pid).filter(|(at, _)| (from..=until).contains(at)) {
            assert_eq!(cell.goroutines, Some(grown.goroutines), "phase {n}, at {at}");
            for site in &grown.sites {
                let index = series.of(grown.pid).index(&site.function, site.line);
                assert_eq!(cell.sites[index], site.alive, "phase {n}, {site:?}");
            }
        }
        let rss = look.rss_bytes.unwrap_or(0);
        assert!(rss.abs_diff(grown.rss_bytes) <= 6 << 20, "phase {n}: {rss}, and it read {}", grown.rss_bytes);
        if let Some(cgroup) = &look.cgroup {
            // Its own memory is charged to it.
            assert!(cgroup.current_bytes > 24 << 20 && cgroup.limit_bytes.is_none_or(|limit| limit > 0), "{cgroup:?}");
        }
    }
}

fn assert_sidecar(series: &Series, sidecar: &Running) -> Result<()> {
    let pid = u32::try_from(sidecar.pid().as_raw())?;
    assert_eq!(series.of(pid).beside.as_deref(), Some("sleep"));
    let statm = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages: u64 = statm.split(' ').nth(1).context("statm")?.parse()?;
    let looks: Vec<u64> = series.cells(pid).filter_map(|(_, cell)| cell.rss_bytes).collect();
    assert!(looks.len() >= 2 && looks.iter().all(|rss| rss.abs_diff(pages * 4096) <= 2 << 20), "{looks:?}, now {pages} pages");
    Ok(())
}
