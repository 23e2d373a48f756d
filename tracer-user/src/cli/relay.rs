//! Signals and the command's end: what a shell sees of lifetrace is what it would see of the command.

use std::{
    io,
    os::unix::process::ExitStatusExt,
    process::{Child, ExitStatus},
    thread::JoinHandle,
};

use anyhow::Result;
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill, raise},
    unistd::Pid,
};

use super::{Failure, NOT_EXECUTABLE, NOT_FOUND, OURS, recorder::Course};
use crate::{id::Tgid, kernel::signals::Signals};

/// How the command ended.
pub struct Ended {
    pub status: ExitStatus,
    /// User and system time of the command and of the descendants it waited for.
    pub cpu_ns: u64,
}

/// The command while it is being started.
pub struct Starting(Option<JoinHandle<io::Result<Child>>>);

impl Starting {
    /// Of a [`crate::kernel::command::Launcher`]'s thread.
    pub fn new(thread: JoinHandle<io::Result<Child>>) -> Self {
        Self(Some(thread))
    }

    /// The command's process once its exec has succeeded; the error if it failed.
    pub fn poll(&mut self) -> Option<io::Result<Child>> {
        if !self.0.as_ref()?.is_finished() {
            return None;
        }
        Some(self.0.take()?.join().unwrap_or_else(|_| Err(io::Error::other("the launching thread panicked"))))
    }
}

/// The command as its parent sees it.
pub struct Relay {
    starting: Starting,
    pid: Option<Pid>,
    /// Signals that came before the command was there.
    early: Vec<Signal>,
}

impl Relay {
    pub fn new(starting: Starting) -> Self {
        Self { starting, pid: None, early: Vec::new() }
    }

    /// The command's process, once it is there.
    pub fn pid(&self) -> Option<Tgid> {
        self.pid.map(|pid| Tgid(pid.as_raw().cast_unsigned()))
    }
}

impl Course for Relay {
    type End = Ended;

    /// Passes on what a process sent us. What the terminal sends reaches the command by itself: it is in our process group.
    fn take_signals(&mut self, signals: &mut Signals) -> Result<()> {
        while let Some(info) = signals.read()? {
            let sent_by_a_process = info.ssi_code <= 0;
            let Ok(signal) = Signal::try_from(info.ssi_signo as i32) else {
                continue;
            };
            if signal != Signal::SIGCHLD && sent_by_a_process {
                match self.pid {
                    Some(pid) => pass(pid, signal),
                    None => self.early.push(signal),
                }
            }
        }
        Ok(())
    }

    /// How the command ended, if it has. Also finishes its start.
    fn ended(&mut self) -> Result<Option<Ended>> {
        if self.pid.is_none() {
            match self.starting.poll() {
                None => return Ok(None),
                Some(Ok(child)) => {
                    let pid = Pid::from_raw(child.id().cast_signed());
                    self.early.drain(..).for_each(|signal| pass(pid, signal));
                    self.pid = Some(pid);
                }
                Some(Err(error)) => return Err(cannot_start(error).into()),
            }
        }
        let Some(pid) = self.pid else {
            return Ok(None);
        };
        loop {
            match wait4(pid)? {
                Waited::Nothing => return Ok(None),
                Waited::Stopped(signal) => stop_with_it(pid, signal)?,
                Waited::Ended(ended) => return Ok(Some(ended)),
            }
        }
    }
}

fn pass(pid: Pid, signal: Signal) {
    // ESRCH: it has just ended, and its status is on the way.
    let _ = kill(pid, signal);
}

fn cannot_start(error: io::Error) -> Failure {
    let code = match error.raw_os_error() {
        Some(libc::ENOENT) => NOT_FOUND,
        Some(libc::EACCES | libc::ENOEXEC | libc::ELOOP | libc::E2BIG | libc::ETXTBSY | libc::ENOTDIR) => NOT_EXECUTABLE,
        // No process to be had, or no right to become that user.
        _ => OURS,
    };
    Failure { code, error: anyhow::Error::from(error).context("the command cannot be executed") }
}

/// The terminal stopped the command (Ctrl-Z): stop as well, so that the shell gets its terminal back; go on together.
fn stop_with_it(pid: Pid, signal: i32) -> Result<()> {
    if [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU].contains(&signal) {
        raise(Signal::SIGSTOP)?;
        pass(pid, Signal::SIGCONT);
    }
    Ok(())
}

enum Waited {
    Nothing,
    Stopped(i32),
    Ended(Ended),
}

fn wait4(pid: Pid) -> Result<Waited> {
    let mut status = 0;
    // SAFETY: rusage is plain integers; zero is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live locals of the right type.
    let waited = unsafe { libc::wait4(pid.as_raw(), &mut status, libc::WNOHANG | libc::WUNTRACED, &mut usage) };
    match waited {
        0 => Ok(Waited::Nothing),
        -1 => match Errno::last() {
            Errno::EINTR => Ok(Waited::Nothing),
            error => Err(error.into()),
        },
        _ if libc::WIFSTOPPED(status) => Ok(Waited::Stopped(libc::WSTOPSIG(status))),
        _ => {
            let nanoseconds =
                |time: libc::timeval| time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_usec.unsigned_abs() * 1_000;
            let cpu_ns = nanoseconds(usage.ru_utime) + nanoseconds(usage.ru_stime);
            Ok(Waited::Ended(Ended { status: ExitStatus::from_raw(status), cpu_ns }))
        }
    }
}

/// A command's own status, as a shell says it: 128+n for signal n.
pub fn exit_code(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, Some(signal)) => 128u8.wrapping_add(signal as u8),
        (None, None) => OURS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a command's status is passed on as a shell would.
    #[test]
    fn statuses() {
        for (raw, code) in [(0, 0), (3 << 8, 3), (255 << 8, 255), (9, 137), (15, 143), (11 | 0x80, 139)] {
            assert_eq!(exit_code(ExitStatus::from_raw(raw)), code, "{raw:#x}");
        }
    }
}
