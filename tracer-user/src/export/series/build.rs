//! Puts counts and what was seen of memory side by side.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::{
    super::{gc::has_track, owner::Owners},
    Cell, GcCell, ProcessSeries, Row, SeriesOut, SiteSeries,
    steps::Steps,
    tally::{SeriesTally, SiteSteps},
};
use crate::{
    correlate::{
        goroutine::SiteKey,
        process::{ImageId, ProcessId},
        replay::Replayed,
    },
    id::Tgid,
    recording::contract::{CgroupMemory, Frame, GoHeap},
    symbolize::{Symbolizer, is_system, label},
};

/// Creation sites of a process that have a column of their own.
pub const TOP_SITES: usize = 8;
/// Processes that are shown.
const MAX_PROCESSES: usize = 64;
/// Cells of the whole table: with many processes there are fewer rows.
const MAX_CELLS: usize = 8_000;

/// The table of a recording.
pub fn series(replayed: &Replayed, tally: &SeriesTally) -> SeriesOut {
    let mut tally = tally.clone();
    let mut subjects = Subject::all(replayed);
    let left_out = subjects.len().saturating_sub(MAX_PROCESSES);
    let owners = Owners::new(replayed);
    loop {
        let last = tally.step(replayed.ended_at);
        subjects.iter_mut().for_each(|subject| subject.place(replayed, &tally, last));
        if left_out > 0 && subjects.len() > MAX_PROCESSES {
            let sizes = sizes(&tally);
            // Whoever was named stays.
            subjects.sort_by_key(|subject| {
                let size = subject.images.iter().filter_map(|image| sizes.get(image)).max();
                (subject.beside.is_none(), std::cmp::Reverse(size.copied()))
            });
            subjects.truncate(MAX_PROCESSES);
            subjects.sort_by_key(|subject| (subject.beside.is_some(), subject.process, subject.tgid));
        }
        let cells: usize = subjects.iter().map(|subject| subject.runs.iter().flatten().count().max(1)).sum();
        if cells <= MAX_CELLS || last == 0 {
            let seen = seen(replayed, &tally, &owners, &subjects);
            return table(replayed, &tally, &subjects, &seen, left_out as u64);
        }
        tally.coarsen();
    }
}

/// How many goroutines were ever met in an image, sites taken together roughly: only an order is asked for.
fn sizes(tally: &SeriesTally) -> FxHashMap<ImageId, u64> {
    let mut sizes: FxHashMap<ImageId, u64> = FxHashMap::default();
    for (key, site) in &tally.sites {
        *sizes.entry(key.image).or_default() += site.alive.level(u64::MAX);
    }
    sizes
}

/// Whom the table is about.
struct Subject {
    process: Option<ProcessId>,
    tgid: Tgid,
    beside: Option<String>,
    images: Vec<ImageId>,
    /// By step: what it ran at the end of it.
    runs: Vec<Option<ImageId>>,
}

impl Subject {
    /// Followed Go programs, then those that were named.
    fn all(replayed: &Replayed) -> Vec<Self> {
        let processes = replayed.engine.processes();
        let mut all: Vec<Self> = Vec::new();
        for (id, process) in processes.processes() {
            let images: Vec<ImageId> = process.images.iter().copied().filter(|image| replayed.tier(*image).is_some()).collect();
            if !images.is_empty() {
                all.push(Self { process: Some(id), tgid: process.tgid, beside: None, images, runs: Vec::new() });
            }
        }
        let mut named: BTreeMap<Tgid, String> = BTreeMap::new();
        for process in replayed.memory.iter().flat_map(|memory| &memory.processes) {
            if let Some(comm) = &process.beside {
                named.entry(process.tgid).or_insert_with(|| crate::timeline::human::plain(comm));
            }
        }
        named.retain(|tgid, _| !all.iter().any(|subject| subject.tgid == *tgid));
        let beside = |(tgid, comm)| Self { process: None, tgid, beside: Some(comm), images: Vec::new(), runs: Vec::new() };
        all.extend(named.into_iter().map(beside));
        all
    }

    fn place(&mut self, replayed: &Replayed, tally: &SeriesTally, last: u64) {
        self.runs = vec![None; last as usize + 1];
        for id in &self.images {
            let image = replayed.engine.processes().image(*id);
            let (from, to) = (tally.clock.step(image.since), image.until.map_or(last, |until| tally.clock.step(until)));
            for run in self.runs.iter_mut().take(to as usize + 1).skip(from as usize) {
                *run = Some(*id);
            }
        }
    }
}

/// What was seen of a process's memory in one step, the newest of each.
#[derive(Clone, Default)]
struct Seen {
    rss_bytes: Option<u64>,
    cgroup: Option<CgroupMemory>,
    heap: Option<GoHeap>,
    descriptors: Option<BTreeMap<String, u64>>,
}

