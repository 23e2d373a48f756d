//! `docs/kernels.md`, made of what every kernel came to; the facts behind it are `docs/kernels.json`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::PathBuf,
};

use anyhow::{Context, Result};
use serde_json::Value;

use super::outcome::{Outcome, Tried, Verdict};
use crate::place;

const BEGINNING: &str = "# Kernels\n\
    `cargo xtask vm --all` boots these Debian kernels in qemu, runs the end-to-end tests on each, and writes this page; `cargo xtask vm --kernel NAME` renews \
    one column.\n\
    `host` is the kernel of the machine that it ran on, without emulation. What is behind the page stands in kernels.json.\n";

/// By the name of the kernel.
type Outcomes = BTreeMap<String, Outcome>;

fn facts() -> PathBuf {
    place::root().join("docs/kernels.json")
}

/// Puts the outcome of a kernel in the place of an older one, or the test programs of one that ran a `part` of them in the place of theirs,
/// and writes the page.
pub fn renew(name: &str, outcome: Outcome, part: bool) -> Result<()> {
    let text = fs::read_to_string(facts()).unwrap_or_else(|_| "{}".to_owned());
    let mut all: Outcomes = serde_json::from_str(&text).with_context(|| facts().display().to_string())?;
    match all.get_mut(name) {
        Some(older) if part && older.release == outcome.release => {
            older.doctor = outcome.doctor;
            older.programs.extend(outcome.programs);
        }
        _ => drop(all.insert(name.to_owned(), outcome)),
    }
    fs::write(facts(), serde_json::to_string_pretty(&all)? + "\n")?;
    let page = place::root().join("docs/kernels.md");
    fs::write(&page, render(&all))?;
    println!("{}", page.display());
    Ok(())
}

/// The page.
fn render(all: &Outcomes) -> String {
    let mut kernels: Vec<(&str, &Outcome)> = all.iter().map(|(name, outcome)| (name.as_str(), outcome)).collect();
    kernels.sort_by_key(|(_, outcome)| version(&outcome.release));
    let page = Page { kernels };
    let mut text = BEGINNING.to_owned();
    page.table(&mut text, "What they have", &page.names(|outcome| &outcome.doctor["checks"], "name"), |outcome, check| {
        let found = entry(&outcome.doctor["checks"], "name", check)?;
        Some(
            if found["ok"] == true {
                "yes"
            } else if found["required"] == true {
                "**no: lifetrace refuses to run**"
            } else {
                "no"
            }
            .to_owned(),
        )
    });
    page.table(&mut text, "Where a fact comes from", &page.names(|outcome| &outcome.doctor["facts"], "fact"), |outcome, fact| {
        let found = entry(&outcome.doctor["facts"], "fact", fact)?;
        let (through, by) = (found["through"].as_str().unwrap_or_default(), found["by"].as_str().unwrap_or_default());
        let by = if through == "fallback" { by.to_owned() } else { format!("`{by}`") };
        Some(if by.len() <= 2 { through.to_owned() } else { format!("{through}: {by}") })
    });
    let programs = page.names(|outcome| &outcome.doctor["programs"], "name");
    page.table(&mut text, "BPF programs: instructions that the verifier went through", &programs, |outcome, name| {
        let found = entry(&outcome.doctor["programs"], "name", name)?;
        if found["hook_missing"] == true {
            return Some("no such hook".to_owned());
        }
        Some(match (&found["refused"], &found["instructions"]) {
            (Value::String(_), _) => "refused".to_owned(),
            (_, Value::Number(count)) => count.to_string(),
            _ => "loaded".to_owned(),
        })
    });
    let tests: BTreeSet<String> = page.kernels.iter().flat_map(|(_, outcome)| outcome.programs.keys().cloned()).collect();
    page.table(&mut text, "Scenarios: passed, by test program", &tests.into_iter().collect::<Vec<_>>(), |outcome, program| {
        outcome.programs.get(program).map(counts)
    });
    page.exceptions(&mut text);
    text
}

struct Page<'a> {
    kernels: Vec<(&'a str, &'a Outcome)>,
}

