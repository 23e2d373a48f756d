//! What is rare on the BPF side reaches the user: a line through the log, or a count in every output.

use anyhow::Result;
use lifetrace_tests::{
    fixture,
    lifetrace::Run,
    scenario::{Need, along},
};

/// Check that processes that find no room in the table of followed ones are told of, once a CPU and not once a process.
#[test]
fn table_of_processes_full() -> Result<()> {
    along(&[Need::Root], || {
        let spawner = fixture::go("spawner")?;
        let (finished, _) =
            Run::of(&spawner).option("--knob").option("max-processes=1").args(["-children", "12", "/bin/true"]).finish()?;
        let finished = finished.expect_code(0)?;
        let said = finished.stderr.matches("table of followed processes is full").count();
        assert!((1..=cpus()).contains(&said), "{said} lines:\n{}", finished.stderr);
        Ok(())
    })
}

/// Check that offsets that fit no runtime are refused and told of, and that nothing is made up from them.
#[test]
fn offsets_that_do_not_fit() -> Result<()> {
    along(&[Need::Root], || {
        let births = fixture::go("births")?;
        let (finished, recording) = Run::of(&births).option("--knob").option("bad-layout=1").args(["-n", "300"]).finish()?;
        let finished = finished.expect_code(0)?;
        let said = finished.stderr.matches("no plausible runtime layout").count();
        assert!((1..=cpus()).contains(&said), "{said} lines:\n{}", finished.stderr);
        assert_eq!(recording.report()?.goroutines.born, Some(0));
        Ok(())
    })
}

/// Check that a ring that is too small loses records, counts them by kind, and says so in every output.
#[test]
fn full_ring() -> Result<()> {
    along(&[Need::Root], || {
        let births = fixture::go("births")?;
        let (finished, recording) = Run::of(&births).option("--knob").option("ring-bytes=4096").args(["-n", "20000"]).finish()?;
        finished.expect_code(0)?;
        let report = recording.report()?;
        assert!(report.lost.events > 0, "nothing was lost: the test proves nothing");
        assert_eq!(report.lost.events, report.lost.by_kind.values().sum::<u64>());
        let seen =
            report.goroutines.born.unwrap_or_default() + report.lost.by_kind.get("goroutine_birth").copied().unwrap_or_default();
        assert!(seen >= 20_000, "{seen} births seen or lost, of 20000");
        for text in [recording.answer("report", &[])?, recording.answer("timeline", &["--id", "go:1"])?] {
            assert!(text.contains("events lost"), "{text}");
        }
        Ok(())
    })
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
