//! `lifetrace attach`, started and waited for.

use std::{ffi::OsStr, process::Command};

use anyhow::Result;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{
    deadline::{PATIENCE, wait_for},
    fixture, lifetrace,
    process::{Finished, Running},
    recording::Recording,
    truth::{self, Waits},
};

/// An attach under way.
pub struct Attached {
    pub running: Running,
    recording: Recording,
}

impl Attached {
    /// `lifetrace attach ARGS… -o REC`, once it follows its target: at T2, if neither a tier nor a budget is asked for.
    pub fn to(args: &[impl AsRef<OsStr>]) -> Result<Self> {
        let mut attached = Self::start(args)?;
        attached.running.said("lifetrace: following")?;
        Ok(attached)
    }

    /// The same, not waited for.
    pub fn start(args: &[impl AsRef<OsStr>]) -> Result<Self> {
        let recording = Recording::in_dir(TempDir::new()?);
        let running = Running::start(command(args, &recording), None)?;
        Ok(Self { running, recording })
    }

    /// What it is writing.
    #[must_use]
    pub fn recording(&self) -> &Recording {
        &self.recording
    }

    /// Waits for its end, which must be a good one.
    pub fn finish(self) -> Result<(Finished, Recording)> {
        Ok((self.running.finish()?.expect_code(0)?, self.recording))
    }

    /// Ends it as Ctrl-C does.
    pub fn interrupt(self) -> Result<(Finished, Recording)> {
        self.running.signal(Signal::SIGINT)?;
        self.finish()
    }
}

fn command(args: &[impl AsRef<OsStr>], recording: &Recording) -> Command {
    let mut command = lifetrace::command();
    command.arg("attach").args(args).arg("-o").arg(recording.path());
    let chosen = |arg: &&_| ["--tier", "--budget"].iter().any(|flag| AsRef::<OsStr>::as_ref(*arg) == OsStr::new(flag));
    if !args.iter().any(|arg| chosen(&arg)) {
        // What a budget leaves out is no test of anything else.
        command.args(["--tier", "T2"]);
    }
    command
}

/// A program whose goroutines have labels and wait, with what each says of itself, and a recording with a snapshot of them.
pub fn labelled() -> Result<(Waits, Recording)> {
    let dir = TempDir::new()?;
    let mut command = Command::new(fixture::go("waits")?);
    command.arg("-dir").arg(dir.path());
    let mut running = Running::start(command, None)?;
    let waits: Waits = truth::read(&running.line(0)?)?;
    let attached = Attached::to(&["--pid", &waits.pid.to_string(), "--snapshot-every", "300ms"])?;
    wait_for("a snapshot", PATIENCE, || Ok((attached.recording().report()?.snapshots.taken > 0).then_some(())))?;
    let (_, recording) = attached.interrupt()?;
    Ok((waits, recording))
}
