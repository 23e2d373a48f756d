//! The life of one thread: a pure state machine over the scheduler's events, time passed in.
//!
//! It says what the kernel did with the thread, and nothing of what runs on it: that a thread is off its CPU is no goroutine's wait.
//! Any event can be lost: what does not fit what was known is `Unknown`, never filled in.

use crate::{
    clock::KtimeNs,
    event::ThreadName,
    id::{Address, StackId, Tid},
};

use super::{
    ReasonId,
    process::{ImageId, ProcessId},
};

mod follow;
mod reason;
pub mod syscalls;

pub(super) use follow::ThreadsAlive;
use reason::Wait;

/// A thread of this recording, by order of appearance: numbers are used again, so one number may be several threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ThreadId(pub u32);

/// Who a thread is: what does not change while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadWho {
    pub id: ThreadId,
    pub process: ProcessId,
    pub tid: Tid,
    /// `None`: it ran before it was followed, or its birth was lost.
    pub born_at: Option<KtimeNs>,
    /// Who made it: a thread of its process, for a process's first one the thread that forked, or the thread that took its number by an
    /// exec.
    pub born_by: Option<Tid>,
    /// Birth, or the earliest time of which anything can be said.
    pub since: KtimeNs,
}

/// What a thread did during a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ThreadState {
    Running,
    /// It waits for a CPU.
    Runnable,
    /// Off its CPU by itself.
    Blocked,
    Unknown,
}

/// Who made a thread runnable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ThreadWaker {
    Thread(Tid),
    /// A timer, a device, another CPU.
    Interrupt,
    Unknown,
}

impl std::fmt::Display for ThreadWaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Thread(tid) => write!(f, "tid:{tid}"),
            Self::Interrupt => f.write_str("interrupt"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// What a thread waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WaitObject {
    Futex(Address),
    /// An epoll's descriptor.
    Epoll(u32),
}

impl std::fmt::Display for WaitObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Futex(address) => write!(f, "{:#x}", address.0),
            Self::Epoll(descriptor) => write!(f, "fd:{descriptor}"),
        }
    }
}

/// One stretch of a thread's life, closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadSpan {
    /// Whose code it ran.
    pub image: ImageId,
    pub state: ThreadState,
    pub start: KtimeNs,
    /// Never before `start`.
    pub end: KtimeNs,
    /// Why it blocked; of a runnable one why it left its CPU. On an unknown span: why it had blocked when sight of it was lost.
    pub reason: Option<ReasonId>,
    pub object: Option<WaitObject>,
    /// Where it left user code, and where it is in the kernel. Of a runnable span: where it goes on.
    pub user_stack: Option<StackId>,
    pub kernel_stack: Option<StackId>,
    /// Who ended the span; `None` unless that was seen.
    pub woken_by: Option<ThreadWaker>,
}

/// How a thread's life, as far as it is known, came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ThreadEnd {
    Exit,
    /// It exited because all of its process did.
    ExitOfAll,
    /// It executed a program, and has had the number of its process since.
    Exec,
    /// Its process exited, and nobody told of the thread.
    ProcessEnd,
    RecordingEnd,
    /// Its exit was lost: it was gone by then.
    Gone,
}

/// A life, closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadLife {
    pub ended_at: KtimeNs,
    pub end: ThreadEnd,
    /// The newest name that is known.
    pub name: Option<ThreadName>,
}

/// What an event shows to have been lost before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    Off,
    On,
    Wake,
}

impl Lost {
    /// The name used in outputs (`repairs.by_kind`).
    fn name(self) -> &'static str {
        match self {
            Self::Off => "lost_thread_off",
            Self::On => "lost_thread_on",
            Self::Wake => "lost_thread_wake",
        }
    }
}

/// One thread that lives.
#[derive(Clone, Debug)]
struct Thread {
    who: ThreadWho,
    image: ImageId,
    /// The newest event: nothing of it may lie before that.
    last: KtimeNs,
    state: ThreadState,
    since: KtimeNs,
    /// Why and where it left its CPU last.
    wait: Wait,
    /// It was woken while it ran: on its way to sleep, or by a waker that came too early or too late.
    woken: Option<ThreadWaker>,
    /// What it said to wait for, before it left its CPU.
    announced: Option<reason::Announced>,
    name: Option<ThreadName>,
}

impl Thread {
    fn new(who: ThreadWho, image: ImageId, state: ThreadState) -> Self {
        let (since, wait) = (who.since, Wait::default());
        Self { who, image, last: since, state, since, wait, woken: None, announced: None, name: None }
    }

