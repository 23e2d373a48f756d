//! Processes in namespaces of their own, on overlay file systems: all of them are seen, and nothing is counted twice.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use lifetrace_tests::{
    attach::Attached,
    container::{Contained, Container, Image},
    fixture,
    lifetrace::{self, Run, TOO_LATE},
    process,
    recording::Recording,
    report::Report,
    scenario::{Need, alone, along},
    truth::{self, Births},
};
use serde_json::Value;

const NEEDS: [Need; 4] = [Need::Root, Need::Command("unshare"), Need::Command("mount"), Need::Command("chroot")];

/// Check that several containers of one image, started at once under one run, are all seen, that each goroutine is counted
/// once and named, and that the one file they share is probed once.
#[test]
fn containers_of_one_image() -> Result<()> {
    alone(&NEEDS, || {
        let (births, recording) = trace_containers(3, 1, &[])?;
        let report = recording.report()?;
        assert_each_counted_once(&report, 3, &births);
        let duplicates = duplicate_hits(&report_json(&recording)?)?;
        assert_eq!(duplicates, 0, "the shared file was probed through more than one mount");
        Ok(())
    })
}

/// Check that where the file is probed through each of two overlay mounts, each probe fires for the processes of both, and that all
/// is counted once nevertheless.
#[test]
fn probes_through_two_mounts_of_one_file() -> Result<()> {
    alone(&NEEDS, || {
        // Twice: where probes are set one by one on a slow machine, the first two may have ended before the second file has all of its.
        let (births, recording) = trace_containers(2, 2, &["--knob", "probe-each-mount=1"])?;
        let report = recording.report()?;
        assert_each_counted_once(&report, 4, &births);
        let duplicates = duplicate_hits(&report_json(&recording)?)?;
        let made: u64 = births.sites.iter().map(|site| site.made).sum();
        assert!(
            duplicates >= 2 * made,
            "{duplicates} duplicate hits: the second probe did not fire for both, the test proves nothing"
        );
        Ok(())
    })
}

/// Check that a container whose file system is mounted only while the run is under way is seen from its first goroutine, whether it
/// is mounted where everybody sees it or in a mount namespace of its own.
#[test]
fn mounted_later() -> Result<()> {
    alone(&NEEDS, || {
        let program = fixture::go("births")?;
        let image = Image::of(&[&program])?;
        for hidden in [false, true] {
            let container = Container::prepare()?;
            let mount = format!(
                "mount -t overlay lifetrace-test -o {} {root} && {}; status=$?; umount -l {root}; exit $status",
                image.mount_options(&container),
                container.command("/births", &["-n", "300"]).join(" "),
                root = container.root().display(),
            );
            let run = if hidden {
                Run::of("unshare").args(["--mount", "sh", "-c", &mount])
            } else {
                Run::of("sh").args(["-c", &mount])
            };
            let (finished, recording) = run.finish_whole()?;
            let births: Births = truth::read(finished.expect_code(0)?.last_line())?;
            let report = recording.report()?;
            truth::assert_sites(&report, contained(&report, 1)[0], &births.sites);
            let text = recording.answer("report", &[])?;
            assert!(!text.contains(TOO_LATE), "hidden: {hidden}: it was not held:\n{text}");
        }
        Ok(())
    })
}

/// Check that a process in other mount, pid and user namespaces is read from outside: its goroutines, its program, and its names.
#[test]
fn snapshot_and_doctor_from_outside() -> Result<()> {
    along(&NEEDS, || {
        let program = fixture::go("sleeper")?;
        let image = Image::of(&[&program])?;
        let (one, two) = (image.container()?, image.container()?);
        for container in [&one, &two] {
            let mut contained = container.start("/sleeper", &["-n", "200"])?;
            let births: Births = truth::read(&contained.running.line(0)?)?;
            assert_eq!(births.pid, 1, "it is in no pid namespace of its own");
            let pid = contained.pid.to_string();
            let ask = |args: &[&str]| -> Result<Value> {
                let mut command = lifetrace::command();
                command.args(args);
                Ok(serde_json::from_str(&process::run(command)?.expect_code(0)?.stdout)?)
            };
            let snapshot = ask(&["snapshot", "--pid", &pid, "--format", "json"])?;
            let goroutines = snapshot["goroutines"].as_array().context("no goroutines")?;
            for site in &births.sites {
                let of_site = goroutines.iter().filter(|goroutine| {
                    let by = &goroutine["created_by"];
                    by["function"] == site.function.as_str() && by["line"] == site.line && !goroutine["stack"].is_null()
                });
                assert_eq!(of_site.count() as u64, site.alive, "{site:?}");
            }
            let doctor = ask(&["doctor", "--json", "--pid", &pid])?;
            assert_eq!(doctor["target"]["tier"], "T3", "{:#}", doctor["target"]);
        }
        Ok(())
    })
}