/// By index of the subject and step.
fn seen(replayed: &Replayed, tally: &SeriesTally, owners: &Owners<'_>, subjects: &[Subject]) -> FxHashMap<(usize, u64), Seen> {
    let of_process: FxHashMap<ProcessId, usize> =
        subjects.iter().enumerate().filter_map(|(index, subject)| Some((subject.process?, index))).collect();
    let of_number: FxHashMap<Tgid, usize> =
        subjects.iter().enumerate().filter(|(_, one)| one.beside.is_some()).map(|(index, one)| (one.tgid, index)).collect();
    let mut all: FxHashMap<(usize, u64), Seen> = FxHashMap::default();
    for memory in replayed.memory.iter().filter(|memory| memory.at <= replayed.ended_at) {
        let step = tally.clock.step(memory.at);
        for process in &memory.processes {
            let owner = owners.at(process.tgid, memory.at).and_then(|id| of_process.get(&id));
            let Some(index) = owner.or_else(|| of_number.get(&process.tgid)) else { continue };
            let into = all.entry((*index, step)).or_default();
            into.rss_bytes = process.rss_bytes.or(into.rss_bytes);
            into.heap = process.heap.or(into.heap);
            if process.cgroup.is_some() {
                into.cgroup.clone_from(&process.cgroup);
            }
            if process.descriptors.is_some() {
                into.descriptors.clone_from(&process.descriptors);
            }
        }
    }
    all
}

/// The `go` statement and the start function.
type Name = (Option<Frame>, Option<String>);

/// Creation sites of a process, each with all addresses that read alike.
type Named<'a> = BTreeMap<Name, Vec<(ImageId, &'a SiteSteps)>>;

/// The program's own sites, by process.
fn own_sites<'a>(replayed: &Replayed, tally: &'a SeriesTally) -> FxHashMap<ProcessId, Named<'a>> {
    let symbols = Symbolizer::new(replayed);
    let mut all: FxHashMap<ProcessId, Named<'a>> = FxHashMap::default();
    for (SiteKey { image, gopc, startpc }, steps) in &tally.sites {
        let start = startpc.map(|pc| label(&symbols.entry(*image, pc)));
        if start.as_deref().is_some_and(is_system) {
            continue;
        }
        let created_by = gopc.map(|gopc| symbols.go_statement(*image, gopc));
        let process = replayed.engine.processes().image(*image).process;
        all.entry(process).or_default().entry((created_by, start)).or_default().push((*image, steps));
    }
    all
}

/// How many there were at the end of each step, of what the process ran then.
fn levels<'a>(subject: &Subject, sites: impl IntoIterator<Item = (ImageId, &'a Steps<i64>)>) -> Vec<u64> {
    let mut sums = vec![0u64; subject.runs.len()];
    for (image, steps) in sites {
        let mut level = 0i64;
        for (step, (sum, runs)) in sums.iter_mut().zip(&subject.runs).enumerate() {
            level = level.saturating_add(steps.get(step as u64));
            if *runs == Some(image) {
                *sum = sum.saturating_add(u64::try_from(level).unwrap_or(0));
            }
        }
    }
    sums
}

/// The columns of one process.
struct Columns {
    series: ProcessSeries,
    goroutines: Vec<u64>,
    sites: Vec<Vec<u64>>,
    /// Where somebody looked: of all, and of each of the sites.
    stacks: Vec<Option<(u64, Vec<u64>)>>,
}

/// A creation site by name, with what it came to.
struct Grown<'a> {
    /// Goroutines more than at the beginning, summed over the rows: what stays long outweighs what comes and goes.
    weight: u64,
    growth: i64,
    goroutines: u64,
    name: &'a Name,
    sites: &'a [(ImageId, &'a SiteSteps)],
    levels: Vec<u64>,
}

