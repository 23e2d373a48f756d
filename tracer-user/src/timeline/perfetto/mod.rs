//! A timeline as a Perfetto trace: native track events, in the order of time.
//!
//! Under each process: what befell it, its runtime (cycles, pauses), its threads, and its goroutines by creation site. Where there are too
//! many goroutines for a track each, the longest-lived, the most blocked and the leaking have one ([`single`]), and all of a site are
//! counted. Births and wakes are arrows (flows) between tracks.

use std::io::{self, Write};

use prost::Message;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    GoroutineLine, Row, State, Timeline,
    process::{self, Happened, What},
    thread::{self, ThreadLine},
    unit::UnitLine,
    write::command,
};
use crate::{
    clock::KtimeNs,
    correlate::{
        Span, SpanState, WokenBy,
        goroutine::SiteKey,
        process::{ImageId, ProcessId},
        replay::Replayed,
        thread::ThreadSpan,
    },
    id::{Goid, StackId, Tgid},
    recording::contract::{Frame, ProcessMemory},
    symbolize::{Symbolizer, label},
};

mod counter;
mod intern;
mod proto;
mod single;

use counter::Steps;
use intern::Interned;
use proto::{
    ChildTracksOrdering, Clock, ClockSnapshot, CounterDescriptor, DebugAnnotation, EventType, ProcessDescriptor,
    ThreadDescriptor, TracePacket, TracePacketDefaults, TrackDescriptor, TrackEvent, Unit,
};

/// All packets are of one writer.
const SEQUENCE: u32 = 1;

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

/// Where goroutines are made and what they run, in words.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Site {
    image: ImageId,
    runs: String,
    /// Empty where that was not seen.
    made_at: String,
}

impl Site {
    fn named(site: SiteKey, symbols: &Symbolizer<'_>) -> Self {
        let (Some(gopc), Some(startpc)) = (site.gopc, site.startpc) else {
            return Self { image: site.image, runs: "birth not seen".to_owned(), made_at: String::new() };
        };
        let made = symbols.go_statement(site.image, gopc);
        let made_at = if made.line == 0 { label(&made) } else { format!("{}:{}", made.file, made.line) };
        Self { image: site.image, runs: label(&symbols.entry(site.image, startpc)), made_at }
    }

