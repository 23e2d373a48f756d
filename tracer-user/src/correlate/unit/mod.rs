//! Units of work of any runtime, as its USDT probes tell of them: threads of a Java virtual machine, jobs of a scheduler.
//!
//! A unit is `(image, runtime, id)`. It is awake from its start or a wake to the next block, and blocked from there to the next wake.
//! Where the program has no probe that tells of wakes, a block lasts until the next event of the unit, and is marked as no longer than
//! that. Ids may be used again after an exit.
//!
//! A pure state machine with time passed in ([`life`] has one unit's). Events can be lost: what they would have told is unknown.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    str::FromStr,
    sync::Arc,
};

use rustc_hash::{FxHashMap, FxHashSet};
use tracer_common::usdt::MAX_ARGS;

use super::{Engine, Life, LifeEnd, ReasonId, Sink, SpanState, goroutine::LookedAt, process::ImageId};
use crate::{
    clock::KtimeNs,
    event::{Event, What},
    id::{Address, BinaryId, Tid},
    recording::contract::{UnitEvent, UnitId, UsdtFile, UsdtMeaning},
};

mod life;

use life::{Block, Unit};

/// Reasons that are told apart: a program may make up as many as it likes.
const MAX_REASONS: usize = 1024;
/// Ended units whose end is remembered.
const MAX_ENDED: usize = 65_536;
/// Runtimes that are told apart.
const MAX_RUNTIMES: usize = 256;

/// A runtime by name ([`Engine::runtime`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuntimeId(pub u16);

/// Which unit of a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UnitNumber {
    /// The id that its probes give it.
    Id(u64),
    /// It is known by its thread alone: no probe has told its id yet.
    Thread(Tid),
}

impl fmt::Display for UnitNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Thread(tid) => write!(f, "t{tid}"),
        }
    }
}

impl FromStr for UnitNumber {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (digits, thread) = text.strip_prefix('t').map_or((text, false), |digits| (digits, true));
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(());
        }
        if thread { digits.parse().map(|tid| Self::Thread(Tid(tid))) } else { digits.parse().map(Self::Id) }.map_err(drop)
    }
}

/// A unit of work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitWho {
    /// Tells the lives of a recording apart: a unit that was known by its thread gets its id later.
    pub serial: u64,
    pub image: ImageId,
    pub runtime: RuntimeId,
    pub number: UnitNumber,
    /// What it is called, as its start told.
    pub name: Option<Arc<str>>,
    /// `None`: its start was not seen.
    pub born_at: Option<KtimeNs>,
    /// From when on anything could be known of it.
    pub since: KtimeNs,
}

/// One stretch of a unit's life, closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitSpan {
    /// [`SpanState::Awake`], [`SpanState::Blocked`] or [`SpanState::Unknown`].
    pub state: SpanState,
    pub start: KtimeNs,
    pub end: KtimeNs,
    /// Why it blocked. On an unknown span: why it had blocked when sight of it was lost.
    pub reason: Option<ReasonId>,
    /// What it waited for.
    pub object: Option<Address>,
    /// The thread that told of its beginning.
    pub tid: Option<Tid>,
    /// It ended at some time before `end`: no probe tells when.
    pub at_most: bool,
}

/// What the engine knows of units.
#[derive(Default)]
pub struct Units {
    files: FxHashMap<BinaryId, FxHashMap<u16, Arc<UsdtMeaning>>>,
    runtimes: Vec<String>,
    /// Runtimes some of whose probes say who they are about by the thread alone: there, each unit is a thread.
    threaded: FxHashSet<RuntimeId>,
    reasons: FxHashMap<String, ReasonId>,
    live: BTreeMap<(ImageId, RuntimeId, UnitNumber), Unit>,
    /// Whose a thread is.
    threads: FxHashMap<(ImageId, RuntimeId, Tid), u64>,
    ended: FxHashMap<(ImageId, RuntimeId, UnitNumber), Ended>,
    ended_order: VecDeque<(ImageId, RuntimeId, UnitNumber)>,
    next_serial: u64,
}

/// A life that is over.
#[derive(Clone, Copy)]
struct Ended {
    at: KtimeNs,
    /// The thread that told of its exit; `None`: nobody did.
    by: Option<Tid>,
}

impl Units {
    /// Learns a file's probes, before hits of them come.
    pub fn learn(&mut self, file: &UsdtFile) {
        let probes = file.probes.iter().map(|probe| (probe.id.0, Arc::new(probe.meaning.clone()))).collect();
        for probe in &file.probes {
            let runtime = self.runtime(&probe.meaning.runtime);
            if probe.meaning.id == UnitId::Thread {
                self.threaded.insert(runtime);
            }
        }
        self.files.insert(file.id, probes);
    }

