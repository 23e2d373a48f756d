//! Timelines: what each goroutine and process did from when to when.
//!
//! [`Collector`] gathers spans while a recording is replayed; [`Timeline`] puts them in order, marks where events are lost,
//! [`write`] says them as text or JSON lines, and [`perfetto`] draws them.

use std::{fmt, str::FromStr};

use rustc_hash::FxHashMap;

use crate::{
    clock::KtimeNs,
    correlate::{
        LabelsId, Life, LifeEnd, Sink, Span, SpanState,
        gc::{Cycle, Pause},
        goroutine::Who,
        loss::LostInterval,
        process::{ImageId, ProcessId},
        replay::{Coverage, Replayed},
        thread::{ThreadLife, ThreadSpan, ThreadWho},
        unit::{UnitNumber, UnitSpan, UnitWho},
    },
    id::{Goid, Tgid, Tid},
    recording::contract::Tier,
};

pub mod gc;
pub mod human;
mod labels;
pub mod perfetto;
pub mod process;
pub mod single;
pub mod site;
pub mod thread;
pub mod unit;
pub mod write;

use thread::ThreadLine;

/// What a timeline is about, as people write it: `go:17`, `go:17@4242`, `pid:4242`, `tid:4243`, `gc:4242`, `java:12`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Id {
    Goroutine(Goid, Option<Tgid>),
    Process(Tgid),
    Thread(Tid),
    /// The Go runtime of a process: its collector's cycles, and its pauses.
    Runtime(Tgid),
    /// A unit of work of another runtime: `java:12`, `java:12@4242`, and `java:t4711` for one that is known by its thread alone.
    Unit(unit::RuntimeName, UnitNumber, Option<Tgid>),
}

/// Why an id names nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("{0:?} is no id: write go:GOID, go:GOID@TGID, tid:TID, pid:TGID, gc:TGID, or RUNTIME:ID (java:12)")]
    Syntax(String),
    #[error("this recording has no {0}")]
    Unknown(Id),
    #[error("{id} lives in several processes: say which one ({})", .candidates.iter().map(|tgid| format!("{id}@{tgid}")).collect::<Vec<_>>().join(", "))]
    Ambiguous { id: Id, candidates: Vec<Tgid> },
}

impl FromStr for Id {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let parse = || match text.split_once(':')? {
            ("go", rest) => Some(match rest.split_once('@') {
                Some((goid, tgid)) => Self::Goroutine(Goid(number(goid)?), Some(Tgid(number(tgid)?))),
                None => Self::Goroutine(Goid(number(rest)?), None),
            }),
            ("pid", rest) => Some(Self::Process(Tgid(number(rest)?))),
            ("tid", rest) => Some(Self::Thread(Tid(number(rest)?))),
            ("gc", rest) => Some(Self::Runtime(Tgid(number(rest)?))),
            (runtime, rest) => {
                let (number, tgid) = match rest.split_once('@') {
                    Some((number, tgid)) => (number, Some(Tgid(self::number(tgid)?))),
                    None => (rest, None),
                };
                Some(Self::Unit(runtime.parse().ok()?, number.parse().ok()?, tgid))
            }
        };
        parse().ok_or_else(|| IdError::Syntax(text.to_owned()))
    }
}

fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Goroutine(goid, None) => write!(f, "go:{goid}"),
            Self::Goroutine(goid, Some(tgid)) => write!(f, "go:{goid}@{tgid}"),
            Self::Process(tgid) => write!(f, "pid:{tgid}"),
            Self::Thread(tid) => write!(f, "tid:{tid}"),
            Self::Runtime(tgid) => write!(f, "gc:{tgid}"),
            Self::Unit(runtime, number, None) => write!(f, "{runtime}:{number}"),
            Self::Unit(runtime, number, Some(tgid)) => write!(f, "{runtime}:{number}@{tgid}"),
        }
    }
}

/// One goroutine's life with its spans, in order of time.
#[derive(Clone, Debug)]
pub struct GoroutineLine {
    pub who: Who,
    pub life: Life,
    pub spans: Vec<Span>,
    /// The labels that looks at its process found on it, from when on each.
    pub labels: Vec<(KtimeNs, LabelsId)>,
}

