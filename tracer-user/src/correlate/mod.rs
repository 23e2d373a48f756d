//! Joins events into lives: which goroutine was born, waited and died when.
//!
//! [`Engine`] takes events in order and tells a [`Sink`] of every span and every life that has closed; what it keeps is
//! only what still lives. [`process`] says whose events they are, [`goroutine`] what they mean for one goroutine,
//! [`wake`] who ended a wait, [`gc`] what the runtime's collector did, [`thread`] what the
//! kernel did with threads, [`sample`] who was on a CPU, and [`replay`] runs a
//! whole recording through it, [`replaying`] a step at a time.
//!
//! Nothing is inferred from lost events: where one is missing, a span is `Unknown`, and the repair is counted.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use crate::{
    clock::KtimeNs,
    event::{Event, Transition, What},
    id::{BinaryId, Goid, Tgid, Tid},
    recording::contract::{Adopted, Binary, ChildrenSeen, Found, Gone, TestsSeen, Tier},
};

pub mod cgroup;
mod coverage;
mod dump;
pub mod feed;
pub mod gc;
pub mod goroutine;
mod labels;
pub mod load;
pub mod loss;
mod population;
pub mod process;
mod program;
mod reasons;
pub mod replay;
pub mod replaying;
pub mod sample;
mod sink;
mod slots;
mod summing;
pub mod thread;
pub mod unit;
pub mod wake;

pub use dump::LooksTaken;
use gc::Gc;
use goroutine::{First, Goroutine, Origin, Park, Parting, Repair, Step, Who};
pub use labels::LabelSets;
use population::Populations;
use process::{Change, ImageId, Processes, life::CgroupMove};
use program::{Program, Programs, Site};
use reasons::Reasons;
pub use sink::{Both, Census, CensusSite, LabelsId, Life, LifeEnd, ReasonId, Sink, Span, SpanState, SumOfMany, TestName};
pub use slots::Slots;
use thread::ThreadsAlive;
pub use wake::WokenBy;

/// What had to be repaired because something was lost, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repairs {
    pub by_kind: BTreeMap<&'static str, u64>,
}

impl Repairs {
    fn count(&mut self, kind: &'static str) {
        *self.by_kind.entry(kind).or_default() += 1;
    }
}

/// Correlates events that come in order of time.
#[derive(Default)]
pub struct Engine {
    /// The recording was cut out of a longer one, and tells of what happened from here on.
    cut: Option<KtimeNs>,
    processes: Processes,
    populations: Populations,
    collectors: FxHashMap<ImageId, Gc>,
    programs: Programs,
    reasons: Reasons,
    labels: LabelSets,
    repairs: Repairs,
    looks: LooksTaken,
    units: unit::Units,
    threads: ThreadsAlive,
    newest: KtimeNs,
    /// Short waits and lives are summed: what no event tells of is not lost.
    summing: bool,
    /// The newest image of each process and binary that has ended, where short ones are summed: its last sums come late.
    ended: FxHashMap<(Tgid, BinaryId), ImageId>,
}

impl Engine {
    /// Learns a binary, before events of it come.
    pub fn binary(&mut self, binary: &Binary) {
        self.programs.insert(binary.id, Program::new(binary, &mut self.reasons));
    }

    pub fn processes(&self) -> &Processes {
        &self.processes
    }

    pub fn repairs(&self) -> &Repairs {
        &self.repairs
    }

    pub fn labels(&self) -> &LabelSets {
        &self.labels
    }

    /// The looks at processes that events were held against.
    pub fn looks(&self) -> LooksTaken {
        self.looks
    }

    /// Every goroutine that lives, as far as is known.
    pub fn living(&self) -> impl Iterator<Item = &Goroutine> {
        self.populations.images().filter_map(|image| self.populations.get(image)).flat_map(|population| population.live.iter())
    }

    /// One of them.
    pub fn goroutine(&self, image: ImageId, goid: Goid) -> Option<&Goroutine> {
        self.populations.get(image)?.live.get(goid)
    }

    /// How an image is followed now; `None`: it is not probed.
    pub fn tier(&self, image: ImageId) -> Option<Tier> {
        self.programs.get(self.processes.image(image).binary?).map(|program| program.tier)
    }

    /// The name of a wait reason.
    pub fn reason(&self, id: ReasonId) -> &str {
        self.reasons.name(id)
    }

