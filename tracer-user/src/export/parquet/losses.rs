//! What the recording lacks, and what was summed instead of told.

use super::{
    layout::Of,
    names::{Names, SiteId},
    stacks::line,
    table::{Column, Row},
};
use crate::{
    clock::KtimeNs,
    correlate::{ReasonId, SumOfMany, process::ImageId, replay::Replayed},
    order::SeqGap,
};

/// Events that are missing.
pub(super) enum LossRow {
    /// Their numbers are, between two that are there.
    Gap(SeqGap),
    /// They were counted.
    Counted { kind: String, events: u64 },
}

impl LossRow {
    pub fn all(replayed: &Replayed) -> impl Iterator<Item = Self> {
        let gaps = replayed.order.gaps.iter().map(|gap| Self::Gap(*gap));
        gaps.chain(replayed.losses().by_kind.into_iter().map(|(kind, events)| Self::Counted { kind, events }))
    }

    fn gap(&self) -> Option<&SeqGap> {
        match self {
            Self::Gap(gap) => Some(gap),
            Self::Counted { .. } => None,
        }
    }
}

impl Row for LossRow {
    const TABLE: &'static str = "losses";
    const ABOUT: &'static str =
        "Events that are missing (docs/order.md). The same loss has rows of both kinds, when and of what.";

    fn of(&self) -> Of {
        Of::Recording
    }

    fn columns() -> Vec<Column<Self>> {
        vec![
            Column::<Self>::text("kind", "`gap`: when they are missing; `counted`: of what there are too few", |row, _| {
                Some(if row.gap().is_some() { "gap" } else { "counted" })
            })
            .always(),
            Column::<Self>::time("from_ns", "of a gap: they were made between these", |row, names| {
                row.gap().map(|gap| names.since_zero(gap.from))
            }),
            Column::<Self>::time("to_ns", "", |row, names| row.gap().map(|gap| names.since_zero(gap.to))),
            Column::<Self>::integer("cpu", "of a gap: on which CPU", |row, _| row.gap().map(|gap| gap.cpu.into())),
            Column::<Self>::text(
                "event",
                "of those that were counted: the kind of record; `unknown`: in no counter",
                |row, _| match row {
                    Self::Counted { kind, .. } => Some(kind),
                    Self::Gap(_) => None,
                },
            ),
            Column::<Self>::bigint("events", "how many", |row, _| match row {
                Self::Gap(gap) => Some(gap.missing),
                Self::Counted { events, .. } => Some(*events),
            })
            .always(),
        ]
    }
}

/// Waits or lives that were too short to be told (`--min-block`).
pub(super) struct SumRow {
    image: ImageId,
    tgid: u32,
    process: u32,
    site: SiteId,
    lives: bool,
    reason: Option<ReasonId>,
    stack: Option<u32>,
    at: KtimeNs,
    count: u64,
    total_ns: u64,
}

impl SumRow {
    pub fn new(sum: &SumOfMany<'_>, names: &mut Names<'_>) -> Self {
        let of = names.image(sum.site.image);
        Self {
            image: sum.site.image,
            tgid: of.tgid,
            process: of.process,
            site: names.site_id(sum.site),
            lives: sum.lives,
            reason: sum.reason,
            stack: names.stack(sum.site.image, sum.stack),
            at: sum.at,
            count: sum.count,
            total_ns: sum.total_ns,
        }
    }
}

impl Row for SumRow {
    const TABLE: &'static str = "sums";
    const ABOUT: &'static str =
        "Waits and lives that were summed instead of told (`--min-block`, docs/summing.md): they are in no other table.";

    fn of(&self) -> Of {
        Of::Image(self.image)
    }

    fn columns() -> Vec<Column<Self>> {
        vec![
            Column::<Self>::text("kind", "`waits` or `lives`, from birth to exit", |row, _| {
                Some(if row.lives { "lives" } else { "waits" })
            })
            .always(),
            Column::<Self>::integer("process", "in `processes`", |row, _| Some(row.process)).always(),
            Column::<Self>::integer("tgid", "", |row, _| Some(row.tgid)).always(),
            Column::<Self>::text("created_function", "", |row, names| {
                names.site(row.site).created_by.as_ref().map(|frame| frame.function.as_str())
            }),
            Column::<Self>::text("created_file", "", |row, names| {
                names.site(row.site).created_by.as_ref().map(|frame| frame.file.as_str())
            }),
            Column::<Self>::integer("created_line", "", |row, names| names.site(row.site).created_by.as_ref().and_then(line)),
            Column::<Self>::text("start_function", "", |row, names| names.site(row.site).start_function.as_deref()),
            Column::<Self>::boolean("system", "the runtime's own", |row, names| Some(names.site(row.site).system)).always(),
            Column::<Self>::text("reason", "", |row, names| row.reason.map(|id| names.reason(id))),
            Column::<Self>::bigint("stack_id", "where they blocked; of lives, the creator's", |row, _| row.stack.map(u64::from)),
            Column::<Self>::time("by_ns", "they were over by then", |row, names| Some(names.since_zero(row.at))).always(),
            Column::<Self>::bigint("count", "", |row, _| Some(row.count)).always(),
            Column::<Self>::bigint("total_ns", "", |row, _| Some(row.total_ns)).always(),
        ]
    }
}
