//! The session itself: who recorded what, what is lost and repaired, and what it cost.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    correlate::replay::{Replayed, View},
    export::tally::SummedTally,
    id::Tgid,
    recording::{
        Completeness,
        contract::{Counters, Note, Tier, Why},
    },
};

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
    /// How far the calendar's clock had moved against the recording's by its end; `null` where nobody looked.
    pub clock_drift_ns: Option<i64>,
    pub hit_cost_ns: Option<u64>,
    /// `complete`, `not_ended` or `truncated`.
    pub completeness: &'static str,
    pub truncated_at: Option<u64>,
    pub end_reason: Option<String>,
    pub detach_ns: Option<u64>,
    pub warnings: Vec<String>,
}

#[derive(Serialize)]
pub struct LostOut {
    pub events: u64,
    pub by_kind: BTreeMap<String, u64>,
    /// Of `events`, those of which it is not known when they were lost.
    pub undated: u64,
    /// Events that came too late to be put into order.
    pub late: u64,
    /// By tracepoint: events, of any process, of which the kernel did not tell. At most so many; they are not among `events`.
    pub left_out: BTreeMap<String, u64>,
}

#[derive(Serialize)]
pub struct RepairsOut {
    pub by_kind: BTreeMap<&'static str, u64>,
}

/// Looks at the goroutines of processes that events were held against.
#[derive(Serialize)]
pub struct SnapshotsOut {
    /// They were left out on demand (`--events-only`).
    pub left_out: bool,
    pub taken: u64,
    /// Of `taken`, those that the processes told of themselves (`--pprof`); the others were read out of their memory.
    pub by_pprof: u64,
    /// Those that could not be read.
    pub failed: u64,
    /// How long the reading took, over all; the processes ran on meanwhile.
    pub reading_ns: u64,
    /// When the newest began.
    pub newest_ns: Option<u64>,
}

pub(super) fn snapshots(replayed: &Replayed) -> SnapshotsOut {
    let looks = replayed.engine.looks();
    SnapshotsOut {
        left_out: replayed.view == View::EventsOnly,
        taken: looks.taken,
        by_pprof: looks.by_pprof,
        failed: looks.failed,
        reading_ns: looks.reading_ns,
        newest_ns: looks.newest.map(|at| replayed.since_zero(at)),
    }
}

#[derive(Serialize)]
pub struct Price {
    /// What was to be kept (`--budget`), as a share of a program's CPU time.
    pub budget: Option<f64>,
    pub probe_hits: Option<u64>,
    /// Of `probe_hits`, those through a second probe at the same place: another mount of the same file.
    pub duplicate_hits: Option<u64>,
    pub cost_ns: Option<u64>,
    pub target_cpu_ns: Option<u64>,
    pub share: Option<f64>,
    /// What each program paid.
    pub programs: Vec<PaidOut>,
    /// What processes were asked by HTTP, each by itself.
    pub asked: Vec<AskedOut>,
}

/// What the probes in one file cost.
#[derive(Clone, Serialize)]
pub struct PaidOut {
    pub path: Option<String>,
    /// By tier; `usdt` besides.
    pub hits: BTreeMap<&'static str, u64>,
    pub cost_ns: u64,
    /// CPU time of its processes while they were followed.
    pub cpu_ns: u64,
    pub share: Option<f64>,
}

fn paid(replayed: &Replayed) -> Vec<PaidOut> {
    let counters = replayed.counters.as_ref();
    let all = counters.into_iter().flat_map(|counters| &counters.paid).map(|paid| {
        let usdt = replayed.usdt.iter().find(|file| file.id == paid.binary).map(|file| file.path.clone());
        let cost_ns = paid.cost_ns.iter().fold(0, |sum: u64, ns| sum.saturating_add(*ns));
        PaidOut {
            path: replayed.binaries.get(&paid.binary).map(|binary| binary.path.clone()).or(usdt),
            hits: ["usdt", "T1", "T2", "T3"].into_iter().zip(paid.hits).filter(|(_, hits)| *hits > 0).collect(),
            cost_ns,
            cpu_ns: paid.cpu_ns,
            share: (paid.cpu_ns > 0).then(|| cost_ns as f64 / paid.cpu_ns as f64),
        }
    });
    all.collect()
}

/// How a program was followed over time, where a budget was kept.
#[derive(Clone, Serialize)]
pub struct StepOut {
    pub path: Option<String>,
    pub at_ns: u64,
    pub tier: Tier,
    pub why: Why,
    /// What was paid by then, as a share of its CPU time.
    pub share: f64,
}

pub(super) fn steps(replayed: &Replayed) -> Vec<StepOut> {
    let steps = replayed.notes.iter().filter_map(|note| match note {
        Note::Coverage { at, binary, tier, why: Some(why), share_ppm } => Some(StepOut {
            path: replayed.binaries.get(binary).map(|binary| binary.path.clone()),
            at_ns: replayed.since_zero(*at),
            tier: *tier,
            why: *why,
            share: f64::from(share_ppm.unwrap_or(0)) / 1e6,
        }),
        _ => None,
    });
    steps.collect()
}

