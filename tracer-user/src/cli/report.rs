//! `lifetrace report`.

use super::{
    Failure,
    args::{Global, ReportArgs, ReportFormat},
    colored, load, write_output,
};
use crate::export::{labels::LabelTally, report::report, report_text, tally::Tally};

pub fn main(args: &ReportArgs, global: Global) -> Result<(), Failure> {
    let mut tally = Tally::default();
    if let Some(key) = &args.group_by {
        tally.labels = LabelTally::by(&key.0);
    }
    let replayed = load(&args.recording, args.view.view(), global, &mut tally)?;
    let report = report(&replayed, &tally);
    let output = args.output.output.as_deref();
    write_output(output, |mut out| match args.format {
        ReportFormat::Text => report_text::write(&report, colored(global, output), &mut out),
        ReportFormat::Json => {
            serde_json::to_writer_pretty(&mut *out, &report)?;
            out.write_all(b"\n")
        }
    })
}
