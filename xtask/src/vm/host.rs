//! The same on the kernel that runs here.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context, Result};

use super::{
    initramfs::Root,
    outcome::{Outcome, Said},
    scenarios::Program,
};
use crate::{place, shell::output};

/// Runs the test programs one after the other; needs root.
pub fn run(root: &Root, programs: &[Program]) -> Result<Outcome> {
    let mut outcome = Outcome { release: output(Command::new("uname").arg("-r"))?, ..Outcome::default() };
    outcome.doctor = doctor(root)?;
    let target = place::target().join("vm/host");
    fs::create_dir_all(&target)?;
    for program in programs {
        let skips = target.join("skips.jsonl");
        let _ = fs::remove_file(&skips);
        let mut current = None;
        outcome.take(&format!("@begin {}", program.name), &mut current);
        let limit = Duration::from_secs(program.seconds.into());
        let mut test = Command::new("timeout");
        test.args(["-s", "KILL", &limit.as_secs().to_string()]).arg(root.test(&program.name));
        test.args(["--test-threads", "1"]).args(program.filter.split_whitespace()).current_dir(place::root().join("tests"));
        test.env("LIFETRACE_BIN", root.lifetrace()).env("LIFETRACE_FIXTURES", root.fixtures()).env("CARGO_TARGET_DIR", &target);
        test.env_remove("LIFETRACE_REQUIRE_ALL");
        let tried = test.output().context("cannot start timeout")?;
        let text = String::from_utf8_lossy(&tried.stdout).into_owned();
        for line in text.lines() {
            outcome.take(line, &mut current);
        }
        for line in fs::read_to_string(&skips).unwrap_or_default().lines() {
            outcome.take(&format!("@skip {line}"), &mut current);
        }
        let end = format!("@end {} {}", program.name, tried.status.code().unwrap_or(-1));
        if let Said::End(name, code) = outcome.take(&end, &mut current) {
            let [passed, failed, skipped] = Outcome::counts(outcome.programs.get(name).into_iter());
            println!("   {name}: {passed} passed, {failed} failed, {skipped} skipped");
            if code != 0 {
                text.lines().for_each(|line| println!("   | {line}"));
            }
        }
    }
    Ok(outcome)
}

fn doctor(root: &Root) -> Result<serde_json::Value> {
    // Its status tells only whether everything is there.
    let said =
        Command::new(root.lifetrace()).args(["doctor", "--programs", "--json"]).output().context("cannot start lifetrace")?;
    serde_json::from_slice(&said.stdout).with_context(|| String::from_utf8_lossy(&said.stderr).into_owned())
}