    /// Takes the next event.
    pub fn event(&mut self, event: &Event, sink: &mut impl Sink) {
        self.newest = self.newest.max(event.at);
        match &event.what {
            // The caller keeps stacks; they belong to no goroutine.
            What::Stack { .. } => {}
            What::ProcessFork(fork) => {
                let change = self.processes.fork(event.tgid, fork, event.at);
                self.lost_process_exit(change);
                self.apply(change, sink);
                self.first_thread(fork.child, event, sink);
            }
            What::ProcessExec(program) => {
                let change = self.processes.exec(event.tgid, program, event.at);
                self.apply(change, sink);
                self.threads_exec(program.old_tid, event, sink);
            }
            What::ProcessMet(program) => {
                let change = self.processes.met(event.tgid, program, event.at);
                self.lost_process_exit(change);
                self.apply(change, sink);
            }
            What::ProcessExit(exit) => {
                let changes = self.processes.exit(event.tgid, exit, event.at);
                self.lost_process_exit(changes[0]);
                for change in changes {
                    self.apply(change, sink);
                }
                self.threads_of_ended(event.tgid, event.at, sink);
            }
            What::ProcessReaped(reaped) => {
                let change = self.processes.reaped(event.tgid, reaped, event.at);
                self.lost_process_exit(change);
                self.apply(change, sink);
            }
            What::SignalSent(sent) => self.processes.signal_sent(event.tgid, sent, event.at),
            What::SignalTaken { signal, code, handled } => {
                self.processes.signal_taken((event.tgid, event.tid), *signal, *code, *handled, event.at);
            }
            What::OomVictim { victim } => self.processes.oom_victim(*victim, event.at),
            What::CgroupMoved { tgid, tid, cgroup, hierarchy } => {
                // A thread that is moved alone leaves its process where it is.
                if tgid.0 == tid.0 {
                    self.processes.cgroup_moved(*tgid, CgroupMove { at: event.at, hierarchy: *hierarchy, cgroup: *cgroup });
                }
            }
            What::ThreadBirth { .. }
            | What::ThreadExit { .. }
            | What::ThreadOff(_)
            | What::ThreadOn
            | What::ThreadWake { .. }
            | What::ThreadWait { .. } => self.thread_event(event, sink),
            What::UsdtHit { .. } => self.unit_event(event, sink),
            _ => self.goroutine_event(event, sink),
        }
    }

    /// A process is followed that ran already, whatever it runs.
    pub fn process_found(&mut self, found: &Found, sink: &mut impl Sink) {
        self.newest = self.newest.max(found.at);
        let change = self.processes.found(found);
        self.lost_process_exit(change);
        self.apply(change, sink);
    }

    /// A process whose parent had ended was seen to have another one.
    pub fn process_adopted(&mut self, adopted: &Adopted) {
        self.processes.adopted(adopted);
    }

    /// Tests were found running in the goroutines of a process.
    pub fn tests_seen(&mut self, seen: &TestsSeen, sink: &mut impl Sink) {
        if let Some(image) = self.processes.running(seen.tgid, seen.at) {
            seen.tests.iter().for_each(|test| sink.test_seen(image, test.goid, test.name.as_deref()));
        }
    }

    /// Children of a process were looked at.
    pub fn children_seen(&mut self, seen: &ChildrenSeen) {
        self.newest = self.newest.max(seen.at);
        seen.children.iter().for_each(|child| self.processes.child_seen(seen.parent, child, seen.at));
    }

    /// A process that had exited was found to be gone.
    pub fn process_gone(&mut self, gone: &Gone) {
        if self.processes.gone(gone) {
            self.repairs.count("reaped_by_look");
        }
    }

    /// Closes everything that still lives, `at` the end of the recording (or of the newest event, if that is later).
    pub fn finish(&mut self, at: KtimeNs, sink: &mut impl Sink) -> KtimeNs {
        let at = at.max(self.newest);
        let mut images: Vec<ImageId> = self.populations.images().collect();
        images.extend(self.collectors.keys().copied());
        images.extend(self.images_with_units());
        images.sort_unstable();
        images.dedup();
        for image in images {
            self.close(image, at, LifeEnd::RecordingEnd, sink);
        }
        self.finish_threads(at, sink);
        at
    }

    fn lost_process_exit(&mut self, change: Change) {
        if change != Change::None {
            self.repairs.count("lost_process_exit");
        }
    }

    fn apply(&mut self, change: Change, sink: &mut impl Sink) {
        if let Change::Ended { image, at } = change {
            if self.summing
                && let Some(binary) = self.processes.image(image).binary
            {
                self.ended.insert((self.processes.of_image(image).tgid, binary), image);
            }
            self.close(image, at, LifeEnd::ProcessEnd, sink);
        }
    }

    fn close(&mut self, image: ImageId, at: KtimeNs, end: LifeEnd, sink: &mut impl Sink) {
        self.close_gc(image, at, sink);
        self.close_units(image, at, end, sink);
        let Some(population) = self.populations.get_mut(image) else { return };
        let mut live: Vec<Goroutine> = std::mem::take(&mut population.live).into_values().collect();
        live.sort_unstable_by_key(|goroutine| goroutine.who.goid);
        for goroutine in live {
            let life = goroutine.cut(at, &mut |who, span| sink.span(who, &span));
            self.tell_life(life, end, sink);
        }
        self.populations.remove(image);
    }

