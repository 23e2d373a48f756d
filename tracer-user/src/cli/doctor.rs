//! `lifetrace doctor`: what this kernel and this target allow, and what to do about the rest. Changes nothing.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{ENVIRONMENT, Failure, args::DoctorArgs};
use crate::{
    golang::{self, GoBinary, GolangError},
    kernel::features::{self, Check},
    recording::contract::Tier,
    timeline::human::plain,
};

/// Everything doctor says (`--json`; docs/json.md).
#[derive(Serialize)]
struct Report {
    schema: &'static str,
    kernel: String,
    checks: Vec<Check>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<TargetReport>,
}

#[derive(Serialize)]
struct TargetReport {
    path: String,
    /// `null`: not a Go program, or one that cannot be read; `problem` says what.
    go_version: Option<String>,
    module: Option<String>,
    build_id: Option<String>,
    pie: Option<bool>,
    /// Where the offsets of the runtime's structures come from.
    offsets: Option<String>,
    /// The best tier whose hooks are all there.
    tier: Option<Tier>,
    hooks: Vec<HookReport>,
    missing: Vec<MissingReport>,
    problem: Option<String>,
}

#[derive(Serialize)]
struct HookReport {
    hook: &'static str,
    function: String,
    address: u64,
    file_offset: u64,
    instruction: String,
    emulated: bool,
    note: String,
}

#[derive(Serialize)]
struct MissingReport {
    hook: &'static str,
    reason: String,
}

/// Prints the report; exit code 3 if something that `run` needs is missing.
pub fn doctor(args: &DoctorArgs, out: &mut dyn Write) -> Result<u8> {
    let path = match (&args.exe, args.pid) {
        (Some(exe), _) => Some(exe.clone()),
        (None, Some(pid)) => Some(PathBuf::from(format!("/proc/{pid}/exe"))),
        (None, None) => None,
    };
    let target = path.as_deref().map(examine).transpose()?;
    let report = Report { schema: "lifetrace.doctor/1", kernel: features::kernel_release(), checks: features::checks(), target };
    if args.json {
        serde_json::to_writer(&mut *out, &report)?;
        writeln!(out)?;
    } else {
        print(&report, out)?;
    }
    let kernel_fails = report.checks.iter().any(|check| check.required && !check.ok);
    let target_fails = report.target.as_ref().is_some_and(|target| target.tier.is_none());
    Ok(if kernel_fails || target_fails { ENVIRONMENT } else { 0 })
}

fn examine(path: &Path) -> Result<TargetReport> {
    // Opening a FIFO would wait for whoever writes to it.
    let special = fs::metadata(path).is_ok_and(|file| !file.is_file());
    if special {
        return Err(Failure::usage(anyhow::anyhow!("{} is not a regular file", path.display())).into());
    }
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display())).map_err(Failure::usage)?;
    let path = path.display().to_string();
    let code = match GoBinary::open(&file) {
        Ok(code) => code,
        Err(error) => {
            let problem = match error {
                GolangError::NotGo { .. } => {
                    let what = golang::what_is_file(&file).unwrap_or_else(|_| "unreadable".into());
                    format!("not a Go program: {what}")
                }
                other => other.to_string(),
            };
            return Ok(TargetReport::unusable(path, problem));
        }
    };
    let plan = code.plan(Tier::T2);
    let layout = code.layout();
    let tier = match &layout {
        Err(_) => None,
        Ok(_) => [Tier::T2, Tier::T1].into_iter().find(|tier| code.plan(*tier).complete()),
    };
    Ok(TargetReport {
        path,
        go_version: Some(code.version().to_string()),
        module: Some(code.module().to_owned()),
        build_id: code.build_id().map(str::to_owned),
        pie: Some(code.is_pie()),
        offsets: layout.as_ref().ok().map(|_| {
            let (major, minor) = code.version().release();
            format!("table for go{major}.{minor}")
        }),
        tier,
        hooks: plan
            .sites
            .into_iter()
            .map(|site| HookReport {
                hook: site.hook.name(),
                function: site.function,
                address: site.address,
                file_offset: site.file_offset,
                instruction: site.instruction,
                emulated: site.emulated,
                note: site.note,
            })
            .collect(),
        missing: plan
            .missing
            .into_iter()
            .map(|missing| MissingReport { hook: missing.hook.name(), reason: missing.reason })
            .collect(),
        problem: layout.err().map(|error| error.to_string()),
    })
}

impl TargetReport {
    fn unusable(path: String, problem: String) -> Self {
        Self {
            path,
            go_version: None,
            module: None,
            build_id: None,
            pie: None,
            offsets: None,
            tier: None,
            hooks: Vec::new(),
            missing: Vec::new(),
            problem: Some(problem),
        }
    }
}

fn print(report: &Report, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "kernel {}", report.kernel)?;
    for check in &report.checks {
        let verdict = match (check.ok, check.required) {
            (true, _) => "ok",
            (false, true) => "MISSING",
            (false, false) => "absent",
        };
        writeln!(out, "  {:<8} {:<15} {}", verdict, check.name, check.found)?;
        if !check.advice.is_empty() {
            writeln!(out, "           {:<15} → {}", "", check.advice)?;
        }
    }
    let Some(target) = &report.target else {
        return Ok(());
    };
    writeln!(out, "\n{}", plain(&target.path))?;
    let facts = [
        ("Go version", target.go_version.clone()),
        ("module", target.module.clone().filter(|module| !module.is_empty())),
        ("build id", target.build_id.clone()),
        ("position", target.pie.map(|pie| if pie { "independent (PIE)" } else { "fixed" }.to_owned())),
        ("offsets", target.offsets.clone()),
        ("best tier", target.tier.map(|tier| format!("{tier:?}"))),
        ("problem", target.problem.clone()),
    ];
    for (name, value) in facts.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        writeln!(out, "  {name:<11} {}", plain(&value))?;
    }
    for hook in &target.hooks {
        let kind = if hook.emulated { "emulated" } else { "SINGLE-STEPPED" };
        let (function, instruction) = (plain(&hook.function), plain(&hook.instruction));
        writeln!(out, "  {:<11} {:#x} {function}: {instruction} ({kind})", hook.hook, hook.address)?;
    }
    for missing in &target.missing {
        writeln!(out, "  {:<11} missing: {}", missing.hook, plain(&missing.reason))?;
    }
    Ok(())
}
