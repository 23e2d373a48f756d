//! USDT probes of programs that know their own truth: the job system of `examples/jobs`, and threads of a Java virtual machine.

use std::fs;

use anyhow::{Context, Result};
use lifetrace_tests::{
    attach::Attached,
    deadline::{PATIENCE, wait_for},
    lifetrace::{Run, command},
    process,
    recording::Span,
    scenario::{Need, along},
    usdt::{Asked, SHAPES, Shape, assert_told, truth, workers},
};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

/// The ways in which probes are set: by one link of many, and one by one as on kernels before 6.6.
const WAYS: [&[&str]; 2] = [&[], &["--knob", "one-by-one=1"]];

/// Check that every start, block, wake and exit is told exactly, whatever shape the program has and however its probes are set.
#[test]
fn jobs_in_every_shape() -> Result<()> {
    along(&[Need::Root], || {
        for shape in SHAPES.into_iter().filter(|shape| !shape.without_wakes) {
            let program = shape.program()?;
            for way in WAYS {
                let run = way.iter().fold(Run::of(&program), |run, option| run.option(option));
                let (finished, recording) = run.finish()?;
                let jobs = truth(&finished.expect_code(0)?.stdout)?;
                assert_told(&recording, "go", &jobs, true);
                let report = recording.report()?;
                report.assert_nothing_lost();
                let [units] = &report.units[..] else { panic!("{:#?}", report.units) };
                assert_eq!((units.runtime.as_str(), units.born, units.exited, units.alive), ("go", 24, 24, 0), "{shape:?}");
                let blocks = jobs.iter().flat_map(|job| &job.moments).filter(|moment| moment.what == "block").count() as u64;
                assert_eq!(units.waits.values().map(|wait| wait.count).sum::<u64>(), blocks, "{shape:?}");
            }
        }
        Ok(())
    })
}

/// Check that without a probe that tells of wakes a block lasts until the next event, and is marked so.
#[test]
fn jobs_without_wakes() -> Result<()> {
    along(&[Need::Root], || {
        let program = Shape { without_wakes: true, ..Shape::default() }.program()?;
        let (finished, recording) = Run::of(&program).finish()?;
        let jobs = truth(&finished.expect_code(0)?.stdout)?;
        assert_told(&recording, "go", &jobs, false);
        assert!(recording.report()?.units[0].at_most);
        Ok(())
    })
}

/// Check that what is attached to is told from there on, and that semaphores are raised while it is traced and not after, also when
/// lifetrace is killed.
#[test]
fn semaphores() -> Result<()> {
    along(&[Need::Root], || {
        for (library, way) in [(false, WAYS[0]), (false, WAYS[1]), (true, WAYS[0]), (true, WAYS[1])] {
            let dir = TempDir::new()?;
            let shape = Shape { library, semaphores: true, position_independent: true, ..Shape::default() };
            let program = shape.copied(dir.path())?;
            let mut asked = Asked::start(&program)?;
            assert_eq!(asked.semaphores()?, 0);
            let pid = asked.pid();
            let target = [&["--pid", &pid], way].concat();
            let attached = Attached::to(&target)?;
            assert_eq!(asked.semaphores()?, 4, "one for each probe");
            attached.running.signal(Signal::SIGKILL)?;
            lowered(&mut asked).with_context(|| format!("killed, {way:?}"))?;
            drop(attached);

            let attached = Attached::to(&target)?;
            assert_eq!(asked.semaphores()?, 4);
            attached.interrupt()?;
            lowered(&mut asked).with_context(|| format!("interrupted, {way:?}"))?;

            let attached = Attached::to(&target)?;
            let jobs = asked.go()?;
            let (_, recording) = attached.finish()?;
            assert_told(&recording, "go", &jobs, true);
            recording.report()?.assert_nothing_lost();
        }
        Ok(())
    })
}

fn lowered(asked: &mut Asked) -> Result<()> {
    wait_for("the semaphores to be lowered", PATIENCE, || Ok((asked.semaphores()? == 0).then_some(())))
}

/// Check that a person's table gives probes another meaning, that its runtime names ids, and that mistakes are told with their line.
#[test]
fn own_table() -> Result<()> {
    along(&[Need::Root], || {
        let dir = TempDir::new()?;
        let program = Shape::default().program()?;
        let table = dir.path().join("jobs.toml");
        let entry = |probe: &str, event: &str, more: &str| {
            format!("[[probe]]\nruntime = 'job'\nprobe = 'go:{probe}'\nevent = '{event}'\nid = 1\n{more}\n")
        };
        let text = [
            entry("goroutine_start", "start", "name = 2"),
            entry("sched_block", "block", "reason_arg = 2"),
            entry("sched_wake", "wake", ""),
            entry("goroutine_end", "exit", ""),
        ];
        fs::write(&table, text.concat())?;
        let table = table.display().to_string();
        let (finished, recording) = Run::of(&program).option("--usdt-table").option(&table).finish()?;
        let jobs = truth(&finished.expect_code(0)?.stdout)?;
        assert_told(&recording, "job", &jobs, true);
        let one = recording.timeline(Some(&format!("job:{}", jobs[7].id)))?;
        assert_eq!(one.len(), jobs[7].moments.len());
        recording.ask("timeline", &["--id", "job:1"])?.expect_code(2)?.expect_said(&["no job:1"])?;

        fs::write(&table, text.concat().replace("'exit'", "'end'"))?;
        let (finished, _) = Run::of(&program).option("--usdt-table").option(&table).finish()?;
        finished.expect_code(125)?.expect_said(&["jobs.toml", "line 22", "end"])?;
        let mut list = command();
        list.args(["usdt", "list", "--usdt-table", &table, "--exe"]).arg(&program);
        process::run(list)?.expect_code(2)?.expect_said(&["line 22"])?;
        Ok(())
    })
}

