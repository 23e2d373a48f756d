//! What a recording holds, besides raw records. Each of these is the JSON payload of a block of its own.

use serde::{Deserialize, Serialize};

use crate::{
    clock::{ClockTie, KtimeNs},
    id::{Address, BinaryId, SiteId, Tgid},
};

mod dump;
mod memory;
mod native;
mod process;
mod profile;
mod summing;
mod usdt;

pub use dump::{
    Drained, DumpBegins, DumpSource, DumpedGoroutine, DumpedStack, GoroutineDump, Joined, Likeness, TestSeen, TestsSeen,
};
pub use memory::{CgroupMemory, GoHeap, MemoryAt, ProcessMemory};
pub use native::{IN_KERNEL, NativeCode, NativeEntry, ThreadMet, Threads, ThreadsMet};
pub use process::{
    Adopted, CgroupLoad, CgroupNamed, ChildSeen, ChildState, ChildrenSeen, Found, Gone, LoadAt, MemoryEvents, Throttling,
};
pub use profile::{Profile, ProfileKind};
pub use summing::{KeptAt, KeptGoroutine, KeptWait, MIN_BLOCKS, SumOf, Summed};
pub use usdt::{UnitEvent, UnitId, UsdtFile, UsdtMeaning, UsdtSite};

/// The first block: who recorded what, when, where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Version of the lifetrace that wrote it.
    pub lifetrace: String,
    pub hostname: String,
    pub kernel: String,
    pub cpus: u32,
    /// The recording's zero: every `*_ns` of the outputs counts from `clock.ktime_ns`.
    pub clock: ClockTie,
    /// Where there is a budget, the most that is followed.
    pub tier: Tier,
    /// What the probes may cost a program, in millionths of its CPU time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_ppm: Option<u32>,
    /// The command followed (`run`), as given.
    pub command: Vec<String>,
    /// What was attached to (`attach`): `--pid 4711`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Calibrated cost of one hit of an empty probe on this machine, in nanoseconds; `None` where it was not measured.
    pub hit_cost_ns: Option<u64>,
    /// Whose threads are followed in detail.
    #[serde(default)]
    pub threads: Threads,
    /// Waits and lives that are shorter are summed and not told, nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_block_ns: Option<u64>,
    /// It was cut out of a longer recording.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<Cut>,
}

/// What stands in no block of a recording that was cut out of a longer one. Counters, and prices, are those of the longer one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// When the longer one began.
    pub begun: KtimeNs,
    /// By CPU: the first sequence number that belongs to this one.
    pub next_seq: Vec<u64>,
}

/// How much detail the probes give (docs: "Tiers").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Tier {
    T0,
    T1,
    T2,
    T3,
}

impl Tier {
    pub const ALL: [Self; 4] = [Self::T0, Self::T1, Self::T2, Self::T3];

    /// 0 to 3.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The next one, if there is any.
    pub fn above(self) -> Self {
        Self::ALL.get(usize::from(self.number()) + 1).copied().unwrap_or(self)
    }

    /// The one before, if there is any.
    pub fn below(self) -> Self {
        Self::ALL[usize::from(self.number()).saturating_sub(1)]
    }
}

/// Why processes are followed at another tier from some time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// To see what it costs.
    Trial,
    /// It can be paid for all the time.
    Room,
    /// Enough was saved for a window.
    Window,
    /// The window is paid up.
    WindowOver,
    /// It costs more than the budget.
    Dear,
    /// It costs many times the budget.
    Runaway,
    /// The target itself is worse off (`--guard-url`).
    Guard,
    /// It is not known what it costs.
    Unknown,
    /// Somebody wanted it, who said so while it was followed.
    Asked,
}

impl Why {
    /// In a few words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trial => "trial",
            Self::Room => "room for more",
            Self::Window => "window",
            Self::WindowOver => "window over",
            Self::Dear => "too dear",
            Self::Runaway => "much too dear",
            Self::Guard => "the target is worse off",
            Self::Asked => "asked for",
            Self::Unknown => "price unknown",
        }
    }
}

