//! A small kernel: programs that number, time, reserve and submit in any interleaving, a ring that may be full, and a reader.

use std::collections::VecDeque;

use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};

use super::*;
use crate::{
    event::{Event, What},
    id::{Goid, SiteId, Tgid, Tid},
    order::Orderer,
};

const CPUS: usize = 3;
/// Records that the ring holds.
const ROOM: usize = 4;
/// Longer than the margin, so that it hides nothing.
const STEP_NS: u64 = 10 * MARGIN_NS;

/// What is wrong with the kernel or the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// Programs take the time before the number.
    TimeFirst,
    /// The reader reads losses last.
    LossesLast,
    /// An empty ring is taken for everything being here.
    EmptyIsEnough,
    /// The reader does not know of losses that were on their way, and excuses as many as there are.
    AnyLossExcuses,
}

/// One thing that happens. Programs are picked among those that are under way: any may have been preempted by any other.
#[derive(Clone, Copy, Debug)]
enum Act {
    Start(usize),
    Go(prop::sample::Index),
    /// The next of the three reads that begin a mark.
    Read,
    Drain(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        2 => (0..CPUS).prop_map(Act::Start),
        6 => any::<prop::sample::Index>().prop_map(Act::Go),
        2 => Just(Act::Read),
        2 => (1..4usize).prop_map(Act::Drain),
    ];
    proptest::collection::vec(act, 0..150)
}

#[derive(Clone, Copy, Debug, Default)]
struct Program {
    cpu: usize,
    seq: u64,
    ktime: u64,
    steps: u8,
    lost: bool,
}

struct World {
    flaw: Flaw,
    clock: u64,
    next_seq: Vec<u64>,
    lost: Vec<u64>,
    programs: Vec<Program>,
    running: Vec<usize>,
    /// Programs, and whether they have submitted.
    ring: VecDeque<(usize, bool)>,
    reading: Reading,
    reads: u8,
    watermark: Watermark,
    /// Programs whose records were taken, and the marks that were reached after so many.
    taken: Vec<usize>,
    marks: Vec<(Drained, usize)>,
}

impl World {
    fn new(flaw: Flaw) -> Self {
        Self {
            flaw,
            clock: 0,
            next_seq: vec![0; CPUS],
            lost: vec![0; CPUS],
            programs: Vec::new(),
            running: Vec::new(),
            ring: VecDeque::new(),
            reading: Reading::default(),
            reads: 0,
            watermark: Watermark::default(),
            taken: Vec::new(),
            marks: Vec::new(),
        }
    }

    fn act(&mut self, act: Act) {
        self.clock += STEP_NS;
        match act {
            Act::Start(cpu) => {
                self.running.push(self.programs.len());
                self.programs.push(Program { cpu, ..Program::default() });
            }
            Act::Go(which) if !self.running.is_empty() => self.step(which.index(self.running.len())),
            Act::Go(_) => {}
            Act::Read => self.read(),
            Act::Drain(most) => self.drain(most),
        }
    }

    fn step(&mut self, running: usize) {
        let id = self.running[running];
        let program = &mut self.programs[id];
        program.steps += 1;
        match (program.steps, self.flaw == Flaw::TimeFirst) {
            (1, false) | (2, true) => {
                program.seq = self.next_seq[program.cpu];
                self.next_seq[program.cpu] += 1;
            }
            (2, false) | (1, true) => program.ktime = self.clock,
            (3, _) if self.ring.len() < ROOM => self.ring.push_back((id, false)),
            (3, _) => program.lost = true,
            _ => {
                match program.lost {
                    true => self.lost[program.cpu] += 1,
                    false => self.ring.iter_mut().filter(|(of, _)| *of == id).for_each(|(_, submitted)| *submitted = true),
                }
                self.running.remove(running);
            }
        }
    }

    fn read(&mut self) {
        let order = if self.flaw == Flaw::LossesLast { [1, 2, 0] } else { [0, 1, 2] };
        match order[usize::from(self.reads)] {
            0 => self.reading.lost = self.lost.clone(),
            1 => self.reading.at = KtimeNs(self.clock),
            _ => self.reading.next_seq = self.next_seq.clone(),
        }
        self.reads = (self.reads + 1) % 3;
        if self.reads == 0 {
            self.watermark.begin(self.reading.clone());
        }
    }

