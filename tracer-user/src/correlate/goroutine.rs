//! The life of one goroutine: a pure state machine over its events, time passed in.
//!
//! Any event can be lost. `Unknown` is a state of its own: what happened before the first event, or while a wake or an
//! exit got lost, is said to be unknown and never filled in.
//!
//! With parks and wakes alone (T2), what does not wait is `Awake`. With every change of state (T3) it is `Runnable`, `Running`
//! or in a `Syscall`, and an event that does not fit the state is one behind another that was lost.

use crate::{
    clock::KtimeNs,
    event::Transition,
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
    /// Its place in the tree of creation: 0 for main and for those whose parent is not known, else one more than its parent's.
    pub depth: u32,
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
    /// Anything but `Blocked`.
    Open(Open),
    /// Parked; `before` is what it did until then, kept open because the park may be taken back. `None`: that span was closed.
    Blocked { since: KtimeNs, park: Park, before: Option<Open> },
}

/// A span that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Open {
    state: SpanState,
    since: KtimeNs,
    /// Where it goes on, or where it entered the system call.
    stack: Option<StackId>,
}

/// An event that is still to come and says nothing new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Echo {
    /// A park was taken back: the goroutine is made to run although it never stopped.
    Run,
    /// It was preempted for a look at its stack: it is made runnable although it did not wait.
    Wake,
}

/// What an event shows to have been lost before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    Wake,
    /// Some other change of state.
    Transition,
}

impl Repair {
    /// The name used in outputs (`repairs.by_kind`).
    pub fn name(self) -> &'static str {
        match self {
            Self::Wake => "lost_wake",
            Self::Transition => "lost_transition",
        }
    }
}

/// How a goroutine's life begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// Parks and wakes are all that is seen of it.
    Awake,
    /// It is queued to run.
    Runnable,
    /// A coroutine: it waits to be switched to.
    Waiting(Park),
}

/// A change of state as the event told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub transition: Transition,
    /// Where it stopped, on which thread; with the reason, if it waits now.
    pub park: Park,
    /// Who switched to a coroutine.
    pub by: Option<WokenBy>,
}

/// One goroutine that lives.
#[derive(Clone, Debug)]
pub struct Goroutine {
    pub who: Who,
    /// The newest event: nothing of it may lie before that.
    last: KtimeNs,
    state: State,
    /// Every change of its state is told (T3).
    scheduling: bool,
    echo: Option<Echo>,
    /// Its state was read out of memory, and no event of it has come since.
    found: Option<Found>,
}

/// When a memory was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    from: KtimeNs,
    until: KtimeNs,
}

/// What a goroutine did when the memory was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Blocked(Park),
    /// Not [`SpanState::Blocked`].
    Open(SpanState),
}

impl Goroutine {
    /// Born under our eyes.
    pub fn born(who: Who, first: First) -> Self {
        let since = who.since;
        let open = |state| State::Open(Open { state, since, stack: None });
        let state = match first {
            First::Awake => open(SpanState::Awake),
            First::Runnable => open(SpanState::Runnable),
            First::Waiting(park) => State::Blocked { since, park, before: None },
        };
        Self { who, last: since, state, scheduling: first != First::Awake, echo: None, found: None }
    }

    /// Met by another event than its birth; nothing is known of it since `since`.
    pub fn met(image: ImageId, goid: Goid, since: KtimeNs, scheduling: bool) -> Self {
        let who = Who { image, goid, born_at: None, origin: None, since, depth: 0 };
        let state = State::Open(Open { state: SpanState::Unknown, since, stack: None });
        Self { who, last: since, state, scheduling, echo: None, found: None }
    }

    /// Read out of its process's memory between `from` and `until`: it lived before, and nothing is known of that.
    pub fn found(who: Who, (from, until): (KtimeNs, KtimeNs), seen: Seen, scheduling: bool) -> Self {
        let state = match seen {
            Seen::Blocked(park) => State::Blocked { since: from, park, before: None },
            Seen::Open(state) => State::Open(Open { state, since: from, stack: None }),
        };
        Self { who, last: from, state, scheduling, echo: None, found: Some(Found { from, until }) }
    }

    /// Whether nothing but a look at the memory tells of it.
    pub fn is_only_found(&self) -> bool {
        self.found.is_some()
    }

