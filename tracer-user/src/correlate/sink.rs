//! What the engine tells: spans, lives, and who listens.

use rustc_hash::FxHashMap;

use super::{
    WokenBy,
    gc::{Cycle, Pause},
    goroutine::{LookedAt, SiteKey, Who},
    process::ImageId,
    sample::Sample,
    thread::{ThreadLife, ThreadSpan, ThreadWho},
    unit::{UnitSpan, UnitWho},
};
use crate::{
    clock::KtimeNs,
    id::{Address, Goid, StackId, Tid},
    recording::contract::{DumpSource, Tier},
};

/// A set of labels ([`Engine::labels`](super::Engine::labels)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelsId(pub u32);

/// A wait reason by name, interned over all binaries ([`Engine::reason`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReasonId(pub u16);

/// What a goroutine did during a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpanState {
    /// Not blocked: running, runnable or in a syscall. Only where parks and wakes are all that is seen (T2).
    Awake,
    /// Waiting for a CPU; so is one that was preempted.
    Runnable,
    Running,
    /// In a system call, or in C code.
    Syscall,
    Blocked,
    Unknown,
}

impl SpanState {
    /// As outputs call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Awake => "awake",
            Self::Runnable => "runnable",
            Self::Running => "running",
            Self::Syscall => "syscall",
            Self::Blocked => "blocked",
            Self::Unknown => "unknown",
        }
    }
}

/// One stretch of a goroutine's life, closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub state: SpanState,
    pub start: KtimeNs,
    /// Never before `start`.
    pub end: KtimeNs,
    /// Why it blocked. On an unknown span: why it had blocked when sight of it was lost.
    pub reason: Option<ReasonId>,
    /// Where it blocked, where it stopped before it waited for a CPU (`None`: it has not run yet), or where it entered the
    /// system call.
    pub stack: Option<StackId>,
    /// The channel it blocked on, else the lock that gopark was given.
    pub object: Option<Address>,
    /// `None` unless a wake was seen to end the span.
    pub woken_by: Option<WokenBy>,
    /// The thread that it was last seen on during the span; it may have moved before.
    pub tid: Option<Tid>,
    /// Events told otherwise, and two looks at the process contradicted them.
    pub by_look: bool,
}

/// How a life, as far as it is known, came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LifeEnd {
    /// It exited.
    Exit,
    /// Its process exited or executed another program while it lived.
    ProcessEnd,
    /// The recording ended while it lived.
    RecordingEnd,
    /// Its exit was lost: it was gone by then.
    Gone,
}

/// A life, closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    pub ended_at: KtimeNs,
    pub end: LifeEnd,
    /// When it was last known to live, by an event or a look at its process: records lost behind that may have told of its end.
    pub last_known: KtimeNs,
    /// What the newest look at it told.
    pub looked_at: LookedAt,
}

impl Life {
    /// Whether it was alive as long as anything could be.
    pub fn alive_at_end(&self) -> bool {
        matches!(self.end, LifeEnd::ProcessEnd | LifeEnd::RecordingEnd)
    }
}

/// What a look at a process counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census {
    /// When the reading began and ended.
    pub from: KtimeNs,
    pub to: KtimeNs,
    pub source: DumpSource,
    /// By creation site: return address of the `go` statement, and entry of the start function.
    pub sites: FxHashMap<(Address, Address), CensusSite>,
    /// Goroutines that could not be told apart because they kept changing.
    pub torn: u64,
}

impl Census {
    /// Whether it tells of stacks: a profile does not.
    pub fn knows_stacks(&self) -> bool {
        self.sites.is_empty() || self.sites.values().any(|site| site.stacks_unknown < site.goroutines)
    }
}

/// Goroutines of one creation site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CensusSite {
    pub goroutines: u64,
    /// Memory set aside for their stacks, as far as that is known.
    pub stack_bytes: u64,
    /// Of how many that is not known.
    pub stacks_unknown: u64,
}

/// Waits, or lives, of one kind that were too short to be told one by one: they were summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SumOfMany<'a> {
    pub site: SiteKey,
    /// They are lives, from birth to exit; else waits.
    pub lives: bool,
    pub reason: Option<ReasonId>,
    /// The blocking stack; of lives, the creator's.
    pub stack: Option<StackId>,
    /// They were over by then.
    pub at: KtimeNs,
    pub count: u64,
    pub total_ns: u64,
    /// How many fell into which bucket of `tracer_common::summing`.
    pub buckets: &'a [(u8, u32)],
}

/// What a test was called by who started it: without its parents' names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestName {
    pub name: String,
    pub cut: bool,
}

