//! `--pprof`: a process is asked by HTTP, wherever it serves, and whoever answers badly spoils nothing.

use std::{process::Command, time::Instant};

use anyhow::{Context, Result};
use lifetrace_tests::{
    attach::Attached,
    deadline::{PATIENCE, wait_for},
    fixture, lifetrace,
    pprof_server::{Manner, serve, served, served_through},
    process::{self, Running},
    recording::Recording,
    report::Report,
    scenario::{Need, along},
    truth::Served,
};
use serde_json::Value;

/// Kinds of blocks.
const DUMP_BEGINS: u8 = 10;
const PROFILE: u8 = 12;
const MEMORY: u8 = 13;

fn assert_complete(report: &Report) {
    assert_eq!(report.meta.completeness, "complete");
    report.assert_nothing_lost_since_joined();
}

/// Follows a process until so many profiles came, and ends as Ctrl-C does.
fn until_profiles(args: &[&str], count: usize) -> Result<Recording> {
    let attached = Attached::to(args)?;
    wait_for("profiles", PATIENCE, || {
        let came = attached.recording().blocks(PROFILE)? >= count && attached.recording().blocks(DUMP_BEGINS)? >= 4;
        Ok(came.then_some(()))
    })?;
    Ok(attached.interrupt()?.1)
}

/// Claims that nothing went wrong, and that goroutines and heap were asked for at least twice each.
fn assert_asked(recording: &Recording) -> Result<()> {
    let report = recording.report()?;
    assert_complete(&report);
    assert_eq!(report.meta.warnings, [""; 0]);
    assert!(recording.blocks(PROFILE)? >= 4 && recording.blocks(MEMORY)? >= 2 && recording.blocks(DUMP_BEGINS)? >= 3);
    Ok(())
}

/// Check that a server is found by itself, that goroutines, heap and profiles are stored at start, on the way and at the end, and that all of
/// it is without a warning.
#[test]
fn found_by_itself() -> Result<()> {
    along(&[Need::Root], || {
        let (_running, truth) = served(&["-other"])?;
        let pid = truth.pid.to_string();
        let args = ["--pid", &pid, "--pprof", "auto", "--heap-every", "500ms", "--snapshot-every", "500ms"];
        let recording = until_profiles(&[&args[..], &["--profile", "mutex,block,allocs,goroutine"]].concat(), 10)?;
        assert_asked(&recording)?;
        assert!(recording.blocks(PROFILE)? >= 10);
        let report = recording.report()?;
        let _ = report.goroutines().of(truth.pid).created_by("main.labelled").alive(4);
        Ok(())
    })
}

/// Check that a command is asked as soon as it serves, at a URL that is known before.
#[test]
fn command_by_url() -> Result<()> {
    along(&[Need::Root], || {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let url = format!("http://127.0.0.1:{port}");
        let (_, recording) = {
            let run =
                lifetrace::Run::of(fixture::go("served")?).args(["-listen", &format!("127.0.0.1:{port}"), "-later", "300ms"]);
            let run = run.option("--pprof").option(&url).option("--heap-every").option("500ms");
            let mut traced = run.start()?;
            let truth: Served = lifetrace_tests::truth::read(&traced.running.line(0)?)?;
            wait_for("two heaps", PATIENCE, || Ok((traced.recording().blocks(PROFILE)? >= 2).then_some(())))?;
            nix::sys::signal::kill(process::pid(truth.pid), nix::sys::signal::Signal::SIGKILL)?;
            traced.finish()?
        };
        let report = recording.report()?;
        assert_complete(&report);
        assert_eq!(report.meta.warnings, [""; 0]);
        assert!(recording.blocks(PROFILE)? >= 2);
        Ok(())
    })
}

/// The fixture in a network namespace of its own.
fn elsewhere() -> Result<(Running, Served)> {
    let mut unshare = Command::new("unshare");
    unshare.args(["-n", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""]).arg(fixture::go("served")?);
    served_through(&mut unshare, &[])
}

/// Check that a server is found in another network namespace.
#[test]
fn other_network() -> Result<()> {
    along(&[Need::Root, Need::Command("unshare"), Need::Command("ip")], || {
        let (_running, truth) = elsewhere()?;
        let pid = truth.pid.to_string();
        let args = ["--pid", &pid, "--pprof", "auto", "--heap-every", "500ms", "--snapshot-every", "1s"];
        assert_asked(&until_profiles(&args, 4)?)
    })
}

