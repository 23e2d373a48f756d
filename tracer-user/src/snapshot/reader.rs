//! The reading itself: the list, then the goroutines in chunks, each looked at, its stack and labels read, and looked at again.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    Alike, Detail, Goroutine, Goroutines, LabelsRead, Program, SnapshotError, StackRead,
    channels::Channels,
    goroutine::{Raw, Registers, Slot, State, parse},
    labels::Labels,
    memory::{Memory, MemoryError, Piece, Reading},
    stack::{self, Stack},
};
use crate::{
    clock::KtimeNs,
    golang::AllGoroutines,
    id::{Address, Goid},
};

/// More goroutines than this are not believed.
pub const MAX_GOROUTINES: u64 = 10_000_000;
/// Stacks are read until this much was read; goroutines beyond it have none.
const MAX_STACK_BYTES: u64 = 16 << 30;
/// Everything that is read.
pub const MAX_BYTES: u64 = 96 << 30;
/// Code addresses of different stacks that are kept.
const MAX_ADDRESSES: usize = 8 << 20;
/// Go ends a program whose stack grows beyond a gigabyte (`runtime/proc.go`, `maxstacksize`), and C's is no larger.
const MAX_STACK: u64 = 1 << 30;
/// Goroutines read at once: few, so that little time passes between the two looks at each.
const CHUNK: usize = 1024;
/// Pointers read at once, in bytes.
pub const POINTERS: usize = 1 << 20;
/// How often a goroutine that changes is looked at.
pub const PASSES: u32 = 3;
/// How often the list is read anew because it was moved.
const TRIES: u32 = 8;
/// More lengths of frames than this are not remembered.
const MAX_REMEMBERED: usize = 1 << 20;

/// What the look before found of goroutines that a garbage collection had seen waiting: one that the same collection is still the first to have
/// seen has not run since (`waitsince` is 0 from `execute` on until a collection meets it; `runtime/proc.go`, `runtime/mgcmark.go`),
/// and need not be read again.
#[derive(Default)]
pub struct Before {
    /// By address.
    waiting: Vec<(u64, Kept)>,
    stacks: Stacks,
}

#[derive(Clone, Copy)]
struct Kept {
    goid: u64,
    wait_since: u64,
    stack: StackRead,
    waits_on: Option<Address>,
}

impl Before {
    /// Of one that waits as it did.
    fn of(&self, address: u64, raw: &Raw) -> Option<Kept> {
        let index = self.waiting.binary_search_by_key(&address, |(address, _)| *address).ok()?;
        let kept = self.waiting.get(index)?.1;
        (raw.state == State::Waiting && kept.goid == raw.goid && kept.wait_since == raw.wait_since).then_some(kept)
    }
}

/// Reads all goroutines. Those that have not run since `before` are taken from there, and it is what this look found from then on.
pub fn read(
    memory: &impl Memory,
    program: &Program<'_>,
    detail: Detail,
    before: &mut Before,
) -> Result<Goroutines, SnapshotError> {
    // What nobody stands at any more is forgotten now and then.
    let kept = std::mem::take(before);
    let (waiting, stacks) = match kept.stacks.addresses {
        addresses if addresses > MAX_ADDRESSES / 2 => <(Vec<(u64, Kept)>, Stacks)>::default(),
        _ => (kept.waiting, kept.stacks),
    };
    let mut reader = Reader {
        memory,
        program,
        detail,
        found: Goroutines::default(),
        alike: FxHashSet::default(),
        before: Before { waiting, stacks: Stacks::default() },
        waiting: Vec::new(),
        stacks,
        labels: Labels::new(program.labels),
        channels: Channels::default(),
        goroutines: Reading::default(),
        bytes: 0,
    };
    let mut pointers = reader.pointers()?;
    let listed = pointers.len();
    pointers.retain(|pointer| *pointer != 0 && pointer.is_multiple_of(8));
    reader.found.torn += (listed - pointers.len()) as u64;
    // In runs that ascend already: the runtime allocates many at once.
    pointers.sort();
    pointers.dedup();
    // Goroutines do not lie on top of one another: a list that says so could make millions out of a few kilobytes.
    let (size, distinct) = (u64::from(program.layout.g_size), pointers.len());
    pointers.dedup_by(|next, kept| next.saturating_sub(*kept) < size);
    reader.found.torn += (distinct - pointers.len()) as u64;
    reader.found.all.reserve(pointers.len());
    for chunk in pointers.chunks(CHUNK) {
        let mut left = reader.pass(chunk, false)?;
        for pass in 1..PASSES {
            if left.is_empty() {
                break;
            }
            left = reader.pass(&left, pass + 1 == PASSES)?;
        }
    }
    let Reader { mut found, stacks, labels, mut waiting, .. } = reader;
    waiting.sort_unstable_by_key(|(address, _)| *address);
    if waiting.is_empty() {
        found.stacks = stacks.all;
    } else {
        found.stacks.clone_from(&stacks.all);
        *before = Before { waiting, stacks };
    }
    found.labels = labels.into_sets();
    found.all.sort_by_cached_key(|goroutine| goroutine.goid);
    Ok(found)
}

