//! `lifetrace flame`.

use std::io::{self, IsTerminal, Write};

use anyhow::anyhow;

use super::{
    Failure,
    args::{FlameArgs, FlameFormat, FlameOf, Global},
    load, write_output,
};
use crate::{
    correlate::{
        Life, Sink, Span,
        goroutine::Who,
        replay::{Replayed, View},
    },
    export::{
        flamegraph::{self, Tally, graph},
        pprof, profile_flame,
    },
};

pub fn main(args: &FlameArgs, global: Global) -> Result<(), Failure> {
    if args.format == FlameFormat::Pprof && args.output.output.is_none() && io::stdout().is_terminal() {
        return Err(Failure::usage(anyhow!("a pprof profile is binary: name a file with -o")));
    }
    match args.by.into() {
        FlameOf::Events(by) => of_events(args, global, by),
        FlameOf::Profiles(by) => of_profiles(args, global, by),
    }
}

fn of_events(args: &FlameArgs, global: Global, by: flamegraph::By) -> Result<(), Failure> {
    if args.diff.is_some() || args.at.is_some() {
        return Err(Failure::usage(anyhow!(
            "--diff and --at are for what profiles say: inuse_space and those behind it in --help"
        )));
    }
    let mut tally = Tally::new(by);
    let replayed = load(&args.recording, View::default(), Global { quiet: true, ..global }, &mut tally)?;
    let graph = graph(&replayed, &tally).map_err(Failure::usage)?;
    if args.format == FlameFormat::Folded && !global.quiet {
        // The lines have no room for it.
        let _ = writeln!(io::stderr(), "lifetrace: note: {}", graph.trust);
    }
    write_output(args.output.output.as_deref(), |mut out| match args.format {
        FlameFormat::Svg => graph.write_svg(&mut out),
        FlameFormat::Folded => graph.write_folded(&mut out),
        FlameFormat::Pprof => pprof::write(&graph, &mut out),
    })
}

/// Profiles stand beside the events.
struct Ignored;

impl Sink for Ignored {
    fn span(&mut self, _: &Who, _: &Span) {}
    fn life(&mut self, _: &Who, _: &Life) {}
}

fn of_profiles(args: &FlameArgs, global: Global, by: profile_flame::By) -> Result<(), Failure> {
    let read =
        |path| -> Result<Replayed, Failure> { load(path, View::default(), Global { quiet: true, ..global }, &mut Ignored) };
    let replayed = read(&args.recording)?;
    let at_ns = args.at.map(|at| u64::try_from(at.as_nanos()).unwrap_or(u64::MAX));
    let flame = match &args.diff {
        None => profile_flame::at(&replayed, by, at_ns),
        Some(None) => profile_flame::growth(&replayed, by, at_ns),
        Some(Some(second)) => profile_flame::growth_between(&replayed, &read(second)?, by, at_ns),
    };
    let flame = flame.map_err(Failure::usage)?;
    if args.format == FlameFormat::Folded && !global.quiet {
        let _ = writeln!(io::stderr(), "lifetrace: note: {}", flame.notes.join("; "));
    }
    write_output(args.output.output.as_deref(), |mut out| match args.format {
        FlameFormat::Svg => flame.write_svg(&mut out),
        FlameFormat::Folded => flame.write_folded(&mut out),
        FlameFormat::Pprof => flame.write_pprof(&mut out),
    })
}
