//! Segments, as engines and an S3 server see them.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    agent,
    deadline::{PATIENCE, wait_for},
    fixture,
    process::{self, Running},
    program,
    scenario::Need,
};

pub const DUCKDB: Need = Need::Program("duckdb/bin/duckdb/__init__.py");
pub const CHDB: Need = Need::Program("chdb/bin/chdb/__init__.py");
pub const VERSITYGW: Need = Need::Program("versitygw/bin/versitygw");
/// What the server knows, and what else nobody needs to.
pub const KEY: &str = "lifetrace";
pub const SECRET: &str = "not-a-secret-0123";

/// Rows by question.
pub type Answers = BTreeMap<String, Vec<Value>>;

/// Asks the questions of docs/fleet.md; `place` is a folder, or a path in a bucket with endpoint, key and secret.
pub fn ask(engine: &str, place: &[&str]) -> Result<Answers> {
    let root = fixture::workspace_root();
    let mut python = Command::new("python3");
    python.arg(root.join("tests/python/fleet.py")).arg(engine).arg(root.join("docs")).args(place);
    python.env("PYTHONPATH", program::fetched(&format!("{engine}/bin")));
    serde_json::from_str(&process::run(python)?.expect_code(0)?.stdout).context("what the script says")
}

/// The answer to the question that begins so.
pub fn answer<'a>(answers: &'a Answers, question: &str) -> Result<&'a [Value]> {
    let found = answers.iter().find(|(asked, _)| asked.starts_with(question));
    Ok(found.with_context(|| format!("docs/fleet.md does not ask {question}"))?.1)
}

/// The files below a folder, with their paths from there on.
pub fn files(folder: &Path) -> Result<Vec<String>> {
    fn below(folder: &Path, name: &str, into: &mut Vec<String>) -> Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = format!("{name}/{}", entry.file_name().display());
            if entry.file_type()?.is_dir() { below(&entry.path(), &name, into)? } else { into.push(name) }
        }
        Ok(())
    }
    let mut all = Vec::new();
    if folder.is_dir() {
        below(folder, "", &mut all)?;
    }
    Ok(all)
}

/// Segments of which everything arrived: those that have a row in `meta`.
pub fn whole(store: &Path) -> Result<usize> {
    Ok(files(&store.join("meta"))?.iter().filter(|file| file.ends_with(".parquet") && !file.contains('#')).count())
}

/// A server of S3 with one bucket, over a folder.
pub struct S3 {
    pub address: String,
    folder: PathBuf,
    server: Option<Running>,
}

impl S3 {
    /// Starts one for `bucket`.
    pub fn start(folder: &Path, bucket: &str) -> Result<Self> {
        fs::create_dir_all(folder.join("data").join(bucket))?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let mut s3 = Self { address, folder: folder.to_owned(), server: None };
        s3.start_again()?;
        Ok(s3)
    }

    /// Starts it where it was.
    pub fn start_again(&mut self) -> Result<()> {
        let mut command = Command::new(program::fetched("versitygw/bin/versitygw"));
        command.args(["--port", &self.address, "--access", KEY, "--secret", SECRET, "posix"]).arg("--sidecar");
        command.arg(self.folder.join("sidecar")).arg(self.folder.join("data"));
        fs::create_dir_all(self.folder.join("sidecar"))?;
        let server = self.server.insert(Running::start(command, None)?);
        let address = &self.address;
        wait_for("the S3 server", PATIENCE, || {
            Ok(agent::get(address, "/").is_ok_and(|answer| answer.starts_with("HTTP/1.1 ")).then_some(()))
        })
        .with_context(|| server.stderr())
    }

    pub fn kill(&mut self) -> Result<()> {
        let mut server = self.server.take().context("it does not run")?;
        server.signal(Signal::SIGKILL)?;
        server.wait_exit()?;
        ensure!(agent::get(&self.address, "/").is_err(), "somebody answers still");
        Ok(())
    }

    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where what is in a bucket lies on the disk.
    #[must_use]
    pub fn bucket(&self, name: &str) -> PathBuf {
        self.folder.join("data").join(name)
    }
}
