//! The report: what lived, by creation site; waits; totals; loss; coverage; price.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use serde::Serialize;

use crate::{
    correlate::{
        process::{ImageId, Process, ProcessId},
        replay::Replayed,
    },
    recording::{
        Completeness,
        contract::{Frame, Tier},
    },
    symbolize::{Symbolizer, is_system, label},
    timeline::human,
};

use super::sites::{Site, SiteKey, Sites, Waits};

/// The whole report. Its JSON is a contract (docs/json.md): fields may be added, none renamed; what a tier cannot know is
/// `null`.
#[derive(Debug, Serialize)]
pub struct Report {
    pub schema: &'static str,
    pub meta: Meta,
    pub duration_ns: u64,
    /// The program's own goroutines over all processes; the runtime's own are only counted in `system`.
    pub goroutines: Counts,
    pub lost: ByKind,
    pub repairs: Repairs,
    pub price: Price,
    pub coverage: Vec<CoverageLine>,
    pub processes: Vec<ProcessLine>,
    pub sites: Vec<SiteLine>,
    /// Sites of the runtime's own goroutines.
    pub system_sites: Vec<SiteLine>,
    pub notes: Vec<String>,
    pub findings: Vec<serde_json::Value>,
}

#[derive(Debug, Serialize)]
pub struct Meta {
    pub lifetrace: String,
    pub hostname: String,
    pub kernel: String,
    pub cpus: u32,
    pub command: Vec<String>,
    /// Wall time of the recording's zero, ns since the epoch, and how exactly it is known.
    pub started_at_unix_ns: u64,
    pub clock_error_ns: u64,
    /// `complete`, `not_ended` or `truncated`.
    pub completeness: &'static str,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Counts {
    pub born: u64,
    pub exited: u64,
    pub alive: u64,
    pub preexisting: u64,
    /// Gone, but their exit was not seen.
    pub gone: u64,
    pub system: u64,
}

#[derive(Debug, Serialize)]
pub struct ByKind {
    pub events: u64,
    pub by_kind: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
pub struct Repairs {
    pub by_kind: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Serialize)]
pub struct Price {
    pub probe_hits: Option<u64>,
    /// Hits times the calibrated cost of an empty probe: what lifetrace's own programs add (less than as much again) is not
    /// in it.
    pub cost_ns: Option<u64>,
    pub target_cpu_ns: Option<u64>,
    pub share: Option<f64>,
    pub hit_cost_ns: Option<u64>,
    /// Hits of processes that are not followed but run a probed file.
    pub foreign_hits: Option<u64>,
}

#[derive(Debug, Serialize)]
pub struct CoverageLine {
    pub tgid: u32,
    pub tier: Tier,
    pub from_ns: u64,
    pub to_ns: u64,
}

