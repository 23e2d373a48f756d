//! What was read about processes and cgroups, besides what events tell.

use serde::{Deserialize, Serialize};

use crate::{clock::KtimeNs, id::Tgid};

/// A process that ran already when it came to be followed, as /proc shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    pub at: KtimeNs,
    pub tgid: Tgid,
    /// `starttime` of `/proc/PID/stat`, in ticks.
    pub start_ticks: u64,
    pub parent: Option<Tgid>,
    /// `/proc/PID/exe`; empty where that cannot be read.
    pub exe: String,
    pub args: Vec<String>,
    /// Kernfs ids of its cgroups: in the unified hierarchy, and in that of the memory controller. 0: not known.
    pub unified: u64,
    pub memory: u64,
}

/// A process whose parent ended was seen to have another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// By when.
    pub at: KtimeNs,
    pub tgid: Tgid,
    /// `starttime` of `/proc/PID/stat`, in ticks.
    pub start_ticks: u64,
    pub parent: Tgid,
}

/// A process that had exited was found to be no zombie any more, although no record told of its reaping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// By when.
    pub at: KtimeNs,
    pub tgid: Tgid,
    pub start_boottime_ns: u64,
}

/// Children of a process as /proc showed them, where no event tells of them: those that are new or changed since the look before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildrenSeen {
    pub at: KtimeNs,
    pub parent: Tgid,
    pub children: Vec<ChildSeen>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildSeen {
    pub tgid: Tgid,
    /// `starttime` of `/proc/PID/stat`, in ticks.
    pub start_ticks: u64,
    /// `/proc/PID/exe`; of a zombie, which has none, what it is called.
    pub exe: String,
    pub state: ChildState,
    /// It was not there at the look before, nor at the first.
    pub new: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChildState {
    Alive,
    Zombie,
    /// There is no such process any more, or it has another parent.
    Gone,
}

/// The path of a cgroup that records name by its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupNamed {
    /// Kernfs id: the inode number of its directory.
    pub id: u64,
    /// Number of its hierarchy (`/proc/self/cgroup`): 0 is the unified one.
    pub hierarchy: u32,
    /// Of version 1: the controllers of the hierarchy, `memory` or `cpu,cpuacct`.
    pub controllers: String,
    /// Within the hierarchy, from its root: `/kubepods.slice/…`.
    pub path: String,
}

/// What cgroups of followed processes had to bear, at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadAt {
    pub at: KtimeNs,
    pub cgroups: Vec<CgroupLoad>,
}

/// The accounts of one cgroup: cumulative since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupLoad {
    /// Within the hierarchy of the cpu controller, and within that of the memory controller; `None`: there is none.
    pub cpu_path: Option<String>,
    pub memory_path: Option<String>,
    /// The followed processes in it.
    pub tgids: Vec<Tgid>,
    pub cpu: Option<Throttling>,
    pub memory: Option<MemoryEvents>,
}

/// `cpu.stat` and the quota of a cgroup: its own, or of the nearest above it that has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttling {
    /// CPU time that it may use in a period; `None`: as much as there is.
    pub quota_ns: Option<u64>,
    pub period_ns: u64,
    /// Periods in which it ran, in which it ran out of quota, and for how long it then stood still: summed over CPUs.
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_ns: u64,
}

/// `memory.events` (version 2), or `memory.failcnt` and `memory.oom_control` (version 1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryEvents {
    pub limit_bytes: Option<u64>,
    /// How often it met its limit.
    pub max: u64,
    /// How often its memory ran out, and processes killed for it; `None`: not counted by this kernel.
    pub oom: Option<u64>,
    pub oom_kill: Option<u64>,
}
