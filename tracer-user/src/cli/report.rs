//! `lifetrace report`.

use std::path::Path;

use super::{
    Failure,
    args::{Global, ReportArgs, ReportFormat},
    colored, load, page,
    subject::Subject,
    write_output,
};
use crate::{
    export::{html::First, labels::LabelTally, report::report, report_text, tally::Tally},
    timeline::{Collector, Timeline},
};

pub fn main(args: &ReportArgs, global: Global) -> Result<(), Failure> {
    let subject = Subject::of(&args.subject, global)?;
    let recording = subject.recording();
    if args.format == ReportFormat::Html {
        return of_html(args, recording, global);
    }
    let mut tally = Tally::default();
    if let Some(key) = &args.group_by {
        tally.labels = LabelTally::by(&key.0);
    }
    let replayed = load(recording, args.view.view(), global, &mut tally)?;
    let report = report(&replayed, &tally);
    let output = args.output.output.as_deref();
    write_output(output, |mut out| match args.format {
        ReportFormat::Text | ReportFormat::Html => report_text::write(&report, colored(global, output), &mut out),
        ReportFormat::Json => {
            serde_json::to_writer_pretty(&mut *out, &report)?;
            out.write_all(b"\n")
        }
    })
}

/// Labels group what is drawn.
fn of_html(args: &ReportArgs, recording: &Path, global: Global) -> Result<(), Failure> {
    let (replayed, told) = page::replayed(recording, args.view.view(), Collector::default(), global)?;
    let timeline = |collector| {
        let mut timeline = Timeline::new(&replayed, collector, None).map_err(Failure::usage)?;
        if let Some(key) = &args.group_by {
            timeline.group_by(&key.0);
        }
        Ok(timeline)
    };
    told.write(&replayed, timeline, First::Report, &args.output)
}
