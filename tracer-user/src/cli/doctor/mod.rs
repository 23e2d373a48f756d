//! `lifetrace doctor`: what this kernel, a binary and a process allow, and what to do about the rest. Changes nothing.

mod pprof;
mod process;
mod target;
mod usdt;

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

use anyhow::{Context, Result, anyhow};
use serde::Serialize;

use self::{process::ProcessReport, target::TargetReport};
use super::{ENVIRONMENT, Failure, args::DoctorArgs, begin::summing_sizes};
use crate::{
    id::Tgid,
    kernel::{
        facts::{Offers, Told},
        features::{self, Check},
        memory::{self, KernelMemory},
        programs::{self, Verified},
    },
    timeline::human::{bytes, plain},
};

/// Everything doctor says (`--json`; docs/json.md).
#[derive(Serialize)]
struct Report {
    schema: &'static str,
    kernel: String,
    checks: Vec<Check>,
    /// How each fact of the kernel would be told.
    facts: Vec<Told>,
    /// What of the kernel's memory a recording takes; `None`: it could not be tried.
    memory: Option<KernelMemory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    programs: Option<Vec<Verified>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<TargetReport>,
    /// What its USDT probes tell, by runtime.
    #[serde(skip_serializing_if = "Option::is_none")]
    usdt: Option<Vec<Ability>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<ProcessReport>,
}

/// Something one may want to do with a target.
#[derive(Serialize)]
pub struct Ability {
    what: &'static str,
    ok: bool,
    found: String,
    /// What to do about it; empty where nothing need be done.
    advice: String,
}

impl Ability {
    fn yes(what: &'static str, found: String) -> Self {
        Self { what, ok: true, found, advice: String::new() }
    }

    fn no(what: &'static str, found: String, advice: &str) -> Self {
        Self { what, ok: false, found, advice: advice.to_owned() }
    }
}

/// Prints the report; exit code 3 if something that `run` needs is missing.
pub fn doctor(args: &DoctorArgs, out: &mut dyn Write) -> Result<u8> {
    let (target, code) = match open(args)? {
        Some((file, path)) => {
            let (target, code) = target::examine(&file, path);
            (Some(target), code)
        }
        None => (None, None),
    };
    let process = args.pid.map(|pid| process::examine(Tgid(pid), code.as_ref()));
    let report = Report {
        schema: "lifetrace.doctor/1",
        kernel: features::kernel_release(),
        checks: features::checks(),
        facts: Offers::look().told(),
        memory: memory::measure(summing_sizes()).ok(),
        programs: args.programs.then(programs::verify).transpose().map_err(Failure::environment)?,
        target,
        usdt: usdt::examine(args),
        process,
    };
    if args.json {
        serde_json::to_writer(&mut *out, &report)?;
        writeln!(out)?;
    } else {
        print(&report, out)?;
    }
    let kernel_fails = report.checks.iter().any(|check| check.required && !check.ok)
        || report.programs.iter().flatten().any(|program| program.refused.is_some());
    let target_fails = report.target.as_ref().is_some_and(|target| target.tier.is_none());
    let process_fails = report.process.as_ref().is_some_and(|process| process.bears_out == Some(false));
    Ok(if kernel_fails || target_fails || process_fails { ENVIRONMENT } else { 0 })
}

/// The file to look at, and what to call it.
fn open(args: &DoctorArgs) -> Result<Option<(File, String)>> {
    let opened = |path: &Path| {
        // Opening a FIFO would wait for whoever writes to it.
        if fs::metadata(path).is_ok_and(|file| !file.is_file()) {
            return Err(anyhow!("{} is not a regular file", path.display()));
        }
        File::open(path).with_context(|| format!("cannot read {}", path.display()))
    };
    match (&args.exe, args.pid) {
        (Some(exe), _) => Ok(Some((opened(exe).map_err(Failure::usage)?, exe.display().to_string()))),
        (None, Some(pid)) => {
            if !fs::exists(format!("/proc/{pid}")).unwrap_or(false) {
                return Err(Failure::usage(anyhow!("there is no process {pid}")).into());
            }
            let exe = format!("/proc/{pid}/exe");
            let path = fs::read_link(&exe).map_or_else(|_| exe.clone(), |path| path.display().to_string());
            Ok(Some((opened(Path::new(&exe)).map_err(Failure::environment)?, path)))
        }
        (None, None) => Ok(None),
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
        print_line(verdict, check.name, &check.found, &check.advice, out)?;
    }
    writeln!(out, "facts of the kernel")?;
    for told in &report.facts {
        writeln!(out, "  {:<8} {:<16} {}", told.through, told.fact, told.by)?;
    }
    if let Some(memory) = report.memory {
        let KernelMemory { rings, ring_bytes, tables_bytes, summing_bytes } = memory;
        writeln!(out, "memory of the kernel's")?;
        print_line("", "rings", &format!("{}: {rings}, one for each CPU", bytes(ring_bytes)), "", out)?;
        print_line(
            "",
            "tables",
            &format!("{}, and {} more with --min-block", bytes(tables_bytes), bytes(summing_bytes)),
            "",
            out,
        )?;
    }
    if report.programs.is_some() {
        writeln!(out, "BPF programs")?;
    }
    for program in report.programs.iter().flatten() {
        let verdict = match (&program.refused, program.hook_missing) {
            (Some(_), _) => "REFUSED",
            (None, true) => "no hook",
            (None, false) => "ok",
        };
        let counted = program.instructions.map_or_else(String::new, |count| format!(", {count} instructions verified"));
        let found = program.refused.clone().unwrap_or_else(|| format!("{}{counted}", program.kind));
        print_line(verdict, &program.name, &found, "", out)?;
    }
    if let Some(target) = &report.target {
        print_target(target, out)?;
    }
    if let Some(usdt) = &report.usdt {
        writeln!(out, "\nUSDT probes")?;
        print_abilities(usdt, out)?;
    }
    if let Some(process) = &report.process {
        writeln!(out, "\nprocess {}", process.pid)?;
        print_abilities(&process.works, out)?;
    }
    Ok(())
}

fn print_line(verdict: &str, name: &str, found: &str, advice: &str, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "  {verdict:<8} {name:<16} {}", plain(found))?;
    if !advice.is_empty() {
        writeln!(out, "           {:<16} → {advice}", "")?;
    }
    Ok(())
}

fn print_abilities(abilities: &[Ability], out: &mut dyn Write) -> Result<()> {
    for ability in abilities {
        let verdict = if ability.ok { "ok" } else { "NO" };
        print_line(verdict, ability.what, &ability.found, &ability.advice, out)?;
    }
    Ok(())
}

fn print_target(target: &TargetReport, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "\n{}", plain(&target.path))?;
    let facts = [
        ("Go version", target.go_version.clone()),
        ("module", target.module.clone().filter(|module| !module.is_empty())),
        ("build id", target.build_id.clone()),
        ("position", target.pie.map(|pie| if pie { "independent (PIE)" } else { "fixed" }.to_owned())),
        ("best tier", target.tier.map(|tier| format!("{tier:?}"))),
        ("problem", target.problem.clone()),
    ];
    for (name, value) in facts.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        writeln!(out, "  {name:<11} {}", plain(&value))?;
    }
    print_abilities(&target.works, out)?;
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