/// What a process was asked for its profiles.
#[derive(Clone, Serialize)]
pub struct AskedOut {
    pub tgid: u32,
    pub url: String,
    pub requests: u64,
    /// Of the answers.
    pub bytes: u64,
    /// From asking to the answer's end, over all requests.
    pub took_ns: u64,
}

/// The newest note of each process: it counts from the start.
fn asked(replayed: &Replayed) -> Vec<AskedOut> {
    let mut by_process: BTreeMap<Tgid, AskedOut> = BTreeMap::new();
    for note in &replayed.notes {
        if let Note::Asked { tgid, url, requests, bytes, took_ns, .. } = note {
            let (requests, bytes, took_ns) = (*requests, *bytes, *took_ns);
            by_process.insert(*tgid, AskedOut { tgid: tgid.0, url: url.clone(), requests, bytes, took_ns });
        }
    }
    by_process.into_values().collect()
}

/// Waits and lives that were summed in the kernel (`--min-block`).
#[derive(Serialize)]
pub struct SummedOut {
    /// Those are that are shorter.
    pub min_block_ns: u64,
    pub lives: u64,
    pub waits: u64,
    pub waits_ns: u64,
    /// What was told all the same because a table was full: goroutines, each time a place was wanted for them, and waits and lives.
    pub unkept: u64,
    pub unsummed: u64,
}

pub(super) fn summed(replayed: &Replayed, tally: &SummedTally) -> Option<SummedOut> {
    let counters = replayed.counters.as_ref();
    Some(SummedOut {
        min_block_ns: replayed.meta.min_block_ns?,
        lives: tally.lives,
        waits: tally.waits,
        waits_ns: tally.waits_ns,
        unkept: counters.map_or(0, |counters| counters.unkept),
        unsummed: counters.map_or(0, |counters| counters.unsummed),
    })
}

/// Signals that were counted and not told of.
#[derive(Default, Serialize)]
pub struct SignalCounts {
    /// Of processes that had more of them in a second than are told of.
    pub left_out: u64,
    /// With which Go runtimes interrupted their own threads.
    pub preemption: u64,
}

pub(super) fn signals(replayed: &Replayed) -> SignalCounts {
    let counters = replayed.counters.as_ref();
    counters.map_or_else(SignalCounts::default, |counters| SignalCounts {
        left_out: counters.signals_left_out,
        preemption: counters.preemption_signals,
    })
}

pub(in crate::export) fn meta(replayed: &Replayed) -> MetaOut {
    let meta = &replayed.meta;
    let (completeness, truncated_at) = match replayed.completeness {
        Completeness::Complete => ("complete", None),
        Completeness::NotEnded => ("not_ended", None),
        Completeness::Truncated { at } => ("truncated", Some(at)),
    };
    let warnings = replayed.notes.iter().filter_map(|note| match note {
        Note::Warning { text, .. } => Some(text.clone()),
        Note::Coverage { .. } | Note::Unprobed { .. } | Note::Detaching { .. } | Note::Sampling { .. } | Note::Asked { .. } => {
            None
        }
        Note::Facts { .. } => None,
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
        clock_drift_ns: replayed.end.as_ref().and_then(|end| end.clock).map(|end| meta.clock.drift_ns(&end)),
        hit_cost_ns: meta.hit_cost_ns,
        completeness,
        truncated_at,
        end_reason: replayed.end.as_ref().map(|end| end.reason.clone()),
        detach_ns: replayed.end.as_ref().and_then(|end| end.detach_ns),
        warnings: warnings.collect(),
    }
}

/// What the probes cost the traced programs. Tracepoints of processes cost too, but are few and not calibrated.
pub(in crate::export) fn price(replayed: &Replayed) -> Price {
    let probe_hits = replayed.counters.as_ref().map(|counters| probe_hits(replayed, counters));
    let duplicate_hits = replayed.counters.as_ref().map(|counters| counters.duplicate_hits);
    let programs = paid(replayed);
    // Recordings that do not say what was paid have the hits that counted, and what a trap costs.
    let by_hits = probe_hits.zip(replayed.meta.hit_cost_ns).map(|(hits, cost)| hits.saturating_mul(cost));
    let by_program = (!programs.is_empty()).then(|| programs.iter().fold(0, |sum: u64, paid| sum.saturating_add(paid.cost_ns)));
    let cost_ns = by_program.or(by_hits);
    let target_cpu_ns = replayed.end.as_ref().and_then(|end| end.target_cpu_ns);
    let share = cost_ns.zip(target_cpu_ns).filter(|(_, cpu)| *cpu > 0).map(|(cost, cpu)| cost as f64 / cpu as f64);
    let budget = replayed.meta.budget_ppm.map(|ppm| f64::from(ppm) / 1e6);
    Price { budget, probe_hits, duplicate_hits, cost_ns, target_cpu_ns, share, programs, asked: asked(replayed) }
}

fn probe_hits(replayed: &Replayed, counters: &Counters) -> u64 {
    if replayed.meta.min_block_ns.is_some() {
        // Most made no record.
        return counters.paid.iter().flat_map(|paid| paid.hits).fold(0, u64::saturating_add);
    }
    let others = [counters.foreign_hits, counters.duplicate_hits];
    counters.hits.iter().map(|hits| hits.count).chain(others).fold(0, u64::saturating_add)
}
