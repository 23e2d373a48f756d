//! Runs a whole recording through decode, order and correlate, and keeps what outputs need to explain the result.

use std::{collections::VecDeque, thread};

use rustc_hash::FxHashMap;

use crate::{
    clock::KtimeNs,
    event::{CodeOf, Event, Top, What},
    id::{Address, BinaryId, StackId, Tgid},
    index::Only,
    order::{DEFAULT_WINDOW_NS, OrderReport, Orderer},
    recording::{
        Block, Completeness, RecordingError,
        contract::{
            Adopted, Binary, ChildrenSeen, Code, Counters, DumpBegins, DumpSource, End, Found, Gone, GoroutineDump, Index,
            Joined, KeptAt, LoadAt, MemoryAt, Meta, NativeCode, Note, Profile, Summed, TestsSeen, ThreadsMet, Tier, UsdtFile,
        },
        reader::{Recording, Source},
    },
};

use super::{
    Engine, Sink,
    cgroup::Cgroups,
    feed::{Step, feed},
    process::{Image, ImageId},
};

/// A stack of runtime addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Return addresses, innermost first, but for what `top` says.
    pub pcs: Box<[Address]>,
    /// The walk stopped with frames left at the root.
    pub truncated: bool,
    pub top: Top,
    pub of: CodeOf,
}

/// Everything a recording said, besides the spans and lives that went to the sink.
pub struct Replayed {
    pub meta: Meta,
    pub view: View,
    pub completeness: Completeness,
    pub binaries: FxHashMap<BinaryId, Binary>,
    pub code: Vec<Code>,
    pub native: Vec<NativeCode>,
    pub stacks: FxHashMap<StackId, Stack>,
    pub notes: Vec<Note>,
    /// In the order in which they came.
    pub profiles: Vec<Profile>,
    pub memory: Vec<MemoryAt>,
    /// Files whose USDT probes were set.
    pub usdt: Vec<UsdtFile>,
    /// The names of cgroups.
    pub cgroups: Cgroups,
    /// What cgroups had to bear, in the order in which it was looked at.
    pub load: Vec<LoadAt>,
    /// The newest counters, if any were written.
    pub counters: Option<Counters>,
    pub end: Option<End>,
    /// When the recording ended: its end block, else the newest event or counters.
    pub ended_at: KtimeNs,
    pub order: OrderReport,
    /// Records that could not be decoded.
    pub undecodable: u64,
    pub engine: Engine,
}

/// What of a recording is believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// Events, held against what looks at the processes found.
    #[default]
    Repaired,
    /// Events alone, and what was read of processes when they were joined.
    EventsOnly,
}

/// Replays `recording` into `sink`.
pub fn replay<R: Source + Send>(recording: Recording<R>, sink: &mut impl Sink) -> Result<Replayed, RecordingError> {
    replay_as(recording, View::default(), sink)
}

/// The same, seen in one way or the other.
pub fn replay_as<R: Source + Send>(
    recording: Recording<R>,
    view: View,
    sink: &mut impl Sink,
) -> Result<Replayed, RecordingError> {
    replay_only(recording, view, None, sink)
}

/// The same; with `only`, what is told of that goroutine is whole, and of others there may be anything.
pub fn replay_only<R: Source + Send>(
    recording: Recording<R>,
    view: View,
    only: Option<Only>,
    sink: &mut impl Sink,
) -> Result<Replayed, RecordingError> {
    let meta = recording.meta().clone();
    let zero = meta.clock.ktime_ns;
    let mut replaying = Replaying {
        view,
        tables: Tables { newest: zero, ..Tables::default() },
        orderer: Orderer::new(DEFAULT_WINDOW_NS, zero),
        engine: Engine::default(),
    };
    replaying.engine.follow_threads(meta.threads);
    replaying.engine.sum_short(meta.min_block_ns.is_some());
    sink.begin(zero);
    let completeness = thread::scope(|scope| {
        for step in feed(scope, recording, only)? {
            match step {
                Step::Events { events, undecodable } => replaying.events(events, undecodable, sink),
                Step::Block(block) => replaying.block(block, sink),
                Step::Passed(index) => replaying.passed(&index, sink),
                Step::End(completeness) => return completeness,
            }
        }
        // The thread that reads has panicked, which the scope passes on.
        Ok(Completeness::NotEnded)
    })?;
    Ok(replaying.finish(meta, completeness, sink))
}

/// A recording on its way through the stages.
struct Replaying {
    view: View,
    tables: Tables,
    orderer: Orderer,
    engine: Engine,
}

