//! Processes, the programs they ran, and in which detail these were followed when.

use super::{
    layout::Of,
    names::Names,
    table::{Column, Row},
};
use crate::{
    correlate::process::{Image, ImageId, Process, ProcessId},
    correlate::replay::{Coverage, Replayed},
    export::report::{ProcessOut, processes::process_out},
    recording::contract::Tier,
};

/// As the report tells of it.
pub(super) struct ProcessRow {
    id: ProcessId,
    first_seen_ns: u64,
    argv: Option<String>,
    tier: Option<&'static str>,
    out: ProcessOut,
}

impl ProcessRow {
    fn new(replayed: &Replayed, (id, process): (ProcessId, &Process)) -> Self {
        let out = process_out(replayed, process, None);
        Self {
            id,
            first_seen_ns: replayed.since_zero(process.first_seen),
            argv: out.argv.as_deref().map(json),
            tier: out.tier.map(tier),
            out,
        }
    }

    pub fn all(replayed: &Replayed) -> impl Iterator<Item = Self> {
        replayed.engine.processes().processes().map(|process| Self::new(replayed, process))
    }

    fn program() -> Vec<Column<Self>> {
        vec![
            Column::<Self>::integer("process", "its number in this export: a tgid is used again", |row, _| Some(row.id.0))
                .always(),
            Column::<Self>::integer("tgid", "", |row, _| Some(row.out.tgid)).always(),
            Column::<Self>::integer("parent_tgid", "at its birth, or as soon as that was known", |row, _| row.out.parent),
            Column::<Self>::text("exe", "what it ran last", |row, _| row.out.exe.as_deref()),
            Column::<Self>::text("argv", "a JSON array", |row, _| row.argv.as_deref()),
            Column::<Self>::text("go_version", "", |row, _| row.out.go_version.as_deref()),
            Column::<Self>::text("tier", "the best that it was followed at; null: no probe was in it", |row, _| row.tier),
            Column::<Self>::text("unprobed", "why it ran without probes", |row, _| row.out.unprobed.as_deref()),
            Column::<Self>::text("container_id", "", |row, _| row.out.container_id.as_deref()),
            Column::<Self>::text("runtime", "of containers", |row, _| row.out.life.runtime),
            Column::<Self>::text("pod_uid", "", |row, _| row.out.life.pod_uid.as_deref()),
            Column::<Self>::text("cgroup", "", |row, _| row.out.life.cgroup.as_deref()),
        ]
    }

    fn life() -> Vec<Column<Self>> {
        vec![
            Column::<Self>::time("started_at_ns", "null: it ran before, or its fork was lost", |row, _| row.out.started_at_ns),
            Column::<Self>::time("first_seen_ns", "its first record", |row, _| Some(row.first_seen_ns)).always(),
            Column::<Self>::time("exited_at_ns", "null: it lives", |row, _| row.out.exited_at_ns),
            Column::<Self>::integer("exit_code", "null: it lives, a signal ended it, or its exit was lost", |row, _| {
                row.out.exit_code
            }),
            Column::<Self>::integer("signal", "that ended it", |row, _| row.out.signal),
            Column::<Self>::boolean("core_dumped", "", |row, _| row.out.life.core_dumped),
            Column::<Self>::bigint("zombie_ns", "from its exit until it was reaped, or the recording ended", |row, _| {
                row.out.zombie_ns
            }),
            Column::<Self>::time("reaped_at_ns", "", |row, _| row.out.life.reaped_at_ns),
            Column::<Self>::integer("reaped_by_tgid", "", |row, _| row.out.life.reaped_by),
            Column::<Self>::integer("adopted_by_tgid", "its newest parent, if that is another", |row, _| row.out.life.adopted_by),
            Column::<Self>::boolean("oom_killed", "", |row, _| Some(row.out.life.oom_killed)).always(),
            Column::<Self>::bigint("stopped_ns", "for how long signals had stopped it", |row, _| Some(row.out.life.stopped_ns))
                .always(),
            Column::<Self>::bigint("throttled_ns", "of its cgroup while it lived; null: nobody looked twice", |row, _| {
                row.out.life.throttled_ns
            }),
            Column::<Self>::bigint("signals_sent", "", |row, _| Some(row.out.life.signals.sent)).always(),
            Column::<Self>::bigint("signals_received", "", |row, _| Some(row.out.life.signals.received)).always(),
        ]
    }
}

