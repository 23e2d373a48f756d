//! The table over time of a report.

use serde::Deserialize;

use crate::report::Creator;

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Series {
    pub step_ns: u64,
    pub processes: Vec<Process>,
    pub rows: Vec<Row>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Process {
    pub tgid: u32,
    pub beside: Option<String>,
    pub sites: Vec<Site>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Site {
    pub created_by: Option<Creator>,
    pub goroutines: u64,
    pub growth: i64,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Row {
    pub at_ns: u64,
    pub processes: Vec<Cell>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Cell {
    pub tgid: u32,
    pub goroutines: Option<u64>,
    pub sites: Vec<u64>,
    pub gc: Option<Gc>,
    pub rss_bytes: Option<u64>,
    pub cgroup: Option<Cgroup>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Gc {
    pub cycles: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Cgroup {
    pub current_bytes: u64,
    pub limit_bytes: Option<u64>,
}

impl Series {
    /// What is said of a process, by time.
    pub fn cells(&self, tgid: u32) -> impl Iterator<Item = (u64, &Cell)> {
        let of_row = move |row: &'_ Row| Some((row.at_ns, row.processes.iter().position(|cell| cell.tgid == tgid)?));
        self.rows.iter().filter_map(move |row| of_row(row).map(|(at, index)| (at, &row.processes[index])))
    }

    #[must_use]
    pub fn of(&self, tgid: u32) -> &Process {
        let found = self.processes.iter().find(|process| process.tgid == tgid);
        found.unwrap_or_else(|| panic!("the table has no process {tgid}: {:?}", self.processes))
    }
}

impl Process {
    /// Where the goroutines that a line made stand in each [`Cell::sites`].
    #[must_use]
    pub fn index(&self, function: &str, line: u32) -> usize {
        let is = |site: &Site| {
            let by = site.created_by.as_ref();
            by.is_some_and(|by| by.function.as_deref() == Some(function) && by.line == Some(line))
        };
        self.sites.iter().position(is).unwrap_or_else(|| panic!("the table has no {function}:{line}: {:?}", self.sites))
    }

    #[must_use]
    pub fn site(&self, function: &str, line: u32) -> &Site {
        &self.sites[self.index(function, line)]
    }
}
