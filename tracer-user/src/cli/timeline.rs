//! `lifetrace timeline`.

use anyhow::Result;

use super::{
    args::{TimelineArgs, TimelineFormat},
    exit::{CliError, Exit},
    output,
};
use crate::timeline::{Collector, Id, Timeline, write::Writer};

pub fn timeline(args: &TimelineArgs) -> Result<Exit> {
    let id: Option<Id> = args.id.as_deref().map(str::parse).transpose().map_err(CliError::bad_input)?;
    let mut collector = Collector::new(id);
    let replayed = output::read(&args.recording, &mut collector)?;
    let timeline = Timeline::new(&replayed, collector, id).map_err(CliError::bad_input)?;
    if args.format == TimelineFormat::Jsonl {
        tracing::info!("{}", replayed.trust());
    }
    let mut writer = Writer::new(&timeline);
    output::write(args.output.as_deref(), |mut out| match args.format {
        TimelineFormat::Text => writer.text(&mut out),
        TimelineFormat::Jsonl => writer.jsonl(&mut out),
    })?;
    Ok(Exit::FINE)
}
