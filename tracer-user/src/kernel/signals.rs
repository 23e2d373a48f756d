//! Our signals: which are taken as data; and what of the caller's state we change for ourselves and the command gets back.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use nix::sys::{
    resource::{Resource, getrlimit, rlim_t, setrlimit},
    signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask},
    signalfd::{SfdFlags, SignalFd, siginfo},
};

/// Signals that are passed on when somebody sends them to lifetrace.
const PASSED_ON: [Signal; 9] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGWINCH,
    Signal::SIGTSTP,
];

/// Our signals as a descriptor.
pub struct Signals(SignalFd);

impl Signals {
    pub fn open() -> io::Result<Self> {
        Ok(Self(SignalFd::with_flags(&Self::set(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    fn set() -> SigSet {
        let mut set: SigSet = PASSED_ON.into_iter().collect();
        set.add(Signal::SIGCHLD);
        set
    }

    /// A signal that has come and that would have ended us: the command need not be started any more.
    pub fn deadly_now(&mut self) -> io::Result<Option<Signal>> {
        while let Some(info) = self.read()? {
            let signal = Signal::try_from(info.ssi_signo as i32).ok();
            if let Some(signal @ (Signal::SIGINT | Signal::SIGTERM | Signal::SIGHUP | Signal::SIGQUIT)) = signal {
                return Ok(Some(signal));
            }
        }
        Ok(None)
    }

    /// The next signal that has come.
    pub fn read(&mut self) -> io::Result<Option<siginfo>> {
        Ok(self.0.read_signal()?)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Does `work`; threads that it starts take no signal from those who wait for one.
pub fn aside<T>(work: impl FnOnce() -> T) -> T {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK);
    let done = work();
    if let Ok(before) = before {
        let _ = before.thread_set_mask();
    }
    done
}

/// What the command is to inherit from whoever called us, and what we had to change for ourselves.
#[derive(Clone, Copy)]
pub struct Inherited {
    mask: SigSet,
    child: SigAction,
    /// Soft and hard limit of descriptors: each probe takes one of ours.
    descriptors: (rlim_t, rlim_t),
}

impl Inherited {
    /// Blocks the signals that [`Signals`] reads, and takes SIGCHLD back from a caller who ignored it (or the command's
    /// status would be lost). Call before any thread exists, but for such as take no signals ([`aside`]).
    pub fn set_aside() -> io::Result<Self> {
        let mut mask = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&Signals::set()), Some(&mut mask))?;
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        // SAFETY: the default action runs no code of ours.
        let child = unsafe { sigaction(Signal::SIGCHLD, &default) }?;
        let descriptors = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, descriptors.1, descriptors.1)?;
        Ok(Self { mask, child, descriptors })
    }

    /// Gives it back: between fork and exec, or when we follow nobody any more.
    pub fn restore(&self) -> io::Result<()> {
        // SAFETY: what was ignored or default before is so again; handlers do not survive the exec.
        unsafe { sigaction(Signal::SIGCHLD, &self.child) }?;
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.mask), None)?;
        setrlimit(Resource::RLIMIT_NOFILE, self.descriptors.0, self.descriptors.1)?;
        Ok(())
    }
}
