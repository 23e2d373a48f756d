//! What ran on the CPUs when the sampling clock ticked.

use super::{
    layout::Of,
    names::Names,
    table::{Column, Row},
};
use crate::{
    clock::KtimeNs,
    correlate::{process::ImageId, sample::Sample},
    event::Runner,
    id::Tid,
};

pub(super) struct SampleRow {
    image: ImageId,
    tid: Tid,
    runner: Runner,
    goroutine: Option<u64>,
    at: KtimeNs,
    stack: Option<u32>,
    in_kernel: bool,
    ns: u64,
}

impl SampleRow {
    /// `goroutine`: the life that the runner is at, where that is known.
    pub fn new(image: ImageId, sample: &Sample, goroutine: Option<u64>, names: &mut Names<'_>) -> Self {
        Self {
            image,
            tid: sample.tid,
            runner: sample.runner,
            goroutine,
            at: sample.at,
            stack: names.stack(image, sample.stack),
            in_kernel: sample.in_kernel,
            ns: sample.ns,
        }
    }
}

fn runner(of: Runner) -> &'static str {
    match of {
        Runner::Goroutine(_) => "goroutine",
        Runner::Nobody => "nobody",
        Runner::Unknown => "unknown",
    }
}

impl Row for SampleRow {
    const TABLE: &'static str = "samples";
    const ABOUT: &'static str = "What ran when the sampling clock met a process on a CPU (T3, or `--cpu-hz`), in order of time.";

    fn of(&self) -> Of {
        Of::Image(self.image)
    }

    fn columns() -> Vec<Column<Self>> {
        vec![
            Column::<Self>::integer("image", "in `images`", |row, _| Some(row.image.0)).always(),
            Column::<Self>::integer("tgid", "", |row, names| Some(names.image(row.image).tgid)).always(),
            Column::<Self>::integer("tid", "", |row, _| Some(row.tid.0)).always(),
            Column::<Self>::time("at_ns", "", |row, names| Some(names.since_zero(row.at))).always(),
            Column::<Self>::text(
                "runner",
                "on whose behalf: `goroutine`, `nobody` (the scheduler, or a thread that runs no Go) or `unknown`",
                |row, _| Some(runner(row.runner)),
            )
            .always(),
            Column::<Self>::bigint(
                "goroutine",
                "that life, in `goroutines`; null of a goroutine: only its number is known",
                |row, _| row.goroutine,
            ),
            Column::<Self>::bigint("goid", "Go's number", |row, _| match row.runner {
                Runner::Goroutine(goid) => Some(goid.0),
                Runner::Nobody | Runner::Unknown => None,
            }),
            Column::<Self>::bigint("stack_id", "the code that ran; null: it has no stack, or that was lost", |row, _| {
                row.stack.map(u64::from)
            }),
            Column::<Self>::boolean("in_kernel", "the kernel ran for that code", |row, _| Some(row.in_kernel)).always(),
            Column::<Self>::bigint("cpu_ns", "the CPU time that it stands for: the clock's period", |row, _| Some(row.ns))
                .always(),
        ]
    }
}
