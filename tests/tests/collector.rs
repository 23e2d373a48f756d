//! The track of the garbage collector, against what the runtime itself counted.

use anyhow::{Context, Result};
use lifetrace_tests::{
    deadline::slowness,
    fixture,
    lifetrace::Run,
    scenario::{Need, alone},
    truth::{self, Collected},
};

/// Check cycles and pauses by reason, and that the time of pauses is of the order that the runtime reports.
#[test]
fn cycles_and_pauses() -> Result<()> {
    counted("T2")
}

/// Check the same where only births and deaths are traced.
#[test]
fn cycles_and_pauses_at_t1() -> Result<()> {
    counted("T1")
}

fn counted(tier: &str) -> Result<()> {
    alone(&[Need::Root], || {
        let run = Run::of(fixture::go("collector")?).env("GOGC", "off").option("--tier").option(tier);
        let (finished, recording) = run.finish()?;
        let truth: Collected = truth::read(finished.expect_code(0)?.last_line())?;
        let report = recording.report()?;
        report.assert_nothing_lost();
        let gc = report.gc.iter().find(|gc| gc.tgid == truth.pid).context("no track")?;
        assert_eq!((gc.cycles, gc.partial, gc.pauses.unended), (truth.cycles, 0, 0), "{gc:?}");

        let pauses = |reason: &str| gc.pauses.by_reason.get(reason).map_or(0, |pauses| pauses.count);
        assert_eq!(pauses("GC sweep termination"), truth.cycles);
        assert_eq!(pauses("read mem stats"), truth.read_mem_stats);
        assert_eq!(pauses("GOMAXPROCS"), truth.gomaxprocs);
        // Go may find work left when it has stopped the world to end a cycle, and stops it once more.
        assert!(pauses("GC mark termination") >= truth.cycles, "{gc:?}");
        assert_eq!(gc.pauses.by_reason.values().map(|pauses| pauses.count).sum::<u64>(), gc.pauses.count);

        // The runtime counts starting the world in one of the two pauses of a cycle, and we what it does behind its count in the
        // other: the figures differ, their order must not. It is the cycle in the middle that is compared, for a thread that is
        // preempted as it starts the world makes one cycle as long as all others.
        let of_cycles = |(name, _): &(&String, _)| name.starts_with("GC ");
        let total: u64 = gc.pauses.by_reason.iter().filter(of_cycles).map(|(_, pauses)| pauses.total_ns).sum();
        assert!(gc.total_ns >= total && gc.total_ns <= report.duration_ns, "{gc:?}");

        // Every pause of the collector lies in a cycle, and no other one does.
        let lines = recording.timeline(Some(&format!("gc:{}", truth.pid)))?;
        let cycles: Vec<_> = lines.iter().filter(|line| line.id == "gc").collect();
        assert_eq!(cycles.len() as u64, truth.cycles);
        let mut paused = vec![0; cycles.len()];
        for pause in lines.iter().filter(|line| line.id == "stw") {
            let cycle = cycles.iter().position(|cycle| cycle.start_ns <= pause.start_ns && pause.end_ns <= cycle.end_ns);
            if let Some(cycle) = cycle {
                paused[cycle] += pause.end_ns.context("a pause without an end")? - pause.start_ns;
            }
            assert_eq!(cycle.is_some(), pause.reason.as_deref().is_some_and(|reason| reason.starts_with("GC ")), "{pause:?}");
        }
        let (ours, runtime) = (median(paused), median(truth.pause_ns));
        // Starting the world takes its time on a slow machine.
        assert!(ours >= runtime / (4 * u64::from(slowness())), "{ours} ns of pauses in a cycle, the runtime counted {runtime}");
        Ok(())
    })
}

fn median(mut numbers: Vec<u64>) -> u64 {
    numbers.sort_unstable();
    numbers[numbers.len() / 2]
}
