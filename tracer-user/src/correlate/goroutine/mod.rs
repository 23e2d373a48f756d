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
mod tests;
