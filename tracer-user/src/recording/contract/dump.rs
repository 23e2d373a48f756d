//! Goroutines that were looked at from outside while their process ran, and the marks that put the looks between the events.

use serde::{Deserialize, Serialize};

use super::Tier;
use crate::{
    clock::KtimeNs,
    id::{Address, BinaryId, Goid, StackId, Tgid},
};

/// A process that ran already when it came to be followed. What it did before is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// From here on its probes report.
    pub at: KtimeNs,
    pub tgid: Tgid,
    /// `starttime` of `/proc/PID/stat`, in ticks.
    pub start_ticks: u64,
    pub parent: Option<Tgid>,
    pub args: Vec<String>,
    /// What it runs, and by how much that was moved when it was loaded; 0 for what is no Go program.
    pub binary: BinaryId,
    pub load_bias: u64,
    /// Its goroutines follow in [`GoroutineDump`]s, taken from here on.
    pub dump_follows: bool,
}

impl Joined {
    /// Whether it runs a Go program.
    pub fn runs_go(&self) -> bool {
        self.binary.0 != 0
    }
}

/// A look at a process's goroutines begins: its [`GoroutineDump`]s follow, and what they say is as of this time or later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpBegins {
    pub at: KtimeNs,
    pub tgid: Tgid,
    pub source: DumpSource,
}

/// Every record that is older than this time is in the blocks before this one, or is lost (docs/order.md). At time 0, without numbers, it
/// says that others will follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    pub at: KtimeNs,
    /// By CPU: one more than the largest sequence number dealt out by then. Those below that are in no block are lost, and were made by then; all
    /// others are made later.
    pub next_seq: Vec<u64>,
}

/// Who told of goroutines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DumpSource {
    /// Their process's memory, read from outside.
    Memory,
    /// The process itself, asked by HTTP.
    Pprof,
}

/// All goroutines of a process as somebody saw them while it ran: one part of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoroutineDump {
    pub tgid: Tgid,
    /// `starttime` of `/proc/PID/stat`, in ticks.
    pub start_ticks: u64,
    /// What it runs, and by how much that was moved when it was loaded; 0 for what is no Go program.
    pub binary: BinaryId,
    pub load_bias: u64,
    pub source: DumpSource,
    /// It is one of a series that holds what events told against what is there; else the first look at a process that was joined.
    pub check: bool,
    /// When the reading began and ended. Anything that an event of that time or later says is newer.
    pub from: KtimeNs,
    pub to: KtimeNs,
    /// Detail at which the process is followed: at T1 what they do now is not kept up; at T0 looks are all there is.
    pub tier: Tier,
    /// What goroutines of this part have in common, each once.
    pub kinds: Vec<Likeness>,
    pub goroutines: Vec<DumpedGoroutine>,
    /// What each of these waits on, 0 where that is not known; empty where nobody looked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<Address>,
    /// Stacks that are not in an earlier part, by id.
    pub stacks: Vec<DumpedStack>,
    /// Sets of labels of this part, each once.
    pub labels: Vec<Vec<(String, String)>>,
    /// Goroutines that could not be read because they kept changing.
    pub torn: u64,
    /// No part follows.
    pub last: bool,
    /// Why nothing, or not all, could be read.
    pub problem: Option<String>,
    /// There is no such process any more.
    pub gone: bool,
}

/// One goroutine of a [`GoroutineDump`]: its id, its creator's, and an index into [`GoroutineDump::kinds`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpedGoroutine(pub Goid, pub Option<Goid>, pub u32);

/// What one goroutine of a [`GoroutineDump`] shares with many others; addresses are those of the process.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Likeness {
    pub gopc: Address,
    pub startpc: Address,
    /// In the runtime's words (`waiting`, `running`, …); `None`: it changed whenever it was looked at.
    pub state: Option<String>,
    /// What it waits for, if it waits and that is known.
    pub wait_reason: Option<String>,
    /// Where it waits: return addresses as a park has them.
    pub stack: Option<StackId>,
    /// Memory that is set aside for its stack; `None`: unknown.
    pub stack_bytes: Option<u64>,
    /// Index into [`GoroutineDump::labels`], where one that has none is an empty set; `None`: unknown.
    pub labels: Option<u32>,
}

/// Return addresses, innermost first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpedStack {
    pub id: StackId,
    pub pcs: Vec<Address>,
    pub truncated: bool,
}

/// Tests that ran in goroutines of a process when its memory was read, where no event tells of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestsSeen {
    pub at: KtimeNs,
    pub tgid: Tgid,
    pub tests: Vec<TestSeen>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TestSeen {
    /// The goroutine that runs it.
    pub goid: Goid,
    /// Its whole name, its parents' included; `None`: it could not be read.
    pub name: Option<String>,
}