impl Replaying {
    fn events(&mut self, events: Vec<Event>, undecodable: u64, sink: &mut impl Sink) {
        self.tables.undecodable += undecodable;
        for event in events {
            self.orderer.push(event, &mut |event| self.tables.release(event, &mut self.engine, sink));
        }
    }

    fn passed(&mut self, index: &Index, sink: &mut impl Sink) {
        let Self { tables, orderer, engine, .. } = self;
        for process in &index.processes {
            tables.put_off(process.from, Later::Hit(process.tgid, process.binary));
        }
        for run in &index.runs {
            // As if they had been released.
            if tables.detaching.is_none_or(|at| run.to <= at) {
                tables.newest = tables.newest.max(run.to);
            }
            orderer.pass(run, &mut |event| tables.release(event, engine, sink));
        }
    }

    fn block(&mut self, block: Block, sink: &mut impl Sink) {
        let Self { view, tables, orderer, engine } = self;
        match block {
            Block::Binary(binary) => {
                engine.binary(&binary);
                tables.binaries.insert(binary.id, binary);
            }
            Block::Usdt(file) => {
                engine.usdt_file(&file);
                tables.usdt.push(file);
            }
            Block::Joined(joined) => {
                if joined.dump_follows {
                    tables.await_dump((joined.tgid, DumpSource::Memory), joined.at);
                }
                tables.put_off(joined.at, Later::Joined(joined));
                orderer.hold(tables.hold());
            }
            Block::Found(found) => tables.put_off(found.at, Later::Found(found)),
            Block::Adopted(adopted) => tables.put_off(adopted.at, Later::Adopted(adopted)),
            Block::Gone(gone) => tables.put_off(gone.at, Later::Gone(gone)),
            Block::DumpBegins(DumpBegins { at, tgid, source }) => {
                tables.await_dump((tgid, source), at);
                orderer.hold(tables.hold());
            }
            Block::Dump(dump) => {
                if dump.last {
                    tables.dump_came((dump.tgid, dump.source));
                }
                if *view == View::Repaired || !dump.check {
                    tables.put_off(dump.from, Later::Dump(dump));
                }
                orderer.hold(tables.hold());
            }
            Block::ThreadsMet(met) => tables.put_off(met.at, Later::Threads(met)),
            Block::TestsSeen(seen) => tables.put_off(seen.at, Later::Tests(seen)),
            Block::ChildrenSeen(seen) => tables.put_off(seen.at, Later::Children(seen)),
            Block::Summed(summed) => tables.put_off(summed.at, Later::Summed(summed)),
            Block::Kept(kept) => tables.put_off(kept.at, Later::Kept(kept)),
            Block::Note(note) => {
                if let Note::Coverage { at, binary, tier, .. } = note {
                    tables.put_off(at, Later::Coverage(binary, tier));
                }
                tables.keep(Block::Note(note));
            }
            Block::Drained(mark) => {
                orderer.drained(&mark, &mut |event| tables.release(event, engine, sink));
                // Nothing older will come: what was put off until then need not wait for an event.
                tables.catch_up(mark.at.min(tables.hold()) - 1, engine, sink);
            }
            other => tables.keep(other),
        }
    }

    fn finish(self, meta: Meta, completeness: Completeness, sink: &mut impl Sink) -> Replayed {
        let Self { view, mut tables, orderer, mut engine } = self;
        let order = orderer.finish(&mut |event| tables.release(event, &mut engine, sink));
        tables.catch_up(KtimeNs::MAX, &mut engine, sink);
        let ended_at = tables.end.as_ref().map_or(tables.newest, |end| end.at);
        let ended_at = engine.finish(ended_at, sink);
        Replayed {
            meta,
            view,
            completeness,
            binaries: tables.binaries,
            code: tables.code,
            native: tables.native,
            stacks: tables.stacks,
            notes: tables.notes,
            profiles: tables.profiles,
            memory: tables.memory,
            usdt: tables.usdt,
            cgroups: tables.cgroups,
            load: tables.load,
            counters: tables.counters,
            end: tables.end,
            ended_at,
            order,
            undecodable: tables.undecodable,
            engine,
        }
    }
}

/// Dumps that are waited for at once.
const MAX_AWAITED: usize = 16_384;

/// What is collected on the way.
#[derive(Default)]
struct Tables {
    binaries: FxHashMap<BinaryId, Binary>,
    code: Vec<Code>,
    native: Vec<NativeCode>,
    stacks: FxHashMap<StackId, Stack>,
    notes: Vec<Note>,
    profiles: Vec<Profile>,
    memory: Vec<MemoryAt>,
    usdt: Vec<UsdtFile>,
    cgroups: Cgroups,
    load: Vec<LoadAt>,
    counters: Option<Counters>,
    end: Option<End>,
    undecodable: u64,
    newest: KtimeNs,
    /// What is to be told before the events of its time, by time.
    later: VecDeque<(KtimeNs, Later)>,
    /// Dumps that are still to come, in the order in which they were begun, and from when each tells.
    awaited: Vec<((Tgid, DumpSource), KtimeNs)>,
    /// When the probes began to be taken away.
    detaching: Option<KtimeNs>,
}

