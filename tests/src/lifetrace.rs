//! The program under test: where it is, and how it is started on a command.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Result;
use tempfile::TempDir;

use crate::{
    deadline::PATIENCE,
    fixture, kernel,
    process::{Finished, Running},
    recording::Recording,
};

/// What lifetrace says of a program whose probes were not set within the time for which an exec is held.
pub const TOO_LATE: &str = "only after it had begun";

/// So often an exec may be held too briefly, one run after the other.
const MAX_TRIES: u32 = 3;

/// `LIFETRACE_BIN`, or the one in the target directory.
#[must_use]
pub fn binary() -> PathBuf {
    env::var_os("LIFETRACE_BIN").map_or_else(|| fixture::target_dir().join("debug/lifetrace"), PathBuf::from)
}

/// A bare `lifetrace`, untouched by the caller's settings.
#[must_use]
pub fn command() -> Command {
    let mut command = Command::new(binary());
    for name in ["SUDO_UID", "SUDO_GID", "SUDO_USER"] {
        command.env_remove(name);
    }
    command
}

/// `lifetrace run -o REC -- CMD ARGS…`, to be.
#[derive(Clone)]
pub struct Run {
    command: Vec<OsString>,
    options: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    input: Option<Vec<u8>>,
    cpu: Option<u32>,
    output: Option<PathBuf>,
    current_dir: Option<PathBuf>,
}

/// A run under way.
pub struct Traced {
    pub running: Running,
    recording: Recording,
}

impl Run {
    /// Will trace `program` with default settings.
    #[must_use]
    pub fn of(program: impl AsRef<OsStr>) -> Self {
        Self {
            command: vec![program.as_ref().to_owned()],
            options: vec![],
            env: vec![],
            input: None,
            cpu: None,
            output: None,
            current_dir: None,
        }
    }

    /// Adds arguments of the traced program.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Adds an option of `lifetrace run`.
    #[must_use]
    pub fn option(mut self, option: impl AsRef<OsStr>) -> Self {
        self.options.push(option.as_ref().to_owned());
        self
    }

    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    #[must_use]
    pub fn input(mut self, bytes: &[u8]) -> Self {
        self.input = Some(bytes.to_vec());
        self
    }

    #[must_use]
    pub fn current_dir(mut self, dir: &Path) -> Self {
        self.current_dir = Some(dir.to_owned());
        self
    }

    /// Pins reader and target to one CPU, so that the reader gets it only when the target lets go of it.
    #[must_use]
    pub fn pinned_to(mut self, cpu: u32) -> Self {
        self.cpu = Some(cpu);
        self
    }

    /// Where the recording goes; otherwise to a directory of its own.
    #[must_use]
    pub fn output(mut self, path: &Path) -> Self {
        self.output = Some(path.to_owned());
        self
    }

    /// Starts it.
    pub fn start(self) -> Result<Traced> {
        let recording = match &self.output {
            Some(path) => Recording::at(path),
            None => Recording::in_dir(TempDir::new()?),
        };
        let mut command = match self.cpu {
            Some(cpu) => {
                let mut taskset = command_through("taskset");
                taskset.arg("-c").arg(cpu.to_string()).arg(binary());
                taskset
            }
            None => command(),
        };
        command.arg("run").arg("-o").arg(recording.path()).args(&self.options).arg("--").args(&self.command);
        command.envs(self.env);
        if let Some(dir) = &self.current_dir {
            command.current_dir(dir);
        }
        Ok(Traced { running: Running::start(command, self.input.as_deref())?, recording })
    }

    /// Runs it to its end, again while something was missed that this kernel or a slow machine may make one miss, as docs/limits.md has it, and patience lasts:
    /// what the kernel kept to itself, and the beginning of a program whose exec was held as long as may be.
    pub fn finish_whole(self) -> Result<(Finished, Recording)> {
        let deadline = Instant::now() + PATIENCE;
        let mut tries = 0;
        loop {
            tries += 1;
            let (finished, recording) = self.clone().finish()?;
            let report = recording.report()?;
            let hides =
                report.repairs.by_kind.keys().any(|kind| kernel::keeps_to_itself(kind)) || !report.lost.left_out.is_empty();
            if Instant::now() > deadline || !(hides || tries < MAX_TRIES && finished.stderr.contains(TOO_LATE)) {
                return Ok((finished, recording));
            }
        }
    }

    /// Runs it to its end.
    pub fn finish(self) -> Result<(Finished, Recording)> {
        self.finish_within(PATIENCE)
    }

    /// As [`Self::finish`], with a patience of its own.
    pub fn finish_within(self, patience: Duration) -> Result<(Finished, Recording)> {
        self.start()?.finish_within(patience)
    }
}

impl Traced {
    /// What it is writing.
    #[must_use]
    pub fn recording(&self) -> &Recording {
        &self.recording
    }

    /// Waits until lifetrace has ended and nobody holds its outputs any more.
    pub fn finish(self) -> Result<(Finished, Recording)> {
        self.finish_within(PATIENCE)
    }

    /// As [`Self::finish`], with a patience of its own.
    pub fn finish_within(self, patience: Duration) -> Result<(Finished, Recording)> {
        Ok((self.running.finish_within(patience)?, self.recording))
    }
}

/// A command that starts lifetrace in its turn.
#[must_use]
pub fn command_through(wrapper: &str) -> Command {
    let mut through = Command::new(wrapper);
    for name in ["SUDO_UID", "SUDO_GID", "SUDO_USER"] {
        through.env_remove(name);
    }
    through
}
