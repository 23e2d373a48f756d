//! The life of one goroutine: a pure state machine over its events, time passed in.
//!
//! Any event can be lost. `Unknown` is a state of its own: what happened before the first event, or while a wake or an
//! exit got lost, is said to be unknown and never filled in.

use crate::{
    clock::KtimeNs,
    id::{Address, Goid, StackId, Tid},
};

use super::{ImageId, ReasonId, Span, SpanState, WokenBy};

/// Where a goroutine comes from, as its birth told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The goroutine that executed the `go` statement; `None` where none did or the Go version does not tell.
    pub parent: Option<Goid>,
    /// Return address of the `go` statement.
    pub gopc: Address,
    /// Entry of the start function.
    pub startpc: Address,
    /// The creator's stack.
    pub stack: Option<StackId>,
}

/// Who a goroutine is: what does not change while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    pub image: ImageId,
    pub goid: Goid,
    pub born_at: Option<KtimeNs>,
    /// `None`: it lived before the recording, or its birth was lost.
    pub origin: Option<Origin>,
    /// Birth, or the earliest time of which anything can be said (then its life begins in `Unknown`).
    pub since: KtimeNs,
}

/// A park as the event told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Park {
    pub reason: Option<ReasonId>,
    pub stack: Option<StackId>,
    pub object: Option<Address>,
    /// The thread it ran on until then.
    pub tid: Option<Tid>,
}

/// What the goroutine does since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unknown {
        since: KtimeNs,
    },
    Awake {
        since: KtimeNs,
    },
    /// Parked; `before` is what it did until then, kept open because the park may be taken back.
    Blocked {
        since: KtimeNs,
        park: Park,
        before: Before,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Unknown {
        since: KtimeNs,
    },
    Awake {
        since: KtimeNs,
    },
    /// Nothing is open: the span before was closed when this park replaced another.
    Closed,
}

/// What an event tells of the goroutine at the time just before it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Was {
    Running,
    Waiting,
    /// Nothing.
    There,
}

/// What a wake needs to know of the park that it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// A park ended.
    Park,
    /// It was not known to be blocked.
    Stray,
}

/// One goroutine that lives.
#[derive(Clone, Debug)]
pub struct Goroutine {
    pub who: Who,
    /// The newest event: nothing of it may lie before that.
    last: KtimeNs,
    state: State,
    /// Its state was read out of memory, and no event of it has come since.
    found: Option<Found>,
}

/// When a memory was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    from: KtimeNs,
    until: KtimeNs,
}

impl Goroutine {
    /// Born under our eyes: it is runnable, hence not blocked.
    pub fn born(image: ImageId, goid: Goid, at: KtimeNs, origin: Origin) -> Self {
        let who = Who { image, goid, born_at: Some(at), origin: Some(origin), since: at };
        Self { who, last: at, state: State::Awake { since: at }, found: None }
    }

    /// Met by another event than its birth; nothing is known of it since `since`.
    pub fn met(image: ImageId, goid: Goid, since: KtimeNs) -> Self {
        let who = Who { image, goid, born_at: None, origin: None, since };
        Self { who, last: since, state: State::Unknown { since }, found: None }
    }

    /// Read out of its process's memory between `from` and `until`: it lived before, and nothing is known of that. If it waited,
    /// `waits` says how.
    pub fn found(who: Who, from: KtimeNs, until: KtimeNs, waits: Option<Park>) -> Self {
        let state = match waits {
            Some(park) => State::Blocked { since: from, park, before: Before::Closed },
            None => State::Awake { since: from },
        };
        Self { who, last: from, state, found: Some(Found { from, until }) }
    }

    /// Whether nothing but a look at the memory tells of it.
    pub fn is_only_found(&self) -> bool {
        self.found.is_some()
    }

    /// The memory told where one comes from whose birth was not seen.
    pub fn identify(&mut self, origin: Origin) {
        self.who.origin.get_or_insert(origin);
    }

    /// The first event, `at`, of one that was found decides what the memory said of it: that was read somewhen between two times,
    /// and an event between them may be older or newer.
    fn settle(&mut self, at: KtimeNs, was: Was, sink: &mut impl FnMut(&Who, Span)) {
        let Some(Found { from, until }) = self.found.take() else { return };
        self.emit(SpanState::Unknown, self.who.since, from, None, sink);
        match (self.state, was) {
            // It began to wait after this event.
            (State::Blocked { .. }, Was::Running) if at <= until => self.state = State::Awake { since: from },
            // It was read after this event had ended its wait.
            (State::Awake { .. }, Was::Waiting) if at <= until => self.state = State::Unknown { since: from },
            _ => {}
        }
    }

