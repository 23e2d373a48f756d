//! What /proc tells of a process (proc_pid_stat(5), proc_pid_cmdline(5)).

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
};

use crate::{
    id::{ProcessKey, Tgid, Tid},
    recording::contract::ThreadMet,
};

/// USER_HZ: the unit of times in `/proc/PID/stat`.
pub const NS_PER_TICK: u64 = 10_000_000;
/// Bytes of a stat line: 52 numbers and a name have less.
const MAX_STAT: usize = 2048;
/// Bytes of arguments that are kept.
const MAX_ARGS: u64 = 4096;

/// A process, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub key: ProcessKey,
    pub parent: Tgid,
    /// User and system time of all its threads, those that have ended included.
    pub cpu_ns: u64,
    /// It has ended, and waits for its parent to ask how.
    pub zombie: bool,
    /// By a signal or a tracer.
    pub stopped: bool,
    pub threads: u64,
}

/// Reads a process's stat line. `NotFound` where there is no such process.
pub fn stat(tgid: Tgid) -> io::Result<Stat> {
    // The kernel gives all of it at once, if there is room.
    let mut line = [0; MAX_STAT];
    let got = File::open(format!("/proc/{tgid}/stat"))?.read(&mut line)?;
    parse(tgid, &String::from_utf8_lossy(&line[..got]))
        .ok_or_else(|| io::Error::other(format!("/proc/{tgid}/stat makes no sense")))
}

pub(super) fn parse(tgid: Tgid, line: &str) -> Option<Stat> {
    // The name may hold anything; what follows its last parenthesis begins with field 3, the state.
    let (_, rest) = line.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        key: ProcessKey { tgid, start_ticks: number(22)? },
        parent: Tgid(u32::try_from(number(4)?).ok()?),
        cpu_ns: number(14)?.checked_add(number(15)?)?.checked_mul(NS_PER_TICK)?,
        zombie: matches!(fields.first(), Some(&("Z" | "X"))),
        stopped: matches!(fields.first(), Some(&("T" | "t"))),
        threads: number(20)?,
    })
}

/// What it was called with; empty where that cannot be read.
pub fn args(tgid: Tgid) -> Vec<String> {
    let mut area = Vec::new();
    let read = File::open(format!("/proc/{tgid}/cmdline")).and_then(|file| file.take(MAX_ARGS).read_to_end(&mut area));
    if read.is_err() || area.is_empty() {
        return Vec::new();
    }
    let area = area.strip_suffix(&[0]).unwrap_or(&area);
    area.split(|byte| *byte == 0).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
}

/// The file that a process runs, as its own mount namespace names it; one that was replaced meanwhile by its old name.
pub fn exe(tgid: Tgid) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/{tgid}/exe")).map(without_mark)
}

/// The kernel marks files that have no name any more (`fs/d_path.c`).
pub fn without_mark(path: PathBuf) -> PathBuf {
    path.as_os_str().as_bytes().strip_suffix(b" (deleted)").map(|name| OsStr::from_bytes(name).into()).unwrap_or(path)
}

/// Threads that are read of one process at most.
const MAX_THREADS: usize = 100_000;

/// The threads that a process has; none where that cannot be read.
pub fn threads(tgid: Tgid) -> Vec<ThreadMet> {
    let Ok(entries) = fs::read_dir(format!("/proc/{tgid}/task")) else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let thread = |tid: u32| {
        let name = fs::read(format!("/proc/{tgid}/task/{tid}/comm")).ok()?;
        Some(ThreadMet { tid: Tid(tid), name: String::from_utf8_lossy(&name).trim_end_matches('\n').to_owned() })
    };
    numbers.take(MAX_THREADS).filter_map(thread).collect()
}

/// Every process there is.
pub fn all() -> io::Result<Vec<Tgid>> {
    let names = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(names.map(Tgid).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a stat line is read whatever the program is called, and nonsense is none.
    #[test]
    fn stat_lines() {
        let line = "77 (a) Z 1 (b)) S 4 5 6 7 8 9 10 11 12 13 100 20 16 17 18 19 20 21 123456 23";
        let stat = parse(Tgid(77), line).unwrap();
        assert_eq!((stat.parent, stat.key.start_ticks, stat.cpu_ns), (Tgid(4), 123_456, 1_200_000_000));
        assert!(!stat.zombie && !stat.stopped && stat.threads == 20);
        assert!(parse(Tgid(77), &line.replace(") S ", ") T ")).unwrap().stopped);
        for line in ["", "77 (x)", "77 (x) S 4", "77 (x) S four 5 6 7 8 9 10 11 12 13 100 20 16 17 18 19 20 21 123456"] {
            assert_eq!(parse(Tgid(77), line), None, "{line}");
        }
    }

    /// Check that a file keeps its name when another one has taken its place.
    #[test]
    fn replaced() {
        for (link, name) in [("/a (deleted)", "/a"), ("/a", "/a"), ("/(deleted)", "/(deleted)")] {
            assert_eq!(without_mark(link.into()), PathBuf::from(name));
        }
    }

    /// Check that we find ourselves.
    #[test]
    fn ourselves() {
        let own = Tgid(std::process::id());
        assert!(all().unwrap().contains(&own));
        assert_eq!(stat(own).unwrap().key.tgid, own);
        assert!(!args(own).is_empty());
    }
}
