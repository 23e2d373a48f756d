//! The tables of docs/performance.md: made of the rows that were measured last, which docs/performance.json keeps.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use crate::place;

const BEGIN: &str = "<!-- rows, written by `cargo xtask bench`: begin -->";
const END: &str = "<!-- rows: end -->";

/// Rows of one kind.
pub struct Section {
    pub name: &'static str,
    title: &'static str,
    /// What is said of it: what is measured, in which unit.
    says: &'static str,
    /// Where a value stands in a row (`peers.bpftrace`), and what its column is called.
    columns: &'static [(&'static str, &'static str)],
}

pub const BEATS: Section = Section {
    name: "beats",
    title: "What one event adds",
    says: "The program alone, with an empty probe on the same instructions (the floor: what the trap alone costs), traced, and under the peers, in turn; \
           `added` is on top of the program alone. GOMAXPROCS=1. bpftrace counts by stack at function entry; runtime/trace writes to a file.",
    columns: &[
        ("row", "row"),
        ("unit", "unit"),
        ("baseline", "alone"),
        ("floor", "empty probes added"),
        ("ours", "lifetrace added"),
        ("ours_tenfold", "ten times as many"),
        ("ratio", "ours / floor"),
        ("hits", "hits"),
        ("peers.bpftrace", "bpftrace added"),
        ("peers.runtime/trace", "runtime/trace added"),
        ("spread", "spread of ours"),
    ],
};

pub const PRICE: Section = Section {
    name: "price",
    title: "The price that the agent tells",
    says: "CPU time of one beat of the same programs, alone and followed by `lifetrace agent`, in turn; what it takes more, and what \
           `lifetrace_probe_cost_seconds_total` says that it does.",
    columns: &[
        ("row", "row"),
        ("unit", "unit"),
        ("baseline", "alone"),
        ("measured", "measured"),
        ("told", "told"),
        ("ratio", "told / measured"),
        ("spread", "spread"),
        ("rounds", "rounds"),
    ],
};

pub const SERVER: Section = Section {
    name: "server",
    title: "An HTTP server",
    says: "net/http, JSON, a mutex, a pipeline of goroutines and channels behind each request (xtask/bench/shop). Ratios are medians of the rounds' own, to untraced in the \
           same round; the spreads are of the ratios of throughput and of p99. At full load wrk asks as fast as answers come, on the same CPUs; at a tenth of it each question has its time.",
    columns: &[
        ("row", "row"),
        ("mode", "followed"),
        ("a_second", "requests/s"),
        ("p99_ns", "p99, ns"),
        ("cpu_ns", "CPU ns a request"),
        ("throughput", "throughput / untraced"),
        ("p99", "p99 / untraced"),
        ("cpu", "CPU / untraced"),
        ("spread", "spread"),
        ("p99_spread", "of p99"),
        ("rounds", "rounds"),
    ],
};

pub const INGEST: Section = Section {
    name: "ingest",
    title: "Ingest",
    says: "Records that the kernel makes on one or two CPUs, at a rate, drained and handed on to be compressed and written as the recorder does. CPU time of lifetrace \
           alone: the drain, the compression, the file.",
    columns: &[
        ("row", "producers, wanted"),
        ("a_second", "events/s read"),
        ("lost", "lost"),
        ("cpu_ns", "CPU ns an event"),
        ("drain_ns", "of that in the drain, wall ns"),
        ("made_ns", "CPU ns to make one"),
    ],
};

pub const SIZES: Section = Section {
    name: "sizes",
    title: "Memory, attaching, recordings, replay",
    says: "Beside what Go's own tools take for the same, where they do the same.",
    columns: &[
        ("row", "row"),
        ("unit", "unit"),
        ("ours", "ours"),
        ("aim", "aim"),
        ("peer", "peer"),
        ("of", "peer is"),
        ("note", "note"),
    ],
};

pub const MAKING: Section = Section {
    name: "making",
    title: "What is made of recordings of many goroutines",
    says: "Of recordings that are made up (events of goroutines at random, marks, looks at all of them): the whole command, medians.",
    columns: &[
        ("row", "row"),
        ("ours", "s"),
        ("aim", "aim, s"),
        ("cpu", "CPU s"),
        ("mib", "most memory, MiB"),
        ("aim_mib", "aim, MiB"),
        ("made_bytes", "bytes made"),
        ("aim_bytes", "aim, bytes"),
        ("bytes_an_event", "bytes of recording an event"),
        ("spread", "spread"),
    ],
};

