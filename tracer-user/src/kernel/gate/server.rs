//! The gate's own process: listens to fanotify, holds what must be held, and never holds anything else.

use std::{
    collections::HashMap,
    fs::{self, File},
    hash::{BuildHasher, BuildHasherDefault},
    io::{self, IoSlice, Read, Seek, SeekFrom, Write},
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
        unix::fs::{FileExt, MetadataExt},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use aya::maps::{HashMap as BpfHashMap, Map, MapData};
use nix::{
    errno::Errno,
    fcntl::AT_FDCWD,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        fanotify::{EventFFlags, Fanotify, FanotifyEvent, FanotifyResponse, InitFlags, MarkFlags, MaskFlags, Response},
        resource::{Resource, getrlimit, setrlimit},
        socket::{ControlMessage, MsgFlags, recv, sendmsg},
    },
};
use rustc_hash::{FxHashMap, FxHashSet, FxHasher};

use super::{FOLLOWED_FD, FileKey, HELD_BYTES, REPLY_BYTES, SOCKET_FD, mounts};
use crate::{clock::ktime_now, kernel::features};

/// A held exec goes on after this long whatever happened.
pub const DEADLINE: Duration = Duration::from_secs(1);

/// Work on one turn may take this long; then the alarm ends the gate, and the kernel lets every exec go.
const WATCHDOG: Duration = Duration::from_millis(500);

/// Execs held at once at most: each keeps a descriptor.
const MAX_PENDING: usize = 256;

/// Files remembered as needing no holding; forgotten all at once when there are more.
const MAX_KNOWN: usize = 65_536;

/// Mount namespaces remembered, and how much of a table of mounts is read.
const MAX_NAMESPACES: usize = 4096;
const MAX_MOUNTINFO: u64 = 4 << 20;

/// Serves until lifetrace closes its end. Returns an error only if the gate cannot be set up.
pub fn serve() -> io::Result<()> {
    let mut server = match Server::set_up() {
        Ok(server) => server,
        Err(error) => {
            println!("{error}");
            return Err(error);
        }
    };
    println!("ready");
    io::stdout().flush()?;
    // lifetrace reads our standard output to its end.
    let _ = nix::unistd::close(libc::STDOUT_FILENO);
    while server.turn()? {}
    Ok(())
}

struct Pending {
    event: FanotifyEvent,
    deadline: Instant,
}

struct Server {
    fanotify: Fanotify,
    mountinfo: File,
    /// Our own mount namespace, and the others in which something followed executes, with a hash of what is mounted there.
    own_mounts: u64,
    mounts: FxHashMap<u64, u64>,
    socket: OwnedFd,
    followed: BpfHashMap<MapData, u32, u64>,
    known: FxHashSet<FileKey>,
    /// What carries probes, by device and inode.
    probed: FxHashMap<(u64, u64), FileKey>,
    pending: HashMap<u64, Pending>,
    next_id: u64,
}

impl Server {
    fn set_up() -> io::Result<Self> {
        // SAFETY: lifetrace put these descriptors here for us, and nothing else in this process uses them.
        let (table, socket) = unsafe { (OwnedFd::from_raw_fd(FOLLOWED_FD), OwnedFd::from_raw_fd(SOCKET_FD)) };
        let table = MapData::from_fd(table).map_err(io::Error::other)?;
        let followed = BpfHashMap::try_from(Map::HashMap(table)).map_err(io::Error::other)?;
        let fanotify = Fanotify::init(
            InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC | InitFlags::FAN_NONBLOCK,
            EventFFlags::O_RDONLY | EventFFlags::O_LARGEFILE | EventFFlags::O_CLOEXEC,
        )
        .map_err(|error| io::Error::other(format!("fanotify_init: {error}")))?;
        let mountinfo = File::open("/proc/self/mountinfo")?;
        let mut server = Self {
            fanotify,
            mountinfo,
            own_mounts: fs::metadata("/proc/self/ns/mnt")?.ino(),
            mounts: FxHashMap::default(),
            socket,
            followed,
            known: FxHashSet::default(),
            probed: FxHashMap::default(),
            pending: HashMap::new(),
            next_id: 1,
        };
        server.leave_limits()?;
        if server.mark_all()? == 0 {
            return Err(io::Error::other("no file system takes a mark for FAN_OPEN_EXEC_PERM"));
        }
        Ok(server)
    }

