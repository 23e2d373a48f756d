//! What a cgroup has to bear: CPU quota and throttling, and how often its memory ran out.
//!
//! Sources: cgroups(7), Documentation/admin-guide/cgroup-v2.rst (`cpu.stat`, `cpu.max`, `memory.events`, `memory.max`), and of version 1
//! Documentation/scheduler/sched-bwc.rst (`cpu.stat`, `cpu.cfs_quota_us`) and cgroup-v1/memory.rst (`memory.failcnt`, `memory.oom_control`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use super::hierarchies::{Controller, Hierarchy};
use crate::{
    id::Tgid,
    recording::contract::{CgroupLoad, MemoryEvents, Throttling},
};

/// Cgroups above one that are asked for their quota.
const MAX_DEPTH: usize = 64;
/// Bytes that are read of any file.
const MAX_FILE: u64 = 16 << 10;
/// Version 1 writes no limit as the largest number of whole pages.
const NO_LIMIT: u64 = 1 << 62;
/// Cgroups that are read in one round: of others nothing is told.
const MAX_CGROUPS: usize = 256;

/// Reads the accounts of cgroups.
#[derive(Clone, Debug)]
pub struct Accounts {
    cpu: Option<Controller>,
    memory: Option<Controller>,
    /// Who was where in the last round.
    last: BTreeMap<Paths, Vec<Tgid>>,
}

/// Of a process in the hierarchies of CPU and memory.
type Paths = (Option<String>, Option<String>);

impl Accounts {
    pub fn new() -> Self {
        let hierarchies = Hierarchy::all();
        let of = |controller| Controller::of(controller, &hierarchies);
        Self { cpu: of("cpu"), memory: of("memory"), last: BTreeMap::new() }
    }

    /// What the cgroups of these processes had to bear by now, and once more those of processes that were among them in the round before: a
    /// cgroup's end, as by the lack of memory, is worth a look. Those of the root have no accounts of their own.
    pub fn read(&mut self, tgids: impl Iterator<Item = Tgid>) -> Vec<CgroupLoad> {
        let mut groups: BTreeMap<Paths, Vec<Tgid>> = BTreeMap::new();
        let mut there = BTreeSet::new();
        for tgid in tgids {
            let Some(lines) = text(Path::new(&format!("/proc/{tgid}/cgroup"))) else { continue };
            let path = |of: &Option<Controller>| of.as_ref()?.hierarchy.shown(&lines).map(str::to_owned);
            let key = (path(&self.cpu), path(&self.memory));
            if groups.len() < MAX_CGROUPS || groups.contains_key(&key) {
                groups.entry(key).or_default().push(tgid);
                there.insert(tgid);
            }
        }
        for (paths, tgids) in std::mem::replace(&mut self.last, groups.clone()) {
            let gone = tgids.into_iter().filter(|tgid| !there.contains(tgid)).collect::<Vec<_>>();
            if !gone.is_empty() {
                groups.entry(paths).or_default().extend(gone);
            }
        }
        let named =
            |of: &Option<Controller>, path: Option<String>| of.as_ref().zip(path).map(|(of, path)| of.hierarchy.whole(&path));
        let load = groups.into_iter().map(|((cpu_path, memory_path), tgids)| CgroupLoad {
            cpu: self.cpu.as_ref().zip(cpu_path.as_deref()).and_then(|(all, path)| all.throttling(path)),
            memory: self.memory.as_ref().zip(memory_path.as_deref()).and_then(|(all, path)| all.events(path)),
            cpu_path: named(&self.cpu, cpu_path),
            memory_path: named(&self.memory, memory_path),
            tgids,
        });
        load.filter(|load| load.cpu.is_some() || load.memory.is_some()).collect()
    }
}

impl Default for Accounts {
    fn default() -> Self {
        Self::new()
    }
}

impl Controller {
    /// The folders of a cgroup and of those above it, from the inside out, without the root's.
    fn folders(&self, path: &str) -> Vec<PathBuf> {
        let Some(below) = self.hierarchy.below(path) else { return Vec::new() };
        let above = below.ancestors().take(MAX_DEPTH).filter(|part| !part.as_os_str().is_empty());
        above.map(|part| self.hierarchy.mount().join(part)).collect()
    }

    /// Quota and throttling of the nearest cgroup that has a quota: who is in it stands still when that is used up.
    fn throttling(&self, path: &str) -> Option<Throttling> {
        let folders = self.folders(path);
        let limited = folders.iter().find_map(|folder| self.quota(folder).map(|quota| (folder, quota)));
        let (folder, quota) = match limited {
            Some((folder, quota)) => (folder, Some(quota)),
            None => (folders.first()?, None),
        };
        let stat = text(&folder.join("cpu.stat"))?;
        let throttled_ns = match self.old {
            true => value(&stat, "throttled_time"),
            false => value(&stat, "throttled_usec").map(|us| us.saturating_mul(1000)),
        };
        Some(Throttling {
            quota_ns: quota.map(|(quota, _)| quota),
            period_ns: quota.map_or(0, |(_, period)| period),
            periods: value(&stat, "nr_periods")?,
            throttled_periods: value(&stat, "nr_throttled")?,
            throttled_ns: throttled_ns?,
        })
    }