    /// The memory told where one comes from whose birth was not seen.
    pub fn identify(&mut self, origin: Origin) {
        self.who.origin.get_or_insert(origin);
    }

    /// The first event, `at`, of one that was found decides what the memory said of it: that was read somewhen between two times.
    /// If the event says that until then it did something else, and came before the reading ended, it was read afterwards.
    fn settle(&mut self, at: KtimeNs, did: Option<SpanState>, sink: &mut impl FnMut(&Who, Span)) {
        let Some(Found { from, until }) = self.found.take() else { return };
        let past = Open { state: SpanState::Unknown, since: self.who.since, stack: None };
        self.emit(past, from, None, sink);
        let Some(did) = did.filter(|_| at <= until) else { return };
        let read = match self.state {
            State::Blocked { .. } => SpanState::Blocked,
            State::Open(open) => open.state,
        };
        if read != did {
            // Why it had blocked is not known.
            let did = if did == SpanState::Blocked { SpanState::Unknown } else { did };
            self.begin(did, from, None);
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
            State::Open(_) => None,
        }
    }

    /// A late event happens, for us, when the newest one did: spans never run backwards.
    fn clamp(&mut self, at: KtimeNs) -> KtimeNs {
        self.last = self.last.max(at);
        self.last
    }

    /// What a goroutine on a thread is said to do.
    fn running(&self) -> SpanState {
        if self.scheduling { SpanState::Running } else { SpanState::Awake }
    }

    fn begin(&mut self, state: SpanState, since: KtimeNs, stack: Option<StackId>) {
        self.state = State::Open(Open { state, since, stack });
    }

    /// It calls gopark: it ran until here.
    pub fn park(&mut self, at: KtimeNs, park: Park, sink: &mut impl FnMut(&Who, Span)) -> Option<Repair> {
        let at = self.clamp(at);
        self.settle(at, Some(self.running()), sink);
        self.echo = None;
        match self.state {
            State::Open(open) if open.state == SpanState::Unknown || open.state == self.running() => {
                self.state = State::Blocked { since: at, park, before: Some(open) };
                None
            }
            // Only what runs can park: what made it run is lost.
            _ => {
                let lost = self.close(at, self.running(), None, park.tid, sink);
                self.state = State::Blocked { since: at, park, before: None };
                lost
            }
        }
    }

    /// The park did not happen: the unlock function said no, and it runs on as if it had never tried.
    pub fn park_abort(&mut self, at: KtimeNs, sink: &mut impl FnMut(&Who, Span)) {
        let at = self.clamp(at);
        self.settle(at, None, sink);
        self.echo = self.scheduling.then_some(Echo::Run);
        match self.state {
            // The park at least told that it ran then.
            State::Blocked { since: parked, before: Some(open), park } if open.state == SpanState::Unknown => {
                self.emit(open, parked, park.tid, sink);
                self.begin(self.running(), parked, None);
            }
            State::Blocked { before: Some(open), .. } => self.state = State::Open(open),
            State::Blocked { since, before: None, .. } => self.begin(self.running(), since, None),
            // The park itself was lost.
            State::Open(open) if open.state == self.running() => {}
            State::Open(open) => {
                self.emit(Open { state: SpanState::Unknown, ..open }, at, None, sink);
                self.begin(self.running(), at, None);
            }
        }
    }

    /// It is made runnable, `by` somebody.
    pub fn wake(&mut self, at: KtimeNs, by: WokenBy, sink: &mut impl FnMut(&Who, Span)) -> Option<Repair> {
        let at = self.clamp(at);
        self.settle(at, Some(SpanState::Blocked), sink);
        let echo = self.echo.take();
        let (stack, lost) = match self.state {
            State::Blocked { park, .. } => (park.stack, self.close(at, SpanState::Blocked, Some(by), None, sink)),
            // Whatever it waited for began before we could see it.
            State::Open(open) if open.state == SpanState::Unknown => {
                self.emit(open, at, None, sink);
                (None, None)
            }
            // Its park was lost, or it was preempted for a stack scan, which ends by a wake too. It is awake all the same.
            State::Open(open) if open.state == SpanState::Awake => return None,
            State::Open(open) if open.state == SpanState::Runnable && echo == Some(Echo::Wake) => return None,
            // Its park is lost.
            State::Open(_) => (None, self.close(at, SpanState::Blocked, Some(by), None, sink)),
        };
        match self.scheduling {
            true => self.begin(SpanState::Runnable, at, stack),
            false => self.begin(SpanState::Awake, at, None),
        }
        lost
    }

