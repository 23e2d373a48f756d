//! What a kernel made of it all: read from the lines that the machine sends, kept as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Everything known of one kernel.
#[derive(Default, Serialize, Deserialize)]
pub struct Outcome {
    /// `uname -r`.
    pub release: String,
    /// `lifetrace doctor --programs --json`.
    pub doctor: Value,
    /// Test programs by name.
    pub programs: BTreeMap<String, Tried>,
}

/// What became of a test program.
#[derive(Default, Serialize, Deserialize)]
pub struct Tried {
    /// Its tests by name.
    pub tests: BTreeMap<String, Verdict>,
    /// Whether it came to its end by itself.
    pub ended: bool,
}

/// What became of a test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Passed,
    Failed,
    /// With the reason.
    Skipped(String),
}

/// A line, as far as somebody is told of it while it all runs.
pub enum Said<'a> {
    /// A test program begins.
    Begin,
    /// A test program has ended, with this status.
    End(&'a str, i32),
    /// The machine has done everything.
    Over,
    /// A test of it has.
    Test,
    Other,
}

impl Outcome {
    /// Takes in the next line.
    pub fn take<'a>(&mut self, line: &'a str, current: &mut Option<String>) -> Said<'a> {
        let Some((word, rest)) = line.strip_prefix('@').map(|said| said.split_once(' ').unwrap_or((said, ""))) else {
            if let (Some(program), Some((test, verdict))) = (current.as_ref(), test_line(line)) {
                self.programs.entry(program.clone()).or_default().tests.insert(test.to_owned(), verdict);
                return Said::Test;
            }
            return Said::Other;
        };
        match word {
            "kernel" => rest.clone_into(&mut self.release),
            "doctor" => self.doctor = serde_json::from_str(rest).unwrap_or_default(),
            "begin" => {
                *current = Some(rest.to_owned());
                self.programs.insert(rest.to_owned(), Tried::default());
                return Said::Begin;
            }
            "skip" => self.skipped(current.as_deref(), rest),
            "end" => {
                let (program, code) = rest.rsplit_once(' ').unwrap_or((rest, "-1"));
                let code = code.parse().unwrap_or(-1);
                // 0 and 101 are how test programs end by themselves.
                self.programs.entry(program.to_owned()).or_default().ended = matches!(code, 0 | 101);
                *current = None;
                return Said::End(program, code);
            }
            "over" => return Said::Over,
            _ => (),
        }
        Said::Other
    }

    fn skipped(&mut self, program: Option<&str>, line: &str) {
        let Ok(skip) = serde_json::from_str::<Value>(line) else { return };
        let (Some(program), Some(test), Some(reason)) = (program, skip["test"].as_str(), skip["reason"].as_str()) else { return };
        let tests = &mut self.programs.entry(program.to_owned()).or_default().tests;
        tests.insert(test.to_owned(), Verdict::Skipped(reason.to_owned()));
    }

    /// What is not as it should be, one line each.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for (program, tried) in &self.programs {
            let failed = tried.tests.iter().filter(|(_, verdict)| **verdict == Verdict::Failed);
            failures.extend(failed.map(|(test, _)| format!("{program}: {test}")));
            if !tried.ended {
                failures.push(format!("{program}: did not come to its end"));
            }
        }
        failures
    }

    /// Tests that passed, failed, and were skipped.
    pub fn counts<'a>(programs: impl Iterator<Item = &'a Tried>) -> [usize; 3] {
        let mut counts = [0; 3];
        for verdict in programs.flat_map(|tried| tried.tests.values()) {
            counts[match verdict {
                Verdict::Passed => 0,
                Verdict::Failed => 1,
                Verdict::Skipped(_) => 2,
            }] += 1;
        }
        counts
    }
}

/// `test NAME ... ok`, as Rust's test harness says it.
fn test_line(line: &str) -> Option<(&str, Verdict)> {
    let (test, word) = line.strip_prefix("test ")?.split_once(" ... ")?;
    match word.trim() {
        "ok" => Some((test, Verdict::Passed)),
        "FAILED" => Some((test, Verdict::Failed)),
        word if word.starts_with("ignored") => Some((test, Verdict::Skipped(word.to_owned()))),
        // Cut off in the middle of it.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that passes, failures, skips and a program that was killed are told apart.
    #[test]
    fn lines() {
        let mut outcome = Outcome::default();
        let mut current = None;
        for line in [
            "@kernel 6.1.0-56-cloud-amd64",
            "@begin births",
            "test every_birth ... ok",
            "test every_exit ... FAILED",
            "test under_sudo ... ok",
            "@skip {\"test\":\"under_sudo\",\"reason\":\"no sudo command\"}",
            "@end births 101",
            "@begin parks",
            "test long ... ",
            "@end parks 137",
        ] {
            outcome.take(line, &mut current);
        }
        assert_eq!(outcome.release, "6.1.0-56-cloud-amd64");
        assert_eq!(Outcome::counts(outcome.programs.values()), [1, 1, 1]);
        assert_eq!(outcome.failures(), ["births: every_exit", "parks: did not come to its end"]);
    }
}
