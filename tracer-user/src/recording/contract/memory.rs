//! Memory of processes over time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{clock::KtimeNs, id::Tgid};

/// The memory of several processes at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryAt {
    pub at: KtimeNs,
    pub processes: Vec<ProcessMemory>,
}

/// The memory of one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessMemory {
    pub tgid: Tgid,
    /// It is no target: it was named to be shown beside one (`--with-pid`). Then what it is called (`comm`).
    pub beside: Option<String>,
    /// Resident pages (`/proc/PID/statm`); `None`: it could not be read.
    pub rss_bytes: Option<u64>,
    pub cgroup: Option<CgroupMemory>,
    /// What its Go runtime says of its heap, where it was asked.
    pub heap: Option<GoHeap>,
    /// How many descriptors it has of each kind (`socket`, `pipe`, `file`, …); `None`: nobody counted this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub descriptors: Option<BTreeMap<String, u64>>,
}

/// Memory of a cgroup (`memory.current`, `memory.max`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupMemory {
    pub path: String,
    pub current_bytes: u64,
    /// The lowest limit of the cgroup and those above it; `None`: there is none.
    pub limit_bytes: Option<u64>,
}

/// `runtime.MemStats`, as far as it is shown (`runtime/mstats.go`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoHeap {
    /// `HeapAlloc`: live objects and those not swept yet.
    pub alloc_bytes: u64,
    /// `HeapInuse`, `HeapIdle`, `HeapReleased`.
    pub inuse_bytes: u64,
    pub idle_bytes: u64,
    pub released_bytes: u64,
    /// `StackInuse`.
    pub stack_bytes: u64,
    /// `Sys`: all that it has from the system.
    pub sys_bytes: u64,
    /// `NextGC`: the heap size at which the next cycle is to be done.
    pub goal_bytes: u64,
    pub gc_cycles: u64,
}
