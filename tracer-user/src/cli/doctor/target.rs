//! What can be done with a binary: offsets, tiers, names, snapshots.

use std::fs::File;

use serde::Serialize;

use super::Ability;
use crate::{
    golang::{self, GoBinary, GolangError, Hook, Offsets, Plan},
    recording::contract::{OffsetsSource, Tier},
};

const BUILD_ANEW: &str =
    "build it without `-s -w`, so that its debug information tells, or by a release of Go that is in the table (docs/go.md)";

/// A file, as far as it is a Go program.
#[derive(Default, Serialize)]
pub struct TargetReport {
    pub path: String,
    /// `null`: not a Go program, or one that cannot be read; `problem` says what.
    pub go_version: Option<String>,
    pub module: Option<String>,
    pub build_id: Option<String>,
    pub pie: Option<bool>,
    /// Where the offsets of the runtime's structures come from, in words.
    pub offsets: Option<String>,
    pub offsets_source: Option<OffsetsSource>,
    pub offset_values: Option<Offsets>,
    pub wait_reasons: &'static [&'static str],
    /// The best tier whose hooks are all there.
    pub tier: Option<Tier>,
    pub works: Vec<Ability>,
    pub hooks: Vec<HookReport>,
    pub missing: Vec<MissingReport>,
    pub problem: Option<String>,
}

#[derive(Serialize)]
pub struct HookReport {
    pub hook: &'static str,
    pub function: String,
    pub address: u64,
    pub file_offset: u64,
    pub instruction: String,
    pub emulated: bool,
    pub note: String,
}

#[derive(Serialize)]
pub struct MissingReport {
    pub hook: &'static str,
    pub reason: String,
}

/// Reads a file and says what it is good for; the program comes along if it is Go's.
pub fn examine(file: &File, path: String) -> (TargetReport, Option<GoBinary>) {
    let code = match GoBinary::open(file) {
        Ok(code) => code,
        Err(error) => {
            let problem = match error {
                GolangError::NotGo { .. } => {
                    let what = golang::what_is_file(file).unwrap_or_else(|_| "unreadable".into());
                    format!("not a Go program: {what}")
                }
                other => other.to_string(),
            };
            return (TargetReport { path, problem: Some(problem), ..TargetReport::default() }, None);
        }
    };
    let layout = code.layout();
    let tiers = [Tier::T3, Tier::T2, Tier::T1];
    let best = tiers.into_iter().find(|tier| layout.is_ok() && code.plan(*tier).complete());
    // What is missing from the highest tier is what one wants to know.
    let plan = code.plan(Tier::T3);
    let mut works = vec![offsets(&code)];
    works.extend(tiers.into_iter().rev().map(|asked| tier(&code, asked)));
    works.extend([collector(&code), names(&code), snapshot(&code)]);
    let report = TargetReport {
        path,
        go_version: Some(code.version().to_string()),
        module: Some(code.module().to_owned()),
        build_id: code.build_id().map(str::to_owned),
        pie: Some(code.is_pie()),
        offsets: code.offsets_source().ok().map(ToString::to_string),
        offsets_source: code.offsets_source().ok().cloned(),
        offset_values: code.offsets().ok().copied(),
        wait_reasons: code.wait_reasons(),
        tier: best,
        works,
        hooks: hooks(&plan),
        missing: missing(&plan),
        problem: layout.err().map(|error| error.to_string()),
    };
    (report, Some(code))
}

fn hooks(plan: &Plan) -> Vec<HookReport> {
    let sites = plan.sites.iter().map(|site| HookReport {
        hook: site.hook.name(),
        function: site.function.clone(),
        address: site.address,
        file_offset: site.file_offset,
        instruction: site.instruction.clone(),
        emulated: site.emulated,
        note: site.note.clone(),
    });
    sites.collect()
}

fn missing(plan: &Plan) -> Vec<MissingReport> {
    let missing = plan.missing.iter().map(|missing| MissingReport { hook: missing.hook.name(), reason: missing.reason.clone() });
    missing.collect()
}

/// Which source the offsets have, and what that means.
fn offsets(code: &GoBinary) -> Ability {
    let source = match code.offsets_source() {
        Ok(source) => source,
        Err(error) => return Ability::no("offsets", error.to_string(), BUILD_ANEW),
    };
    let checked = if code.needs_self_check() { "; each process is asked to bear them out before it is believed" } else { "" };
    match source {
        OffsetsSource::Dwarf => Ability::yes("offsets", format!("the binary's own debug information{checked}")),
        OffsetsSource::Table { release } => {
            Ability::yes("offsets", format!("no debug information; measured on this very release, go{release}"))
        }
        OffsetsSource::TableUnverified { minor } => Ability {
            what: "offsets",
            ok: true,
            found: format!("no debug information; measured on another release of go1.{minor}{checked}"),
            advice: format!("`doctor --pid` checks them on a running process; to need no check, {BUILD_ANEW}"),
        },
    }
}

/// Whether there will be a track of the garbage collector.
fn collector(code: &GoBinary) -> Ability {
    match code.plan(Tier::T1).without_gc() {
        None => Ability::yes("GC track", "cycles and pauses, at every tier".to_owned()),
        Some(reason) => Ability::no("GC track", reason.to_owned(), "everything else works without it"),
    }
}

fn tier(code: &GoBinary, tier: Tier) -> Ability {
    let (what, instead) = match tier {
        Tier::T0 | Tier::T1 => ("T1 births, exits", "processes can be followed all the same (T0)"),
        Tier::T2 => ("T2 parks, wakes", "see T1"),
        Tier::T3 => ("T3 scheduling", "see T2; a build with inlining (without -gcflags=-l) has it"),
    };
    let plan = code.plan(tier);
    if code.layout().is_err() {
        return Ability::no(what, "no offsets".to_owned(), "processes can be followed all the same (T0)");
    }
    if !plan.complete() {
        let missing: Vec<String> = plan
            .missing
            .iter()
            .filter(|missing| !missing.hook.is_optional())
            .map(|missing| format!("{}: {}", missing.hook, missing.reason))
            .collect();
        return Ability::no(what, missing.join("; "), instead);
    }
    let counts: Vec<String> =
        Hook::all().filter(|hook| plan.count(*hook) > 0).map(|hook| format!("{} {hook}", plan.count(hook))).collect();
    let stepped = plan.sites.iter().filter(|site| !site.emulated).count();
    Ability {
        what,
        ok: true,
        found: format!("sites: {}", counts.join(", ")),
        advice: match stepped {
            0 => String::new(),
            some => format!("{some} of them are single-stepped by the kernel, some 20 times dearer than the others"),
        },
    }
}

fn names(code: &GoBinary) -> Ability {
    let frames =
        code.function("runtime.gopark").map(|address| code.symbolize(address, crate::recording::contract::CodeUse::Entry));
    match frames.as_deref() {
        Some([.., frame]) if frame.line > 0 => {
            Ability::yes("names", "functions, files, lines and inlined calls, from the runtime's own tables".to_owned())
        }
        _ => Ability::no("names", "the runtime's tables name no lines".to_owned(), "addresses are shown instead"),
    }
}

fn snapshot(code: &GoBinary) -> Ability {
    let list = code.snapshot_layout().and_then(|_| code.all_goroutines());
    match list {
        Ok(list) => Ability::yes("snapshot", format!("its list of goroutines is at {:#x}", list.first)),
        Err(error) => Ability::no("snapshot", error.to_string(), ""),
    }
}
