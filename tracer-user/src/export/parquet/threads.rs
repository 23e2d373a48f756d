//! Threads, and what the kernel did with each from when to when.

use rustc_hash::FxHashMap;

use super::{
    layout::Of,
    names::Names,
    table::{Column, Row},
};
use crate::{
    clock::KtimeNs,
    correlate::{
        ReasonId,
        process::ImageId,
        thread::{ThreadEnd, ThreadId, ThreadLife, ThreadSpan, ThreadState, ThreadWaker, ThreadWho},
    },
    id::Tid,
    timeline::{State, thread::state},
};

/// What a thread did in sum.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    running_ns: u64,
    runnable_ns: u64,
    blocked_ns: u64,
    unknown_ns: u64,
}

/// Of those that live.
#[derive(Default)]
pub(super) struct ThreadSums(FxHashMap<ThreadId, Sums>);

impl ThreadSums {
    pub fn add(&mut self, who: &ThreadWho, span: &ThreadSpan) {
        let sums = self.0.entry(who.id).or_default();
        let sum = match span.state {
            ThreadState::Running => &mut sums.running_ns,
            ThreadState::Runnable => &mut sums.runnable_ns,
            ThreadState::Blocked => &mut sums.blocked_ns,
            ThreadState::Unknown => &mut sums.unknown_ns,
        };
        *sum = sum.saturating_add(span.end.since(span.start));
    }

    /// Its life is over.
    pub fn row(&mut self, who: &ThreadWho, life: &ThreadLife, names: &Names<'_>) -> ThreadRow {
        ThreadRow {
            who: *who,
            tgid: names.replayed.engine.processes().process(who.process).tgid.0,
            name: life.name.map(|name| name.text()),
            ended_at: life.ended_at,
            end: life.end,
            sums: self.0.remove(&who.id).unwrap_or_default(),
        }
    }
}

pub(super) struct ThreadRow {
    who: ThreadWho,
    tgid: u32,
    name: Option<String>,
    ended_at: KtimeNs,
    end: ThreadEnd,
    sums: Sums,
}

impl ThreadRow {
    fn end(&self) -> &'static str {
        match self.end {
            ThreadEnd::Exit => "exit",
            ThreadEnd::ExitOfAll => "exit of all",
            ThreadEnd::Exec => "exec",
            ThreadEnd::ProcessEnd => "process end",
            ThreadEnd::RecordingEnd => "recording end",
            ThreadEnd::Gone => "gone",
        }
    }

    /// `None` for one that was not followed in detail.
    fn told(&self, value: fn(&Sums) -> u64) -> Option<u64> {
        let Sums { running_ns, runnable_ns, blocked_ns, .. } = self.sums;
        (running_ns > 0 || runnable_ns > 0 || blocked_ns > 0).then(|| value(&self.sums))
    }
}

impl Row for ThreadRow {
    const TABLE: &'static str = "threads";
    const ABOUT: &'static str = "Every thread that was seen (docs/threads.md).";

    fn of(&self) -> Of {
        Of::Process(self.who.process)
    }

