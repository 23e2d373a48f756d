//! Cycles of Go's collector, and pauses of the whole process.

use super::{
    layout::Of,
    names::Names,
    table::{Column, Row},
};
use crate::{
    clock::KtimeNs,
    correlate::{
        ReasonId,
        gc::{Cycle, Pause},
        process::ImageId,
    },
    id::{Goid, Tid},
};

pub(super) struct GcRow {
    image: ImageId,
    kind: &'static str,
    start: KtimeNs,
    end: KtimeNs,
    start_seen: bool,
    end_seen: bool,
    reason: Option<ReasonId>,
    by: Option<Goid>,
    tid: Option<Tid>,
}

impl GcRow {
    pub fn cycle(image: ImageId, cycle: &Cycle) -> Self {
        Self {
            image,
            kind: "cycle",
            start: cycle.start,
            end: cycle.end,
            start_seen: cycle.start_seen,
            end_seen: cycle.end_seen,
            reason: None,
            by: cycle.by,
            tid: None,
        }
    }

    pub fn pause(image: ImageId, pause: &Pause) -> Self {
        Self {
            image,
            kind: "pause",
            start: pause.start,
            end: pause.end,
            start_seen: true,
            end_seen: pause.end_seen,
            reason: Some(pause.reason),
            by: pause.by,
            tid: Some(pause.tid),
        }
    }
}

impl Row for GcRow {
    const TABLE: &'static str = "gc";
    const ABOUT: &'static str = "Cycles of Go's collector, and times in which the world was being stopped or stood.";

    fn of(&self) -> Of {
        Of::Image(self.image)
    }

    fn columns() -> Vec<Column<Self>> {
        vec![
            Column::<Self>::text("kind", "`cycle` or `pause`", |row, _| Some(row.kind)).always(),
            Column::<Self>::integer("process", "in `processes`", |row, names| Some(names.image(row.image).process)).always(),
            Column::<Self>::integer("tgid", "", |row, names| Some(names.image(row.image).tgid)).always(),
            Column::<Self>::time("start_ns", "", |row, names: &Names<'_>| Some(names.since_zero(row.start))).always(),
            Column::<Self>::time("end_ns", "", |row, names| Some(names.since_zero(row.end))).always(),
            Column::<Self>::boolean("start_seen", "false: it began at `start_ns` at the earliest", |row, _| Some(row.start_seen))
                .always(),
            Column::<Self>::boolean("end_seen", "false: it was over by `end_ns`", |row, _| Some(row.end_seen)).always(),
            Column::<Self>::text("reason", "of a pause, as Go calls it", |row, names| row.reason.map(|id| names.reason(id))),
            Column::<Self>::bigint("by_goid", "who asked for it", |row, _| row.by.map(|goid| goid.0)),
            Column::<Self>::integer("tid", "of a pause", |row, _| row.tid.map(|tid| tid.0)),
        ]
    }
}
