//! Processes, and from when to when each was followed.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    clock::KtimeNs,
    container,
    correlate::{
        goroutine::SiteKey,
        process::{ImageId, Process, ProcessId},
        replay::Replayed,
    },
    recording::contract::{Note, OffsetsSource, Tier},
    timeline::process::zombie,
};

use super::{
    super::{tally::Tally, threads::ThreadsOut, windows::Scaled},
    Totals,
};

/// Programs that are listed of one process.
const MAX_PROGRAMS: usize = 64;

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
    /// Sums over windows, scaled to its whole life; `null`: there were no gaps, or no windows.
    pub scaled: Option<Scaled>,
    pub started_at_ns: Option<u64>,
    pub exited_at_ns: Option<u64>,
    pub exit_code: Option<u32>,
    pub signal: Option<u32>,
    /// From its exit until it was reaped, or until the recording ended; `null`: it lives, or reaping is not told of.
    pub zombie_ns: Option<u64>,
    pub container_id: Option<String>,
    /// `null`: nothing was heard of them.
    pub threads: Option<ThreadsOut>,
    /// Why it ran without probes.
    pub unprobed: Option<String>,
    #[serde(flatten)]
    pub life: LifeOut,
}

/// What befell a process besides.
#[derive(Default, Serialize)]
pub struct LifeOut {
    /// `null`: it lives, or its exit was lost.
    pub core_dumped: Option<bool>,
    /// `null`: it was not, as far as this recording reaches, or nobody tells.
    pub reaped_at_ns: Option<u64>,
    pub reaped_by: Option<u32>,
    /// Whether the reaper was seen, or is told by who was the parent; then the time is a little late too.
    pub reaper_seen: Option<bool>,
    /// Its parent ignored its end.
    pub autoreaped: bool,
    /// Its newest parent, if that is another than at its birth.
    pub adopted_by: Option<u32>,
    pub adopted_at_ns: Option<u64>,
    pub oom_killed: bool,
    /// For how long signals had stopped it.
    pub stopped_ns: u64,
    pub signals: SignalsOut,
    /// The programs that it executed, in order of time.
    pub programs: Vec<ProgramOut>,
    pub cgroup: Option<String>,
    pub runtime: Option<&'static str>,
    pub pod_uid: Option<String>,
    /// For how long its cgroup had used up its CPU quota while it lived, summed over CPUs; `null`: nobody looked twice.
    pub throttled_ns: Option<u64>,
}

#[derive(Default, Serialize)]
pub struct SignalsOut {
    pub sent: u64,
    pub received: u64,
    pub taken: u64,
}

#[derive(Serialize)]
pub struct ProgramOut {
    pub at_ns: u64,
    /// As the caller gave it.
    pub exe: Option<String>,
    pub argv: Vec<String>,
    /// The thread that executed it, where that was not the leader.
    pub by_tid: Option<u32>,
}

