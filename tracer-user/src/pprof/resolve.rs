//! A dump of goroutines as text, in a recording's words: addresses in place of names.
//!
//! A dump names a function and how far into it a call is. The address is believed where one function of the program has that name, and its
//! tables give the very file and line there; else it is unknown. What the memory showed of a goroutine comes first.

use rustc_hash::{FxHashMap, FxHashSet};
use tracer_common::stack::{hash_add, hash_end, hash_start};

use super::{
    AnswerError, text,
    verdict::{Claims, Seen, Sight},
};
use crate::{
    clock::KtimeNs,
    golang::GoBinary,
    id::{Address, Goid, StackId},
    recording::contract::{CodeUse, DumpSource, DumpedGoroutine, DumpedStack, Frame, GoroutineDump, Likeness, Tier},
    snapshot::{
        Goroutine, Goroutines, LabelsRead,
        dump::{Of, empty},
    },
    symbolize::is_system,
};

/// Goroutines of a dump that are taken over: `debug=2` is not asked for where there are more than a sixth of that.
const MAX_GOROUTINES: usize = 1 << 16;
/// Addresses in the stacks of one dump, and bytes in its labels: a block of a recording has its limit.
const MAX_ADDRESSES: usize = 1 << 20;
const MAX_LABEL_BYTES: usize = 4 << 20;
/// Bytes of one label's key and value.
const MAX_LABEL: usize = 1024;

/// What goroutines do that do not wait, in the words of `gStatusStrings` (`runtime/traceback.go`).
const STATES: [&str; 5] = ["runnable", "running", "syscall", "copystack", "preempted"];

/// Finds the addresses of calls by the names in a dump.
pub struct Names<'b> {
    binary: &'b GoBinary,
    bias: u64,
    /// Entries of the functions of a name, as far as they were looked for.
    entries: FxHashMap<String, Vec<u64>>,
}

impl<'b> Names<'b> {
    pub fn new(binary: &'b GoBinary, bias: u64) -> Self {
        Self { binary, bias, entries: FxHashMap::default() }
    }

    /// Looks for all functions of a dump in one pass.
    fn learn(&mut self, dump: &text::Dump<'_>) {
        let frames = dump.goroutines.iter().flat_map(|goroutine| {
            goroutine.frames.iter().filter(|frame| frame.offset.is_some()).chain(goroutine.creator.as_ref().map(|by| &by.frame))
        });
        let wanted: FxHashSet<&str> =
            frames.map(|frame| frame.function).filter(|function| !self.entries.contains_key(*function)).collect();
        if wanted.is_empty() {
            return;
        }
        for function in &wanted {
            self.entries.insert((*function).to_owned(), Vec::new());
        }
        self.binary.each_function(|entry, name| {
            if let Some(entries) = self.entries.get_mut(shown(name).as_ref()) {
                entries.push(entry);
            }
        });
    }

    /// Return address of a call; `None` where it cannot be told.
    fn call(&self, frame: &text::Frame<'_>, place: impl Fn(&[Frame]) -> Option<&Frame>) -> Option<Address> {
        let offset = frame.offset?;
        let fits = |entry: &u64| {
            let frames = self.binary.symbolize(entry.checked_add(offset)?, CodeUse::Return);
            let there = place(&frames)?;
            let same = (there.file.as_str(), there.line) == (frame.file, frame.line)
                && frames.last().is_some_and(|outer| shown(&outer.function) == frame.function);
            same.then(|| entry + offset)
        };
        let mut found = self.entries.get(frame.function)?.iter().filter_map(fits);
        let address = found.next()?;
        found.next().is_none().then(|| Address(address.wrapping_add(self.bias)))
    }

    /// The go statement; its line is that of the innermost inlined call (`printcreatedby1` takes it from the raw tables).
    fn creator(&self, creator: &text::Creator<'_>) -> Option<Address> {
        self.call(&creator.frame, <[Frame]>::first)
    }