    fn tell_life(&mut self, parting: Parting, end: LifeEnd, sink: &mut impl Sink) {
        let Parting { who, ended_at, last_known, looked_at, lost } = parting;
        if let Some(repair) = lost {
            self.repairs.count(repair.name());
        }
        if who.born_by.is_some() && !who.unseen {
            self.repairs.count("born_by_snapshot");
        }
        sink.life(&who, &Life { ended_at, end, last_known, looked_at });
    }

    /// The image that an event of a probe is about.
    fn image_of(&mut self, event: &Event, sink: &mut impl Sink) -> Option<ImageId> {
        let Some(image) = self.processes.running(event.tgid, event.at) else {
            self.repairs.count("event_after_process_exit");
            return None;
        };
        let Some(binary) = event.binary else { return Some(image) };
        Some(self.hit(image, binary, event.at, sink))
    }

    /// A probe was hit; what that meant is not of interest.
    pub fn was_hit(&mut self, tgid: Tgid, binary: BinaryId, at: KtimeNs, sink: &mut impl Sink) {
        self.newest = self.newest.max(at);
        if let Some(image) = self.processes.running(tgid, at) {
            self.hit(image, binary, at, sink);
        }
    }

    fn hit(&mut self, image: ImageId, binary: BinaryId, at: KtimeNs, sink: &mut impl Sink) -> ImageId {
        let (image, change) = self.processes.hit(image, binary, at);
        if change != Change::None {
            self.repairs.count("lost_process_exec");
            self.apply(change, sink);
        }
        image
    }

    fn goroutine_event(&mut self, event: &Event, sink: &mut impl Sink) {
        let Some(image) = self.image_of(event, sink) else { return };
        let program = event.binary.and_then(|binary| self.programs.get(binary));
        let (tier, coroutine) = program.map_or((Tier::T2, None), |program| (program.tier, program.coroutine));
        if program.is_some() && coverage::needs(&event.what) > tier {
            // Probes that are being set or taken away: not all of them tell.
            return;
        }
        let site = program.and_then(|program| program.site(event.site));
        match event.what {
            What::ProcessImage { ip } => {
                let gap_until = program.and_then(|program| program.gap_until);
                self.threads_out_of_sight(event.tgid, event.at, sink);
                // Without the site's address the bias stays unknown, and addresses of this image without names.
                let Some(Site { address, .. }) = site else { return };
                let change = self.processes.loaded(image, ip.0.wrapping_sub(address.0), event.at);
                if change != Change::None {
                    self.repairs.count("lost_process_exec");
                    self.apply(change, sink);
                }
                let gap = gap_until.filter(|until| *until > self.processes.image(image).since);
                if gap.is_some() {
                    self.populations.of(image).gap = true;
                }
                if gap_until.is_some() {
                    sink.covered(image, tier, event.at);
                }
            }
            What::GoroutineBirth { goid, parent, gopc, startpc, stack } => {
                let first = match (tier >= Tier::T3, site) {
                    (false, _) => First::Awake,
                    (true, Some(Site { makes_coroutines: true, .. })) => {
                        First::Waiting(Park { reason: coroutine, stack: None, object: None, tid: Some(event.tid) })
                    }
                    (true, _) => First::Runnable,
                };
                self.birth(image, goid, event.at, Origin { parent, gopc, startpc, stack }, (first, tier), sink);
            }
            What::GoroutinePark { goid, wait_reason, lock, stack } => {
                // A pseudo-wait: it runs on. Its end is a wake of one that is awake, which changes nothing.
                let Some(park) = self.programs.park(event.binary, wait_reason, lock, stack, event.tid) else { return };
                self.with((image, goid, tier), |goroutine, _| {
                    goroutine.park(event.at, park, &mut |who, span| sink.span(who, &span))
                });
            }
            What::GoroutineParkAbort { goid } => self.with((image, goid, tier), |goroutine, _| {
                goroutine.park_abort(event.at, &mut |who, span| sink.span(who, &span));
                None
            }),
            What::GoroutineWake { goid, waker } => self.with((image, goid, tier), |goroutine, reasons| {
                let wait = reasons.wait(goroutine.blocked_on());
                let by = wake::attribute(waker, site.map(|site| site.waker), wait);
                goroutine.wake(event.at, by, &mut |who, span| sink.span(who, &span))
            }),
            What::GoroutineExit { goid } => self.exit(image, goid, tier, event, sink),
            What::GoroutineLateBirth { .. } | What::GoroutineWait { .. } => self.late_event(image, event, tier, sink),
            What::GoroutineTransition { goid, transition, stack } => {
                let by = self.thread_changes(image, event.tid, goid, transition);
                let park = Park { reason: coroutine, stack, object: None, tid: Some(event.tid) };
                let step = Step { transition, park, by };
                self.with((image, goid, tier), |goroutine, _| {
                    goroutine.transition(event.at, step, &mut |who, span| sink.span(who, &span))
                });
            }
            What::StopTheWorld { .. } | What::StartTheWorld { .. } | What::GcCycleStart { .. } => {
                self.gc_event(image, event, sink);
            }
            What::TestRun { goid, ref name, cut } => {
                let name = TestName { name: name.clone(), cut };
                sink.test_run(image, goid, event.at, &name);
            }
            What::OnCpuSample { .. } => self.sample_event(image, event, sink),
            // Taken before.
            _ => {}
        }
    }

