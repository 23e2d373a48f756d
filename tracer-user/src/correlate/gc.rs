//! The Go runtime's own life: pauses of the whole process, and cycles of the garbage collector.
//!
//! A pause runs from the request to stop the world (goroutines are still being stopped then) to the moment before it is
//! started again. A cycle runs from `runtime.gcBgMarkStartWorkers`, which the pause for sweep termination follows, to the end
//! of its last pause for mark termination: Go starts the world once more and marks on if it finds work left there. Sweeping,
//! which goes on beside the program until the next cycle, is in no cycle.
//!
//! A pure state machine with time passed in. Events can be lost: what was not seen to begin or to end is marked so.

use crate::{
    clock::KtimeNs,
    event::{Event, What},
    id::{Goid, Tid},
};

use super::{
    Engine, ReasonId, Repairs, Sink,
    process::{Image, ImageId},
};

/// What a pause is for, as far as cycles depend on it (`runtime/mgc.go`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    SweepTermination,
    MarkTermination,
    Other,
}

impl Purpose {
    /// By the name of the reason.
    fn of(reason: &str) -> Self {
        match reason {
            "GC sweep termination" => Self::SweepTermination,
            "GC mark termination" => Self::MarkTermination,
            _ => Self::Other,
        }
    }
}

/// A time in which the world was being stopped, or stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    pub start: KtimeNs,
    pub end: KtimeNs,
    pub reason: ReasonId,
    /// Who asked for it; `None`: no goroutine.
    pub by: Option<Goid>,
    pub tid: Tid,
    /// Not: it was over by `end`, or the process or the recording ended in it.
    pub end_seen: bool,
}

/// A cycle of the collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cycle {
    pub start: KtimeNs,
    pub end: KtimeNs,
    /// Whose allocation or call began it.
    pub by: Option<Goid>,
    /// Not: it began at `start` at the earliest.
    pub start_seen: bool,
    /// Not: it was over by `end`, or the process or the recording ended in it.
    pub end_seen: bool,
}

/// What the events of one image told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Pause(Pause),
    Cycle(Cycle),
}

#[derive(Clone, Copy, Debug)]
struct Open {
    since: KtimeNs,
    by: Option<Goid>,
    start_seen: bool,
    /// When its last pause for mark termination ended.
    marked: Option<KtimeNs>,
}

/// The collector of one image.
#[derive(Debug)]
pub struct Gc {
    /// Nothing is known of the time before.
    known_since: KtimeNs,
    stopped: Option<(Pause, Purpose)>,
    /// It ran before it was followed: the world may have been stopped then.
    may_be_stopped: bool,
    cycle: Option<Open>,
}

impl Gc {
    /// Of an image that is known `since` then, from its beginning or not.
    pub fn new(since: KtimeNs, from_beginning: bool) -> Self {
        Self { known_since: since, stopped: None, may_be_stopped: !from_beginning, cycle: None }
    }

    /// The world is about to be stopped.
    fn stop(&mut self, pause: Pause, purpose: Purpose, repairs: &mut Repairs, tell: &mut impl FnMut(Told)) {
        self.may_be_stopped = false;
        // There is one stop at a time: the one before is over.
        if let Some((before, purpose)) = self.stopped.take() {
            repairs.count("lost_start_the_world");
            self.end_pause(before, purpose, pause.start, false, tell);
        }
        if purpose == Purpose::SweepTermination && self.cycle.is_none_or(|cycle| cycle.marked.is_some()) {
            repairs.count("lost_gc_cycle_start");
            self.begin_cycle(pause.start, pause.by, false, repairs, tell);
        }
        self.stopped = Some((pause, purpose));
    }

    /// It is about to be started again.
    fn start(&mut self, at: KtimeNs, repairs: &mut Repairs, tell: &mut impl FnMut(Told)) {
        match self.stopped.take() {
            Some((pause, purpose)) => self.end_pause(pause, purpose, at, true, tell),
            None if self.may_be_stopped => self.may_be_stopped = false,
            None => repairs.count("lost_stop_the_world"),
        }
    }