    /// The newest event of it.
    pub fn last(&self) -> KtimeNs {
        self.last
    }

    /// The reason of the park that a wake would end.
    pub fn blocked_on(&self) -> Option<ReasonId> {
        match self.state {
            State::Blocked { park, .. } => park.reason,
            State::Unknown { .. } | State::Awake { .. } => None,
        }
    }

    /// A late event happens, for us, when the newest one did: spans never run backwards.
    fn clamp(&mut self, at: KtimeNs) -> KtimeNs {
        self.last = self.last.max(at);
        self.last
    }

    /// It calls gopark. True if a wake must have been lost: it was parked already.
    pub fn park(&mut self, at: KtimeNs, park: Park, sink: &mut impl FnMut(&Who, Span)) -> bool {
        let at = self.clamp(at);
        self.settle(at, Was::Running, sink);
        match self.state {
            // It ran until here, and nothing tells since when.
            State::Unknown { since } => {
                self.state = State::Blocked { since: at, park, before: Before::Unknown { since } };
                false
            }
            // It ran, or waited for a CPU, and now stops by itself.
            State::Awake { since } => {
                self.state = State::Blocked { since: at, park, before: Before::Awake { since } };
                false
            }
            // Only what runs can park: it was woken at some time between the two, and that wake is lost.
            State::Blocked { since, park: first, before } => {
                self.close_before(before, since, first.tid, sink);
                sink(&self.who, Span { state: SpanState::Unknown, ..self.blocked_span(since, at, &first) });
                self.state = State::Blocked { since: at, park, before: Before::Closed };
                true
            }
        }
    }

    /// The park did not happen: the unlock function said no, and it runs on as if it had never tried.
    pub fn park_abort(&mut self, at: KtimeNs, sink: &mut impl FnMut(&Who, Span)) {
        let at = self.clamp(at);
        self.settle(at, Was::Running, sink);
        match self.state {
            State::Blocked { before: Before::Awake { since }, .. } => self.state = State::Awake { since },
            // The park at least told that it ran then.
            State::Blocked { since: parked, before: Before::Unknown { since }, park } => {
                self.close_before(Before::Unknown { since }, parked, park.tid, sink);
                self.state = State::Awake { since: parked };
            }
            State::Blocked { since, before: Before::Closed, .. } => self.state = State::Awake { since },
            // The park itself was lost. It runs now.
            State::Unknown { since } => {
                self.emit(SpanState::Unknown, since, at, None, sink);
                self.state = State::Awake { since: at };
            }
            State::Awake { .. } => {}
        }
    }

    /// It is made runnable, `by` somebody.
    pub fn wake(&mut self, at: KtimeNs, by: WokenBy, sink: &mut impl FnMut(&Who, Span)) -> Woken {
        let at = self.clamp(at);
        self.settle(at, Was::Waiting, sink);
        match self.state {
            State::Blocked { since, park, before } => {
                self.close_before(before, since, park.tid, sink);
                sink(&self.who, Span { woken_by: Some(by), ..self.blocked_span(since, at, &park) });
                self.state = State::Awake { since: at };
                Woken::Park
            }
            // Whatever it waited for began before we could see it. From here on it is awake.
            State::Unknown { since } => {
                self.emit(SpanState::Unknown, since, at, None, sink);
                self.state = State::Awake { since: at };
                Woken::Stray
            }
            // Its park was lost, or it was preempted for a stack scan, which ends by a wake too. It is awake all the same.
            State::Awake { .. } => Woken::Stray,
        }
    }

    /// It ends by itself, on thread `tid`.
    pub fn exit(mut self, at: KtimeNs, tid: Tid, sink: &mut impl FnMut(&Who, Span)) -> (Who, KtimeNs) {
        let at = self.clamp(at);
        self.settle(at, Was::There, sink);
        match self.state {
            State::Unknown { since } => self.emit(SpanState::Unknown, since, at, Some(tid), sink),
            State::Awake { since } => self.emit(SpanState::Awake, since, at, Some(tid), sink),
            // Only what runs can exit: the wake is lost.
            State::Blocked { since, park, before } => {
                self.close_before(before, since, park.tid, sink);
                sink(&self.who, Span { state: SpanState::Unknown, ..self.blocked_span(since, at, &park) });
            }
        }
        (self.who, at)
    }

