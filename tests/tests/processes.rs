//! Ends of processes, descendants, and what a parent or the command itself may notice: nothing.

use anyhow::Result;
use lifetrace_tests::{
    deadline, fixture,
    lifetrace::Run,
    process,
    scenario::{Need, alone, along},
    truth::{self, Births, Process, Stdio, Waiter},
    user,
};
use nix::sys::signal::{Signal, kill};
use std::{
    fs,
    os::unix::fs::{MetadataExt, chown},
    process::Command,
};
use tempfile::TempDir;

/// Check that a program that leaves by os.Exit keeps its status, and that its goroutines are reported alive to the end.
#[test]
fn os_exit_with_goroutines_alive() -> Result<()> {
    along(&[Need::Root], || {
        let (finished, recording) = Run::of(fixture::go("osexit")?).finish()?;
        let births: Births = truth::read(finished.expect_code(3)?.last_line())?;
        let report = recording.report()?;
        truth::assert_sites(&report, births.pid, &births.sites);
        truth::assert_waits(&report, births.pid, &births.sites);
        let _ = report.goroutines().of(births.pid).created_by("main.main").born(1000).stays();
        assert_eq!(report.process(births.pid).exit_code, Some(3));
        Ok(())
    })
}

/// Check that a program that dies of a panic prints what it prints, ends with 2, and is reported so.
#[test]
fn panic_with_goroutines_alive() -> Result<()> {
    along(&[Need::Root], || {
        let (finished, recording) = Run::of(fixture::go("panics")?).finish()?;
        finished.expect_said(&["panic: the order book is upside down"])?;
        let births: Births = truth::read(finished.expect_code(2)?.last_line())?;
        let report = recording.report()?;
        truth::assert_sites(&report, births.pid, &births.sites);
        assert_eq!(report.process(births.pid).exit_code, Some(2));
        Ok(())
    })
}

/// Check that a program killed by SIGKILL is reported as killed by it, with its goroutines alive to the end, and that lifetrace ends with 137.
#[test]
fn killed_by_sigkill() -> Result<()> {
    along(&[Need::Root], || {
        let mut traced = Run::of(fixture::go("sleeper")?).args(["-n", "1000"]).start()?;
        let births: Births = truth::read(&traced.running.line(0)?)?;
        kill(process::pid(births.pid), Signal::SIGKILL)?;
        let (finished, recording) = traced.finish()?;
        finished.expect_code(137)?;
        let report = recording.report()?;
        truth::assert_sites(&report, births.pid, &births.sites);
        truth::assert_waits(&report, births.pid, &births.sites);
        let target = report.process(births.pid);
        assert_eq!((target.exit_code, target.signal), (None, Some(9)));
        Ok(())
    })
}

/// Check that descendants over two generations are all followed, each with its parent, its status and its own exact goroutines.
#[test]
fn descendants() -> Result<()> {
    // Probes must be set within the exec gate's deadline; other sessions that take theirs away hold the kernel's lock.
    alone(&[Need::Root], || {
        let births = fixture::go("births")?;
        let run = Run::of(fixture::go("spawner")?).args(["-children", "3", "-depth", "2"]).args([&births]).args(["-n", "60"]);
        let (finished, recording) = run.finish_whole()?;
        let tree: Process = truth::read(finished.expect_code(0)?.last_line())?;
        let report = recording.report()?;
        report.assert_nothing_lost();
        assert_eq!(tree.all().len(), 1 + 3 + 9);
        for parent in tree.all() {
            assert!(report.process(parent.pid).exe.as_deref().is_some_and(|exe| exe.ends_with(&parent.program)));
            for child in &parent.children {
                let reported = report.process(child.pid);
                assert_eq!((reported.parent, reported.exit_code), (Some(parent.pid), Some(child.exit_code)));
            }
            if let Some(output) = &parent.output {
                let births: Births = truth::read(output)?;
                truth::assert_sites(&report, parent.pid, &births.sites);
                truth::assert_waits(&report, parent.pid, &births.sites);
            }
        }
        Ok(())
    })
}

