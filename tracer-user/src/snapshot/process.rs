//! A running process: its program, where that is loaded, and its memory.
//!
//! Source: proc_pid_maps(5), process_vm_readv(2). Reading takes the rights of ptrace(2), but never attaches or stops.

use std::{
    cell::Cell,
    fs::{self, File},
    io::{self, BufRead, BufReader, ErrorKind, IoSliceMut},
    os::unix::fs::MetadataExt,
    sync::Arc,
};

use nix::{
    errno::Errno,
    sys::uio::{RemoteIoVec, process_vm_readv},
    unistd::Pid,
};
use rustc_hash::FxHashMap;

use super::{
    Before, Detail, Goroutines, Snapshot, SnapshotError,
    go_tests::{self, Candidate},
    memory::{Memory, MemoryError, Piece},
    self_check::{self, Borne, Doubt},
    take_again,
};
use crate::{
    clock::{KtimeNs, ktime_now, wall_now},
    golang::{AllGoroutines, GoBinary, GolangError},
    id::Tgid,
    recording::contract::{CodeUse, TestSeen},
};

/// Pieces that one call takes (`UIO_MAXIOV`).
const MAX_PIECES: usize = 1024;
/// Bytes that one call reads: about a tenth of a millisecond.
const MAX_CALL: usize = 256 << 10;
/// How long we read before others get a turn: less than the scheduler's own slice.
const TURN_NS: u64 = 500_000;
/// Where Go's tests are started, and the function that its `go` statement is made into.
const RUN: &str = "testing.(*T).Run";
const WRAPPER: &str = "testing.(*T).Run.";
/// Lines of maps that are looked at.
const MAX_MAPPINGS: usize = 1 << 20;
const ADVICE: &str = "run as root or with CAP_SYS_PTRACE; a process of your own can be read without, if \
                      /proc/sys/kernel/yama/ptrace_scope is 0 and the process is dumpable";

/// Why a process cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("there is no process {tgid}")]
    NoProcess { tgid: Tgid },
    #[error("not allowed to look at process {tgid}: {ADVICE}")]
    Forbidden { tgid: Tgid },
    #[error("process {tgid} runs no program: it is a kernel thread, or has ended")]
    NoProgram { tgid: Tgid },
    #[error("process {tgid} is {what}")]
    NotGo { tgid: Tgid, what: String },
    #[error("process {tgid} ended or became another program meanwhile")]
    Gone { tgid: Tgid },
    #[error("where process {tgid} is loaded cannot be told")]
    NotLoaded { tgid: Tgid },
    #[error("goroutines of process {tgid} cannot be read")]
    Snapshot {
        tgid: Tgid,
        #[source]
        source: SnapshotError,
    },
    #[error("process {tgid} does not bear out what is believed of its Go runtime")]
    Doubted {
        tgid: Tgid,
        #[source]
        source: Doubt,
    },
    #[error("process {tgid} cannot be looked at")]
    Io {
        tgid: Tgid,
        #[source]
        source: io::Error,
    },
}

/// A Go process, its program read.
pub struct Process {
    tgid: Tgid,
    pub binary: Arc<GoBinary>,
    pub bias: u64,
    identity: Identity,
}

/// Tells a process from a later one of the same number, and from what it becomes by an exec.
#[derive(PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    start_time: Option<u64>,
}

impl Process {
    pub fn open(tgid: Tgid) -> Result<Self, ProcessError> {
        let exe = File::open(path(tgid, "exe")).map_err(|source| refused(tgid, source))?;
        let binary = GoBinary::open(&exe).map_err(|error| match error {
            GolangError::NotGo { what } => ProcessError::NotGo { tgid, what: format!("no Go program but {what}") },
            error => ProcessError::Snapshot { tgid, source: error.into() },
        })?;
        Self::running(tgid, Arc::new(binary))
    }

    /// The same where its program has been read already.
    pub fn running(tgid: Tgid, binary: Arc<GoBinary>) -> Result<Self, ProcessError> {
        let identity = identity(tgid).map_err(|source| refused(tgid, source))?;
        let bias = bias(tgid, &identity, &binary)?;
        Ok(Self { tgid, binary, bias, identity })
    }

    /// Whether it bears out the offsets that are believed of its runtime.
    pub fn self_check(&self) -> Result<Borne, ProcessError> {
        hold_against(self.tgid, &self.binary, self.bias)
    }