pub const THREADS: Section = Section {
    name: "threads",
    title: "Threads",
    says: "A byte handed to and fro between two processes on one CPU: ns a context switch, alone and followed, in turn.",
    columns: &[("row", "row"), ("ours", "ns a switch"), ("ratio", "/ alone"), ("spread", "spread"), ("note", "note")],
};

const SECTIONS: [&Section; 7] = [&BEATS, &PRICE, &SERVER, &INGEST, &SIZES, &MAKING, &THREADS];

type Kept = BTreeMap<String, BTreeMap<String, Value>>;

fn kept_path() -> PathBuf {
    place::root().join("docs/performance.json")
}

fn kept() -> Result<Kept> {
    let path = kept_path();
    if !path.exists() {
        return Ok(Kept::new());
    }
    serde_json::from_str(&fs::read_to_string(&path)?).with_context(|| path.display().to_string())
}

/// Prints a row, and keeps it in place of the one that was measured before.
pub fn tell(section: &Section, row: &impl Serialize) -> Result<()> {
    let row = serde_json::to_value(row)?;
    println!("{row}");
    let key = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut kept = kept()?;
    kept.entry(section.name.to_owned()).or_default().insert(format!("{}\t{}", key("row"), key("mode")), row.clone());
    fs::write(kept_path(), format!("{}\n", serde_json::to_string_pretty(&kept)?))?;
    write(&kept)
}

/// Writes the tables anew.
fn write(kept: &Kept) -> Result<()> {
    let path = place::root().join("docs/performance.md");
    let page = fs::read_to_string(&path)?;
    let (before, rest) = page.split_once(BEGIN).context("docs/performance.md has no place for rows")?;
    let (_, after) = rest.split_once(END).context("docs/performance.md has no end of rows")?;
    let tables: Vec<String> = SECTIONS.iter().filter_map(|section| Some(table(section, kept.get(section.name)?))).collect();
    fs::write(&path, format!("{before}{BEGIN}\n{}{END}{after}", tables.concat()))?;
    Ok(())
}

fn table(section: &Section, rows: &BTreeMap<String, Value>) -> String {
    let at = |row: &Value, path: &str| path.split('.').try_fold(row.clone(), |value, name| value.get(name).cloned());
    let columns: Vec<_> = section.columns.iter().filter(|(path, _)| rows.values().any(|row| at(row, path).is_some())).collect();
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = format!("## {}\n{}\n\n", section.title, section.says);
    text += &line(columns.iter().map(|(_, title)| (*title).to_owned()).collect());
    text += &line(columns.iter().map(|_| "---".to_owned()).collect());
    for row in rows.values() {
        text += &line(columns.iter().map(|(path, _)| at(row, path).map_or(String::new(), |value| cell(path, &value))).collect());
    }
    text + "\n"
}

fn cell(path: &str, value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or(f64::NAN);
            match () {
                () if path.ends_with("spread") => format!("{:.0} %", number * 100.0),
                () if number.abs() >= 100.0 || number.fract() == 0.0 => thousands(number),
                () if number.abs() >= 10.0 => format!("{number:.1}"),
                () => format!("{number:.3}"),
            }
        }
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn thousands(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let grouped: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    format!("{}{}", if number < 0.0 { "-" } else { "" }, grouped.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a table has the columns that any row fills, nested ones too.
    #[test]
    fn tables() {
        let row: Value =
            serde_json::json!({"row": "life", "ours": 1234.5, "ratio": 1.234, "spread": 0.07, "peers": {"bpftrace": 12.34}});
        let table = table(&BEATS, &BTreeMap::from([("life".to_owned(), row)]));
        let lines: Vec<&str> = table.trim_end().lines().skip(3).collect();
        assert_eq!(
            lines,
            [
                "| row | lifetrace added | ours / floor | bpftrace added | spread of ours |",
                "| --- | --- | --- | --- | --- |",
                "| life | 1,234 | 1.234 | 12.3 | 7 % |",
            ]
        );
    }
}
