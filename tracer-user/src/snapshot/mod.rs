//! All goroutines of a running Go process, out of its memory: no probe, no pause, no help from the process.
//!
//! Owns the reading: the runtime's list, its goroutines, their stacks. Names nothing (that is for the exports) and reads no clock.
//! The process runs on meanwhile, so each goroutine is read, then its stack, then the goroutine again: what changed in between
//! is read once more, and what keeps changing is counted as torn and not shown as a fact. The memory belongs to whoever is
//! looked at, so everything is bounded, and nonsense yields an error or fewer goroutines, never a panic.

pub mod goroutine;
pub mod memory;
#[cfg(feature = "live")]
pub mod process;
pub mod self_check;
pub mod stack;

use rustc_hash::FxHashMap;

use self::{
    goroutine::{Raw, Slot, State, parse},
    memory::{Memory, MemoryError, Piece, Reading},
    stack::Stack,
};
use crate::{
    clock::{KtimeNs, WallTime},
    golang::{AllGoroutines, GoBinary, GolangError, SnapshotLayout},
    id::{Address, Goid},
};

/// More goroutines than this are not believed.
const MAX_GOROUTINES: u64 = 10_000_000;
/// Stacks are read until this much was read; goroutines beyond it have none.
const MAX_STACK_BYTES: u64 = 16 << 30;
/// Everything that is read.
const MAX_BYTES: u64 = 96 << 30;
/// Code addresses of different stacks that are kept.
const MAX_ADDRESSES: usize = 8 << 20;
/// Goroutines read at once: few, so that little time passes between the two looks at each.
const CHUNK: usize = 1024;
/// Pointers read at once, in bytes.
const POINTERS: usize = 1 << 20;
/// How often a goroutine that changes is looked at.
const PASSES: u32 = 3;
/// How often the list is read anew because it was moved.
const TRIES: u32 = 8;
/// More lengths of frames than this are not remembered.
const MAX_REMEMBERED: usize = 1 << 20;

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
    /// Goroutines that changed under every look. Those that were the same goroutine all the time are in `all`, in no known state.
    pub torn: u64,
}

/// One goroutine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goroutine {
    pub goid: Goid,
    /// `None`: it changed whenever it was looked at.
    pub state: Option<State>,
    /// What it waits for, in the words of its Go version, if it waits.
    pub wait_reason: Option<&'static str>,
    /// Since when it waits or is in a system call; known only once a garbage collection saw it there.
    pub waits_since: Option<KtimeNs>,
    /// Who made it, from Go 1.21 on.
    pub parent: Option<Goid>,
    /// Return address of the go statement that made it.
    pub gopc: Address,
    /// Entry of its function.
    pub startpc: Address,
    pub locked_to_thread: bool,
    pub stack: StackRead,
}

/// What became of a goroutine's stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

/// What is known of the program before its memory is read.
pub struct Program<'a> {
    /// Where its list is, load bias included.
    pub all: AllGoroutines,
    pub layout: &'a SnapshotLayout,
    pub wait_reasons: &'static [&'static str],
    /// How far the return address is from the stack pointer, by code address of the process.
    pub frame_bytes: &'a dyn Fn(u64) -> Option<u64>,
}

/// Reads all goroutines of the process that runs `binary`, moved by `bias`.
pub fn take(memory: &impl Memory, binary: &GoBinary, bias: u64) -> Result<Goroutines, SnapshotError> {
    let all = binary.all_goroutines()?;
    let frame_bytes = |pc: u64| binary.frame_bytes(pc.wrapping_sub(bias));
    let program = Program {
        all: AllGoroutines { len: all.len.wrapping_add(bias), first: all.first.wrapping_add(bias) },
        layout: binary.snapshot_layout()?,
        wait_reasons: binary.wait_reasons(),
        frame_bytes: &frame_bytes,
    };
    read(memory, &program)
}

