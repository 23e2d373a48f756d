//! What this kernel allows, and that what is said of it is what happens.

use anyhow::{Context, Result, ensure};
use lifetrace_tests::{
    lifetrace::{Run, command},
    process,
    scenario::{Need, alone, along},
};
use serde_json::Value;

/// Check that lifetrace runs where doctor says that nothing needed is missing, and otherwise refuses by the name of what is.
#[test]
fn doctor_is_right() -> Result<()> {
    along(&[Need::Root], || {
        let report = doctor(&[])?;
        let checks = report["checks"].as_array().context("no checks")?;
        let missing = checks.iter().find(|check| check["required"] == true && check["ok"] == false);
        let (finished, _) = Run::of("true").finish()?;
        match missing {
            None => finished.expect_code(0).map(drop),
            Some(check) => finished.expect_code(125)?.expect_said(&[check["name"].as_str().context("no name")?]),
        }
    })
}

/// Check that the verifier takes every BPF program, wherever lifetrace runs at all.
#[test]
fn every_program_loads() -> Result<()> {
    alone(&[Need::Root], || {
        let report = doctor(&["--programs"])?;
        let checks = report["checks"].as_array().context("no checks")?;
        let runs = checks.iter().all(|check| check["required"] != true || check["ok"] == true);
        let programs = report["programs"].as_array().context("no programs")?;
        ensure!(!programs.is_empty(), "no programs");
        let refused: Vec<&Value> = programs.iter().filter(|program| !program["refused"].is_null()).collect();
        ensure!(refused.is_empty() == runs, "lifetrace runs here: {runs}; refused: {refused:#?}");
        Ok(())
    })
}

fn doctor(options: &[&str]) -> Result<Value> {
    let mut doctor = command();
    doctor.args(["doctor", "--json"]).args(options);
    // Its status tells whether all that is required is there.
    Ok(serde_json::from_str(&process::run(doctor)?.stdout)?)
}
