//! `lifetrace flame`.

use std::io::{self, IsTerminal, Write};

use anyhow::anyhow;

use super::{
    Failure,
    args::{FlameArgs, FlameFormat, Global},
    load, write_output,
};
use crate::{
    correlate::replay::View,
    export::{
        flamegraph::{Tally, graph},
        pprof,
    },
};

pub fn main(args: &FlameArgs, global: Global) -> Result<(), Failure> {
    if args.format == FlameFormat::Pprof && args.output.output.is_none() && io::stdout().is_terminal() {
        return Err(Failure::usage(anyhow!("a pprof profile is binary: name a file with -o")));
    }
    let mut tally = Tally::new(args.by.into());
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
