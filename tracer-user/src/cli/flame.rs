//! `lifetrace flame`.

use std::{
    io::{self, IsTerminal, Write},
    path::Path,
};

use anyhow::anyhow;

use super::{
    Failure,
    args::{FlameArgs, FlameFormat, FlameOf, FlameSubject, Global},
    load_only,
    subject::Subject,
    write_output,
};
use crate::{
    clock::KtimeNs,
    correlate::{
        LabelsId, Life, Sink, Span, SumOfMany,
        goroutine::Who,
        process::ImageId,
        replay::View,
        sample::Sample,
        thread::{ThreadLife, ThreadSpan, ThreadWho},
    },
    export::{
        flame_diff::Difference,
        flamegraph::{self, Graph, Tally, graph},
        pprof, profile_flame,
        thread_flame::{self, ThreadTally},
    },
    recording::contract::Threads,
};

pub fn main(args: &FlameArgs, global: Global) -> Result<(), Failure> {
    if args.format == FlameFormat::Pprof && args.output.output.is_none() && io::stdout().is_terminal() {
        return Err(Failure::usage(anyhow!("a pprof profile is binary: name a file with -o")));
    }
    let by = args.by.into();
    if let FlameOf::Events(_) = by {
        answerable(args)?;
    }
    let subject = Subject::of(&args.subject, global)?;
    match by {
        FlameOf::Events(by) => of_events(args, subject.recording(), global, by),
        FlameOf::Profiles(by) => of_profiles(args, subject.recording(), global, by),
    }
}

/// Whether events can answer what is asked of them.
fn answerable(args: &FlameArgs) -> Result<(), Failure> {
    if args.at.is_some() {
        return Err(Failure::usage(anyhow!("--at is for what profiles say: inuse_space and those behind it in --help")));
    }
    if let Some(None) = args.diff {
        return Err(Failure::usage(anyhow!(
            "--diff wants a second recording here: --diff REC2 shows what grew from REC to REC2"
        )));
    }
    Ok(())
}

fn of_events(args: &FlameArgs, recording: &Path, global: Global, by: flamegraph::By) -> Result<(), Failure> {
    let after = args.diff.as_ref().and_then(Option::as_ref);
    let first = answer(args, recording, global, by, after.is_none())?;
    let Some(after) = after else { return write_graph(args, global, &first) };
    let difference = Difference::new(first, answer(args, after, global, by, false)?);
    if args.format == FlameFormat::Folded && !global.quiet {
        let _ = writeln!(io::stderr(), "lifetrace: note: {}", difference.notes());
    }
    write_output(args.output.output.as_deref(), |mut out| match args.format {
        FlameFormat::Svg => difference.write_svg(&mut out),
        FlameFormat::Folded => difference.write_folded(&mut out),
        FlameFormat::Pprof => difference.write_pprof(&mut out),
    })
}

/// What a recording answers. `apart`: by process.
fn answer(args: &FlameArgs, recording: &Path, global: Global, by: flamegraph::By, apart: bool) -> Result<Graph, Failure> {
    let mut both = Both { goroutines: Tally::new(by), threads: ThreadTally::new(by) };
    let replayed = load_only(recording, View::default(), None, global, &mut both)?;
    let go = replayed.engine.processes().images().any(|(_, image)| image.first_hit.is_some());
    // Of a recording without threads, it is the goroutines that are missing.
    let default = if go || replayed.meta.threads == Threads::Off { FlameSubject::Goroutines } else { FlameSubject::Threads };
    let graph = match args.of.unwrap_or(default) {
        FlameSubject::Goroutines => graph(&replayed, &both.goroutines, apart),
        FlameSubject::Threads => thread_flame::graph(&replayed, &both.threads, apart),
    };
    graph.map_err(Failure::usage)
}

fn write_graph(args: &FlameArgs, global: Global, graph: &Graph) -> Result<(), Failure> {
    if args.format == FlameFormat::Folded && !global.quiet {
        // The lines have no room for it.
        let _ = writeln!(io::stderr(), "lifetrace: note: {}", graph.trust);
    }
    write_output(args.output.output.as_deref(), |mut out| match args.format {
        FlameFormat::Svg => graph.write_svg(&mut out),
        FlameFormat::Folded => graph.write_folded(&mut out),
        FlameFormat::Pprof => pprof::write(graph, &mut out),
    })
}

/// One reading of the recording serves for either.
struct Both {
    goroutines: Tally,
    threads: ThreadTally,
}

impl Sink for Both {
    fn span(&mut self, who: &Who, span: &Span) {
        self.goroutines.span(who, span);
    }

    fn life(&mut self, who: &Who, life: &Life) {
        self.goroutines.life(who, life);
    }

    fn thread_span(&mut self, who: &ThreadWho, span: &ThreadSpan) {
        self.threads.thread_span(who, span);
    }

    fn thread_life(&mut self, who: &ThreadWho, life: &ThreadLife) {
        self.threads.thread_life(who, life);
    }

    fn summed(&mut self, sum: &SumOfMany<'_>) {
        self.goroutines.summed(sum);
    }

    fn labels(&mut self, who: &Who, at: KtimeNs, labels: LabelsId) {
        self.goroutines.labels(who, at, labels);
    }

    fn sample(&mut self, image: ImageId, sample: &Sample) {
        self.goroutines.sample(image, sample);
        self.threads.sample(image, sample);
    }
}

/// Profiles stand beside the events.
struct Ignored;

impl Sink for Ignored {
    fn span(&mut self, _: &Who, _: &Span) {}
    fn life(&mut self, _: &Who, _: &Life) {}
}

fn of_profiles(args: &FlameArgs, recording: &Path, global: Global, by: profile_flame::By) -> Result<(), Failure> {
    let read = |path| load_only(path, View::default(), None, global, &mut Ignored);
    let replayed = read(recording)?;
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