/// Who listens. Spans of one goroutine come in order of time, and all before its life.
pub trait Sink {
    /// The recording's zero; before anything else.
    fn begin(&mut self, _zero: KtimeNs) {}
    fn span(&mut self, who: &Who, span: &Span);
    fn life(&mut self, who: &Who, life: &Life);
    /// A birth was told of, when it happened.
    fn born(&mut self, _who: &Who) {}
    /// Waits or lives that were not told.
    fn summed(&mut self, _sum: &SumOfMany<'_>) {}
    /// From here on an image is followed at a tier. After the spans that end with the one before.
    fn covered(&mut self, _image: ImageId, _tier: Tier, _at: KtimeNs) {}
    /// A look found other labels on a goroutine than are known of it. In order of time, before its life.
    fn labels(&mut self, _who: &Who, _at: KtimeNs, _labels: LabelsId) {}
    /// A look at all goroutines of an image is over.
    fn census(&mut self, _image: ImageId, _census: &Census) {}
    /// A pause of an image is over. In order of time.
    fn pause(&mut self, _image: ImageId, _pause: &Pause) {}
    /// A cycle of an image's collector is over. In order of time, but told late: when the next one begins.
    fn cycle(&mut self, _image: ImageId, _cycle: &Cycle) {}
    /// Spans of one thread come in order of time, and all before its life.
    fn thread_span(&mut self, _who: &ThreadWho, _span: &ThreadSpan) {}
    fn thread_life(&mut self, _who: &ThreadWho, _life: &ThreadLife) {}
    /// A goroutine (`None`: it is not known which) is about to start a test, which the next one runs that it makes in `testing.(*T).Run`.
    /// In order of time, and before the lives of both.
    fn test_run(&mut self, _image: ImageId, _by: Option<Goid>, _at: KtimeNs, _name: &TestName) {}
    /// A look found a test running in a goroutine; its whole name, if that could be read. Before its life.
    fn test_seen(&mut self, _image: ImageId, _goid: Goid, _name: Option<&str>) {}
    /// A CPU was sampled.
    fn sample(&mut self, _image: ImageId, _sample: &Sample) {}
    /// A stretch of the life of another runtime's unit of work. In order of time, and all before its life.
    fn unit_span(&mut self, _who: &UnitWho, _span: &UnitSpan) {}
    fn unit_life(&mut self, _who: &UnitWho, _life: &Life) {}
}

/// Two who listen.
#[derive(Default)]
pub struct Both<A, B>(pub A, pub B);

impl<A: Sink, B: Sink> Sink for Both<A, B> {
    fn begin(&mut self, zero: KtimeNs) {
        self.0.begin(zero);
        self.1.begin(zero);
    }

    fn span(&mut self, who: &Who, span: &Span) {
        self.0.span(who, span);
        self.1.span(who, span);
    }

    fn life(&mut self, who: &Who, life: &Life) {
        self.0.life(who, life);
        self.1.life(who, life);
    }

    fn born(&mut self, who: &Who) {
        self.0.born(who);
        self.1.born(who);
    }

    fn summed(&mut self, sum: &SumOfMany<'_>) {
        self.0.summed(sum);
        self.1.summed(sum);
    }

    fn covered(&mut self, image: ImageId, tier: Tier, at: KtimeNs) {
        self.0.covered(image, tier, at);
        self.1.covered(image, tier, at);
    }

    fn labels(&mut self, who: &Who, at: KtimeNs, labels: LabelsId) {
        self.0.labels(who, at, labels);
        self.1.labels(who, at, labels);
    }

    fn census(&mut self, image: ImageId, census: &Census) {
        self.0.census(image, census);
        self.1.census(image, census);
    }

    fn pause(&mut self, image: ImageId, pause: &Pause) {
        self.0.pause(image, pause);
        self.1.pause(image, pause);
    }

    fn cycle(&mut self, image: ImageId, cycle: &Cycle) {
        self.0.cycle(image, cycle);
        self.1.cycle(image, cycle);
    }

    fn thread_span(&mut self, who: &ThreadWho, span: &ThreadSpan) {
        self.0.thread_span(who, span);
        self.1.thread_span(who, span);
    }

    fn thread_life(&mut self, who: &ThreadWho, life: &ThreadLife) {
        self.0.thread_life(who, life);
        self.1.thread_life(who, life);
    }

    fn test_run(&mut self, image: ImageId, by: Option<Goid>, at: KtimeNs, name: &TestName) {
        self.0.test_run(image, by, at, name);
        self.1.test_run(image, by, at, name);
    }

    fn test_seen(&mut self, image: ImageId, goid: Goid, name: Option<&str>) {
        self.0.test_seen(image, goid, name);
        self.1.test_seen(image, goid, name);
    }

    fn sample(&mut self, image: ImageId, sample: &Sample) {
        self.0.sample(image, sample);
        self.1.sample(image, sample);
    }

    fn unit_span(&mut self, who: &UnitWho, span: &UnitSpan) {
        self.0.unit_span(who, span);
        self.1.unit_span(who, span);
    }

    fn unit_life(&mut self, who: &UnitWho, life: &Life) {
        self.0.unit_life(who, life);
        self.1.unit_life(who, life);
    }
}
