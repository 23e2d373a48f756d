//! A recording, and what lifetrace's own commands say about it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::Deserialize;
use tempfile::TempDir;

use crate::{
    lifetrace,
    process::{self, Finished},
    report::Report,
};

/// A recording's file; one made in a directory of its own goes with it.
pub struct Recording {
    path: PathBuf,
    _dir: Option<TempDir>,
}

/// A line of `timeline --format jsonl`.
#[derive(Clone, Debug, Deserialize)]
pub struct Span {
    pub id: String,
    pub tgid: u32,
    pub state: String,
    pub start_ns: u64,
    pub end_ns: Option<u64>,
    pub reason: Option<String>,
    #[serde(default)]
    pub stack: Option<Vec<Frame>>,
    pub woken_by: Option<String>,
    /// Of a unit of work: what it is called, and whether it may have ended before.
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub at_most: bool,
    /// What it waited for.
    #[serde(default)]
    pub object: Option<String>,
    /// Of a thread: who made it, as an id.
    #[serde(default)]
    pub created_by: Option<String>,
    /// What a snapshot saw on it by then.
    #[serde(default)]
    pub labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub trace_id: Option<String>,
    #[serde(default)]
    pub span_id: Option<String>,
    /// Of `lost`: whose events are missing.
    #[serde(default)]
    pub cpus: Vec<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Frame {
    pub function: String,
    pub file: String,
    pub line: u32,
    /// The kernel's.
    #[serde(default)]
    pub kernel: bool,
}

impl Recording {
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), _dir: None }
    }

    #[must_use]
    pub fn in_dir(dir: TempDir) -> Self {
        Self { path: dir.path().join("test.lifetrace"), _dir: Some(dir) }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `lifetrace SUBCOMMAND REC ARGS…`.
    pub fn ask(&self, subcommand: &str, args: &[&str]) -> Result<Finished> {
        let mut command = lifetrace::command();
        command.arg(subcommand).arg(&self.path).args(args);
        process::run(command)
    }

    /// As [`Self::ask`], where the answer must be good.
    pub fn answer(&self, subcommand: &str, args: &[&str]) -> Result<String> {
        Ok(self.ask(subcommand, args)?.expect_code(0)?.stdout)
    }

    /// How many blocks of a kind it holds (docs/recording.md).
    pub fn blocks(&self, kind: u8) -> Result<usize> {
        const HEADER: usize = 20;
        // One that is not there yet holds none.
        let bytes = std::fs::read(&self.path).unwrap_or_default();
        let (mut at, mut count) = (16, 0);
        while let Some(header) = bytes.get(at..at + HEADER) {
            count += usize::from(header[4] == kind);
            at += HEADER + u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
        }
        Ok(count)
    }

    pub fn report(&self) -> Result<Report> {
        self.report_of(&[])
    }

    /// The report with further arguments.
    pub fn report_of(&self, args: &[&str]) -> Result<Report> {
        let text = self.answer("report", &[&["--format", "json"], args].concat())?;
        serde_json::from_str(&text).context("report --format json")
    }

    /// All spans, or those of one id.
    pub fn timeline(&self, id: Option<&str>) -> Result<Vec<Span>> {
        self.timeline_of(&id.iter().flat_map(|id| ["--id", id]).collect::<Vec<_>>())
    }

    /// The timeline with further arguments.
    pub fn timeline_of(&self, args: &[&str]) -> Result<Vec<Span>> {
        let text = self.answer("timeline", &[&["--format", "jsonl"], args].concat())?;
        text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("timeline line {line}"))).collect()
    }
}
