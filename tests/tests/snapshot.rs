//! `lifetrace snapshot` against what the program says of itself.

use std::process::Command;

use anyhow::{Context, Result};
use lifetrace_tests::{
    fixture,
    lifetrace::command,
    process::{self, Finished, Running},
    scenario::{Need, along},
    truth::{self, Births},
};
use serde_json::Value;

/// A `sleeper` with its goroutines parked, and its truth.
fn sleeper(args: &[&str]) -> Result<(Running, Births)> {
    let mut command = Command::new(fixture::go("sleeper")?);
    command.args(args);
    let mut running = Running::start(command, None)?;
    let births = truth::read(&running.line(0)?)?;
    Ok((running, births))
}

fn snapshot(pid: u32, format: &str) -> Result<Finished> {
    let mut snapshot = command();
    snapshot.args(["snapshot", "--pid", &pid.to_string(), "--format", format]);
    process::run(snapshot)
}

/// Claims that the goroutines of each site are there, all of them waiting as the site says, with a whole stack.
#[track_caller]
fn assert_sites(snapshot: &Value, births: &Births) {
    let goroutines = snapshot["goroutines"].as_array().expect("no goroutines");
    for site in &births.sites {
        let of_site = goroutines.iter().filter(|goroutine| {
            let by = &goroutine["created_by"];
            let file = by["file"].as_str().is_some_and(|file| file.ends_with(&format!("/{}", site.file)));
            by["function"] == site.function.as_str() && by["line"] == site.line && file
        });
        let found: Vec<_> = of_site.collect();
        assert_eq!(found.len() as u64, site.alive, "{site:?}");
        for goroutine in found {
            assert_eq!(goroutine["state"], "waiting", "{goroutine:#}");
            assert_eq!(goroutine["wait_reason"].as_str(), site.wait_reason.as_deref(), "{goroutine:#}");
            assert_eq!((&goroutine["created_by"]["goid"], &goroutine["system"]), (&Value::from(1), &Value::from(false)));
            let stack = goroutine["stack"].as_array().expect("no stack");
            assert_eq!(stack[0]["function"], "runtime.gopark", "{goroutine:#}");
            assert_eq!(stack.last().map(|frame| &frame["function"]), Some(&goroutine["start_function"]), "{goroutine:#}");
        }
    }
}

/// Check count, creator, line, wait reason and stack of a thousand parked goroutines, and that the runtime's own are marked.
#[test]
fn parked_goroutines() -> Result<()> {
    along(&[Need::Root], || {
        let (_running, births) = sleeper(&["-n", "1000"])?;
        let found: Value = serde_json::from_str(&snapshot(births.pid, "json")?.expect_code(0)?.stdout)?;
        assert_eq!(found["schema"], "lifetrace.snapshot/1");
        assert_eq!(found["torn"], 0);
        assert_sites(&found, &births);
        let goroutines = found["goroutines"].as_array().context("no goroutines")?;
        let main = goroutines.iter().find(|goroutine| goroutine["goid"] == 1).context("no main")?;
        assert_eq!((&main["start_function"], &main["system"]), (&"runtime.main".into(), &false.into()));
        assert!(goroutines.iter().any(|goroutine| goroutine["system"] == true));
        Ok(())
    })
}

/// Check that those who stay are counted exactly while others come and go.
#[test]
fn while_others_come_and_go() -> Result<()> {
    along(&[Need::Root], || {
        let (_running, births) = sleeper(&["-n", "1000", "-churn"])?;
        for _ in 0..20 {
            let found: Value = serde_json::from_str(&snapshot(births.pid, "json")?.expect_code(0)?.stdout)?;
            assert_sites(&found, &births);
        }
        Ok(())
    })
}

/// Check that the text has the shape of Go's own dump.
#[test]
fn text() -> Result<()> {
    along(&[Need::Root], || {
        let (_running, births) = sleeper(&["-n", "10"])?;
        let text = snapshot(births.pid, "text")?.expect_code(0)?.stdout;
        let site = &births.sites[0];
        let created = format!("created by {} in goroutine 1\n\t", site.function);
        let entries: Vec<_> = text.split("\n\n").filter(|entry| entry.contains(&created)).collect();
        let parked = entries.iter().filter(|entry| entry.contains(&format!("{}:{}", site.file, site.line)));
        let parked: Vec<_> = parked.filter(|entry| entry.contains(" [chan receive]:\nruntime.gopark(...)\n\t")).collect();
        assert_eq!(parked.len() as u64, site.alive, "{text}");
        assert!(text.starts_with("goroutine 1 [select]:\n"), "{text}");
        Ok(())
    })
}

/// Check what is said, and with which code, of a process that is not there and of one that is not Go.
#[test]
fn no_go_process() -> Result<()> {
    along(&[], || {
        snapshot(u32::MAX, "text")?.expect_code(2)?.expect_said(&["no process"])?;
        let mut sleep = Command::new("sleep");
        sleep.arg("60");
        let sleep = Running::start(sleep, None)?;
        let pid = u32::try_from(sleep.pid().as_raw())?;
        snapshot(pid, "text")?.expect_code(3)?.expect_said(&["no Go program", "not allowed"])
    })
}