    fn end_pause(&mut self, pause: Pause, purpose: Purpose, at: KtimeNs, end_seen: bool, tell: &mut impl FnMut(Told)) {
        let end = at.max(pause.start);
        if purpose == Purpose::MarkTermination {
            // Without a beginning: the cycle was under way when we came.
            let since = self.known_since.min(pause.start);
            let fresh = Open { since, by: None, start_seen: false, marked: None };
            self.cycle.get_or_insert(fresh).marked = Some(end);
        }
        tell(Told::Pause(Pause { end, end_seen, ..pause }));
    }

    /// A cycle begins: the one before ended with the last pause for mark termination.
    fn begin_cycle(
        &mut self,
        at: KtimeNs,
        by: Option<Goid>,
        start_seen: bool,
        repairs: &mut Repairs,
        tell: &mut impl FnMut(Told),
    ) {
        if let Some(open) = self.cycle.take() {
            if open.marked.is_none() {
                repairs.count("lost_gc_cycle_end");
            }
            self.end_cycle(open, at, tell);
        }
        self.cycle = Some(Open { since: at, by, start_seen, marked: None });
    }

    fn end_cycle(&mut self, open: Open, at: KtimeNs, tell: &mut impl FnMut(Told)) {
        let Open { since, by, start_seen, marked } = open;
        let end = marked.unwrap_or(at).max(since);
        self.known_since = self.known_since.max(end);
        tell(Told::Cycle(Cycle { start: since, end, by, start_seen, end_seen: marked.is_some() }));
    }

    /// The image, or the recording, ends.
    fn close(mut self, at: KtimeNs, tell: &mut impl FnMut(Told)) {
        if let Some((pause, _)) = self.stopped.take() {
            tell(Told::Pause(Pause { end: at.max(pause.start), end_seen: false, ..pause }));
        }
        if let Some(open) = self.cycle.take() {
            self.end_cycle(open, at, tell);
        }
    }
}

impl Engine {
    pub(super) fn gc_event(&mut self, image: ImageId, event: &Event, sink: &mut impl Sink) {
        let &Image { since, executed, .. } = self.processes.image(image);
        // Behind a gap it is known from the gap's end on, and not from its beginning.
        let program = event.binary.and_then(|binary| self.programs.get(binary));
        let gap = program.and_then(|program| program.gap_until).filter(|until| *until > since);
        let (since, executed) = gap.map_or((since, executed), |until| (until, false));
        let tell = &mut |told: Told| match told {
            Told::Pause(pause) => sink.pause(image, &pause),
            Told::Cycle(cycle) => sink.cycle(image, &cycle),
        };
        match event.what {
            What::StopTheWorld { goid, reason } => {
                let (reason, purpose) = self.stw_reason(event, reason);
                let gc = self.collectors.entry(image).or_insert_with(|| Gc::new(since, executed));
                let pause = Pause { start: event.at, end: event.at, reason, by: goid, tid: event.tid, end_seen: false };
                gc.stop(pause, purpose, &mut self.repairs, tell);
            }
            What::StartTheWorld { .. } => {
                let gc = self.collectors.entry(image).or_insert_with(|| Gc::new(since, executed));
                gc.start(event.at, &mut self.repairs, tell);
            }
            What::GcCycleStart { goid } => {
                let gc = self.collectors.entry(image).or_insert_with(|| Gc::new(since, executed));
                gc.begin_cycle(event.at, goid, true, &mut self.repairs, tell);
            }
            _ => {}
        }
    }

    /// The reason of that number in the Go version of the binary; one that is not known is called by its number.
    fn stw_reason(&mut self, event: &Event, number: u8) -> (ReasonId, Purpose) {
        let program = event.binary.and_then(|binary| self.programs.get(binary));
        let known = program.and_then(|program| program.stw_reasons.get(usize::from(number)).cloned());
        let name = known.unwrap_or_else(|| format!("reason {number}"));
        (self.reasons.intern(&name), Purpose::of(&name))
    }

