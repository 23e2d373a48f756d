//! What `lifetrace leaks --format json` says.

use std::{collections::BTreeSet, path::Path, process::Command};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    deadline::PATIENCE,
    lifetrace,
    process::{Running, run},
    recording::Recording,
};

#[derive(Debug, Deserialize)]
pub struct Leaks {
    pub leaks: Vec<Leak>,
    pub findings: Vec<Value>,
    pub not_watched: BTreeSet<String>,
    pub not_seen: Vec<String>,
    pub expired: Vec<Ignored>,
    pub trust: String,
}

#[derive(Debug, Deserialize)]
pub struct Ignored {
    pub reason: String,
}

#[derive(Debug, Deserialize)]
pub struct Leak {
    pub fingerprint: String,
    pub strength: String,
    pub kind: String,
    pub name: Option<String>,
    pub known: bool,
    pub count: u64,
    pub proven: u64,
    pub created_by: Option<Place>,
    pub starts_at: Option<Place>,
    pub blocked_on: Option<Blocked>,
    pub advice: Option<String>,
    pub because: Option<String>,
    pub born_under: Vec<BornUnder>,
    pub ignored: Option<Ignored>,
    pub stack_bytes: Option<u64>,
    pub weakened_by_loss: bool,
}

#[derive(Debug, Deserialize)]
pub struct Blocked {
    pub reason: String,
    pub objects: Option<u64>,
    pub never_woken: Option<u64>,
    pub object: Option<String>,
    pub stack: Vec<Place>,
}

#[derive(Debug, Deserialize)]
pub struct BornUnder {
    pub name: String,
    pub exact: bool,
    pub count: u64,
}

#[derive(Debug, Deserialize)]
pub struct Place {
    pub function: String,
    pub file: String,
    pub line: u32,
}

impl Leaks {
    /// What is said of a recording, which exits with `code`.
    pub fn of(recording: &Recording, options: &[&str], code: i32) -> Result<Self> {
        let said = recording.ask("leaks", &[options, &["--format", "json"]].concat())?.expect_code(code)?;
        Self::read(&said.stdout)
    }

    /// What is said of a process that is watched for a while.
    pub fn watching(pid: u32, options: &[&str], code: i32) -> Result<Self> {
        let mut command = lifetrace::command();
        command.args(["leaks", "--format", "json", "--pid", &pid.to_string()]).args(options);
        // It watches for a while before it has something to say.
        Self::read(&Running::start(command, None)?.finish_within(PATIENCE * 5)?.expect_code(code)?.stdout)
    }

    /// What a command that judges writes to `path`, when it exits with `code`.
    pub fn written(command: Command, path: &Path, code: i32) -> Result<Self> {
        run(command)?.expect_code(code)?;
        Self::read(&std::fs::read_to_string(path)?)
    }

    fn read(text: &str) -> Result<Self> {
        serde_json::from_str(text).with_context(|| text.to_owned())
    }

    /// Those that are suspected or proven.
    pub fn sure(&self) -> Vec<&Leak> {
        self.leaks.iter().filter(|leak| leak.strength != "watched").collect()
    }

    /// The only one of those.
    pub fn only(&self) -> &Leak {
        let [leak] = self.sure()[..] else { panic!("{self:#?}") };
        leak
    }

    /// The findings of a kind.
    pub fn findings(&self, kind: &str) -> Vec<&Value> {
        self.findings.iter().filter(|finding| finding["kind"] == kind).collect()
    }
}
