//! The garbage collector and other pauses in the report.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::{
    correlate::{
        ReasonId,
        gc::{Cycle, Pause},
        process::{Image, ImageId, ProcessId},
        replay::Replayed,
    },
    timeline::human,
};

use super::{report::Quantiles, tally::Waits};

/// Where the world is stopped: a binary with this among its sites has a track.
const STOPS: &str = "runtime.stopTheWorldWithSema";

/// Collects pauses and cycles while a recording is replayed.
#[derive(Default)]
pub struct GcTally {
    images: FxHashMap<ImageId, OfImage>,
}

#[derive(Clone, Default)]
struct OfImage {
    cycles: u64,
    /// Cycles whose beginning or end was not seen: their time is not known.
    partial: u64,
    total_ns: u64,
    pauses: FxHashMap<ReasonId, Waits>,
    unended: u64,
}

impl GcTally {
    pub fn pause(&mut self, image: ImageId, pause: &Pause) {
        let of = self.images.entry(image).or_default();
        if pause.end_seen {
            of.pauses.entry(pause.reason).or_default().record(pause.end.since(pause.start));
        } else {
            of.unended += 1;
        }
    }

    pub fn cycle(&mut self, image: ImageId, cycle: &Cycle) {
        let of = self.images.entry(image).or_default();
        of.cycles += 1;
        if cycle.start_seen && cycle.end_seen {
            of.total_ns += cycle.end.since(cycle.start);
        } else {
            of.partial += 1;
        }
    }
}

#[derive(Serialize)]
pub struct GcOut {
    pub tgid: u32,
    pub cycles: u64,
    /// Of them, those of which the beginning or the end was not seen; `total_ns` is without them.
    pub partial: u64,
    /// Time in cycles: from the start of the mark workers to the end of the last pause for mark termination.
    pub total_ns: u64,
    pub pauses: PausesOut,
}

#[derive(Serialize)]
pub struct PausesOut {
    pub count: u64,
    /// Besides: whose end was not seen.
    pub unended: u64,
    pub total_ns: u64,
    /// `null` where there was none.
    #[serde(flatten)]
    pub quantiles: Option<Quantiles>,
    pub by_reason: BTreeMap<String, ReasonOut>,
}

#[derive(Serialize)]
pub struct ReasonOut {
    pub count: u64,
    pub total_ns: u64,
    pub max_ns: u64,
}

/// Each process that has a track, also one in which nothing happened.
pub fn gc(replayed: &Replayed, tally: &GcTally) -> Vec<GcOut> {
    let mut processes: BTreeMap<ProcessId, OfImage> = BTreeMap::new();
    for (id, image) in replayed.engine.processes().images().filter(|(_, image)| has_track(replayed, image)) {
        let process = processes.entry(image.process).or_default();
        let Some(of) = tally.images.get(&id) else { continue };
        process.cycles += of.cycles;
        process.partial += of.partial;
        process.total_ns = process.total_ns.saturating_add(of.total_ns);
        process.unended += of.unended;
        for (reason, pauses) in &of.pauses {
            process.pauses.entry(*reason).or_default().add(pauses);
        }
    }
    processes.iter().map(|(id, process)| process.out(replayed, *id)).collect()
}

pub(super) fn has_track(replayed: &Replayed, image: &Image) -> bool {
    replayed.binary(image).is_some_and(|binary| binary.sites.iter().any(|site| site.function == STOPS))
}

impl OfImage {
    fn out(&self, replayed: &Replayed, id: ProcessId) -> GcOut {
        let mut all = Waits::default();
        self.pauses.values().for_each(|pauses| all.add(pauses));
        let by_reason = self.pauses.iter().map(|(reason, pauses)| {
            let out = ReasonOut { count: pauses.count, total_ns: pauses.total_ns, max_ns: pauses.max_ns };
            (human::plain(replayed.engine.reason(*reason)), out)
        });
        GcOut {
            tgid: replayed.engine.processes().process(id).tgid.0,
            cycles: self.cycles,
            partial: self.partial,
            total_ns: self.total_ns,
            pauses: PausesOut {
                count: all.count,
                unended: self.unended,
                total_ns: all.total_ns,
                quantiles: (all.count > 0).then(|| Quantiles::of(&all)),
                by_reason: by_reason.collect(),
            },
        }
    }
}
