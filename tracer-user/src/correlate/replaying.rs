//! A recording on its way through decode, order and correlate, a step at a time: for who replays all of it, and for who looks on while
//! it is being written.

use std::{cmp::Reverse, collections::VecDeque, mem};

use rustc_hash::FxHashMap;

use super::{
    Engine, Sink,
    cgroup::{Cgroups, Place},
    feed::Step,
    loss::Losses,
    process::{Image, ImageId, Process},
    replay::{Coverage, Replayed, Stack, View, coverage},
};
use crate::{
    clock::KtimeNs,
    event::{CodeOf, Event, Top, What},
    id::{BinaryId, StackId, Tgid},
    order::{DEFAULT_WINDOW_NS, Orderer},
    recording::{
        Block, Completeness, RecordingError,
        contract::{
            Adopted, Binary, ChildrenSeen, Code, Counters, DumpBegins, DumpSource, End, Found, Gone, GoroutineDump, Index,
            Joined, KeptAt, LoadAt, MemoryAt, Meta, NativeCode, Note, Profile, Summed, TestsSeen, ThreadsMet, Tier, UsdtFile,
        },
    },
};

/// A recording on its way through the stages.
pub struct Replaying {
    meta: Meta,
    view: View,
    tables: Tables,
    orderer: Orderer,
    engine: Engine,
    /// Events that have come.
    events: u64,
}

impl Replaying {
    /// Begins one of which nothing but its first block is known.
    pub fn begin(meta: Meta, view: View, sink: &mut impl Sink) -> Self {
        let zero = meta.clock.ktime_ns;
        let mut engine = Engine::default();
        engine.follow_threads(meta.threads);
        engine.sum_short(meta.min_block_ns.is_some());
        sink.begin(zero);
        let tables = Tables { newest: zero, complete_to: zero, ..Tables::default() };
        let mut orderer = Orderer::new(DEFAULT_WINDOW_NS, zero);
        if let Some(cut) = &meta.cut {
            orderer.begin_at(&cut.next_seq);
            engine.cut(KtimeNs(zero.0.saturating_add(1)));
        }
        Self { meta, view, tables, orderer, engine, events: 0 }
    }

    /// Takes the next step; how it ended, if that was the last one.
    pub fn step(&mut self, step: Step, sink: &mut impl Sink) -> Option<Result<Completeness, RecordingError>> {
        match step {
            Step::Events { events, undecodable } => self.events(events, undecodable, sink),
            Step::Block(block) => self.block(block, sink),
            Step::Passed(index) => self.passed(&index, sink),
            Step::End(completeness) => return Some(completeness),
        }
        None
    }

