//! What deploy/ holds for the agent, as tests compare it with what the agent does.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

use crate::{fixture, process, program};

/// Reads manifests, and has the schemas of Kubernetes.
pub const VALIDATOR: &str = "kubernetes/bin/kubernetes_validate/__main__.py";
/// The rights of the agent as `CapEff` shows them: CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_PERFMON, CAP_BPF of linux/capability.h.
pub const RIGHTS: u64 = 1 << 2 | 1 << 19 | 1 << 38 | 1 << 39;

/// A file of deploy/.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    fixture::workspace_root().join("deploy").join(name)
}

/// An object of Kubernetes, as a file has it.
#[derive(Deserialize)]
pub struct Manifest {
    pub file: PathBuf,
    pub object: Value,
    /// What is wrong with it.
    pub problem: Option<String>,
}

/// Reads and checks manifests.
pub fn manifests(files: &[PathBuf]) -> Result<Vec<Manifest>> {
    let mut python = Command::new("python3");
    python.arg(fixture::workspace_root().join("tests/python/manifests.py")).args(files);
    python.env("PYTHONPATH", program::fetched("kubernetes/bin"));
    serde_json::from_str(&process::run(python)?.expect_code(0)?.stdout).context("what the script says")
}

/// The agent's container in the DaemonSet.
pub fn container() -> Result<Value> {
    let [set] = &manifests(&[path("kubernetes/daemonset.yaml")])?[..] else { bail!("one object is enough") };
    let [container] = &set.object["spec"]["template"]["spec"]["containers"].as_array().context("no containers")?[..] else {
        bail!("one container is enough")
    };
    Ok(container.clone())
}

/// What the unit of systemd says of a key, by line.
pub fn of_unit(key: &str) -> Result<Vec<String>> {
    let unit = fs::read_to_string(path("systemd/lifetrace-agent.service"))?;
    let of_key = |line: &str| line.strip_prefix(key)?.strip_prefix('=').map(str::to_owned);
    Ok(unit.lines().filter_map(of_key).collect())
}
