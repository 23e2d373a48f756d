//! The report: what lived, by creation site, with totals, loss, coverage and price. The structures here are the JSON
//! contract `lifetrace.report/1`: fields may be added, none renamed; what a tier cannot know is `null`.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    correlate::{
        process::{Process, ProcessId},
        replay::Replayed,
    },
    recording::{
        Completeness,
        contract::{Counters, Frame, Note, OffsetsSource, Tier},
    },
    symbolize::{Symbolizer, is_system},
    timeline::human,
};

use super::{
    cpu::CpuOut,
    findings::{Finding, findings},
    gc::GcOut,
    tally::{DepthTally, Population, SiteKey, SiteTally, Tally, Waits},
};

#[derive(Serialize)]
pub struct Report {
    pub schema: &'static str,
    pub meta: MetaOut,
    pub duration_ns: u64,
    pub goroutines: Totals,
    pub lost: LostOut,
    pub repairs: RepairsOut,
    pub price: Price,
    pub coverage: Vec<CoverageOut>,
    pub processes: Vec<ProcessOut>,
    pub sites: Vec<SiteOut>,
    /// The same for the runtime's own goroutines.
    pub system_sites: Vec<SiteOut>,
    /// The program's own goroutines by their depth in the tree of creation.
    pub depths: Vec<DepthOut>,
    /// `null`: CPUs were not sampled.
    pub cpu: Option<CpuOut>,
    /// Processes whose runtime has a track.
    pub gc: Vec<GcOut>,
    pub findings: Vec<Finding>,
    /// The loss and coverage in a line.
    #[serde(skip)]
    pub trust: String,
    #[serde(skip)]
    pub recorded: String,
}

#[derive(Serialize)]
pub struct MetaOut {
    pub lifetrace: String,
    pub hostname: String,
    pub kernel: String,
    pub cpus: u32,
    pub command: Vec<String>,
    /// What was attached to, in place of a command.
    pub target: Option<String>,
    pub tier: Tier,
    /// Wall time of the recording's zero, and how exact it is.
    pub zero_unix_ns: u64,
    pub clock_error_ns: u64,
    pub hit_cost_ns: Option<u64>,
    /// `complete`, `not_ended` or `truncated`.
    pub completeness: &'static str,
    pub truncated_at: Option<u64>,
    pub end_reason: Option<String>,
    pub detach_ns: Option<u64>,
    pub warnings: Vec<String>,
}

#[derive(Clone, Copy, Default, Serialize)]
pub struct Totals {
    #[serde(flatten)]
    pub own: Population,
    /// The runtime's own goroutines, which are in none of the other numbers.
    pub system: u64,
}

#[derive(Serialize)]
pub struct LostOut {
    pub events: u64,
    pub by_kind: BTreeMap<String, u64>,
    /// Of `events`, those of which it is not known when they were lost.
    pub undated: u64,
    /// Events that came too late to be put into order.
    pub late: u64,
}

#[derive(Serialize)]
pub struct RepairsOut {
    pub by_kind: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
pub struct Price {
    pub probe_hits: Option<u64>,
    /// Of `probe_hits`, those through a second probe at the same place: another mount of the same file.
    pub duplicate_hits: Option<u64>,
    pub cost_ns: Option<u64>,
    pub target_cpu_ns: Option<u64>,
    pub share: Option<f64>,
}

#[derive(Serialize)]
pub struct CoverageOut {
    pub tgid: u32,
    pub tier: Tier,
    pub from_ns: u64,
    pub to_ns: u64,
}

#[derive(Serialize)]
pub struct ProcessOut {
    pub tgid: u32,
    pub parent: Option<u32>,
    pub exe: Option<String>,
    pub argv: Option<Vec<String>>,
    pub go_version: Option<String>,
    /// Where the offsets into its Go runtime came from.
    pub offsets: Option<OffsetsSource>,
    pub tier: Option<Tier>,
    /// `null`: no probe was in it.
    pub goroutines: Option<Totals>,
    pub started_at_ns: Option<u64>,
    pub exited_at_ns: Option<u64>,
    pub exit_code: Option<u32>,
    pub signal: Option<u32>,
    pub zombie_ns: Option<u64>,
    pub container_id: Option<String>,
    /// Why it ran without probes.
    pub unprobed: Option<String>,
}

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
    /// CPU time by samples; `null` where CPUs were not sampled.
    pub oncpu_ns: Option<u64>,
    pub waits: Option<BTreeMap<String, WaitOut>>,
}

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

#[derive(Default, Serialize)]
pub struct Quantiles {
    pub p50_ns: u64,
    pub p95_ns: u64,
    pub p99_ns: u64,
    pub max_ns: u64,
}

