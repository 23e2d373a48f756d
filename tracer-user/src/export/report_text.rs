//! The report as a person reads it.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use crate::{
    recording::contract::Tier,
    timeline::human::{count, duration, plain},
};

use super::{
    labels_text, processes_text,
    report::{DepthOut, Quantiles, Report, SiteOut, Totals},
    runtime_text,
    windows::Estimate,
};

/// Sites shown; the rest is counted.
const MAX_SITES: usize = 40;
/// Reasons shown for a site.
const MAX_WAITS: usize = 4;

/// What a report is of.
pub(super) fn title(report: &Report) -> String {
    let target = report.meta.target.as_ref().map(|target| format!("attach {target}"));
    let of = plain(&target.unwrap_or_else(|| report.meta.command.join(" ")));
    if of.is_empty() { "(no command)".to_owned() } else { of }
}

/// The recording as a whole, a line each: what it is about, and the line. Without a name it goes on with the one before.
pub(super) fn facts(report: &Report) -> Vec<(&'static str, String)> {
    let meta = &report.meta;
    let recorded = format!(
        "{} on {} (kernel {}, {} CPUs) by lifetrace {}, for {}",
        report.recorded,
        plain(&meta.hostname),
        plain(&meta.kernel),
        meta.cpus,
        meta.lifetrace,
        duration(report.duration_ns)
    );
    let mut facts = vec![("recorded", recorded), ("trust", report.trust.clone())];
    if !report.repairs.by_kind.is_empty() {
        let repairs: Vec<String> = report.repairs.by_kind.iter().map(|(kind, n)| format!("{kind} {}", count(*n))).collect();
        facts.push(("repairs", repairs.join(", ")));
    }
    facts.extend(labels_text::snapshots(&report.snapshots).map(|line| ("snapshots", line)));
    facts.push(("price", price(report)));
    budget(report, &mut facts);
    for asked in &report.price.asked {
        let (requests, took) = (count(asked.requests), duration(asked.took_ns));
        let url = plain(&asked.url);
        facts.push((
            "asked",
            format!("{requests} requests in {took}, {} bytes, of pid {} at {url}", count(asked.bytes), asked.tgid),
        ));
    }
    facts.push(("goroutines", totals(&report.goroutines)));
    facts.extend(meta.warnings.iter().map(|warning| ("warning", plain(warning))));
    facts
}

/// Writes the report; `color` allows for escape sequences.
pub fn write(report: &Report, color: bool, out: &mut impl Write) -> io::Result<()> {
    let heading = |text: &str| if color { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() };
    writeln!(out, "{}", heading(&format!("lifetrace report: {}", title(report))))?;
    for (name, fact) in facts(report) {
        writeln!(out, "{name:<10} {fact}")?;
    }
    writeln!(out, "\n{}", heading("processes"))?;
    processes_text::write(&report.processes, out)?;
    if report.cgroups.iter().any(processes_text::said) {
        writeln!(out, "\n{}", heading("cgroups"))?;
        processes_text::cgroups(&report.cgroups, out)?;
    }
    if report.processes.iter().any(|process| process.threads.as_ref().is_some_and(|threads| threads.detail.is_some())) {
        writeln!(out, "\n{}", heading("threads"))?;
        super::threads::text(&report.processes, out)?;
    }
    runtime_text::write(report, &heading, out)?;
    super::series::text::write(&report.series, &heading, out)?;
    let many = report.processes.iter().filter(|process| process.goroutines.is_some()).count() > 1;
    if !report.sites.is_empty() {
        writeln!(out, "\n{}", heading("goroutines by creation site"))?;
        sites(&report.sites, many, out)?;
    }
    if !report.system_sites.is_empty() {
        writeln!(out, "\n{}", heading("goroutines of the Go runtime"))?;
        sites(&report.system_sites, many, out)?;
    }
    if !report.units.is_empty() {
        writeln!(out, "\n{}", heading("units of work by runtime"))?;
        super::units::text(&report.units, out)?;
    }
    if let Some(labels) = &report.labels {
        writeln!(out, "\n{}", heading(&format!("goroutines by label {}", plain(&labels.key))))?;
        labels_text::write(labels, many, out)?;
    }
    // At lower tiers the tree's depth says nothing that the sites do not say.
    if report.depths.iter().any(|depth| depth.runnable_ns.is_some()) {
        writeln!(out, "\n{}", heading("goroutines by depth in the tree of creation"))?;
        depths(&report.depths, many, out)?;
    }
    Ok(())
}

