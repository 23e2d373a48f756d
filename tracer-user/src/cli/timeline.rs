//! `lifetrace timeline`.

use std::io::{self, IsTerminal, Write};

use anyhow::anyhow;
use rustc_hash::FxHashSet;

use super::{
    Failure,
    args::{Global, TimelineArgs, TimelineFormat},
    load_only, write_output,
};
use crate::{
    correlate::{Both, Sink, replay::Replayed},
    id::{Goid, Tgid},
    index::Only,
    leak::{
        tally::LeakTally,
        verdict::{Judged, Kind, Strength, leaks},
    },
    timeline::{Collector, Id, Timeline, perfetto, write::Writer},
};

pub fn main(args: &TimelineArgs, global: Global) -> Result<(), Failure> {
    let collector = Collector::new(args.id);
    if args.format == TimelineFormat::Perfetto {
        if args.output.output.is_none() && io::stdout().is_terminal() {
            return Err(Failure::usage(anyhow!("a trace is no text: give -o FILE, or send it elsewhere")));
        }
        let mut both = Both(collector, LeakTally::default());
        let replayed = replay(args, global, &mut both)?;
        let Both(collector, tally) = both;
        let timeline = timeline(args, &replayed, collector)?;
        note_trust(&replayed, global);
        let leaking = leaking(&replayed, &tally);
        return write_output(args.output.output.as_deref(), |mut out| perfetto::write(&timeline, &leaking, &mut out));
    }
    let mut collector = collector;
    let replayed = replay(args, global, &mut collector)?;
    let timeline = timeline(args, &replayed, collector)?;
    if args.format == TimelineFormat::Jsonl {
        note_trust(&replayed, global);
    }
    write_output(args.output.output.as_deref(), |mut out| match args.format {
        TimelineFormat::Jsonl => Writer::new(&timeline).jsonl(&mut out),
        TimelineFormat::Text | TimelineFormat::Perfetto => Writer::new(&timeline).text(&mut out),
    })
}

/// Says beside the output what it has no room for.
fn note_trust(replayed: &Replayed, global: Global) {
    if !global.quiet {
        let _ = writeln!(io::stderr(), "lifetrace: note: {}", replayed.trust());
    }
}

fn replay(args: &TimelineArgs, global: Global, sink: &mut impl Sink) -> Result<Replayed, Failure> {
    let only = match args.id {
        Some(Id::Goroutine(goid, tgid)) => Some(Only { goid, tgid }),
        _ => None,
    };
    load_only(&args.recording, args.view.view(), only, Global { quiet: true, ..global }, sink)
}

fn timeline<'a>(args: &TimelineArgs, replayed: &'a Replayed, collector: Collector) -> Result<Timeline<'a>, Failure> {
    let mut timeline = Timeline::new(replayed, collector, args.id).map_err(Failure::usage)?;
    timeline.keep_labelled(&args.label);
    if let Some(key) = &args.group_by {
        timeline.group_by(&key.0);
    }
    Ok(timeline)
}

/// The oldest goroutines of each leak.
fn leaking(replayed: &Replayed, tally: &LeakTally) -> FxHashSet<(Tgid, Goid)> {
    let leaks = leaks(replayed, tally, Judged::All);
    let strong = leaks.iter().filter(|leak| leak.kind == Kind::Goroutine && leak.strength > Strength::Watched);
    let ids = strong.flat_map(|leak| leak.ids.iter().map(move |id| (leak.tgid, id)));
    ids.filter_map(|(of, id)| match id.parse() {
        Ok(Id::Goroutine(goid, tgid)) => Some((tgid.unwrap_or(of), goid)),
        _ => None,
    })
    .collect()
}
