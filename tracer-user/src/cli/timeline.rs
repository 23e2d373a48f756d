//! `lifetrace timeline`.

use std::io::{self, Write};

use super::{
    Failure,
    args::{Global, TimelineArgs, TimelineFormat},
    load_only, write_output,
};
use crate::{
    index::Only,
    timeline::{Collector, Id, Timeline, write::Writer},
};

pub fn main(args: &TimelineArgs, global: Global) -> Result<(), Failure> {
    let mut collector = Collector::new(args.id);
    let only = match args.id {
        Some(Id::Goroutine(goid, tgid)) => Some(Only { goid, tgid }),
        _ => None,
    };
    let replayed = load_only(&args.recording, args.view.view(), only, Global { quiet: true, ..global }, &mut collector)?;
    let mut timeline = Timeline::new(&replayed, collector, args.id).map_err(Failure::usage)?;
    timeline.keep_labelled(&args.label);
    if let Some(key) = &args.group_by {
        timeline.group_by(&key.0);
    }
    if args.format == TimelineFormat::Jsonl && !global.quiet {
        // Its lines have no room for it.
        let _ = writeln!(io::stderr(), "lifetrace: note: {}", replayed.trust());
    }
    write_output(args.output.output.as_deref(), |mut out| match args.format {
        TimelineFormat::Text => Writer::new(&timeline).text(&mut out),
        TimelineFormat::Jsonl => Writer::new(&timeline).jsonl(&mut out),
    })
}