#[derive(Debug, Serialize)]
pub struct ProcessLine {
    pub tgid: u32,
    pub parent: Option<u32>,
    pub exe: Option<String>,
    pub argv: Option<Vec<String>>,
    pub go_version: Option<String>,
    pub tier: Option<Tier>,
    pub goroutines: Option<Counts>,
    pub started_at_ns: Option<u64>,
    pub exited_at_ns: Option<u64>,
    pub exit_code: Option<u32>,
    pub signal: Option<u32>,
    pub zombie_ns: Option<u64>,
    pub container_id: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct SiteLine {
    pub tgid: u32,
    /// `null`: their birth was not seen.
    pub created_by: Option<Frame>,
    pub start_function: Option<String>,
    pub born: u64,
    pub exited: u64,
    pub alive: u64,
    pub gone: u64,
    pub preexisting: u64,
    pub blocked_ns: Option<u64>,
    pub runnable_ns: Option<u64>,
    pub running_ns: Option<u64>,
    pub runnable: Option<Percentiles>,
    pub waits: Option<BTreeMap<String, WaitLine>>,
}

#[derive(Debug, Serialize)]
pub struct Percentiles {
    pub p50_ns: u64,
    pub p95_ns: u64,
    pub p99_ns: u64,
    pub max_ns: u64,
}

#[derive(Debug, Serialize)]
pub struct WaitLine {
    pub count: u64,
    pub blocked_ns: u64,
    #[serde(flatten)]
    pub percentiles: Percentiles,
}

impl Report {
    /// Names and sums what was gathered.
    pub fn new(replayed: &Replayed, sites: Sites) -> Self {
        let symbols = Symbolizer::new(replayed);
        let mut program: BTreeMap<(ImageId, Option<Frame>, Option<String>), Site> = BTreeMap::new();
        // Several addresses may stand for one `go` statement (inlined copies): a person counts them as one.
        for (key, site) in sites.by_key {
            merge(program.entry(named(&symbols, key)).or_default(), site);
        }
        let mut own = Vec::new();
        let mut system_sites = Vec::new();
        let mut by_process: BTreeMap<ProcessId, Counts> = BTreeMap::new();
        for ((image, created_by, start_function), site) in program {
            let counts = by_process.entry(replayed.engine.processes().image(image).process).or_default();
            let system = start_function.as_deref().is_some_and(is_system);
            if system {
                counts.system += site.born + site.preexisting;
            } else {
                counts.add(&site);
            }
            let line = SiteLine::new(replayed, image, created_by, start_function, &site);
            if system { &mut system_sites } else { &mut own }.push(line);
        }
        for lines in [&mut own, &mut system_sites] {
            lines.sort_by_key(|line| (std::cmp::Reverse((line.alive, line.born)), line.tgid));
        }
        let mut total = Counts::default();
        by_process.values().for_each(|counts| total.sum(counts));
        let losses = replayed.losses();
        Self {
            schema: "lifetrace.report/1",
            meta: Meta::new(replayed),
            duration_ns: replayed.duration_ns(),
            goroutines: total,
            lost: ByKind { events: losses.events, by_kind: losses.by_kind },
            repairs: Repairs { by_kind: replayed.engine.repairs().by_kind.clone() },
            price: Price::new(replayed),
            coverage: coverage(replayed),
            processes: replayed
                .engine
                .processes()
                .processes()
                .map(|(id, process)| ProcessLine::new(replayed, process, by_process.get(&id).copied()))
                .collect(),
            sites: own,
            system_sites,
            notes: replayed.notes_for_people(),
            findings: Vec::new(),
        }
    }

    pub fn json(&self, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        out.write_all(b"\n")
    }
}

fn named(symbols: &Symbolizer<'_>, key: SiteKey) -> (ImageId, Option<Frame>, Option<String>) {
    let created_by = key.gopc.map(|gopc| symbols.go_statement(key.image, gopc));
    let start_function = key.startpc.map(|startpc| label(&symbols.entry(key.image, startpc)));
    (key.image, created_by, start_function)
}

fn merge(into: &mut Site, from: Site) {
    into.born += from.born;
    into.exited += from.exited;
    into.alive += from.alive;
    into.gone += from.gone;
    into.preexisting += from.preexisting;
    for (reason, waits) in from.waits {
        let all: &mut Waits = into.waits.entry(reason).or_default();
        all.count += waits.count;
        all.blocked_ns += waits.blocked_ns;
        // Both count in the same units and resize themselves: this cannot fail.
        let _ = all.durations.add(&waits.durations);
    }
}

impl Counts {
    fn add(&mut self, site: &Site) {
        self.born += site.born;
        self.exited += site.exited;
        self.alive += site.alive;
        self.gone += site.gone;
        self.preexisting += site.preexisting;
    }