#[derive(Serialize)]
pub struct WaitOut {
    pub count: u64,
    pub blocked_ns: u64,
    #[serde(flatten)]
    pub quantiles: Quantiles,
}

/// Sites that read alike: same process, `go` statement and start function.
type Merged = BTreeMap<(ProcessId, Option<Frame>, Option<String>), (SiteTally, Option<Tier>)>;

/// Names what was tallied.
pub fn report(replayed: &Replayed, tally: &Tally) -> Report {
    let merged = merge(replayed, tally);
    let mut by_process: BTreeMap<ProcessId, Totals> = BTreeMap::new();
    let (mut sites, mut system_sites) = (Vec::new(), Vec::new());
    for ((process, created_by, start_function), (site, tier)) in &merged {
        let totals = by_process.entry(*process).or_default();
        let system = start_function.as_deref().is_some_and(is_system);
        if system {
            totals.system += site.population.seen();
        } else {
            totals.own.add(&site.population);
        }
        let out = site_out(replayed, *process, (created_by.clone(), start_function.clone()), site, *tier);
        if system { system_sites.push(out) } else { sites.push(out) }
    }
    let order = |site: &SiteOut| std::cmp::Reverse((site.population.alive, site.blocked_ns, site.population.seen()));
    sites.sort_by_key(order);
    system_sites.sort_by_key(order);
    let mut goroutines = Totals::default();
    for totals in by_process.values() {
        goroutines.own.add(&totals.own);
        goroutines.system += totals.system;
    }
    let losses = replayed.losses();
    Report {
        schema: "lifetrace.report/1",
        meta: meta(replayed),
        duration_ns: replayed.duration_ns(),
        goroutines,
        lost: LostOut { events: losses.events, by_kind: losses.by_kind, undated: losses.undated, late: replayed.order.late },
        repairs: RepairsOut { by_kind: replayed.engine.repairs().by_kind.clone() },
        price: price(replayed),
        coverage: coverage(replayed),
        processes: processes(replayed, &by_process),
        sites,
        system_sites,
        depths: depths(replayed, tally),
        cpu: super::cpu::cpu(replayed, &tally.cpu),
        gc: super::gc::gc(replayed, &tally.gc),
        findings: findings(replayed, &tally.late),
        trust: replayed.trust(),
        recorded: human::wall(replayed.meta.clock.wall_ns),
    }
}

fn merge(replayed: &Replayed, tally: &Tally) -> Merged {
    let symbols = Symbolizer::new(replayed);
    let mut keys: Vec<&SiteKey> = tally.sites.keys().collect();
    keys.sort_unstable();
    let mut merged = Merged::new();
    for key in keys {
        let site = &tally.sites[key];
        let process = replayed.engine.processes().image(key.image).process;
        let created_by = key.gopc.map(|gopc| symbols.go_statement(key.image, gopc));
        let start_function = key.startpc.map(|pc| crate::symbolize::label(&symbols.entry(key.image, pc)));
        let (into, tier) = merged.entry((process, created_by, start_function)).or_default();
        *tier = replayed.tier(key.image).max(*tier);
        into.population.add(&site.population);
        into.blocked_ns = into.blocked_ns.saturating_add(site.blocked_ns);
        into.running_ns = into.running_ns.saturating_add(site.running_ns);
        into.syscall_ns = into.syscall_ns.saturating_add(site.syscall_ns);
        into.runnable.add(&site.runnable);
        into.oncpu_ns = into.oncpu_ns.saturating_add(site.oncpu_ns);
        for (reason, waits) in &site.waits {
            into.waits.entry(*reason).or_default().add(waits);
        }
    }
    merged
}

fn site_out(
    replayed: &Replayed,
    process: ProcessId,
    (created_by, start_function): (Option<Frame>, Option<String>),
    site: &SiteTally,
    tier: Option<Tier>,
) -> SiteOut {
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
        oncpu_ns: replayed.sampling().map(|_| site.oncpu_ns),
        waits: traced.then(|| site.waits.iter().map(|(reason, waits)| (name(*reason), wait_out(waits))).collect()),
    }
}

fn wait_out(waits: &Waits) -> WaitOut {
    let quantiles = quantiles(waits).unwrap_or_default();
    WaitOut { count: waits.count, blocked_ns: waits.total_ns, quantiles }
}