/// Reads all goroutines.
pub fn read(memory: &impl Memory, program: &Program<'_>) -> Result<Goroutines, SnapshotError> {
    let mut reader = Reader {
        memory,
        program,
        found: Goroutines::default(),
        indices: FxHashMap::default(),
        frames: FxHashMap::default(),
        addresses: 0,
        bytes: 0,
    };
    let mut pointers = reader.pointers()?;
    let listed = pointers.len();
    pointers.retain(|pointer| *pointer != 0 && pointer.is_multiple_of(8));
    reader.found.torn += (listed - pointers.len()) as u64;
    pointers.sort_unstable();
    pointers.dedup();
    for chunk in pointers.chunks(CHUNK) {
        let mut left = reader.pass(chunk, false)?;
        for pass in 1..PASSES {
            if left.is_empty() {
                break;
            }
            left = reader.pass(&left, pass + 1 == PASSES)?;
        }
    }
    reader.found.all.sort_by_key(|goroutine| goroutine.goid);
    Ok(reader.found)
}

struct Reader<'a, M> {
    memory: &'a M,
    program: &'a Program<'a>,
    found: Goroutines,
    indices: FxHashMap<Stack, u32>,
    /// Known answers of [`Program::frame_bytes`].
    frames: FxHashMap<u64, Option<u64>>,
    /// Code addresses in `found.stacks`, and bytes read so far.
    addresses: usize,
    bytes: u64,
}