impl Row for ProcessRow {
    const TABLE: &'static str = "processes";
    const ABOUT: &'static str = "Every process that was seen (docs/processes.md).";

    fn of(&self) -> Of {
        Of::Process(self.id)
    }

    fn columns() -> Vec<Column<Self>> {
        [Self::program(), Self::life()].into_iter().flatten().collect()
    }
}

/// A program that a process ran.
pub(super) struct ImageRow {
    id: ImageId,
    image: Image,
    tgid: u32,
    argv: Option<String>,
    exe: Option<String>,
    go_version: Option<String>,
    tier: Option<&'static str>,
}

impl ImageRow {
    fn new(names: &Names<'_>, id: ImageId, image: &Image) -> Self {
        let of = names.image(id);
        let binary = names.replayed.binary(image);
        let told = (!image.exe.is_empty()).then(|| image.exe.clone());
        Self {
            id,
            image: image.clone(),
            tgid: of.tgid,
            argv: (!image.args.is_empty()).then(|| json(&image.args)),
            exe: binary.map(|binary| binary.path.clone()).or(told),
            go_version: binary.map(|binary| binary.go_version.clone()),
            tier: of.tier.map(tier),
        }
    }

    pub fn all<'n>(names: &'n Names<'_>) -> impl Iterator<Item = Self> + 'n {
        names.replayed.engine.processes().images().map(|(id, image)| Self::new(names, id, image))
    }
}

impl Row for ImageRow {
    const TABLE: &'static str = "images";
    const ABOUT: &'static str = "The programs that processes ran, in order of time: each exec begins another.";

    fn of(&self) -> Of {
        Of::Image(self.id)
    }

    fn columns() -> Vec<Column<Self>> {
        vec![
            Column::<Self>::integer("image", "its number in this export", |row, _| Some(row.id.0)).always(),
            Column::<Self>::integer("process", "in `processes`", |row, _| Some(row.image.process.0)).always(),
            Column::<Self>::integer("tgid", "", |row, _| Some(row.tgid)).always(),
            Column::<Self>::text("exe", "", |row, _| row.exe.as_deref()),
            Column::<Self>::text("argv", "a JSON array", |row, _| row.argv.as_deref()),
            Column::<Self>::text("go_version", "", |row, _| row.go_version.as_deref()),
            Column::<Self>::text("tier", "the best that it was followed at", |row, _| row.tier),
            Column::<Self>::boolean(
                "executed",
                "it began with an exec; else a copy of the parent's, or it ran before",
                |row, _| Some(row.image.executed),
            )
            .always(),
            Column::<Self>::time("since_ns", "", |row, names| Some(names.since_zero(row.image.since))).always(),
            Column::<Self>::time("until_ns", "null: it ran when the recording ended", |row, names| {
                row.image.until.map(|at| names.since_zero(at))
            }),
        ]
    }
}

/// From when to when an image was followed at which tier.
pub(super) struct CoverageRow {
    image: ImageId,
    span: Coverage,
}

impl CoverageRow {
    pub fn all(replayed: &Replayed) -> impl Iterator<Item = Self> {
        let images = replayed.engine.processes().images();
        images.flat_map(|(image, _)| replayed.coverage(image).into_iter().map(move |span| Self { image, span }))
    }
}

impl Row for CoverageRow {
    const TABLE: &'static str = "coverage";
    const ABOUT: &'static str =
        "From when to when each image was followed at which tier. What a tier does not tell did not fail to happen.";

    fn of(&self) -> Of {
        Of::Image(self.image)
    }

    fn columns() -> Vec<Column<Self>> {
        vec![
            Column::<Self>::integer("image", "in `images`", |row, _| Some(row.image.0)).always(),
            Column::<Self>::integer("tgid", "", |row, names| Some(names.image(row.image).tgid)).always(),
            Column::<Self>::text("tier", "`T0` to `T3`", |row, _| Some(tier(row.span.tier))).always(),
            Column::<Self>::time("from_ns", "", |row, names| Some(names.since_zero(row.span.from))).always(),
            Column::<Self>::time("to_ns", "", |row, names| Some(names.since_zero(row.span.to))).always(),
        ]
    }
}

pub(super) fn json(words: &[String]) -> String {
    serde_json::Value::from(words.to_vec()).to_string()
}

pub(super) fn tier(tier: Tier) -> &'static str {
    match tier {
        Tier::T0 => "T0",
        Tier::T1 => "T1",
        Tier::T2 => "T2",
        Tier::T3 => "T3",
    }
}