/// `None` where there was none to measure.
fn quantiles(waits: &Waits) -> Option<Quantiles> {
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

fn depths(replayed: &Replayed, tally: &Tally) -> Vec<DepthOut> {
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

fn meta(replayed: &Replayed) -> MetaOut {
    let meta = &replayed.meta;
    let (completeness, truncated_at) = match replayed.completeness {
        Completeness::Complete => ("complete", None),
        Completeness::NotEnded => ("not_ended", None),
        Completeness::Truncated { at } => ("truncated", Some(at)),
    };
    let warnings = replayed.notes.iter().filter_map(|note| match note {
        Note::Warning { text, .. } => Some(text.clone()),
        Note::Coverage { .. } | Note::Unprobed { .. } | Note::Detaching { .. } | Note::Sampling { .. } => None,
    });
    MetaOut {
        lifetrace: meta.lifetrace.clone(),
        hostname: meta.hostname.clone(),
        kernel: meta.kernel.clone(),
        cpus: meta.cpus,
        command: meta.command.clone(),
        target: meta.target.clone(),
        tier: meta.tier,
        zero_unix_ns: meta.clock.wall_ns.0,
        clock_error_ns: meta.clock.error_ns,
        hit_cost_ns: meta.hit_cost_ns,
        completeness,
        truncated_at,
        end_reason: replayed.end.as_ref().map(|end| end.reason.clone()),
        detach_ns: replayed.end.as_ref().and_then(|end| end.detach_ns),
        warnings: warnings.collect(),
    }
}

/// What the probes cost the traced programs. Tracepoints of processes cost too, but are few and not calibrated.
fn price(replayed: &Replayed) -> Price {
    let probe_hits = replayed.counters.as_ref().map(probe_hits);
    let duplicate_hits = replayed.counters.as_ref().map(|counters| counters.duplicate_hits);
    let cost_ns = probe_hits.zip(replayed.meta.hit_cost_ns).map(|(hits, cost)| hits.saturating_mul(cost));
    let target_cpu_ns = replayed.end.as_ref().and_then(|end| end.target_cpu_ns);
    let share = cost_ns.zip(target_cpu_ns).filter(|(_, cpu)| *cpu > 0).map(|(cost, cpu)| cost as f64 / cpu as f64);
    Price { probe_hits, duplicate_hits, cost_ns, target_cpu_ns, share }
}

fn probe_hits(counters: &Counters) -> u64 {
    let others = [counters.foreign_hits, counters.duplicate_hits];
    counters.hits.iter().map(|hits| hits.count).chain(others).fold(0, u64::saturating_add)
}

fn coverage(replayed: &Replayed) -> Vec<CoverageOut> {
    let processes = replayed.engine.processes();
    let of_image = |(id, _)| {
        let tgid = processes.of_image(id).tgid.0;
        replayed.coverage(id).into_iter().map(move |span| (tgid, span))
    };
    let spans = processes.images().flat_map(of_image);
    let out = spans.map(|(tgid, span)| CoverageOut {
        tgid,
        tier: span.tier,
        from_ns: replayed.since_zero(span.from),
        to_ns: replayed.since_zero(span.to),
    });
    out.collect()
}

fn processes(replayed: &Replayed, totals: &BTreeMap<ProcessId, Totals>) -> Vec<ProcessOut> {
    let all = replayed.engine.processes();
    all.processes().map(|(id, process)| process_out(replayed, process, totals.get(&id).copied())).collect()
}

fn process_out(replayed: &Replayed, process: &Process, totals: Option<Totals>) -> ProcessOut {
    let images = || process.images.iter().rev().map(|image| (*image, replayed.engine.processes().image(*image)));
    // What it runs last names it; it may have run other programs before.
    let binary = images().next().and_then(|(_, image)| replayed.binary(image));
    let tier = images().filter_map(|(id, _)| replayed.tier(id)).max();
    let end = process.ended.map_or(replayed.ended_at, |(at, _)| at);
    let unprobed = replayed.notes.iter().rev().find_map(|note| match note {
        Note::Unprobed { at, tgid, exe, reason } if *tgid == process.tgid && (process.first_seen..=end).contains(at) => {
            Some((exe.clone(), reason.clone()))
        }
        _ => None,
    });
    let status = process.ended.and_then(|(_, status)| status);
    let (exe, unprobed) = unprobed.unzip();
    ProcessOut {
        tgid: process.tgid.0,
        parent: process.parent.map(|parent| parent.0),
        exe: binary.map(|binary| binary.path.clone()).or(exe),
        argv: images().find(|(_, image)| !image.args.is_empty()).map(|(_, image)| image.args.clone()),
        go_version: binary.map(|binary| binary.go_version.clone()),
        offsets: binary.and_then(|binary| binary.offsets.clone()),
        tier,
        goroutines: tier.map(|_| totals.unwrap_or_default()),
        started_at_ns: process.forked_at.map(|at| replayed.since_zero(at)),
        exited_at_ns: process.ended.map(|(at, _)| replayed.since_zero(at)),
        exit_code: status.filter(|status| status & 0x7f == 0).map(|status| status >> 8 & 0xff),
        signal: status.map(|status| status & 0x7f).filter(|signal| *signal != 0),
        zombie_ns: None,
        container_id: None,
        unprobed,
    }
}