    /// The process or the recording ends while it lives: what it did, it did until then.
    pub fn cut(mut self, at: KtimeNs, sink: &mut impl FnMut(&Who, Span)) -> (Who, KtimeNs) {
        let at = self.clamp(at);
        self.settle(at, Was::There, sink);
        match self.state {
            State::Unknown { since } => self.emit(SpanState::Unknown, since, at, None, sink),
            State::Awake { since } => self.emit(SpanState::Awake, since, at, None, sink),
            State::Blocked { since, park, before } => {
                self.close_before(before, since, park.tid, sink);
                sink(&self.who, self.blocked_span(since, at, &park));
            }
        }
        (self.who, at)
    }

    /// Its exit was lost: by `at` it is gone, and since its last event nothing is known.
    pub fn gone(mut self, at: KtimeNs, sink: &mut impl FnMut(&Who, Span)) -> (Who, KtimeNs) {
        let (known, at) = (self.last, self.clamp(at));
        self.settle(at, Was::There, sink);
        match self.state {
            State::Unknown { since } => self.emit(SpanState::Unknown, since, at, None, sink),
            State::Awake { since } => {
                self.emit(SpanState::Awake, since, known, None, sink);
                self.emit(SpanState::Unknown, known, at, None, sink);
            }
            State::Blocked { since, park, before } => {
                self.close_before(before, since, park.tid, sink);
                sink(&self.who, Span { state: SpanState::Unknown, ..self.blocked_span(since, at, &park) });
            }
        }
        (self.who, at)
    }

    fn close_before(&self, before: Before, parked: KtimeNs, tid: Option<Tid>, sink: &mut impl FnMut(&Who, Span)) {
        match before {
            Before::Unknown { since } => self.emit(SpanState::Unknown, since, parked, tid, sink),
            Before::Awake { since } => self.emit(SpanState::Awake, since, parked, tid, sink),
            Before::Closed => {}
        }
    }

    /// A span without a park. One of no length says nothing and is left out.
    fn emit(&self, state: SpanState, start: KtimeNs, end: KtimeNs, tid: Option<Tid>, sink: &mut impl FnMut(&Who, Span)) {
        if start < end {
            let span = Span { state, start, end, reason: None, stack: None, object: None, woken_by: None, tid };
            sink(&self.who, span);
        }
    }

