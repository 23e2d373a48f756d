//! `lifetrace timeline`.

use std::{
    io::{self, IsTerminal, Write},
    path::Path,
};

use super::{
    Failure,
    args::{Global, TimelineArgs, TimelineFormat},
    load_only, page,
    progress::Progress,
    subject::Subject,
    write_output,
};
use crate::{
    correlate::{Both, Sink, replay::Replayed},
    export::html::First,
    index::Only,
    leak::{
        tally::LeakTally,
        verdict::{Judged, leaking, leaks},
    },
    timeline::{Collector, Id, Timeline, perfetto, write::Writer},
};
use anyhow::anyhow;

pub fn main(args: &TimelineArgs, global: Global) -> Result<(), Failure> {
    if args.format == TimelineFormat::Perfetto && args.output.output.is_none() && io::stdout().is_terminal() {
        return Err(Failure::usage(anyhow!("a trace is no text: give -o FILE, or send it elsewhere")));
    }
    let subject = Subject::of(&args.subject, global)?;
    let recording = subject.recording();
    let collector = Collector::new(args.id);
    if args.format == TimelineFormat::Html {
        // All of it: a page tells of more than the timeline.
        let (replayed, told) = page::replayed(recording, args.view.view(), collector, global)?;
        return told.write(&replayed, |collector| timeline(args, &replayed, collector), First::Timeline, &args.output);
    }
    if args.format == TimelineFormat::Perfetto {
        let mut both = Both(collector, LeakTally::default());
        let replayed = replay(args, recording, global, &mut both)?;
        let Both(collector, tally) = both;
        let timeline = timeline(args, &replayed, collector)?;
        note_trust(&replayed, global);
        let _progress = writing(args, global);
        let leaking = leaking(&leaks(&replayed, &tally, Judged::All));
        return write_output(args.output.output.as_deref(), |mut out| perfetto::write(&timeline, &leaking, &mut out));
    }
    let mut collector = collector;
    let replayed = replay(args, recording, global, &mut collector)?;
    let timeline = timeline(args, &replayed, collector)?;
    if args.format == TimelineFormat::Jsonl {
        note_trust(&replayed, global);
    }
    let _progress = writing(args, global);
    write_output(args.output.output.as_deref(), |mut out| match args.format {
        TimelineFormat::Jsonl => Writer::new(&timeline).jsonl(&mut out),
        TimelineFormat::Text | TimelineFormat::Perfetto | TimelineFormat::Html => Writer::new(&timeline).text(&mut out),
    })
}

/// What is written to the terminal shows by itself how far it is.
fn writing(args: &TimelineArgs, global: Global) -> Option<Progress> {
    args.output.output.as_ref().map(|path| Progress::of_work(format!("writing {}", path.display()), global))
}

/// Says beside the output what it has no room for.
fn note_trust(replayed: &Replayed, global: Global) {
    if !global.quiet {
        let _ = writeln!(io::stderr(), "lifetrace: note: {}", replayed.trust());
    }
}

fn replay(args: &TimelineArgs, recording: &Path, global: Global, sink: &mut impl Sink) -> Result<Replayed, Failure> {
    let only = match args.id {
        Some(Id::Goroutine(goid, tgid)) => Some(Only { goid, tgid }),
        _ => None,
    };
    load_only(recording, args.view.view(), only, global, sink)
}

fn timeline<'a>(args: &TimelineArgs, replayed: &'a Replayed, collector: Collector) -> Result<Timeline<'a>, Failure> {
    let mut timeline = Timeline::new(replayed, collector, args.id).map_err(Failure::usage)?;
    timeline.keep_labelled(&args.label);
    if let Some(key) = &args.group_by {
        timeline.group_by(&key.0);
    }
    Ok(timeline)
}
