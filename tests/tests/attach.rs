//! `lifetrace attach` to programs that run already and know their own truth.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::process::CommandExt,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result};
use lifetrace_tests::{
    attach::Attached,
    bpf::Inventory,
    cgroup::Cgroup,
    deadline::{PATIENCE, slowness},
    fixture, lifetrace,
    process::{self, Running, is_alive},
    recording::{Recording, Span},
    report::Report,
    scenario::{Need, alone, along},
    terminal::Terminal,
    truth::{self, Births, Lifetime, Seam},
    user,
};
use nix::sys::signal::Signal;

/// A fixture with its arguments, under way.
fn start(name: &str, args: &[&str]) -> Result<Running> {
    let mut command = Command::new(fixture::go(name)?);
    command.args(args);
    Running::start(command, None)
}

/// The goroutines of a process, their spans in order.
fn lives(spans: Vec<Span>, tgid: u32) -> BTreeMap<u64, Vec<Span>> {
    let mut lives: BTreeMap<u64, Vec<Span>> = BTreeMap::new();
    for span in spans.into_iter().filter(|span| span.tgid == tgid) {
        if let Some(goid) = span.id.strip_prefix("go:").and_then(|id| id.split('@').next()?.parse().ok()) {
            lives.entry(goid).or_default().push(span);
        }
    }
    lives
}

/// Claims that every goroutine that was made, once, before the recording ended is told of once: as one that was there if it ran
/// before the process was followed and had not ended, as one that was born if it was made later.
#[track_caller]
fn assert_seam(recording: &Recording, seam: &Seam) {
    let report = recording.report().unwrap();
    report.assert_nothing_lost_since_joined();
    let coverage = report.coverage.iter().find(|coverage| coverage.tgid == seam.pid).expect("no coverage");
    let wall = |ns: u64| report.meta.zero_unix_ns + ns;
    let error = report.meta.clock_error_ns + 1_000;
    let (from, to) = (wall(coverage.from_ns), wall(coverage.to_ns.unwrap()));
    let told = lives(recording.timeline(None).unwrap(), seam.pid);
    // Between its last words and its exit a goroutine may be kept from its CPU, few of them for long.
    let last_words = 200_000_000 * u64::from(slowness());
    let (mut counted, mut lingered) = ((0u64, 0u64), 0u64);
    for Lifetime { goid, made_ns, begun_ns, ended_ns } in seam.lives.iter().copied() {
        let lives_on = ended_ns == 0 || ended_ns > from + error;
        let before = begun_ns + error < from && lives_on;
        let after = made_ns > from + error && begun_ns + error < to;
        let spans = told.get(&goid);
        if before || after {
            let spans = spans.unwrap_or_else(|| panic!("nothing of go:{goid}, which was made at {made_ns}, {from} to {to}"));
            assert_eq!(spans[0].state == "unknown", before, "go:{goid}: {spans:#?}");
            let deaths = spans.iter().filter(|span| span.state == "dead").count();
            let dies = ended_ns != 0 && ended_ns + error < to;
            // One that says its last words just before the end may exit just after it.
            assert!(deaths <= 1, "go:{goid}: {spans:#?}");
            lingered += u64::from(deaths == 0 && dies && ended_ns + last_words < to);
        } else if begun_ns + error < from && ended_ns + last_words < from {
            // One that said its last words just before the beginning may exit just after it.
            assert!(spans.is_none_or(|spans| spans[0].state == "unknown"), "go:{goid} was over before: {spans:#?}");
            lingered += u64::from(spans.is_some());
        } else if made_ns > to + error {
            assert!(spans.is_none(), "go:{goid} was made after: {spans:#?}");
        }
        counted.0 += u64::from(before);
        counted.1 += u64::from(after);
    }
    assert!(lingered <= 3, "{lingered} lived on behind their last words");
    assert!(counted.0 >= 500 && counted.1 >= 500, "the program made too little: {counted:?}");
    assert_counts(&report, &told);
}

/// Claims that the report counts what the timeline shows, nobody twice.
#[track_caller]
fn assert_counts(report: &Report, told: &BTreeMap<u64, Vec<Span>>) {
    let totals = report.goroutines;
    let seen = totals.born.unwrap() + totals.preexisting.unwrap() + totals.system.unwrap();
    assert_eq!(seen, told.len() as u64, "{totals:?}");
    assert_eq!(totals.born.unwrap() + totals.preexisting.unwrap(), totals.exited.unwrap() + totals.alive.unwrap(), "{totals:?}");
}

