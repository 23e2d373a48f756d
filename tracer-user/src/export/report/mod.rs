//! The report: what lived, by creation site, with totals, loss, coverage and price. The structures here are the JSON
//! contract `lifetrace.report/1`: fields may be added, none renamed; what a tier cannot know is `null`.
//!
//! Each file owns the structures of one noun and fills them.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    correlate::{process::ProcessId, replay::Replayed},
    finding::{Finding, findings},
    symbolize::is_system,
    timeline::human,
};

use super::{
    cpu::CpuOut,
    gc::GcOut,
    labels::LabelsOut,
    series::{SeriesOut, series},
    tally::{Population, Tally},
    units::{UnitsOut, units},
};

mod depths;
pub(super) mod processes;
pub(super) mod session;
mod sites;

pub use depths::DepthOut;
pub use processes::{CgroupOut, CoverageOut, LifeOut, ProcessOut};
pub use session::{LostOut, MetaOut, PaidOut, Price, RepairsOut, SignalCounts, SnapshotsOut, StepOut, SummedOut};
pub use sites::{Quantiles, SiteOut, WaitOut};

#[derive(Serialize)]
pub struct Report {
    pub schema: &'static str,
    pub meta: MetaOut,
    pub duration_ns: u64,
    pub goroutines: Totals,
    pub lost: LostOut,
    pub repairs: RepairsOut,
    pub snapshots: SnapshotsOut,
    pub price: Price,
    pub coverage: Vec<CoverageOut>,
    /// How the governor changed that (`--budget`).
    pub steps: Vec<StepOut>,
    pub processes: Vec<ProcessOut>,
    /// Cgroups of followed processes, by path: quota, throttling, memory.
    pub cgroups: Vec<CgroupOut>,
    /// Signals that were only counted.
    pub signals: SignalCounts,
    /// `null`: everything was told.
    pub summed: Option<SummedOut>,
    pub sites: Vec<SiteOut>,
    /// The same for the runtime's own goroutines.
    pub system_sites: Vec<SiteOut>,
    /// The program's own goroutines by their depth in the tree of creation.
    pub depths: Vec<DepthOut>,
    /// Units of work of other runtimes, as their USDT probes told of them.
    pub units: Vec<UnitsOut>,
    /// `null`: CPUs were not sampled.
    pub cpu: Option<CpuOut>,
    /// Processes whose runtime has a track.
    pub gc: Vec<GcOut>,
    pub findings: Vec<Finding>,
    /// By the value of a label, if one was named.
    pub labels: Option<LabelsOut>,
    /// Goroutines, heap and memory over time.
    pub series: SeriesOut,
    /// The loss and coverage in a line.
    #[serde(skip)]
    pub trust: String,
    #[serde(skip)]
    pub recorded: String,
}

#[derive(Clone, Copy, Default, Serialize)]
pub struct Totals {
    #[serde(flatten)]
    pub own: Population,
    /// The runtime's own goroutines, which are in none of the other numbers.
    pub system: u64,
}

/// Names what was tallied.
pub fn report(replayed: &Replayed, tally: &Tally) -> Report {
    let merged = sites::merge(replayed, tally);
    let mut by_process: BTreeMap<ProcessId, Totals> = BTreeMap::new();
    let (mut sites, mut system_sites) = (Vec::new(), Vec::new());
    for ((process, created_by, start_function), site) in &merged {
        let totals = by_process.entry(*process).or_default();
        let system = start_function.as_deref().is_some_and(is_system);
        if system {
            totals.system = totals.system.saturating_add(site.tally.population.seen());
        } else {
            totals.own.add(&site.tally.population);
        }
        let out = sites::site_out(replayed, *process, (created_by.clone(), start_function.clone()), site);
        if system { system_sites.push(out) } else { sites.push(out) }
    }
    let order = |site: &SiteOut| std::cmp::Reverse((site.population.alive, site.blocked_ns, site.population.seen()));
    sites.sort_by_key(order);
    system_sites.sort_by_key(order);
    let mut goroutines = Totals::default();
    for totals in by_process.values() {
        goroutines.own.add(&totals.own);
        goroutines.system = goroutines.system.saturating_add(totals.system);
    }
    let losses = replayed.losses();
    Report {
        schema: "lifetrace.report/1",
        meta: session::meta(replayed),
        duration_ns: replayed.duration_ns(),
        goroutines,
        lost: LostOut {
            events: losses.events,
            by_kind: losses.by_kind,
            undated: losses.undated,
            late: replayed.order.late,
            left_out: replayed.left_out(),
        },
        repairs: RepairsOut { by_kind: replayed.engine.repairs().by_kind.clone() },
        snapshots: session::snapshots(replayed),
        price: session::price(replayed),
        coverage: processes::coverage(replayed),
        steps: session::steps(replayed),
        processes: processes::processes(replayed, &by_process, tally),
        cgroups: processes::cgroups(replayed),
        signals: session::signals(replayed),
        summed: session::summed(replayed, &tally.summed),
        sites,
        system_sites,
        depths: depths::depths(replayed, tally),
        units: units(replayed, &tally.units),
        cpu: super::cpu::cpu(replayed, &tally.cpu),
        gc: super::gc::gc(replayed, &tally.gc),
        findings: findings(replayed, &tally.findings),
        labels: tally.labels.out(replayed),
        series: series(replayed, &tally.series),
        trust: replayed.trust(),
        recorded: human::wall(replayed.meta.clock.wall_ns),
    }
}
