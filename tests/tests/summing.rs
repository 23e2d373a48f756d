//! Short waits and lives that are summed in the kernel (`--min-block`), against the programs' own truth.

use std::{ffi::OsStr, fs, process::Command};

use anyhow::Result;
use lifetrace_tests::{
    attach::Attached,
    deadline::once_in_three,
    fixture,
    leaks::Leaks,
    lifetrace::Run,
    process::Running,
    recording::Recording,
    report::Report,
    scenario::{Need, alone},
    truth::{self, Births, PingPong},
};
use nix::sys::signal::Signal;

/// Waits of the players, over all reasons.
fn parks(report: &Report, truth: &PingPong) -> u64 {
    let player = |line| report.goroutines().of(truth.pid).created_by("main.main").at("main.go", line);
    truth.sites.iter().map(|site| player(site.line)).map(|of| of.waits_for("chan receive") + of.waits_for("chan send")).sum()
}

/// A program of the tests, recorded with these options.
fn recorded(program: impl AsRef<OsStr>, options: &[&str]) -> Run {
    options.iter().fold(Run::of(program), |run, option| run.option(option))
}

/// Without the runtime's own goroutines.
fn sum_of_widths(folded: &str) -> u64 {
    folded
        .lines()
        .filter(|line| !line.starts_with("[runtime]"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// Check that 200,000 short waits are counted exactly although next to none is told, that their time and stacks are those of a recording that
/// tells each, and that it takes no room.
#[test]
fn waits() -> Result<()> {
    alone(&[Need::Root], || {
        let played = |options: &[&str]| -> Result<(PingPong, Recording)> {
            let (finished, recording) = recorded(fixture::go("pingpong")?, options).finish()?;
            Ok((truth::read(finished.expect_code(0)?.last_line())?, recording))
        };
        let ((told_truth, told), (truth, summed)) = (played(&[])?, played(&["--min-block", "1ms"])?);
        let (all, report) = (told.report()?, summed.report()?);
        report.assert_nothing_lost();
        truth::assert_sites(&report, truth.pid, &truth.sites);
        assert_eq!((parks(&all, &told_truth), parks(&report, &truth)), (200_000, 200_000));
        let sums = report.summed.as_ref().expect("it says what was summed");
        assert!(all.summed.is_none());
        assert_eq!((sums.min_block_ns, sums.unkept, sums.unsummed), (1_000_000, 0, 0));
        assert!(sums.waits > 190_000, "{sums:?}");
        assert!(report.price.probe_hits.is_some_and(|hits| hits >= 400_000), "{:?}", report.price);
        let bytes = |recording: &Recording| fs::metadata(recording.path()).map(|file| file.len());
        assert!(bytes(&summed)? * 10 < bytes(&told)?, "{} and {} bytes", bytes(&summed)?, bytes(&told)?);
        // The same stacks, and times that add up to what the sites say.
        let flame = |recording: &Recording| recording.answer("flame", &["--by", "blocked", "--format", "folded", "-q"]);
        let (of_all, of_sums) = (flame(&told)?, flame(&summed)?);
        for stack in ["main.serve;runtime.chanrecv1", "main.receive;runtime.chanrecv1"] {
            assert!(of_all.contains(stack) && of_sums.contains(stack), "{stack}:\n{of_all}\n{of_sums}");
        }
        let blocked: u64 = report.sites.iter().filter_map(|site| site.blocked_ns).sum();
        assert_eq!(sum_of_widths(&of_sums), blocked);
        Ok(())
    })
}

/// Check that births, exits and who is alive are exact although short lives are summed, and so are the waits of those who never go on, and the
/// flamegraph of creation.
#[test]
fn lives() -> Result<()> {
    alone(&[Need::Root], || {
        let (finished, recording) = Run::of(fixture::go("births")?).option("--min-block").option("200ms").finish()?;
        let births: Births = truth::read(finished.expect_code(0)?.last_line())?;
        let report = recording.report()?;
        report.assert_nothing_lost();
        truth::assert_sites(&report, births.pid, &births.sites);
        truth::assert_waits(&report, births.pid, &births.sites);
        assert!(report.summed.as_ref().is_some_and(|sums| sums.lives > 10_000), "{:?}", report.summed);
        let created = recording.answer("flame", &["--by", "created", "--format", "folded", "-q"])?;
        let made: u64 = report.sites.iter().map(|site| site.born).sum();
        assert_eq!(sum_of_widths(&created), made);
        Ok(())
    })
}

/// Check that nothing is missed where the tables are full: what finds no place is told.
#[test]
fn full_tables() -> Result<()> {
    alone(&[Need::Root], || {
        let run = |name, full| -> Result<Run> { Ok(recorded(fixture::go(name)?, &["--min-block", "1ms", "--knob", full])) };
        for full in ["max-kept=4", "max-sums=2"] {
            let (finished, recording) = run("pingpong", full)?.args(["-rounds", "20000"]).finish()?;
            let truth: PingPong = truth::read(finished.expect_code(0)?.last_line())?;
            let report = recording.report()?;
            report.assert_nothing_lost();
            truth::assert_sites(&report, truth.pid, &truth.sites);
            assert_eq!(parks(&report, &truth), 40_000);
            let sums = report.summed.expect("it says what was summed");
            assert!(sums.unkept + sums.unsummed > 10_000, "{full}: {sums:?}");
        }
        let (finished, recording) = run("births", "max-kept=1000")?.args(["-n", "20000"]).finish()?;
        let births: Births = truth::read(finished.expect_code(0)?.last_line())?;
        let report = recording.report()?;
        report.assert_nothing_lost();
        truth::assert_sites(&report, births.pid, &births.sites);
        Ok(())
    })
}

/// Check that a process which is attached to keeps its goroutines, and that the many that it makes meanwhile are summed, with no repair; and
/// that the verdict on those that wait for ever is the same.
#[test]
fn attached() -> Result<()> {
    alone(&[Need::Root], || {
        let mut command = Command::new(fixture::go("sleeper")?);
        command.args(["-n", "50", "-churn"]);
        let mut target = Running::start(command, None)?;
        let births: Births = truth::read(&target.line(0)?)?;
        let pid = target.pid().to_string();
        let options = ["--pid", &pid, "--min-block", "1ms", "--tier", "T2", "--snapshot-every", "1s", "--for", "4s"];
        let (_, recording) = Attached::to(&options)?.finish()?;
        target.signal(Signal::SIGKILL)?;
        target.finish()?;
        let report = recording.report()?;
        report.assert_nothing_lost_since_joined();
        truth::assert_waits(&report, births.pid, &births.sites);
        let churned = report.goroutines().of(births.pid).created_by("main.makeAndForget");
        let (born, found) = (churned.sum(|site| site.born), churned.sum(|site| site.preexisting));
        let (exited, alive) = (churned.sum(|site| site.exited), churned.sum(|site| site.alive));
        // Some may have been about to exit when it was joined (docs/limits.md).
        let gone = churned.sum(|site| site.gone);
        assert!(born + found == exited + gone + alive && gone <= 5, "{born} + {found}, {exited} + {gone} + {alive}");
        assert!(born > 10_000 && alive <= 2, "{born} born, {alive} alive");
        let sums = report.summed.expect("it says what was summed");
        // Until the look at the start is over each life is told.
        assert!(sums.lives > 1_000 && sums.waits > 0, "{born} born, {sums:?}");
        let timeline = recording.timeline(None)?;
        assert!((timeline.len() as u64) < born, "{} lines of {born} goroutines", timeline.len());
        Ok(())
    })
}

/// Check that a goroutine which waits for short times alone is not taken to wait for ever because the look at the start met it waiting.
#[test]
fn attached_to_short_waits() -> Result<()> {
    alone(&[Need::Root], || {
        let mut command = Command::new(fixture::go("sleeper")?);
        // Main waits for the next tick all the time.
        command.args(["-n", "3", "-tick", "2ms"]);
        let mut target = Running::start(command, None)?;
        let births: Births = truth::read(&target.line(0)?)?;
        let pid = target.pid().to_string();
        let options = ["--pid", &pid, "--min-block", "500ms", "--tier", "T2", "--snapshot-every", "1s", "--for", "4s"];
        let (_, recording) = Attached::to(&options)?.finish()?;
        target.signal(Signal::SIGKILL)?;
        target.finish()?;
        let report = recording.report()?;
        report.assert_nothing_lost_since_joined();
        truth::assert_waits(&report, births.pid, &births.sites);
        assert!(report.summed.is_some_and(|sums| sums.waits > 50));
        let rows = recording.timeline(Some(&format!("go:1@{}", births.pid)))?;
        let blocked = rows.iter().filter(|row| row.state == "blocked");
        let waited: u64 = blocked.map(|row| row.end_ns.unwrap_or(report.duration_ns) - row.start_ns).sum();
        assert!(waited < report.duration_ns / 2, "{waited} of {} ns: {rows:#?}", report.duration_ns);
        Ok(())
    })
}

/// Check that nothing is missed of processes that live for a moment.
#[test]
fn short_processes() -> Result<()> {
    alone(&[Need::Root], || {
        let births = fixture::go("births")?;
        let script = format!("for n in 1 2 3 4 5 6 7 8 9 10 11 12; do {} -n 300; done", births.display());
        let run = Run::of("sh").option("--min-block").option("20ms").args(["-c", &script]);
        let (finished, recording) = run.finish_whole()?;
        finished.expect_code(0)?;
        let report = recording.report()?;
        report.assert_nothing_lost();
        let of_go: Vec<_> =
            report.processes.iter().filter(|process| process.exe.as_deref().is_some_and(|exe| exe.ends_with("births"))).collect();
        assert_eq!(of_go.len(), 12, "{of_go:#?}");
        assert_eq!(report.goroutines.born, Some(12 * 301), "{:?}", report.goroutines);
        assert_eq!(report.goroutines.exited, Some(12 * 150), "{:?}", report.goroutines);
        let named = |function: &str| report.goroutines().created_by(function).sum(|site| site.born);
        let made = ["main.makeReceivers", "main.makeSelectors", "main.makeLockers"].map(named);
        assert_eq!(made.iter().sum::<u64>(), 12 * 300, "{made:?}");
        Ok(())
    })
}

/// Check that a goroutine of which nothing is told for a while has a whole timeline: born when it was, awake while its waits were short, and
/// waiting since it did.
#[test]
fn told_late() -> Result<()> {
    alone(&[Need::Root], || {
        let (finished, recording) = Run::of(fixture::go("pingpong")?).option("--min-block").option("100ms").finish()?;
        let truth: PingPong = truth::read(finished.expect_code(0)?.last_line())?;
        let rows = recording.timeline(Some(&format!("go:1@{}", truth.pid)))?;
        let waits: Vec<_> = rows.iter().filter(|row| row.state == "blocked").collect();
        assert_eq!(waits.len(), 1, "{rows:#?}");
        assert_eq!(waits[0].reason.as_deref(), Some("sync.WaitGroup.Wait"));
        let lasted = waits[0].end_ns.unwrap() - waits[0].start_ns;
        assert!(lasted >= truth.elapsed_ns / 2, "{lasted} ns of {}", truth.elapsed_ns);
        assert!(rows.iter().all(|row| row.state != "unknown" && row.state != "lost"), "{rows:#?}");
        Ok(())
    })
}

/// Check that a leak is found where the rest is summed, and no other.
#[test]
fn leaks() -> Result<()> {
    alone(&[Need::Root], || {
        let sites = |options: &[&str]| -> Result<Vec<(String, u32)>> {
            let run = recorded(fixture::orders()?, options).args(["-n", "600", "-rate", "150", "-leak", "ctx"]);
            let (_, recording) = run.finish()?;
            let leaks = Leaks::of(&recording, &[], 1)?;
            let mut sites: Vec<(String, u32)> = leaks
                .sure()
                .iter()
                .filter_map(|leak| leak.created_by.as_ref())
                .map(|at| (at.function.clone(), at.line))
                .collect();
            sites.sort();
            Ok(sites)
        };
        // A machine that stands still for half a second makes growth look like none.
        once_in_three(|| {
            let summed = sites(&["--min-block", "1ms"])?;
            assert!(!summed.is_empty());
            assert_eq!(summed, sites(&[])?);
            Ok(())
        })
    })
}