/// Check that of a program that makes goroutines all the time none is missed and none counted twice, however often it is attached to.
#[test]
fn seam() -> Result<()> {
    alone(&[Need::Root], || {
        let mut running = start("seam", &[])?;
        let pid = truth::read::<Seam>(&running.line(0)?)?.pid.to_string();
        let mut recordings = Vec::new();
        for tier in ["T1", "T2", "T3"] {
            recordings.push(Attached::to(&["--pid", &pid, "--for", "1500ms", "--tier", tier])?.finish()?.1);
        }
        running.signal(Signal::SIGTERM)?;
        let finished = running.finish()?.expect_code(0)?;
        let seam: Seam = truth::read(finished.last_line())?;
        recordings.iter().for_each(|recording| assert_seam(recording, &seam));
        Ok(())
    })
}

/// Check that goroutines that waited before are told of with creator, line, reason and stack, their past unknown.
#[test]
fn who_was_there() -> Result<()> {
    along(&[Need::Root], || {
        let (running, births) = fixture::sleeper(&["-n", "1000"])?;
        let attached = Attached::to(&["--pid", &births.pid.to_string(), "--for", "300ms"])?;
        let (_, recording) = attached.finish()?;
        assert!(is_alive(running.pid()));
        let report = recording.report()?;
        report.assert_nothing_lost();
        assert_eq!((report.meta.end_reason.as_deref(), report.meta.completeness.as_str()), (Some("time_over"), "complete"));
        assert_eq!(report.meta.target, Some(format!("--pid {}", births.pid)));
        for site in &births.sites {
            let of_site = report.sites.iter().find(|found| found.created_by.line == Some(site.line)).context("no such site")?;
            assert_eq!((of_site.born, of_site.preexisting, of_site.alive), (0, site.alive, site.alive));
        }
        truth::assert_waits(&report, births.pid, &births.sites);
        let spans = recording.timeline(None)?;
        let blocked: Vec<_> = spans.iter().filter(|span| span.reason.as_deref() == Some("chan receive")).collect();
        assert!(blocked.len() >= 1000, "{}", blocked.len());
        for span in &blocked {
            let stack = span.stack.as_ref().context("no stack")?;
            assert!(stack[0].function.starts_with("runtime.chanrecv"), "{stack:?}");
        }
        let first = lives(spans, births.pid);
        assert!(first.values().all(|spans| spans[0].state == "unknown"));
        Ok(())
    })
}

/// Check that a recording is complete however it ends: by its time, by Ctrl-C, by the end of the process.
#[test]
fn ends() -> Result<()> {
    along(&[Need::Root], || {
        let (running, births) = fixture::sleeper(&["-n", "10"])?;
        let pid = births.pid.to_string();
        let (finished, recording) = Attached::to(&["--pid", &pid])?.interrupt()?;
        let found = finished.stderr.lines().find_map(|line| line.split_once(" goroutines found")).context("no last line")?.0;
        let found: u64 = found.rsplit(' ').next().unwrap_or_default().parse()?;
        assert!(found > 10, "{}", finished.stderr);
        let end = |recording: &Recording| recording.report().map(|report| (report.meta.completeness, report.meta.end_reason));
        assert_eq!(end(&recording)?, ("complete".to_owned(), Some("interrupted".to_owned())));
        let attached = Attached::to(&["--pid", &pid])?;
        running.signal(Signal::SIGTERM)?;
        let (_, recording) = attached.finish()?;
        assert_eq!(end(&recording)?, ("complete".to_owned(), Some("exited".to_owned())));
        assert_eq!(recording.report()?.process(births.pid).exit_code, Some(0));
        Ok(())
    })
}

