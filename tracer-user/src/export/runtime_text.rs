//! What a person reads of the Go runtime: where CPU time goes, pauses and cycles of the collector, who waited behind them.

use std::io::{self, Write};

use crate::{
    finding::{Evidence, Finding},
    timeline::human::{count, duration, instant},
};

use super::{
    cpu::{Class, CpuOut, ProcessCpuOut},
    gc::GcOut,
    report::Report,
    report_text::table,
};

/// Findings shown; `--format json` has more.
const MAX_FINDINGS: usize = 10;

/// The sections of which there is anything to say.
pub fn write(report: &Report, heading: &impl Fn(&str) -> String, out: &mut impl Write) -> io::Result<()> {
    if let Some(cpu) = &report.cpu {
        writeln!(out, "\n{}", heading("CPU time by samples"))?;
        cpu_time(cpu, out)?;
    }
    let busy: Vec<&GcOut> = report.gc.iter().filter(|gc| gc.cycles + gc.pauses.count + gc.pauses.unended > 0).collect();
    if !busy.is_empty() {
        writeln!(out, "\n{}", heading("garbage collection and pauses"))?;
        collections(&busy, out)?;
    }
    if !report.findings.is_empty() {
        writeln!(out, "\n{}", heading("findings"))?;
        findings(&report.findings, out)?;
    }
    Ok(())
}

fn cpu_time(cpu: &CpuOut, out: &mut impl Write) -> io::Result<()> {
    let missed = cpu.expected_ticks.saturating_sub(cpu.ticks);
    // The clock of each CPU begins and ends when it likes.
    let missed = if missed > u64::from(cpu.cpus) { format!("; {} ticks did not come", count(missed)) } else { String::new() };
    let known = cpu.known_goid.map_or(String::new(), |share| format!(", {} of a known goroutine or none", percent(share)));
    writeln!(out, "  {} samples at {} Hz, {}{known}{missed}", count(cpu.samples), cpu.hz, duration(cpu.cpu_ns))?;
    let mut header = vec!["TGID".to_owned(), "CPU".to_owned()];
    header.extend(Class::ALL.map(|class| class.name().to_uppercase()));
    let mut rows: Vec<[String; 9]> = Vec::new();
    rows.extend(header.try_into().ok());
    rows.extend(cpu.by_process.iter().map(row));
    table(&rows, &[true; 9], out)
}

fn row(process: &ProcessCpuOut) -> [String; 9] {
    let share = |class: Class| {
        let share = process.shares.as_ref().and_then(|shares| shares.get(class.name()));
        share.map_or_else(|| "-".to_owned(), |share| percent(*share))
    };
    let [a, b, c, d, e, f, g] = Class::ALL.map(share);
    [process.tgid.to_string(), duration(process.cpu_ns), a, b, c, d, e, f, g]
}

fn plural(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(n), if n == 1 { "" } else { "s" })
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn collections(all: &[&GcOut], out: &mut impl Write) -> io::Result<()> {
    for gc in all {
        let partial = if gc.partial > 0 { format!(", {} of them seen in part", count(gc.partial)) } else { String::new() };
        let pauses = &gc.pauses;
        let unended = if pauses.unended > 0 { format!(", {} more without an end", pauses.unended) } else { String::new() };
        writeln!(
            out,
            "  pid {}: {} in {}{partial}; {} in {}{unended}",
            gc.tgid,
            plural(gc.cycles, "cycle"),
            duration(gc.total_ns),
            plural(pauses.count, "pause"),
            duration(pauses.total_ns)
        )?;
        if let Some(quantiles) = &pauses.quantiles {
            let [median, p99, max] = [quantiles.p50_ns, quantiles.p99_ns, quantiles.max_ns].map(duration);
            writeln!(out, "    median {median}, p99 {p99}, max {max}")?;
        }
        let mut reasons: Vec<_> = pauses.by_reason.iter().collect();
        reasons.sort_by_key(|(name, reason)| (std::cmp::Reverse(reason.total_ns), name.as_str()));
        for (name, reason) in reasons {
            writeln!(out, "    {name} {}x, {}: max {}", count(reason.count), duration(reason.total_ns), duration(reason.max_ns))?;
        }
    }
    Ok(())
}

/// Findings, a line each.
pub fn findings(all: &[Finding], out: &mut impl Write) -> io::Result<()> {
    for finding in all.iter().take(MAX_FINDINGS) {
        let Evidence::Pause(evidence) = &finding.evidence else {
            if let Evidence::Timer(late) = &finding.evidence {
                let (due, every) = (instant(late.due_ns), duration(late.period_ns));
                let what = format!("{} every {every}, due at {due}, was {} late", finding.id, duration(late.late_ns));
                writeln!(out, "  pid {}: {what}: {}", finding.tgid, finding.cause)?;
                continue;
            }
            writeln!(
                out,
                "  pid {}: from {} for {}: {}",
                finding.tgid,
                instant(finding.start_ns),
                duration(finding.end_ns.saturating_sub(finding.start_ns)),
                finding.cause
            )?;
            continue;
        };
        let named: Vec<&str> = evidence.spans.iter().take(3).map(|span| span.id.as_str()).collect();
        let more = if evidence.goroutines as usize > named.len() { ", …" } else { "" };
        writeln!(
            out,
            "  pid {}: at {} {} waited up to {} behind a pause of {} ({}): {}{more}",
            finding.tgid,
            instant(finding.start_ns),
            plural(evidence.goroutines, "goroutine"),
            duration(evidence.longest_ns),
            duration(finding.end_ns.saturating_sub(finding.start_ns)),
            finding.cause,
            named.join(", ")
        )?;
    }
    let more = all.len().saturating_sub(MAX_FINDINGS);
    if more > 0 {
        writeln!(out, "  and {} more (--format json has them)", count(more as u64))?;
    }
    Ok(())
}
