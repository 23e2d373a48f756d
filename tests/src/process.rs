//! A child process with its output captured as it comes, and a deadline on everything asked of it.

use std::{
    io::Read,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use crate::deadline::{PATIENCE, wait_for};

/// A child in a process group of its own; what is left of the group is killed when it is dropped.
pub struct Running {
    child: Child,
    what: String,
    stdout: Stream,
    stderr: Stream,
}

/// How a child ended, and all it wrote.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

#[derive(Clone, Default)]
struct Stream(Arc<Mutex<Captured>>);

#[derive(Default)]
struct Captured {
    bytes: Vec<u8>,
    closed: bool,
}

impl Running {
    /// Starts `command` with both outputs captured. Its stdin is empty unless the caller set one by `input`.
    pub fn start(mut command: Command, input: Option<&[u8]>) -> Result<Self> {
        let what = format!("{command:?}");
        let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
        let mut child = command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {what}"))?;
        let stdout = Stream::capture(child.stdout.take().context("no stdout")?);
        let stderr = Stream::capture(child.stderr.take().context("no stderr")?);
        if let (Some(bytes), Some(mut pipe)) = (input.map(<[u8]>::to_vec), child.stdin.take()) {
            // A child that ends without reading breaks the pipe; its own status tells.
            thread::spawn(move || drop(std::io::Write::write_all(&mut pipe, &bytes)));
        }
        Ok(Self { child, what, stdout, stderr })
    }

    /// The child's own process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        pid(self.child.id())
    }

    /// What it wrote to stdout so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it wrote to stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits for the `n`th complete line of stdout (from 0).
    pub fn line(&mut self, n: usize) -> Result<String> {
        let stdout = self.stdout.clone();
        let found = wait_for("a line of output", PATIENCE, || {
            let text = stdout.text();
            let complete = text.rfind('\n').map_or("", |end| &text[..end]);
            match complete.lines().nth(n) {
                Some(line) => Ok(Some(line.to_owned())),
                None if stdout.closed() => bail!("output ended before line {n}"),
                None => Ok(None),
            }
        });
        found.with_context(|| self.story())
    }

    /// Waits until it has written `text` to stderr.
    pub fn said(&mut self, text: &str) -> Result<()> {
        let stderr = self.stderr.clone();
        let found = wait_for("a word on stderr", PATIENCE, || match stderr.text().contains(text) {
            true => Ok(Some(())),
            false if stderr.closed() => bail!("it ended without a word of {text:?}"),
            false => Ok(None),
        });
        found.with_context(|| self.story())
    }

    /// Sends a signal to the child alone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).with_context(|| format!("cannot send {signal} to {}", self.what))
    }

    /// Waits until the child itself has ended; its descendants may live on.
    pub fn wait_exit(&mut self) -> Result<ExitStatus> {
        let child = &mut self.child;
        let ended = wait_for("the exit", PATIENCE, || Ok(child.try_wait()?));
        ended.with_context(|| self.story())
    }

    /// Waits until the child has ended and nobody holds its outputs any more, descendants included.
    pub fn finish(self) -> Result<Finished> {
        self.finish_within(PATIENCE)
    }

    /// As [`Self::finish`], with a patience of its own.
    pub fn finish_within(mut self, patience: Duration) -> Result<Finished> {
        let (child, stdout, stderr) = (&mut self.child, &self.stdout, &self.stderr);
        let ended = wait_for("the exit and the end of output", patience, || {
            let status = child.try_wait()?;
            Ok(status.filter(|_| stdout.closed() && stderr.closed()))
        });
        let status = ended.with_context(|| self.story())?;
        Ok(Finished { status, stdout: self.stdout.text(), stderr: self.stderr.text() })
    }

    fn story(&self) -> String {
        format!("{}\n--- stdout\n{}\n--- stderr\n{}", self.what, tail(&self.stdout.text()), tail(&self.stderr.text()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The group may be gone already, or outlive its leader (a target whose tracer was killed).
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

impl Finished {
    /// The status as a shell shows it: the exit code, or 128 and the signal.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or_default())
    }

    /// The last line of stdout.
    #[must_use]
    pub fn last_line(&self) -> &str {
        self.stdout.lines().last().unwrap_or_default()
    }

    /// Fails unless the status is `code`.
    pub fn expect_code(self, code: i32) -> Result<Self> {
        if self.code() != code {
            bail!(
                "status {}, expected {code}\n--- stdout\n{}\n--- stderr\n{}",
                self.code(),
                tail(&self.stdout),
                tail(&self.stderr)
            );
        }
        Ok(self)
    }

    /// Fails unless stderr speaks of one of `words` (case does not matter).
    pub fn expect_said(&self, words: &[&str]) -> Result<()> {
        let said = self.stderr.to_lowercase();
        if !words.iter().any(|word| said.contains(&word.to_lowercase())) {
            bail!("stderr says nothing of {words:?}:\n{}", tail(&self.stderr));
        }
        Ok(())
    }
}

/// Runs `command` to its end.
pub fn run(command: Command) -> Result<Finished> {
    Running::start(command, None)?.finish()
}

/// Linux process ids are positive and fit.
#[must_use]
pub fn pid(id: u32) -> Pid {
    Pid::from_raw(id.cast_signed())
}

/// Whether a process is there and not a zombie.
#[must_use]
pub fn is_alive(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

impl Stream {
    fn capture(mut pipe: impl Read + Send + 'static) -> Self {
        let stream = Self::default();
        let sink = stream.clone();
        thread::spawn(move || {
            let mut buf = [0; 1 << 16];
            while let Ok(n @ 1..) = pipe.read(&mut buf) {
                sink.lock().bytes.extend_from_slice(&buf[..n]);
            }
            sink.lock().closed = true;
        });
        stream
    }

    fn lock(&self) -> MutexGuard<'_, Captured> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.lock().bytes).into_owned()
    }

    fn closed(&self) -> bool {
        self.lock().closed
    }
}

/// The end of a long text.
fn tail(text: &str) -> &str {
    const MOST: usize = 4000;
    let mut start = text.len().saturating_sub(MOST);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}
