//! `cargo xtask offsets`: the table of runtime offsets, out of the toolchains themselves.
//!
//! Each toolchain builds a small program, and lifetrace reads its debug information, as it does with any binary that has some.
//! What it read, beside the words for the wait reasons, is what binaries without debug information are then traced by.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{go, place, setup, shell::run};

/// What is measured besides [`go::RELEASES`]: their toolchains are thrown away again.
const FURTHER: [&str; 18] = [
    "1.19.8", "1.23.1", "1.23.2", "1.24.3", "1.25.0", "1.25.1", "1.25.2", "1.25.3", "1.25.4", "1.26.0", "1.26.1", "1.26.2",
    "1.26.3", "1.26.4", "1.26.5", "1.27.0", "1.27.1", "1.27.2",
];

/// Uses every structure that is looked for, coroutines where there are some.
const PROGRAM: &str = "package main\n\nfunc main() {\n\tc := make(chan int)\n\tgo func() { c <- 1 }()\n\tprintln(<-c)\n}\n";

/// Measures every release and writes the table.
pub fn generate() -> Result<()> {
    let lifetrace = setup::lifetrace()?;
    let mut entries: Vec<Value> = Vec::new();
    for release in releases() {
        let kept = go::RELEASES.contains(&release.as_str());
        let entry = measure(&release, &lifetrace)?;
        if !kept {
            go::forget(&release)?;
        }
        println!("go{release}: {} wait reasons", entry["wait_reasons"].as_array().map_or(0, Vec::len));
        match entries.last_mut().filter(|last| same(last, &entry)) {
            Some(last) => last["releases"].as_array_mut().context("a list")?.push(release.into()),
            None => entries.push(entry),
        }
    }
    fs::write(path(), text(&entries)?)?;
    println!("{} entries in {}", entries.len(), path().display());
    Ok(())
}

/// Measures one release again and compares it with the table.
pub fn check(release: &str, lifetrace: &Path) -> Result<()> {
    let table: Vec<Value> = serde_json::from_str(&fs::read_to_string(path())?)?;
    let entry = measure(release, lifetrace)?;
    let names = |known: &&Value| known["releases"].as_array().is_some_and(|all| all.iter().any(|name| name == release));
    let known = table.iter().find(names).with_context(|| format!("the table has no go{release}: `cargo xtask offsets`"))?;
    ensure!(same(known, &entry), "the table is wrong about go{release}; it should be {entry:#}: `cargo xtask offsets`");
    println!("the table is right about go{release}");
    Ok(())
}

/// Oldest first.
fn releases() -> Vec<String> {
    let mut all: Vec<&str> = go::RELEASES.into_iter().chain(FURTHER).collect();
    all.sort_by_key(|release| release.split('.').map(|part| part.parse::<u32>().unwrap_or(0)).collect::<Vec<_>>());
    all.into_iter().map(str::to_owned).collect()
}

fn path() -> PathBuf {
    place::root().join("tracer-user/src/golang/offsets/table.json")
}

fn same(one: &Value, other: &Value) -> bool {
    ["minor", "offsets", "wait_reasons"].iter().all(|field| one[field] == other[field])
}

/// Builds the program by this release and asks lifetrace what its debug information says.
fn measure(release: &str, lifetrace: &Path) -> Result<Value> {
    let go = go::toolchain(release)?;
    let dir = place::target().join("offsets");
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("main.go"), PROGRAM)?;
    fs::write(dir.join("go.mod"), "module example.com/offsets\n\ngo 1.19\n")?;
    let program = dir.join(format!("go{release}"));
    let mut build = Command::new(&go);
    go::local(&mut build).args(["build", "-o"]).arg(&program).arg(".").current_dir(&dir);
    run(build.env("GOCACHE", go::build_cache()).env("CGO_ENABLED", "0").env("GOAMD64", "v1").env("GOWORK", "off"))?;
    entry_of(&program, release, lifetrace)
}

fn entry_of(program: &Path, release: &str, lifetrace: &Path) -> Result<Value> {
    let asked = Command::new(lifetrace).args(["doctor", "--json", "--exe"]).arg(program).output()?;
    let said: Value = serde_json::from_slice(&asked.stdout).context("what doctor says is no JSON")?;
    let target = &said["target"];
    ensure!(target["go_version"] == format!("go{release}"), "this is no go{release} but {}", target["go_version"]);
    ensure!(target["offsets_source"]["source"] == "dwarf", "go{release}: offsets from {}", target["offsets_source"]);
    let minor = go::minor_of(release).context("a release has a minor number")?;
    let (offsets, reasons) = (&target["offset_values"], &target["wait_reasons"]);
    Ok(json!({"minor": minor, "releases": [release], "offsets": offsets, "wait_reasons": reasons}))
}

/// One line for each part of an entry: a change of the table is then a readable difference.
fn text(entries: &[Value]) -> Result<String> {
    let mut text = String::from("[\n");
    for (index, entry) in entries.iter().enumerate() {
        let parts = ["minor", "releases", "offsets", "wait_reasons"].map(|field| format!("\"{field}\": {}", entry[field]));
        text.push_str(&format!("{{\n{}\n}}", parts.join(",\n")));
        text.push_str(if index + 1 < entries.len() { ",\n" } else { "\n" });
    }
    text.push_str("]\n");
    serde_json::from_str::<Value>(&text).context("what was generated is no JSON")?;
    Ok(text)
}