impl<M: Memory> Reader<'_, M> {
    /// The runtime's list: the length first, then where it is, then the pointers (`runtime/proc.go`, `atomicAllG`). When the list
    /// grows it moves, and its old place may be used for something else.
    fn pointers(&mut self) -> Result<Vec<u64>, SnapshotError> {
        let AllGoroutines { len, first } = self.program.all;
        for _ in 0..TRIES {
            let count = self.word(len)?.ok_or(SnapshotError::NoList)?;
            if count > MAX_GOROUTINES {
                return Err(SnapshotError::TooMany(count));
            }
            let start = self.word(first)?.ok_or(SnapshotError::NoList)?;
            let pointers = self.words(start, count as usize)?;
            if self.word(first)? == Some(start)
                && let Some(pointers) = pointers
            {
                return Ok(pointers);
            }
        }
        Err(SnapshotError::NoList)
    }

    fn word(&self, address: u64) -> Result<Option<u64>, MemoryError> {
        let reading = Reading::of(self.memory, &[Piece { address, len: 8 }])?;
        Ok(reading.piece(0).try_into().ok().map(u64::from_le_bytes))
    }

    fn words(&mut self, start: u64, count: usize) -> Result<Option<Vec<u64>>, SnapshotError> {
        let mut words = Vec::new();
        while words.len() < count {
            let Some(address) = start.checked_add(words.len() as u64 * 8) else { return Ok(None) };
            let len = ((count - words.len()) * 8).min(POINTERS);
            let reading = Reading::of(self.memory, &[Piece { address, len }])?;
            self.spend(&reading)?;
            if reading.piece(0).len() < len {
                return Ok(None);
            }
            let (read, _) = reading.piece(0).as_chunks::<8>();
            words.extend(read.iter().map(|word| u64::from_le_bytes(*word)));
        }
        Ok(Some(words))
    }

    /// Reads the goroutines at `addresses`, which ascend. Answers those that changed, unless this is the `last` look.
    fn pass(&mut self, addresses: &[u64], last: bool) -> Result<Vec<u64>, SnapshotError> {
        let mut left = Vec::new();
        let mut alive = Vec::new();
        for (address, slot) in self.slots(addresses)? {
            match slot {
                Slot::Alive(raw) => alive.push((address, raw)),
                Slot::Vacant => {}
                Slot::Nonsense if last => self.found.torn += 1,
                Slot::Nonsense => left.push(address),
            }
        }
        let affordable = self.bytes <= MAX_STACK_BYTES && self.addresses <= MAX_ADDRESSES;
        let pieces: Vec<_> = alive.iter().map(|(_, raw)| stack::piece(raw).filter(|_| affordable)).collect();
        let wanted: Vec<_> = pieces.iter().copied().flatten().collect();
        let stacks = Reading::of(self.memory, &wanted)?;
        self.spend(&stacks)?;
        let again: Vec<u64> = alive.iter().map(|(address, _)| *address).collect();
        let mut next = 0;
        for (((address, before), piece), (_, after)) in alive.iter().zip(&pieces).zip(self.slots(&again)?) {
            let index = next;
            next += usize::from(piece.is_some());
            match after {
                Slot::Alive(after) if before.stands_still(&after) => {
                    let read = match (piece, before.registers) {
                        (Some(_), _) => self.stack(before, stacks.piece(index)),
                        (None, None) => StackRead::Running,
                        (None, Some(_)) if affordable => StackRead::Unreadable,
                        (None, Some(_)) => StackRead::TooMuch,
                    };
                    self.push(&after, Some(after.state), read);
                }
                _ if !last => left.push(*address),
                Slot::Alive(after) => {
                    self.found.torn += 1;
                    if (after.goid, after.gopc, after.startpc) == (before.goid, before.gopc, before.startpc) {
                        self.push(&after, None, StackRead::Changed);
                    }
                }
                Slot::Vacant | Slot::Nonsense => self.found.torn += 1,
            }
        }
        left.sort_unstable();
        Ok(left)
    }

    /// What stands at each of `addresses`, which ascend.
    fn slots(&mut self, addresses: &[u64]) -> Result<Vec<(u64, Slot)>, SnapshotError> {
        let layout = self.program.layout;
        let reading = Reading::merged(self.memory, addresses, layout.g_size as usize)?;
        self.spend(&reading)?;
        let slot = |address| reading.at(address, layout.g_size as usize).and_then(|bytes| parse(bytes, layout));
        Ok(addresses.iter().map(|&address| (address, slot(address).unwrap_or(Slot::Nonsense))).collect())
    }

    fn stack(&mut self, raw: &Raw, bytes: &[u8]) -> StackRead {
        if bytes.is_empty() {
            return StackRead::Unreadable;
        }
        let Some(pc) = raw.registers.map(|registers| registers.pc) else { return StackRead::Running };
        if self.frames.len() >= MAX_REMEMBERED {
            self.frames.clear();
        }
        let frame = *self.frames.entry(pc).or_insert_with(|| (self.program.frame_bytes)(pc));
        let Some(stack) = stack::walk(raw, bytes, frame) else { return StackRead::Unreadable };
        if let Some(index) = self.indices.get(&stack) {
            return StackRead::Known(*index);
        }
        let Ok(index) = u32::try_from(self.found.stacks.len()) else { return StackRead::TooMuch };
        self.addresses += stack.pcs.len();
        self.found.stacks.push(stack.clone());
        self.indices.insert(stack, index);
        StackRead::Known(index)
    }

    fn push(&mut self, raw: &Raw, state: Option<State>, stack: StackRead) {
        let waits = state.is_some_and(State::waits);
        let reason = self.program.wait_reasons.get(usize::from(raw.wait_reason)).copied();
        let dated = waits || state == Some(State::Syscall);
        self.found.all.push(Goroutine {
            goid: Goid(raw.goid),
            state,
            wait_reason: reason.filter(|reason| waits && !reason.is_empty()),
            waits_since: Some(KtimeNs(raw.wait_since)).filter(|since| dated && since.0 != 0),
            parent: raw.parent.map(Goid),
            gopc: Address(raw.gopc),
            startpc: Address(raw.startpc),
            locked_to_thread: raw.locked,
            stack,
        });
    }

    fn spend(&mut self, reading: &Reading) -> Result<(), SnapshotError> {
        self.bytes = self.bytes.saturating_add(reading.total());
        if self.bytes > MAX_BYTES { Err(SnapshotError::TooMuch) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
