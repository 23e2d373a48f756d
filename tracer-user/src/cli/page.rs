//! Pages: `report`, `timeline` and `leaks` with `--format html`.

use std::path::Path;

use super::{
    Failure,
    args::{Global, OutputArg},
    load,
    progress::Progress,
    write_output,
};
use crate::{
    correlate::{
        Both,
        replay::{Replayed, View},
    },
    export::{
        html::{self, First, Flames, Gathered, Page},
        leaks::{self as formats, LeaksOut},
        report::report,
        tally::Tally,
    },
    leak::{
        gate::Gate,
        ignore::IgnoreList,
        tally::LeakTally,
        verdict::{Judged, Leak, Strength, leaking, leaks},
    },
    timeline::{Collector, Timeline},
};

/// What was gathered for a page while a recording was replayed.
pub struct Told {
    pub tally: Tally,
    pub leaks: LeakTally,
    collector: Collector,
    flames: Flames,
    global: Global,
}

/// Replays a recording for a page.
pub fn replayed(recording: &Path, view: View, collector: Collector, global: Global) -> Result<(Replayed, Told), Failure> {
    let mut gathered: Gathered = Both(Both::default(), Both(collector, Flames::default()));
    let replayed = load(recording, view, global, &mut gathered)?;
    let Both(Both(tally, leaks), Both(collector, flames)) = gathered;
    Ok((replayed, Told { tally, leaks, collector, flames, global }))
}

impl Told {
    /// Judges what leaks without a baseline, and writes the page.
    pub fn write<'a>(
        self,
        replayed: &'a Replayed,
        timeline: impl FnOnce(Collector) -> Result<Timeline<'a>, Failure>,
        first: First,
        output: &OutputArg,
    ) -> Result<(), Failure> {
        let found = leaks(replayed, &self.leaks, Judged::Tests);
        let gate = Gate::new(None, IgnoreList::default(), Some(Strength::Suspected));
        let told = formats::leaks(replayed, &found, &gate);
        self.write_judged(replayed, timeline, (&found, &told), first, output)
    }

    /// Writes the page with verdicts that were reached elsewhere.
    pub fn write_judged<'a>(
        self,
        replayed: &'a Replayed,
        timeline: impl FnOnce(Collector) -> Result<Timeline<'a>, Failure>,
        (found, leaks): (&[Leak], &LeaksOut),
        first: First,
        output: &OutputArg,
    ) -> Result<(), Failure> {
        let Self { tally, collector, flames, global, .. } = self;
        let _progress = output.output.as_ref().map(|path| Progress::of_work(format!("writing {}", path.display()), global));
        let report = report(replayed, &tally);
        let (timeline, leaking) = (timeline(collector)?, leaking(found));
        let page = Page { replayed, report: &report, leaks, timeline: &timeline, flames: &flames, leaking: &leaking, first };
        write_output(output.output.as_deref(), |out| html::write(&page, out))
    }
}
