//! All goroutines of a running Go process, out of its memory: no probe, no pause, no help from the process.
//!
//! Owns the reading: the runtime's list, its goroutines, their stacks. Names nothing (that is for the exports) and reads no clock.
//! The process runs on meanwhile, so each goroutine is read, then its stack, then the goroutine again: what changed in between
//! is read once more, and what keeps changing is counted as torn and not shown as a fact. The memory belongs to whoever is
//! looked at, so everything is bounded, and nonsense yields an error or fewer goroutines, never a panic.

mod channels;
pub mod dump;
pub mod go_tests;
pub mod goroutine;
pub mod labels;
pub mod memory;
#[cfg(feature = "live")]
pub mod process;
mod reader;
pub mod self_check;
pub mod stack;

use std::{ops::Deref, sync::Arc};

use self::{
    goroutine::State,
    labels::{LabelSet, Representation},
    memory::{Memory, MemoryError},
    reader::{MAX_BYTES, MAX_GOROUTINES},
    stack::Stack,
};
use crate::{
    clock::{KtimeNs, WallTime},
    golang::{AllGoroutines, GoBinary, GolangError, SnapshotLayout},
    id::{Address, Goid},
};

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Golang(#[from] GolangError),
    #[error("its list of goroutines cannot be read")]
    NoList,
    #[error("it claims to have {0} goroutines, more than the {MAX_GOROUTINES} that are believed")]
    TooMany(u64),
    #[error("more than {MAX_BYTES} bytes would have to be read")]
    TooMuch,
}

/// All goroutines of a process at about one moment.
#[derive(Debug)]
pub struct Snapshot {
    pub go_version: String,
    /// When the reading began, on both clocks.
    pub taken_at: WallTime,
    pub taken_at_ktime: KtimeNs,
    pub duration_ns: u64,
    pub found: Goroutines,
}

/// What the reading found. Addresses are those of the process.
#[derive(Debug, Default)]
pub struct Goroutines {
    /// By id.
    pub all: Vec<Goroutine>,
    /// Different stacks, each once.
    pub stacks: Vec<Stack>,
    /// Different sets of labels, each once.
    pub labels: Vec<LabelSet>,
    /// Goroutines that changed under every look. Those that were the same goroutine all the time are in `all`, in no known state.
    pub torn: u64,
}

/// One goroutine: what is its own, and what it has in common with many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goroutine {
    pub goid: Goid,
    /// Since when it waits or is in a system call; known only once a garbage collection saw it there.
    pub waits_since: Option<KtimeNs>,
    /// The channel it sends to or receives from; `None`: it waits for something else, or nobody asked.
    pub waits_on: Option<Address>,
    /// Who made it, from Go 1.21 on.
    pub parent: Option<Goid>,
    /// Where the memory set aside for its stack ends.
    pub stack_hi: u64,
    pub alike: Arc<Alike>,
}

/// What many goroutines have in common: of a million there is one of it, or few.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Alike {
    /// `None`: it changed whenever it was looked at.
    pub state: Option<State>,
    /// What it waits for, in the words of its Go version, if it waits.
    pub wait_reason: Option<&'static str>,
    /// Return address of the go statement that made it.
    pub gopc: Address,
    /// Entry of its function.
    pub startpc: Address,
    pub locked_to_thread: bool,
    /// Memory set aside for its stack; `None` where its bounds make no sense.
    pub stack_bytes: Option<u64>,
    pub stack: StackRead,
    pub labels: LabelsRead,
}

impl Deref for Goroutine {
    type Target = Alike;

    fn deref(&self) -> &Alike {
        &self.alike
    }
}

/// What became of a goroutine's stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StackRead {
    /// Index into [`Goroutines::stacks`].
    Known(u32),
    /// It runs: where it is stands in a thread's registers, not in memory.
    Running,
    /// It changed while its stack was read.
    Changed,
    /// Its saved registers lead nowhere.
    Unreadable,
    /// The bounds were reached before.
    TooMuch,
    /// Nobody asked for it.
    LeftOut,
}

/// What became of a goroutine's labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LabelsRead {
    /// It has none.
    None,
    /// Index into [`Goroutines::labels`].
    Known(u32),
    /// They changed meanwhile, make no sense, or are beyond the bounds.
    Unknown,
}

/// How much is read of each goroutine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    #[default]
    Whole,
    /// And the channels that they wait on.
    WithChannels,
    /// Everything but stacks, which are most of what there is to read.
    WithoutStacks,
}

/// What is known of the program before its memory is read.
pub struct Program<'a> {
    /// Where its list is, load bias included.
    pub all: AllGoroutines,
    pub layout: &'a SnapshotLayout,
    pub wait_reasons: &'static [&'static str],
    pub labels: Representation,
    /// How far the return address is from the stack pointer, by code address of the process.
    pub frame_bytes: &'a dyn Fn(u64) -> Option<u64>,
}

pub use reader::Before;

/// Reads all goroutines of the process that runs `binary`, moved by `bias`.
pub fn take(memory: &impl Memory, binary: &GoBinary, bias: u64, detail: Detail) -> Result<Goroutines, SnapshotError> {
    take_again(memory, binary, bias, detail, &mut Before::default())
}

/// The same, one look after the other: with [`Detail::WithChannels`] goroutines that have not run since the one before are not read anew.
pub fn take_again(
    memory: &impl Memory,
    binary: &GoBinary,
    bias: u64,
    detail: Detail,
    before: &mut Before,
) -> Result<Goroutines, SnapshotError> {
    let all = binary.all_goroutines()?;
    let frame_bytes = |pc: u64| binary.frame_bytes(pc.wrapping_sub(bias));
    let program = Program {
        all: AllGoroutines { len: all.len.wrapping_add(bias), first: all.first.wrapping_add(bias) },
        layout: binary.snapshot_layout()?,
        wait_reasons: binary.wait_reasons(),
        labels: Representation::of(binary.version()),
        frame_bytes: &frame_bytes,
    };
    reader::read(memory, &program, detail, before)
}

#[cfg(test)]
mod tests;
