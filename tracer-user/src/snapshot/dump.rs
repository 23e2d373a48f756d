//! A snapshot as a recording holds it.
//!
//! Owns the translation: goroutines in parts of bounded size, and stacks that wait as a park would have sent them, so that a wait looks
//! alike whether an event told of it or the memory did.

use rustc_hash::{FxHashMap, FxHashSet};
use tracer_common::stack::{hash_add, hash_end, hash_start};

use super::{Goroutine, Snapshot, StackRead, stack::Stack};
use crate::{
    clock::KtimeNs,
    golang::GoBinary,
    id::{Address, BinaryId, StackId, Tgid},
    recording::contract::{CodeUse, DumpedGoroutine, DumpedStack, GoroutineDump, Tier},
};

/// Goroutines in one part: a few megabytes of it.
const PART: usize = 16_384;

/// Whose goroutines they are.
#[derive(Clone, Copy, Debug)]
pub struct Of<'a> {
    pub tgid: Tgid,
    pub binary: &'a GoBinary,
    pub binary_id: BinaryId,
    pub bias: u64,
    /// Detail at which the process is followed.
    pub tier: Tier,
}

/// The parts of a snapshot, the last one marked.
pub fn parts<'a>(snapshot: &'a Snapshot, of: Of<'a>) -> impl Iterator<Item = GoroutineDump> + 'a {
    let mut stacks = Stacks { of, snapshot, parks: FxHashMap::default(), ids: FxHashMap::default(), sent: FxHashSet::default() };
    let count = snapshot.found.all.len().div_ceil(PART).max(1);
    (0..count).map(move |part| {
        let mut dump = empty(of, snapshot.taken_at_ktime, KtimeNs(snapshot.taken_at_ktime.0 + snapshot.duration_ns));
        let goroutines = snapshot.found.all.chunks(PART).nth(part).unwrap_or_default();
        dump.goroutines = goroutines.iter().map(|goroutine| stacks.dumped(goroutine, &mut dump.stacks)).collect();
        dump.last = part + 1 == count;
        dump.torn = if dump.last { snapshot.found.torn } else { 0 };
        dump
    })
}

/// What stands in place of a snapshot that could not be taken.
pub fn failed(of: Of<'_>, at: KtimeNs, problem: String) -> GoroutineDump {
    GoroutineDump { problem: Some(problem), last: true, ..empty(of, at, at) }
}

fn empty(of: Of<'_>, from: KtimeNs, to: KtimeNs) -> GoroutineDump {
    GoroutineDump {
        tgid: of.tgid,
        from,
        to,
        tier: of.tier,
        goroutines: Vec::new(),
        stacks: Vec::new(),
        torn: 0,
        last: false,
        problem: None,
    }
}

struct Stacks<'a> {
    of: Of<'a>,
    snapshot: &'a Snapshot,
    /// Whether a code address lies in `runtime.gopark`.
    parks: FxHashMap<u64, bool>,
    /// By index into the snapshot's stacks.
    ids: FxHashMap<u32, StackId>,
    sent: FxHashSet<StackId>,
}

impl Stacks<'_> {
    fn dumped(&mut self, goroutine: &Goroutine, new: &mut Vec<DumpedStack>) -> DumpedGoroutine {
        let waits = goroutine.state.is_some_and(super::goroutine::State::waits);
        let stack = match goroutine.stack {
            StackRead::Known(index) if waits => self.id(index, new),
            _ => None,
        };
        DumpedGoroutine {
            goid: goroutine.goid,
            parent: goroutine.parent,
            gopc: goroutine.gopc,
            startpc: goroutine.startpc,
            state: goroutine.state.map(|state| state.name().to_owned()),
            wait_reason: goroutine.wait_reason.map(str::to_owned),
            stack,
        }
    }

    fn id(&mut self, index: u32, new: &mut Vec<DumpedStack>) -> Option<StackId> {
        if let Some(id) = self.ids.get(&index) {
            return Some(*id);
        }
        let stack = self.snapshot.found.stacks.get(index as usize)?;
        let pcs = self.above_gopark(stack);
        let hash = pcs.iter().fold(hash_start(self.of.binary_id.0, 0), |hash, pc| hash_add(hash, *pc));
        let id = StackId(hash_end(hash));
        self.ids.insert(index, id);
        if self.sent.insert(id) {
            let pcs = pcs.iter().copied().map(Address).collect();
            new.push(DumpedStack { id, pcs, truncated: stack.truncated });
        }
        Some(id)
    }

    /// The stack from the caller of gopark on, where a probe takes it.
    fn above_gopark<'s>(&mut self, stack: &'s Stack) -> &'s [u64] {
        let Some((first, rest)) = stack.pcs.split_first() else { return &[] };
        let Of { binary, bias, .. } = self.of;
        let parks = self.parks.entry(*first).or_insert_with(|| {
            let frames = binary.symbolize(first.wrapping_sub(bias), CodeUse::Return);
            frames.last().is_some_and(|frame| frame.function == "runtime.gopark")
        });
        if *parks && !rest.is_empty() { rest } else { &stack.pcs }
    }
}