/// Check that children of the same program started all at once are all followed from their first goroutine.
#[test]
fn descendants_at_once() -> Result<()> {
    // Probes must be set within the exec gate's deadline; other sessions that take theirs away hold the kernel's lock.
    alone(&[Need::Root], || {
        let births = fixture::go("births")?;
        let run = Run::of(fixture::go("spawner")?).args(["-children", "20", "-parallel"]).args([&births]).args(["-n", "30"]);
        let (finished, recording) = run.finish_whole()?;
        let tree: Process = truth::read(finished.expect_code(0)?.last_line())?;
        let report = recording.report()?;
        for child in &tree.children {
            let births: Births = truth::read(child.output.as_deref().unwrap_or_default())?;
            truth::assert_sites(&report, child.pid, &births.sites);
        }
        Ok(())
    })
}

/// Check that a parent that asks for stops and counts its SIGCHLDs sees of its children's execs nothing but their ends.
#[test]
fn parent_with_job_control() -> Result<()> {
    // Probes must be set within the exec gate's deadline; other sessions that take theirs away hold the kernel's lock.
    alone(&[Need::Root], || {
        let births = fixture::go("births")?;
        let run = Run::of(fixture::c("waiter")?).args(["20"]).args([&births]).args(["-n", "30"]);
        let (finished, recording) = run.finish_whole()?;
        let finished = finished.expect_code(0)?;
        truth::read::<Waiter>(finished.last_line())?.assert_undisturbed(20);
        let report = recording.report()?;
        for line in finished.stdout.lines().take(20) {
            let births: Births = truth::read(line)?;
            truth::assert_sites(&report, births.pid, &births.sites);
        }
        Ok(())
    })
}

/// Check that a non-zero status of the command is passed through.
#[test]
fn statuses_pass_through() -> Result<()> {
    along(&[Need::Root], || {
        for code in [0, 1, 2, 7, 124, 125, 126, 127, 255] {
            let (finished, _) = Run::of(fixture::go("stdio")?).args(["-code", &code.to_string()]).finish()?;
            finished.expect_code(code)?;
        }
        Ok(())
    })
}

/// Check that signals sent to lifetrace that ask it to end reach the command, whose status is then lifetrace's own.
#[test]
fn signals_are_forwarded() -> Result<()> {
    along(&[Need::Root], || {
        for (signal, name) in [(Signal::SIGTERM, "terminated"), (Signal::SIGINT, "interrupt"), (Signal::SIGHUP, "hangup")] {
            let mut traced = Run::of(fixture::go("stdio")?).args(["-wait", "-code", "7"]).start()?;
            let _ = traced.running.line(0)?;
            traced.running.signal(signal)?;
            let (finished, recording) = traced.finish()?;
            assert_eq!(finished.last_line(), format!("signal {name}"));
            finished.expect_code(7)?;
            recording.report()?;
        }
        Ok(())
    })
}

/// Check that stdin, arguments, environment, directory, ids, umask and signal masks are those the command would have without lifetrace.
#[test]
fn inherits_what_it_would_inherit() -> Result<()> {
    along(&[Need::Root], || {
        let program = fixture::go("stdio")?;
        let dir = TempDir::new()?;
        let args = ["-env", "HOME,LIFETRACE_TEST,PATH", "a b", "--", "-o"];
        let mut bare = Command::new(&program);
        bare.args(args).current_dir(dir.path()).env("LIFETRACE_TEST", "x=y");
        let bare = process::Running::start(bare, Some(b"one\ntwo\n"))?.finish()?.expect_code(0)?;
        let run = Run::of(&program).args(args).current_dir(dir.path()).env("LIFETRACE_TEST", "x=y").input(b"one\ntwo\n");
        let traced = run.finish()?.0.expect_code(0)?;

        let first = |output: &str| truth::read::<Stdio>(output.lines().next().unwrap_or_default());
        assert_eq!(first(&traced.stdout)?, first(&bare.stdout)?);
        assert!(traced.stdout.ends_with("}\none\ntwo\n"), "{}", traced.stdout);
        Ok(())
    })
}

