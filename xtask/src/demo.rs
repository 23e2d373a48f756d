//! `cargo xtask demo`: from a fresh checkout to the timelines and flamegraphs of a real Go program.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    place, setup,
    shell::{output, run},
};

pub fn demo() -> Result<()> {
    if !setup::is_root() {
        bail!("the demo sets real probes: run it as root (`sudo -E cargo xtask demo`)");
    }
    let dir = place::target().join("demo");
    let orders = dir.join("orders");
    let recording = dir.join("orders.lifetrace");
    let (flamegraph, page) = (dir.join("alive.svg"), dir.join("orders.html"));
    setup::go_program(&place::root().join("examples/orders"), &orders)?;
    let lifetrace = setup::lifetrace()?;

    step("an order service that leaks: closures handed to time.AfterFunc wait on a channel nobody reads");
    show(Command::new(&lifetrace).arg("run").arg("-o").arg(&recording).arg("--").arg(&orders).args([
        "-leak",
        "afterfunc",
        "-n",
        "1000",
    ]))?;

    step("what lived, by creation site");
    show(Command::new(&lifetrace).arg("report").arg(&recording))?;

    step("one of those that are still alive");
    let id = a_leaked_goroutine(&lifetrace, &recording)?;
    show(Command::new(&lifetrace).arg("timeline").arg(&recording).args(["--id", &id]))?;

    step("who is alive at the end, as a flamegraph");
    show(Command::new(&lifetrace).arg("flame").arg(&recording).args(["--by", "alive", "-o"]).arg(&flamegraph))?;
    println!("{}", flamegraph.display());

    step("all of it in one page, with a timeline to look around in");
    show(Command::new(&lifetrace).arg("report").arg(&recording).args(["--format", "html", "-o"]).arg(&page))?;
    println!("{}", page.display());
    Ok(())
}

fn step(what: &str) {
    println!("\n# {what}");
}

/// Shows the command as a person would type it, then runs it.
fn show(command: &mut Command) -> Result<()> {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| {
            Path::new(word)
                .strip_prefix(place::root())
                .map_or(word.to_string_lossy(), |short| short.to_string_lossy().into_owned().into())
        })
        .collect();
    println!("$ {}\n", words.join(" "));
    run(command)
}

/// The id of a goroutine that blocked last and never woke, out of the timeline.
fn a_leaked_goroutine(lifetrace: &Path, recording: &Path) -> Result<String> {
    let timeline = output(Command::new(lifetrace).arg("timeline").arg(recording).args(["--format", "jsonl"]))?;
    let mut candidate = None;
    for line in timeline.lines() {
        let span: Value = serde_json::from_str(line).context("a line of the timeline")?;
        let in_orders = span["stack"].as_array().is_some_and(|stack| {
            stack.iter().any(|frame| frame["function"].as_str().is_some_and(|name| name.starts_with("main.")))
        });
        if span["state"] == "blocked" && span["woken_by"].is_null() && in_orders && span["id"] != "go:1" {
            candidate = span["id"].as_str().map(str::to_owned).or(candidate);
        }
    }
    candidate.context("no goroutine was left blocked")
}