    pub(super) fn close_gc(&mut self, image: ImageId, at: KtimeNs, sink: &mut impl Sink) {
        if let Some(gc) = self.collectors.remove(&image) {
            gc.close(at, &mut |told| match told {
                Told::Pause(pause) => sink.pause(image, &pause),
                Told::Cycle(cycle) => sink.cycle(image, &cycle),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A step of a scene: `S`weep termination, `M`ark termination, `O`ther stop, `G`o on (the world is started), `C`ycle.
    fn told(steps: &[(u64, char)], end: u64) -> (Vec<String>, Repairs) {
        let (mut gc, mut repairs, mut out) = (Gc::new(KtimeNs(1), true), Repairs::default(), Vec::new());
        let tell = &mut |told: Told| {
            out.push(match told {
                Told::Pause(p) => format!("pause {}-{}{}", p.start.0, p.end.0, if p.end_seen { "" } else { "?" }),
                Told::Cycle(c) => {
                    let unsure = |seen: bool| if seen { "" } else { "?" };
                    format!("cycle {}{}-{}{}", unsure(c.start_seen), c.start.0, c.end.0, unsure(c.end_seen))
                }
            });
        };
        for &(at, step) in steps {
            let at = KtimeNs(at);
            let pause = Pause { start: at, end: at, reason: ReasonId(0), by: None, tid: Tid(1), end_seen: false };
            match step {
                'S' => gc.stop(pause, Purpose::SweepTermination, &mut repairs, tell),
                'M' => gc.stop(pause, Purpose::MarkTermination, &mut repairs, tell),
                'O' => gc.stop(pause, Purpose::Other, &mut repairs, tell),
                'G' => gc.start(at, &mut repairs, tell),
                _ => gc.begin_cycle(at, None, true, &mut repairs, tell),
            }
        }
        gc.close(KtimeNs(end), tell);
        (out, repairs)
    }

    /// Check that the world may have been stopped when a process was joined, once.
    #[test]
    fn joined_in_a_pause() {
        let (mut gc, mut repairs) = (Gc::new(KtimeNs(1), false), Repairs::default());
        gc.start(KtimeNs(2), &mut repairs, &mut |_| {});
        assert!(repairs.by_kind.is_empty());
        gc.start(KtimeNs(3), &mut repairs, &mut |_| {});
        assert_eq!(repairs.by_kind["lost_stop_the_world"], 1);
    }

    /// Check cycles and pauses, whole ones and those of which an event is missing.
    #[test]
    fn scenes() {
        type Scene = (&'static str, &'static [(u64, char)], &'static [&'static str], &'static [&'static str]);
        let scenes: &[Scene] = &[
            (
                "a cycle, a pause outside of it",
                &[(10, 'C'), (11, 'S'), (12, 'G'), (20, 'M'), (22, 'G'), (30, 'O'), (31, 'G')],
                &["pause 11-12", "pause 20-22", "pause 30-31", "cycle 10-22"],
                &[],
            ),
            (
                "mark termination that found work left",
                &[(10, 'C'), (11, 'S'), (12, 'G'), (20, 'M'), (22, 'G'), (24, 'M'), (25, 'G'), (40, 'C')],
                &["pause 11-12", "pause 20-22", "pause 24-25", "cycle 10-25", "cycle 40-50?"],
                &[],
            ),
            ("a process that ends in a cycle, and in a pause", &[(10, 'C'), (11, 'S')], &["pause 11-50?", "cycle 10-50?"], &[]),
            ("a cycle that was under way", &[(20, 'M'), (22, 'G')], &["pause 20-22", "cycle ?1-22"], &[]),
            (
                "a lost beginning of a cycle",
                &[(10, 'C'), (20, 'M'), (22, 'G'), (31, 'S'), (32, 'G'), (40, 'M'), (41, 'G')],
                &["pause 20-22", "cycle 10-22", "pause 31-32", "pause 40-41", "cycle ?31-41"],
                &["lost_gc_cycle_start"],
            ),
            (
                "a lost mark termination",
                &[(10, 'C'), (30, 'C'), (40, 'M'), (41, 'G')],
                &["cycle 10-30?", "pause 40-41", "cycle 30-41"],
                &["lost_gc_cycle_end"],
            ),
            (
                "a lost start of the world",
                &[(10, 'O'), (20, 'O'), (21, 'G')],
                &["pause 10-20?", "pause 20-21"],
                &["lost_start_the_world"],
            ),
            ("a lost stop of the world", &[(10, 'G')], &[], &["lost_stop_the_world"]),
        ];
        for (what, steps, expected, repaired) in scenes {
            let (out, repairs) = told(steps, 50);
            assert_eq!(out, *expected, "{what}");
            assert_eq!(repairs.by_kind.keys().copied().collect::<Vec<_>>(), *repaired, "{what}");
        }
    }
}