    fn drain(&mut self, most: usize) {
        for _ in 0..most {
            let Some((id, _)) = self.ring.front().copied().filter(|(_, submitted)| *submitted) else { break };
            self.ring.pop_front();
            self.watermark.took(self.programs[id].cpu as u16, self.programs[id].seq);
            self.taken.push(id);
        }
        if let Some(pending) = &mut self.watermark.pending {
            let lost = self.lost.iter().sum::<u64>() - self.reading.lost.iter().sum::<u64>();
            let enough = match self.flaw {
                Flaw::EmptyIsEnough => self.ring.is_empty(),
                Flaw::AnyLossExcuses => pending.owed <= lost,
                _ => false,
            };
            pending.owed *= u64::from(!enough);
        }
        self.marks.extend(self.watermark.reached().map(|mark| (mark, self.taken.len())));
    }

    /// Everybody gets to the end, and the reader looks once more.
    fn finish(&mut self) {
        while !self.running.is_empty() {
            self.clock += STEP_NS;
            self.step(0);
        }
        self.drain(usize::MAX);
        self.reads = 0;
        (0..3).for_each(|_| self.act(Act::Read));
        self.drain(1);
    }
}

/// Whether what comes behind a mark is younger, what a mark says is lost was lost before it, and the last mark is reached.
fn marks_are_true(flaw: Flaw, acts: &[Act]) -> Result<(), TestCaseError> {
    let mut world = World::new(flaw);
    acts.iter().for_each(|act| world.act(*act));
    world.finish();
    for (mark, taken) in &world.marks {
        for id in &world.taken[*taken..] {
            prop_assert!(world.programs[*id].ktime > mark.at.0, "{:?} behind {:?}", world.programs[*id], mark);
        }
        for program in world.programs.iter().filter(|program| program.lost && program.seq < mark.next_seq[program.cpu]) {
            prop_assert!(program.ktime <= mark.at.0 + MARGIN_NS, "{:?} lost behind {:?}", program, mark);
        }
    }
    prop_assert_eq!(&world.marks.last().expect("the last one is reached").0.next_seq, &world.next_seq);
    let (mut orderer, mut last) = (Orderer::new(0, KtimeNs(0)), KtimeNs(0));
    let mut release = |event: Event| {
        assert!(last <= event.at);
        last = event.at;
    };
    orderer.drained(&Drained { at: KtimeNs(0), next_seq: vec![] }, &mut release);
    for (index, id) in world.taken.iter().chain([&usize::MAX]).enumerate() {
        world.marks.iter().filter(|(_, taken)| *taken == index).for_each(|(mark, _)| orderer.drained(mark, &mut release));
        if let Some(program) = world.programs.get(*id) {
            orderer.push(event(program), &mut release);
        }
    }
    let report = orderer.finish(&mut release);
    prop_assert_eq!((report.late, report.missing()), (0, world.lost.iter().sum()));
    Ok(())
}

fn event(program: &Program) -> Event {
    let what = What::GoroutineExit { goid: Goid(1) };
    let (at, cpu) = (KtimeNs(program.ktime), program.cpu as u16);
    Event { at, cpu, seq: program.seq, tgid: Tgid(1), tid: Tid(1), binary: None, site: SiteId(0), what }
}

fn refuted(flaw: Flaw) -> bool {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    runner.run(&acts(), |acts| marks_are_true(flaw, &acts)).is_err()
}

/// Check that marks are true whatever happens when, and that this would notice each way to get them wrong.
#[test]
fn any_interleaving() {
    assert!(!refuted(Flaw::None));
    for flaw in [Flaw::TimeFirst, Flaw::LossesLast, Flaw::EmptyIsEnough, Flaw::AnyLossExcuses] {
        assert!(refuted(flaw), "{flaw:?} passes");
    }
}

/// Check that a mark waits for the last of its records, and not for younger ones.
#[test]
fn waits_for_its_own() {
    let mut watermark = Watermark::default();
    watermark.took(0, 0);
    watermark.begin(Reading { lost: vec![1, 0], at: KtimeNs(5000), next_seq: vec![3, 1] });
    assert!(watermark.pending());
    for (cpu, seq) in [(0, 3), (1, 0), (1, 1)] {
        watermark.took(cpu, seq);
        assert_eq!(watermark.reached(), None);
    }
    watermark.took(0, 2);
    assert_eq!(watermark.reached(), Some(Drained { at: KtimeNs(4000), next_seq: vec![3, 1] }));
    assert!(!watermark.pending() && watermark.reached().is_none());
}

/// Check that a reading that cannot be gives no mark.
#[test]
fn impossible_readings() {
    let mut watermark = Watermark::default();
    watermark.begin(Reading { lost: vec![2], at: KtimeNs(5000), next_seq: vec![1] });
    assert_eq!((watermark.pending(), watermark.reached()), (false, None));
}
