//! Looks at a process's goroutines, joined with what events tell of them.
//!
//! A look takes a while: whatever an event says that came after the reading began is newer. So it is put in at that moment. It confirms
//! what is known, supplies what is not (creation, labels, stacks, the state of one of which no event told), and repairs: a goroutine that
//! two looks in a row did not find is gone, one that no event told of was born, a state that two looks contradict is replaced. Every
//! repair is counted by kind ([`Repairs`](super::Repairs)) and marked where it shows.

use std::iter::repeat;

use rustc_hash::FxHashMap;

use super::{
    Engine, LifeEnd, Sink, SpanState,
    goroutine::{Goroutine, Look, LookedAt, Origin, Park, Seen, Who},
    process::{Change, ImageId, Looked},
    reasons,
    sink::{Census, CensusSite, LabelsId},
};
use crate::{
    clock::KtimeNs,
    id::{Address, Goid, ProcessKey},
    recording::contract::{DumpSource, DumpedGoroutine, GoroutineDump, Joined, Likeness, Tier},
};

/// What the looks of a recording were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LooksTaken {
    /// Checks that read all there was.
    pub taken: u64,
    /// Of these, those that the processes told of themselves.
    pub by_pprof: u64,
    /// Checks that told nothing, or not all.
    pub failed: u64,
    /// What reading took, over all.
    pub reading_ns: u64,
    /// When the newest one began.
    pub newest: Option<KtimeNs>,
}

impl LooksTaken {
    fn add(&mut self, dump: &GoroutineDump) {
        if dump.gone {
            return;
        }
        let whole = dump.problem.is_none();
        *(if whole { &mut self.taken } else { &mut self.failed }) += 1;
        self.by_pprof += u64::from(whole && dump.source == DumpSource::Pprof);
        self.reading_ns = self.reading_ns.saturating_add(dump.to.since(dump.from));
        self.newest = self.newest.max(Some(dump.from).filter(|_| whole));
    }
}

/// A likeness, understood.
#[derive(Clone, Copy)]
struct Known {
    seen: Seen,
    labels: Option<LabelsId>,
    looked_at: LookedAt,
}

impl Known {
    fn waiting_on(mut self, object: Option<Address>) -> Self {
        if let Seen::Blocked(park) = &mut self.seen {
            park.object = object;
        }
        self
    }
}

impl Engine {
    /// A process is followed that ran already.
    pub fn joined(&mut self, joined: &Joined, sink: &mut impl Sink) {
        self.newest = self.newest.max(joined.at);
        let change = self.processes.joined(joined);
        self.lost_process_exit(change);
        self.apply(change, sink);
        // Where the recording begins later, the first look finds who was there.
        let joins = joined.dump_follows || self.cut.is_some_and(|cut| joined.at <= cut);
        if joins && let Some(image) = self.processes.running(joined.tgid, joined.at) {
            self.populations.of(image).joining = true;
            if let Some(program) = self.programs.get(joined.binary).filter(|program| program.gap_until.is_some()) {
                sink.covered(image, program.tier, joined.at);
            }
        }
    }

    /// A part of a look at a process. Comes when every event before it has.
    pub fn dump(&mut self, dump: &GoroutineDump, sink: &mut impl Sink) {
        // A window may begin between two parts, and who is in neither would be taken for somebody of whom nothing was told.
        if self.cut.is_some_and(|cut| dump.from < cut) && !dump.gone {
            return;
        }
        self.newest = self.newest.max(dump.from);
        let Some(image) = self.image_looked_at(dump, sink) else { return };
        let kinds = self.kinds(dump);
        self.begin_look(image, dump);
        // By kind: there are far fewer of them than of goroutines.
        let mut counts = vec![0; dump.kinds.len()];
        let objects = dump.objects.iter().map(|object| Some(*object).filter(|object| object.0 != 0)).chain(repeat(None));
        for (&DumpedGoroutine(goid, creator, kind), object) in dump.goroutines.iter().zip(objects) {
            let (Some(alike), Some(known)) = (dump.kinds.get(kind as usize), kinds.get(kind as usize)) else { continue };
            let origin = Origin { parent: creator, gopc: alike.gopc, startpc: alike.startpc, stack: None };
            counts[kind as usize] += 1;
            self.found(image, goid, origin, known.waiting_on(object), dump, sink);
        }
        self.count(image, dump, &counts);
        if dump.last {
            self.end_look(image, dump, sink);
        }
    }

