//! Goroutines by their depth in the tree of creation.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    super::tally::{DepthTally, Tally},
    sites::{Quantiles, quantiles},
};
use crate::{
    correlate::{process::ProcessId, replay::Replayed},
    recording::contract::Tier,
    symbolize::{Symbolizer, is_system},
};

/// Goroutines of one process at one depth: 0 is main, and whose parent is not known; the last is that and deeper.
#[derive(Serialize)]
pub struct DepthOut {
    pub tgid: u32,
    pub depth: u32,
    pub born: u64,
    pub blocked_ns: Option<u64>,
    pub runnable_ns: Option<u64>,
    pub running_ns: Option<u64>,
    pub runnable: Option<Quantiles>,
    pub blocked: Option<Quantiles>,
}

pub(super) fn depths(replayed: &Replayed, tally: &Tally) -> Vec<DepthOut> {
    let symbols = Symbolizer::new(replayed);
    let mut merged: BTreeMap<(ProcessId, u32), (DepthTally, Option<Tier>)> = BTreeMap::new();
    for (key, depth) in &tally.depths {
        if key.startpc.is_some_and(|pc| is_system(&symbols.entry(key.image, pc).function)) {
            continue;
        }
        let process = replayed.engine.processes().image(key.image).process;
        let (into, tier) = merged.entry((process, key.depth)).or_default();
        into.add(depth);
        *tier = replayed.tier(key.image).max(*tier);
    }
    let out = merged.into_iter().map(|((process, depth), (tally, tier))| {
        let (traced, scheduling) = (tier >= Some(Tier::T2), tier >= Some(Tier::T3));
        DepthOut {
            tgid: replayed.engine.processes().process(process).tgid.0,
            depth,
            born: tally.born,
            blocked_ns: traced.then_some(tally.blocked.total_ns),
            runnable_ns: scheduling.then_some(tally.runnable.total_ns),
            running_ns: scheduling.then_some(tally.running_ns),
            runnable: scheduling.then(|| quantiles(&tally.runnable)).flatten(),
            blocked: traced.then(|| quantiles(&tally.blocked)).flatten(),
        }
    });
    out.collect()
}