/// Check that of an executable those processes are followed that run, from their middle on, and those that start later, from their
/// first goroutine on; and that children of theirs are followed too.
#[test]
fn executable() -> Result<()> {
    alone(&[Need::Root], || {
        let program = fixture::go("births")?;
        let spawner = fixture::go("spawner")?;
        let (sleeps, there) = fixture::sleeper(&["-n", "100"])?;
        let sleeper_program = fixture::go("sleeper")?;
        let of_sleeper = Attached::to(&[Path::new("--exe"), &sleeper_program])?;
        let of_births = Attached::to(&[Path::new("--exe"), &program])?;
        let (later, joins) = fixture::sleeper(&["-n", "50"])?;
        let mut births = Vec::new();
        for _ in 0..2 {
            let mut command = Command::new(&program);
            command.args(["-n", "300"]);
            births.push(truth::read::<Births>(process::run(command)?.expect_code(0)?.last_line())?);
        }
        let mut tree = Command::new(&spawner);
        tree.args(["-children", "2"]).arg(&program).args(["-n", "60"]);
        let tree: truth::Process = truth::read(process::run(tree)?.expect_code(0)?.last_line())?;
        let (_, recording) = of_births.interrupt()?;
        let report = recording.report()?;
        report.assert_nothing_lost();
        for child in &tree.children {
            births.push(truth::read(child.output.as_deref().unwrap_or_default())?);
        }
        for births in &births {
            truth::assert_sites(&report, births.pid, &births.sites);
        }
        let followed: BTreeSet<u32> = report.processes.iter().map(|process| process.tgid).collect();
        assert_eq!(followed, births.iter().map(|births| births.pid).collect(), "others are followed");
        let (_, recording) = of_sleeper.interrupt()?;
        let report = recording.report()?;
        for (births, running) in [(&there, &sleeps), (&joins, &later)] {
            assert!(is_alive(running.pid()));
            let of_site =
                report.sites.iter().find(|site| site.tgid == births.pid && site.created_by.line == Some(births.sites[0].line));
            assert_eq!(of_site.map(|site| site.alive), Some(births.sites[0].alive), "{}", births.pid);
        }
        truth::assert_sites(&report, joins.pid, &joins.sites);
        Ok(())
    })
}

/// Check that everybody in a cgroup is followed, those that enter later included, and nobody outside of it.
#[test]
fn cgroup() -> Result<()> {
    alone(&[Need::Root], || {
        let cgroup = Cgroup::new("attach")?;
        let below = cgroup.path().join("below");
        std::fs::create_dir(&below)?;
        let mut inside = Running::start(
            {
                let mut command = cgroup.command(&fixture::go("sleeper")?);
                command.args(["-n", "200"]);
                command
            },
            None,
        )?;
        let there: Births = truth::read(&inside.line(0)?)?;
        let (_outside, others) = fixture::sleeper(&["-n", "20"])?;
        let attached = Attached::to(&[Path::new("--cgroup"), cgroup.path()])?;
        let mut births = Vec::new();
        for directory in [cgroup.path(), &below] {
            let mut command = Command::new("sh");
            command.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]).arg(directory);
            command.arg(fixture::go("sleeper")?).args(["-n", "30"]);
            let mut running = Running::start(command, None)?;
            births.push((truth::read::<Births>(&running.line(0)?)?, running));
        }
        let (_, recording) = attached.interrupt()?;
        let report = recording.report()?;
        let site =
            |tgid: u32| report.sites.iter().filter(move |site| site.tgid == tgid && site.alive > 1).map(|site| site.alive).max();
        assert_eq!(site(there.pid), Some(200));
        for (births, _) in &births {
            truth::assert_sites(&report, births.pid, &births.sites);
        }
        assert!(report.processes.iter().all(|process| process.tgid != others.pid), "one outside is followed");
        drop((inside, births));
        std::fs::remove_dir(&below).or_else(|_| std::fs::remove_dir(&below)).ok();
        Ok(())
    })
}

/// Check that a tracer that is killed leaves its target alive and nothing attached.
#[test]
fn killed() -> Result<()> {
    alone(&[Need::Root], || {
        let before = Inventory::take()?;
        let (running, births) = fixture::sleeper(&["-n", "100", "-churn"])?;
        let attached = Attached::to(&["--pid", &births.pid.to_string()])?;
        attached.running.signal(Signal::SIGKILL)?;
        before.wait_restored(PATIENCE)?;
        assert!(is_alive(running.pid()));
        running.signal(Signal::SIGTERM)?;
        assert_eq!(running.finish()?.expect_code(0)?.last_line(), "terminated");
        Ok(())
    })
}

/// Check what is said, and with which code, of targets that cannot be followed, and that no older recording suffers.
#[test]
fn refused() -> Result<()> {
    along(&[Need::Root], || {
        let dir = tempfile::tempdir()?;
        let older = dir.path().join("older");
        std::fs::write(&older, "older")?;
        let cases: [(&[&str], i32, &str); 4] = [
            (&["--pid", "4294967295"], 2, "no process"),
            (&["--exe", "/nowhere"], 2, "/nowhere"),
            (&["--exe", "/etc/passwd"], 3, "not a go executable"),
            (&["--cgroup", "/tmp"], 2, "no cgroup"),
        ];
        for (args, code, said) in cases {
            let mut command = lifetrace::command();
            command.arg("attach").args(args).arg("-o").arg(&older);
            process::run(command)?.expect_code(code)?.expect_said(&[said])?;
            assert_eq!(std::fs::read_to_string(&older)?, "older", "{args:?}");
        }
        let (_running, births) = fixture::sleeper(&["-n", "10"])?;
        let mut command = lifetrace::command();
        command.args(["attach", "--pid", &births.pid.to_string(), "-o"]).arg(dir.path().join("no/recording"));
        process::run(command)?.expect_code(3)?.expect_said(&["no such file"])
    })
}