    fn events(&mut self, events: Vec<Event>, undecodable: u64, sink: &mut impl Sink) {
        self.tables.undecodable += undecodable;
        self.events = self.events.saturating_add(events.len() as u64);
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
        let Self { view, tables, orderer, engine, .. } = self;
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
                let begun = if dump.last { tables.dump_came((dump.tgid, dump.source)) } else { None };
                if *view == View::Repaired || !dump.check {
                    begun.into_iter().for_each(|begun| tables.await_mark(begun, dump.from));
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
                let told = tables.told_by(mark.at);
                orderer.hold(told);
                orderer.drained(&mark, &mut |event| tables.release(event, engine, sink));
                // Nothing older will come: what was put off until then need not wait for an event.
                tables.catch_up(told - 1, engine, sink);
                tables.complete_to = tables.complete_to.max(told);
                orderer.hold(tables.hold());
            }
            Block::Counters(counters) => {
                // They were read when the marks before them had been reached: what is missing by then is in them.
                tables.missing = orderer.missing();
                tables.keep(Block::Counters(counters));
            }
            Block::End(end) => {
                tables.end = Some(end);
                self.tell_rest(sink);
            }
            other => tables.keep(other),
        }
    }

    /// All that was waited for has come, or never will.
    fn tell_rest(&mut self, sink: &mut impl Sink) {
        let Self { tables, orderer, engine, .. } = self;
        tables.awaited.clear();
        tables.await_mark.clear();
        orderer.release_all(&mut |event| tables.release(event, engine, sink));
        tables.catch_up(KtimeNs::MAX, engine, sink);
        tables.missing = orderer.missing();
        tables.complete_to = tables.complete_to.max(tables.newest);
    }

    /// There is no more: closes what still lives.
    pub fn finish(mut self, completeness: Completeness, sink: &mut impl Sink) -> Replayed {
        self.tell_rest(sink);
        let Self { meta, view, tables, orderer, mut engine, .. } = self;
        let order = orderer.finish(&mut |_| {});
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

/// What is known so far, for who looks on.
impl Replaying {
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The newest counters, if any were written.
    pub fn counters(&self) -> Option<&Counters> {
        self.tables.counters.as_ref()
    }

    /// The last block, if it has come.
    pub fn end(&self) -> Option<&End> {
        self.tables.end.as_ref()
    }

    /// Path and Go version of an image's binary, where it was probed.
    pub fn binary(&self, image: &Image) -> Option<&Binary> {
        self.binary_of(image.binary?)
    }

    pub fn binary_of(&self, id: BinaryId) -> Option<&Binary> {
        self.tables.binaries.get(&id)
    }

    /// In which cgroup a process is, or was last.
    pub fn place(&self, process: &Process) -> Place<'_> {
        self.tables.cgroups.place(process, KtimeNs::MAX)
    }

    /// Up to when everything has been told, every event and every look at a process; of a recording without marks, the newest of that.
    pub fn now(&self) -> KtimeNs {
        if self.tables.is_marked { self.tables.complete_to } else { self.tables.newest }
    }

    /// Events that have come.
    pub fn events_taken(&self) -> u64 {
        self.events
    }

    /// Names of cgroups, as far as they have come.
    pub fn cgroups(&self) -> &Cgroups {
        &self.tables.cgroups
    }

    pub fn losses(&self) -> Losses {
        Losses::of(self.counters(), self.tables.missing, self.tables.undecodable)
    }

    /// Stacks, and tables of names, as far as they have come.
    pub fn stacks_and_names(&self) -> (&FxHashMap<StackId, Stack>, &[Code], &[NativeCode]) {
        (&self.tables.stacks, &self.tables.code, &self.tables.native)
    }

    /// How many tables of names have come: where there are more, what had no name may have one.
    pub fn name_tables(&self) -> usize {
        self.tables.code.len()
    }

    /// From when to when an image was followed at which tier, up to now.
    pub fn coverage(&self, image: ImageId) -> Vec<Coverage> {
        coverage(self.engine.processes().image(image), &self.tables.notes, self.meta.tier, self.now())
    }

    /// Forgets what only tells of times long past, and is of no use to who wants to know what is so now: it would grow without bound. Of
    /// notes so many stay.
    pub fn forget_past(&mut self, notes: usize) {
        let tables = &mut self.tables;
        tables.profiles.clear();
        tables.memory.clear();
        tables.load.clear();
        if tables.notes.len() > notes.saturating_mul(2) {
            let mut recent = tables.notes.split_off(tables.notes.len() - notes);
            // A program that was not followed otherwise since is followed as it was then.
            let mut last = FxHashMap::default();
            for note in mem::take(&mut tables.notes) {
                if let Note::Coverage { binary, .. } = &note {
                    last.insert(*binary, note);
                }
            }
            tables.notes.extend(last.into_values());
            tables.notes.append(&mut recent);
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
    /// The recording says up to when it is complete.
    is_marked: bool,
    /// Everything that is older has been told.
    complete_to: KtimeNs,
    /// Records that were missing by their numbers when the counters were read.
    missing: u64,
    /// What is to be told before the events of its time, by time.
    later: VecDeque<(KtimeNs, Later)>,
    /// Dumps that are still to come, in the order in which they were begun, and from when each tells.
    awaited: Vec<((Tgid, DumpSource), KtimeNs)>,
    /// Of dumps that have come and are to be told: when each was begun, and from when it tells. Between these two nothing is known.
    await_mark: Vec<(KtimeNs, KtimeNs)>,
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

    /// Who is asked in one way gives one dump after the other; when this one was begun.
    fn dump_came(&mut self, of: (Tgid, DumpSource)) -> Option<KtimeNs> {
        let place = self.awaited.iter().position(|(awaited, _)| *awaited == of)?;
        Some(self.awaited.remove(place).1)
    }

    /// A dump is here, and is told with the mark that is past its beginning.
    fn await_mark(&mut self, begun: KtimeNs, from: KtimeNs) {
        if self.is_marked {
            if self.await_mark.len() >= MAX_AWAITED {
                self.await_mark.remove(0);
            }
            self.await_mark.push((begun, from));
        }
    }

    /// From when on events must wait for a dump.
    fn hold(&self) -> KtimeNs {
        let awaited = self.awaited.iter().map(|(_, at)| *at);
        awaited.chain(self.await_mark.iter().map(|(begun, _)| *begun)).min().unwrap_or(KtimeNs::MAX)
    }

    /// Up to when everything can be told once everything up to a mark is here: a process that was joined together with those who lived in
    /// it, or not yet.
    fn told_by(&mut self, mark: KtimeNs) -> KtimeNs {
        self.is_marked = true;
        let mut told = self.awaited.iter().map(|(_, at)| *at).fold(mark, KtimeNs::min);
        self.await_mark.sort_unstable_by_key(|(_, from)| Reverse(*from));
        for (begun, from) in &self.await_mark {
            if *from >= told {
                told = told.min(*begun);
            }
        }
        self.await_mark.retain(|(_, from)| *from >= told);
        told
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
            | Block::Usdt(_)
            | Block::End(_) => {}
        }
    }
}
