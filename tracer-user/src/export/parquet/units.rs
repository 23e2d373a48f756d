//! Units of work of other runtimes, as USDT probes tell of them, and what each did.

use super::{
    layout::Of,
    table::{Column, Row},
};
use crate::{
    clock::KtimeNs,
    correlate::{
        Life, LifeEnd, ReasonId, SpanState,
        process::ImageId,
        unit::{UnitSpan, UnitWho},
    },
    id::{Address, Tid},
};

pub(super) struct UnitRow {
    who: UnitWho,
    number: String,
    ended_at: KtimeNs,
    end: LifeEnd,
}

impl UnitRow {
    pub fn new(who: &UnitWho, life: &Life) -> Self {
        Self { who: who.clone(), number: who.number.to_string(), ended_at: life.ended_at, end: life.end }
    }
}

impl Row for UnitRow {
    const TABLE: &'static str = "units";
    const ABOUT: &'static str = "Units of work of other runtimes, as USDT probes tell of them (docs/usdt.md).";

    fn of(&self) -> Of {
        Of::Image(self.who.image)
    }

    fn columns() -> Vec<Column<Self>> {
        vec![
            Column::<Self>::bigint("unit", "its number in this export: one life each", |row, _| Some(row.who.serial)).always(),
            Column::<Self>::integer("process", "in `processes`", |row, names| Some(names.image(row.who.image).process)).always(),
            Column::<Self>::integer("tgid", "", |row, names| Some(names.image(row.who.image).tgid)).always(),
            Column::<Self>::text("runtime", "`java`, …", |row, names| Some(names.replayed.engine.runtime(row.who.runtime)))
                .always(),
            Column::<Self>::text("id", "that its probes give it; `tTID` where none has told it", |row, _| Some(&row.number))
                .always(),
            Column::<Self>::text("name", "what its start called it", |row, _| row.who.name.as_deref()),
            Column::<Self>::time("born_at_ns", "null: its start was not seen", |row, names| {
                row.who.born_at.map(|at| names.since_zero(at))
            }),
            Column::<Self>::time("first_seen_ns", "", |row, names| Some(names.since_zero(row.who.since))).always(),
            Column::<Self>::time("ended_at_ns", "null: the recording ended while it lived", |row, names| {
                (row.end != LifeEnd::RecordingEnd).then(|| names.since_zero(row.ended_at))
            }),
            Column::<Self>::text("ended", "as of goroutines", |row, _| {
                Some(match row.end {
                    LifeEnd::Exit => "exit",
                    LifeEnd::ProcessEnd => "process end",
                    LifeEnd::RecordingEnd => "recording end",
                    LifeEnd::Gone => "gone",
                })
            })
            .always(),
        ]
    }
}

pub(super) struct UnitSpanRow {
    image: ImageId,
    unit: u64,
    state: SpanState,
    start: KtimeNs,
    end: KtimeNs,
    reason: Option<ReasonId>,
    object: Option<Address>,
    tid: Option<Tid>,
    at_most: bool,
}

impl UnitSpanRow {
    pub fn new(who: &UnitWho, span: &UnitSpan) -> Self {
        let UnitSpan { state, start, end, reason, object, tid, at_most } = *span;
        Self { image: who.image, unit: who.serial, state, start, end, reason, object, tid, at_most }
    }
}

impl Row for UnitSpanRow {
    const TABLE: &'static str = "unit_spans";
    const ABOUT: &'static str = "What each of these units did from when to when.";

    fn of(&self) -> Of {
        Of::Image(self.image)
    }

    fn columns() -> Vec<Column<Self>> {
        vec![
            Column::<Self>::bigint("unit", "in `units`", |row, _| Some(row.unit)).always(),
            Column::<Self>::text("state", "`awake`, `blocked` or `unknown`", |row, _| {
                Some(match row.state {
                    SpanState::Blocked => "blocked",
                    SpanState::Unknown => "unknown",
                    _ => "awake",
                })
            })
            .always(),
            Column::<Self>::time("start_ns", "", |row, names| Some(names.since_zero(row.start))).always(),
            Column::<Self>::time("end_ns", "", |row, names| Some(names.since_zero(row.end))).always(),
            Column::<Self>::text("reason", "", |row, names| row.reason.map(|id| names.reason(id))),
            Column::<Self>::address("object", "what it waited for", |row, _| row.object.map(|object| object.0)),
            Column::<Self>::integer("tid", "the thread that told of its beginning", |row, _| row.tid.map(|tid| tid.0)),
            Column::<Self>::boolean("at_most", "it ended at some time before `end_ns`: no probe tells when", |row, _| {
                Some(row.at_most)
            })
            .always(),
        ]
    }
}