    fn titled(&self, count: usize) -> String {
        let by = if self.made_at.is_empty() { "" } else { "  by " };
        format!("{} ({count}){by}{}", self.runs, self.made_at)
    }
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
        for line in timeline.threads.iter().take(single::MOST) {
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
        for unit in timeline.units.iter().take(single::MOST) {
            self.unit(unit);
        }
        let more = timeline.units.iter().skip(single::MOST);
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
        let mut throttled: FxHashMap<String, Track> = FxHashMap::default();
        for row in timeline.process_rows(id) {
            let (word, detail) = (process::word(&row), process::detail(&row));
            let says = if detail.is_empty() { Vec::new() } else { vec![("what", detail)] };
            let plain = Plain { category: "process", name: word.to_owned(), says };
            match row.what {
                // On a track of its own for all.
                What::Lost { .. } => {}
                What::State { .. } => self.plain(life, (row.start, Some(row.end)), plain),
                What::Event(Happened::Throttled { cgroup, .. }) => {
                    let track = match throttled.get(cgroup) {
                        Some(track) => *track,
                        None => {
                            let track = self.track(Some(of), format!("throttled: {cgroup}"));
                            throttled.insert(cgroup.to_owned(), track);
                            track
                        }
                    };
                    self.plain(track, (row.start, Some(row.end)), plain);
                }
                What::Dead { .. } | What::Event(_) => self.plain(life, (row.start, None), plain),
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
        self.counter(Some(process), "heap in use", Unit::SizeBytes, heap);
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

    fn goroutines(&mut self, leaking: &FxHashSet<(Tgid, Goid)>) {
        let timeline = self.timeline;
        let lines = &timeline.goroutines;
        let single = single::choose(self.replayed, lines, leaking);
        // By what people call them: a `go` statement that was compiled twice is one.
        let mut names: FxHashMap<SiteKey, Site> = FxHashMap::default();
        let mut sites: FxHashMap<Site, Vec<usize>> = FxHashMap::default();
        for (index, line) in lines.iter().enumerate() {
            let key = SiteKey::of(&line.who);
            let site = names.entry(key).or_insert_with(|| Site::named(key, &self.symbols));
            match sites.get_mut(site) {
                Some(of) => of.push(index),
                None => _ = sites.insert(site.clone(), vec![index]),
            }
        }
        let mut sites: Vec<(Site, Vec<usize>)> = sites.into_iter().collect();
        // The largest first, within their process.
        sites.sort_unstable_by(|(one, of_one), (other, of_other)| {
            (one.image, std::cmp::Reverse(of_one.len()), one).cmp(&(other.image, std::cmp::Reverse(of_other.len()), other))
        });
        let mut groups: FxHashMap<ImageId, Track> = FxHashMap::default();
        let mut of_image: FxHashMap<ImageId, Vec<&GoroutineLine>> = FxHashMap::default();
        for line in lines {
            of_image.entry(line.who.image).or_default().push(line);
        }
        // By place in the timeline, and the newest of each id.
        let mut own: Vec<Option<Track>> = vec![None; lines.len()];
        let mut by_goid: FxHashMap<(ImageId, Goid), Track> = FxHashMap::default();
        for (site, of) in &sites {
            let group = match groups.get(&site.image) {
                Some(group) => *group,
                None => {
                    let process = self.of_image(site.image);
                    let group = self.describe(TrackDescriptor {
                        parent_uuid: Some(process),
                        name: Some("goroutines".to_owned()),
                        child_ordering: Some(ChildTracksOrdering::Explicit as i32),
                        ..TrackDescriptor::default()
                    });
                    self.counts(group, of_image.remove(&site.image).unwrap_or_default().into_iter());
                    groups.insert(site.image, group);
                    group
                }
            };
            let name = site.titled(of.len());
            let track = self.describe(TrackDescriptor {
                parent_uuid: Some(group),
                name: Some(name),
                child_ordering: Some(ChildTracksOrdering::Chronological as i32),
                ..TrackDescriptor::default()
            });
            if of.iter().any(|index| !single[*index]) {
                self.counts(track, of.iter().map(|index| &lines[*index]));
            }
            for index in of.iter().filter(|index| single[**index]) {
                let line = &lines[*index];
                let track = self.track(Some(track), format!("go:{}", line.who.goid));
                own[*index] = Some(track);
                by_goid.insert((line.who.image, line.who.goid), track);
            }
        }
        for (line, track) in lines.iter().zip(own) {
            if let Some(track) = track {
                self.goroutine(line, track, &by_goid);
            }
        }
    }

    /// How many of some goroutines live, and what they do.
    fn counts(&mut self, parent: Track, lines: impl Iterator<Item = &'a GoroutineLine>) {
        let [mut alive, mut blocked, mut runnable] = [Steps::default(), Steps::default(), Steps::default()];
        for line in lines {
            alive.during(line.who.since, line.life.ended_at);
            for span in &line.spans {
                match span.state {
                    SpanState::Blocked => blocked.during(span.start, span.end),
                    SpanState::Runnable => runnable.during(span.start, span.end),
                    _ => {}
                }
            }
        }
        for (name, steps) in [("alive", alive), ("blocked", blocked), ("runnable", runnable)] {
            self.counter(Some(parent), name, Unit::Count, steps.values());
        }
    }

    /// The slices of one goroutine, and the arrows that end there.
    fn goroutine(&mut self, line: &'a GoroutineLine, track: Track, by_goid: &FxHashMap<(ImageId, Goid), Track>) {
        let image = line.who.image;
        let of = |goid: Goid| by_goid.get(&(image, goid)).copied();
        // A birth that is told late may lie behind the first span.
        let behind = |born_at: KtimeNs| line.spans.iter().find(|span| span.start >= born_at);
        if let Some((born_at, first)) = line.who.born_at.and_then(|born_at| Some((born_at, behind(born_at)?)))
            && let Some(parent) = line.who.origin.and_then(|origin| of(origin.parent?))
        {
            self.flow(("go", born_at, parent), line.who.goid, first);
        }
        for pair in line.spans.windows(2) {
            if let Some(WokenBy::Goroutine(waker)) = pair[0].woken_by
                && let Some(waker) = of(waker)
            {
                self.flow(("wake", pair[0].end, waker), line.who.goid, &pair[1]);
            }
        }
        for Row { state, start, end, span, .. } in self.timeline.rows(line) {
            if let Some(span) = span {
                self.slice(track, start, end, Says::Goroutine(line, span, state));
            }
        }
    }

    /// An arrow from an instant on a track to where a span begins.
    fn flow(&mut self, (name, at, from): (&'static str, KtimeNs, Track), to: Goid, span: &'a Span) {
        self.flows += 1;
        let flow = self.flows;
        self.events.push(Event { at, track: from, says: Says::Flow { name, flow, to } });
        self.ends.entry(span).or_default().push(flow);
    }

    fn write(mut self, out: &mut impl Write) -> io::Result<()> {
        let tie = self.replayed.meta.clock;
        let clock = |id, at| Clock { clock_id: Some(id), timestamp: Some(at) };
        let clocks = vec![clock(proto::CLOCK_MONOTONIC, tie.ktime_ns.0), clock(proto::CLOCK_REALTIME, tie.wall_ns.0)];
        let mut packets = Packets(out);
        packets.put(TracePacket {
            clock_snapshot: Some(ClockSnapshot { clocks, primary_trace_clock: Some(proto::CLOCK_MONOTONIC) }),
            trace_packet_defaults: Some(TracePacketDefaults { timestamp_clock_id: Some(proto::CLOCK_MONOTONIC) }),
            sequence_flags: Some(proto::SEQ_INCREMENTAL_STATE_CLEARED),
            ..TracePacket::default()
        })?;
        for descriptor in std::mem::take(&mut self.tracks) {
            packets.put(TracePacket { track_descriptor: Some(descriptor), ..TracePacket::default() })?;
        }
        let mut events = std::mem::take(&mut self.events);
        // Those of one track were put in by time, and what begins and ends at one time stays in that order.
        events.sort_by_key(|event| event.at);
        for event in &events {
            let said = self.say(event);
            packets.put(TracePacket {
                timestamp: Some(event.at.0),
                track_event: Some(TrackEvent { track_uuid: Some(event.track), ..said }),
                interned_data: self.interned.take(),
                sequence_flags: Some(proto::SEQ_NEEDS_INCREMENTAL_STATE),
                ..TracePacket::default()
            })?;
        }
        Ok(())
    }

    fn say(&mut self, event: &Event<'a>) -> TrackEvent {
        match &event.says {
            Says::End => TrackEvent { r#type: Some(EventType::SliceEnd as i32), ..TrackEvent::default() },
            Says::Value(value) => {
                TrackEvent { r#type: Some(EventType::Counter as i32), counter_value: Some(*value), ..TrackEvent::default() }
            }
            Says::Flow { name, flow, to } => TrackEvent {
                flow_ids: vec![*flow],
                debug_annotations: vec![self.text("goroutine", format!("go:{to}"))],
                ..self.named(EventType::Instant, "goroutine", name)
            },
            Says::Goroutine(line, span, state) => self.goroutine_span(line, span, *state),
            Says::Thread(span, state) => self.thread_span(span, *state),
            Says::Plain(plain, lasts) => {
                let kind = if *lasts { EventType::SliceBegin } else { EventType::Instant };
                let debug_annotations = plain.says.iter().map(|(name, value)| self.text(name, value.clone())).collect();
                TrackEvent { debug_annotations, ..self.named(kind, plain.category, &plain.name) }
            }
        }
    }

    fn named(&mut self, kind: EventType, category: &str, name: &str) -> TrackEvent {
        TrackEvent {
            r#type: Some(kind as i32),
            category_iids: vec![self.interned.category(category)],
            name_iid: Some(self.interned.name(name)),
            ..TrackEvent::default()
        }
    }

    fn goroutine_span(&mut self, line: &GoroutineLine, span: &Span, state: State) -> TrackEvent {
        let replayed = self.replayed;
        let mut says = Vec::new();
        let reason = span.reason.map(|reason| replayed.engine.reason(reason));
        if let Some(stack) = span.stack.and_then(|stack| self.stack(line.who.image, stack)) {
            says.push(DebugAnnotation { string_value_iid: Some(stack), ..self.annotation("stack") });
        }
        says.extend(span.woken_by.map(|by| self.text("woken by", by.to_string())));
        says.extend(span.tid.map(|tid| DebugAnnotation { uint_value: Some(tid.0.into()), ..self.annotation("tid") }));
        says.extend(span.object.map(|object| DebugAnnotation { pointer_value: Some(object.0), ..self.annotation("object") }));
        if span.by_look {
            says.push(self.text("repaired", "state_by_snapshot".to_owned()));
        }
        if std::ptr::eq(span, &line.spans[0]) {
            let parent = line.who.origin.and_then(|origin| origin.parent);
            says.extend(parent.map(|parent| self.text("created by", format!("go:{parent}"))));
            if let Some((_, labels)) = line.labels.last() {
                let set = replayed.engine.labels().get(*labels);
                says.extend(set.iter().map(|(key, value)| self.text(&format!("label {key}"), value.clone())));
            }
        }
        // What it waits for says more than that it does.
        let name = match (state, reason) {
            (State::Blocked, Some(reason)) => reason,
            _ => state.name(),
        };
        let terminating_flow_ids = self.ends.remove(&std::ptr::from_ref(span)).unwrap_or_default();
        TrackEvent { debug_annotations: says, terminating_flow_ids, ..self.named(EventType::SliceBegin, "goroutine", name) }
    }

    fn thread_span(&mut self, span: &ThreadSpan, state: State) -> TrackEvent {
        let reason = span.reason.map(|reason| self.replayed.engine.reason(reason));
        let mut says = Vec::new();
        if let Some(frames) = thread::frames(&self.symbols, span) {
            let stack = self.interned.value(&joined(&frames));
            says.push(DebugAnnotation { string_value_iid: Some(stack), ..self.annotation("stack") });
        }
        says.extend(span.object.map(|object| self.text("object", object.to_string())));
        says.extend(span.woken_by.map(|by| self.text("woken by", by.to_string())));
        let name = match (state, reason) {
            (State::Blocked, Some(reason)) => reason,
            _ => state.name(),
        };
        TrackEvent { debug_annotations: says, ..self.named(EventType::SliceBegin, "thread", name) }
    }

    /// A stack as one text, innermost first; `None` if it was lost.
    fn stack(&mut self, image: ImageId, stack: StackId) -> Option<u64> {
        if let Some(known) = self.stacks.get(&(image, stack)) {
            return *known;
        }
        let frames = self.symbols.stack(image, stack).map(|(ids, _)| ids.into_iter().map(|id| self.symbols.frame(id)).collect());
        let text = frames.map(|frames: Vec<Frame>| self.interned.value(&joined(&frames)));
        self.stacks.insert((image, stack), text);
        text
    }

    fn annotation(&mut self, name: &str) -> DebugAnnotation {
        DebugAnnotation { name_iid: Some(self.interned.annotation(name)), ..DebugAnnotation::default() }
    }

    fn text(&mut self, name: &str, value: String) -> DebugAnnotation {
        DebugAnnotation { string_value: Some(value), ..self.annotation(name) }
    }
}

/// Frames as lines of one text.
fn joined(frames: &[Frame]) -> String {
    let lines: Vec<String> = frames
        .iter()
        .map(|frame| if frame.line == 0 { label(frame) } else { format!("{} {}:{}", label(frame), frame.file, frame.line) })
        .collect();
    lines.join("\n")
}

/// A trace is nothing but its packets, each as a field of `Trace`.
struct Packets<'w, W: Write>(&'w mut W);

impl<W: Write> Packets<'_, W> {
    fn put(&mut self, packet: TracePacket) -> io::Result<()> {
        const PACKET_FIELD: u8 = 1 << 3 | 2;
        let packet = TracePacket { trusted_packet_sequence_id: Some(SEQUENCE), ..packet };
        let mut bytes = Vec::with_capacity(64);
        bytes.push(PACKET_FIELD);
        packet.encode_length_delimited(&mut bytes).map_err(io::Error::other)?;
        self.0.write_all(&bytes)
    }
}
