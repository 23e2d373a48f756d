//! `lifetrace doctor`: what it says of this kernel, of a Go program, and of what is none.

use anyhow::{Context, Result};
use lifetrace_tests::{
    fixture,
    lifetrace::command,
    process,
    scenario::{Need, along},
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
