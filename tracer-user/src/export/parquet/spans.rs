//! What goroutines did from when to when.

use super::{
    layout::Of,
    names::Names,
    table::{Column, Row},
};
use crate::{
    clock::KtimeNs,
    correlate::{ReasonId, Span, WokenBy, goroutine::Who, process::ImageId},
    id::{Address, Goid, Tid},
    timeline::{STATE_BY_SNAPSHOT, State},
};

pub(super) struct SpanRow {
    goroutine: u64,
    image: ImageId,
    goid: Goid,
    pub state: State,
    pub start: KtimeNs,
    end: KtimeNs,
    pub reason: Option<ReasonId>,
    pub stack: Option<u32>,
    woken_by: Option<WokenBy>,
    tid: Option<Tid>,
    object: Option<Address>,
    repaired: Option<&'static str>,
}

impl SpanRow {
    /// `of_life`: what else is to be said of its repair.
    pub fn new(goroutine: u64, who: &Who, span: &Span, of_life: Option<&'static str>, names: &mut Names<'_>) -> Self {
        Self {
            goroutine,
            image: who.image,
            goid: who.goid,
            state: State::of(span, names.tier_at(who.image, span.start)),
            start: span.start,
            end: span.end,
            reason: span.reason,
            stack: names.stack(who.image, span.stack),
            woken_by: span.woken_by,
            tid: span.tid,
            object: span.object,
            repaired: of_life.or(span.by_look.then_some(STATE_BY_SNAPSHOT)),
        }
    }

    pub fn lasted_ns(&self) -> u64 {
        self.end.since(self.start)
    }
}

fn waker(by: WokenBy) -> &'static str {
    match by {
        WokenBy::Goroutine(_) => "goroutine",
        WokenBy::Netpoll => "netpoll",
        WokenBy::Timer => "timer",
        WokenBy::Gc => "gc",
        WokenBy::Scheduler => "scheduler",
        WokenBy::Unknown => "unknown",
    }
}

impl Row for SpanRow {
    const TABLE: &'static str = "spans";
    const ABOUT: &'static str = "What each goroutine did from when to when, in the order in which that was over.";

    fn of(&self) -> Of {
        Of::Image(self.image)
    }

    fn columns() -> Vec<Column<Self>> {
        vec![
            Column::<Self>::bigint("goroutine", "the life that it is a part of, in `goroutines`", |row, _| Some(row.goroutine)).always(),
            Column::<Self>::integer("tgid", "", |row, names| Some(names.image(row.image).tgid)).always(),
            Column::<Self>::bigint("goid", "Go's number", |row, _| Some(row.goid.0)).always(),
            Column::<Self>::text(
                "state",
                "`blocked`, `awake` (T2: not blocked), `runnable`, `running`, `syscall` (T3), `alive` (T1: it existed), `unknown`",
                |row, _| Some(row.state.name()),
            )
            .always(),
            Column::<Self>::time("start_ns", "", |row, names| Some(names.since_zero(row.start))).always(),
            Column::<Self>::time("end_ns", "", |row, names| Some(names.since_zero(row.end))).always(),
            Column::<Self>::text("reason", "why it blocked, as Go calls it", |row, names| row.reason.map(|id| names.reason(id))),
            Column::<Self>::bigint("stack_id", "where it blocked; of `runnable`, where it goes on; of `syscall`, where it entered it", |row, _| {
                row.stack.map(u64::from)
            }),
            Column::<Self>::text(
                "woken_by",
                "who ended it: `goroutine`, `netpoll`, `timer`, `gc`, `scheduler` or `unknown`; null: no wake was seen",
                |row, _| row.woken_by.map(waker),
            ),
            Column::<Self>::bigint("woken_by_goid", "of a goroutine, which one of the same process", |row, _| match row.woken_by {
                Some(WokenBy::Goroutine(goid)) => Some(goid.0),
                _ => None,
            }),
            Column::<Self>::integer("tid", "the thread that it was last seen on", |row, _| row.tid.map(|tid| tid.0)),
            Column::<Self>::address("object", "address of the channel or lock", |row, _| row.object.map(|object| object.0)),
            Column::<Self>::text(
                "repaired",
                "what no event told, but snapshots did (docs/snapshots.md); on the first span of a life what holds of all of it",
                |row, _| row.repaired,
            ),
        ]
    }
}