    /// Another change of its state.
    pub fn transition(&mut self, at: KtimeNs, step: Step, sink: &mut impl FnMut(&Who, Span)) -> Option<Repair> {
        use SpanState::{Blocked, Runnable, Running, Syscall, Unknown};
        let at = self.clamp(at);
        let echo = self.echo.take();
        let Step { transition, park, by } = step;
        let (from, to) = match transition {
            Transition::Run if echo == Some(Echo::Run) && self.is(Running) => return None,
            Transition::Run => (Runnable, Running),
            Transition::Yield | Transition::Preempt => (Running, Runnable),
            Transition::Syscall => (Running, Syscall),
            Transition::SyscallExit => (Syscall, Running),
            Transition::SyscallExitQueued => (Syscall, Runnable),
            Transition::CoroutineStop => (Running, Blocked),
            Transition::CoroutineRun => (Blocked, Running),
            Transition::ThreadAttach => (Unknown, Syscall),
            Transition::ThreadDetach => (Syscall, Unknown),
        };
        self.settle(at, Some(from), sink);
        let stack = match self.state {
            State::Open(open) if transition == Transition::SyscallExitQueued => open.stack,
            _ => park.stack,
        };
        let lost = self.close(at, from, by, park.tid, sink);
        match to {
            Blocked => self.state = State::Blocked { since: at, park, before: None },
            _ => self.begin(to, at, stack),
        }
        if transition == Transition::Preempt {
            self.echo = Some(Echo::Wake);
        }
        lost
    }

    fn is(&self, state: SpanState) -> bool {
        matches!(self.state, State::Open(open) if open.state == state)
    }

    /// It ends by itself, on thread `tid`.
    pub fn exit(mut self, at: KtimeNs, tid: Tid, sink: &mut impl FnMut(&Who, Span)) -> (Who, KtimeNs, Option<Repair>) {
        let at = self.clamp(at);
        self.settle(at, None, sink);
        let lost = self.close(at, self.running(), None, Some(tid), sink);
        (self.who, at, lost)
    }

    /// The process or the recording ends while it lives: what it did, it did until then.
    pub fn cut(mut self, at: KtimeNs, sink: &mut impl FnMut(&Who, Span)) -> (Who, KtimeNs) {
        let at = self.clamp(at);
        self.settle(at, None, sink);
        match self.state {
            State::Open(open) => self.emit(open, at, None, sink),
            State::Blocked { .. } => _ = self.close(at, SpanState::Blocked, None, None, sink),
        }
        (self.who, at)
    }

    /// Its exit was lost: by `at` it is gone, and since its last event nothing is known.
    pub fn gone(mut self, at: KtimeNs, sink: &mut impl FnMut(&Who, Span)) -> (Who, KtimeNs) {
        let (known, at) = (self.last, self.clamp(at));
        self.settle(at, None, sink);
        match self.state {
            State::Open(open) => {
                self.emit(open, known, None, sink);
                self.emit(Open { state: SpanState::Unknown, since: known.max(open.since), stack: None }, at, None, sink);
            }
            State::Blocked { .. } => _ = self.close(at, SpanState::Unknown, None, None, sink),
        }
        (self.who, at)
    }

    /// Ends what it did, given that an event `at` says that until then it did `expected`. Where that is not what was known of it,
    /// an event was lost, and the span is unknown.
    fn close(
        &self,
        at: KtimeNs,
        expected: SpanState,
        by: Option<WokenBy>,
        tid: Option<Tid>,
        sink: &mut impl FnMut(&Who, Span),
    ) -> Option<Repair> {
        match self.state {
            State::Open(open) if open.state == expected || open.state == SpanState::Unknown => {
                self.emit(open, at, tid, sink);
                None
            }
            State::Open(open) => {
                self.emit(Open { state: SpanState::Unknown, ..open }, at, tid, sink);
                Some(Repair::Transition)
            }
            State::Blocked { since, park, before } => {
                if let Some(before) = before {
                    self.emit(before, since, park.tid, sink);
                }
                let span = self.blocked_span(since, at, &park);
                if expected == SpanState::Blocked {
                    sink(&self.who, Span { woken_by: by, ..span });
                    return None;
                }
                sink(&self.who, Span { state: SpanState::Unknown, ..span });
                Some(Repair::Wake)
            }
        }
    }

