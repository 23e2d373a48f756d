//! The table over time: goroutines, the sites that made them, heap, pauses and memory of each process, on one clock.
//!
//! [`tally`] counts while the recording is replayed, [`steps`] is how time is cut, [`build`] puts the counts beside what was seen
//! of memory, [`text`] is what a person reads. The structures here are part of the contract of the report.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::recording::contract::{CgroupMemory, Frame, GoHeap};

mod build;
pub mod steps;
pub mod tally;
pub(super) mod text;

pub use build::series;

#[derive(Serialize)]
pub struct SeriesOut {
    /// Time between two rows.
    pub step_ns: u64,
    pub processes: Vec<ProcessSeries>,
    /// Processes that are not shown, because others have more goroutines.
    pub left_out: u64,
    pub rows: Vec<Row>,
}

/// A process that the table is about.
#[derive(Serialize)]
pub struct ProcessSeries {
    pub tgid: u32,
    /// It is no target, and was named to be shown beside one: what it is called.
    pub beside: Option<String>,
    /// The creation sites of its own goroutines that grew most, and stayed so longest, at most [`build::TOP_SITES`].
    pub sites: Vec<SiteSeries>,
}

#[derive(Serialize)]
pub struct SiteSeries {
    pub created_by: Option<Frame>,
    pub start_function: Option<String>,
    /// How many lived at the end of the process or the recording.
    pub goroutines: u64,
    /// By how many these are more than those that it had before it was followed.
    pub growth: i64,
    /// The most of any row.
    pub peak: u64,
    /// Set aside for their stacks when somebody looked last.
    pub stack_bytes: Option<u64>,
}

/// What held at one time.
#[derive(Serialize)]
pub struct Row {
    /// Counts are of this time, sums since the row before; memory was looked at in between.
    pub at_ns: u64,
    pub processes: Vec<Cell>,
}

/// What held for one process. One that ended since the row before is shown as it was at its end.
#[derive(Clone, Serialize)]
pub struct Cell {
    /// Index into [`SeriesOut::processes`].
    pub process: usize,
    pub tgid: u32,
    /// The program's own; `null`: it is not followed.
    pub goroutines: Option<u64>,
    /// Of these, those of each of [`ProcessSeries::sites`].
    pub sites: Vec<u64>,
    /// Set aside for the stacks of [`Self::goroutines`]; `null`: nobody looked since the row before.
    pub stack_bytes: Option<u64>,
    /// Of these, those of each of [`ProcessSeries::sites`].
    pub site_stack_bytes: Option<Vec<u64>>,
    /// `null`: it was not asked since the row before.
    pub heap: Option<GoHeap>,
    /// `null`: its runtime has no track.
    pub gc: Option<GcCell>,
    /// `null`: nobody looked since the row before.
    pub rss_bytes: Option<u64>,
    /// `null`: as above, or its cgroup is not accounted for.
    pub cgroup: Option<CgroupMemory>,
    /// How many descriptors it has, by kind; `null`: nobody counted since the row before.
    pub descriptors: Option<BTreeMap<String, u64>>,
}

/// What a collector did since the row before.
#[derive(Clone, Copy, Default, Serialize)]
pub struct GcCell {
    pub cycles: u64,
    pub pauses: u64,
    pub pause_ns: u64,
}

impl Cell {
    /// Makes two rows one.
    fn merge(&mut self, later: &Self) {
        let gc = match (self.gc, later.gc) {
            (Some(a), Some(b)) => Some(GcCell {
                cycles: a.cycles.saturating_add(b.cycles),
                pauses: a.pauses.saturating_add(b.pauses),
                pause_ns: a.pause_ns.saturating_add(b.pause_ns),
            }),
            (a, b) => b.or(a),
        };
        let before = std::mem::replace(self, later.clone());
        self.gc = gc;
        if self.goroutines.is_none() {
            (self.goroutines, self.sites) = (before.goroutines, before.sites);
        }
        self.heap = self.heap.or(before.heap);
        if self.stack_bytes.is_none() {
            (self.stack_bytes, self.site_stack_bytes) = (before.stack_bytes, before.site_stack_bytes);
        }
        self.rss_bytes = self.rss_bytes.or(before.rss_bytes);
        self.cgroup = self.cgroup.take().or(before.cgroup);
        self.descriptors = self.descriptors.take().or(before.descriptors);
    }
}

impl SeriesOut {
    /// The same rows, `stride` of them made one.
    fn coarser(&self, stride: usize) -> Vec<Row> {
        let merged = |rows: &[Row]| {
            let mut cells: Vec<Cell> = Vec::new();
            for cell in rows.iter().flat_map(|row| &row.processes) {
                match cells.iter_mut().find(|known| known.process == cell.process) {
                    Some(known) => known.merge(cell),
                    None => cells.push(cell.clone()),
                }
            }
            cells.sort_by_key(|cell| cell.process);
            Row { at_ns: rows.last().map_or(0, |row| row.at_ns), processes: cells }
        };
        self.rows.chunks(stride.max(1)).map(merged).collect()
    }
}