/// What was learned by looking at a process.
enum Later {
    Joined(Joined),
    Dump(GoroutineDump),
    Found(Found),
    Adopted(Adopted),
    Gone(Gone),
    Threads(ThreadsMet),
    Tests(TestsSeen),
    Children(ChildrenSeen),
    Summed(Summed),
    Kept(KeptAt),
    /// Of records that were left out.
    Hit(Tgid, BinaryId),
    Coverage(BinaryId, Tier),
}

impl Tables {
    fn await_dump(&mut self, of: (Tgid, DumpSource), at: KtimeNs) {
        // A dump always follows, but for a tracer that was killed: so many that do not are a recording's nonsense.
        if self.awaited.len() >= MAX_AWAITED {
            self.awaited.remove(0);
        }
        self.awaited.push((of, at));
    }

    /// Who is asked in one way gives one dump after the other.
    fn dump_came(&mut self, of: (Tgid, DumpSource)) {
        if let Some(place) = self.awaited.iter().position(|(awaited, _)| *awaited == of) {
            self.awaited.remove(place);
        }
    }

    /// From when on events must wait for a dump.
    fn hold(&self) -> KtimeNs {
        self.awaited.iter().map(|(_, at)| *at).min().unwrap_or(KtimeNs::MAX)
    }

    fn put_off(&mut self, at: KtimeNs, what: Later) {
        let place = self.later.partition_point(|(earlier, _)| *earlier <= at);
        self.later.insert(place, (at, what));
    }

    /// Tells what belongs before an event of that time.
    fn catch_up(&mut self, at: KtimeNs, engine: &mut Engine, sink: &mut impl Sink) {
        while self.later.front().is_some_and(|(time, _)| *time <= at) {
            let Some((time, what)) = self.later.pop_front() else { return };
            // Without probes nothing tells what happened since.
            if self.detaching.is_some_and(|at| time > at) {
                continue;
            }
            self.newest = self.newest.max(time);
            match what {
                Later::Joined(joined) => engine.joined(&joined, sink),
                Later::Found(found) => engine.process_found(&found, sink),
                Later::Adopted(adopted) => engine.process_adopted(&adopted),
                Later::Gone(gone) => engine.process_gone(&gone),
                Later::Threads(met) => engine.threads_met(&met),
                Later::Tests(seen) => engine.tests_seen(&seen, sink),
                Later::Children(seen) => engine.children_seen(&seen),
                Later::Summed(summed) => engine.summed(&summed, sink),
                Later::Kept(kept) => engine.kept(&kept, sink),
                Later::Hit(tgid, binary) => engine.was_hit(tgid, binary, time, sink),
                Later::Coverage(binary, tier) => engine.cover(binary, tier, time, sink),
                Later::Dump(dump) => {
                    engine.dump(&dump, sink);
                    let stacks = dump.stacks.into_iter();
                    self.stacks.extend(stacks.map(|stack| {
                        (
                            stack.id,
                            Stack { pcs: stack.pcs.into(), truncated: stack.truncated, top: Top::Return, of: CodeOf::Binary },
                        )
                    }));
                }
            }
        }
    }

    fn release(&mut self, event: Event, engine: &mut Engine, sink: &mut impl Sink) {
        if self.detaching.is_some_and(|at| event.at > at) {
            return;
        }
        self.catch_up(event.at, engine, sink);
        self.newest = self.newest.max(event.at);
        match event.what {
            What::Stack { id, pcs, truncated, top, of } => {
                self.stacks.insert(id, Stack { pcs: pcs.into(), truncated, top, of });
            }
            _ => engine.event(&event, sink),
        }
    }