    /// A span without a park. One of no length says nothing and is left out.
    fn emit(&self, open: Open, end: KtimeNs, tid: Option<Tid>, sink: &mut impl FnMut(&Who, Span)) {
        let Open { state, since: start, stack } = open;
        if start < end {
            let stack = stack.filter(|_| state != SpanState::Unknown);
            // What waits for a CPU is on no thread.
            let tid = tid.filter(|_| state != SpanState::Runnable);
            let span = Span { state, start, end, reason: None, stack, object: None, woken_by: None, tid };
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
    enum Happens {
        Park(u64),
        Abort(u64),
        Wake(u64),
        Exit(u64),
        Cut(u64),
        Gone(u64),
        Change(Transition, u64),
    }
    use Happens::*;

    /// Runs a goroutine through events; spans as `state start-end`, behind them what was lost.
    fn run(first: Option<First>, scheduling: bool, events: &[Happens]) -> Vec<String> {
        run_from(
            match first {
                Some(first) => Goroutine::born(who(), first),
                None => Goroutine::met(who().image, who().goid, who().since, scheduling),
            },
            events,
        )
    }

    fn who() -> Who {
        let (image, goid, since) = (ImageId(0), Goid(1), KtimeNs(10));
        let origin = Origin { parent: None, gopc: Address(1), startpc: Address(2), stack: None };
        Who { image, goid, born_at: Some(since), origin: Some(origin), since, depth: 0 }
    }

    fn run_from(goroutine: Goroutine, events: &[Happens]) -> Vec<String> {
        let mut goroutine = Some(goroutine);
        let mut repairs = Vec::new();
        let mut spans = Vec::new();
        let mut sink = |_: &Who, span: Span| {
            spans.push(format!("{} {}-{}", format!("{:?}", span.state).to_lowercase(), span.start.0, span.end.0));
        };
        for event in events {
            let live = goroutine.as_mut().expect("alive");
            repairs.extend(match *event {
                Park(at) => live.park(KtimeNs(at), PARK, &mut sink),
                Abort(at) => {
                    live.park_abort(KtimeNs(at), &mut sink);
                    None
                }
                Wake(at) => live.wake(KtimeNs(at), WokenBy::Unknown, &mut sink),
                Change(transition, at) => live.transition(KtimeNs(at), Step { transition, park: PARK, by: None }, &mut sink),
                Exit(at) => goroutine.take().unwrap().exit(KtimeNs(at), Tid(1), &mut sink).2,
                Cut(at) => {
                    goroutine.take().unwrap().cut(KtimeNs(at), &mut sink);
                    None
                }
                Gone(at) => {
                    goroutine.take().unwrap().gone(KtimeNs(at), &mut sink);
                    None
                }
            });
        }
        spans.extend(repairs.iter().map(|repair| repair.name().to_owned()));
        spans
    }

    /// Check what each sequence of events says, lost ones included.
    #[test]
    fn lives() {
        let cases: &[(&str, bool, &[Happens], &[&str])] = &[
            ("a whole life", true, &[Park(20), Wake(30), Exit(40)], &["awake 10-20", "blocked 20-30", "awake 30-40"]),
            ("an aborted park never was", true, &[Park(20), Abort(21), Exit(40)], &["awake 10-40"]),
            (
                "a lost wake",
                true,
                &[Park(20), Park(30), Wake(35), Exit(40)],
                &["awake 10-20", "unknown 20-30", "blocked 30-35", "awake 35-40", "lost_wake"],
            ),
            (
                "a lost wake before an aborted park",
                true,
                &[Park(20), Park(30), Abort(31), Exit(40)],
                &["awake 10-20", "unknown 20-30", "awake 30-40", "lost_wake"],
            ),
            ("a lost park", true, &[Wake(30), Exit(40)], &["awake 10-40"]),
            ("exit while blocked: the wake is lost", true, &[Park(20), Exit(40)], &["awake 10-20", "unknown 20-40", "lost_wake"]),
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
            assert_eq!(run(born.then_some(First::Awake), false, steps), *spans, "{name}");
        }
    }

    /// Check the same where every change of state is told: what each says, and what is said of one that is missing.
    #[test]
    fn scheduled_lives() {
        use Transition::*;
        let run_at = |at| Change(Run, at);
        let cases: &[(&str, &[Happens], &[&str])] = &[
            (
                "a whole life",
                &[run_at(12), Park(20), Wake(30), run_at(33), Exit(40)],
                &["runnable 10-12", "running 12-20", "blocked 20-30", "runnable 30-33", "running 33-40"],
            ),
            (
                "an aborted park, and the run that follows it",
                &[run_at(12), Park(20), Abort(21), run_at(21), Exit(40)],
                &["runnable 10-12", "running 12-40"],
            ),
            (
                "an aborted park whose run was lost",
                &[run_at(12), Park(20), Abort(21), Change(Yield, 30), run_at(31), Exit(40)],
                &["runnable 10-12", "running 12-30", "runnable 30-31", "running 31-40"],
            ),
            (
                "a yield",
                &[run_at(12), Change(Yield, 20), run_at(25), Cut(40)],
                &["runnable 10-12", "running 12-20", "runnable 20-25", "running 25-40"],
            ),
            (
                "preempted: runnable, not blocked",
                &[run_at(12), Change(Preempt, 20), Wake(22), run_at(25), Cut(40)],
                &["runnable 10-12", "running 12-20", "runnable 20-25", "running 25-40"],
            ),
            (
                "preempted, the wake lost",
                &[run_at(12), Change(Preempt, 20), run_at(25), Cut(40)],
                &["runnable 10-12", "running 12-20", "runnable 20-25", "running 25-40"],
            ),
            (
                "system calls, with and without a processor behind them",
                &[
                    run_at(12),
                    Change(Syscall, 20),
                    Change(SyscallExit, 22),
                    Change(Syscall, 24),
                    Change(SyscallExitQueued, 28),
                    run_at(30),
                    Exit(40),
                ],
                &[
                    "runnable 10-12",
                    "running 12-20",
                    "syscall 20-22",
                    "running 22-24",
                    "syscall 24-28",
                    "runnable 28-30",
                    "running 30-40",
                ],
            ),
            (
                "a coroutine's caller",
                &[run_at(12), Change(CoroutineStop, 20), Change(CoroutineRun, 25), Exit(40)],
                &["runnable 10-12", "running 12-20", "blocked 20-25", "running 25-40"],
            ),
            (
                "the run is lost",
                &[Park(20), Wake(30), Cut(40)],
                &["unknown 10-20", "blocked 20-30", "runnable 30-40", "lost_transition"],
            ),
            (
                "the park is lost",
                &[run_at(12), Wake(30), Cut(40)],
                &["runnable 10-12", "unknown 12-30", "runnable 30-40", "lost_transition"],
            ),
            (
                "the wake is lost",
                &[run_at(12), Park(20), run_at(30), Cut(40)],
                &["runnable 10-12", "running 12-20", "unknown 20-30", "running 30-40", "lost_wake"],
            ),
            (
                "the yield is lost",
                &[run_at(12), run_at(30), Cut(40)],
                &["runnable 10-12", "unknown 12-30", "running 30-40", "lost_transition"],
            ),
            (
                "the return from a system call is lost",
                &[run_at(12), Change(Syscall, 20), Park(30), Cut(40)],
                &["runnable 10-12", "running 12-20", "unknown 20-30", "blocked 30-40", "lost_transition"],
            ),
            (
                "the entry into a system call is lost",
                &[run_at(12), Change(SyscallExit, 20), Cut(40)],
                &["runnable 10-12", "unknown 12-20", "running 20-40", "lost_transition"],
            ),
            (
                "the switch away from a coroutine is lost",
                &[run_at(12), Change(CoroutineRun, 20), Cut(40)],
                &["runnable 10-12", "unknown 12-20", "running 20-40", "lost_transition"],
            ),
            (
                "the switch to a coroutine is lost",
                &[run_at(12), Change(CoroutineStop, 20), Exit(40)],
                &["runnable 10-12", "running 12-20", "unknown 20-40", "lost_wake"],
            ),
            ("exit while runnable: the run is lost", &[Exit(40)], &["unknown 10-40", "lost_transition"]),
            ("a lost exit", &[run_at(12), Gone(40)], &["runnable 10-12", "unknown 12-40"]),
        ];
        for (name, events, spans) in cases {
            assert_eq!(run(Some(First::Runnable), true, events), *spans, "{name}");
        }
    }

    /// Check a coroutine's life, which begins waiting, and a C thread's goroutine, whose birth nobody sees.
    #[test]
    fn lives_that_begin_otherwise() {
        use Transition::*;
        assert_eq!(
            run(Some(First::Waiting(PARK)), true, &[Change(CoroutineRun, 20), Change(CoroutineStop, 30), Cut(40)]),
            ["blocked 10-20", "running 20-30", "blocked 30-40"]
        );
        let thread = [Change(ThreadAttach, 20), Change(SyscallExit, 21), Change(Syscall, 30), Change(ThreadDetach, 31), Cut(40)];
        assert_eq!(
            run(None, true, &thread),
            ["unknown 10-20", "syscall 20-21", "running 21-30", "syscall 30-31", "unknown 31-40"]
        );
        assert_eq!(run(None, true, &[Wake(20), Change(Run, 25), Cut(40)]), ["unknown 10-20", "runnable 20-25", "running 25-40"]);
    }

    fn found(seen: Seen, scheduling: bool) -> Goroutine {
        Goroutine::found(Who { born_at: None, ..who() }, (KtimeNs(20), KtimeNs(30)), seen, scheduling)
    }

    /// Check what is made of a goroutine that was read out of memory between 20 and 30, waiting or not, by its first event.
    #[test]
    fn found_in_memory() {
        let cases: &[(&str, bool, &[Happens], &[&str])] = &[
            ("woken later", true, &[Wake(40), Cut(50)], &["unknown 10-20", "blocked 20-40", "awake 40-50"]),
            ("woken while it was read", true, &[Wake(25), Cut(50)], &["unknown 10-20", "blocked 20-25", "awake 25-50"]),
            ("waits to the end", true, &[Cut(50)], &["unknown 10-20", "blocked 20-50"]),
            (
                "parked before it was looked at",
                true,
                &[Park(25), Wake(40), Cut(50)],
                &["unknown 10-20", "awake 20-25", "blocked 25-40", "awake 40-50"],
            ),
            ("a lost wake", true, &[Park(40), Cut(50)], &["unknown 10-20", "unknown 20-40", "blocked 40-50", "lost_wake"]),
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
        for (name, waits, events, spans) in cases {
            let seen = if *waits { Seen::Blocked(PARK) } else { Seen::Open(SpanState::Awake) };
            assert_eq!(run_from(found(seen, false), events), *spans, "{name}");
        }
    }

    /// Check the same where every change of state is told.
    #[test]
    fn found_in_memory_scheduled() {
        use Transition::*;
        let cases: &[(&str, SpanState, &[Happens], &[&str])] = &[
            (
                "read after it had begun to run",
                SpanState::Running,
                &[Change(Run, 25), Cut(50)],
                &["unknown 10-20", "runnable 20-25", "running 25-50"],
            ),
            (
                "read before it began to run",
                SpanState::Runnable,
                &[Change(Run, 25), Cut(50)],
                &["unknown 10-20", "runnable 20-25", "running 25-50"],
            ),
            (
                "read in a system call that it came out of later",
                SpanState::Syscall,
                &[Change(SyscallExit, 40), Cut(50)],
                &["unknown 10-20", "syscall 20-40", "running 40-50"],
            ),
            (
                "the run is lost",
                SpanState::Runnable,
                &[Park(40), Cut(50)],
                &["unknown 10-20", "unknown 20-40", "blocked 40-50", "lost_transition"],
            ),
        ];
        for (name, state, events, spans) in cases {
            assert_eq!(run_from(found(Seen::Open(*state), true), events), *spans, "{name}");
        }
    }
}