/// Collects lives while a recording is replayed.
#[derive(Default)]
pub struct Collector {
    /// Only these goroutines, if any are named; their process is checked when it is known.
    only: Option<Goid>,
    open: FxHashMap<(ImageId, Goid), Vec<Span>>,
    labels: FxHashMap<(ImageId, Goid), Vec<(KtimeNs, LabelsId)>>,
    closed: Vec<GoroutineLine>,
    tracks: gc::Tracks,
    units: unit::Units,
    threads: thread::Threads,
    /// Whether goroutines are of interest.
    no_goroutines: bool,
}

impl Collector {
    /// Collects what `id` needs, or everything.
    pub fn new(id: Option<Id>) -> Self {
        let only = match id {
            Some(Id::Goroutine(goid, _)) => Some(goid),
            _ => None,
        };
        let only_unit = match id {
            // So are units called that follow the convention.
            Some(Id::Goroutine(goid, _)) => Some(UnitNumber::Id(goid.0)),
            Some(Id::Unit(_, number, _)) => Some(number),
            _ => None,
        };
        let units = unit::Units::only(only_unit);
        let threads = thread::Threads::wanted(id);
        Self { only, units, threads, no_goroutines: matches!(id, Some(Id::Thread(_))), ..Self::default() }
    }

    fn wanted(&self, who: &Who) -> bool {
        !self.no_goroutines && self.only.is_none_or(|goid| goid == who.goid)
    }
}

impl Sink for Collector {
    fn span(&mut self, who: &Who, span: &Span) {
        if self.wanted(who) {
            self.open.entry((who.image, who.goid)).or_default().push(*span);
        }
    }

    fn life(&mut self, who: &Who, life: &Life) {
        if self.wanted(who) {
            let spans = self.open.remove(&(who.image, who.goid)).unwrap_or_default();
            let labels = self.labels.remove(&(who.image, who.goid)).unwrap_or_default();
            self.closed.push(GoroutineLine { who: *who, life: *life, spans, labels });
        }
    }

    fn labels(&mut self, who: &Who, at: KtimeNs, labels: LabelsId) {
        if self.wanted(who) {
            self.labels.entry((who.image, who.goid)).or_default().push((at, labels));
        }
    }

    fn pause(&mut self, image: ImageId, pause: &Pause) {
        self.tracks.pause(image, pause);
    }

    fn cycle(&mut self, image: ImageId, cycle: &Cycle) {
        self.tracks.cycle(image, cycle);
    }

    fn unit_span(&mut self, who: &UnitWho, span: &UnitSpan) {
        self.units.span(who, span);
    }

    fn unit_life(&mut self, who: &UnitWho, life: &Life) {
        self.units.life(who, life);
    }

    fn thread_span(&mut self, who: &ThreadWho, span: &ThreadSpan) {
        self.threads.span(who, span);
    }

    fn thread_life(&mut self, who: &ThreadWho, life: &ThreadLife) {
        self.threads.life(who, life);
    }
}

/// The processes and goroutines to show, in order.
pub struct Timeline<'a> {
    pub replayed: &'a Replayed,
    pub processes: Vec<ProcessId>,
    /// By process, image and goid; within the groups of a label, if these are asked for.
    pub goroutines: Vec<GoroutineLine>,
    /// The label that they are grouped by.
    group_by: Option<String>,
    /// By image.
    pub tracks: gc::Tracks,
    /// Units of work of other runtimes, by process, image, runtime and id.
    pub units: Vec<unit::UnitLine>,
    /// By process and number.
    pub threads: Vec<ThreadLine>,
    lost: Vec<LostInterval>,
}

/// What a line of a timeline says that something did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It existed, and at this tier that is all that is known; of a process: it was neither stopped nor a zombie.
    Alive,
    /// A process that a signal stopped.
    Stopped,
    /// A process that has exited and is not reaped yet.
    Zombie,
    /// Not blocked.
    Awake,
    Running,
    /// It waits for a CPU.
    Runnable,
    Syscall,
    Blocked,
    Unknown,
    /// Events are missing here, on some CPU: what is said of this time may be wrong.
    Lost,
    Dead,
}