    /// Reads all its goroutines.
    pub fn snapshot(&self) -> Result<Snapshot, ProcessError> {
        self.snapshot_of(Detail::Whole)
    }

    /// Reads so much of all its goroutines.
    pub fn snapshot_of(&self, detail: Detail) -> Result<Snapshot, ProcessError> {
        self.snapshot_again(detail, &mut Before::default())
    }

    /// The same, one look after the other: see [`take_again`].
    pub fn snapshot_again(&self, detail: Detail, before: &mut Before) -> Result<Snapshot, ProcessError> {
        let tgid = self.tgid;
        if self.binary.needs_self_check() {
            self.self_check()?;
        }
        let memory = ProcessMemory::of(Pid::from_raw(tgid.0.cast_signed()));
        let (taken_at, taken_at_ktime) = (wall_now(), ktime_now());
        let found = take_again(&memory, &self.binary, self.bias, detail, before);
        let duration_ns = ktime_now().since(taken_at_ktime);
        if identity(tgid).ok().as_ref() != Some(&self.identity) {
            return Err(ProcessError::Gone { tgid });
        }
        let found = found.map_err(|source| match source {
            SnapshotError::Memory(MemoryError::Forbidden) => ProcessError::Forbidden { tgid },
            SnapshotError::Memory(MemoryError::Gone) => ProcessError::Gone { tgid },
            source => ProcessError::Snapshot { tgid, source },
        })?;
        Ok(Snapshot { go_version: self.binary.version().to_string(), taken_at, taken_at_ktime, duration_ns, found })
    }
}

impl Process {
    /// The tests that run in goroutines of a snapshot: those that the `go` statement of `testing.(*T).Run` made.
    pub fn tests(&self, found: &Goroutines) -> Vec<TestSeen> {
        let (binary, bias) = (&self.binary, self.bias);
        let mut runs = FxHashMap::default();
        let mut is_run = |pc: u64| {
            *runs.entry(pc).or_insert_with(|| {
                let frames = binary.symbolize(pc.wrapping_sub(bias), CodeUse::Return);
                frames.last().is_some_and(|frame| frame.function == RUN)
            })
        };
        let made = found.all.iter().filter(|goroutine| is_run(goroutine.gopc.0));
        let candidates: Vec<Candidate> =
            made.map(|goroutine| Candidate { goid: goroutine.goid, stack_hi: goroutine.stack_hi }).collect();
        let in_wrapper = |pc: u64| {
            let frames = binary.in_code(pc.wrapping_sub(bias)).then(|| binary.symbolize(pc.wrapping_sub(bias), CodeUse::Return));
            frames.is_some_and(|frames| frames.last().is_some_and(|frame| frame.function.starts_with(WRAPPER)))
        };
        let memory = ProcessMemory::of(Pid::from_raw(self.tgid.0.cast_signed()));
        let names = go_tests::names(&memory, &candidates, &in_wrapper).unwrap_or_default();
        candidates.iter().map(|one| TestSeen { goid: one.goid, name: names.get(&one.goid).cloned().flatten() }).collect()
    }
}

/// Whether a process that runs `binary` bears out the offsets that are believed of its runtime.
pub fn verify(tgid: Tgid, binary: &GoBinary) -> Result<Borne, ProcessError> {
    let identity = identity(tgid).map_err(|source| refused(tgid, source))?;
    hold_against(tgid, binary, bias(tgid, &identity, binary)?)
}

fn hold_against(tgid: Tgid, binary: &GoBinary, bias: u64) -> Result<Borne, ProcessError> {
    let unreadable = |source: GolangError| ProcessError::Snapshot { tgid, source: source.into() };
    let all = binary.all_goroutines().map_err(unreadable)?;
    let subject = self_check::Subject {
        all: AllGoroutines { len: all.len.wrapping_add(bias), first: all.first.wrapping_add(bias) },
        offsets: binary.offsets().map_err(unreadable)?,
        wait_reasons: binary.wait_reasons().len(),
        in_code: &|pc| binary.in_code(pc.wrapping_sub(bias)),
        is_entry: &|pc| binary.is_entry(pc.wrapping_sub(bias)),
    };
    let memory = ProcessMemory::of(Pid::from_raw(tgid.0.cast_signed()));
    self_check::check(&memory, &subject).map_err(|doubt| match doubt {
        Doubt::Memory(MemoryError::Forbidden) => ProcessError::Forbidden { tgid },
        Doubt::Memory(MemoryError::Gone) => ProcessError::Gone { tgid },
        source => ProcessError::Doubted { tgid, source },
    })
}