/// Check what is listed of a program and its library, and of a process.
#[test]
fn listed() -> Result<()> {
    along(&[Need::Root], || {
        let shape = Shape { library: true, semaphores: true, position_independent: true, ..Shape::default() };
        let program = shape.program()?;
        let mut asked = Asked::start(&program)?;
        // It has answered, so its libraries are there.
        asked.semaphores()?;
        let pid = asked.pid();
        for target in [["--exe", &program.display().to_string()], ["--pid", &pid]] {
            let mut list = command();
            list.args(["usdt", "list", "--format", "json"]).args(target);
            let listing: Value = serde_json::from_str(&process::run(list)?.expect_code(0)?.stdout)?;
            let files = listing["files"].as_array().context("no files")?;
            let file = files.iter().find(|file| file["path"].as_str().is_some_and(|path| path.contains("/libjobs")));
            let probes = file.context("no library")?["probes"].as_array().context("no probes")?;
            assert_eq!(probes.len(), 4, "{probes:#?}");
            for (name, event, arguments) in [
                ("goroutine_start", "start", 2),
                ("sched_block", "block", 2),
                ("sched_wake", "wake", 1),
                ("goroutine_end", "exit", 1),
            ] {
                let probe = probes.iter().find(|probe| probe["name"] == name).context(name)?;
                assert_eq!(
                    (&probe["provider"], &probe["meaning"]["event"]),
                    (&Value::from("go"), &Value::from(event)),
                    "{probe:#}"
                );
                assert_eq!(probe["arguments"].as_array().map(Vec::len), Some(arguments), "{probe:#}");
                assert!(probe["semaphore"].is_u64(), "{probe:#}");
            }
        }
        let mut text = command();
        text.args(["usdt", "list", "--pid", &pid]);
        let said = process::run(text)?.expect_code(0)?.stdout;
        for part in ["go:sched_block", "block of go:(argument 1)", "semaphore"] {
            assert!(said.contains(part), "{part} is missing:\n{said}");
        }
        Ok(())
    })
}

/// Check that a Java program's threads are told by name and id, and how long they were parked, slept, and waited for monitors.
#[test]
fn java_threads() -> Result<()> {
    along(&[Need::Root, Need::Command("java"), Need::Command("javac")], || {
        let dir = TempDir::new()?;
        workers(dir.path())?;
        let run = Run::of("java").args(["-XX:+DTraceMonitorProbes", "-cp"]).args([dir.path()]).args(["Workers"]);
        let (finished, recording) = run.finish()?;
        let finished = finished.expect_code(0)?;
        recording.report()?.assert_nothing_lost();
        let spans = recording.timeline(None)?;
        let threads: Vec<(u64, &str)> = finished
            .stdout
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(id, name)| Ok((id.parse()?, name)))
            .collect::<Result<_>>()?;
        assert_eq!(threads.len(), 4);
        let millis = |ms: u64| ms * 1_000_000;
        for (id, name) in threads {
            let told: Vec<&Span> = spans.iter().filter(|span| span.id == format!("java:{id}")).collect();
            let (last, lines) = told.split_last().with_context(|| format!("nothing of {name}"))?;
            assert_eq!((last.state.as_str(), last.reason.as_deref()), ("dead", Some("exit")), "{told:#?}");
            assert!(lines.iter().all(|span| span.name.as_deref() == Some(name)), "{told:#?}");
            assert_eq!(lines[0].state, "awake", "its start was seen: {told:#?}");
            let (reason, at_least) = match name {
                "parker" => ("park", millis(20)),
                "sleeper" => ("sleep", millis(50)),
                "contender" => ("monitor enter", millis(20)),
                _ => ("monitor wait", millis(20)),
            };
            let blocked = |span: &&&Span| span.state == "blocked" && span.reason.as_deref() == Some(reason);
            let longest = lines.iter().filter(blocked).map(|span| span.end_ns.unwrap() - span.start_ns).max();
            assert!(longest.is_some_and(|longest| longest >= at_least), "{name}, {reason}: {told:#?}");
        }
        Ok(())
    })
}