    /// Quota and period, ns.
    fn quota(&self, folder: &Path) -> Option<(u64, u64)> {
        let (quota, period) = match self.old {
            // No quota is -1.
            true => (text(&folder.join("cpu.cfs_quota_us"))?, text(&folder.join("cpu.cfs_period_us"))?),
            false => {
                let line = text(&folder.join("cpu.max"))?;
                let (quota, period) = line.trim().split_once(' ')?;
                (quota.to_owned(), period.to_owned())
            }
        };
        let ns = |us: String| us.trim().parse::<u64>().ok()?.checked_mul(1000);
        Some((ns(quota)?, ns(period)?))
    }

    fn events(&self, path: &str) -> Option<MemoryEvents> {
        let folders = self.folders(path);
        let folder = folders.first()?;
        let number = |name: &str| text(&folder.join(name))?.trim().parse::<u64>().ok();
        match self.old {
            true => {
                let control = text(&folder.join("memory.oom_control")).unwrap_or_default();
                Some(MemoryEvents {
                    limit_bytes: number("memory.limit_in_bytes").filter(|limit| *limit < NO_LIMIT),
                    max: number("memory.failcnt")?,
                    oom: None,
                    oom_kill: value(&control, "oom_kill"),
                })
            }
            false => {
                let events = text(&folder.join("memory.events"))?;
                Some(MemoryEvents {
                    limit_bytes: number("memory.max"),
                    max: value(&events, "max")?,
                    oom: value(&events, "oom"),
                    oom_kill: value(&events, "oom_kill"),
                })
            }
        }
    }
}

/// Of lines `NAME VALUE`.
fn value(lines: &str, name: &str) -> Option<u64> {
    lines.lines().find_map(|line| line.split_once(' ').filter(|(found, _)| *found == name)?.1.trim().parse().ok())
}

/// The beginning of a file that the kernel writes.
fn text(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            fs::create_dir_all(dir.path().join(path).parent().unwrap()).unwrap();
            fs::write(dir.path().join(path), text).unwrap();
        }
        dir
    }

    fn version_2(mount: &Path) -> Controller {
        let mounts = format!("29 25 0:26 / {} rw - cgroup2 cgroup2 rw", mount.display());
        Controller::of("cpu", &Hierarchy::parse("0::/", &mounts)).unwrap()
    }

    /// Check that the nearest quota counts, in both versions, and that a cgroup without one is read all the same.
    #[test]
    fn quotas() {
        let dir = tree(&[
            ("pod/cpu.max", "50000 100000\n"),
            ("pod/cpu.stat", "usage_usec 5\nnr_periods 40\nnr_throttled 30\nthrottled_usec 2500\n"),
            ("pod/app/cpu.max", "max 100000\n"),
            ("pod/app/cpu.stat", "usage_usec 5\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n"),
            ("free/cpu.max", "max 100000\n"),
            ("free/cpu.stat", "nr_periods 0\nnr_throttled 0\nthrottled_usec 0\n"),
            ("old/cpu.cfs_quota_us", "20000\n"),
            ("old/cpu.cfs_period_us", "100000\n"),
            ("old/cpu.stat", "nr_periods 9\nnr_throttled 8\nthrottled_time 777\n"),
        ]);
        let two = version_2(dir.path());
        let pod = Throttling {
            quota_ns: Some(50_000_000),
            period_ns: 100_000_000,
            periods: 40,
            throttled_periods: 30,
            throttled_ns: 2_500_000,
        };
        assert_eq!(two.throttling("/pod/app"), Some(pod));
        assert_eq!(two.throttling("/free"), Some(Throttling::default()));
        for path in ["/", "/nowhere", "/../pod"] {
            assert_eq!(two.throttling(path), None, "{path}");
        }
        let one = Controller { old: true, ..two };
        let old = Throttling {
            quota_ns: Some(20_000_000),
            period_ns: 100_000_000,
            periods: 9,
            throttled_periods: 8,
            throttled_ns: 777,
        };
        assert_eq!(one.throttling("/old"), Some(old));
    }

    /// Check that what memory had to bear is read in both versions.
    #[test]
    fn memory() {
        let dir = tree(&[
            ("two/memory.max", "4096\n"),
            ("two/memory.events", "low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\n"),
            ("one/memory.limit_in_bytes", "9223372036854771712\n"),
            ("one/memory.failcnt", "3\n"),
            ("one/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"),
        ]);
        let two = version_2(dir.path());
        let events = MemoryEvents { limit_bytes: Some(4096), max: 12, oom: Some(2), oom_kill: Some(1) };
        assert_eq!(two.events("/two"), Some(events));
        let one = Controller { old: true, ..two };
        assert_eq!(one.events("/one"), Some(MemoryEvents { limit_bytes: None, max: 3, oom: None, oom_kill: Some(4) }));
    }

    /// Check that each controller is found in the hierarchy that has it.
    #[test]
    fn hierarchies() {
        let mounts = "29 25 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                      30 29 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\nnonsense";
        let lines = "4:memory:/m\n2:cpu,cpuacct:/c\n0::/u\n";
        let hierarchies = Hierarchy::parse(lines, mounts);
        let [cpu, memory] = ["cpu", "memory"].map(|one| Controller::of(one, &hierarchies).unwrap());
        assert_eq!((cpu.old, memory.old), (true, false));
        assert_eq!((cpu.hierarchy.shown(lines), memory.hierarchy.shown(lines)), (Some("/c"), Some("/u")));
        assert!(Controller::of("cpu", &[]).is_none());
    }
}
