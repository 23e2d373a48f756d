//! Processes, and from when to when each was followed.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    correlate::{
        process::{Process, ProcessId},
        replay::Replayed,
    },
    recording::contract::{Note, OffsetsSource, Tier},
};

use super::Totals;

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

pub(super) fn processes(replayed: &Replayed, totals: &BTreeMap<ProcessId, Totals>) -> Vec<ProcessOut> {
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
