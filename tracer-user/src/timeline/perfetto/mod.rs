//! A timeline as a Perfetto trace: native track events, in the order of time.
//!
//! Under each process: what befell it, its runtime (cycles, pauses), its threads, and its goroutines by creation site. Where there are too
//! many goroutines for a track each, the longest-lived, the most blocked and the leaking have one ([`super::single`]), and all of a site are
//! counted. Births and wakes are arrows (flows) between tracks.

use std::io::{self, Write};

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    GoroutineLine, State, Timeline,
    process::{self, Happened, What},
    thread::{self, ThreadLine},
    unit::UnitLine,
    write::command,
};
use crate::{
    clock::KtimeNs,
    correlate::{
        Span,
        process::{ImageId, ProcessId},
        replay::Replayed,
        thread::ThreadSpan,
    },
    id::{Goid, StackId, Tgid},
    recording::contract::ProcessMemory,
    symbolize::Symbolizer,
};

mod counter;
mod goroutines;
mod intern;
mod packets;
mod proto;

use counter::Steps;
use intern::Interned;
use proto::{ChildTracksOrdering, CounterDescriptor, ProcessDescriptor, ThreadDescriptor, TrackDescriptor, Unit};

/// Tracks of goroutines: a person scrolls through some hundreds of them at most, and the Perfetto UI draws some thousands well.
const MOST: usize = 1500;

/// A track by its `uuid`.
type Track = u64;

/// Writes a timeline. `leaking`: goroutines that deserve a track of their own before others.
pub fn write(timeline: &Timeline<'_>, leaking: &FxHashSet<(Tgid, Goid)>, out: &mut impl Write) -> io::Result<()> {
    let mut trace = Trace::new(timeline);
    trace.processes();
    trace.goroutines(leaking);
    trace.losses();
    trace.write(out)
}

/// Something on a track.
struct Event<'a> {
    at: KtimeNs,
    track: Track,
    says: Says<'a>,
}

/// What it is.
enum Says<'a> {
    /// What began last on the track ends.
    End,
    Value(i64),
    Goroutine(&'a GoroutineLine, &'a Span, State),
    Thread(&'a ThreadSpan, State),
    /// A flow begins: a goroutine makes another, or wakes it.
    Flow {
        name: &'static str,
        flow: u64,
        to: Goid,
    },
    /// Anything that is rare; whether it lasts.
    Plain(Box<Plain>, bool),
}

/// What is to be read of it.
struct Plain {
    category: &'static str,
    name: String,
    says: Vec<(&'static str, String)>,
}

struct Trace<'a> {
    timeline: &'a Timeline<'a>,
    replayed: &'a Replayed,
    symbols: Symbolizer<'a>,
    tracks: Vec<TrackDescriptor>,
    /// Until when each track is taken: its slices follow one another.
    taken: Vec<KtimeNs>,
    of_process: FxHashMap<ProcessId, Track>,
    events: Vec<Event<'a>>,
    /// Flows that end where a span begins, by where it is.
    ends: FxHashMap<*const Span, Vec<u64>>,
    flows: u64,
    interned: Interned,
    /// Numbers of whole stacks, as one text each.
    stacks: FxHashMap<(ImageId, StackId), Option<u64>>,
}

impl<'a> Trace<'a> {
    fn new(timeline: &'a Timeline<'a>) -> Self {
        let replayed = timeline.replayed;
        Self {
            timeline,
            replayed,
            symbols: Symbolizer::new(replayed),
            tracks: Vec::new(),
            taken: Vec::new(),
            of_process: FxHashMap::default(),
            events: Vec::new(),
            ends: FxHashMap::default(),
            flows: 0,
            interned: Interned::default(),
            stacks: FxHashMap::default(),
        }
    }

    fn track(&mut self, parent: Option<Track>, name: impl Into<String>) -> Track {
        self.describe(TrackDescriptor { parent_uuid: parent, name: Some(name.into()), ..TrackDescriptor::default() })
    }

    fn describe(&mut self, descriptor: TrackDescriptor) -> Track {
        let uuid = self.tracks.len() as u64 + 1;
        // In the order in which they were made, where their parent wants them in order.
        let rank = Some(i32::try_from(uuid).unwrap_or(i32::MAX));
        self.tracks.push(TrackDescriptor { uuid: Some(uuid), sibling_order_rank: rank, ..descriptor });
        self.taken.push(KtimeNs(0));
        uuid
    }

    /// A counter with its values; none if it never counts anything.
    fn counter(&mut self, parent: Option<Track>, name: &str, unit: Unit, values: Vec<(KtimeNs, i64)>) {
        if values.is_empty() {
            return;
        }
        let counter = Some(CounterDescriptor { unit: Some(unit as i32) });
        let name = Some(name.to_owned());
        let track = self.describe(TrackDescriptor { parent_uuid: parent, name, counter, ..TrackDescriptor::default() });
        self.events.extend(values.into_iter().map(|(at, value)| Event { at, track, says: Says::Value(value) }));
    }