    fn sum(&mut self, other: &Self) {
        self.born += other.born;
        self.exited += other.exited;
        self.alive += other.alive;
        self.gone += other.gone;
        self.preexisting += other.preexisting;
        self.system += other.system;
    }
}

impl Meta {
    fn new(replayed: &Replayed) -> Self {
        let meta = &replayed.meta;
        Self {
            lifetrace: meta.lifetrace.clone(),
            hostname: meta.hostname.clone(),
            kernel: meta.kernel.clone(),
            cpus: meta.cpus,
            command: meta.command.clone(),
            started_at_unix_ns: meta.clock.wall_ns.0,
            clock_error_ns: meta.clock.error_ns,
            completeness: match replayed.completeness {
                Completeness::Complete => "complete",
                Completeness::NotEnded => "not_ended",
                Completeness::Truncated { .. } => "truncated",
            },
        }
    }
}

impl Price {
    fn new(replayed: &Replayed) -> Self {
        let probe_hits = replayed.counters.as_ref().map(|counters| {
            let counted: u64 = counters.hits.iter().map(|kind| kind.count).sum();
            counted + counters.foreign_hits + counters.duplicate_hits + counters.failed_swaps
        });
        let hit_cost_ns = replayed.meta.hit_cost_ns;
        let cost_ns = probe_hits.zip(hit_cost_ns).map(|(hits, cost)| hits.saturating_mul(cost));
        let target_cpu_ns = replayed.end.as_ref().and_then(|end| end.target_cpu_ns);
        Self {
            probe_hits,
            cost_ns,
            target_cpu_ns,
            share: cost_ns.zip(target_cpu_ns).filter(|(_, cpu)| *cpu > 0).map(|(cost, cpu)| cost as f64 / cpu as f64),
            hit_cost_ns,
            foreign_hits: replayed.counters.as_ref().map(|counters| counters.foreign_hits),
        }
    }
}

fn coverage(replayed: &Replayed) -> Vec<CoverageLine> {
    let processes = replayed.engine.processes();
    let of_image = |(id, _)| {
        let tgid = processes.of_image(id).tgid.0;
        replayed.coverage(id).into_iter().map(move |part| CoverageLine {
            tgid,
            tier: part.tier,
            from_ns: replayed.since_zero(part.from),
            to_ns: replayed.since_zero(part.to),
        })
    };
    processes.images().flat_map(of_image).collect()
}

impl ProcessLine {
    fn new(replayed: &Replayed, process: &Process, goroutines: Option<Counts>) -> Self {
        let processes = replayed.engine.processes();
        let images = || process.images.iter().rev().map(|id| (*id, processes.image(*id)));
        let binary = images().find_map(|(_, image)| replayed.binary(image));
        let argv = images().map(|(_, image)| &image.args).find(|args| !args.is_empty()).cloned();
        let status = process.ended.and_then(|(_, status)| status);
        let by_signal = status.map(|status| status & 0x7f).filter(|signal| *signal != 0);
        Self {
            tgid: process.tgid.0,
            parent: process.parent.map(|parent| parent.0),
            exe: binary.map(|binary| binary.path.clone()).or_else(|| argv.as_ref().and_then(|argv| argv.first().cloned())),
            argv,
            go_version: binary.map(|binary| binary.go_version.clone()),
            tier: images().find_map(|(id, _)| replayed.tier(id)),
            goroutines,
            started_at_ns: process.forked_at.map(|at| replayed.since_zero(at)),
            exited_at_ns: process.ended.map(|(at, _)| replayed.since_zero(at)),
            exit_code: status.filter(|_| by_signal.is_none()).map(|status| status >> 8 & 0xff),
            signal: by_signal,
            zombie_ns: None,
            container_id: None,
        }
    }
}

impl SiteLine {
    fn new(replayed: &Replayed, image: ImageId, created_by: Option<Frame>, start_function: Option<String>, site: &Site) -> Self {
        let sees_waits = replayed.tier(image).is_some_and(|tier| tier >= Tier::T2);
        let line = |(reason, waits): (&Option<crate::correlate::ReasonId>, &Waits)| {
            let name = reason.map_or("unknown", |reason| replayed.engine.reason(reason)).to_owned();
            let percentiles = Percentiles::of(&waits.durations);
            (name, WaitLine { count: waits.count, blocked_ns: waits.blocked_ns, percentiles })
        };
        Self {
            tgid: replayed.engine.processes().of_image(image).tgid.0,
            created_by,
            start_function,
            born: site.born,
            exited: site.exited,
            alive: site.alive,
            gone: site.gone,
            preexisting: site.preexisting,
            blocked_ns: sees_waits.then(|| site.waits.values().map(|waits| waits.blocked_ns).sum()),
            runnable_ns: None,
            running_ns: None,
            runnable: None,
            waits: sees_waits.then(|| site.waits.iter().map(line).collect()),
        }
    }
}

impl Percentiles {
    fn of(durations: &hdrhistogram::Histogram<u64>) -> Self {
        Self {
            p50_ns: durations.value_at_quantile(0.5),
            p95_ns: durations.value_at_quantile(0.95),
            p99_ns: durations.value_at_quantile(0.99),
            max_ns: durations.max(),
        }
    }
}

/// Text for people.
pub fn text(report: &Report, replayed: &Replayed, out: &mut dyn Write) -> io::Result<()> {
    header(report, replayed, out)?;
    for process in &report.processes {
        process_text(process, out)?;
    }
    sites_text("goroutines of the program, by creation site", &report.sites, report.processes.len() > 1, out)?;
    sites_text("the runtime's own goroutines", &report.system_sites, report.processes.len() > 1, out)?;
    for note in &report.notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}

fn header(report: &Report, replayed: &Replayed, out: &mut dyn Write) -> io::Result<()> {
    let started = human::wall(replayed.meta.clock.wall_ns);
    writeln!(out, "{}", human::plain(&report.meta.command.join(" ")))?;
    writeln!(out, "  {started}, {} on {} ({})", human::duration(report.duration_ns), report.meta.hostname, report.meta.kernel)?;
    let counts = &report.goroutines;
    let preexisting = if counts.preexisting > 0 { format!(", {} from before", counts.preexisting) } else { String::new() };
    let gone = if counts.gone > 0 { format!(", {} gone unseen", counts.gone) } else { String::new() };
    writeln!(
        out,
        "  goroutines: {} born, {} exited, {} alive at the end{preexisting}{gone}; {} of the runtime's own",
        counts.born, counts.exited, counts.alive, counts.system
    )?;
    writeln!(out, "  lost: {}", replayed.trust())?;
    if !report.repairs.by_kind.is_empty() {
        let kinds: Vec<String> = report.repairs.by_kind.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        writeln!(out, "  repaired: {}", kinds.join(", "))?;
    }
    writeln!(out, "  price: {}", price(&report.price))
}

fn price(price: &Price) -> String {
    let Some(hits) = price.probe_hits else {
        return "unknown: the recording has no counters".to_owned();
    };
    let Some((cost, each)) = price.cost_ns.zip(price.hit_cost_ns) else {
        return format!("{hits} probe hits; what one costs was not measured");
    };
    let share = price.share.map_or(String::new(), |share| format!(", {:.1} % of the target's CPU time", share * 100.0));
    let foreign = price.foreign_hits.filter(|hits| *hits > 0);
    let foreign = foreign.map_or(String::new(), |hits| format!("; {hits} of the hits were paid by processes not followed"));
    format!("{hits} probe hits at {each} ns for the trap alone: {}{share}{foreign}", human::duration(cost))
}

fn process_text(process: &ProcessLine, out: &mut dyn Write) -> io::Result<()> {
    let what = process.argv.as_ref().map(|argv| argv.join(" ")).or_else(|| process.exe.clone()).unwrap_or_else(|| "?".into());
    let version = process.go_version.as_ref().map_or("not traced as Go".to_owned(), |version| {
        format!("{version}, {}", process.tier.map_or("no tier".to_owned(), |tier| format!("{tier:?}")))
    });
    let end = match (process.exit_code, process.signal, process.exited_at_ns) {
        (Some(code), _, _) => format!("exited with {code}"),
        (_, Some(signal), _) => format!("killed by signal {signal}"),
        (None, None, Some(_)) => "gone".to_owned(),
        (None, None, None) => "still running".to_owned(),
    };
    writeln!(out, "  pid:{}  {version}, {end}  {}", process.tgid, human::plain(&what))
}

fn sites_text(title: &str, sites: &[SiteLine], with_process: bool, out: &mut dyn Write) -> io::Result<()> {
    if sites.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{title}\n{:>9} {:>9} {:>9}  {:>11}  created by → start function", "alive", "born", "exited", "blocked")?;
    for site in sites {
        let blocked = site.blocked_ns.map_or("?".to_owned(), human::duration);
        let creator = site.created_by.as_ref().map_or("birth not seen".to_owned(), |frame| match frame.line {
            0 => label(frame),
            line => format!("{} ({}:{line})", label(frame), frame.file),
        });
        let start = site.start_function.as_deref().map_or(String::new(), |start| format!(" → {start}"));
        let process = if with_process { format!("  [pid:{}]", site.tgid) } else { String::new() };
        let counts = format!("{:>9} {:>9} {:>9}  {blocked:>11}", site.alive, site.born, site.exited);
        writeln!(out, "{counts}  {}{process}", human::plain(&(creator + &start)))?;
        for (reason, wait) in site.waits.iter().flatten() {
            let (total, p50) = (human::duration(wait.blocked_ns), human::duration(wait.percentiles.p50_ns));
            let max = human::duration(wait.percentiles.max_ns);
            writeln!(out, "{:>44}{reason}: {} waits, {total} in all, median {p50}, longest {max}", "", wait.count)?;
        }
    }
    Ok(())
}