    /// The image that a dump is of, as far as that is what runs now: what the dump says of process, program and load bias may be news.
    fn image_looked_at(&mut self, dump: &GoroutineDump, sink: &mut impl Sink) -> Option<ImageId> {
        let key = ProcessKey { tgid: dump.tgid, start_ticks: dump.start_ticks };
        if dump.gone {
            let change = self.processes.vanished(key, dump.from);
            self.lost_process_exit(change);
            self.apply(change, sink);
            return None;
        }
        if dump.problem.is_some() {
            return self.processes.current_image(key);
        }
        // The first look at a process that was joined came with its identity.
        if !dump.check {
            return self.processes.running(dump.tgid, dump.from);
        }
        let Looked { image, changes, news } = self.processes.looked(key, dump.binary, dump.load_bias, dump.from)?;
        if news {
            self.repairs.count("process_by_snapshot");
        }
        for change in changes {
            if change != Change::None {
                self.repairs.count("lost_process_exec");
                self.apply(change, sink);
            }
        }
        Some(image)
    }

    fn kinds(&mut self, dump: &GoroutineDump) -> Vec<Known> {
        let sets: Vec<LabelsId> = dump.labels.iter().map(|set| self.labels.intern(set)).collect();
        let known = |alike: &Likeness| Known {
            seen: self.seen(alike, dump),
            labels: alike.labels.and_then(|index| sets.get(index as usize).copied()),
            looked_at: LookedAt::new(alike.stack_bytes, alike.state.as_deref() == Some("leaked")),
        };
        dump.kinds.iter().map(known).collect()
    }

    /// What the probes tell of a program: as of now, for the dump may have been asked for before that changed.
    fn tier_of(&self, dump: &GoroutineDump) -> Tier {
        self.programs.get(dump.binary).map_or(dump.tier, |program| program.tier)
    }

    fn begin_look(&mut self, image: ImageId, dump: &GoroutineDump) {
        let (tier, summing) = (self.tier_of(dump), self.summing);
        let population = self.populations.of(image);
        if population.looking.is_none() {
            population.looks += 1;
            let look = Look { number: population.looks, from: dump.from, to: dump.to, tier, gap: population.gap, summing };
            let census = Census { from: dump.from, to: dump.to, source: dump.source, sites: FxHashMap::default(), torn: 0 };
            population.looking = Some((look, census));
        }
    }

    fn count(&mut self, image: ImageId, dump: &GoroutineDump, counts: &[u64]) {
        let Some((_, census)) = self.populations.get_mut(image).and_then(|population| population.looking.as_mut()) else {
            return;
        };
        for (alike, count) in dump.kinds.iter().zip(counts).filter(|(_, count)| **count > 0) {
            let site: &mut CensusSite = census.sites.entry((alike.gopc, alike.startpc)).or_default();
            site.goroutines += count;
            match alike.stack_bytes {
                Some(bytes) => site.stack_bytes = site.stack_bytes.saturating_add(bytes.saturating_mul(*count)),
                None => site.stacks_unknown += count,
            }
        }
    }

