//! A kernel without BTF: classic tracepoints serve, and what they cannot tell is unknown.

use anyhow::{Context, Result, ensure};
use lifetrace_tests::{
    fixture,
    lifetrace::{binary, command_through},
    process::{self, Finished},
    recording::Recording,
    scenario::{Need, along},
    truth::{self, Births},
};
use serde_json::Value;
use tempfile::TempDir;

/// `lifetrace run` as if there were no BTF, in a mount namespace of its own in which tracefs is mounted.
fn run(options: &str, program: &str) -> Result<(Finished, Recording)> {
    let recording = Recording::in_dir(TempDir::new()?);
    let (lifetrace, output) = (binary(), recording.path().to_owned());
    let mut command = command_through("unshare");
    let script = format!("mount -t tracefs nodev /sys/kernel/tracing; exec \"$@\" {options} -- {program}");
    command.args(["--mount", "sh", "-c", &script, "sh"]).arg(lifetrace).args(["run", "--knob", "no-btf=1", "-o"]).arg(output);
    Ok((process::run(command)?, recording))
}

/// Check that goroutines are told exactly all the same.
#[test]
fn goroutines() -> Result<()> {
    along(&[Need::Root, Need::Command("unshare")], || {
        let (finished, recording) = run("", &fixture::go("births")?.display().to_string())?;
        let births: Births = truth::read(finished.expect_code(0)?.last_line())?;
        let report = recording.report()?;
        report.assert_nothing_lost();
        truth::assert_sites(&report, births.pid, &births.sites);
        truth::assert_waits(&report, births.pid, &births.sites);
        Ok(())
    })
}

/// Check that processes are told by their numbers and files, and their exit codes as unknown.
#[test]
fn processes() -> Result<()> {
    along(&[Need::Root, Need::Command("unshare")], || {
        let (finished, recording) = run("", "sh -c '/bin/true; /bin/false; exit 3'")?;
        finished.expect_code(3)?;
        let report: Value = serde_json::from_str(&recording.answer("report", &["--format", "json"])?)?;
        let processes = report["processes"].as_array().context("no processes")?;
        ensure!(processes.len() == 3, "{processes:#?}");
        for process in processes {
            ensure!(process["exited_at_ns"].is_u64() && process["exit_code"].is_null(), "{process:#}");
        }
        let programs: Vec<&str> = processes.iter().filter_map(|process| process["exe"].as_str()).collect();
        ensure!(
            programs.iter().any(|exe| exe.ends_with("/true")) && programs.iter().any(|exe| exe.ends_with("/false")),
            "{programs:?}"
        );
        Ok(())
    })
}
