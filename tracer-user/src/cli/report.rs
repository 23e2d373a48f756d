//! `lifetrace report`.

use anyhow::Result;

use super::{
    args::{ReportArgs, ReportFormat},
    exit::Exit,
    output,
};
use crate::export::{
    report::{Report, text},
    sites::Sites,
};

pub fn report(args: &ReportArgs) -> Result<Exit> {
    let mut sites = Sites::default();
    let replayed = output::read(&args.recording, &mut sites)?;
    let report = Report::new(&replayed, sites);
    output::write(args.output.as_deref(), |out| match args.format {
        ReportFormat::Text => text(&report, &replayed, out),
        ReportFormat::Json => report.json(out),
    })?;
    Ok(Exit::FINE)
}
