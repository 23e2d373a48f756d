//! The matrix of Go versions and build modes: which cells a run tries, and the summary of what they came to.
//!
//! The cells themselves are `tests/tests/matrix.rs`; this tells it the toolchains and flags. Every run of `cargo xtask test` tries a slice:
//! one version in each mode and one mode in each version, another one with each commit.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{
    go, offsets, place, setup,
    shell::{output, run},
};

struct Mode {
    name: &'static str,
    flags: &'static [&'static str],
    cgo: bool,
}

const fn mode(name: &'static str, cgo: bool, flags: &'static [&'static str]) -> Mode {
    Mode { name, flags, cgo }
}

/// `-race` needs C. The profile is one of several Go versions together, so that it fits each.
const MODES: [Mode; 10] = [
    mode("default", false, &[]),
    mode("stripped", false, &["-ldflags=-s -w"]),
    mode("pie", false, &["-buildmode=pie"]),
    mode("pie, stripped", false, &["-buildmode=pie", "-ldflags=-s -w"]),
    mode("cgo, internal", true, &["-ldflags=-linkmode=internal"]),
    mode("cgo, external", true, &["-ldflags=-linkmode=external"]),
    mode("pie, external", true, &["-buildmode=pie", "-ldflags=-linkmode=external -s -w"]),
    mode("race", true, &["-race"]),
    mode("-N -l", false, &["-gcflags=all=-N -l"]),
    mode("pgo", false, &["-pgo=matrix/runtime.pgo"]),
];

/// A file that names cells, and one that what they came to is written to.
pub struct Matrix {
    asked: PathBuf,
    results: PathBuf,
}

impl Matrix {
    /// Every cell, at these tiers.
    pub fn whole(tiers: &[String]) -> Result<Self> {
        let cells = go::RELEASES.into_iter().flat_map(|release| MODES.iter().map(move |mode| (release, mode)));
        Self::prepare(&cells.collect::<Vec<_>>(), tiers)
    }

    /// The slice whose turn it is.
    pub fn slice(tiers: &[String]) -> Result<Self> {
        let turn = turn();
        let (release, own) = (go::RELEASES[turn % go::RELEASES.len()], &MODES[turn / go::RELEASES.len() % MODES.len()]);
        println!("matrix: slice {turn}: go{release} in every mode, and `{}` in every version", own.name);
        let versions = go::RELEASES.into_iter().filter(|other| *other != release).map(|other| (other, own));
        Self::prepare(&MODES.iter().map(|mode| (release, mode)).chain(versions).collect::<Vec<_>>(), tiers)
    }

    fn prepare(cells: &[(&'static str, &'static Mode)], tiers: &[String]) -> Result<Self> {
        let mut toolchains = BTreeMap::new();
        for (release, _) in cells {
            toolchains.entry(*release).or_insert_with(|| go::toolchain(release));
        }
        let described: Vec<Value> = cells
            .iter()
            .map(|(release, mode)| {
                let (go, problem) = match &toolchains[release] {
                    Ok(go) => (Some(go), None),
                    Err(error) => (None, Some(format!("{error:#}"))),
                };
                json!({"release": release, "go": go, "problem": problem, "mode": mode.name, "flags": mode.flags, "cgo": mode.cgo})
            })
            .collect();
        let this = Self { asked: place::target().join("matrix.json"), results: place::target().join("matrix.jsonl") };
        fs::create_dir_all(place::target())?;
        let _ = fs::remove_file(&this.results);
        let asked = json!({"cells": described, "tiers": tiers, "results": this.results, "build_cache": go::build_cache()});
        fs::write(&this.asked, asked.to_string())?;
        Ok(this)
    }

    /// Lets a test command try these cells.
    pub fn name_to(&self, tests: &mut Command) {
        tests.env("LIFETRACE_MATRIX", &self.asked);
    }

    /// Prints what each cell came to, as a table for docs/go.md.
    pub fn report(&self) -> Result<()> {
        let text = fs::read_to_string(&self.results).unwrap_or_default();
        let outcomes: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        if outcomes.is_empty() {
            println!("matrix: no cell was tried");
            return Ok(());
        }
        let releases: Vec<&str> =
            go::RELEASES.into_iter().filter(|release| outcomes.iter().any(|o| o["release"] == *release)).collect();
        println!("| build | {} |", releases.join(" | "));
        println!("| --- |{}", " --- |".repeat(releases.len()));
        for mode in MODES.iter().filter(|mode| outcomes.iter().any(|outcome| outcome["mode"] == mode.name)) {
            let cells = releases.iter().map(|release| {
                let of_cell = outcomes.iter().filter(|o| o["release"] == *release && o["mode"] == mode.name);
                of_cell.map(words).collect::<Vec<_>>().join("; ")
            });
            println!("| {} | {} |", mode.name, cells.collect::<Vec<_>>().join(" | "));
        }
        let failed = outcomes.iter().filter(|outcome| outcome["ok"] != true).count();
        println!("matrix: {} of {} cells hold", outcomes.len() - failed, outcomes.len());
        Ok(())
    }
}

/// A cell: its tier, and the sites of birth / exit / park / abort / wake.
fn words(outcome: &Value) -> String {
    if outcome["ok"] != true {
        return format!("{} FAILED", outcome["tier"].as_str().unwrap_or("?"));
    }
    let hooks =
        ["birth", "exit", "park", "park abort", "wake"].map(|hook| outcome["hooks"][hook].as_u64().unwrap_or(0).to_string());
    format!("{} {}", outcome["tier"].as_str().unwrap_or("?"), hooks.join("/"))
}

/// Another number with each commit.
pub fn turn() -> usize {
    let count = output(Command::new("git").args(["rev-list", "--count", "HEAD"]).current_dir(place::root()));
    count.ok().and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// The release whose entry in the table of offsets is measured again by this run.
pub fn release_of_the_day() -> &'static str {
    go::RELEASES[turn() % go::RELEASES.len()]
}

/// `cargo xtask test --matrix`: every cell, and every release's offsets.
pub fn test(tiers: &[String]) -> Result<()> {
    let lifetrace = setup::lifetrace()?;
    for release in go::RELEASES {
        offsets::check(release, &lifetrace)?;
    }
    let matrix = Matrix::whole(tiers)?;
    let mut tests = Command::new("cargo");
    tests.args(["test", "--quiet", "--package", "lifetrace-tests", "--test", "matrix"]).current_dir(place::root());
    matrix.name_to(&mut tests);
    let tried = run(&mut tests);
    matrix.report().context("the matrix's summary")?;
    tried
}
