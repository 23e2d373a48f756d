//! The recording itself, in one row.

use super::{
    layout::Of,
    processes::{json, tier},
    table::{Column, Row},
};
use crate::{
    correlate::replay::{Replayed, View},
    export::report::{
        MetaOut, Price,
        session::{meta, price},
    },
    recording::contract::Threads,
};

/// The version of the tables. Columns may be added, none renamed.
const SCHEMA: &str = "lifetrace.parquet/1";

pub(super) struct MetaRow {
    meta: MetaOut,
    price: Price,
    command: Option<String>,
    warnings: String,
    threads: &'static str,
    trust: String,
    events_only: bool,
    duration_ns: u64,
    min_block_ns: Option<u64>,
    lost: u64,
    undated: u64,
    late: u64,
    repairs: String,
}

impl MetaRow {
    pub fn new(replayed: &Replayed) -> Self {
        let (meta, losses) = (meta(replayed), replayed.losses());
        let repairs: serde_json::Map<_, _> =
            replayed.engine.repairs().by_kind.iter().map(|(kind, count)| ((*kind).to_owned(), (*count).into())).collect();
        Self {
            command: (!meta.command.is_empty()).then(|| json(&meta.command)),
            warnings: json(&meta.warnings),
            threads: match replayed.meta.threads {
                Threads::Off => "off",
                Threads::On => "on",
                Threads::Auto => "auto",
            },
            trust: replayed.trust(),
            events_only: replayed.view == View::EventsOnly,
            duration_ns: replayed.duration_ns(),
            min_block_ns: replayed.meta.min_block_ns,
            lost: losses.events,
            undated: losses.undated,
            late: replayed.order.late,
            repairs: serde_json::Value::from(repairs).to_string(),
            price: price(replayed),
            meta,
        }
    }

    fn session() -> Vec<Column<Self>> {
        vec![
            Column::<Self>::text("schema", "version of these tables: columns may be added, none renamed", |_, _| Some(SCHEMA))
                .always(),
            Column::<Self>::text("lifetrace", "version of the lifetrace that recorded", |row, _| Some(&row.meta.lifetrace))
                .always(),
            Column::<Self>::text("hostname", "", |row, _| Some(&row.meta.hostname)).always(),
            Column::<Self>::text("kernel", "", |row, _| Some(&row.meta.kernel)).always(),
            Column::<Self>::integer("cpus", "", |row, _| Some(row.meta.cpus)).always(),
            Column::<Self>::text("command", "what was run, a JSON array", |row, _| row.command.as_deref()),
            Column::<Self>::text("target", "what was attached to, in place of a command", |row, _| row.meta.target.as_deref()),
            Column::<Self>::text("tier", "that was asked for", |row, _| Some(tier(row.meta.tier))).always(),
            Column::<Self>::text("threads", "whose were followed in detail: `on`, `off` or `auto`", |row, _| Some(row.threads))
                .always(),
            Column::<Self>::bigint("min_block_ns", "what is shorter is in `sums`; null: each is told", |row, _| row.min_block_ns),
            Column::<Self>::bigint("zero_unix_ns", "wall time of the recording's zero, since the Unix epoch", |row, _| {
                Some(row.meta.zero_unix_ns)
            })
            .always(),
            Column::<Self>::bigint("clock_error_ns", "how exact that is", |row, _| Some(row.meta.clock_error_ns)).always(),
            Column::<Self>::signed("clock_drift_ns", "how far the calendar's clock moved against the recording's", |row, _| {
                row.meta.clock_drift_ns
            }),
            Column::<Self>::bigint("duration_ns", "", |row, _| Some(row.duration_ns)).always(),
        ]
    }

    fn trust() -> Vec<Column<Self>> {
        vec![
            Column::<Self>::text("completeness", "`complete`, `not_ended` or `truncated`", |row, _| Some(row.meta.completeness))
                .always(),
            Column::<Self>::text("end_reason", "", |row, _| row.meta.end_reason.as_deref()),
            Column::<Self>::text("trust", "loss and coverage in a line", |row, _| Some(&row.trust)).always(),
            Column::<Self>::boolean("events_only", "what snapshots repaired was left out on demand", |row, _| {
                Some(row.events_only)
            })
            .always(),
            Column::<Self>::bigint("lost_events", "", |row, _| Some(row.lost)).always(),
            Column::<Self>::bigint("lost_undated", "of these, those whose time is unknown", |row, _| Some(row.undated)).always(),
            Column::<Self>::bigint("late_events", "they came too late to be ordered", |row, _| Some(row.late)).always(),
            Column::<Self>::text(
                "repairs",
                "what had to be assumed or was told by snapshots, by kind: a JSON object",
                |row, _| Some(&row.repairs),
            )
            .always(),
            Column::<Self>::text("warnings", "a JSON array", |row, _| Some(&row.warnings)).always(),
            Column::<Self>::bigint("probe_hits", "", |row, _| row.price.probe_hits),
            Column::<Self>::bigint("cost_ns", "what these cost the targets (docs/price.md)", |row, _| row.price.cost_ns),
            Column::<Self>::bigint("target_cpu_ns", "the CPU time of the targets", |row, _| row.price.target_cpu_ns),
            Column::<Self>::double("share", "`cost_ns` of it", |row, _| row.price.share),
            Column::<Self>::double("budget", "the share that was to be kept", |row, _| row.price.budget),
        ]
    }
}

impl Row for MetaRow {
    const TABLE: &'static str = "meta";
    const ABOUT: &'static str = "The recording itself, in one row.";

    fn of(&self) -> Of {
        Of::Recording
    }

    fn columns() -> Vec<Column<Self>> {
        [Self::session(), Self::trust()].into_iter().flatten().collect()
    }
}