    fn columns() -> Vec<Column<Self>> {
        vec![
            Column::<Self>::integer("thread", "its number in this export: one life each", |row, _| Some(row.who.id.0)).always(),
            Column::<Self>::integer("process", "its process, in `processes`", |row, _| Some(row.who.process.0)).always(),
            Column::<Self>::integer("tgid", "", |row, _| Some(row.tgid)).always(),
            Column::<Self>::integer("tid", "", |row, _| Some(row.who.tid.0)).always(),
            Column::<Self>::text("name", "the newest that is known", |row, _| row.name.as_deref()),
            Column::<Self>::time("born_at_ns", "null: its birth was not seen", |row, names| {
                row.who.born_at.map(|at| names.since_zero(at))
            }),
            Column::<Self>::integer("born_by_tid", "who made it", |row, _| row.who.born_by.map(|tid| tid.0)),
            Column::<Self>::time("first_seen_ns", "its birth, or from when on anything can be said of it", |row, names| {
                Some(names.since_zero(row.who.since))
            })
            .always(),
            Column::<Self>::time("ended_at_ns", "null: the recording ended while it lived", |row, names| {
                (row.end != ThreadEnd::RecordingEnd).then(|| names.since_zero(row.ended_at))
            }),
            Column::<Self>::text(
                "ended",
                "`exit`, `exit of all` (its process ended), `exec` (it goes on under its process's number), `process end`, \
                 `recording end` or `gone`",
                |row, _| Some(row.end()),
            )
            .always(),
            Column::<Self>::bigint("running_ns", "null, as the next: it was not followed in detail", |row, _| {
                row.told(|sums| sums.running_ns)
            }),
            Column::<Self>::bigint("runnable_ns", "it waited for a CPU", |row, _| row.told(|sums| sums.runnable_ns)),
            Column::<Self>::bigint("blocked_ns", "", |row, _| row.told(|sums| sums.blocked_ns)),
            Column::<Self>::bigint("unknown_ns", "", |row, _| row.told(|sums| sums.unknown_ns)),
        ]
    }
}

pub(super) struct ThreadSpanRow {
    who: (ThreadId, Tid),
    image: ImageId,
    tgid: u32,
    state: State,
    start: KtimeNs,
    end: KtimeNs,
    reason: Option<ReasonId>,
    stack: Option<u32>,
    woken_by: Option<ThreadWaker>,
    object: Option<String>,
}

impl ThreadSpanRow {
    pub fn new(who: &ThreadWho, span: &ThreadSpan, names: &mut Names<'_>) -> Self {
        Self {
            who: (who.id, who.tid),
            image: span.image,
            tgid: names.replayed.engine.processes().process(who.process).tgid.0,
            state: state(span, names.replayed.meta.threads),
            start: span.start,
            end: span.end,
            reason: span.reason,
            stack: names.thread_stack(span.image, span.kernel_stack, span.user_stack),
            woken_by: span.woken_by,
            object: span.object.map(|object| object.to_string()),
        }
    }
}

impl Row for ThreadSpanRow {
    const TABLE: &'static str = "thread_spans";
    const ABOUT: &'static str = "What the kernel did with each thread from when to when. They stand apart from `spans`: a thread off its \
                                 CPU is no goroutine's wait.";

    fn of(&self) -> Of {
        Of::Image(self.image)
    }

    fn columns() -> Vec<Column<Self>> {
        vec![
            Column::<Self>::integer("thread", "the life that it is a part of, in `threads`", |row, _| Some(row.who.0.0)).always(),
            Column::<Self>::integer("tgid", "", |row, _| Some(row.tgid)).always(),
            Column::<Self>::integer("tid", "", |row, _| Some(row.who.1.0)).always(),
            Column::<Self>::text(
                "state",
                "`running`, `runnable`, `blocked`, `unknown`, `alive` (not followed in detail)",
                |row, _| Some(row.state.name()),
            )
            .always(),
            Column::<Self>::time("start_ns", "", |row, names| Some(names.since_zero(row.start))).always(),
            Column::<Self>::time("end_ns", "", |row, names| Some(names.since_zero(row.end))).always(),
            Column::<Self>::text("reason", "why it left its CPU", |row, names| row.reason.map(|id| names.reason(id))),
            Column::<Self>::bigint("stack_id", "the kernel's frames, then those of user code", |row, _| row.stack.map(u64::from)),
            Column::<Self>::text("woken_by", "`thread`, `interrupt` or `unknown`; null: no wake was seen", |row, _| {
                row.woken_by.map(|by| match by {
                    ThreadWaker::Thread(_) => "thread",
                    ThreadWaker::Interrupt => "interrupt",
                    ThreadWaker::Unknown => "unknown",
                })
            }),
            Column::<Self>::integer("woken_by_tid", "", |row, _| match row.woken_by {
                Some(ThreadWaker::Thread(tid)) => Some(tid.0),
                _ => None,
            }),
            Column::<Self>::text("object", "a futex's address, or `fd:N` of an epoll", |row, _| row.object.as_deref()),
        ]
    }
}