    fn blocked_span(&self, start: KtimeNs, end: KtimeNs, park: &Park) -> Span {
        Span {
            state: SpanState::Blocked,
            start,
            end,
            reason: park.reason,
            stack: park.stack,
            object: park.object,
            woken_by: None,
            tid: park.tid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARK: super::Park = super::Park { reason: Some(ReasonId(0)), stack: Some(StackId(9)), object: None, tid: Some(Tid(7)) };

    #[derive(Clone, Copy)]
    enum Step {
        Park(u64),
        Abort(u64),
        Wake(u64),
        Exit(u64),
        Cut(u64),
        Gone(u64),
    }
    use Step::*;

    const ORIGIN: Origin = Origin { parent: None, gopc: Address(1), startpc: Address(2), stack: None };

    /// Runs a goroutine through steps; spans as `state start-end`.
    fn run(born: bool, steps: &[Step]) -> Vec<String> {
        run_from(
            if born {
                Goroutine::born(ImageId(0), Goid(1), KtimeNs(10), ORIGIN)
            } else {
                Goroutine::met(ImageId(0), Goid(1), KtimeNs(10))
            },
            steps,
        )
    }

    fn run_from(goroutine: Goroutine, steps: &[Step]) -> Vec<String> {
        let mut goroutine = Some(goroutine);
        let mut spans = Vec::new();
        let mut sink = |_: &Who, span: Span| {
            spans.push(format!("{} {}-{}", format!("{:?}", span.state).to_lowercase(), span.start.0, span.end.0));
        };
        for step in steps {
            let live = goroutine.as_mut().expect("alive");
            match *step {
                Park(at) => drop(live.park(KtimeNs(at), PARK, &mut sink)),
                Abort(at) => live.park_abort(KtimeNs(at), &mut sink),
                Wake(at) => drop(live.wake(KtimeNs(at), WokenBy::Unknown, &mut sink)),
                Exit(at) => drop(goroutine.take().unwrap().exit(KtimeNs(at), Tid(1), &mut sink)),
                Cut(at) => drop(goroutine.take().unwrap().cut(KtimeNs(at), &mut sink)),
                Gone(at) => drop(goroutine.take().unwrap().gone(KtimeNs(at), &mut sink)),
            }
        }
        spans
    }

    /// Check what each sequence of events says, lost ones included.
    #[test]
    fn lives() {
        let cases: &[(&str, bool, &[Step], &[&str])] = &[
            ("a whole life", true, &[Park(20), Wake(30), Exit(40)], &["awake 10-20", "blocked 20-30", "awake 30-40"]),
            ("an aborted park never was", true, &[Park(20), Abort(21), Exit(40)], &["awake 10-40"]),
            (
                "a lost wake",
                true,
                &[Park(20), Park(30), Wake(35), Exit(40)],
                &["awake 10-20", "unknown 20-30", "blocked 30-35", "awake 35-40"],
            ),
            (
                "a lost wake before an aborted park",
                true,
                &[Park(20), Park(30), Abort(31), Exit(40)],
                &["awake 10-20", "unknown 20-30", "awake 30-40"],
            ),
            ("a lost park", true, &[Wake(30), Exit(40)], &["awake 10-40"]),
            ("exit while blocked: the wake is lost", true, &[Park(20), Exit(40)], &["awake 10-20", "unknown 20-40"]),
            ("met parking", false, &[Park(20), Wake(30), Cut(40)], &["unknown 10-20", "blocked 20-30", "awake 30-40"]),
            ("met waking", false, &[Wake(30), Cut(40)], &["unknown 10-30", "awake 30-40"]),
            ("met exiting", false, &[Exit(30)], &["unknown 10-30"]),
            ("met in an aborted park", false, &[Park(20), Abort(22), Exit(30)], &["unknown 10-20", "awake 20-30"]),
            ("met by an abort whose park was lost", false, &[Abort(22), Exit(30)], &["unknown 10-22", "awake 22-30"]),
            ("blocked until the end", true, &[Park(20), Cut(90)], &["awake 10-20", "blocked 20-90"]),
            (
                "a lost exit of one that was awake",
                true,
                &[Park(20), Wake(30), Gone(90)],
                &["awake 10-20", "blocked 20-30", "unknown 30-90"],
            ),
            ("a lost exit of one that was blocked", true, &[Park(20), Gone(90)], &["awake 10-20", "unknown 20-90"]),
            (
                "a late wake cannot run backwards",
                true,
                &[Park(20), Wake(15), Exit(40)],
                &["awake 10-20", "blocked 20-20", "awake 20-40"],
            ),
        ];
        for (name, born, steps, spans) in cases {
            assert_eq!(run(*born, steps), *spans, "{name}");
        }
    }

    /// Check what is made of a goroutine that was read out of memory between 20 and 30, waiting or not, by its first event.
    #[test]
    fn found_in_memory() {
        let cases: &[(&str, bool, &[Step], &[&str])] = &[
            ("woken later", true, &[Wake(40), Cut(50)], &["unknown 10-20", "blocked 20-40", "awake 40-50"]),
            ("woken while it was read", true, &[Wake(25), Cut(50)], &["unknown 10-20", "blocked 20-25", "awake 25-50"]),
            ("waits to the end", true, &[Cut(50)], &["unknown 10-20", "blocked 20-50"]),
            (
                "parked before it was looked at",
                true,
                &[Park(25), Wake(40), Cut(50)],
                &["unknown 10-20", "awake 20-25", "blocked 25-40", "awake 40-50"],
            ),
            ("a lost wake", true, &[Park(40), Cut(50)], &["unknown 10-20", "unknown 20-40", "blocked 40-50"]),
            ("ran", false, &[Park(40), Cut(50)], &["unknown 10-20", "awake 20-40", "blocked 40-50"]),
            (
                "ran after a wake that came before it was looked at",
                false,
                &[Wake(25), Cut(50)],
                &["unknown 10-20", "unknown 20-25", "awake 25-50"],
            ),
            ("ended after it was looked at", false, &[Exit(25)], &["unknown 10-20", "awake 20-25"]),
            (
                "woken and ended after it was looked at",
                true,
                &[Wake(22), Exit(25)],
                &["unknown 10-20", "blocked 20-22", "awake 22-25"],
            ),
        ];
        for (name, waits, steps, spans) in cases {
            let who = Who { image: ImageId(0), goid: Goid(1), born_at: None, origin: Some(ORIGIN), since: KtimeNs(10) };
            let found = Goroutine::found(who, KtimeNs(20), KtimeNs(30), waits.then_some(PARK));
            assert_eq!(run_from(found, steps), *spans, "{name}");
        }
    }
}