fn totals(totals: &Totals) -> String {
    let own = &totals.own;
    let mut parts = vec![
        format!("{} born", count(own.born)),
        format!("{} exited", count(own.exited)),
        format!("{} alive at the end", count(own.alive)),
    ];
    if own.preexisting > 0 {
        parts.push(format!("{} whose birth was not seen", count(own.preexisting)));
    }
    if own.gone > 0 {
        parts.push(format!("{} gone whose exit was lost", count(own.gone)));
    }
    if own.unconfirmed > 0 {
        parts.push(format!("{} of those alive unconfirmed: events were lost since they were last known", count(own.unconfirmed)));
    }
    format!("{}; {} of the runtime besides", parts.join(", "), count(totals.system))
}

fn price(report: &Report) -> String {
    let price = &report.price;
    let hits = price.probe_hits.map_or("unknown".into(), |hits| format!("{} probe hits", count(hits)));
    let cost = price.cost_ns.map_or(", cost not calibrated".into(), |ns| format!(", about {}", duration(ns)));
    let cpu = price.target_cpu_ns.map_or(String::new(), |ns| format!(" of {} CPU time", duration(ns)));
    let share = price.share.map_or(String::new(), |share| format!(" ({:.2} %)", share * 100.0));
    format!("{hits}{cost}{cpu}{share}")
}

