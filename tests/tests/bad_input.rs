//! Bad input and hostile surroundings: a clear error, the right status, and nothing lost that was written.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use anyhow::Result;
use lifetrace_tests::{
    disk::SmallDisk,
    fixture, lifetrace,
    lifetrace::Run,
    process::{self, Finished},
    scenario::{Need, alone, along},
    truth::{self, Births},
    user,
};
use tempfile::TempDir;

/// Check that a command that does not exist is 127, named, and leaves no recording behind.
#[test]
fn no_such_command() -> Result<()> {
    along(&[Need::Root], || {
        for command in ["lifetrace-no-such-command", "/no/such/command", "./no-such-command"] {
            let (finished, _) = Run::of(command).finish()?;
            let finished = finished.expect_code(127)?;
            finished.expect_said(&[command])?;
            finished.expect_said(&["not found", "no such file"])?;
        }
        Ok(())
    })
}

/// Check that a file that may not be executed, a directory and an executable of no known format are 126 and named.
#[test]
fn not_an_executable() -> Result<()> {
    along(&[Need::Root], || {
        let dir = TempDir::new()?;
        let plain = dir.path().join("plain.txt");
        fs::write(&plain, "not a program\n")?;
        let garbage = dir.path().join("garbage");
        fs::write(&garbage, [0x7f, b'E', b'L', b'F', 0, 0, 0, 0])?;
        fs::set_permissions(&garbage, fs::Permissions::from_mode(0o755))?;
        for command in [plain.as_path(), garbage.as_path(), dir.path()] {
            let finished = Run::of(command).finish()?.0.expect_code(126)?;
            finished.expect_said(&[&command.display().to_string()])?;
        }
        Ok(())
    })
}

/// Check that a program that is not Go, and starts none, is called what it is.
#[test]
fn not_a_go_program() -> Result<()> {
    along(&[Need::Root], || {
        let script = TempDir::new()?;
        let script_path = script.path().join("script");
        fs::write(&script_path, "#!/bin/sh\nexit 0\n")?;
        fs::set_permissions(&script_path, fs::Permissions::from_mode(0o755))?;
        for command in [Path::new("/bin/true"), &script_path] {
            let (finished, _) = Run::of(command).finish()?;
            // Either it runs unprobed and its status is passed through, or it is refused.
            assert!([0, 125].contains(&finished.code()), "{finished:?}");
            finished.expect_said(&["not built by go", "script"])?;
            finished.expect_said(&[&command.display().to_string()])?;
        }
        Ok(())
    })
}

/// Check that a program that is not Go but starts one that is, is followed into it.
#[test]
fn go_program_behind_a_shell() -> Result<()> {
    // Probes must be set within the exec gate's deadline; other sessions that take theirs away hold the kernel's lock.
    alone(&[Need::Root], || {
        let births = fixture::go("births")?;
        let (finished, recording) = Run::of("sh").args(["-c", "\"$0\" -n 300; exit 9"]).args([&births]).finish_whole()?;
        let births: Births = truth::read(finished.expect_code(9)?.last_line())?;
        truth::assert_sites(&recording.report()?, births.pid, &births.sites);
        Ok(())
    })
}

/// Check that without root nothing is started, and that the error says what is missing and what to do.
#[test]
fn no_root() -> Result<()> {
    along(&[Need::Root, Need::Nobody, Need::Command("setpriv")], || {
        let Some(nobody) = user::nobody() else { anyhow::bail!("no nobody") };
        let dir = TempDir::new()?;
        let program = fixture::copy_for_everyone(&fixture::go("stdio")?, dir.path())?;
        let tracer = fixture::copy_for_everyone(&lifetrace::binary(), dir.path())?;
        let writable = dir.path().join("writable");
        fs::create_dir(&writable)?;
        fs::set_permissions(&writable, fs::Permissions::from_mode(0o777))?;
        let mut command = lifetrace::command_through("setpriv");
        command.current_dir(dir.path());
        command.arg("--reuid").arg(nobody.uid.to_string()).arg("--regid").arg(nobody.gid.to_string()).arg("--clear-groups");
        command.arg(tracer).args(["run", "-o"]).arg(writable.join("rec.lifetrace")).arg("--").arg(&program);
        let finished = process::run(command)?.expect_code(125)?;
        finished.expect_said(&["root", "cap_bpf", "privilege"])?;
        assert_eq!(finished.stdout, "", "the command was started");
        assert_eq!(fs::read_dir(&writable)?.count(), 0, "a recording was left behind");
        Ok(())
    })
}

/// Check that a path that cannot be written is an error of ours before the command starts.
#[test]
fn unwritable_output() -> Result<()> {
    along(&[Need::Root], || {
        let dir = TempDir::new()?;
        for output in [dir.path().join("no/such/dir/rec.lifetrace"), dir.path().to_owned(), "/proc/rec.lifetrace".into()] {
            let finished = Run::of(fixture::go("stdio")?).output(&output).finish()?.0.expect_code(125)?;
            finished.expect_said(&[&output.display().to_string()])?;
            assert_eq!(finished.stdout, "", "the command was started");
        }
        Ok(())
    })
}

/// Check that a disk that fills up while recording harms neither the target nor what was written, and is said.
#[test]
fn full_disk() -> Result<()> {
    along(&[Need::Root], || {
        let disk = SmallDisk::mount("256k")?;
        let output = disk.path().join("full.lifetrace");
        let (finished, recording) = Run::of(fixture::go("births")?).output(&output).finish()?;
        finished.expect_said(&["no space", "disk full", "disk is full"])?;
        let births: Births = truth::read(finished.expect_code(125)?.last_line())?;
        let report = recording.report()?;
        let born: u64 = report.sites.iter().filter(|site| site.tgid == births.pid).map(|site| site.born).sum();
        assert!(born > 0, "nothing that was written can be read");
        Ok(())
    })
}

/// Check that wrong usage is 125 with a command, 2 without one, and that files that are no recordings are 2 and named.
#[test]
fn wrong_usage() -> Result<()> {
    along(&[], || {
        let ask = |args: &[&str]| -> Result<Finished> {
            let mut command: Command = lifetrace::command();
            command.args(args);
            process::run(command)
        };
        for args in [&["run", "--no-such-option", "--", "true"][..], &["run", "--tier", "T9", "--", "true"], &["run", "--"]] {
            ask(args)?.expect_code(125)?;
        }
        let dir = TempDir::new()?;
        let junk = dir.path().join("junk.lifetrace");
        fs::write(&junk, "junk\n".repeat(1000))?;
        let empty = dir.path().join("empty.lifetrace");
        fs::write(&empty, "")?;
        for path in [junk, empty, dir.path().join("missing.lifetrace"), dir.path().to_owned()] {
            let path = path.display().to_string();
            let finished = ask(&["report", &path])?.expect_code(2)?;
            finished.expect_said(&[&path])?;
            assert_eq!(finished.stdout, "");
        }
        ask(&["no-such-subcommand"])?.expect_code(2)?;
        Ok(())
    })
}