    fn slice(&mut self, track: Track, from: KtimeNs, to: KtimeNs, says: Says<'a>) {
        // What overlaps what was there before would end that instead of itself.
        let taken = &mut self.taken[track as usize - 1];
        let from = from.max(*taken);
        let to = to.max(from);
        *taken = to;
        self.events.push(Event { at: from, track, says });
        self.events.push(Event { at: to, track, says: Says::End });
    }

    fn plain(&mut self, track: Track, (from, to): (KtimeNs, Option<KtimeNs>), plain: Plain) {
        let says = Says::Plain(Box::new(plain), to.is_some());
        match to {
            Some(to) => self.slice(track, from, to, says),
            None => self.events.push(Event { at: from, track, says }),
        }
    }

    /// The track of a process, with its name.
    fn process(&mut self, id: ProcessId) -> Track {
        if let Some(track) = self.of_process.get(&id) {
            return *track;
        }
        let process = self.replayed.engine.processes().process(id);
        let images = process.images.iter().rev().map(|image| self.replayed.engine.processes().image(*image));
        let cmdline = images.map(|image| &image.args).find(|args| !args.is_empty()).cloned().unwrap_or_default();
        let descriptor = ProcessDescriptor {
            pid: Some(process.tgid.0.cast_signed()),
            cmdline,
            process_name: Some(command(self.replayed, process)),
        };
        let order = Some(ChildTracksOrdering::Explicit as i32);
        let track =
            self.describe(TrackDescriptor { process: Some(descriptor), child_ordering: order, ..TrackDescriptor::default() });
        self.of_process.insert(id, track);
        track
    }

    fn of_image(&mut self, image: ImageId) -> Track {
        self.process(self.replayed.engine.processes().image(image).process)
    }

    fn processes(&mut self) {
        let timeline = self.timeline;
        // Those of one process right behind it: they belong to the newest one of their number.
        let mut threads: FxHashMap<ProcessId, Vec<&ThreadLine>> = FxHashMap::default();
        for line in timeline.threads.iter().take(MOST) {
            threads.entry(line.who.process).or_default().push(line);
        }
        let mut memory: FxHashMap<Tgid, Vec<(KtimeNs, &ProcessMemory)>> = FxHashMap::default();
        for look in &self.replayed.memory {
            look.processes.iter().for_each(|of| memory.entry(of.tgid).or_default().push((look.at, of)));
        }
        for id in &timeline.processes {
            let track = self.process(*id);
            self.life(track, *id);
            let tgid = self.replayed.engine.processes().process(*id).tgid;
            self.memory(track, *id, memory.get(&tgid).map_or(&[][..], Vec::as_slice));
            threads.remove(id).into_iter().flatten().for_each(|line| self.thread(line));
        }
        // Of processes that are not shown themselves.
        let mut others: Vec<(ProcessId, Vec<&ThreadLine>)> = threads.into_iter().collect();
        others.sort_unstable_by_key(|(id, _)| *id);
        others.into_iter().flat_map(|(_, lines)| lines).for_each(|line| self.thread(line));
        for unit in timeline.units.iter().take(MOST) {
            self.unit(unit);
        }
        let more = timeline.units.iter().skip(MOST);
        if more.len() > 0 {
            let mut alive = Steps::default();
            more.for_each(|unit| alive.during(unit.who.since, unit.life.ended_at));
            self.counter(None, "units of work without a track, alive", Unit::Count, alive.values());
        }
        self.runtimes();
        self.tiers();
    }

    /// What befell a process.
    fn life(&mut self, of: Track, id: ProcessId) {
        let timeline = self.timeline;
        let life = self.track(Some(of), "process");
        let mut apart: FxHashMap<String, Track> = FxHashMap::default();
        for row in timeline.process_rows(id) {
            let (word, detail) = (process::word(&row), process::detail(&row));
            let says = if detail.is_empty() { Vec::new() } else { vec![("what", detail)] };
            let plain = Plain { category: "process", name: word.to_owned(), says };
            match row.what {
                // On a track of its own for all.
                What::Lost { .. } => {}
                What::State { .. } => self.plain(life, (row.start, Some(row.end)), plain),
                What::Dead { .. } => self.plain(life, (row.start, None), plain),
                What::Event(happened) => {
                    let (name, lasts) = match happened {
                        Happened::Throttled { cgroup, .. } => (format!("throttled: {cgroup}"), true),
                        Happened::Signal(_) | Happened::SignalsBefore(_) => ("signals".to_owned(), false),
                        Happened::OomVictim => ("out of memory".to_owned(), false),
                        _ => {
                            self.plain(life, (row.start, None), plain);
                            continue;
                        }
                    };
                    let track = match apart.get(&name) {
                        Some(track) => *track,
                        None => {
                            let track = self.track(Some(of), name.clone());
                            apart.insert(name, track);
                            track
                        }
                    };
                    self.plain(track, (row.start, lasts.then_some(row.end)), plain);
                }
            }
        }
    }