/// Check that without CAP_SYS_ADMIN the other namespace is named, doctor says the same, and goroutines are read out of memory.
#[test]
fn other_network_without_admin() -> Result<()> {
    along(&[Need::Root, Need::Command("unshare"), Need::Command("ip"), Need::Command("setpriv")], || {
        let (_running, truth) = elsewhere()?;
        let pid = truth.pid.to_string();
        let without = || {
            let mut command = lifetrace::command_through("setpriv");
            command.args(["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]).arg(lifetrace::binary());
            command
        };
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("test.lifetrace");
        let mut attach = without();
        attach.args(["attach", "--pid", &pid, "--for", "1s", "--tier", "T2", "--pprof", "auto", "-o"]).arg(&path);
        let said = process::run(attach)?.expect_code(0)?;
        said.expect_said(&["another network namespace"])?;
        let recording = Recording::at(&path);
        let report = recording.report()?;
        assert_complete(&report);
        let [warning] = &report.meta.warnings[..] else { panic!("{:?}", report.meta.warnings) };
        assert!(warning.contains("CAP_SYS_ADMIN"), "{warning}");
        let _ = report.goroutines().of(truth.pid).created_by("main.labelled").alive(4);
        for (mut command, ok) in [(without(), false), (lifetrace::command(), true)] {
            command.args(["doctor", "--json", "--pid", &pid]);
            let answer: Value = serde_json::from_str(&process::run(command)?.stdout)?;
            let works = answer["process"]["works"].as_array().context("no process")?;
            let pprof = works.iter().find(|work| work["what"] == "pprof").context("no word of pprof")?;
            assert_eq!(pprof["ok"], ok, "{pprof:#}");
            let words = pprof.to_string();
            assert!(words.contains(if ok { "network namespace of its own" } else { "CAP_SYS_ADMIN" }), "{words}");
        }
        Ok(())
    })
}

/// Check that a process that serves nothing is told of, with the way out.
#[test]
fn nothing_served() -> Result<()> {
    along(&[Need::Root], || {
        let mut sleeper = Command::new(fixture::go("sleeper")?);
        sleeper.args(["-n", "10"]);
        let mut running = Running::start(sleeper, None)?;
        running.line(0)?;
        let pid = running.pid().to_string();
        let (said, recording) = Attached::to(&["--pid", &pid, "--for", "1s", "--tier", "T2", "--pprof", "auto"])?.finish()?;
        said.expect_said(&["no pprof server found"])?;
        let report = recording.report()?;
        assert_complete(&report);
        assert!(report.meta.warnings.iter().any(|warning| warning.contains("--pprof URL")), "{:?}", report.meta.warnings);
        Ok(())
    })
}

/// Check that above 10,000 goroutines the text that stops the world is not asked for, one note says so, and memory serves.
#[test]
fn too_many_for_text() -> Result<()> {
    along(&[Need::Root], || {
        let (_running, truth) = served(&["-n", "10500"])?;
        let pid = truth.pid.to_string();
        let (_, recording) =
            Attached::to(&["--pid", &pid, "--for", "2500ms", "--pprof", "auto", "--snapshot-every", "1s"])?.finish()?;
        let report = recording.report()?;
        assert_complete(&report);
        let [warning] = &report.meta.warnings[..] else { panic!("{:?}", report.meta.warnings) };
        assert!(warning.contains("debug=2"), "{warning}");
        let waiting = report.goroutines().of(truth.pid).created_by("main.main");
        assert!(waiting.sum(|site| site.alive) >= 10_500);
        Ok(())
    })
}

/// Check that each way to answer badly is warned of in its own words, and that the recording is whole all the same.
#[test]
fn hostile_servers() -> Result<()> {
    along(&[Need::Root], || {
        let (_running, truth) = served(&[])?;
        let (_more, many) = served(&["-n", "500"])?;
        let cases = [
            (Manner::Slow, truth.pid, &["no answer within 5s"][..]),
            (Manner::Endless, truth.pid, &["is not over after 5s"]),
            // All at once they may take longer about so much than they have.
            (Manner::Flood, truth.pid, &["the answer has more than", "is not over after 5s"]),
            (Manner::Loris, truth.pid, &["no answer within 5s"]),
            (Manner::Truncated, truth.pid, &["ends too early"]),
            (Manner::TruncatedGzip, truth.pid, &["no dump of goroutines"]),
            (Manner::Trouble, truth.pid, &["it answers 500: \"all is [31mlost\""]),
            (Manner::Redirecting(truth.address), truth.pid, &["sends us on to"]),
            (Manner::Garbage, truth.pid, &["no dump of goroutines"]),
            (Manner::Lying(many.address), truth.pid, &["those of another process"]),
            (Manner::Lying(truth.address), many.pid, &["those of another process"]),
        ];
        let mut asked = Vec::new();
        for (manner, pid, words) in cases {
            let url = format!("http://{}", serve(manner)?);
            let pid_text = pid.to_string();
            let args = ["--pid", &pid_text, "--for", "9s", "--pprof", &url, "--heap-every", "30s", "--snapshot-every", "30s"];
            asked.push((manner, pid, words, Attached::start(&args)?));
        }
        for (manner, pid, words, attached) in asked {
            let (said, recording) = attached.finish()?;
            let said_so = |text: &str| words.iter().any(|words| text.contains(words));
            assert!(said_so(&said.stderr), "{manner:?}: {said:?}");
            let report = recording.report()?;
            assert_complete(&report);
            let warnings = &report.meta.warnings;
            // Each of its words once at most: two questions are asked.
            let told = warnings.iter().filter(|warning| said_so(warning)).count();
            assert!((1..=words.len()).contains(&told), "{manner:?}: {warnings:?}");
            assert!(warnings.len() <= 3, "{manner:?}: {warnings:?}");
            assert_eq!(recording.blocks(PROFILE)?, 0, "{manner:?}");
            let _ = report.goroutines().of(pid).created_by("main.labelled").alive(4);
            assert!(!recording.timeline(None)?.is_empty());
        }
        Ok(())
    })
}

/// Check that who watches without a probe is held up by none of them either: it says so, and ends when it was to end.
#[test]
fn hostile_servers_of_the_watched() -> Result<()> {
    along(&[Need::Root], || {
        let (_running, truth) = served(&[])?;
        let pid = truth.pid.to_string();
        let cases = [
            (Manner::Endless, &["is not over after 5s"][..]),
            (Manner::Flood, &["the answer has more than", "is not over after 5s"]),
            (Manner::Loris, &["no answer within 5s"]),
            (Manner::Garbage, &["no dump of goroutines"]),
        ];
        let mut asked = Vec::new();
        for (manner, words) in cases {
            let mut leaks = lifetrace::command();
            leaks.args(["leaks", "--pid", &pid, "--watch", "8s", "--pprof", &format!("http://{}", serve(manner)?)]);
            asked.push((manner, words, Running::start(leaks, None)?));
        }
        let began = Instant::now();
        for (manner, words, running) in asked {
            let finished = running.finish()?;
            assert!([0, 1].contains(&finished.code()), "{manner:?}: {finished:?}");
            assert!(words.iter().any(|words| finished.stderr.contains(words)), "{manner:?}: {finished:?}");
        }
        assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
        Ok(())
    })
}

/// Check that a server elsewhere that passes on what the process says is believed, because the process's memory bears it out.
#[test]
fn passed_on() -> Result<()> {
    along(&[Need::Root], || {
        let (_running, truth) = served(&["-n", "100"])?;
        let (pid, url) = (truth.pid.to_string(), format!("http://{}", serve(Manner::Passing(truth.address))?));
        let args = ["--pid", &pid, "--pprof", &url, "--heap-every", "500ms", "--snapshot-every", "500ms"];
        assert_asked(&until_profiles(&args, 4)?)
    })
}

/// Check that Go's own tool tells the samples of the program's profiles by their labels: what used the CPU by the program's, what is in use by
/// the size of objects.
#[test]
fn labels_of_profiles() -> Result<()> {
    along(&[Need::Root, Need::Go], || {
        let (_running, truth) = served(&["-burn"])?;
        let attached =
            Attached::to(&["--pid", &truth.pid.to_string(), "--pprof", "auto", "--heap-every", "30s", "--profile", "cpu"])?;
        let dir = tempfile::tempdir()?;
        let told = |recording: &Recording, by: &str, args: &[&str]| -> Result<Option<String>> {
            let path = dir.path().join(by);
            let flame = ["--by", by, "--format", "pprof", "-o", &path.display().to_string()];
            if recording.answer("flame", &flame).is_err() {
                return Ok(None);
            }
            Ok(Some(fixture::go_pprof(&[args, &[&path.display().to_string()]].concat())?))
        };
        wait_for("a CPU profile", PATIENCE, || told(attached.recording(), "cpu", &["-tags"]))?;
        let (_, recording) = attached.interrupt()?;
        for (by, tags) in [("cpu", ["endpoint: Total ", "/burn"]), ("inuse_space", ["bytes: Total ", "1MB"])] {
            let said = told(&recording, by, &["-tags"])?.with_context(|| format!("no {by}"))?;
            tags.iter().for_each(|tag| assert!(said.contains(tag), "no {tag} in {said}"));
        }
        let burnt = told(&recording, "cpu", &["-top", "-tagfocus=endpoint=/burn"])?.context("no profile")?;
        assert!(burnt.contains("main.burning"), "{burnt}");
        Ok(())
    })
}

/// Check that the end does not wait for a server that does not answer.
#[test]
fn end_does_not_wait() -> Result<()> {
    along(&[Need::Root], || {
        let (_running, truth) = served(&[])?;
        let (pid, url) = (truth.pid.to_string(), format!("http://{}", serve(Manner::Slow)?));
        let attached = Attached::to(&["--pid", &pid, "--pprof", &url])?;
        // It is waiting for the answer once it has announced one.
        let began = wait_for("a question", PATIENCE, || Ok((attached.recording().blocks(DUMP_BEGINS)? >= 2).then(Instant::now)))?;
        let (said, recording) = attached.interrupt()?;
        // The server would answer after a minute, and five seconds are given to it.
        assert!(
            !said.stderr.contains("no answer within 5s") && began.elapsed().as_secs() < 30,
            "{:?}: {said:?}",
            began.elapsed()
        );
        assert_complete(&recording.report()?);
        Ok(())
    })
}