    /// All descriptors we may have (a listener that cannot open a file makes the kernel refuse the exec), the right to open
    /// every file, and no control group that could freeze or throttle us while others wait for our answer.
    fn leave_limits(&mut self) -> io::Result<()> {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        if !features::may_open_every_file() {
            return Err(io::Error::other("it needs CAP_DAC_READ_SEARCH, or execs of unreadable files would be refused"));
        }
        let text = self.mount_table()?;
        for group in mounts::control_groups(&text) {
            // Where that is not allowed, the limits are those of lifetrace itself.
            let _ = fs::write(group.join("cgroup.procs"), "0");
        }
        Ok(())
    }

    fn mount_table(&mut self) -> io::Result<String> {
        let mut bytes = Vec::new();
        self.mountinfo.seek(SeekFrom::Start(0))?;
        self.mountinfo.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Marks every local file system that is mounted now; those marked before stay. Returns how many took the mark.
    fn mark_all(&mut self) -> io::Result<usize> {
        let text = self.mount_table()?;
        Ok(self.mark(&text, Path::new("/")))
    }

    /// Marks the local file systems of a table of mounts, whose points are below `root`. Returns how many took the mark.
    fn mark(&self, mountinfo: &str, root: &Path) -> usize {
        let flags = MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_FILESYSTEM;
        let mark =
            |point: &PathBuf| self.fanotify.mark(flags, MaskFlags::FAN_OPEN_EXEC_PERM, AT_FDCWD, Some(point.as_path())).is_ok();
        let is_its_own = |point: &PathBuf, device: &str| {
            fs::metadata(point).is_ok_and(|meta| format!("{}:{}", libc::major(meta.dev()), libc::minor(meta.dev())) == device)
        };
        let below = |point: &PathBuf| root.join(point.strip_prefix("/").unwrap_or(point));
        let systems = mounts::file_systems(mountinfo).into_iter();
        systems
            .filter(|system| {
                let points: Vec<_> = system.points.iter().map(below).collect();
                let own = points.iter().find(|point| is_its_own(point, &system.device));
                // btrfs shows other device numbers in stat: then the first that takes a mark will do.
                own.is_some_and(mark) || points.iter().any(mark)
            })
            .count()
    }

    /// Marks what is mounted where a followed process is, if that is a mount namespace of its own (`unshare`, a container): nobody tells
    /// us of mounts there, so it is looked at whenever something is executed there. Nothing of it is kept open, which would keep it
    /// mounted.
    fn mark_where(&mut self, tgid: u32) -> io::Result<()> {
        let namespace = fs::metadata(format!("/proc/{tgid}/ns/mnt"))?.ino();
        if namespace == self.own_mounts {
            return Ok(());
        }
        let mut bytes = Vec::new();
        File::open(format!("/proc/{tgid}/mountinfo"))?.take(MAX_MOUNTINFO).read_to_end(&mut bytes)?;
        let hash = BuildHasherDefault::<FxHasher>::default().hash_one(&bytes);
        if self.mounts.get(&namespace) == Some(&hash) {
            return Ok(());
        }
        if self.mounts.len() >= MAX_NAMESPACES {
            self.mounts.clear();
        }
        self.mark(&String::from_utf8_lossy(&bytes), Path::new(&format!("/proc/{tgid}/root")));
        self.mounts.insert(namespace, hash);
        Ok(())
    }

    /// Waits for something and deals with it; false when lifetrace is gone.
    fn turn(&mut self) -> io::Result<bool> {
        let timeout = match self.pending.values().map(|held| held.deadline).min() {
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
            None => PollTimeout::NONE,
        };
        let mut fds = [
            PollFd::new(self.fanotify.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.mountinfo.as_fd(), PollFlags::POLLPRI),
        ];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let _watchdog = Watchdog::start();
        let [execs, replies, mounts] = fds.map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        if !replies.is_empty() && !self.take_reply()? {
            return Ok(false);
        }
        if !mounts.is_empty()
            && let Err(error) = self.mark_all()
        {
            eprintln!("lifetrace: exec gate: {error}");
        }
        if !execs.is_empty() {
            self.take_execs()?;
        }
        let now = Instant::now();
        let late: Vec<u64> = self.pending.iter().filter(|(_, held)| held.deadline <= now).map(|(id, _)| *id).collect();
        for id in late {
            self.let_go(id);
        }
        Ok(true)
    }

    fn take_reply(&mut self) -> io::Result<bool> {
        let mut message = [0u8; REPLY_BYTES];
        let length = match recv(self.socket.as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => length,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        if length < message.len() {
            return Ok(false);
        }
        if let Some(key) = FileKey::from_bytes(&message[8..40]) {
            self.remember(key);
            if message[40] != 0 {
                self.probed.insert((key.device, key.inode), key);
            }
        }
        self.let_go(u64::from_le_bytes(message[..8].try_into().unwrap_or_default()));
        Ok(true)
    }

    fn remember(&mut self, key: FileKey) {
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert(key);
    }

    fn let_go(&mut self, id: u64) {
        if let Some(held) = self.pending.remove(&id) {
            self.allow(&held.event);
        }
    }

    fn allow(&self, event: &FanotifyEvent) {
        if let Some(fd) = event.fd() {
            // A task that was killed while it waited needs no answer: the error says nothing to us.
            let _ = self.fanotify.write_response(FanotifyResponse::new(fd, Response::FAN_ALLOW));
        }
    }

    fn take_execs(&mut self) -> io::Result<()> {
        let events = match self.fanotify.read_events() {
            Ok(events) => events,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
            Err(error @ Errno::EBADF) => return Err(error.into()),
            // One file could not be opened; the others are still to be answered.
            Err(error) => {
                eprintln!("lifetrace: exec gate: {error}");
                return Ok(());
            }
        };
        for event in events {
            match self.needs_holding(&event) {
                Some(file) => self.hold(event, &file),
                None => self.allow(&event),
            }
        }
        Ok(())
    }

    /// The file, if its exec must wait: a followed process's, of a program that lifetrace has not answered for; or
    /// anybody's, of a probed file that was rewritten since (its old probes would break the new program).
    fn needs_holding(&mut self, event: &FanotifyEvent) -> Option<File> {
        if self.pending.len() >= MAX_PENDING {
            return None;
        }
        let tgid = u32::try_from(event.pid()).ok()?;
        let file = File::from(event.fd()?.try_clone_to_owned().ok()?);
        let key = FileKey::of(&file).ok()?;
        if self.probed.get(&(key.device, key.inode)).is_some_and(|probed| *probed != key) {
            return Some(file);
        }
        if self.followed.get(&tgid, 0).is_err() {
            return None;
        }
        // It may have ended meanwhile.
        let _ = self.mark_where(tgid);
        if self.known.contains(&key) {
            return None;
        }
        if !is_elf(&file) {
            self.remember(key);
            return None;
        }
        Some(file)
    }

    fn hold(&mut self, event: FanotifyEvent, file: &File) {
        let id = self.next_id;
        self.next_id += 1;
        let mut message = [0u8; HELD_BYTES];
        let words = [id, u64::from(event.pid().unsigned_abs()), ktime_now().0];
        for (slot, word) in message.chunks_exact_mut(8).zip(words) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        let fds = [file.as_raw_fd()];
        let sent = sendmsg::<()>(
            self.socket.as_raw_fd(),
            &[IoSlice::new(&message)],
            &[ControlMessage::ScmRights(&fds)],
            MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
            None,
        );
        match sent {
            Ok(_) => {
                self.pending.insert(id, Pending { event, deadline: Instant::now() + DEADLINE });
            }
            Err(_) => self.allow(&event),
        }
    }
}

/// Whether a file is one that can carry probes. What a script names as its interpreter is another file.
fn is_elf(file: &File) -> bool {
    let mut magic = [0; 4];
    file.read_exact_at(&mut magic, 0).is_ok() && magic == *b"\x7fELF"
}

/// Ends this process if a turn's work does not come to its end: an alarm that is not caught.
struct Watchdog;

impl Watchdog {
    fn start() -> Self {
        Self::set(WATCHDOG);
        Self
    }

    fn set(after: Duration) {
        let zero = libc::timeval { tv_sec: 0, tv_usec: 0 };
        let value = libc::timeval { tv_sec: after.as_secs().cast_signed(), tv_usec: i64::from(after.subsec_micros()) };
        let timer = libc::itimerval { it_interval: zero, it_value: value };
        // SAFETY: the pointer is to a live local; the old value is not asked for.
        unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) };
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        Self::set(Duration::ZERO);
    }
}