    /// What it had of memory when somebody looked.
    fn memory(&mut self, process: Track, id: ProcessId, looks: &[(KtimeNs, &ProcessMemory)]) {
        let of = self.replayed.engine.processes().process(id);
        let (from, to) = (of.first_seen, of.ended.map_or(KtimeNs::MAX, |(at, _)| at));
        let (mut rss, mut heap) = (Vec::new(), Vec::new());
        for &(at, memory) in looks.iter().filter(|(at, _)| (from..=to).contains(at)) {
            let value = |bytes: u64| (at, i64::try_from(bytes).unwrap_or(i64::MAX));
            rss.extend(memory.rss_bytes.map(value));
            heap.extend(memory.heap.as_ref().map(|heap| value(heap.alloc_bytes)));
        }
        self.counter(Some(process), "memory resident", Unit::SizeBytes, rss);
        self.counter(Some(process), "heap allocated", Unit::SizeBytes, heap);
    }

    fn thread(&mut self, line: &'a ThreadLine) {
        let tgid = self.replayed.engine.processes().process(line.who.process).tgid;
        let parent = self.process(line.who.process);
        let descriptor = ThreadDescriptor {
            pid: Some(tgid.0.cast_signed()),
            tid: Some(line.who.tid.0.cast_signed()),
            thread_name: line.life.name.map(|name| name.text()),
        };
        let track =
            self.describe(TrackDescriptor { parent_uuid: Some(parent), thread: Some(descriptor), ..TrackDescriptor::default() });
        for (state, span) in thread::states(self.timeline, line) {
            self.slice(track, span.start, span.end, Says::Thread(span, state));
        }
    }

    /// A unit of work that USDT probes tell of.
    fn unit(&mut self, unit: &'a UnitLine) {
        let process = self.of_image(unit.who.image);
        let track = self.track(Some(process), unit.id(self.replayed));
        for (state, reason, span) in unit.states(self.replayed) {
            let mut says = Vec::new();
            says.extend(span.object.map(|object| ("object", format!("{:#x}", object.0))));
            says.extend(span.tid.map(|tid| ("tid", tid.to_string())));
            says.extend(span.at_most.then(|| ("unsure", "it ended at some time before".to_owned())));
            let name = reason.filter(|_| state == State::Blocked).unwrap_or(state.name()).to_owned();
            self.plain(track, (span.start, Some(span.end)), Plain { category: "unit", name, says });
        }
    }

    /// Cycles of the collector, and pauses of whole processes.
    fn runtimes(&mut self) {
        let timeline = self.timeline;
        for (image, runtime) in timeline.tracks.iter() {
            let process = self.of_image(image);
            let (mut cycles, mut pauses) = (None, None);
            for cycle in &runtime.cycles {
                let track = *cycles.get_or_insert_with(|| self.track(Some(process), "garbage collection"));
                let mut says = Vec::new();
                says.extend(cycle.by.map(|goid| ("caused by", format!("go:{goid}"))));
                says.extend((!cycle.start_seen).then(|| ("beginning", "not seen".to_owned())));
                says.extend((!cycle.end_seen).then(|| ("end", "not seen".to_owned())));
                let plain = Plain { category: "gc", name: "cycle".to_owned(), says };
                self.plain(track, (cycle.start, Some(cycle.end)), plain);
            }
            for pause in &runtime.pauses {
                let track = *pauses.get_or_insert_with(|| self.track(Some(process), "stop the world"));
                let mut says = Vec::new();
                says.extend(pause.by.map(|goid| ("caused by", format!("go:{goid}"))));
                says.extend((!pause.end_seen).then(|| ("end", "not seen".to_owned())));
                let name = self.replayed.engine.reason(pause.reason).to_owned();
                self.plain(track, (pause.start, Some(pause.end)), Plain { category: "gc", name, says });
            }
        }
    }

    /// In which detail each process was followed when.
    fn tiers(&mut self) {
        let timeline = self.timeline;
        let all = timeline.replayed.engine.processes();
        for id in &timeline.processes {
            let mut track = None;
            for coverage in all.process(*id).images.iter().flat_map(|image| timeline.replayed.coverage(*image)) {
                let process = self.process(*id);
                let track = *track.get_or_insert_with(|| self.track(Some(process), "tier"));
                let plain = Plain { category: "lifetrace", name: format!("{:?}", coverage.tier), says: Vec::new() };
                self.plain(track, (coverage.from, Some(coverage.to)), plain);
            }
        }
    }

    /// Where events are missing.
    fn losses(&mut self) {
        let timeline = self.timeline;
        if timeline.lost.is_empty() {
            return;
        }
        let track = self.track(None, "lost");
        for lost in &timeline.lost {
            let cpus: Vec<String> = lost.cpus.iter().map(u16::to_string).collect();
            let says = vec![("CPUs", cpus.join(", "))];
            let plain = Plain { category: "lifetrace", name: "events are missing".to_owned(), says };
            self.plain(track, (lost.from, Some(lost.to)), plain);
        }
    }
}