    /// One goroutine that a look found.
    fn found(
        &mut self,
        image: ImageId,
        goid: Goid,
        origin: Origin,
        Known { seen, labels, looked_at }: Known,
        dump: &GoroutineDump,
        sink: &mut impl Sink,
    ) {
        let began = self.processes.image(image).since;
        let population = self.populations.of(image);
        let Some((look, _)) = population.looking else { return };
        let goroutine = match population.live.get_mut(goid) {
            Some(known) => {
                // One that belongs to a thread of C has no birth that could be lost.
                if known.identify(origin) && !population.joining && !look.is_alone_on_lives() && origin.gopc.0 != 0 {
                    known.who.origin_by_look = true;
                    self.repairs.count("origin_by_snapshot");
                }
                if let Some(repair) = known.look(look, seen, looked_at, &mut |who, span| sink.span(who, &span)) {
                    self.repairs.count(repair.name());
                }
                known
            }
            None if population.dead.contains(goid) => return,
            // It is told of once there is something to tell.
            None if look.summing && !population.joining && !look.is_alone_on_lives() => return,
            None => {
                let parent = origin.parent.and_then(|parent| population.live.get(parent));
                let depth = parent.map_or(0, |parent| parent.who.depth.saturating_add(1));
                let born_by = Some(dump.to).filter(|_| !population.joining && origin.gopc.0 != 0);
                let since = population.all_seen_at.map_or(began, |at| at.max(began)).min(look.from);
                let who = Who {
                    image,
                    goid,
                    born_at: None,
                    born_by,
                    origin: Some(origin),
                    origin_by_look: false,
                    unseen: look.is_alone_on_lives(),
                    since,
                    depth,
                    slot: 0,
                };
                let fresh = Goroutine::found(who, look, seen, looked_at);
                population.live.insert(fresh).1
            }
        };
        if let Some(labels) = labels
            && goroutine.label(labels)
        {
            sink.labels(&goroutine.who, dump.from, labels);
        }
    }

    /// All parts have come: what was not among them is missing.
    fn end_look(&mut self, image: ImageId, dump: &GoroutineDump, sink: &mut impl Sink) {
        if dump.check {
            self.looks.add(dump);
        }
        let population = self.populations.of(image);
        let Some((look, mut census)) = population.looking.take() else { return };
        if dump.problem.is_some() {
            return;
        }
        // What a process tells of itself leaves the runtime's own goroutines out.
        if dump.source != DumpSource::Memory {
            return;
        }
        population.joining = false;
        census.torn = dump.torn;
        sink.census(image, &census);
        if dump.torn == 0 {
            population.all_seen_at = Some(dump.from);
        }
        // Where short lives are summed, the next look must not take whoever is too young for one of whom nothing was told.
        if dump.torn == 0 || look.summing {
            population.gap = false;
        }
        let mut missing: Vec<Goid> =
            population.live.iter_mut().filter_map(|goroutine| goroutine.missed(look).then_some(goroutine.who.goid)).collect();
        missing.sort_unstable();
        for goid in missing {
            let Some(goroutine) = self.populations.get_mut(image).and_then(|population| population.live.remove(goid)) else {
                continue;
            };
            let foreign = goroutine.is_of_foreign_thread();
            if !foreign {
                self.populations.of(image).dead.insert(goid);
                if !look.is_alone_on_lives() {
                    self.repairs.count("gone_by_snapshot");
                }
            }
            let life = goroutine.gone(look.from, &mut |who, span| sink.span(who, &span));
            self.tell_life(life, LifeEnd::Gone, sink);
        }
    }

    /// What a goroutine did, as far as events of the tier will keep that up.
    fn seen(&mut self, found: &Likeness, dump: &GoroutineDump) -> Seen {
        let tier = self.tier_of(dump);
        let scheduled = |state| if tier >= Tier::T3 { state } else { SpanState::Awake };
        match found.state.as_deref() {
            Some("waiting" | "leaked") => {
                let name = found.wait_reason.as_deref();
                // Without every change of state, a switch between coroutines is no park.
                if name == Some("coroutine") && tier == Tier::T2 {
                    return Seen::Open(SpanState::Awake);
                }
                // It only seems to wait.
                if name.is_some_and(reasons::is_pseudo) {
                    return Seen::Open(scheduled(SpanState::Running));
                }
                let reason = name.map(|name| self.reasons.intern(name));
                Seen::Blocked(Park { reason, stack: found.stack, object: None, tid: None })
            }
            Some("runnable" | "preempted") => Seen::Open(scheduled(SpanState::Runnable)),
            Some("running" | "copystack") => Seen::Open(scheduled(SpanState::Running)),
            Some("syscall") => Seen::Open(scheduled(SpanState::Syscall)),
            _ => Seen::Open(SpanState::Unknown),
        }
    }
}