/// Check that under sudo the command runs as the user who called, and that the recording belongs to that user and to nobody else.
#[test]
fn under_sudo() -> Result<()> {
    along(&[Need::Root, Need::Nobody], || {
        let Some(nobody) = user::nobody() else { anyhow::bail!("no nobody") };
        let dir = TempDir::new()?;
        let program = fixture::copy_for_everyone(&fixture::go("stdio")?, dir.path())?;
        let sudo = |run: Run| {
            run.args(["-env", "HOME"])
                .env("SUDO_UID", nobody.uid.to_string())
                .env("SUDO_GID", nobody.gid.to_string())
                .env("SUDO_USER", "nobody")
        };
        chown(dir.path(), Some(nobody.uid), Some(nobody.gid))?;
        let output = dir.path().join("sudo.lifetrace");
        let (finished, recording) = sudo(Run::of(&program)).current_dir(dir.path()).output(&output).finish()?;
        let started: Stdio = truth::read(finished.expect_code(0)?.stdout.lines().next().unwrap_or_default())?;
        assert_eq!((started.uid, started.gid), (nobody.uid, nobody.gid));
        assert!(!started.groups.unwrap_or_default().contains(&0), "still in root's group");
        assert_eq!(started.env.get("HOME"), Some(&nobody.home));
        let file = fs::metadata(recording.path())?;
        assert_eq!((file.uid(), file.gid(), file.mode() & 0o777), (nobody.uid, nobody.gid, 0o600));

        let (finished, _) = sudo(Run::of(&program)).option("--as-root").current_dir(dir.path()).finish()?;
        let started: Stdio = truth::read(finished.expect_code(0)?.stdout.lines().next().unwrap_or_default())?;
        assert_eq!(started.uid, 0);
        Ok(())
    })
}

/// Check that execs of other people's Go programs are neither recorded nor noticed by their parent while a run is under way.
#[test]
fn other_peoples_execs() -> Result<()> {
    alone(&[Need::Root], || {
        let mut traced = Run::of(fixture::go("sleeper")?).args(["-churn"]).start()?;
        let births: Births = truth::read(&traced.running.line(0)?)?;
        let waiter = fixture::c("waiter")?;
        let mut strangers = Command::new(&waiter);
        strangers.args(["50"]).arg(fixture::go("births")?).args(["-n", "3"]);
        let strangers = process::run(strangers)?.expect_code(0)?;
        truth::read::<Waiter>(strangers.last_line())?.assert_undisturbed(50);
        kill(process::pid(births.pid), Signal::SIGTERM)?;
        let (finished, recording) = traced.finish_within(deadline::PATIENCE)?;
        finished.expect_code(0)?;
        let report = recording.report()?;
        assert_eq!(report.processes.len(), 1, "strangers were recorded: {:?}", report.processes);
        Ok(())
    })
}

/// Check that children that are made and executed all the time, while everybody is looked at, are never taken for their parent: nothing is
/// repaired where nothing was lost.
#[test]
fn looked_at_between_fork_and_exec() -> Result<()> {
    along(&[Need::Root], || {
        let run = Run::of(fixture::go("spawner")?).option("--snapshot-every").option("250ms");
        let run = run.args(["-children", "60"]).args([fixture::go("births")?.as_os_str()]).args(["-n", "200"]);
        let (finished, recording) = run.finish_whole()?;
        finished.expect_code(0)?;
        let report = recording.report()?;
        report.assert_nothing_lost();
        // Go itself forks once more, to try what the kernel can: that child executes nothing.
        assert_eq!(report.coverage.len(), 61);
        assert!(report.snapshots.taken > 0, "nobody was looked at: the test proves nothing");
        Ok(())
    })
}