struct Reader<'a, M> {
    memory: &'a M,
    program: &'a Program<'a>,
    detail: Detail,
    found: Goroutines,
    /// What the goroutines found have in common.
    alike: FxHashSet<Arc<Alike>>,
    before: Before,
    /// For the look behind this one.
    waiting: Vec<(u64, Kept)>,
    stacks: Stacks,
    labels: Labels,
    channels: Channels,
    goroutines: Reading,
    /// Read so far.
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

    fn word(&mut self, address: u64) -> Result<Option<u64>, MemoryError> {
        self.goroutines.read(self.memory, [Piece { address, len: 8 }])?;
        Ok(self.goroutines.word(address))
    }

    fn words(&mut self, start: u64, count: usize) -> Result<Option<Vec<u64>>, SnapshotError> {
        let mut words = Vec::new();
        while words.len() < count {
            let Some(address) = start.checked_add(words.len() as u64 * 8) else { return Ok(None) };
            let len = ((count - words.len()) * 8).min(POINTERS);
            let read = self.goroutines.read(self.memory, [Piece { address, len }])?;
            self.spend(read)?;
            let Some(bytes) = self.goroutines.at(address, len) else { return Ok(None) };
            words.extend(bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)));
        }
        Ok(Some(words))
    }

    /// Reads the goroutines at `addresses`, which ascend. Answers those that changed, unless this is the `last` look.
    fn pass(&mut self, addresses: &[u64], last: bool) -> Result<Vec<u64>, SnapshotError> {
        let mut left = Vec::new();
        let mut alive = Vec::with_capacity(addresses.len());
        let mut still = Vec::new();
        self.look(addresses)?;
        for &address in addresses {
            match self.slot(address) {
                Slot::Alive(raw) => match self.before.of(address, &raw) {
                    Some(kept) => still.push((address, raw, kept)),
                    None => alive.push((address, raw)),
                },
                Slot::Vacant => {}
                Slot::Nonsense if last => self.found.torn += 1,
                Slot::Nonsense => left.push(address),
            }
        }
        let affordable = self.bytes <= MAX_STACK_BYTES && self.stacks.addresses <= MAX_ADDRESSES;
        let wanted = affordable && self.detail != Detail::WithoutStacks;
        let raws = || alive.iter().map(|(_, raw)| raw);
        let read = self.stacks.read(self.memory, raws().filter(|_| wanted))?;
        self.spend(read)?;
        let labels = raws().chain(still.iter().map(|(_, raw, _)| raw)).map(|raw| raw.labels);
        let read = self.labels.read(self.memory, labels)?;
        self.spend(read)?;
        if self.detail == Detail::WithChannels {
            let waiting = raws().filter(|raw| raw.state.waits()).map(|raw| raw.waiting);
            let read = self.channels.read(self.memory, &self.program.layout.sudog, waiting)?;
            self.spend(read)?;
        }
        for (address, raw, kept) in still {
            self.push((address, kept.waits_on), &raw, &raw, Some(raw.state), kept.stack);
        }
        self.look(&alive.iter().map(|(address, _)| *address).collect::<Vec<_>>())?;
        for (address, before) in &alive {
            match self.slot(*address) {
                Slot::Alive(after) if before.stands_still(&after) => {
                    let stack = match before.registers {
                        _ if self.detail == Detail::WithoutStacks => StackRead::LeftOut,
                        None => StackRead::Running,
                        Some(_) if !affordable => StackRead::TooMuch,
                        Some(registers) => self.stacks.walk(before, registers, self.program.frame_bytes),
                    };
                    let waits_on = self.waits_on(*address, before, &after);
                    self.push((*address, waits_on), before, &after, Some(after.state), stack);
                }
                _ if !last => left.push(*address),
                Slot::Alive(after) => {
                    self.found.torn += 1;
                    if (after.goid, after.gopc, after.startpc) == (before.goid, before.gopc, before.startpc) {
                        self.push((*address, None), before, &after, None, StackRead::Changed);
                    }
                }
                Slot::Vacant | Slot::Nonsense => self.found.torn += 1,
            }
        }
        left.sort_unstable();
        Ok(left)
    }

    /// Reads what stands at each of `addresses`, which ascend.
    fn look(&mut self, addresses: &[u64]) -> Result<(), SnapshotError> {
        let len = self.program.layout.g_size as usize;
        let read = self.goroutines.read_merged(self.memory, addresses.iter().map(|&address| Piece { address, len }))?;
        self.spend(read)
    }

    fn slot(&self, address: u64) -> Slot {
        let layout = self.program.layout;
        let bytes = self.goroutines.at(address, layout.g_size as usize);
        bytes.and_then(|bytes| parse(bytes, layout)).unwrap_or(Slot::Nonsense)
    }

    fn waits_on(&self, address: u64, before: &Raw, after: &Raw) -> Option<Address> {
        let waits = after.state.waits() && before.waiting == after.waiting;
        waits.then(|| self.channels.of(address, after.waiting)).flatten()
    }

    fn push(
        &mut self,
        (address, waits_on): (u64, Option<Address>),
        before: &Raw,
        after: &Raw,
        state: Option<State>,
        stack: StackRead,
    ) {
        let waits = state.is_some_and(State::waits);
        let reason = self.program.wait_reasons.get(usize::from(after.wait_reason)).copied();
        let dated = waits || state == Some(State::Syscall);
        // A coroutine is switched to without `execute`.
        let held = self.detail == Detail::WithChannels && after.wait_since != 0 && reason != Some("coroutine");
        if held && state == Some(State::Waiting) && matches!(stack, StackRead::Known(_)) {
            self.waiting.push((address, Kept { goid: after.goid, wait_since: after.wait_since, stack, waits_on }));
        }
        let labels = if before.labels == after.labels { self.labels.of(after.labels) } else { LabelsRead::Unknown };
        let alike = Alike {
            state,
            wait_reason: reason.filter(|reason| waits && !reason.is_empty()),
            gopc: Address(after.gopc),
            startpc: Address(after.startpc),
            locked_to_thread: after.locked,
            stack_bytes: after.stack_hi.checked_sub(after.stack_lo).filter(|bytes| (1..=MAX_STACK).contains(bytes)),
            stack,
            labels,
        };
        let alike = match self.alike.get(&alike) {
            Some(alike) => Arc::clone(alike),
            None => {
                let alike = Arc::new(alike);
                self.alike.insert(Arc::clone(&alike));
                alike
            }
        };
        self.found.all.push(Goroutine {
            goid: Goid(after.goid),
            waits_on,
            waits_since: Some(KtimeNs(after.wait_since)).filter(|since| dated && since.0 != 0),
            parent: after.parent.map(Goid),
            stack_hi: after.stack_hi,
            alike,
        });
    }

    fn spend(&mut self, bytes: u64) -> Result<(), SnapshotError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > MAX_BYTES { Err(SnapshotError::TooMuch) } else { Ok(()) }
    }
}