    fn runtime(&mut self, name: &str) -> RuntimeId {
        let known = self.runtimes.iter().position(|known| known == name);
        let index = known.unwrap_or_else(|| {
            if self.runtimes.len() < MAX_RUNTIMES {
                self.runtimes.push(name.to_owned());
            }
            self.runtimes.len() - 1
        });
        RuntimeId(index as u16)
    }

    fn meaning(&self, event: &Event) -> Option<Arc<UsdtMeaning>> {
        self.files.get(&event.binary?)?.get(&event.site.0).cloned()
    }

    /// Whether a thread was a unit that has ended: what it does on its way out is nobody's.
    fn has_left(&self, key: (ImageId, RuntimeId, UnitNumber), tid: Tid) -> bool {
        let ended = self.ended.get(&key).is_some_and(|ended| ended.by == Some(tid));
        ended && self.threaded.contains(&key.1) && !self.live.contains_key(&key)
    }

    fn forget_old_ends(&mut self) {
        while self.ended_order.len() > MAX_ENDED {
            if let Some(oldest) = self.ended_order.pop_front() {
                self.ended.remove(&oldest);
            }
        }
    }
}

impl Engine {
    /// Learns the probes of a file, before hits of them come.
    pub fn usdt_file(&mut self, file: &UsdtFile) {
        self.units.learn(file);
    }

    /// The name of a runtime.
    pub fn runtime(&self, id: RuntimeId) -> &str {
        self.units.runtimes.get(usize::from(id.0)).map_or("?", String::as_str)
    }

    pub(super) fn unit_event(&mut self, event: &Event, sink: &mut impl Sink) {
        let What::UsdtHit { args, text } = &event.what else { return };
        let Some(image) = self.processes.running(event.tgid, event.at) else {
            self.repairs.count("event_after_process_exit");
            return;
        };
        let Some(meaning) = self.units.meaning(event) else {
            self.repairs.count("probe_unknown");
            return;
        };
        let runtime = self.units.runtime(&meaning.runtime);
        let Some(number) = self.unit_number((image, runtime), &meaning, args, event, sink) else {
            self.repairs.count("unit_unknown");
            return;
        };
        let key = (image, runtime, number);
        if meaning.event != UnitEvent::Start && self.units.has_left(key, event.tid) {
            return;
        }
        match meaning.event {
            UnitEvent::Start => self.unit_start(key, text.as_deref(), event, sink),
            UnitEvent::Block => {
                let reason = text.as_deref().filter(|text| !text.is_empty()).or(meaning.reason.as_deref());
                let block = Block {
                    reason: reason.map(|reason| self.unit_reason(reason)),
                    object: meaning.object.and_then(|at| *args.get(usize::from(at))?).map(Address),
                    tid: event.tid,
                    wakes_are_seen: meaning.wakes_are_seen,
                };
                self.with_unit(key, event, sink, |unit, at, tell| unit.block(at, block, tell));
            }
            UnitEvent::Wake => self.with_unit(key, event, sink, |unit, at, tell| unit.wake(at, event.tid, tell)),
            UnitEvent::Exit => {
                self.with_unit(key, event, sink, |unit, at, tell| unit.settle(at, tell));
                self.unit_end(key, event.at, (LifeEnd::Exit, Some(event.tid)), sink);
            }
        }
    }

    /// Of whom a hit speaks.
    fn unit_number(
        &mut self,
        (image, runtime): (ImageId, RuntimeId),
        meaning: &UsdtMeaning,
        args: &[Option<u64>; MAX_ARGS],
        event: &Event,
        sink: &mut impl Sink,
    ) -> Option<UnitNumber> {
        let thread = (image, runtime, event.tid);
        let id = match meaning.id {
            UnitId::Thread => {
                let known = self.units.threads.get(&thread);
                return Some(known.map_or(UnitNumber::Thread(event.tid), |id| UnitNumber::Id(*id)));
            }
            UnitId::Argument(at) => (*args.get(usize::from(at))?)?,
        };
        if self.units.threaded.contains(&runtime) && meaning.event != UnitEvent::Exit {
            self.units.threads.insert(thread, id);
            let nameless = (image, runtime, UnitNumber::Thread(event.tid));
            let named = (image, runtime, UnitNumber::Id(id));
            if meaning.event == UnitEvent::Start || self.units.live.contains_key(&named) {
                // Another one had the thread before, and its end was not seen.
                self.unit_end(nameless, event.at, (LifeEnd::Gone, None), sink);
            } else if let Some(mut unit) = self.units.live.remove(&nameless) {
                unit.who.number = UnitNumber::Id(id);
                self.units.live.insert(named, unit);
            }
        }
        Some(UnitNumber::Id(id))
    }