/// A probed file, written when it is attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binary {
    pub id: BinaryId,
    pub path: String,
    /// `go1.26.8`, as the build info says.
    pub go_version: String,
    /// Main module path; empty where the binary has none.
    pub module: String,
    pub sites: Vec<Site>,
    /// Wait reasons of this Go version, by number.
    pub wait_reasons: Vec<String>,
    /// Offset of `lock` in `runtime.hchan`: from a park's lock address to the channel's.
    pub hchan_lock: Option<u64>,
    /// Parks for semaphores (mutexes, wait groups) name the semaphore, and not the lock of a root that many share.
    #[serde(default)]
    pub semaphores: bool,
    /// Where the offsets into its runtime come from; recordings before that was written have none.
    #[serde(default)]
    pub offsets: Option<OffsetsSource>,
    /// Every change of a goroutine's state is recorded (T3), not its parks and wakes alone.
    #[serde(default)]
    pub scheduling: bool,
    /// Reasons of this Go version to stop the world, by number; empty where nobody read them.
    #[serde(default)]
    pub stw_reasons: Vec<String>,
}

/// Where the offsets into a Go runtime's structures come from, best first.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "snake_case")]
pub enum OffsetsSource {
    /// The binary's own debug information.
    Dwarf,
    /// The table generated from toolchains, for exactly this release of Go (`1.26.6`).
    Table { release: String },
    /// The table's entry of another release of the same minor version: used only if the process bears it out.
    TableUnverified { minor: u32 },
}

impl std::fmt::Display for OffsetsSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dwarf => f.write_str("the binary's debug information"),
            Self::Table { release } => write!(f, "table of go{release}"),
            Self::TableUnverified { minor } => write!(f, "table of another go1.{minor}, if the process bears it out"),
        }
    }
}

/// One attached site of a [`Binary`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    pub id: SiteId,
    /// Runtime function it is in, e.g. `runtime.ready`.
    pub function: String,
    /// Link-time address.
    pub address: Address,
    /// The instruction, as a person reads it.
    pub instruction: String,
}

/// Symbols of code addresses of one binary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    pub binary: BinaryId,
    /// By link-time address (runtime address less the load bias). For a return address the frames are those of the call.
    pub entries: Vec<CodeEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeEntry {
    pub address: Address,
    pub use_as: CodeUse,
    /// Innermost first: inlined functions, then the function that holds the code. Empty if unknown.
    pub frames: Vec<Frame>,
    /// At this address the function has no frame: its return address is on top of the stack.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub frameless: bool,
}

/// What an address stands for: a return address is looked up one byte before; an entry, or an interrupted instruction, as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CodeUse {
    Return,
    Entry,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Frame {
    pub function: String,
    pub file: String,
    /// 0: unknown.
    pub line: u32,
}

/// Something that happened to the session itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "note", rename_all = "snake_case")]
pub enum Note {
    /// From here on all processes of `binary` are followed at `tier`: probes that are set were by then, those that are taken away were all
    /// there until then. `why`, and the price by then in millionths of the target's CPU time, where a budget is kept.
    Coverage {
        at: KtimeNs,
        binary: BinaryId,
        tier: Tier,
        #[serde(default)]
        why: Option<Why>,
        #[serde(default)]
        share_ppm: Option<u32>,
    },
    /// A process that runs without probes, and why.
    Unprobed { at: KtimeNs, tgid: Tgid, exe: String, reason: String },
    /// The probes are taken away from here on, one program after the other: later events are not all there, and tell nothing.
    Detaching { at: KtimeNs },
    /// From here on each CPU is sampled so often a second; 0: no more.
    Sampling { at: KtimeNs, hz: u32, cpus: u32 },
    /// What asking a process by HTTP cost so far: cumulative, the last one of a process and URL counts.
    Asked { at: KtimeNs, tgid: Tgid, url: String, requests: u64, bytes: u64, took_ns: u64 },
    /// How this kernel tells of processes and threads: what was attached.
    Facts { at: KtimeNs, told: Vec<FactTold> },
    /// Free text for people.
    Warning { at: KtimeNs, text: String },
}