    /// Notes who leaves a thread to a coroutine, and says to whom a coroutine that begins to run owes it.
    fn thread_changes(&mut self, image: ImageId, tid: Tid, goid: Goid, transition: Transition) -> Option<WokenBy> {
        let left = &mut self.populations.of(image).left;
        match transition {
            Transition::CoroutineStop => {
                left.insert(tid, goid);
                None
            }
            Transition::CoroutineRun => Some(left.remove(&tid).map_or(WokenBy::Unknown, WokenBy::Goroutine)),
            Transition::Run => {
                left.remove(&tid);
                None
            }
            _ => None,
        }
    }

    /// Applies an event to the goroutine it is about, and counts what that shows to be lost.
    fn with(&mut self, of: (ImageId, Goid, Tier), apply: impl FnOnce(&mut Goroutine, &Reasons) -> Option<Repair>) {
        let Self { populations, processes, repairs, reasons, .. } = self;
        let Some(goroutine) = living(populations, processes, repairs, of) else { return };
        if let Some(repair) = apply(goroutine, reasons) {
            repairs.count(repair.name());
        }
    }

    fn birth(
        &mut self,
        image: ImageId,
        goid: Goid,
        at: KtimeNs,
        origin: Origin,
        (first, tier): (First, Tier),
        sink: &mut impl Sink,
    ) {
        let population = self.populations.of(image);
        if population.dead.contains(goid) {
            // Goids are never used twice: the birth is late, and the life it begins has been told.
            self.repairs.count("event_after_exit");
            return;
        }
        // A parent makes its children while it lives.
        let parent = origin.parent.and_then(|parent| population.live.get(parent));
        let depth = parent.map_or(0, |parent| parent.who.depth.saturating_add(1));
        let who = Who {
            image,
            goid,
            born_at: Some(at),
            born_by: None,
            origin: Some(origin),
            origin_by_look: false,
            unseen: false,
            since: at,
            depth,
            slot: 0,
        };
        // Whoever is told of the one before must not find the new one in its slot.
        let old = population.live.remove(goid);
        if let Some(old) = old.filter(|old| !old.is_only_found()) {
            let life = old.gone(at, &mut |who, span| sink.span(who, &span));
            self.tell_life(life, LifeEnd::Gone, sink);
            self.repairs.count("lost_exit");
        }
        sink.born(&who);
        self.populations.of(image).live.insert(Goroutine::born(who, first, tier));
    }

    fn exit(&mut self, image: ImageId, goid: Goid, tier: Tier, event: &Event, sink: &mut impl Sink) {
        let Self { populations, processes, repairs, .. } = self;
        if living(populations, processes, repairs, (image, goid, tier)).is_none() {
            return;
        }
        let population = self.populations.of(image);
        population.dead.insert(goid);
        if tier >= Tier::T3 {
            population.left.insert(event.tid, goid);
        }
        if let Some(goroutine) = population.live.remove(goid) {
            let life = goroutine.exit(event.at, event.tid, &mut |who, span| sink.span(who, &span));
            self.tell_life(life, LifeEnd::Exit, sink);
        }
    }
}

/// The goroutine that an event is about; one that is met for the first time begins as unknown since its image did, or since all
/// goroutines were seen, and it was not. `None` if it has exited: the event is late.
fn living<'a>(
    populations: &'a mut Populations,
    processes: &Processes,
    repairs: &mut Repairs,
    (image, goid, tier): (ImageId, Goid, Tier),
) -> Option<&'a mut Goroutine> {
    let population = populations.of(image);
    if let Some(slot) = population.live.slot(goid) {
        return population.live.at(slot);
    }
    if population.dead.contains(goid) {
        repairs.count("event_after_exit");
        return None;
    }
    let began = processes.image(image).since;
    let since = population.all_seen_at.map_or(began, |at| at.max(began));
    Some(population.live.insert(Goroutine::met(image, goid, since, tier)).1)
}

#[cfg(test)]
mod tests;
