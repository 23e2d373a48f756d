//! `lifetrace agent`, started on a file of its own and asked by HTTP.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{
    deadline::{PATIENCE, wait_for},
    lifetrace,
    process::{Finished, Running},
};

/// An agent under way.
pub struct Agent {
    pub running: Running,
    /// Where its doors are.
    pub address: String,
    token: Option<&'static str>,
    dir: TempDir,
}

/// What [`Agent::guarded`] asks for.
const TOKEN: &str = "0123456789abcdef";

impl Agent {
    /// Starts one on a free port, with the rest of the file as given, and waits until it follows.
    pub fn start(config: &str) -> Result<Self> {
        Self::start_by(lifetrace::command(), config)
    }

    /// As [`Self::start`], with a token, which is shown from then on.
    pub fn guarded(config: &str) -> Result<Self> {
        Self::guarded_by(lifetrace::command(), config)
    }

    /// As [`Self::guarded`], by a command that is lifetrace, or ends in it.
    pub fn guarded_by(command: Command, config: &str) -> Result<Self> {
        let dir = TempDir::new()?;
        let file = dir.path().join("token");
        fs::write(&file, TOKEN)?;
        Self::start_in(dir, command, &format!("token_file = {file:?}\n{config}"), Some(TOKEN))
    }

    /// As [`Self::start`], by a command that is lifetrace, or ends in it.
    pub fn start_by(command: Command, config: &str) -> Result<Self> {
        Self::start_in(TempDir::new()?, command, config, None)
    }

    fn start_in(dir: TempDir, mut command: Command, config: &str, token: Option<&'static str>) -> Result<Self> {
        let file = dir.path().join("agent.toml");
        fs::write(&file, whole(config))?;
        command.arg("agent").arg("--config").arg(&file);
        Self::begun(Running::start(command, None)?, token, dir)
    }

    /// One that somebody has started, on a file of this folder.
    pub fn of(running: Running, dir: TempDir) -> Result<Self> {
        Self::begun(running, None, dir)
    }

    fn begun(mut running: Running, token: Option<&'static str>, dir: TempDir) -> Result<Self> {
        running.said("/metrics; following")?;
        let said = running.stderr();
        let address =
            said.split("metrics at http://").nth(1).and_then(|rest| rest.split("/metrics").next()).context("no address")?;
        let agent = Self { address: address.to_owned(), running, token, dir };
        wait_for("the agent to follow", PATIENCE, || Ok(agent.get("/readyz")?.starts_with("HTTP/1.1 200").then_some(())))?;
        Ok(agent)
    }

    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("agent.toml")
    }

    /// Writes another file and has it read.
    pub fn reload(&self, config: &str) -> Result<()> {
        fs::write(self.file(), whole(config))?;
        self.running.signal(Signal::SIGHUP)
    }

    /// The whole answer.
    pub fn get(&self, path: &str) -> Result<String> {
        ask(&self.address, "GET", path, self.token)
    }

    /// The whole answer to a request without a body.
    pub fn post(&self, path: &str) -> Result<String> {
        ask(&self.address, "POST", path, self.token)
    }

    /// What it serves now; asked again while it begins a recording.
    pub fn metrics(&self) -> Result<Metrics> {
        wait_for("metrics", PATIENCE, || {
            let answer = self.get("/metrics")?;
            if answer.starts_with("HTTP/1.1 503") {
                return Ok(None);
            }
            ensure!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("# EOF\n"), "{answer}");
            Ok(Some(Metrics(answer)))
        })
    }

    /// Waits for metrics that answer.
    pub fn until<T>(&self, what: &str, mut answer: impl FnMut(&Metrics) -> Option<T>) -> Result<T> {
        let mut last = String::new();
        let found = wait_for(what, PATIENCE, || {
            let metrics = self.metrics()?;
            let found = answer(&metrics);
            last = metrics.0;
            Ok(found)
        });
        found.with_context(|| format!("{last}\n{}", self.running.stderr()))
    }

    /// Ends it as a service manager does.
    pub fn terminate(self) -> Result<Finished> {
        self.running.signal(Signal::SIGTERM)?;
        self.running.finish()?.expect_code(0)
    }
}

fn whole(config: &str) -> String {
    format!("listen = \"127.0.0.1:0\"\n{config}")
}

/// Asks a server; the whole answer.
pub fn get(address: &str, path: &str) -> Result<String> {
    ask(address, "GET", path, None)
}

fn ask(address: &str, method: &str, path: &str, token: Option<&str>) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    let shown = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
    stream.write_all(format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{shown}\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// What an agent serves, as text.
pub struct Metrics(pub String);

impl Metrics {
    /// The sum of the rows of a series that contain all of these; `None`: there is none.
    #[must_use]
    pub fn sum(&self, series: &str, parts: &[&str]) -> Option<f64> {
        let of_series = |line: &&str| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let rows = self.0.lines().filter(of_series).filter(|line| parts.iter().all(|part| line.contains(part)));
        rows.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).reduce(|sum, more| sum + more)
    }

    /// Claims that each line is a comment or a row of ours, without a control character, whatever targets are called.
    #[track_caller]
    pub fn assert_rows(&self) {
        let body = self.0.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        assert!(!body.is_empty(), "no body: {}", self.0);
        for line in body.lines() {
            let known = ["# ", "lifetrace_", "process_"].iter().any(|begin| line.starts_with(begin));
            assert!(known && !line.chars().any(char::is_control), "{line:?}");
        }
    }
}