impl Page<'_> {
    /// What a list of every kernel's names, in the order of the first that names it.
    fn names<'a>(&'a self, list: impl Fn(&'a Outcome) -> &'a Value, key: &str) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for (_, outcome) in &self.kernels {
            for name in list(outcome).as_array().into_iter().flatten().filter_map(|entry| entry[key].as_str()) {
                if !names.iter().any(|known| known == name) {
                    names.push(name.to_owned());
                }
            }
        }
        names
    }

    fn table(&self, text: &mut String, title: &str, rows: &[String], cell: impl Fn(&Outcome, &str) -> Option<String>) {
        if rows.is_empty() {
            return;
        }
        let heads = self.kernels.iter().map(|(name, outcome)| head(name, &outcome.release));
        let _ = writeln!(text, "\n## {title}\n| | {} |", heads.collect::<Vec<_>>().join(" | "));
        let _ = writeln!(text, "| --- |{}", " --- |".repeat(self.kernels.len()));
        for row in rows {
            let cells = self.kernels.iter().map(|(_, outcome)| cell(outcome, row).unwrap_or_else(|| "–".to_owned()));
            let _ = writeln!(text, "| {row} | {} |", cells.collect::<Vec<_>>().join(" | "));
        }
    }

    /// Every failure and every skip, by kernel.
    fn exceptions(&self, text: &mut String) {
        for (name, outcome) in &self.kernels {
            let mut lines = refusals(outcome);
            for (program, tried) in &outcome.programs {
                if !tried.ended {
                    lines.push(format!("- `{program}`: did not come to its end"));
                }
                lines.extend(tried.tests.iter().filter_map(|(test, verdict)| match verdict {
                    Verdict::Passed => None,
                    Verdict::Failed => Some(format!("- `{program}::{test}`: **failed**")),
                    Verdict::Skipped(reason) => Some(format!("- `{program}::{test}`: skipped, {reason}")),
                }));
            }
            if !lines.is_empty() {
                let _ = writeln!(text, "\n### {}: what did not pass\n{}", head(name, &outcome.release), lines.join("\n"));
            }
        }
    }
}

/// What the verifier says against programs, once each.
fn refusals(outcome: &Outcome) -> Vec<String> {
    let mut by_reason: BTreeMap<&str, usize> = BTreeMap::new();
    let programs = outcome.doctor["programs"].as_array().into_iter().flatten();
    programs.filter_map(|program| program["refused"].as_str()).for_each(|reason| *by_reason.entry(reason).or_default() += 1);
    by_reason.into_iter().map(|(reason, count)| format!("- {count} BPF programs refused: `{reason}`")).collect()
}

/// `6.1.0-56-cloud-amd64`, and that it is the host's.
fn head(name: &str, release: &str) -> String {
    let host = if name == "host" { " (host)" } else { "" };
    format!("{release}{host}")
}

fn entry<'a>(list: &'a Value, key: &str, name: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|entry| entry[key] == name)
}

fn counts(tried: &Tried) -> String {
    let [passed, failed, skipped] = Outcome::counts([tried].into_iter());
    let mut text = passed.to_string();
    for (count, word) in [(failed, "failed"), (skipped, "skipped")].into_iter().filter(|(count, _)| *count > 0) {
        let _ = write!(text, ", {count} {word}");
    }
    if !tried.ended {
        text.push_str(", cut off");
    }
    text
}

/// To sort by: 6.12 comes after 6.1.
fn version(release: &str) -> Vec<u32> {
    release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that kernels stand in the order of their versions, that gaps are gaps, and that what failed is named.
    #[test]
    fn page() {
        let outcome = |release: &str, programs: Value| Outcome {
            release: release.to_owned(),
            doctor: serde_json::json!({ "checks": [{"name": "BTF", "ok": true, "required": true}], "programs": programs }),
            programs: [("births".to_owned(), Tried { tests: [("all".to_owned(), Verdict::Failed)].into(), ended: true })].into(),
        };
        let programs = serde_json::json!([{"name": "go_ready", "kind": "uprobe", "instructions": 411, "refused": null}]);
        let all: Outcomes = [
            ("6.12".to_owned(), outcome("6.12.95+deb12-cloud-amd64", programs)),
            ("6.1".to_owned(), outcome("6.1.0-56-cloud-amd64", Value::Null)),
        ]
        .into();
        let page = render(&all);
        assert!(page.contains("| | 6.1.0-56-cloud-amd64 | 6.12.95+deb12-cloud-amd64 |"), "{page}");
        assert!(page.contains("| BTF | yes | yes |") && page.contains("| go_ready | – | 411 |"), "{page}");
        assert!(page.contains("| births | 0, 1 failed | 0, 1 failed |") && page.contains("`births::all`: **failed**"), "{page}");
    }
}