    fn keep(&mut self, block: Block) {
        match block {
            Block::Code(code) => self.code.push(code),
            Block::NativeCode(code) => self.native.push(code),
            Block::Note(Note::Detaching { at }) => self.detaching = Some(at),
            Block::Note(note) => self.notes.push(note),
            Block::Counters(counters) => {
                self.newest = self.newest.max(counters.at);
                self.counters = Some(counters);
            }
            Block::End(end) => self.end = Some(end),
            Block::Profile(profile) => self.profiles.push(profile),
            Block::Memory(memory) => self.memory.push(memory),
            Block::Cgroup(named) => self.cgroups.name(named),
            Block::Load(load) => self.load.push(load),
            // Those that are of use went elsewhere; a second meta block says nothing new.
            Block::Records(_)
            | Block::Binary(_)
            | Block::Meta(_)
            | Block::Joined(_)
            | Block::Found(_)
            | Block::Adopted(_)
            | Block::Gone(_)
            | Block::ThreadsMet(_)
            | Block::TestsSeen(_)
            | Block::ChildrenSeen(_)
            | Block::Dump(_)
            | Block::DumpBegins(_)
            | Block::Drained(_)
            | Block::Summed(_)
            | Block::Kept(_)
            | Block::Index(_)
            | Block::Usdt(_) => {}
        }
    }
}

/// A stretch of time in which an image was followed in some detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coverage {
    pub tier: Tier,
    pub from: KtimeNs,
    pub to: KtimeNs,
}

impl Replayed {
    /// Nanoseconds since the recording's zero.
    pub fn since_zero(&self, at: KtimeNs) -> u64 {
        at.since(self.meta.clock.ktime_ns)
    }

    /// Whether a fact of the kernel is in this recording.
    pub fn tells(&self, fact: &str) -> bool {
        let told = self.notes.iter().filter_map(|note| match note {
            Note::Facts { told, .. } => Some(told),
            _ => None,
        });
        told.flatten().any(|told| told.fact == fact && told.through != "none")
    }

    pub fn duration_ns(&self) -> u64 {
        self.since_zero(self.ended_at)
    }

    /// From when to when an image was followed at which tier. Empty for one without probes.
    pub fn coverage(&self, image: ImageId) -> Vec<Coverage> {
        let image = self.engine.processes().image(image);
        // Without a hit it is a fork's copy of its parent's image, about to execute another.
        let Some((binary, first_hit)) = image.binary.zip(image.first_hit) else { return Vec::new() };
        let (begin, end) = (image.since, image.until.unwrap_or(self.ended_at));
        let mut steps: Vec<(KtimeNs, Tier)> = self
            .notes
            .iter()
            .filter_map(|note| match note {
                Note::Coverage { at, binary: of, tier, .. } if *of == binary => Some((*at, *tier)),
                _ => None,
            })
            .collect();
        steps.sort_by_key(|(at, _)| *at);
        if steps.is_empty() {
            steps.push((first_hit, self.meta.tier));
        }
        let ends = steps.iter().skip(1).map(|(at, _)| *at).chain([KtimeNs::MAX]);
        let spans =
            steps.iter().zip(ends).map(|((from, tier), to)| Coverage { tier: *tier, from: (*from).max(begin), to: to.min(end) });
        spans.filter(|span| span.from < span.to).collect()
    }

    /// The end of the last time in which no probe told of an image, where there is one; its own end, if none does any more.
    pub fn untold_until(&self, image: ImageId) -> Option<KtimeNs> {
        self.coverage(image).into_iter().filter(|span| span.tier == Tier::T0).map(|span| span.to).max()
    }

    /// The best tier that an image was ever followed at.
    pub fn tier(&self, image: ImageId) -> Option<Tier> {
        self.coverage(image).iter().map(|span| span.tier).max()
    }

    /// Path and Go version of an image's binary, where it was probed.
    pub fn binary(&self, image: &Image) -> Option<&Binary> {
        self.binaries.get(&image.binary?)
    }

    /// How CPUs were sampled; `None`: they were not.
    pub fn sampling(&self) -> Option<Sampling> {
        let mut all: Option<Sampling> = None;
        for note in &self.notes {
            let Note::Sampling { at, hz, cpus } = note else { continue };
            if let Some(sampling) = &mut all {
                sampling.stop(*at);
            }
            if *hz > 0 {
                let sampling = all.get_or_insert_with(Sampling::default);
                (sampling.hz, sampling.cpus, sampling.since) = (*hz, *cpus, Some(*at));
            }
        }
        if let Some(sampling) = &mut all {
            sampling.stop(self.ended_at);
        }
        all
    }
}

/// What the notes tell of the sampling clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sampling {
    /// The newest frequency, a CPU.
    pub hz: u32,
    pub cpus: u32,
    /// Ticks that should have come, on all CPUs.
    pub expected_ticks: u64,
    since: Option<KtimeNs>,
}

impl Sampling {
    fn stop(&mut self, at: KtimeNs) {
        if let Some(since) = self.since.take() {
            let ticks = u128::from(at.since(since)) * u128::from(self.hz) * u128::from(self.cpus) / 1_000_000_000;
            self.expected_ticks = self.expected_ticks.saturating_add(u64::try_from(ticks).unwrap_or(u64::MAX));
        }
    }
}
