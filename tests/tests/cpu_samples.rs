//! CPU samples, against a program whose work is known by function and by goroutine.

use anyhow::{Context, Result};
use lifetrace_tests::{
    fixture,
    lifetrace::Run,
    recording::Recording,
    scenario::{Need, along},
    truth::{self, Burning},
};

/// Check that samples name the goroutine whose code they met, and fall on functions and goroutines as the work does. No
/// scheduling is traced here: who runs is read from the thread's own storage.
#[test]
fn burners() -> Result<()> {
    along(&[Need::Root], || {
        let (finished, recording) = Run::of(fixture::go("burner")?).option("--cpu-hz=499").finish()?;
        let truth: Burning = truth::read(finished.expect_code(0)?.last_line())?;
        assert_burners(&recording, &truth)
    })
}

/// Check that nothing is sampled unless asked for, and that the flamegraph of CPU time then says so instead of being empty.
#[test]
fn not_asked_for() -> Result<()> {
    along(&[Need::Root], || {
        let (finished, recording) = Run::of(fixture::go("burner")?).args(["-unit", "1ms"]).finish()?;
        finished.expect_code(0)?;
        let report = recording.report()?;
        assert!(report.cpu.is_none(), "{:?}", report.cpu);
        recording.ask("flame", &["--by", "oncpu"])?.expect_code(2)?.expect_said(&["no CPU samples"])?;
        Ok(())
    })
}

fn assert_burners(recording: &Recording, truth: &Burning) -> Result<()> {
    let report = recording.report()?;
    let cpu = report.cpu.as_ref().context("no CPU samples")?;
    assert!(cpu.known_goid.is_some_and(|share| share >= 0.9), "{cpu:?}");
    assert!(cpu.ticks >= cpu.samples, "{cpu:?}");
    let process = cpu.by_process.iter().find(|process| process.tgid == truth.pid).context("no samples of the burner")?;
    let shares = process.shares.as_ref().context("no shares")?;
    assert!(shares["user"] > 0.5 && (shares.values().sum::<f64>() - 1.0).abs() < 0.01, "{shares:?}");

    let folded = recording.answer("flame", &["--by", "oncpu", "--format", "folded"])?;
    let lines: Vec<(Vec<&str>, u64)> = folded.lines().map(parse).collect::<Result<_>>()?;
    let all_work: u64 = truth.burners.iter().map(|burner| burner.work).sum();
    // The function that calibrates is the first burner's, run by main.
    let burning: Vec<&(Vec<&str>, u64)> = lines.iter().filter(|(stack, _)| !stack.contains(&"main.calibrate")).collect();
    let in_function = |function: &str| -> Vec<&(Vec<&str>, u64)> {
        burning.iter().copied().filter(|(stack, _)| stack.contains(&function)).collect()
    };
    let all_ns: u64 = truth.burners.iter().flat_map(|burner| in_function(&burner.function)).map(|(_, ns)| ns).sum();
    assert!(all_ns > 0, "{folded}");
    for burner in &truth.burners {
        // Never another goroutine's; unknown at most.
        let maker = format!("created by {}", burner.maker);
        for (stack, _) in in_function(&burner.function) {
            assert!(stack.contains(&maker.as_str()) || stack.contains(&"[goroutine unknown]"), "{stack:?}");
        }
        let expected = all_ns * burner.work / all_work;
        let by_function: u64 = in_function(&burner.function).iter().map(|(_, ns)| ns).sum();
        let site = report.goroutines().of(truth.pid).created_by(&burner.maker);
        let by_goroutine = site.sum(|site| site.oncpu_ns.unwrap_or(0));
        for (what, ns) in [("function", by_function), ("goroutine", by_goroutine)] {
            assert!((expected / 2..=expected * 2).contains(&ns), "{burner:?} by {what}: {ns} ns, expected {expected}:\n{folded}");
        }
        let timeline = recording.answer("timeline", &["--id", &format!("go:{}", burner.goid)])?;
        assert!(timeline.contains(&burner.maker), "{burner:?}:\n{timeline}");
    }
    Ok(())
}

fn parse(line: &str) -> Result<(Vec<&str>, u64)> {
    let (stack, ns) = line.rsplit_once(' ').with_context(|| format!("not folded: {line}"))?;
    Ok((stack.split(';').collect(), ns.parse()?))
}