impl State {
    /// What a span says of a goroutine that was followed at a tier.
    pub fn of(span: &Span, tier: Tier) -> Self {
        match span.state {
            SpanState::Awake if tier < Tier::T2 => Self::Alive,
            SpanState::Awake => Self::Awake,
            SpanState::Running => Self::Running,
            SpanState::Runnable => Self::Runnable,
            SpanState::Syscall => Self::Syscall,
            SpanState::Blocked => Self::Blocked,
            SpanState::Unknown => Self::Unknown,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Stopped => "stopped",
            Self::Zombie => "zombie",
            Self::Awake => "awake",
            Self::Running => "running",
            Self::Runnable => "runnable",
            Self::Syscall => "syscall",
            Self::Blocked => "blocked",
            Self::Unknown => "unknown",
            Self::Lost => "lost",
            Self::Dead => "dead",
        }
    }
}

/// The tier at a time, or the first there was; `None` without any.
pub fn tier_at(coverage: &[Coverage], at: KtimeNs) -> Option<Tier> {
    let begun = coverage.partition_point(|span| span.from <= at);
    coverage.get(begun.saturating_sub(1)).map(|span| span.tier)
}

/// What of a life as a whole no event told, but a look at its process: it stands on the first line.
pub fn life_repaired(who: &Who) -> Option<&'static str> {
    if who.born_by.is_some() && !who.unseen {
        return Some(BORN_BY_SNAPSHOT);
    }
    who.origin_by_look.then_some(ORIGIN_BY_SNAPSHOT)
}

/// Marks of repairs.
pub const STATE_BY_SNAPSHOT: &str = "state_by_snapshot";
const ORIGIN_BY_SNAPSHOT: &str = "origin_by_snapshot";
const PROCESS_BY_SNAPSHOT: &str = "process_by_snapshot";
const BORN_BY_SNAPSHOT: &str = "born_by_snapshot";
const GONE_BY_SNAPSHOT: &str = "gone_by_snapshot";

/// One line: a state from when to when, with the span that it comes from.
#[derive(Clone, Copy, Debug)]
pub struct Row<'s> {
    pub state: State,
    pub start: KtimeNs,
    pub end: KtimeNs,
    pub span: Option<&'s Span>,
    /// Why it is dead.
    pub death: Option<&'static str>,
    /// What of it no event told, but a look at the process: the repair by its name in `repairs.by_kind`.
    pub repaired: Option<&'static str>,
    /// The CPUs whose events are missing.
    pub cpus: &'s [u16],
}

impl<'a> Timeline<'a> {
    /// Sorts what was collected, and keeps what `id` names.
    pub fn new(replayed: &'a Replayed, collector: Collector, id: Option<Id>) -> Result<Self, IdError> {
        let all = replayed.engine.processes();
        let tgid_of = |line: &GoroutineLine| all.of_image(line.who.image).tgid;
        let (mut goroutines, mut tracks) = (collector.closed, collector.tracks);
        goroutines.sort_by_key(|line| (tgid_of(line), line.who.image, line.who.goid, line.who.since));
        let mut units = collector.units.closed;
        units.sort_by_key(|unit| (unit.tgid(replayed), unit.who.image, unit.who.runtime, unit.who.number, unit.who.serial));
        let mut threads = collector.threads.sorted(replayed, &goroutines);
        let mut processes: Vec<ProcessId> = all.processes().map(|(process, _)| process).collect();
        match id {
            None => {}
            Some(id @ Id::Thread(_)) => {
                processes.clear();
                goroutines.clear();
                units.clear();
                tracks.clear();
                if threads.is_empty() {
                    return Err(IdError::Unknown(id));
                }
            }
            Some(id @ Id::Process(tgid)) => {
                processes.retain(|process| all.process(*process).tgid == tgid);
                goroutines.retain(|line| tgid_of(line) == tgid);
                units.retain(|unit| unit.tgid(replayed) == tgid);
                tracks.retain(replayed, tgid);
                threads.retain(|line| all.process(line.who.process).tgid == tgid);
                if processes.is_empty() {
                    return Err(IdError::Unknown(id));
                }
            }
            Some(id @ Id::Runtime(tgid)) => {
                processes.clear();
                goroutines.clear();
                units.clear();
                threads.clear();
                if !tracks.retain(replayed, tgid) {
                    return Err(IdError::Unknown(id));
                }
            }
            Some(id @ (Id::Goroutine(_, tgid) | Id::Unit(_, _, tgid))) => {
                processes.clear();
                tracks.clear();
                threads.clear();
                units.retain(|unit| match id {
                    Id::Goroutine(goid, _) => unit.is_goroutine(replayed, goid),
                    Id::Unit(runtime, ..) => replayed.engine.runtime(unit.who.runtime) == runtime.as_str(),
                    _ => false,
                });
                if let Id::Unit(..) = id {
                    goroutines.clear();
                }
                goroutines.retain(|line| tgid.is_none_or(|tgid| tgid == tgid_of(line)));
                units.retain(|unit| tgid.is_none_or(|tgid| tgid == unit.tgid(replayed)));
                let mut candidates: Vec<Tgid> = goroutines.iter().map(tgid_of).collect();
                candidates.extend(units.iter().map(|unit| unit.tgid(replayed)));
                candidates.sort_unstable();
                candidates.dedup();
                match candidates.len() {
                    0 => return Err(IdError::Unknown(id)),
                    1 => {}
                    _ => return Err(IdError::Ambiguous { id, candidates }),
                }
            }
        }
        processes.sort_by_key(|process| (all.process(*process).tgid, *process));
        Ok(Self { replayed, processes, goroutines, group_by: None, tracks, units, threads, lost: replayed.lost_intervals() })
    }