/// The sites that grew most.
fn grown<'a>(subject: &Subject, named: Option<&'a Named<'_>>) -> Vec<Grown<'a>> {
    // What it ran last, and from which step to which.
    let last = subject.runs.iter().rposition(Option::is_some).unwrap_or(0);
    let image = subject.runs.get(last).copied().flatten();
    let first = subject.runs.iter().position(|runs| *runs == image).unwrap_or(0);
    let one = |(name, sites): (&'a Name, &'a Vec<(ImageId, &'a SiteSteps)>)| {
        let of_image = || sites.iter().filter(|(of, _)| Some(*of) == image).map(|(_, site)| site);
        let before: u64 = of_image().map(|site| site.met.level(first as u64)).sum();
        let levels = levels(subject, sites.iter().map(|(image, site)| (*image, &site.alive)));
        let goroutines = levels.get(last).copied().unwrap_or(0);
        let growth = i64::try_from(goroutines).unwrap_or(i64::MAX).saturating_sub_unsigned(before);
        let weight = levels.iter().fold(0u64, |sum, level| sum.saturating_add(level.saturating_sub(before)));
        Grown { weight, growth, goroutines, name, sites, levels }
    };
    let mut all: Vec<Grown<'a>> = named.into_iter().flatten().map(one).collect();
    all.sort_by_key(|site| (std::cmp::Reverse((site.weight, site.goroutines)), site.name));
    all.truncate(TOP_SITES);
    all
}

/// The stacks of some sites, of what the process ran at the end of a step; whoever is in no look has none.
fn stacks<'a>(image: ImageId, step: u64, sites: impl IntoIterator<Item = &'a (ImageId, &'a SiteSteps)>) -> u64 {
    let of_image = sites.into_iter().filter(|(of, _)| *of == image);
    of_image.fold(0, |sum, (_, site)| sum.saturating_add(site.stack_bytes.get(step).unwrap_or(0)))
}

fn columns(tally: &SeriesTally, subject: &Subject, named: Option<&Named<'_>>) -> Columns {
    let all = || named.into_iter().flat_map(|named| named.values().flatten());
    let others = subject.images.iter().filter_map(|image| Some((*image, &tally.other_sites.get(image)?.alive)));
    let goroutines = levels(subject, all().map(|(image, site)| (*image, &site.alive)).chain(others));
    let grown = grown(subject, named);
    let look = |(step, image): (u64, &Option<ImageId>)| {
        let image = (*image)?;
        tally.looks.get(&image)?.get(step)?;
        let of_sites = grown.iter().map(|site| stacks(image, step, site.sites)).collect();
        Some((stacks(image, step, all()), of_sites))
    };
    let stacks: Vec<Option<(u64, Vec<u64>)>> = (0..).zip(&subject.runs).map(look).collect();
    let newest = stacks.iter().rev().flatten().next();
    let head = |(index, site): (usize, &Grown<'_>)| SiteSeries {
        created_by: site.name.0.clone(),
        start_function: site.name.1.clone(),
        goroutines: site.goroutines,
        growth: site.growth,
        peak: site.levels.iter().copied().max().unwrap_or(0),
        stack_bytes: newest.map(|(_, of_sites)| of_sites[index]),
    };
    let heads = grown.iter().enumerate().map(head).collect();
    let series = ProcessSeries { tgid: subject.tgid.0, beside: subject.beside.clone(), sites: heads };
    let sites = grown.into_iter().map(|site| site.levels).collect();
    Columns { series, goroutines, sites, stacks }
}

fn table(
    replayed: &Replayed,
    tally: &SeriesTally,
    subjects: &[Subject],
    seen: &FxHashMap<(usize, u64), Seen>,
    left_out: u64,
) -> SeriesOut {
    let named = own_sites(replayed, tally);
    let of = |subject: &Subject| columns(tally, subject, subject.process.and_then(|process| named.get(&process)));
    let columns: Vec<Columns> = subjects.iter().map(of).collect();
    let duration_ns = replayed.duration_ns();
    let row = |step: u64| {
        let cell = |(index, (subject, columns)): (usize, (&Subject, &Columns))| {
            let image = subject.runs[step as usize];
            let seen = seen.get(&(index, step)).cloned();
            if image.is_none() && seen.is_none() {
                return None;
            }
            let seen = seen.unwrap_or_default();
            let stacks = columns.stacks[step as usize].as_ref();
            Some(Cell {
                process: index,
                tgid: subject.tgid.0,
                goroutines: image.map(|_| columns.goroutines[step as usize]),
                sites: image.map_or(Vec::new(), |_| columns.sites.iter().map(|levels| levels[step as usize]).collect()),
                stack_bytes: stacks.map(|(all, _)| *all),
                site_stack_bytes: stacks.map(|(_, of_sites)| of_sites.clone()),
                heap: seen.heap,
                gc: image
                    .filter(|image| has_track(replayed, replayed.engine.processes().image(*image)))
                    .map(|image| gc(tally, image, step)),
                rss_bytes: seen.rss_bytes,
                cgroup: seen.cgroup,
                descriptors: seen.descriptors,
            })
        };
        let processes = subjects.iter().zip(&columns).enumerate().filter_map(cell).collect();
        Row { at_ns: (step + 1).saturating_mul(tally.clock.step_ns).min(duration_ns), processes }
    };
    let last = tally.clock.step(replayed.ended_at);
    let rows = (0..=last).map(row).collect();
    let processes = columns.into_iter().map(|columns| columns.series).collect();
    SeriesOut { step_ns: tally.clock.step_ns, processes, left_out, rows }
}

fn gc(tally: &SeriesTally, image: ImageId, step: u64) -> GcCell {
    tally.gc.get(&image).map_or_else(GcCell::default, |gc| GcCell {
        cycles: gc.cycles.get(step),
        pauses: gc.pauses.get(step),
        pause_ns: gc.pause_ns.get(step),
    })
}
