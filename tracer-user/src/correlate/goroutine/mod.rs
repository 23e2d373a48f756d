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
    recording::contract::Tier,
};

use super::{ImageId, LabelsId, ReasonId, Span, SpanState, WokenBy};

mod look;
mod spans;

use look::Found;
pub use look::{Look, LookedAt, Seen};

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
    /// It was born while its process was followed, and that was lost: a look at the process found it by then.
    pub born_by: Option<KtimeNs>,
    /// `None`: it lived before the recording, or its birth was lost.
    pub origin: Option<Origin>,
    /// A look at its process told of `origin`, where an event should have.
    pub origin_by_look: bool,
    /// Of `born_by`: no probe was there to tell of the birth.
    pub unseen: bool,
    /// Birth, or the earliest time of which anything can be said (then its life begins in `Unknown`).
    pub since: KtimeNs,
    /// Its place in the tree of creation: 0 for main and for those whose parent is not known, else one more than its parent's.
    pub depth: u32,
    /// A number that no other living goroutine of its image has: for whoever keeps something of each. It is used again once its life has
    /// been told.
    pub slot: u32,
}

/// Where goroutines are made and what they run; both `None` where the birth was not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteKey {
    pub image: ImageId,
    pub gopc: Option<Address>,
    pub startpc: Option<Address>,
}

impl SiteKey {
    pub fn of(who: &Who) -> Self {
        let origin = who.origin.as_ref();
        Self { image: who.image, gopc: origin.map(|origin| origin.gopc), startpc: origin.map(|origin| origin.startpc) }
    }
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
    Blocked { since: KtimeNs, park: Park, before: Option<Open>, by_look: bool },
}

/// A span that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Open {
    state: SpanState,
    since: KtimeNs,
    /// Where it goes on, or where it entered the system call.
    stack: Option<StackId>,
    /// Events told otherwise, and two looks at the process contradicted them.
    by_look: bool,
}

impl State {
    fn open(state: SpanState, since: KtimeNs) -> Self {
        Self::Open(Open { state, since, stack: None, by_look: false })
    }

    fn blocked(since: KtimeNs, park: Park, before: Option<Open>) -> Self {
        Self::Blocked { since, park, before, by_look: false }
    }
}

impl Open {
    fn unknown(since: KtimeNs) -> Self {
        Self { state: SpanState::Unknown, since, stack: None, by_look: false }
    }
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
    /// What two looks at the process found it to do, and no event told.
    State,
}

impl Repair {
    /// The name used in outputs (`repairs.by_kind`).
    pub fn name(self) -> &'static str {
        match self {
            Self::Wake => "lost_wake",
            Self::Transition => "lost_transition",
            Self::State => "state_by_snapshot",
        }
    }
}

/// A life that is over, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parting {
    pub who: Who,
    pub ended_at: KtimeNs,
    /// When it was last known to live.
    pub last_known: KtimeNs,
    /// What the newest look told.
    pub looked_at: LookedAt,
    pub lost: Option<Repair>,
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

/// What a goroutine does, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doing {
    pub state: SpanState,
    pub since: KtimeNs,
    /// A look found it so, and no event tells since when: `since` is when it was looked at.
    pub by_look: bool,
    pub reason: Option<ReasonId>,
    /// Where it waits, stopped, or entered the system call.
    pub stack: Option<StackId>,
    pub object: Option<Address>,
    /// The thread that it ran on before.
    pub tid: Option<Tid>,
    /// Where that span is not closed yet, for the wait may be taken back: what it did before, and since when.
    pub before: Option<(SpanState, KtimeNs)>,
}

/// One goroutine that lives.
#[derive(Clone, Debug)]
pub struct Goroutine {
    pub who: Who,
    /// The newest event: nothing of it may lie before that.
    last: KtimeNs,
    state: State,
    /// What probes tell of it.
    tier: Tier,
    echo: Option<Echo>,
    /// Its state was read out of memory, and no event of it has come since.
    found: Option<Found>,
    /// What looks at its process said of it.
    looks: look::Looks,
    labels: Option<LabelsId>,
}

impl Goroutine {
    /// Born under our eyes.
    pub fn born(who: Who, first: First, tier: Tier) -> Self {
        let since = who.since;
        let state = match first {
            First::Awake => State::open(SpanState::Awake, since),
            First::Runnable => State::open(SpanState::Runnable, since),
            First::Waiting(park) => State::blocked(since, park, None),
        };
        Self::new(who, since, state, tier)
    }

    /// Met by another event than its birth; nothing is known of it since `since`.
    pub fn met(image: ImageId, goid: Goid, since: KtimeNs, tier: Tier) -> Self {
        let who = Who {
            image,
            goid,
            born_at: None,
            born_by: None,
            origin: None,
            origin_by_look: false,
            unseen: false,
            since,
            depth: 0,
            slot: 0,
        };
        Self::new(who, since, State::open(SpanState::Unknown, since), tier)
    }

    fn new(who: Who, last: KtimeNs, state: State, tier: Tier) -> Self {
        Self { who, last, state, tier, echo: None, found: None, looks: look::Looks::default(), labels: None }
    }

    /// The memory told where one comes from whose birth was not seen. Whether that was news.
    pub fn identify(&mut self, origin: Origin) -> bool {
        // Who tells of itself does not always tell what it began with.
        let better = self.who.origin.is_none_or(|known| known.startpc.0 == 0 && origin.startpc.0 != 0);
        let news = self.who.origin.is_none();
        if better {
            self.who.origin = Some(origin);
        }
        news
    }