    /// The lines of one goroutine, by start.
    pub fn rows<'s>(&'s self, line: &'s GoroutineLine) -> Vec<Row<'s>> {
        let coverage = self.replayed.coverage(line.who.image);
        let mut rows: Vec<Row<'s>> = Vec::with_capacity(line.spans.len() + 1);
        rows.extend(line.spans.iter().map(|span| Row {
            state: State::of(span, tier_at(&coverage, span.start).unwrap_or(self.replayed.meta.tier)),
            start: span.start,
            end: span.end,
            span: Some(span),
            death: None,
            repaired: span.by_look.then_some(STATE_BY_SNAPSHOT),
            cpus: &[],
        }));
        if let Some((first, repaired)) = rows.first_mut().zip(life_repaired(&line.who)) {
            first.repaired = Some(repaired);
        }
        self.add_losses(line.who.since, line.life.ended_at, &mut rows);
        let death = match line.life.end {
            LifeEnd::Exit => Some("exit"),
            LifeEnd::ProcessEnd => Some("process end"),
            LifeEnd::Gone => Some("gone by then"),
            LifeEnd::RecordingEnd => None,
        };
        let at = line.life.ended_at;
        // Those of C threads come and go without a word.
        let foreign = line.who.origin.is_some_and(|origin| origin.gopc.0 == 0);
        let repaired = (line.life.end == LifeEnd::Gone && !foreign).then_some(GONE_BY_SNAPSHOT);
        rows.extend(death.map(|death| Row {
            state: State::Dead,
            start: at,
            end: at,
            span: None,
            death: Some(death),
            repaired,
            cpus: &[],
        }));
        rows
    }

    /// The intervals in which events are missing, by time.
    pub fn lost(&self) -> &[LostInterval] {
        &self.lost
    }

    /// The intervals in which events are missing that touch a time.
    fn lost_between(&self, from: KtimeNs, to: KtimeNs) -> impl Iterator<Item = &LostInterval> {
        let first = self.lost.partition_point(|lost| lost.to < from);
        self.lost[first..].iter().take_while(move |lost| lost.from <= to)
    }

    /// Adds the times between `from` and `to` in which events are missing.
    fn add_losses<'s>(&'s self, from: KtimeNs, to: KtimeNs, rows: &mut Vec<Row<'s>>) {
        let touching = self.lost_between(from, to);
        let before = rows.len();
        rows.extend(touching.map(|lost| Row {
            state: State::Lost,
            start: lost.from.max(from),
            end: lost.to.min(to),
            span: None,
            death: None,
            repaired: None,
            cpus: &lost.cpus,
        }));
        if rows.len() > before {
            rows.sort_by_key(|row| (row.start, row.state == State::Lost));
        }
    }
}