    /// A late event happens, for us, when the newest one did: spans never run backwards.
    fn clamp(&mut self, at: KtimeNs) -> KtimeNs {
        self.last = self.last.max(at);
        self.last
    }

    /// Ends what it did as `told`, and begins something else.
    fn go_over(
        &mut self,
        at: KtimeNs,
        told: ThreadState,
        woken_by: Option<ThreadWaker>,
        next: ThreadState,
        sink: &mut impl FnMut(&ThreadWho, ThreadSpan),
    ) {
        let Wait { reason, object, user_stack, kernel_stack } = match self.state {
            ThreadState::Running => Wait::default(),
            _ => self.wait,
        };
        // What came to be known only with its end takes no time worth a line.
        if at > self.since || woken_by.is_some() {
            let (image, start) = (self.image, self.since);
            let span = ThreadSpan { image, state: told, start, end: at, reason, object, user_stack, kernel_stack, woken_by };
            sink(&self.who, span);
        }
        (self.state, self.since) = (next, at);
    }

    /// It gets a CPU.
    fn on(&mut self, at: KtimeNs, sink: &mut impl FnMut(&ThreadWho, ThreadSpan)) -> Option<Lost> {
        use ThreadState::{Blocked, Runnable, Running, Unknown};
        let at = self.clamp(at);
        let (told, lost) = match self.state {
            Runnable | Unknown => (self.state, None),
            Running => (Unknown, Some(Lost::Off)),
            // Woken between the moment when it said that it would sleep and the one when it left: it could run at once.
            Blocked if self.woken.is_some() => {
                let by = self.woken;
                self.go_over(self.since, Blocked, by, Runnable, sink);
                (Runnable, None)
            }
            Blocked => (Unknown, Some(Lost::Wake)),
        };
        self.woken = None;
        self.go_over(at, told, None, Running, sink);
        lost
    }

    /// It leaves its CPU: by itself, or it could run on.
    fn off(&mut self, at: KtimeNs, wait: Wait, by_itself: bool, sink: &mut impl FnMut(&ThreadWho, ThreadSpan)) -> Option<Lost> {
        use ThreadState::{Blocked, Runnable, Running, Unknown};
        let at = self.clamp(at);
        let (told, lost) = match self.state {
            Running | Unknown => (self.state, None),
            Runnable | Blocked => (Unknown, Some(Lost::On)),
        };
        self.go_over(at, told, None, if by_itself { Blocked } else { Runnable }, sink);
        self.wait = wait;
        if !by_itself {
            self.woken = None;
        }
        lost
    }

    /// It is made runnable.
    fn wake(&mut self, at: KtimeNs, by: ThreadWaker, sink: &mut impl FnMut(&ThreadWho, ThreadSpan)) {
        let at = self.clamp(at);
        match self.state {
            ThreadState::Blocked => {
                self.woken = None;
                self.go_over(at, ThreadState::Blocked, Some(by), ThreadState::Runnable, sink);
            }
            // Whether it sleeps is not known, or it does not.
            ThreadState::Running | ThreadState::Unknown => self.woken = Some(by),
            ThreadState::Runnable => {}
        }
    }

    /// It was not on a CPU, as far as was told.
    fn is_off(&self) -> bool {
        matches!(self.state, ThreadState::Runnable | ThreadState::Blocked)
    }

    /// From here on nothing is known of it, or as much as `state` says.
    fn turn(&mut self, at: KtimeNs, state: ThreadState, sink: &mut impl FnMut(&ThreadWho, ThreadSpan)) {
        let at = self.clamp(at);
        self.go_over(at, self.state, None, state, sink);
        (self.wait, self.woken, self.announced) = (Wait::default(), None, None);
    }

    /// It ends: until now it did what it did, or if it can only have run (`exited`), that.
    fn end(mut self, at: KtimeNs, end: ThreadEnd, sink: &mut impl FnMut(&ThreadWho, ThreadSpan)) -> (ThreadWho, ThreadLife) {
        let at = self.clamp(at);
        let fits = match end {
            ThreadEnd::Exit | ThreadEnd::ExitOfAll | ThreadEnd::Exec => self.state == ThreadState::Running,
            ThreadEnd::Gone => false,
            ThreadEnd::ProcessEnd | ThreadEnd::RecordingEnd => true,
        };
        let told = if fits { self.state } else { ThreadState::Unknown };
        self.go_over(at, told, None, ThreadState::Unknown, sink);
        (self.who, ThreadLife { ended_at: at, end, name: self.name })
    }
}

#[cfg(test)]
mod tests;
