//! A snapshot as a recording holds it.
//!
//! Owns the translation: goroutines in parts of bounded size, and stacks that wait as a park would have sent them, so that a wait looks
//! alike whether an event told of it or the memory did.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use tracer_common::stack::{hash_add, hash_end, hash_start};

use super::{Alike, Goroutine, LabelsRead, Snapshot, StackRead, stack::Stack};
use crate::{
    clock::KtimeNs,
    golang::GoBinary,
    id::{Address, BinaryId, ProcessKey, StackId},
    recording::contract::{DumpSource, DumpedGoroutine, DumpedStack, GoroutineDump, Likeness, Tier},
};

/// Goroutines in one part: a few megabytes of it.
const PART: usize = 16_384;
/// Bytes of labels in one part: escaped they may be six times as long, and with the stacks of all its goroutines a part must fit into a
/// block. Labels beyond are unknown.
const MAX_LABELS: usize = 2 << 20;

/// Whose goroutines they are, and what for.
#[derive(Clone, Copy, Debug)]
pub struct Of<'a> {
    pub process: ProcessKey,
    pub binary: &'a GoBinary,
    pub binary_id: BinaryId,
    pub bias: u64,
    /// Detail at which the process is followed.
    pub tier: Tier,
    /// It is one of a series that events are held against.
    pub check: bool,
}

/// The parts of a snapshot, the last one marked.
pub fn parts<'a>(snapshot: &'a Snapshot, of: Of<'a>) -> impl Iterator<Item = GoroutineDump> + 'a {
    let mut stacks = Stacks { of, snapshot, ids: FxHashMap::default(), sent: FxHashSet::default() };
    let count = snapshot.found.all.len().div_ceil(PART).max(1);
    (0..count).map(move |part| {
        let mut dump = empty(of, snapshot.taken_at_ktime, KtimeNs(snapshot.taken_at_ktime.0 + snapshot.duration_ns));
        let mut likenesses = Likenesses::default();
        for goroutine in snapshot.found.all.chunks(PART).nth(part).unwrap_or_default() {
            let kind = likenesses.index(goroutine, &mut stacks, &mut dump);
            dump.goroutines.push(DumpedGoroutine(goroutine.goid, goroutine.parent, kind));
            dump.objects.push(goroutine.waits_on.unwrap_or(Address(0)));
        }
        if dump.objects.iter().all(|object| object.0 == 0) {
            dump.objects.clear();
        }
        dump.last = part + 1 == count;
        dump.torn = if dump.last { snapshot.found.torn } else { 0 };
        dump
    })
}

/// What stands in place of a snapshot that could not be taken; `gone`: because there is no such process any more.
pub fn failed(of: Of<'_>, at: KtimeNs, problem: String, gone: bool) -> GoroutineDump {
    GoroutineDump { problem: Some(problem), last: true, gone, ..empty(of, at, at) }
}

/// That a process is there no more, of which no event tells.
pub fn gone(process: ProcessKey, at: KtimeNs) -> GoroutineDump {
    let problem = Some(format!("process {} has ended", process.tgid));
    GoroutineDump { problem, last: true, gone: true, check: true, tier: Tier::T0, ..blank(process, at, at) }
}

/// A part without goroutines yet.
pub fn empty(of: Of<'_>, from: KtimeNs, to: KtimeNs) -> GoroutineDump {
    let Of { process, binary_id, bias, tier, check, .. } = of;
    GoroutineDump { binary: binary_id, load_bias: bias, check, tier, ..blank(process, from, to) }
}

fn blank(process: ProcessKey, from: KtimeNs, to: KtimeNs) -> GoroutineDump {
    GoroutineDump {
        tgid: process.tgid,
        start_ticks: process.start_ticks,
        binary: BinaryId(0),
        load_bias: 0,
        source: DumpSource::Memory,
        check: false,
        from,
        to,
        tier: Tier::T0,
        kinds: Vec::new(),
        goroutines: Vec::new(),
        objects: Vec::new(),
        stacks: Vec::new(),
        labels: Vec::new(),
        torn: 0,
        last: false,
        problem: None,
        gone: false,
    }
}

/// What goroutines of one part have in common.
#[derive(Default)]
struct Likenesses {
    /// By where it is: a snapshot has each once.
    indices: FxHashMap<*const Alike, u32>,
    labels: FxHashMap<Option<u32>, u32>,
    label_bytes: usize,
}

impl Likenesses {
    fn index(&mut self, goroutine: &Goroutine, stacks: &mut Stacks<'_>, dump: &mut GoroutineDump) -> u32 {
        let alike = Arc::as_ptr(&goroutine.alike);
        if let Some(index) = self.indices.get(&alike) {
            return *index;
        }
        let waits = goroutine.state.is_some_and(super::goroutine::State::waits);
        let stack = match goroutine.stack {
            StackRead::Known(index) if waits => stacks.id(index, &mut dump.stacks),
            _ => None,
        };
        let labels = self.labels(goroutine.labels, stacks.snapshot, &mut dump.labels);
        dump.kinds.push(Likeness {
            gopc: goroutine.gopc,
            startpc: goroutine.startpc,
            state: goroutine.state.map(|state| state.name().to_owned()),
            wait_reason: goroutine.wait_reason.map(str::to_owned),
            stack,
            stack_bytes: goroutine.stack_bytes,
            labels,
        });
        let index = (dump.kinds.len() - 1) as u32;
        self.indices.insert(alike, index);
        index
    }

    /// Index into the part's sets of labels.
    fn labels(&mut self, read: LabelsRead, snapshot: &Snapshot, sets: &mut Vec<Vec<(String, String)>>) -> Option<u32> {
        let (known, set) = match read {
            LabelsRead::Unknown => return None,
            LabelsRead::None => (None, None),
            LabelsRead::Known(index) => (Some(index), Some(snapshot.found.labels.get(index as usize)?)),
        };
        if let Some(index) = self.labels.get(&known) {
            return Some(*index);
        }
        let bytes: usize = set.into_iter().flatten().map(|(key, value)| key.len() + value.len() + 8).sum();
        self.label_bytes = self.label_bytes.saturating_add(bytes);
        if self.label_bytes > MAX_LABELS {
            return None;
        }
        Some(*self.labels.entry(known).or_insert_with(|| {
            sets.push(set.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect());
            (sets.len() - 1) as u32
        }))
    }
}

struct Stacks<'a> {
    of: Of<'a>,
    snapshot: &'a Snapshot,
    /// Whether a code address lies in `runtime.gopark`.
    /// By index into the snapshot's stacks.
    ids: FxHashMap<u32, StackId>,
    sent: FxHashSet<StackId>,
}

impl Stacks<'_> {
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
        let parks = binary.returns_to_gopark(first.wrapping_sub(bias));
        if parks && !rest.is_empty() { rest } else { &stack.pcs }
    }
}