/// How far the program of a process was moved when loaded.
fn bias(tgid: Tgid, identity: &Identity, binary: &GoBinary) -> Result<u64, ProcessError> {
    let maps = File::open(path(tgid, "maps")).map_err(|source| refused(tgid, source))?;
    let name = fs::read_link(path(tgid, "exe")).map_err(|source| refused(tgid, source))?;
    let mapping = first_mapping(BufReader::new(maps), identity.inode, &name.to_string_lossy());
    let mapping = mapping.map_err(|source| refused(tgid, source))?;
    let bias = mapping.and_then(|mapping| binary.load_bias(mapping.address, mapping.offset));
    bias.ok_or(ProcessError::NotLoaded { tgid })
}

fn path(tgid: Tgid, file: &str) -> String {
    format!("/proc/{tgid}/{file}")
}

fn refused(tgid: Tgid, source: io::Error) -> ProcessError {
    match source.kind() {
        ErrorKind::PermissionDenied => ProcessError::Forbidden { tgid },
        ErrorKind::NotFound if fs::exists(format!("/proc/{tgid}")).unwrap_or(false) => ProcessError::NoProgram { tgid },
        ErrorKind::NotFound => ProcessError::NoProcess { tgid },
        _ if source.raw_os_error() == Some(Errno::ESRCH as i32) => ProcessError::NoProcess { tgid },
        _ => ProcessError::Io { tgid, source },
    }
}

fn identity(tgid: Tgid) -> io::Result<Identity> {
    let exe = fs::metadata(path(tgid, "exe"))?;
    let stat = fs::read_to_string(path(tgid, "stat"))?;
    // The name may hold anything; what follows its last parenthesis begins with field 3, and 22 is the start time.
    let start_time = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(19)?.parse().ok());
    Ok(Identity { device: exe.dev(), inode: exe.ino(), start_time })
}

#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    address: u64,
    offset: u64,
}

/// The first mapping of a file: by its inode, else by its name (some file systems show another inode here than stat does).
fn first_mapping(maps: impl BufRead, inode: u64, name: &str) -> io::Result<Option<Mapping>> {
    let mut named = None;
    for line in maps.lines().take(MAX_MAPPINGS) {
        let line = line?;
        let Some((mapping, of, path)) = mapping(&line) else { continue };
        if of == inode && inode != 0 {
            return Ok(Some(mapping));
        }
        if path == name && named.is_none() {
            named = Some(mapping);
        }
    }
    Ok(named)
}

/// [`first_mapping`] as address and offset.
#[cfg(feature = "fuzz")]
pub fn first_mapping_of(maps: &[u8], inode: u64, name: &str) -> Option<(u64, u64)> {
    first_mapping(maps, inode, name).ok().flatten().map(|mapping| (mapping.address, mapping.offset))
}

/// `400000-5a1000 r-xp 00001000 08:01 1234   /usr/bin/x`: the mapping, inode and path.
fn mapping(line: &str) -> Option<(Mapping, u64, &str)> {
    let mut fields = line.splitn(6, ' ');
    let (address, _) = fields.next()?.split_once('-')?;
    let offset = fields.nth(1)?;
    let inode = fields.nth(1)?.parse().ok()?;
    let mapping = Mapping { address: u64::from_str_radix(address, 16).ok()?, offset: u64::from_str_radix(offset, 16).ok()? };
    Some((mapping, inode, fields.next().unwrap_or_default().trim_start()))
}

/// As many pieces as one call takes.
fn batch(pieces: &[Piece]) -> &[Piece] {
    let mut bytes = 0usize;
    let fits = pieces.iter().take(MAX_PIECES).take_while(|piece| {
        let first = bytes == 0;
        bytes = bytes.saturating_add(piece.len);
        first || bytes <= MAX_CALL
    });
    pieces.get(..fits.count()).unwrap_or(pieces)
}

/// The memory of a process by process_vm_readv(2).
struct ProcessMemory {
    pid: Pid,
    gave_way: Cell<KtimeNs>,
}

impl ProcessMemory {
    fn of(pid: Pid) -> Self {
        Self { pid, gave_way: Cell::new(ktime_now()) }
    }

