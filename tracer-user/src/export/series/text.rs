//! The table over time as a person reads it.

use std::io::{self, Write};

use super::{Cell, ProcessSeries, Row, SeriesOut, SiteSeries};
use crate::{
    export::report_text::table,
    symbolize,
    timeline::human::{bytes, count, duration, plain},
};

/// Times that are shown.
const MAX_TIMES: usize = 20;
/// Lines: with several processes there are fewer times.
const MAX_LINES: usize = 40;
/// Processes that are shown.
const MAX_PROCESSES: usize = 6;
/// Sites of a process that have a column.
const SITES: usize = 3;
/// Memory is looked at so often, ns.
const LOOK_NS: u64 = 1_000_000_000;

/// The table, and what its columns are.
pub struct Table {
    /// The header first.
    pub lines: Vec<[String; COLUMNS]>,
    /// What the columns of sites are.
    pub legend: Vec<String>,
}

/// Which columns are numbers.
pub const RIGHT: [bool; COLUMNS] = {
    let mut right = [true; COLUMNS];
    right[1] = false;
    right
};

/// Writes the table, if there is anything in it.
pub fn write(series: &SeriesOut, heading: &impl Fn(&str) -> String, out: &mut impl Write) -> io::Result<()> {
    let Some(Table { lines, legend }) = lines(series) else { return Ok(()) };
    writeln!(out, "\n{}", heading("over time"))?;
    table(&lines, &RIGHT, out)?;
    legend.iter().try_for_each(|line| writeln!(out, "  {line}"))
}

/// What is to be told, if there is anything.
pub fn lines(series: &SeriesOut) -> Option<Table> {
    if series.rows.iter().all(|row| row.processes.is_empty()) {
        return None;
    }
    let shown = shown(series);
    let rows: Vec<Row> = series.coarser(stride(series, shown.len()));
    let is_shown = |cell: &&Cell| shown.contains(&cell.process);
    let cells: Vec<&Cell> = rows.iter().flat_map(|row| &row.processes).filter(is_shown).collect();
    let columns = Columns::of(series, &cells, shown.len() > 1);
    let mut lines = vec![columns.header()];
    for row in &rows {
        let mut at = format!("{:.3} s", row.at_ns as f64 / 1e9);
        for cell in row.processes.iter().filter(is_shown) {
            lines.push(columns.line(std::mem::take(&mut at), cell, &series.processes[cell.process]));
        }
    }
    let of = shown.iter().map(|index| &series.processes[*index]);
    let mut legend: Vec<String> = of.flat_map(|process| self::legend(process, shown.len() > 1)).collect();
    let more = series.left_out + (series.processes.len() - shown.len()) as u64;
    if more > 0 {
        legend.push(format!("and {} more processes", count(more)));
    }
    Some(Table { lines, legend })
}

/// Those with the most goroutines at any time, and those that were named.
fn shown(series: &SeriesOut) -> Vec<usize> {
    let mut most: Vec<u64> = vec![0; series.processes.len()];
    for cell in series.rows.iter().flat_map(|row| &row.processes) {
        most[cell.process] = most[cell.process].max(cell.goroutines.unwrap_or(0));
    }
    let mut all: Vec<usize> = (0..series.processes.len()).collect();
    all.sort_by_key(|index| (series.processes[*index].beside.is_none(), std::cmp::Reverse(most[*index])));
    all.truncate(MAX_PROCESSES);
    all.sort_unstable();
    all
}

/// Rows that become one: as many times as there is room for, but not more than there were looks at memory.
fn stride(series: &SeriesOut, processes: usize) -> usize {
    let times = (MAX_LINES / processes.max(1)).clamp(1, MAX_TIMES);
    let mut stride = 1;
    while series.rows.len().div_ceil(stride) > times {
        stride *= 2;
    }
    let looked = series.rows.iter().flat_map(|row| &row.processes).any(|cell| cell.rss_bytes.is_some());
    while looked && (stride as u64).saturating_mul(series.step_ns) < LOOK_NS && series.rows.len() / stride > 4 {
        stride *= 2;
    }
    stride
}

pub const COLUMNS: usize = 17;

/// Which columns there are: what nobody knows of anybody has none.
struct Columns {
    many: bool,
    sites: usize,
    stacks: bool,
    heap: bool,
    gc: bool,
    rss: bool,
    descriptors: bool,
    cgroup: bool,
    limit: bool,
}