/// Check that `attach --exe` by the path in one container follows the processes of all containers of the image, those that start later
/// included, and counts nobody twice.
#[test]
fn attach_to_all_containers_of_an_image() -> Result<()> {
    alone(&NEEDS, || {
        let image = Image::of(&[&fixture::go("sleeper")?])?;
        let containers = [image.container()?, image.container()?, image.container()?];
        let start = |container: &Container| -> Result<(Contained, Births)> {
            let mut contained = container.start("/sleeper", &["-n", "200"])?;
            let births = truth::read(&contained.running.line(0)?)?;
            Ok((contained, births))
        };
        let mut all = vec![start(&containers[0])?, start(&containers[1])?];
        let attached = Attached::to(&[Path::new("--exe"), &containers[0].root().join("sleeper")])?;
        all.push(start(&containers[2])?);
        let (_, recording) = attached.interrupt()?;
        let report = recording.report()?;
        report.assert_nothing_lost();
        for (contained, births) in &all {
            let (tgid, site) = (contained.pid.as_raw().cast_unsigned(), &births.sites[0]);
            let of_site: Vec<_> =
                report.sites.iter().filter(|found| found.tgid == tgid && found.created_by.line == Some(site.line)).collect();
            assert_eq!(of_site.iter().map(|site| site.alive).collect::<Vec<_>>(), [site.alive], "{tgid}: {of_site:#?}");
            assert_eq!(of_site[0].born + of_site[0].preexisting, site.made, "{of_site:#?}");
        }
        Ok(())
    })
}

/// Runs `count` containers of one image side by side, so often in turn, under one run; what each of their programs says of itself, which is the same.
fn trace_containers(count: usize, rounds: usize, options: &[&str]) -> Result<(Births, Recording)> {
    let program = fixture::go("births")?;
    let image = Image::of(&[&program])?;
    let containers = (0..count).map(|_| image.container()).collect::<Result<Vec<_>>>()?;
    let round: String = containers.iter().map(|c| c.command("/births", &["-n", "300"]).join(" ") + " & ").collect();
    let script = (round + "wait; ").repeat(rounds);
    let run = options.iter().fold(Run::of("sh"), |run, option| run.option(option)).args(["-c", &script]);
    let (finished, recording) = run.finish_whole()?;
    let finished = finished.expect_code(0)?;
    let said: Vec<Births> = finished.stdout.lines().map(truth::read).collect::<Result<_>>()?;
    let all = count * rounds;
    ensure!(said.len() == all, "{} of {all} programs said something: {}", said.len(), finished.stderr);
    ensure!(said.iter().all(|births| births.pid == 1), "no pid namespace of their own: {said:?}");
    Ok((said[0].clone(), recording))
}

fn assert_each_counted_once(report: &Report, count: usize, births: &Births) {
    report.assert_nothing_lost();
    for tgid in contained(report, count) {
        truth::assert_sites(report, tgid, &births.sites);
        truth::assert_waits(report, tgid, &births.sites);
    }
}

/// The host's numbers of the `count` processes that ran the program.
fn contained(report: &Report, count: usize) -> Vec<u32> {
    let tgids: Vec<_> =
        report.processes.iter().filter(|process| is_births(process.exe.as_deref())).map(|process| process.tgid).collect();
    assert!(!tgids.is_empty() && tgids.len() == count, "{:#?}", report.processes);
    tgids
}

fn is_births(exe: Option<&str>) -> bool {
    exe.is_some_and(|exe| Path::new(exe).file_name().is_some_and(|name| name == "births"))
}

fn report_json(recording: &Recording) -> Result<Value> {
    Ok(serde_json::from_str(&recording.answer("report", &["--format", "json"])?)?)
}

/// Hits through an attachment that is not the process's own.
fn duplicate_hits(report: &Value) -> Result<u64> {
    report["price"]["duplicate_hits"].as_u64().with_context(|| format!("no duplicate hits in {:#}", report["price"]))
}