/// What was paid to keep the budget: how long at which tier, and what sums over windows stand for.
fn budget(report: &Report, facts: &mut Vec<(&'static str, String)>) {
    let Some(budget) = report.price.budget else { return };
    for paid in report.price.programs.iter().filter(|_| report.price.programs.len() > 1) {
        let share = paid.share.map_or("unknown".into(), |share| format!("{:.2} %", share * 100.0));
        let path = plain(paid.path.as_deref().unwrap_or("?"));
        facts.push(("", format!("{path}: about {} of {} ({share})", duration(paid.cost_ns), duration(paid.cpu_ns))));
    }
    let mut by_tier: BTreeMap<Tier, u64> = BTreeMap::new();
    for span in &report.coverage {
        *by_tier.entry(span.tier).or_default() += span.to_ns - span.from_ns;
    }
    let tiers: Vec<String> = by_tier.iter().rev().map(|(tier, ns)| format!("{tier:?} for {}", duration(*ns))).collect();
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for step in &report.steps {
        *reasons.entry(step.why.name()).or_default() += 1;
    }
    let reasons: Vec<String> = reasons.iter().map(|(why, times)| format!("{why} {times}")).collect();
    let steps = if reasons.is_empty() { "no step".to_owned() } else { format!("steps: {}", reasons.join(", ")) };
    facts.push(("budget", format!("{} %: {}; {steps}", budget * 100.0, tiers.join(", "))));
    let scaled = report.processes.iter().filter_map(|process| Some((process.tgid, process.scaled?)));
    for (tgid, scaled) in scaled {
        let number = |value: f64| count(value.max(0.0) as u64);
        let time = |value: f64| duration(value.max(0.0) as u64);
        let parts = [
            estimate(scaled.born, number).map(|born| format!("{born} born")),
            estimate(scaled.waits, number).map(|waits| format!("{waits} waits")),
            estimate(scaled.blocked_ns, time).map(|blocked| format!("{blocked} blocked")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        let estimates = [scaled.born, scaled.waits, scaled.blocked_ns];
        let few = estimates.into_iter().flatten().any(|estimate| estimate.error.is_none());
        let few = if few { " (without bounds: too few windows)" } else { "" };
        facts.push(("scaled", format!("pid {tgid}, over the gaps too: about {}{few}", parts.join(", "))));
    }
}

fn estimate(estimate: Option<Estimate>, text: impl Fn(f64) -> String) -> Option<String> {
    let Estimate { value, error } = estimate?;
    let error = error.map_or(String::new(), |error| format!(" ± {}", text(error)));
    Some(format!("{}{error}", text(value)))
}

fn sites(sites: &[SiteOut], many: bool, out: &mut impl Write) -> io::Result<()> {
    let tgid = |text: String| if many { text } else { String::new() };
    // Columns that only T3 can fill are left out where it was nowhere.
    let scheduled = sites.iter().any(|site| site.runnable_ns.is_some());
    let (runnable, running) = if scheduled { ("RUNNABLE", "RUNNING") } else { ("", "") };
    let time = |ns: Option<u64>| ns.map_or_else(|| if scheduled { "-".into() } else { String::new() }, duration);
    let header = ["BORN", "EXITED", "ALIVE", "BLOCKED", runnable, running, "CREATED BY -> START"].map(str::to_owned);
    let mut rows: Vec<[String; 8]> = vec![with(tgid("TGID".into()), header)];
    for site in sites.iter().take(MAX_SITES) {
        let born = &site.population;
        let before = if born.preexisting > 0 { format!("+{}", count(born.preexisting)) } else { String::new() };
        let line = [
            format!("{}{before}", count(born.born)),
            count(born.exited),
            count(born.alive),
            site.blocked_ns.map_or_else(|| "-".into(), duration),
            time(site.runnable_ns),
            time(site.running_ns),
            plain(&origin(site)),
        ];
        rows.push(with(tgid(site.tgid.to_string()), line));
        rows.extend(waits(site).into_iter().map(|text| with(String::new(), ["", "", "", "", "", "", &text].map(str::to_owned))));
    }
    table(&rows, &[true, true, true, true, true, true, true, false], out)?;
    if sites.len() > MAX_SITES {
        writeln!(out, "  and {} more sites (--format json has all)", count((sites.len() - MAX_SITES) as u64))?;
    }
    Ok(())
}

fn with(first: String, rest: [String; 7]) -> [String; 8] {
    let [a, b, c, d, e, f, g] = rest;
    [first, a, b, c, d, e, f, g]
}

pub(super) fn origin(site: &SiteOut) -> String {
    let Some(by) = &site.created_by else { return "birth not seen".into() };
    let at = if by.line == 0 { String::new() } else { format!(" ({}:{})", by.file, by.line) };
    let start = site.start_function.as_deref().unwrap_or("?");
    format!("{}{at} -> {start}", crate::symbolize::label(by))
}

fn depths(depths: &[DepthOut], many: bool, out: &mut impl Write) -> io::Result<()> {
    let tgid = |text: String| if many { text } else { String::new() };
    let header = ["DEPTH", "BORN", "RUNNING", "RUNNABLE", "MEDIAN", "P99", "BLOCKED", "MEDIAN", "P99"].map(str::to_owned);
    let line = |first: String, rest: [String; 9]| -> [String; 10] {
        let [a, b, c, d, e, f, g, h, i] = rest;
        [first, a, b, c, d, e, f, g, h, i]
    };
    let mut rows = vec![line(tgid("TGID".into()), header)];
    let time = |ns: Option<u64>| ns.map_or_else(|| "-".into(), duration);
    let pair = |quantiles: &Option<Quantiles>| {
        let quantiles = quantiles.as_ref();
        (time(quantiles.map(|all| all.p50_ns)), time(quantiles.map(|all| all.p99_ns)))
    };
    for depth in depths {
        let ((run50, run99), (wait50, wait99)) = (pair(&depth.runnable), pair(&depth.blocked));
        let deeper = if depth.depth == super::tally::MAX_DEPTH { "+" } else { "" };
        rows.push(line(
            tgid(depth.tgid.to_string()),
            [
                format!("{}{deeper}", depth.depth),
                count(depth.born),
                time(depth.running_ns),
                time(depth.runnable_ns),
                run50,
                run99,
                time(depth.blocked_ns),
                wait50,
                wait99,
            ],
        ));
    }
    table(&rows, &[true; 10], out)
}

/// The scheduling delays, and the waits that took longest, a line each.
pub(super) fn waits(site: &SiteOut) -> Vec<String> {
    let delays = site.runnable.as_ref().map(|delays| {
        format!(
            "  waiting for a CPU: median {}, p99 {}, max {}",
            duration(delays.p50_ns),
            duration(delays.p99_ns),
            duration(delays.max_ns)
        )
    });
    let mut waits: Vec<_> = site.waits.iter().flatten().collect();
    waits.sort_by_key(|(name, wait)| (std::cmp::Reverse(wait.blocked_ns), name.as_str()));
    let line = |(name, wait): &(&String, &super::report::WaitOut)| {
        let quantiles = &wait.quantiles;
        format!(
            "  {} {}x, {}: median {}, p99 {}, max {}",
            name,
            count(wait.count),
            duration(wait.blocked_ns),
            duration(quantiles.p50_ns),
            duration(quantiles.p99_ns),
            duration(quantiles.max_ns)
        )
    };
    delays.into_iter().chain(waits.iter().take(MAX_WAITS).map(line)).collect()
}

pub(super) fn shorten(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text.to_owned(),
    }
}

/// Writes rows in columns, two blanks apart; `right` says which columns are numbers. An empty column is left out.
pub(super) fn table<const N: usize>(rows: &[[String; N]], right: &[bool; N], out: &mut impl Write) -> io::Result<()> {
    let widths: Vec<usize> = (0..N).map(|col| rows.iter().map(|row| row[col].chars().count()).max().unwrap_or(0)).collect();
    // The last column is as long as it likes, and the width of long ones before it is theirs.
    for row in rows {
        let mut line = String::new();
        for ((cell, width), right) in row.iter().zip(&widths).zip(right) {
            match (width, right) {
                (0, _) => continue,
                (_, true) => line += &format!("  {cell:>width$}"),
                (_, false) => line += &format!("  {cell:<width$}"),
            }
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}