/// Check that without the right to trace the way out is named.
#[test]
fn unprivileged() -> Result<()> {
    along(&[Need::Root, Need::Nobody], || {
        let (_running, births) = fixture::sleeper(&["-n", "10"])?;
        let dir = tempfile::tempdir()?;
        let program = fixture::copy_for_everyone(&lifetrace::binary(), dir.path())?;
        let Some(nobody) = user::nobody() else { anyhow::bail!("no nobody") };
        let mut command = Command::new(program);
        command.uid(nobody.uid).gid(nobody.gid).current_dir("/").args(["attach", "--pid", &births.pid.to_string()]);
        process::run(command)?.expect_code(3)?.expect_said(&["sudo", "root"])
    })
}

/// Check that a flamegraph and a page of a service that runs are one command each, which leave no recording behind and the service alone.
#[test]
fn answers_at_once() -> Result<()> {
    along(&[Need::Root], || {
        let (running, births) = fixture::sleeper(&["-n", "100"])?;
        let dir = tempfile::tempdir()?;
        let typed = |words: &[&str]| -> Result<String> {
            let mut lifetrace = lifetrace::command();
            lifetrace.args(words).args(["--pid", &births.pid.to_string()]).env("TMPDIR", dir.path());
            // Within a minute.
            Ok(process::run(lifetrace)?.expect_code(0)?.stdout)
        };
        let ask = |words: &[&str]| typed(&[words, &["--for", "1s"]].concat());
        let folded = ask(&["flame", "--by", "blocked", "--format", "folded"])?;
        assert!(folded.lines().any(|line| line.contains("[chan receive]")), "{folded}");
        // As the guide has it: for ten seconds.
        let alive = typed(&["flame", "--by", "alive"])?;
        assert!(alive.contains("</svg>") && alive.contains("main.main"), "{alive}");
        let page = typed(&["timeline", "--format", "html"])?;
        assert!(page.starts_with("<!DOCTYPE html>") && page.contains("goroutines born"));
        let report: serde_json::Value = serde_json::from_str(&ask(&["report", "--format", "json"])?)?;
        assert!(report["goroutines"]["alive"].as_u64() >= Some(100), "{}", report["goroutines"]);
        let detailed: serde_json::Value = serde_json::from_str(&ask(&["report", "--format", "json", "--tier", "3"])?)?;
        assert_eq!(detailed["processes"][0]["tier"], "T3", "{}", detailed["coverage"]);
        assert!(std::fs::read_dir(dir.path())?.next().is_none(), "something is left behind");
        assert!(is_alive(running.pid()));
        let mut neither = lifetrace::command();
        neither.args(["report", "--for", "1s"]);
        process::run(neither)?.expect_code(2)?;
        let mut no_choice = lifetrace::command();
        no_choice.args(["report", "made.rec", "--tier", "2"]);
        let said = process::run(no_choice)?.expect_code(2)?.stderr;
        assert!(said.contains("cannot be used with"), "{said}");
        Ok(())
    })
}

/// Check that Ctrl-C ends the following early, also where progress is shown, and that what was seen is told of.
#[test]
fn interrupted_answer() -> Result<()> {
    along(&[Need::Root], || {
        let (running, births) = fixture::sleeper(&["-n", "100"])?;
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("report.json");
        let mut command = lifetrace::command();
        command.args(["report", "--format", "json", "--for", "10min", "--pid", &births.pid.to_string(), "-o"]).arg(&file);
        let mut terminal = Terminal::start(command, 120, 10)?;
        // A second passes before it is shown.
        terminal.shows(&["following process", "left"])?;
        terminal.signal(Signal::SIGINT)?;
        assert_eq!(terminal.ended()?.code(), Some(0), "{}", terminal.screen());
        let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&file)?)?;
        assert!(report["goroutines"]["alive"].as_u64() >= Some(100), "{}", report["goroutines"]);
        assert!(is_alive(running.pid()));
        Ok(())
    })
}