    /// The whole stack, or nothing.
    fn stack(&self, goroutine: &text::Goroutine<'_>) -> Option<Vec<Address>> {
        if goroutine.partial || goroutine.frames.is_empty() {
            return None;
        }
        let calls = goroutine.frames.iter().filter(|frame| frame.offset.is_some());
        calls.map(|frame| self.call(frame, <[Frame]>::last)).collect()
    }
}

/// A function's name as a dump shows it: type arguments are left out (`funcNameForPrint`, `runtime/symtab.go`).
fn shown(name: &str) -> std::borrow::Cow<'_, str> {
    match (name.find('['), name.rfind(']')) {
        (Some(open), Some(close)) if open < close => format!("{}[...]{}", &name[..open], &name[close + 1..]).into(),
        _ => name.into(),
    }
}

/// What the memory of a process showed, ready to be held against a dump.
pub fn sight(found: &Goroutines, binary: &GoBinary, bias: u64) -> Sight {
    let mut makers: FxHashMap<Address, Option<String>> = FxHashMap::default();
    let mut systems: FxHashMap<Address, bool> = FxHashMap::default();
    let name =
        |address: Address, use_as| binary.symbolize(address.0.wrapping_sub(bias), use_as).pop().map(|frame| frame.function);
    let seen = |goroutine: &Goroutine| {
        let made_by = makers.entry(goroutine.gopc).or_insert_with(|| name(goroutine.gopc, CodeUse::Return)).clone();
        let system = *systems.entry(goroutine.startpc).or_insert_with(|| {
            // What begins nowhere known is not expected to be shown.
            name(goroutine.startpc, CodeUse::Entry).is_none_or(|function| is_system(&function))
        });
        // What changed under every look is not held against anybody.
        let system = system || goroutine.state.is_none();
        (goroutine.goid, Seen { parent: goroutine.parent, made_by, system })
    };
    found.all.iter().map(seen).collect()
}

/// What a dump says of who made whom.
pub fn claims<'t>(dump: &text::Dump<'t>) -> Claims<'t> {
    let claim = |goroutine: &text::Goroutine<'t>| {
        (Goid(goroutine.goid), goroutine.creator.as_ref().map(|creator| (creator.frame.function, creator.goid.map(Goid))))
    };
    dump.goroutines.iter().map(claim).collect()
}

/// A dump for the recording.
pub fn resolve(
    dump: &text::Dump<'_>,
    memory: Option<&Goroutines>,
    names: &mut Names<'_>,
    of: Of<'_>,
    (from, to): (KtimeNs, KtimeNs),
) -> Result<GoroutineDump, AnswerError> {
    if dump.goroutines.len() > MAX_GOROUTINES {
        return Err(AnswerError::TooMany("goroutines"));
    }
    names.learn(dump);
    let known = memory.iter().flat_map(|memory| memory.all.iter().map(|goroutine| (goroutine.goid, goroutine))).collect();
    let out = GoroutineDump {
        source: DumpSource::Pprof,
        last: true,
        problem: dump.cut.then(|| "the dump that the process gave is cut: goroutines are missing".to_owned()),
        ..empty(of, from, to)
    };
    let mut this = Builder {
        names,
        memory,
        known,
        of,
        out,
        kinds: FxHashMap::default(),
        stacks: FxHashSet::default(),
        labels: FxHashMap::default(),
        addresses: 0,
        label_bytes: 0,
    };
    for goroutine in &dump.goroutines {
        this.add(goroutine);
    }
    Ok(this.out)
}

struct Builder<'a, 'b> {
    names: &'a Names<'b>,
    memory: Option<&'a Goroutines>,
    known: FxHashMap<Goid, &'a Goroutine>,
    of: Of<'a>,
    out: GoroutineDump,
    kinds: FxHashMap<Likeness, u32>,
    stacks: FxHashSet<StackId>,
    labels: FxHashMap<Vec<(String, String)>, u32>,
    addresses: usize,
    label_bytes: usize,
}

