//! The rows of the tables: processes, creation sites, goroutines.

use rustc_hash::FxHashMap;

use super::{
    census::{Census, Count},
    model::{Model, share, sum},
    names::SiteId,
    picture::{GoroutineRow, Lasting, ProcessRow, SiteRow, States},
};
use crate::{
    clock::KtimeNs,
    correlate::{
        goroutine::{Goroutine, SiteKey},
        process::{ImageId, Process},
    },
    export::tally::Waits,
    signal,
    timeline::human::plain,
};

/// What is counted of rows that are made of several sites.
#[derive(Default)]
struct Total {
    count: Count,
    births: u64,
    deaths: u64,
    /// Alive when their process ended.
    left: u64,
    delays: Option<Box<Waits>>,
}

impl Model {
    fn add(&self, total: &mut Total, key: &SiteKey, count: &Count, now: KtimeNs) {
        total.count.add(count);
        if let Some(tally) = self.tally.sites.get(key) {
            total.births = total.births.saturating_add(tally.births.in_window(now));
            total.deaths = total.deaths.saturating_add(tally.deaths.in_window(now));
            total.left = total.left.saturating_add(tally.left);
            tally.delays.add_to(now, &mut total.delays);
        }
    }

    /// Those of Go that run, and that have ended lately. The runtime's own goroutines are not counted.
    pub(super) fn processes(&self, census: &Census<'_>) -> Vec<ProcessRow> {
        let mut totals: FxHashMap<ImageId, Total> = FxHashMap::default();
        for (key, count) in &census.sites {
            let total = totals.entry(key.image).or_default();
            let name = self.names.id(key).and_then(|id| self.names.name(id));
            if name.is_none_or(|name| !name.system) {
                self.add(total, key, count, census.now);
            }
        }
        totals.into_iter().map(|(image, total)| self.process_row(image, &total, census)).collect()
    }

    fn process_row(&self, id: ImageId, total: &Total, census: &Census<'_>) -> ProcessRow {
        let (engine, processes) = (self.replaying.engine(), self.replaying.engine().processes());
        let (image, process) = (processes.image(id), processes.of_image(id));
        let binary = self.replaying.binary(image);
        let path = binary.map_or("?", |binary| &binary.path);
        let paid = self.replaying.counters().and_then(|counters| {
            let of_image = image.binary?;
            counters.paid.iter().find(|paid| paid.binary == of_image)
        });
        let ended = image.until.map(|_| end_of(process));
        ProcessRow {
            image: id,
            tgid: process.tgid,
            tier: engine.tier(id).filter(|_| ended.is_none()),
            ended,
            go_version: plain(binary.map_or("-", |binary| &binary.go_version)),
            alive: total.count.alive() + total.left,
            born_per_s: census.rate(id, total.births),
            ended_per_s: census.rate(id, total.deaths),
            states: total.count.states(census),
            price: paid.and_then(|paid| share(sum(paid.cost_ns), paid.cpu_ns)),
            command: plain(&if image.args.is_empty() { path.to_owned() } else { image.args.join(" ") }),
        }
    }

    pub(super) fn sites(&self, census: &Census<'_>) -> Vec<SiteRow> {
        let mut totals: FxHashMap<SiteId, Total> = FxHashMap::default();
        for (key, count) in &census.sites {
            if let Some(id) = self.names.id(key) {
                self.add(totals.entry(id).or_default(), key, count, census.now);
            }
        }
        totals.into_iter().filter_map(|(id, total)| self.site_row(id, &total, census)).collect()
    }

    fn site_row(&self, id: SiteId, total: &Total, census: &Census<'_>) -> Option<SiteRow> {
        let name = self.names.name(id)?;
        let processes = self.replaying.engine().processes();
        let states: States = total.count.states(census);
        let (alive, ended) = (states.alive() + total.left, processes.image(name.image).until.is_some());
        // Of those whose birth was not seen most get a name when they are looked at.
        if alive == 0 && name.created_by.is_none() {
            return None;
        }
        Some(SiteRow {
            id,
            image: name.image,
            tgid: processes.of_image(name.image).tgid,
            name: name.line(),
            system: name.system,
            tier: self.replaying.engine().tier(name.image).filter(|_| !ended),
            alive,
            born_per_s: census.rate(name.image, total.births),
            ended_per_s: census.rate(name.image, total.deaths),
            states: (!ended).then_some(states),
            delay_ns: total.delays.as_ref().map(|waits| (waits.quantile_ns(0.5), waits.quantile_ns(0.99))),
            suspicion: self.suspicions.of(id),
        })
    }

    /// The living of one site.
    pub(super) fn goroutines(&self, site: SiteId, census: &Census<'_>) -> Vec<GoroutineRow> {
        let living = self.replaying.engine().living();
        let of_site = living.filter(|goroutine| self.names.id(&SiteKey::of(&goroutine.who)) == Some(site));
        let row = |goroutine: &Goroutine| {
            let (who, doing) = (&goroutine.who, goroutine.doing());
            GoroutineRow {
                image: who.image,
                goid: who.goid,
                state: census.state(goroutine, &doing),
                since: Lasting { ns: census.now.since(doing.since), at_least: doing.by_look },
                reason: doing.reason.map(|id| census.reason(id)),
                age: age(goroutine, census.now),
                parent: who.origin.and_then(|origin| origin.parent),
                labels: goroutine.labels().map_or_else(|| "".into(), |id| census.labels(id)),
            }
        };
        of_site.map(row).collect()
    }
}

/// How old one is; `None`: it lived before its process was followed.
pub(super) fn age(goroutine: &Goroutine, now: KtimeNs) -> Option<Lasting> {
    let who = &goroutine.who;
    let born = who.born_at.map(|at| Lasting { ns: now.since(at), at_least: false });
    born.or_else(|| who.born_by.map(|by| Lasting { ns: now.since(by), at_least: true }))
}

/// How a process, or the program it ran, ended.
pub(super) fn end_of(process: &Process) -> String {
    match process.ended {
        None => "exec".to_owned(),
        Some((_, None)) => "ended".to_owned(),
        Some((_, Some(status))) if status & 0x7f == 0 => format!("exit {}", status >> 8 & 0xff),
        Some((_, Some(status))) => signal::name(status & 0x7f),
    }
}
