//! Goroutines by creation site.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    super::{
        tally::{Population, SiteTally, Tally, Waits},
        windows::Scaled,
    },
    processes,
};
use crate::{
    correlate::{goroutine::SiteKey, process::ProcessId, replay::Replayed},
    recording::contract::{Frame, Tier},
    symbolize::Symbolizer,
};

#[derive(Serialize)]
pub struct SiteOut {
    pub tgid: u32,
    pub created_by: Option<Frame>,
    pub start_function: Option<String>,
    #[serde(flatten)]
    pub population: Population,
    pub blocked_ns: Option<u64>,
    pub runnable_ns: Option<u64>,
    pub running_ns: Option<u64>,
    pub syscall_ns: Option<u64>,
    pub runnable: Option<Quantiles>,
    /// Set aside for their stacks when somebody looked last; `null`: nobody looked.
    pub stack_bytes: Option<u64>,
    /// CPU time by samples; `null` where CPUs were not sampled.
    pub oncpu_ns: Option<u64>,
    pub waits: Option<BTreeMap<String, WaitOut>>,
    /// Sums over windows, scaled to all the time; `null`: there were no gaps, or no windows.
    pub scaled: Option<Scaled>,
}

#[derive(Serialize)]
pub struct WaitOut {
    pub count: u64,
    pub blocked_ns: u64,
    #[serde(flatten)]
    pub quantiles: Quantiles,
}

#[derive(Default, Serialize)]
pub struct Quantiles {
    pub p50_ns: u64,
    pub p95_ns: u64,
    pub p99_ns: u64,
    pub max_ns: u64,
}

/// Sites that read alike: same process, `go` statement and start function.
pub(super) type Merged = BTreeMap<(ProcessId, Option<Frame>, Option<String>), MergedSite>;

/// One of them.
#[derive(Default)]
pub(super) struct MergedSite {
    pub tally: SiteTally,
    tier: Option<Tier>,
    scaled: Option<Scaled>,
}

pub(super) fn merge(replayed: &Replayed, tally: &Tally) -> Merged {
    let symbols = Symbolizer::new(replayed);
    let mut keys: Vec<&SiteKey> = tally.sites.keys().collect();
    keys.sort_unstable();
    let mut merged = Merged::new();
    let lost_until = replayed.lost_until();
    for key in keys {
        let site = &tally.sites[key];
        let process = replayed.engine.processes().image(key.image).process;
        let created_by = key.gopc.map(|gopc| symbols.go_statement(key.image, gopc));
        let start_function = key.startpc.filter(|pc| pc.0 != 0).map(|pc| crate::symbolize::label(&symbols.entry(key.image, pc)));
        let MergedSite { tally: into, tier, scaled } = merged.entry((process, created_by, start_function)).or_default();
        *tier = replayed.tier(key.image).max(*tier);
        *scaled = Scaled::sum(*scaled, processes::scaled(replayed, tally, key.image, Some(key)));
        into.population.add(&site.population);
        // Who ended while no probe was there may be among those who seem to live; looks alone are another matter.
        let untold_until = if replayed.meta.tier == Tier::T0 { None } else { replayed.untold_until(key.image) };
        let doubtful_until = untold_until.unwrap_or_default().max(lost_until);
        into.population.unconfirmed += site.alive_known.iter().filter(|at| **at < doubtful_until).count() as u64;
        into.blocked_ns = into.blocked_ns.saturating_add(site.blocked_ns);
        into.running_ns = into.running_ns.saturating_add(site.running_ns);
        into.syscall_ns = into.syscall_ns.saturating_add(site.syscall_ns);
        into.runnable.add(&site.runnable);
        if let Some(bytes) = site.stack_bytes {
            into.stack_bytes = Some(into.stack_bytes.unwrap_or(0).saturating_add(bytes));
        }
        into.oncpu_ns = into.oncpu_ns.saturating_add(site.oncpu_ns);
        for (reason, waits) in &site.waits {
            into.waits.entry(*reason).or_default().add(waits);
        }
    }
    merged
}

pub(super) fn site_out(
    replayed: &Replayed,
    process: ProcessId,
    (created_by, start_function): (Option<Frame>, Option<String>),
    MergedSite { tally: site, tier, scaled }: &MergedSite,
) -> SiteOut {
    let (tier, scaled) = (*tier, *scaled);
    let (traced, scheduling) = (tier >= Some(Tier::T2), tier >= Some(Tier::T3));
    let name = |reason| Option::map_or(reason, "unknown", |reason| replayed.engine.reason(reason)).to_owned();
    SiteOut {
        tgid: replayed.engine.processes().process(process).tgid.0,
        created_by,
        start_function,
        population: site.population,
        blocked_ns: traced.then_some(site.blocked_ns),
        runnable_ns: scheduling.then_some(site.runnable.total_ns),
        running_ns: scheduling.then_some(site.running_ns),
        syscall_ns: scheduling.then_some(site.syscall_ns),
        runnable: scheduling.then(|| quantiles(&site.runnable)).flatten(),
        stack_bytes: site.stack_bytes,
        oncpu_ns: replayed.sampling().map(|_| site.oncpu_ns),
        scaled,
        waits: traced.then(|| site.waits.iter().map(|(reason, waits)| (name(*reason), wait_out(waits))).collect()),
    }
}

fn wait_out(waits: &Waits) -> WaitOut {
    let quantiles = quantiles(waits).unwrap_or_default();
    WaitOut { count: waits.count, blocked_ns: waits.total_ns, quantiles }
}

/// `None` where there was none to measure.
pub(super) fn quantiles(waits: &Waits) -> Option<Quantiles> {
    (waits.count > 0).then(|| Quantiles::of(waits))
}

impl Quantiles {
    pub fn of(times: &Waits) -> Self {
        Self {
            p50_ns: times.quantile_ns(0.5),
            p95_ns: times.quantile_ns(0.95),
            p99_ns: times.quantile_ns(0.99),
            max_ns: times.max_ns,
        }
    }
}