    /// Its labels are these from now on. Whether that was news.
    pub fn label(&mut self, labels: LabelsId) -> bool {
        self.labels.replace(labels) != Some(labels)
    }

    /// What it does now, as far as is known.
    pub fn doing(&self) -> Doing {
        let by_look = self.found.is_some();
        match self.state {
            State::Open(Open { state, since, stack, .. }) => {
                Doing { state, since, by_look, reason: None, stack, object: None, tid: None, before: None }
            }
            State::Blocked { since, park: Park { reason, stack, object, tid }, before, .. } => {
                let before = before.map(|open| (open.state, open.since)).filter(|(_, began)| *began < since);
                Doing { state: SpanState::Blocked, since, by_look, reason, stack, object, tid, before }
            }
        }
    }

    /// The newest labels that were seen on it.
    pub fn labels(&self) -> Option<LabelsId> {
        self.labels
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
        self.looks.outdated();
        self.last = self.last.max(at);
        self.last
    }

    /// Every change of its state is told.
    fn is_scheduled(&self) -> bool {
        self.tier >= Tier::T3
    }

    /// What a goroutine on a thread is said to do.
    fn running(&self) -> SpanState {
        if self.is_scheduled() { SpanState::Running } else { SpanState::Awake }
    }

    fn begin(&mut self, state: SpanState, since: KtimeNs, stack: Option<StackId>) {
        self.state = State::Open(Open { state, since, stack, by_look: false });
    }

    /// It calls gopark: it ran until here.
    pub fn park(&mut self, at: KtimeNs, park: Park, sink: &mut impl FnMut(&Who, Span)) -> Option<Repair> {
        let at = self.clamp(at);
        self.settle(at, Some(self.running()), sink);
        self.echo = None;
        match self.state {
            State::Open(open) if open.state == SpanState::Unknown || open.state == self.running() => {
                self.state = State::blocked(at, park, Some(open));
                None
            }
            // Only what runs can park: what made it run is lost.
            _ => {
                let lost = self.close(at, self.running(), None, park.tid, sink);
                self.state = State::blocked(at, park, None);
                lost
            }
        }
    }

    /// The park did not happen: the unlock function said no, and it runs on as if it had never tried.
    pub fn park_abort(&mut self, at: KtimeNs, sink: &mut impl FnMut(&Who, Span)) {
        let at = self.clamp(at);
        self.settle(at, None, sink);
        self.echo = self.is_scheduled().then_some(Echo::Run);
        match self.state {
            // The park at least told that it ran then.
            State::Blocked { since: parked, before: Some(open), park, .. } if open.state == SpanState::Unknown => {
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
        match self.is_scheduled() {
            true => self.begin(SpanState::Runnable, at, stack),
            false => self.begin(SpanState::Awake, at, None),
        }
        lost
    }

    /// It has parked at `since` and waits, told late. What was told of that wait already is not told again.
    pub fn waiting(&mut self, since: KtimeNs, park: Park, sink: &mut impl FnMut(&Who, Span)) -> Option<Repair> {
        match self.state {
            State::Blocked { since: known, .. } if known == since => None,
            _ => self.park(since, park, sink),
        }
    }

    /// A wait since `since` is over `at`.
    pub fn waited(
        &mut self,
        since: KtimeNs,
        at: KtimeNs,
        (park, by): (Park, WokenBy),
        sink: &mut impl FnMut(&Who, Span),
    ) -> Option<Repair> {
        let lost = self.waiting(since, park, sink);
        self.wake(at, by, sink).or(lost)
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
            Blocked => self.state = State::blocked(at, park, None),
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
    pub fn exit(mut self, at: KtimeNs, tid: Tid, sink: &mut impl FnMut(&Who, Span)) -> Parting {
        let at = self.clamp(at);
        let seen_alone = self.looks.seen_alone();
        self.settle(at, None, sink);
        let lost = match seen_alone {
            // Of what it did before no event could tell.
            Some(seen) if self.tier < Tier::T2 => {
                self.part_unseen(seen, at, sink);
                None
            }
            _ => self.close(at, self.running(), None, Some(tid), sink),
        };
        Parting { who: self.who, ended_at: at, last_known: at, looked_at: self.looks.last, lost }
    }

    /// The process or the recording ends while it lives: what it did, it did until then.
    pub fn cut(mut self, at: KtimeNs, sink: &mut impl FnMut(&Who, Span)) -> Parting {
        let (last_known, looked_at, at) = (self.last_known(), self.looks.last, self.clamp(at));
        self.settle(at, None, sink);
        match self.state {
            State::Open(open) => self.emit(open, at, None, sink),
            State::Blocked { .. } => _ = self.close(at, SpanState::Blocked, None, None, sink),
        }
        Parting { who: self.who, ended_at: at, last_known, looked_at, lost: None }
    }

    /// Its exit was lost: by `at` it is gone, and since its last event nothing is known.
    pub fn gone(mut self, at: KtimeNs, sink: &mut impl FnMut(&Who, Span)) -> Parting {
        let (known, last_known, looked_at) = (self.last, self.last_known(), self.looks.last);
        let at = self.clamp(at);
        self.settle(at, None, sink);
        match self.state {
            _ if self.looks.seen_alone().is_some() => self.part_unseen(last_known, at, sink),
            State::Open(open) => {
                self.emit(open, known, None, sink);
                self.emit(Open::unknown(known.max(open.since)), at, None, sink);
            }
            State::Blocked { .. } => _ = self.close(at, SpanState::Unknown, None, None, sink),
        }
        Parting { who: self.who, ended_at: at, last_known, looked_at, lost: None }
    }
}

#[cfg(test)]
mod tests;