    fn unit_start(&mut self, key: (ImageId, RuntimeId, UnitNumber), name: Option<&str>, event: &Event, sink: &mut impl Sink) {
        if let Some(unit) = self.units.live.get_mut(&key) {
            // An id is used again after an exit: that one is lost.
            unit.lose_sight(event.at, &mut |who, span| sink.unit_span(who, &span));
            self.repairs.count("lost_unit_exit");
            self.unit_end(key, event.at, (LifeEnd::Gone, None), sink);
        }
        let name = name.filter(|name| !name.is_empty()).map(Arc::from);
        let who = self.new_unit(key, event.at);
        let who = UnitWho { name, born_at: Some(event.at), ..who };
        self.units.live.insert(key, Unit::born(who, event.tid));
    }

    fn new_unit(&mut self, key: (ImageId, RuntimeId, UnitNumber), since: KtimeNs) -> UnitWho {
        let (image, runtime, number) = key;
        let serial = self.units.next_serial;
        self.units.next_serial += 1;
        UnitWho { serial, image, runtime, number, name: None, born_at: None, since }
    }

    /// Applies an event to the unit it is about. One that is met for the first time is unknown since its image began, or since the one
    /// before it that had its id ended.
    fn with_unit(
        &mut self,
        key: (ImageId, RuntimeId, UnitNumber),
        event: &Event,
        sink: &mut impl Sink,
        apply: impl FnOnce(&mut Unit, KtimeNs, &mut dyn FnMut(&UnitWho, UnitSpan)) -> Option<&'static str>,
    ) {
        if !self.units.live.contains_key(&key) {
            let began = self.processes.image(key.0).since;
            let since = self.units.ended.get(&key).map_or(began, |ended| began.max(ended.at));
            let who = self.new_unit(key, since.min(event.at));
            self.units.live.insert(key, Unit::met(who));
        }
        let Some(unit) = self.units.live.get_mut(&key) else { return };
        if let Some(repair) = apply(unit, event.at, &mut |who, span| sink.unit_span(who, &span)) {
            self.repairs.count(repair);
        }
    }

    /// Ends a life, if there is one; who told of it, if anybody did.
    fn unit_end(
        &mut self,
        key: (ImageId, RuntimeId, UnitNumber),
        at: KtimeNs,
        (end, by): (LifeEnd, Option<Tid>),
        sink: &mut impl Sink,
    ) {
        let Some(mut unit) = self.units.live.remove(&key) else { return };
        if end == LifeEnd::Gone {
            unit.lose_sight(at, &mut |who, span| sink.unit_span(who, &span));
        }
        let (who, last_known) = unit.cut(at, &mut |who, span| sink.unit_span(who, &span));
        let ended_at = at.max(last_known);
        sink.unit_life(&who, &Life { ended_at, end, last_known, looked_at: LookedAt::default() });
        if matches!(end, LifeEnd::Exit | LifeEnd::Gone) {
            if self.units.ended.insert(key, Ended { at: ended_at, by }).is_none() {
                self.units.ended_order.push_back(key);
            }
            self.units.forget_old_ends();
        }
    }

    /// Closes the units of an image.
    pub(super) fn close_units(&mut self, image: ImageId, at: KtimeNs, end: LifeEnd, sink: &mut impl Sink) {
        let first = (image, RuntimeId(0), UnitNumber::Id(0));
        let keys = self.units.live.range(first..).map(|(key, _)| *key).take_while(|key| key.0 == image);
        let keys: Vec<_> = keys.collect();
        for key in keys {
            self.unit_end(key, at, (end, None), sink);
        }
        self.units.threads.retain(|(of, ..), _| *of != image);
    }

    /// Images whose units live.
    pub(super) fn images_with_units(&self) -> impl Iterator<Item = ImageId> {
        self.units.live.keys().map(|key| key.0)
    }

    fn unit_reason(&mut self, name: &str) -> ReasonId {
        if let Some(known) = self.units.reasons.get(name) {
            return *known;
        }
        if self.units.reasons.len() >= MAX_REASONS {
            return self.reasons.intern("other reasons");
        }
        let id = self.reasons.intern(name);
        self.units.reasons.insert(name.to_owned(), id);
        id
    }
}

#[cfg(test)]
mod tests;
