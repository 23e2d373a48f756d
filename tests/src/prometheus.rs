//! A real Prometheus, which scrapes an agent and is asked.

use std::{fs, net::TcpListener, path::Path, process::Command};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    agent,
    deadline::{PATIENCE, wait_for},
    process::Running,
};

/// A server under way.
pub struct Prometheus {
    _running: Running,
    address: String,
}

impl Prometheus {
    /// Starts one that scrapes `target` every second and keeps what it needs in `dir`.
    pub fn scraping(server: &Path, dir: &Path, target: &str, args: &[&str]) -> Result<Self> {
        let file = dir.join("prometheus.yml");
        let text = format!(
            "global:\n  scrape_interval: 1s\nscrape_configs:\n  - job_name: lifetrace\n    static_configs:\n      - targets: [\"{target}\"]\n"
        );
        fs::write(&file, text)?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let mut command = Command::new(server);
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()));
        command.arg(format!("--web.listen-address={address}")).args(args);
        let running = Running::start(command, None)?;
        wait_for("Prometheus to answer", PATIENCE, || {
            Ok(agent::get(&address, "/-/ready").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")).then_some(()))
        })
        .with_context(|| running.stderr())?;
        Ok(Self { _running: running, address })
    }

    /// What it answers to a query of its language, which has nothing in it that a URL cannot have.
    pub fn query(&self, query: &str) -> Result<Value> {
        let answer = agent::get(&self.address, &format!("/api/v1/query?query={query}"))?;
        let body = answer.split_once("\r\n\r\n").context("no body")?.1;
        // Sent in one chunk, or whole.
        let json = &body[body.find('{').context("no JSON")?..=body.rfind('}').context("no JSON")?];
        Ok(serde_json::from_str(json)?)
    }

    /// The first value of an answer; `None`: there is none yet.
    pub fn value(&self, query: &str) -> Result<Option<f64>> {
        let answer = self.query(query)?;
        Ok(answer["data"]["result"][0]["value"][1].as_str().and_then(|value| value.parse().ok()))
    }
}