pub(super) fn coverage(replayed: &Replayed) -> Vec<CoverageOut> {
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

pub(super) fn processes(replayed: &Replayed, totals: &BTreeMap<ProcessId, Totals>, tally: &Tally) -> Vec<ProcessOut> {
    let all = replayed.engine.processes();
    all.processes()
        .map(|(id, process)| {
            let threads = tally.threads.out(replayed, id);
            let scaled = process.images.iter().rev().find_map(|image| scaled(replayed, tally, *image, None));
            ProcessOut { threads, scaled, ..process_out(replayed, process, totals.get(&id).copied()) }
        })
        .collect()
}

/// Without what is tallied.
pub(in crate::export) fn process_out(replayed: &Replayed, process: &Process, totals: Option<Totals>) -> ProcessOut {
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
    let told = || images().find(|(_, image)| !image.exe.is_empty()).map(|(_, image)| image.exe.clone());
    let zombie = zombie(replayed, process);
    let place = replayed.cgroups.place(process, KtimeNs::MAX);
    let container = place.paths().find_map(container::of_path).unwrap_or_default();
    ProcessOut {
        tgid: process.tgid.0,
        parent: process.parent.map(|parent| parent.0),
        exe: binary.map(|binary| binary.path.clone()).or(exe).or_else(told),
        argv: images().find(|(_, image)| !image.args.is_empty()).map(|(_, image)| image.args.clone()),
        go_version: binary.map(|binary| binary.go_version.clone()),
        offsets: binary.and_then(|binary| binary.offsets.clone()),
        tier,
        goroutines: tier.map(|_| totals.unwrap_or_default()),
        scaled: None,
        started_at_ns: process.forked_at.map(|at| replayed.since_zero(at)),
        exited_at_ns: process.ended.map(|(at, _)| replayed.since_zero(at)),
        exit_code: status.filter(|status| status & 0x7f == 0).map(|status| status >> 8 & 0xff),
        signal: status.map(|status| status & 0x7f).filter(|signal| *signal != 0),
        zombie_ns: zombie
            .filter(|_| process.life.reaped.is_none_or(|reaped| !reaped.by_look))
            .map(|(from, to)| to.unwrap_or(replayed.ended_at).since(from)),
        container_id: container.id,
        threads: None,
        unprobed,
        life: LifeOut {
            cgroup: place.path().map(str::to_owned),
            runtime: container.runtime,
            pod_uid: container.pod_uid,
            ..life_out(replayed, process)
        },
    }
}

/// What windows tell of all the life of an image, or of one of its sites.
pub(super) fn scaled(replayed: &Replayed, tally: &Tally, image: ImageId, site: Option<&SiteKey>) -> Option<Scaled> {
    let until = replayed.engine.processes().image(image).until.unwrap_or(replayed.ended_at);
    tally.windows.scaled(image, site, until)
}

fn life_out(replayed: &Replayed, process: &Process) -> LifeOut {
    let life = &process.life;
    let all = replayed.engine.processes();
    let end = process.ended.map_or(replayed.ended_at, |(at, _)| at);
    let reaped = life.reaped;
    let adopted = life.adoptions.last();
    let programs = process.images.iter().map(|image| all.image(*image)).filter(|image| image.executed);
    LifeOut {
        core_dumped: process.ended.and_then(|(_, status)| status).map(|status| status & 0x80 != 0),
        reaped_at_ns: reaped.map(|reaped| replayed.since_zero(reaped.at)),
        reaped_by: reaped.and_then(|reaped| reaped.by).map(|by| by.0),
        reaper_seen: reaped.map(|reaped| reaped.seen),
        autoreaped: life.autoreaped,
        adopted_by: adopted.map(|adopted| adopted.parent.0),
        adopted_at_ns: adopted.map(|adopted| replayed.since_zero(adopted.at)),
        oom_killed: life.oom_at.is_some(),
        stopped_ns: life.stops.iter().map(|stop| stop.to.unwrap_or(end).since(stop.from)).sum(),
        signals: SignalsOut { sent: life.signals.sent, received: life.signals.received, taken: life.signals.taken },
        programs: programs
            .take(MAX_PROGRAMS)
            .map(|image| ProgramOut {
                at_ns: replayed.since_zero(image.since),
                exe: (!image.exe.is_empty()).then(|| image.exe.clone()),
                argv: image.args.clone(),
                by_tid: image.by_thread.map(|tid| tid.0),
            })
            .collect(),
        throttled_ns: replayed.throttled_ns(process),
        ..LifeOut::default()
    }
}

/// What a cgroup of followed processes had to bear while anybody looked.
#[derive(Serialize)]
pub struct CgroupOut {
    /// Within the hierarchy of the cpu controller, and within that of the memory controller.
    pub cpu_path: Option<String>,
    pub memory_path: Option<String>,
    /// CPU time that it may use in a period; `null`: as much as there is, or nobody knows.
    pub quota_ns: Option<u64>,
    pub period_ns: Option<u64>,
    pub periods: Option<u64>,
    pub throttled_periods: Option<u64>,
    /// Summed over CPUs.
    pub throttled_ns: Option<u64>,
    pub limit_bytes: Option<u64>,
    /// How often its memory met the limit and ran out, and processes killed for it.
    pub limit_hits: Option<u64>,
    pub oom: Option<u64>,
    pub oom_kills: Option<u64>,
}

pub(super) fn cgroups(replayed: &Replayed) -> Vec<CgroupOut> {
    let out = replayed.burdens().into_iter().map(|burden| CgroupOut {
        cpu_path: burden.load.cpu_path.clone(),
        memory_path: burden.load.memory_path.clone(),
        quota_ns: burden.cpu.and_then(|cpu| cpu.quota_ns),
        period_ns: burden.cpu.filter(|cpu| cpu.quota_ns.is_some()).map(|cpu| cpu.period_ns),
        periods: burden.cpu.map(|cpu| cpu.periods),
        throttled_periods: burden.cpu.map(|cpu| cpu.throttled_periods),
        throttled_ns: burden.cpu.map(|cpu| cpu.throttled_ns),
        limit_bytes: burden.memory.and_then(|memory| memory.limit_bytes),
        limit_hits: burden.memory.map(|memory| memory.max),
        oom: burden.memory.and_then(|memory| memory.oom),
        oom_kills: burden.memory.and_then(|memory| memory.oom_kill),
    });
    out.collect()
}