/// How a fact of the kernel is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactTold {
    /// `process reaped`, `signal sent`, …
    pub fact: String,
    /// `btf`, `kprobe`, `classic`, `fallback`, or `none`.
    pub through: String,
    /// The tracepoint or function, or what serves instead.
    pub by: String,
}

/// Counters of the BPF side, cumulative since the start. Written whenever they changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub at: KtimeNs,
    /// Records lost, by CPU and kind; zeros left out.
    pub lost: Vec<Lost>,
    /// Hits that counted, by the kind of record they made, over all CPUs.
    pub hits: Vec<KindCount>,
    /// Hits of processes that are not followed.
    pub foreign_hits: u64,
    /// Hits through a second attachment to the same instruction.
    pub duplicate_hits: u64,
    /// Hits after a compare-and-swap that had failed.
    pub failed_swaps: u64,
    /// Stacks not walked because the BPF side had no room.
    pub no_scratch: u64,
    /// Failed reads of target memory.
    pub faults: u64,
    /// Processes not followed because the table was full.
    pub processes_refused: u64,
    /// Ticks of the sampling clock on all CPUs, whatever these ran.
    #[serde(default)]
    pub ticks: u64,
    /// Signals of processes that had more of them in a second than are told of.
    #[serde(default)]
    pub signals_left_out: u64,
    /// Signals with which Go runtimes interrupted their own threads.
    #[serde(default)]
    pub preemption_signals: u64,
    /// Goroutines that were told of although they might have been summed, and waits and lives: the tables were full.
    #[serde(default)]
    pub unkept: u64,
    #[serde(default)]
    pub unsummed: u64,
    /// Runs of our programs that the kernel left out; zeros are not listed.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
    /// What the probes cost each program; those that were never hit are not listed.
    #[serde(default)]
    pub paid: Vec<Paid>,
}

/// What the probes in one file cost whoever ran into them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paid {
    pub binary: BinaryId,
    /// Hits of USDT probes, and of those of T1, T2 and T3, followed or not.
    pub hits: [u64; 4],
    /// What they cost: the trap as it was calibrated, and the program as the kernel measured it.
    pub cost_ns: [u64; 4],
    /// CPU time that the followed processes of the program used since they were met.
    pub cpu_ns: u64,
}

/// A tracepoint's program was not run: at most so often for what is followed, for it was about any process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    pub hook: String,
    pub runs: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    pub cpu: u16,
    /// A [`tracer_common::header::Kind`].
    pub kind: u8,
    pub count: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindCount {
    pub kind: u8,
    pub count: u64,
}

/// The last block of a recording that was ended in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub at: KtimeNs,
    /// Why it ended: `exited`, `interrupted`, `time_over`, `write_error`.
    pub reason: String,
    /// How long it took to take the probes away, ns.
    #[serde(default)]
    pub detach_ns: Option<u64>,
    /// Wait status of the command, where there was one.
    pub wait_status: Option<i32>,
    /// The clocks once more.
    #[serde(default)]
    pub clock: Option<ClockTie>,
    /// CPU time of the command and its reaped descendants (user and system), ns.
    pub target_cpu_ns: Option<u64>,
}

/// What the records of the next block are about (docs/recording.md, "Leaving blocks out").
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// It tells of more than goroutines.
    pub always: bool,
    /// The numbers of its records, in the order of the block.
    pub runs: Vec<IndexedRun>,
    /// By process and binary, the goroutines it tells of.
    pub processes: Vec<IndexedProcess>,
}

/// Goroutines of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexedProcess {
    pub tgid: Tgid,
    pub binary: BinaryId,
    /// When the first of these records was made.
    pub from: KtimeNs,
    /// The first goid, and how far each next one is from the one before.
    pub goroutines: Vec<u64>,
}

/// Records of one CPU with numbers in a row, and when the first and the last of them were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexedRun {
    pub cpu: u16,
    pub first: u64,
    pub count: u64,
    pub from: KtimeNs,
    pub to: KtimeNs,
}
