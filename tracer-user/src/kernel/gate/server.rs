//! The gate's own process: listens to fanotify, holds what must be held, and never holds anything else.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, IoSlice, Read, Seek, SeekFrom, Write},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use aya::maps::{HashMap as BpfHashMap, Map, MapData};
use nix::{
    errno::Errno,
    fcntl::AT_FDCWD,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        fanotify::{EventFFlags, Fanotify, FanotifyEvent, FanotifyResponse, InitFlags, MarkFlags, MaskFlags, Response},
        socket::{ControlMessage, MsgFlags, recv, sendmsg},
    },
};
use rustc_hash::FxHashSet;

use super::{FOLLOWED_FD, FileKey, SOCKET_FD, mounts};
use crate::golang::looks_like_go;

/// A held exec goes on after this long whatever happened.
pub const DEADLINE: Duration = Duration::from_secs(1);

/// Files remembered as needing no holding; forgotten all at once when there are more.
const MAX_KNOWN: usize = 65_536;

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
    socket: OwnedFd,
    followed: BpfHashMap<MapData, u32, u64>,
    known: FxHashSet<FileKey>,
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
        let mut server =
            Self { fanotify, mountinfo, socket, followed, known: FxHashSet::default(), pending: HashMap::new(), next_id: 1 };
        if server.mark_all()? == 0 {
            return Err(io::Error::other("no file system takes a mark for FAN_OPEN_EXEC_PERM"));
        }
        Ok(server)
    }

    /// Marks every file system that is mounted now; those marked before stay. Returns how many took the mark.
    fn mark_all(&mut self) -> io::Result<usize> {
        let mut text = String::new();
        self.mountinfo.seek(SeekFrom::Start(0))?;
        self.mountinfo.read_to_string(&mut text)?;
        let flags = MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_FILESYSTEM;
        let marked = mounts::file_systems(&text)
            .iter()
            .filter(|point| self.fanotify.mark(flags, MaskFlags::FAN_OPEN_EXEC_PERM, AT_FDCWD, Some(point.as_path())).is_ok())
            .count();
        Ok(marked)
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
        let [execs, replies, mounts] = fds.map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        if !replies.is_empty() && !self.take_reply()? {
            return Ok(false);
        }
        if !mounts.is_empty() {
            self.mark_all()?;
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
        let mut message = [0u8; 40];
        let length = match recv(self.socket.as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => length,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        if length < message.len() {
            return Ok(false);
        }
        if let Some(key) = FileKey::from_bytes(&message[8..]) {
            self.remember(key);
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
            Err(error) => return Err(error.into()),
        };
        for event in events {
            match self.needs_holding(&event) {
                Some(file) => self.hold(event, &file),
                None => self.allow(&event),
            }
        }
        Ok(())
    }

    /// The file, if the exec is a followed process's, of a Go binary that lifetrace has not answered for.
    fn needs_holding(&mut self, event: &FanotifyEvent) -> Option<File> {
        let tgid = u32::try_from(event.pid()).ok()?;
        self.followed.get(&tgid, 0).ok()?;
        let file = File::from(event.fd()?.try_clone_to_owned().ok()?);
        let key = FileKey::of(&file).ok()?;
        if self.known.contains(&key) {
            return None;
        }
        if !looks_like_go(&file).unwrap_or(false) {
            self.remember(key);
            return None;
        }
        Some(file)
    }

    fn hold(&mut self, event: FanotifyEvent, file: &File) {
        let id = self.next_id;
        self.next_id += 1;
        let mut message = [0u8; 16];
        message[..8].copy_from_slice(&id.to_le_bytes());
        message[8..].copy_from_slice(&u64::from(event.pid().unsigned_abs()).to_le_bytes());
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