    /// Lets others run now and then, at a moment of our choice. Otherwise the kernel takes the CPU away from us at one of its own, and
    /// while it reads it holds the target's `mmap_lock`: on a busy machine the target could map and unmap nothing until it is our
    /// turn again.
    fn give_way(&self) {
        if ktime_now().since(self.gave_way.get()) >= TURN_NS {
            std::thread::yield_now();
            self.gave_way.set(ktime_now());
        }
    }
}

impl Memory for ProcessMemory {
    fn read(&self, pieces: &[Piece], buffer: &mut [u8]) -> Result<Vec<usize>, MemoryError> {
        let mut lens = Vec::with_capacity(pieces.len());
        let mut buffer = buffer;
        while let Some(rest) = pieces.get(lens.len()..).filter(|rest| !rest.is_empty()) {
            let batch = batch(rest);
            self.give_way();
            let remote: Vec<_> = batch.iter().map(|p| RemoteIoVec { base: p.address as usize, len: p.len }).collect();
            let total = batch.iter().map(|piece| piece.len).sum::<usize>().min(buffer.len());
            let (into, _) = buffer.split_at_mut(total);
            let mut read = match process_vm_readv(self.pid, &mut [IoSliceMut::new(into)], &remote) {
                Ok(read) => read,
                // The first piece is not mapped.
                Err(Errno::EFAULT) => 0,
                Err(Errno::EPERM | Errno::EACCES) => return Err(MemoryError::Forbidden),
                Err(Errno::ESRCH) => return Err(MemoryError::Gone),
                Err(errno) => return Err(MemoryError::Io(errno.into())),
            };
            // The call stops in the first piece that is not wholly mapped; what is behind it has to be asked for again.
            let mut done = 0;
            for piece in batch {
                let len = piece.len.min(read);
                lens.push(len);
                done += piece.len;
                read -= len;
                if len < piece.len {
                    break;
                }
            }
            buffer = std::mem::take(&mut buffer).get_mut(done..).unwrap_or_default();
        }
        Ok(lens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the mapping of the file is told from those around it, by inode or by name.
    #[test]
    fn mappings() {
        let maps = "00400000-004a1000 r-xp 00000000 fe:00 77      /srv/other\n\
                    55d0c0001000-55d0c0002000 r--p 00001000 fe:00 1234      /srv/my program\n\
                    55d0c0002000-55d0c0003000 r-xp 00002000 fe:00 1234      /srv/my program\n\
                    7ffd00000000-7ffd00001000 rw-p 00000000 00:00 0         [stack]\nnonsense\n";
        let expected = Some(Mapping { address: 0x55d0_c000_1000, offset: 0x1000 });
        assert_eq!(first_mapping(maps.as_bytes(), 1234, "").unwrap(), expected);
        assert_eq!(first_mapping(maps.as_bytes(), 5, "/srv/my program").unwrap(), expected);
        assert_eq!(first_mapping(maps.as_bytes(), 0, "/none").unwrap(), None);
    }

    /// Check that pieces around one that is not mapped are read, and that one at the edge is read up to it.
    #[test]
    fn partial_reads() {
        let own = ProcessMemory::of(Pid::this());
        let known = [7u8; 64];
        let address = known.as_ptr() as u64;
        let piece = |address, len| Piece { address, len };
        let pieces = [piece(8, 16), piece(address, 64), piece(16, 8), piece(u64::MAX - 7, 8), piece(address, 8), piece(24, 8)];
        let mut buffer = vec![0; 112];
        assert_eq!(own.read(&pieces, &mut buffer).unwrap(), [0, 64, 0, 0, 8, 0]);
        assert_eq!((&buffer[16..80], &buffer[96..104]), (&known[..], &known[..8]));
        let many = vec![piece(address, 2); 3000];
        let mut buffer = vec![0; 6000];
        assert_eq!(own.read(&many, &mut buffer).unwrap(), vec![2; 3000]);
        assert!(buffer.iter().all(|byte| *byte == 7));
    }

    /// Check what is said of a process that is not there, of a kernel thread's number and of a program that is not Go.
    #[test]
    fn no_go_process() {
        assert!(matches!(Process::open(Tgid(u32::MAX)), Err(ProcessError::NoProcess { .. })));
        assert!(matches!(Process::open(Tgid(std::process::id())), Err(ProcessError::NotGo { .. })));
    }
}
