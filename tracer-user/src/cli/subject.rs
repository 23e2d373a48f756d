//! What `report`, `timeline` and `flame` tell of: a recording, or a process that is followed for it now.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Parser;
use tempfile::TempDir;

use super::{
    Failure,
    args::{Cli, Command, Global, SubjectArg},
    live,
    progress::Progress,
};

/// A recording; one that nobody asked for goes when it has been told of.
pub struct Subject {
    path: PathBuf,
    _folder: Option<TempDir>,
}

impl Subject {
    /// Follows the process, if it is one.
    pub fn of(args: &SubjectArg, global: Global) -> Result<Self, Failure> {
        if let Some(path) = &args.recording {
            return Ok(Self { path: path.clone(), _folder: None });
        }
        let folder = tempfile::Builder::new().prefix("lifetrace-").tempdir();
        let folder = folder.context("no place for a recording").map_err(Failure::environment)?;
        let path = folder.path().join("now.lifetrace");
        let pid = args.pid.unwrap_or_default();
        follow(pid, args, &path, global)?;
        Ok(Self { path, _folder: Some(folder) })
    }

    pub fn recording(&self) -> &Path {
        &self.path
    }
}

/// As `lifetrace attach` does when nothing else is said.
fn follow(pid: u32, args: &SubjectArg, path: &Path, global: Global) -> Result<(), Failure> {
    let lasting = humantime::format_duration(args.duration).to_string();
    let (pid, output) = (pid.to_string(), path.as_os_str());
    let words = ["lifetrace", "attach", "--pid", &pid, "--for", &lasting, "-o"];
    let line = words.iter().map(std::ffi::OsStr::new).chain([output]);
    let mut cli = Cli::try_parse_from(line).map_err(Failure::usage)?;
    let Command::Attach(attach) = &mut cli.command else { return Ok(()) };
    attach.detail.tier = args.tier;
    if !global.quiet {
        eprintln!("lifetrace: following process {pid} for {lasting}");
    }
    let _progress = Progress::of_time(format!("following process {pid}"), Some(args.duration), global);
    live::attach(attach, Global { quiet: true, ..global }).map(drop)
}
