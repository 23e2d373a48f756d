//! How much memory a process has now, and its cgroup; and how many descriptors.
//!
//! Sources: proc_pid_statm(5); cgroups(7), `memory.current` and `memory.max` of version 2, `memory.usage_in_bytes` and
//! `memory.limit_in_bytes` of version 1, in whichever hierarchy the controller is mounted.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use nix::unistd::{SysconfVar, sysconf};

use super::{
    descriptors::Descriptors,
    hierarchies::{Controller, Hierarchy},
    procfs,
};
use crate::{
    id::{ProcessKey, Tgid},
    recording::contract::CgroupMemory,
};

/// Cgroups above one that are asked for their limit.
const MAX_DEPTH: usize = 64;
/// Bytes that are read of any file.
const MAX_FILE: u64 = 16 << 10;
/// Version 1 writes no limit as the largest number of whole pages.
const NO_LIMIT: u64 = 1 << 62;

/// Memory of one process at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    pub rss_bytes: Option<u64>,
    pub cgroup: Option<CgroupMemory>,
    /// How many descriptors it has, by kind; `None`: not looked at this time.
    pub descriptors: Option<BTreeMap<String, u64>>,
}

/// Reads the memory of processes.
#[derive(Debug)]
pub struct Meter {
    page_bytes: u64,
    controller: Option<Controller>,
    descriptors: Descriptors,
}

impl Meter {
    pub fn new() -> Self {
        let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
        Self {
            page_bytes: page.and_then(|page| page.try_into().ok()).unwrap_or(4096),
            controller: Controller::of("memory", &Hierarchy::all()),
            descriptors: Descriptors::default(),
        }
    }

    /// `None` if the process has ended; its number may be another's by now.
    pub fn read(&mut self, key: ProcessKey) -> Option<Memory> {
        let memory = self.look(key);
        if memory.is_none() {
            self.descriptors.forget(key);
        }
        memory
    }

    fn look(&mut self, key: ProcessKey) -> Option<Memory> {
        // What is read below an open folder is of that process, or of none.
        let folder = File::open(format!("/proc/{}", key.tgid)).ok()?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
        let stat = procfs::parse(key.tgid, &text(&path.join("stat")).ok()?)?;
        if stat.key != key || stat.zombie {
            return None;
        }
        let pages = text(&path.join("statm")).ok().and_then(|line| line.split(' ').nth(1)?.parse::<u64>().ok());
        let cgroup = self.controller.as_ref().and_then(|all| memory(all, &text(&path.join("cgroup")).ok()?));
        let descriptors = self.descriptors.count(key, &folder);
        Some(Memory { rss_bytes: pages.map(|pages| pages.saturating_mul(self.page_bytes)), cgroup, descriptors })
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self::new()
    }
}

/// What a process is called, without what would move a terminal.
pub fn comm(tgid: Tgid) -> io::Result<String> {
    Ok(text(Path::new(&format!("/proc/{tgid}/comm")))?.trim_end_matches('\n').replace(char::is_control, "?"))
}

/// The beginning of a file that the kernel writes.
fn text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `None`: there is no such file, or what it says is no number (`max`).
fn number(path: &Path) -> Option<u64> {
    text(path).ok()?.trim().parse().ok()
}

/// By the lines of `/proc/PID/cgroup`: of the nearest cgroup that is accounted for, and the lowest limit from there to the root.
fn memory(controller: &Controller, lines: &str) -> Option<CgroupMemory> {
    let Controller { hierarchy, old } = controller;
    let below = hierarchy.below(hierarchy.shown(lines)?)?;
    let (current, max) = if *old { ("memory.usage_in_bytes", "memory.limit_in_bytes") } else { ("memory.current", "memory.max") };
    let mut found: Option<(String, u64)> = None;
    let mut limit: Option<u64> = None;
    for cgroup in below.ancestors().take(MAX_DEPTH) {
        let folder = hierarchy.mount().join(cgroup);
        if found.is_none() {
            found = number(&folder.join(current)).map(|bytes| (hierarchy.named(cgroup), bytes));
        }
        if found.is_some() {
            let own = number(&folder.join(max)).filter(|bytes| *bytes < NO_LIMIT);
            limit = limit.into_iter().chain(own).min();
        }
    }
    let (path, current_bytes) = found?;
    Some(CgroupMemory { path, current_bytes, limit_bytes: limit })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Check that the nearest accounted cgroup and the lowest limit above it are taken, and that climbing paths are not followed.
    #[test]
    fn limits() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            fs::create_dir_all(dir.path().join(path).parent().unwrap()).unwrap();
            fs::write(dir.path().join(path), text).unwrap();
        };
        let of = |line: &str, mounted: &str| {
            let mounts = format!("29 25 0:26 {mounted}").replace("HERE", &dir.path().display().to_string());
            Controller::of("memory", &Hierarchy::parse(line, &mounts)).unwrap()
        };
        let all = of("0::/", "/ HERE rw - cgroup2 cgroup2 rw");
        assert_eq!(memory(&all, "0::/pod/app"), None);
        write("pod/memory.current", "5000\n");
        write("pod/memory.max", "8000\n");
        write("pod/app/memory.current", "700\n");
        write("pod/app/memory.max", "max\n");
        let app = CgroupMemory { path: "/pod/app".into(), current_bytes: 700, limit_bytes: Some(8000) };
        assert_eq!(memory(&all, "9:name=systemd:/x\n0::/pod/app\n"), Some(app.clone()));
        assert_eq!(memory(&all, "0::/pod/app/not-accounted"), Some(app));
        let pod = CgroupMemory { path: "/pod".into(), current_bytes: 5000, limit_bytes: Some(8000) };
        assert_eq!(memory(&all, "0::/pod"), Some(pod));
        for lines in ["", "0::", "0::/../pod", "0::/", "nonsense", "4:memory:/pod"] {
            assert_eq!(memory(&all, lines), None, "{lines}");
        }

        let old = of("4:cpu,memory:/", "/docker HERE rw - cgroup cgroup rw,cpu,memory");
        write("a/memory.usage_in_bytes", "30\n");
        write("a/memory.limit_in_bytes", "9223372036854771712\n");
        let unlimited = CgroupMemory { path: "/docker/a".into(), current_bytes: 30, limit_bytes: None };
        assert_eq!(memory(&old, "4:cpu,memory:/docker/a\n0::/"), Some(unlimited));
        assert_eq!(memory(&old, "4:memory:/elsewhere"), None);
    }

    /// Measures what a look at one process costs.
    #[test]
    #[ignore = "a measurement: run it alone, with --ignored --nocapture"]
    fn price() {
        let key = procfs::stat(Tgid(std::process::id())).unwrap().key;
        let (mut meter, rounds) = (Meter::new(), 10_000);
        let began = std::time::Instant::now();
        (0..rounds).for_each(|_| drop(std::hint::black_box(meter.read(key))));
        println!("{:.1} µs a look", began.elapsed().as_secs_f64() * 1e6 / f64::from(rounds));
    }

    /// Check that our own memory is read, and that one who has our number but began at another time is nobody.
    #[test]
    fn ourselves() {
        let key = procfs::stat(Tgid(std::process::id())).unwrap().key;
        let memory = Meter::new().read(key).unwrap();
        assert!(memory.rss_bytes > Some(1 << 20), "{memory:?}");
        assert_eq!(Meter::new().read(ProcessKey { start_ticks: key.start_ticks + 1, ..key }), None);
        assert!(!comm(key.tgid).unwrap().is_empty());
        assert!(comm(Tgid(0)).is_err());
    }
}