impl Builder<'_, '_> {
    fn add(&mut self, told: &text::Goroutine<'_>) {
        let goid = Goid(told.goid);
        let known = self.known.get(&goid).copied();
        let (state, wait_reason) = self.state(told);
        let waits = matches!(state, Some("waiting" | "leaked"));
        let kind = Likeness {
            gopc: known.map(|known| known.gopc).or_else(|| self.names.creator(told.creator.as_ref()?)).unwrap_or(Address(0)),
            // A dump does not show wrappers, so its outermost call need not be where the goroutine began.
            startpc: known.map_or(Address(0), |known| known.startpc),
            state: state.map(str::to_owned),
            wait_reason,
            stack: if waits && self.of.tier >= Tier::T2 { self.stack(told) } else { None },
            stack_bytes: known.and_then(|known| known.stack_bytes),
            labels: self.labels(told, known),
        };
        let parent = match &told.creator {
            Some(creator) => creator.goid.map(Goid),
            None => known.and_then(|known| known.parent),
        };
        let next = self.out.kinds.len() as u32;
        let index = *self.kinds.entry(kind).or_insert_with_key(|kind| {
            self.out.kinds.push(kind.clone());
            next
        });
        self.out.goroutines.push(DumpedGoroutine(goid, parent, index));
    }

    /// Its status, and what it waits for if it waits.
    fn state<'t>(&self, told: &text::Goroutine<'t>) -> (Option<&'t str>, Option<String>) {
        if let Some(state) = STATES.iter().find(|state| **state == told.state) {
            return (Some(state), None);
        }
        let waits = if told.leaked { "leaked" } else { "waiting" };
        let mut reasons = self.of.binary.wait_reasons().iter();
        match reasons.find(|reason| !reason.is_empty() && **reason == told.state) {
            Some(reason) => (Some(waits), Some((*reason).to_owned())),
            // A durable wait of a bubble is marked even where its reason is not.
            None => match told.state.strip_suffix(" (durable)").filter(|reason| self.of.binary.wait_reasons().contains(reason)) {
                Some(reason) => (Some(waits), Some(reason.to_owned())),
                None => ((told.state == "waiting").then_some(waits), None),
            },
        }
    }

    fn stack(&mut self, told: &text::Goroutine<'_>) -> Option<StackId> {
        let pcs = self.names.stack(told)?;
        let hash = pcs.iter().fold(hash_start(self.of.binary_id.0, 0), |hash, pc| hash_add(hash, pc.0));
        let id = StackId(hash_end(hash));
        if !self.stacks.contains(&id) {
            if self.addresses + pcs.len() > MAX_ADDRESSES {
                return None;
            }
            self.addresses += pcs.len();
            self.stacks.insert(id);
            self.out.stacks.push(DumpedStack { id, pcs, truncated: false });
        }
        Some(id)
    }

    /// Those that the dump shows, else those that the memory shows.
    fn labels(&mut self, told: &text::Goroutine<'_>, known: Option<&Goroutine>) -> Option<u32> {
        let set = match (&told.labels, known.map(|known| known.labels)) {
            (Some(labels), _) => labels.clone(),
            (None, Some(LabelsRead::None)) => Vec::new(),
            (None, Some(LabelsRead::Known(index))) => {
                let set = self.memory?.labels.get(index as usize)?;
                set.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
            }
            (None, _) => return None,
        };
        if let Some(index) = self.labels.get(&set) {
            return Some(*index);
        }
        let bytes: usize = set.iter().map(|(key, value)| 16 + key.len() + value.len()).sum();
        let too_long = set.iter().any(|(key, value)| key.len() + value.len() > MAX_LABEL);
        if too_long || self.label_bytes + bytes > MAX_LABEL_BYTES {
            return None;
        }
        self.label_bytes += bytes;
        let index = self.out.labels.len() as u32;
        self.out.labels.push(set.clone());
        self.labels.insert(set, index);
        Some(index)
    }
}
