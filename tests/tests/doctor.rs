//! `lifetrace doctor`: what it says of this kernel, of a Go program, and of what is none.

use std::process::Command;

use anyhow::{Context, Result};
use lifetrace_tests::{
    fixture,
    lifetrace::command,
    process::{self, Running},
    scenario::{Need, along},
    truth::{self, Births},
};
use serde_json::Value;

/// Check that each hook of a Go program is named with its instruction, all of them emulated, and that T3 is possible.
#[test]
fn go_program() -> Result<()> {
    along(&[Need::Root], || {
        let births = fixture::go("births")?;
        let mut doctor = command();
        doctor.arg("doctor").arg("--exe").arg(&births);
        let text = process::run(doctor)?.expect_code(0)?.stdout;
        for part in ["BTF", "ring buffer", "uprobes", "kprobes", "capabilities", "runtime.gopark: push", "Go version", "go1."] {
            assert!(text.contains(part), "{part} is missing:\n{text}");
        }
        let mut doctor = command();
        doctor.args(["doctor", "--json", "--exe"]).arg(&births);
        let report: Value = serde_json::from_str(&process::run(doctor)?.expect_code(0)?.stdout)?;
        assert_eq!(report["schema"], "lifetrace.doctor/1");
        assert_eq!(report["target"]["tier"], "T3", "{report:#}");
        let hooks = report["target"]["hooks"].as_array().context("no hooks")?;
        for hook in ["birth", "exit", "park", "wake"] {
            assert!(hooks.iter().any(|known| known["hook"] == hook), "no {hook} among {hooks:#?}");
        }
        assert!(hooks.iter().all(|hook| hook["emulated"] == true), "{hooks:#?}");
        // The ring as it is asked for, and some megabytes of tables.
        let memory = |what: &str| report["memory"][what].as_u64().unwrap_or(0) >> 20;
        assert!((64..80).contains(&memory("ring_bytes")) && memory("tables_bytes") > 0, "{:#}", report["memory"]);
        assert!(memory("summing_bytes") >= 10, "{:#}", report["memory"]);
        Ok(())
    })
}

/// Check that a program that is not Go is named as what it is, with the code for an environment that does not allow it.
#[test]
fn not_a_go_program() -> Result<()> {
    along(&[], || {
        let mut doctor = command();
        doctor.args(["doctor", "--exe", "/bin/sh"]);
        let said = process::run(doctor)?.expect_code(3)?.stdout;
        assert!(said.contains("not a Go program") && said.contains("ELF"), "{said}");
        let mut doctor = command();
        doctor.args(["doctor", "--exe", "/no/such/file"]);
        process::run(doctor)?.expect_code(2)?.expect_said(&["/no/such/file"])?;
        Ok(())
    })
}

/// Check what is said of a running Go program: that it bears the offsets out, what its namespaces are, and what works on it.
#[test]
fn running_process() -> Result<()> {
    along(&[Need::Root], || {
        let mut sleeper = Command::new(fixture::go("sleeper")?);
        sleeper.args(["-n", "10"]);
        let mut running = Running::start(sleeper, None)?;
        let births: Births = truth::read(&running.line(0)?)?;
        let mut doctor = command();
        doctor.args(["doctor", "--json", "--pid", &births.pid.to_string()]);
        let report: Value = serde_json::from_str(&process::run(doctor)?.expect_code(0)?.stdout)?;
        assert_eq!(report["target"]["offsets_source"]["source"], "dwarf", "{:#}", report["target"]["offsets_source"]);
        assert_eq!(report["process"]["bears_out"], true, "{:#}", report["process"]);
        for (of, whats) in [
            ("target", &["offsets", "T1 births, exits", "T2 parks, wakes", "names", "snapshot"][..]),
            ("process", &["probes", "pid namespace", "mount namespace", "memory", "self-check"]),
        ] {
            for what in whats {
                let works = report[of]["works"].as_array().context("nothing works")?;
                assert!(works.iter().any(|ability| ability["what"] == *what && ability["ok"] == true), "{what}: {works:#?}");
            }
        }
        Ok(())
    })
}

/// Check that a process in namespaces of its own is told by both of its numbers, and that its program is read all the same.
#[test]
fn process_in_namespaces() -> Result<()> {
    along(&[Need::Root, Need::Command("unshare")], || {
        let mut unshare = Command::new("unshare");
        unshare.args(["--pid", "--mount", "--fork", "--kill-child"]).arg(fixture::go("sleeper")?).args(["-n", "10"]);
        let mut running = Running::start(unshare, None)?;
        let births: Births = truth::read(&running.line(0)?)?;
        assert_eq!(births.pid, 1);
        let parent = running.pid();
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
        let pid = children.split_whitespace().next().context("unshare has no child")?;
        let mut doctor = command();
        doctor.args(["doctor", "--json", "--pid", pid]);
        let report: Value = serde_json::from_str(&process::run(doctor)?.expect_code(0)?.stdout)?;
        let process = &report["process"];
        let numbers = process["namespace_pids"].as_array().context("no numbers")?;
        assert_eq!((numbers.len() >= 2, numbers.last()), (true, Some(&Value::from(1))), "{process:#}");
        assert_eq!(process["bears_out"], true, "{process:#}");
        let works = process["works"].as_array().context("nothing works")?;
        let found = |what: &str| works.iter().find(|ability| ability["what"] == what).map(|ability| ability["found"].to_string());
        for what in ["pid namespace", "mount namespace"] {
            assert!(found(what).is_some_and(|found| found.contains("its own")), "{what}: {works:#?}");
        }
        Ok(())
    })
}

/// Check what is said of a process that is not there.
#[test]
fn no_such_process() -> Result<()> {
    along(&[], || {
        let mut doctor = command();
        doctor.args(["doctor", "--pid", &u32::MAX.to_string()]);
        process::run(doctor)?.expect_code(2)?.expect_said(&["no process"])
    })
}
