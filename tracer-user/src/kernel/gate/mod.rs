//! The exec gate: a descendant's exec of a file that was not looked at yet waits until it is, and probed if it is to be.
//!
//! fanotify's FAN_OPEN_EXEC_PERM holds the exec inside the kernel, where neither the parent nor a debugger sees a stopped
//! process, and lets it go when the listener dies. Because every exec on the marked file systems asks the listener, the
//! listener is a small process of its own ([`server`], the hidden subcommand `exec-gate`): it answers foreign execs at once
//! even while lifetrace itself is busy or stopped, and a held one after [`server::DEADLINE`] at the latest. It dies with
//! lifetrace.

mod mounts;
pub mod server;

#[cfg(feature = "fuzz")]
pub use mounts::{control_groups, file_systems};

use std::{
    fs::File,
    io::{self, IoSliceMut, Read},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::{fs::MetadataExt, process::CommandExt},
    },
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    cmsg_space,
    fcntl::{FcntlArg, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
        socket::{AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, send, socketpair},
    },
};

use crate::{clock::KtimeNs, id::Tgid};

/// Message sizes: what a held exec says, and what an answer says.
const HELD_BYTES: usize = 24;
const REPLY_BYTES: usize = 41;
/// How long the gate may take to set its marks.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Where the gate's process finds its two descriptors.
pub const FOLLOWED_FD: RawFd = 3;
pub const SOCKET_FD: RawFd = 4;

/// A file as the gate knows it: a file rewritten in place is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileKey {
    pub device: u64,
    pub inode: u64,
    pub modified_ns: i64,
    pub size: u64,
}

impl FileKey {
    /// The program that a process runs now.
    pub fn of_process(tgid: Tgid) -> io::Result<Self> {
        Self::of(&File::open(format!("/proc/{tgid}/exe"))?)
    }

    pub fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
            modified_ns: meta.mtime().wrapping_mul(1_000_000_000).wrapping_add(meta.mtime_nsec()),
            size: meta.size(),
        })
    }

    fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        let words = [self.device, self.inode, self.modified_ns as u64, self.size];
        for (slot, word) in bytes.chunks_exact_mut(8).zip(words) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut words = bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()));
        Some(Self { device: words.next()?, inode: words.next()?, modified_ns: words.next()? as i64, size: words.next()? })
    }
}

/// An exec that is being held: answer it with [`Gate::release`].
#[derive(Debug)]
pub struct Held {
    pub id: u64,
    pub tgid: Tgid,
    pub since: KtimeNs,
    /// The very file that is about to be executed.
    pub file: File,
}

/// lifetrace's end of the gate.
pub struct Gate {
    socket: OwnedFd,
    process: Child,
}

impl Gate {
    /// Starts the gate's process. Must be called on the main thread: the gate dies with the thread that started it.
    pub fn start(followed: BorrowedFd<'_>) -> io::Result<Self> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        // Numbers well above those they are moved to, so that neither move closes the other.
        let followed = duplicate_high(followed)?;
        let theirs = duplicate_high(theirs.as_fd())?;
        let mut command = Command::new("/proc/self/exe");
        command.arg("exec-gate").stdin(Stdio::null()).stdout(Stdio::piped()).env_clear();
        let parent = nix::unistd::getpid();
        // SAFETY: the closure runs between fork and exec and makes only async-signal-safe calls.
        unsafe {
            command.pre_exec(move || {
                nix::unistd::setsid()?;
                nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
                if nix::unistd::getppid() != parent {
                    return Err(io::Error::other("the tracer is gone"));
                }
                sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
                if libc::dup2(followed.as_raw_fd(), FOLLOWED_FD) < 0 || libc::dup2(theirs.as_raw_fd(), SOCKET_FD) < 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let mut process = command.spawn()?;
        if let Err(error) = wait_until_ready(&mut process) {
            let _ = process.kill();
            let _ = process.wait();
            return Err(error);
        }
        Ok(Self { socket: ours, process })
    }

    /// The next held exec; `None` when there is none at the moment. An error means that the gate is gone.
    pub fn next(&self) -> io::Result<Option<Held>> {
        let mut payload = [0u8; HELD_BYTES];
        let mut iov = [IoSliceMut::new(&mut payload)];
        let mut space = cmsg_space!([RawFd; 1]);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let message = match recvmsg::<()>(self.socket.as_raw_fd(), &mut iov, Some(&mut space), flags) {
            Ok(message) => message,
            Err(nix::errno::Errno::EAGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if message.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let passed = message.cmsgs()?.find_map(|part| match part {
            ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        });
        let Some(fd) = passed else {
            return Err(io::Error::other("the exec gate sent no file"));
        };
        // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
        let file = unsafe { File::from_raw_fd(fd) };
        let word = |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().unwrap_or_default());
        Ok(Some(Held { id: word(0), tgid: Tgid(word(8) as u32), since: KtimeNs(word(16)), file }))
    }

    /// Lets a held exec go, and those of the same file from now on. `probed`: the file carries probes, so a rewritten one
    /// must be held whoever executes it.
    pub fn release(&self, id: u64, key: FileKey, probed: bool) -> io::Result<()> {
        let mut message = [0u8; REPLY_BYTES];
        message[..8].copy_from_slice(&id.to_le_bytes());
        message[8..40].copy_from_slice(&key.to_bytes());
        message[40] = u8::from(probed);
        send(self.socket.as_raw_fd(), &message, MsgFlags::MSG_NOSIGNAL)?;
        Ok(())
    }

    /// Tells the gate of a file that was probed without being asked for.
    pub fn know(&self, key: FileKey) -> io::Result<()> {
        self.release(0, key, true)
    }
}

impl AsFd for Gate {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn duplicate_high(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let raw = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(64))?;
    // SAFETY: fcntl has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// The gate writes one line when its marks are set: `ready`, or why it cannot.
fn wait_until_ready(process: &mut Child) -> io::Result<()> {
    let mut said = String::new();
    if let Some(mut out) = process.stdout.take() {
        let deadline = Instant::now() + START_LIMIT;
        let mut piece = [0u8; 512];
        loop {
            let left = PollTimeout::try_from(deadline.saturating_duration_since(Instant::now())).unwrap_or(PollTimeout::ZERO);
            if poll(&mut [PollFd::new(out.as_fd(), PollFlags::POLLIN)], left)? == 0 {
                return Err(io::Error::other("the exec gate did not start in time"));
            }
            match out.read(&mut piece)? {
                0 => break,
                length => said.push_str(&String::from_utf8_lossy(&piece[..length])),
            }
        }
    }
    match said.trim() {
        "ready" => Ok(()),
        "" => Err(io::Error::other("the exec gate did not start")),
        reason => Err(io::Error::other(reason.to_owned())),
    }
}
