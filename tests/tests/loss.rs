//! Records that are lost: each loss is counted, has its time and its CPUs, and nothing else goes wrong.

use anyhow::{Context, Result, ensure};
use lifetrace_tests::{
    fixture,
    lifetrace::Run,
    recording::Recording,
    report::Report,
    scenario::{Need, along},
    truth::{self, Orders},
};

/// Runs the order service with these knobs. Its own truth must be whole: what we lose is no matter of its.
fn orders(knobs: &[&str], options: &[&str]) -> Result<(Orders, Recording, Report)> {
    let run = knobs.iter().fold(Run::of(fixture::orders()?), |run, knob| run.option("--knob").option(knob));
    let (finished, recording) = run.args(["-leak", "afterfunc"]).args(options).finish()?;
    let orders: Orders = truth::read(finished.expect_code(0)?.last_line())?;
    assert!(orders.settled, "the service cannot vouch for itself");
    let report = recording.report()?;
    assert_eq!(report.meta.completeness, "complete");
    assert_eq!(report.lost.late, 0, "events came behind a mark that was past them");
    Ok((orders, recording, report))
}

/// Losses there must be, each with a time, and intervals that name CPUs.
fn assert_shown(recording: &Recording, report: &Report) -> Result<()> {
    assert!(report.lost.events > 0, "nothing was lost: the test proves nothing");
    assert_eq!(report.lost.events, report.lost.by_kind.values().sum::<u64>());
    assert_eq!(report.lost.undated, 0, "{:?}", report.lost);
    let process = report.processes.first().context("no process")?;
    let rows = recording.timeline(Some(&format!("pid:{}", process.tgid)))?;
    let lost: Vec<_> = rows.iter().filter(|row| row.state == "lost").collect();
    assert!(!lost.is_empty() && lost.iter().all(|row| !row.cpus.is_empty()), "{lost:?}");
    ensure!(recording.answer("timeline", &["--id", "go:1"])?.contains("events lost"), "the loss is not told");
    Ok(())
}

/// Check that about as many records are missing as were dropped by chance, and that all of them are found by their numbers.
#[test]
fn by_chance() -> Result<()> {
    along(&[Need::Root], || {
        for permille in [10u64, 100, 500] {
            let (_, recording, report) = orders(&[&format!("drop-permille={permille}"), "drop-seed=7"], &["-n", "3000"])?;
            assert_shown(&recording, &report)?;
            let unknown = report.lost.by_kind.get("unknown").copied().unwrap_or_default();
            assert_eq!(unknown, report.lost.events, "the BPF side has counted losses: {:?}", report.lost);
            let seen: u64 = report.sites.iter().map(|site| site.born).sum();
            assert!(seen > 0 && unknown > seen * permille / 1000, "{unknown} lost of {seen} births and more");
        }
        Ok(())
    })
}

/// Check that a kind that is missing for a while is missing in that time only.
#[test]
fn of_one_kind() -> Result<()> {
    along(&[Need::Root], || {
        const EXIT: u8 = 5;
        let (orders, recording, report) =
            orders(&[&format!("drop-kind={EXIT}"), "drop-for-ms=1000"], &["-n", "3000", "-rate", "1000"])?;
        assert_shown(&recording, &report)?;
        let made: u64 = orders.made.iter().map(|made| made.count).sum();
        assert!(report.goroutines.born >= Some(made), "births were dropped, too");
        assert!(report.goroutines.exited < report.goroutines.born && report.goroutines.exited > Some(0));
        Ok(())
    })
}

/// Check that a reader that stands still with a small ring loses records, that the kernel and the numbers agree on how many, and that
/// those lost behind a CPU's last record have their time as well.
#[test]
fn frozen_reader() -> Result<()> {
    along(&[Need::Root], || {
        let (_, recording, report) = orders(&["freeze-ms=1000", "freeze-from-ms=20", "ring-bytes=65536"], &["-n", "20000"])?;
        assert_shown(&recording, &report)?;
        assert_eq!(report.lost.by_kind.get("unknown"), None, "{:?}", report.lost);
        Ok(())
    })
}

/// Check that under heavy load on all CPUs, with samples that interrupt programs, nothing is lost and nothing comes behind a mark.
#[test]
fn order_under_load() -> Result<()> {
    along(&[Need::Root], || {
        for options in [&["--tier", "T2"][..], &["--tier", "T3", "--cpu-hz", "999"]] {
            let run = options.iter().fold(Run::of(fixture::orders()?), Run::option);
            let (finished, recording) = run.args(["-n", "50000"]).finish()?;
            finished.expect_code(0)?;
            let report = recording.report()?;
            assert_eq!((report.lost.late, report.lost.undated), (0, 0), "{options:?}");
            assert!(report.goroutines.born > Some(50_000) || report.lost.events > 0);
        }
        Ok(())
    })
}
