//! Lives of processes as reports and timelines tell them.

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::recording::Recording;

/// `lifetrace report --format json`, as far as it is about processes.
#[derive(Clone, Debug, Deserialize)]
pub struct Lives {
    pub lost: Lost,
    pub processes: Vec<Life>,
    pub cgroups: Vec<Cgroup>,
    pub findings: Vec<Finding>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Lost {
    pub events: u64,
    #[serde(default)]
    pub by_kind: std::collections::BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Life {
    pub tgid: u32,
    pub parent: Option<u32>,
    pub exe: Option<String>,
    pub started_at_ns: Option<u64>,
    pub exited_at_ns: Option<u64>,
    pub exit_code: Option<u32>,
    pub signal: Option<u32>,
    pub core_dumped: Option<bool>,
    pub zombie_ns: Option<u64>,
    pub reaped_at_ns: Option<u64>,
    pub reaped_by: Option<u32>,
    pub reaper_seen: Option<bool>,
    pub autoreaped: bool,
    pub adopted_by: Option<u32>,
    pub oom_killed: bool,
    pub stopped_ns: u64,
    pub programs: Vec<Program>,
    pub container_id: Option<String>,
    pub runtime: Option<String>,
    pub pod_uid: Option<String>,
    pub cgroup: Option<String>,
    pub throttled_ns: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Program {
    pub exe: Option<String>,
    pub argv: Vec<String>,
    pub by_tid: Option<u32>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Cgroup {
    pub memory_path: Option<String>,
    pub limit_bytes: Option<u64>,
    pub limit_hits: Option<u64>,
    pub oom_kills: Option<u64>,
    pub cpu_path: Option<String>,
    pub quota_ns: Option<u64>,
    pub throttled_ns: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Finding {
    pub kind: String,
    pub tgid: u32,
    pub evidence: serde_json::Value,
}

/// A line of a process's timeline.
#[derive(Clone, Debug, Deserialize)]
pub struct Row {
    pub tgid: u32,
    pub state: String,
    pub start_ns: u64,
    pub end_ns: u64,
    pub event: Option<String>,
    pub by: Option<String>,
    pub to: Option<String>,
    pub signal: Option<u32>,
    pub result: Option<String>,
    pub cgroup: Option<String>,
    pub throttled_ns: Option<u64>,
}

impl Lives {
    pub fn of(recording: &Recording) -> Result<Self> {
        serde_json::from_str(&recording.answer("report", &["--format", "json"])?).context("a report of another shape")
    }

    /// The one process of this number.
    #[must_use]
    pub fn process(&self, tgid: u32) -> &Life {
        let found: Vec<&Life> = self.processes.iter().filter(|life| life.tgid == tgid).collect();
        assert_eq!(found.len(), 1, "process {tgid}: {found:?}");
        found[0]
    }

    /// Those that are zombies when the recording ends.
    #[must_use]
    pub fn zombies(&self) -> Vec<u32> {
        let zombies = self.processes.iter().filter(|life| life.zombie_ns.is_some() && life.reaped_at_ns.is_none());
        zombies.map(|life| life.tgid).collect()
    }
}

/// The rows of processes: of one, or of all.
pub fn rows(recording: &Recording, id: Option<&str>) -> Result<Vec<Row>> {
    let mut args = vec!["--format", "jsonl"];
    args.extend(id.iter().flat_map(|id| ["--id", id]));
    let lines = recording.answer("timeline", &args)?;
    let of_processes = lines.lines().filter(|line| line.contains("\"id\":\"pid:"));
    of_processes.map(|line| serde_json::from_str(line).with_context(|| format!("a row of another shape: {line}"))).collect()
}