/// Different stacks, and what is needed to read the next ones.
#[derive(Default)]
struct Stacks {
    all: Vec<Stack>,
    indices: FxHashMap<Stack, u32>,
    /// Code addresses in `all`.
    addresses: usize,
    /// Known lengths of frames, by code address.
    frames: FxHashMap<u64, Option<u64>>,
    pieces: Vec<Piece>,
    reading: Reading,
    scratch: Stack,
}

impl Stacks {
    /// Reads the stacks of goroutines, for [`Self::walk`].
    fn read<'r>(&mut self, memory: &impl Memory, raws: impl Iterator<Item = &'r Raw>) -> Result<u64, MemoryError> {
        self.pieces.clear();
        self.pieces.extend(raws.filter_map(stack::piece));
        self.pieces.sort_unstable_by_key(|piece| piece.address);
        self.reading.read_merged(memory, self.pieces.iter().copied())
    }

    fn walk(&mut self, raw: &Raw, registers: Registers, frame_bytes: &dyn Fn(u64) -> Option<u64>) -> StackRead {
        let Some(piece) = stack::piece(raw) else { return StackRead::Unreadable };
        let bytes = self.reading.up_to(piece.address, piece.len);
        if bytes.is_empty() {
            return StackRead::Unreadable;
        }
        if self.frames.len() >= MAX_REMEMBERED {
            self.frames.clear();
        }
        let frame = *self.frames.entry(registers.pc).or_insert_with(|| frame_bytes(registers.pc));
        stack::walk(raw, registers, bytes, frame, &mut self.scratch);
        if let Some(index) = self.indices.get(&self.scratch) {
            return StackRead::Known(*index);
        }
        let Ok(index) = u32::try_from(self.all.len()) else { return StackRead::TooMuch };
        self.addresses += self.scratch.pcs.len();
        self.all.push(self.scratch.clone());
        self.indices.insert(self.scratch.clone(), index);
        StackRead::Known(index)
    }
}
