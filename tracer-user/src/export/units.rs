//! Units of work of other runtimes in the report.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::{
    correlate::{
        Life, LifeEnd, ReasonId, SpanState,
        process::{ImageId, ProcessId},
        replay::Replayed,
        unit::{RuntimeId, UnitSpan, UnitWho},
    },
    timeline::human::{count, duration, plain},
};

use super::{
    report::{Quantiles, WaitOut},
    report_text::table,
    tally::{Population, Waits},
};

/// Collects units while a recording is replayed.
#[derive(Default)]
pub struct UnitTally {
    runtimes: FxHashMap<(ImageId, RuntimeId), OfRuntime>,
}

#[derive(Clone, Default)]
struct OfRuntime {
    population: Population,
    waits: FxHashMap<Option<ReasonId>, Waits>,
    at_most: bool,
}

impl UnitTally {
    pub fn span(&mut self, who: &UnitWho, span: &UnitSpan) {
        let of = self.runtimes.entry((who.image, who.runtime)).or_default();
        if span.state == SpanState::Blocked {
            of.waits.entry(span.reason).or_default().record(span.end.since(span.start));
            of.at_most |= span.at_most;
        }
    }

    pub fn life(&mut self, who: &UnitWho, life: &Life) {
        let population = &mut self.runtimes.entry((who.image, who.runtime)).or_default().population;
        *(if who.born_at.is_some() { &mut population.born } else { &mut population.preexisting }) += 1;
        population.exited += u64::from(life.end == LifeEnd::Exit);
        population.gone += u64::from(life.end == LifeEnd::Gone);
        population.alive += u64::from(life.alive_at_end());
    }
}

/// The units of one runtime in one process.
#[derive(Serialize)]
pub struct UnitsOut {
    pub tgid: u32,
    /// The prefix of their ids.
    pub runtime: String,
    #[serde(flatten)]
    pub population: Population,
    pub blocked_ns: u64,
    /// No probe told when blocks ended: times are no longer than what is said.
    pub at_most: bool,
    pub waits: BTreeMap<String, WaitOut>,
}

/// By process and runtime.
pub fn units(replayed: &Replayed, tally: &UnitTally) -> Vec<UnitsOut> {
    let engine = &replayed.engine;
    let mut merged: BTreeMap<(ProcessId, &str), OfRuntime> = BTreeMap::new();
    for ((image, runtime), of) in &tally.runtimes {
        let into = merged.entry((engine.processes().image(*image).process, engine.runtime(*runtime))).or_default();
        into.population.add(&of.population);
        into.at_most |= of.at_most;
        for (reason, waits) in &of.waits {
            into.waits.entry(*reason).or_default().add(waits);
        }
    }
    let name = |reason: &Option<ReasonId>| reason.map_or("unknown", |reason| engine.reason(reason)).to_owned();
    let out = merged.into_iter().map(|((process, runtime), of)| UnitsOut {
        tgid: engine.processes().process(process).tgid.0,
        runtime: runtime.to_owned(),
        population: of.population,
        blocked_ns: of.waits.values().fold(0, |sum, waits| sum.saturating_add(waits.total_ns)),
        at_most: of.at_most,
        waits: of.waits.iter().map(|(reason, waits)| (name(reason), wait_out(waits))).collect(),
    });
    out.collect()
}

fn wait_out(waits: &Waits) -> WaitOut {
    WaitOut { count: waits.count, blocked_ns: waits.total_ns, quantiles: Quantiles::of(waits) }
}

/// Reasons shown; `--format json` has all.
const MAX_WAITS: usize = 8;

/// What a person reads of them.
pub fn text(all: &[UnitsOut], out: &mut impl Write) -> io::Result<()> {
    let mut rows = vec![["TGID", "RUNTIME", "BORN", "EXITED", "ALIVE", "BLOCKED", ""].map(str::to_owned)];
    for of in all {
        let population = &of.population;
        let before = if population.preexisting > 0 { format!("+{}", count(population.preexisting)) } else { String::new() };
        let gone =
            if population.gone > 0 { format!("{} gone whose exit was lost", count(population.gone)) } else { String::new() };
        rows.push([
            of.tgid.to_string(),
            of.runtime.clone(),
            format!("{}{before}", count(population.born)),
            count(population.exited),
            count(population.alive),
            format!("{}{}", if of.at_most { "≤ " } else { "" }, duration(of.blocked_ns)),
            gone,
        ]);
        let mut waits: Vec<_> = of.waits.iter().collect();
        waits.sort_by_key(|(name, wait)| (std::cmp::Reverse(wait.blocked_ns), name.as_str()));
        for (name, wait) in waits.into_iter().take(MAX_WAITS) {
            let quantiles = &wait.quantiles;
            let [median, p99, max] = [quantiles.p50_ns, quantiles.p99_ns, quantiles.max_ns].map(duration);
            let (times, total) = (count(wait.count), duration(wait.blocked_ns));
            let text = format!("{} {times}x, {total}: median {median}, p99 {p99}, max {max}", plain(name));
            rows.push(["", "", "", "", "", "", &text].map(str::to_owned));
        }
    }
    table(&rows, &[true, false, true, true, true, true, false], out)
}