impl Columns {
    fn of(series: &SeriesOut, cells: &[&Cell], many: bool) -> Self {
        let any = |known: fn(&Cell) -> bool| cells.iter().any(|cell| known(cell));
        let sites = cells.iter().map(|cell| series.processes[cell.process].sites.len()).max().unwrap_or(0);
        Self {
            many,
            sites: sites.min(SITES),
            stacks: any(|cell| cell.stack_bytes.is_some()),
            heap: any(|cell| cell.heap.is_some()),
            gc: any(|cell| cell.gc.is_some()),
            rss: any(|cell| cell.rss_bytes.is_some()),
            descriptors: any(|cell| cell.descriptors.is_some()),
            cgroup: any(|cell| cell.cgroup.is_some()),
            limit: any(|cell| cell.cgroup.as_ref().is_some_and(|cgroup| cgroup.limit_bytes.is_some())),
        }
    }

    fn header(&self) -> [String; COLUMNS] {
        let column = |there: bool, name: &str| if there { name.to_owned() } else { String::new() };
        [
            "TIME".into(),
            column(self.many, "PROCESS"),
            "ALIVE".into(),
            column(self.sites > 0, "A"),
            column(self.sites > 1, "B"),
            column(self.sites > 2, "C"),
            column(self.stacks, "STACKS"),
            column(self.heap, "HEAP"),
            column(self.heap, "IN USE"),
            column(self.heap, "GOAL"),
            column(self.heap, "SYS"),
            column(self.gc, "GC"),
            column(self.gc, "PAUSED"),
            column(self.rss, "RSS"),
            column(self.descriptors, "FDS"),
            column(self.cgroup, "CGROUP"),
            column(self.limit, "LIMIT"),
        ]
    }

    fn line(&self, at: String, cell: &Cell, process: &ProcessSeries) -> [String; COLUMNS] {
        let value = |there: bool, value: Option<String>| match there {
            true => value.unwrap_or_else(|| "-".into()),
            false => String::new(),
        };
        let site = |index: usize| value(self.sites > index, cell.sites.get(index).map(|number| count(*number)));
        let heap =
            |of: fn(&crate::recording::contract::GoHeap) -> u64| value(self.heap, cell.heap.as_ref().map(|heap| bytes(of(heap))));
        let cgroup = cell.cgroup.as_ref();
        [
            at,
            value(self.many, Some(name(process))),
            value(true, cell.goroutines.map(count)),
            site(0),
            site(1),
            site(2),
            value(self.stacks, cell.stack_bytes.map(bytes)),
            heap(|heap| heap.alloc_bytes),
            heap(|heap| heap.inuse_bytes),
            heap(|heap| heap.goal_bytes),
            heap(|heap| heap.sys_bytes),
            value(self.gc, cell.gc.map(|gc| count(gc.cycles))),
            value(self.gc, cell.gc.map(|gc| duration(gc.pause_ns))),
            value(self.rss, cell.rss_bytes.map(bytes)),
            value(self.descriptors, cell.descriptors.as_ref().map(|kinds| count(kinds.values().sum()))),
            value(self.cgroup, cgroup.map(|cgroup| bytes(cgroup.current_bytes))),
            value(self.limit, cgroup.map(|cgroup| cgroup.limit_bytes.map_or_else(|| "none".into(), bytes))),
        ]
    }
}

fn name(process: &ProcessSeries) -> String {
    let comm = process.beside.as_ref().map_or(String::new(), |comm| format!(" {}", plain(comm)));
    format!("{}{comm}", process.tgid)
}

/// What the columns of sites are.
fn legend(process: &ProcessSeries, many: bool) -> impl Iterator<Item = String> {
    process.sites.iter().zip(["A", "B", "C"]).map(move |(site, letter)| {
        let of = if many { format!("pid {}, ", process.tgid) } else { String::new() };
        let stacks = site.stack_bytes.map_or(String::new(), |all| format!(", stacks {}", bytes(all)));
        let (origin, peak) = (plain(&origin(site)), count(site.peak));
        format!("{of}{letter}: {origin}, at most {peak}, grew by {}{stacks}", growth(site.growth))
    })
}

fn growth(growth: i64) -> String {
    format!("{}{}", if growth < 0 { "-" } else { "" }, count(growth.unsigned_abs()))
}

fn origin(site: &SiteSeries) -> String {
    let Some(by) = &site.created_by else { return "birth not seen".into() };
    let at = if by.line == 0 { String::new() } else { format!(" ({}:{})", by.file, by.line) };
    format!("{}{at} -> {}", symbolize::label(by), site.start_function.as_deref().unwrap_or("?"))
}
