//! `lifetrace report --format json`, as far as the tests look at it, and expectations about it.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;

use crate::{kernel, series::Series};

#[derive(Clone, Debug, Deserialize)]
pub struct Report {
    pub schema: String,
    pub meta: Meta,
    pub duration_ns: u64,
    pub goroutines: Totals,
    pub lost: Lost,
    #[serde(default)]
    pub repairs: Repairs,
    #[serde(default)]
    pub snapshots: Snapshots,
    #[serde(default)]
    pub summed: Option<Summed>,
    pub coverage: Vec<Coverage>,
    #[serde(default)]
    pub steps: Vec<Step>,
    #[serde(default)]
    pub price: Price,
    pub processes: Vec<Process>,
    pub sites: Vec<Site>,
    #[serde(default)]
    pub cpu: Option<Cpu>,
    #[serde(default)]
    pub gc: Vec<Gc>,
    #[serde(default)]
    pub series: Series,
    /// Units of work of other runtimes.
    #[serde(default)]
    pub units: Vec<Units>,
}

/// Units of work of one runtime in one process.
#[derive(Clone, Debug, Deserialize)]
pub struct Units {
    pub tgid: u32,
    pub runtime: String,
    pub born: u64,
    pub exited: u64,
    pub alive: u64,
    pub preexisting: u64,
    pub at_most: bool,
    pub waits: BTreeMap<String, Wait>,
}

/// CPU time by samples.
#[derive(Clone, Debug, Deserialize)]
pub struct Cpu {
    pub hz: u32,
    pub ticks: u64,
    pub expected_ticks: u64,
    pub samples: u64,
    pub cpu_ns: u64,
    pub known_goid: Option<f64>,
    pub by_process: Vec<ProcessCpu>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ProcessCpu {
    pub tgid: u32,
    pub samples: u64,
    pub shares: Option<BTreeMap<String, f64>>,
}

/// The collector and the pauses of one process.
#[derive(Clone, Debug, Deserialize)]
pub struct Gc {
    pub tgid: u32,
    pub cycles: u64,
    pub partial: u64,
    pub total_ns: u64,
    pub pauses: Pauses,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Pauses {
    pub count: u64,
    pub unended: u64,
    pub total_ns: u64,
    pub by_reason: BTreeMap<String, Pause>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Pause {
    pub count: u64,
    pub total_ns: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Meta {
    /// Wall time of the recording's zero, and how exact that is.
    pub zero_unix_ns: u64,
    pub clock_error_ns: u64,
    /// How far that clock moved against the recording's.
    #[serde(default)]
    pub clock_drift_ns: Option<i64>,
    pub completeness: String,
    pub end_reason: Option<String>,
    pub target: Option<String>,
    pub warnings: Vec<String>,
}

/// What a tier cannot know is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Totals {
    pub born: Option<u64>,
    pub exited: Option<u64>,
    pub alive: Option<u64>,
    pub preexisting: Option<u64>,
    pub system: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Lost {
    pub events: u64,
    pub by_kind: BTreeMap<String, u64>,
    /// Lost at an unknown time.
    #[serde(default)]
    pub undated: u64,
    /// Came too late to be put in order.
    #[serde(default)]
    pub late: u64,
    /// Not told of by the kernel, by tracepoint, at most.
    #[serde(default)]
    pub left_out: BTreeMap<String, u64>,
}

/// Looks at the goroutines of processes that events were held against.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Snapshots {
    pub left_out: bool,
    pub taken: u64,
    pub failed: u64,
    pub newest_ns: Option<u64>,
}

/// What had to be assumed because an event was missing.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Repairs {
    pub by_kind: BTreeMap<String, u64>,
}

/// What was summed instead of told.
#[derive(Clone, Debug, Deserialize)]
pub struct Summed {
    pub min_block_ns: u64,
    pub lives: u64,
    pub waits: u64,
    pub waits_ns: u64,
    pub unkept: u64,
    pub unsummed: u64,
}

/// What the probes cost the target.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Price {
    pub budget: Option<f64>,
    #[serde(default)]
    pub probe_hits: Option<u64>,
    pub cost_ns: Option<u64>,
    pub share: Option<f64>,
    #[serde(default)]
    pub programs: Vec<Paid>,
}

/// What those of one program cost it.
#[derive(Clone, Debug, Deserialize)]
pub struct Paid {
    pub path: Option<String>,
    /// By tier.
    pub hits: BTreeMap<String, u64>,
    pub cost_ns: u64,
    pub cpu_ns: u64,
    pub share: Option<f64>,
}

/// A change of tier that kept the budget.
#[derive(Clone, Debug, Deserialize)]
pub struct Step {
    pub at_ns: u64,
    pub tier: String,
    pub why: String,
    pub share: f64,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Coverage {
    pub tgid: u32,
    pub tier: String,
    pub from_ns: u64,
    pub to_ns: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Process {
    pub tgid: u32,
    pub parent: Option<u32>,
    /// `None`: not a traced binary.
    pub exe: Option<String>,
    pub argv: Option<Vec<String>>,
    pub go_version: Option<String>,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Site {
    pub tgid: u32,
    /// Empty where the birth was not seen.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub created_by: Creator,
    pub start_function: Option<String>,
    pub born: u64,
    pub exited: u64,
    pub alive: u64,
    #[serde(default)]
    pub gone: u64,
    #[serde(default)]
    pub unconfirmed: u64,
    pub preexisting: u64,
    #[serde(default)]
    pub blocked_ns: Option<u64>,
    #[serde(default)]
    pub waits: Option<BTreeMap<String, Wait>>,
    /// T3: time waiting for a CPU, and time on one.
    #[serde(default)]
    pub runnable_ns: Option<u64>,
    #[serde(default)]
    pub running_ns: Option<u64>,
    #[serde(default)]
    pub oncpu_ns: Option<u64>,
}

/// Empty for goroutines that nobody made (main).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Creator {
    pub function: Option<String>,
    pub file: Option<String>,
    pub line: Option<u32>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Wait {
    pub count: u64,
    pub blocked_ns: Option<u64>,
}

fn null_as_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Creator, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Report {
    /// Begins an expectation about goroutines.
    #[must_use]
    pub fn goroutines(&self) -> Goroutines<'_> {
        Goroutines { described: "goroutines".to_owned(), sites: self.sites.iter().collect(), reason: None }
    }

    /// The process of this id.
    #[must_use]
    pub fn process(&self, tgid: u32) -> &Process {
        self.processes.iter().find(|process| process.tgid == tgid).unwrap_or_else(|| {
            panic!("no process {tgid} among {:?}", self.processes.iter().map(|process| process.tgid).collect::<Vec<_>>())
        })
    }

    /// Fails if a single event was lost, or anything was repaired although none was.
    #[track_caller]
    pub fn assert_nothing_lost(&self) {
        assert_eq!(self.lost.events, 0, "lost: {:?}", self.lost.by_kind);
        let repaired: Vec<_> = self.repairs.by_kind.iter().filter(|(kind, _)| !kernel::keeps_to_itself(kind)).collect();
        assert!(repaired.is_empty(), "repaired although nothing was lost: {repaired:?}");
    }

    /// The same of a process that was joined while it ran: what few goroutines were about to do just then may be known by looks alone (docs/limits.md).
    #[track_caller]
    pub fn assert_nothing_lost_since_joined(&self) {
        const UNDER_WAY: [&str; 3] = ["gone_by_snapshot", "state_by_snapshot", "lost_wake"];
        assert_eq!(self.lost.events, 0, "lost: {:?}", self.lost.by_kind);
        let repaired = self.repairs.by_kind.iter().filter(|(kind, _)| !kernel::keeps_to_itself(kind));
        let (under_way, others): (Vec<_>, Vec<_>) = repaired.partition(|(kind, _)| UNDER_WAY.contains(&kind.as_str()));
        let few = under_way.iter().map(|(_, count)| **count).sum::<u64>() <= 5;
        assert!(few && others.is_empty(), "repaired although nothing was lost: {under_way:?} {others:?}");
    }
}

/// Goroutines narrowed down by where they come from, about which something is then claimed.
#[derive(Clone)]
pub struct Goroutines<'a> {
    described: String,
    sites: Vec<&'a Site>,
    reason: Option<String>,
}

impl<'a> Goroutines<'a> {
    /// Those of one process.
    #[must_use]
    pub fn of(self, tgid: u32) -> Self {
        self.narrow(&format!("of {tgid}"), |site| site.tgid == tgid)
    }

    /// Those made in this function.
    #[must_use]
    pub fn created_by(self, function: &str) -> Self {
        self.narrow(&format!("created by {function}"), |site| site.created_by.function.as_deref() == Some(function))
    }

    /// Those made on this line of a file of this base name.
    #[must_use]
    pub fn at(self, file: &str, line: u32) -> Self {
        self.narrow(&format!("at {file}:{line}"), |site| {
            let base = site.created_by.file.as_deref().and_then(|path| Path::new(path).file_name());
            base.is_some_and(|base| base == file) && site.created_by.line == Some(line)
        })
    }

    /// Those that ever waited for this; [`Self::count`] then counts these waits.
    #[must_use]
    pub fn blocked_on(self, reason: &str) -> Self {
        let mut narrowed = self
            .narrow(&format!("blocked on {reason}"), |site| site.waits.as_ref().is_some_and(|waits| waits.contains_key(reason)));
        narrowed.reason = Some(reason.to_owned());
        narrowed
    }

    /// Claims how many were born.
    #[track_caller]
    pub fn born(self, n: u64) -> Self {
        self.claim("born", n, |site| site.born)
    }

    /// Claims how many exited.
    #[track_caller]
    pub fn exited(self, n: u64) -> Self {
        self.claim("exited", n, |site| site.exited)
    }

    /// Claims how many were alive at the end.
    #[track_caller]
    pub fn alive(self, n: u64) -> Self {
        self.claim("alive", n, |site| site.alive)
    }

    /// Claims how often they waited for the reason of [`Self::blocked_on`]; a wait that never ended counts too.
    #[track_caller]
    pub fn count(self, n: u64) -> Self {
        let Some(reason) = self.reason.clone() else { panic!("count of waits for what?") };
        self.claim(&format!("waits for {reason}"), n, |site| waits(site, &reason))
    }

    /// Claims that all of them exited.
    #[track_caller]
    pub fn exits(self) -> Self {
        let born = self.sum(|site| site.born);
        self.exited(born).alive(0)
    }

    /// Claims that none of them exited.
    #[track_caller]
    pub fn stays(self) -> Self {
        let born = self.sum(|site| site.born);
        self.exited(0).alive(born)
    }

    /// How often they waited for `reason`; 0 where it does not occur.
    #[must_use]
    pub fn waits_for(&self, reason: &str) -> u64 {
        self.sum(|site| waits(site, reason))
    }

    /// The sum of a number over all that match.
    #[must_use]
    pub fn sum(&self, number: impl Fn(&Site) -> u64) -> u64 {
        self.sites.iter().map(|site| number(site)).sum()
    }

    fn narrow(self, how: &str, keep: impl Fn(&Site) -> bool) -> Self {
        let kept: Vec<&'a Site> = self.sites.iter().copied().filter(|site| keep(site)).collect();
        let described = format!("{} {how}", self.described);
        assert!(!kept.is_empty(), "no {described}; there are: {:#?}", self.sites.iter().take(50).collect::<Vec<_>>());
        Self { described, sites: kept, reason: self.reason }
    }

    #[track_caller]
    fn claim(self, what: &str, n: u64, number: impl Fn(&Site) -> u64) -> Self {
        let sum = self.sum(number);
        assert_eq!(sum, n, "{}: {what}: {sum}, expected {n}; sites: {:#?}", self.described, self.sites);
        self
    }
}

fn waits(site: &Site, reason: &str) -> u64 {
    site.waits.as_ref().and_then(|waits| waits.get(reason)).map_or(0, |wait| wait.count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let text = r#"{"schema":"lifetrace.report/1","duration_ns":9,
            "meta":{"zero_unix_ns":1,"clock_error_ns":0,"completeness":"complete","end_reason":null,"target":null,"warnings":[]},
            "goroutines":{"born":4,"exited":2,"alive":2,"preexisting":0,"system":5},
            "lost":{"events":0,"by_kind":{}},"coverage":[],"processes":[{"tgid":7,"parent":1,"exe":"/x","argv":null,"exit_code":0}],
            "sites":[{"tgid":7,"created_by":{"function":"main.worker","file":"/src/main.go","line":5},"start_function":"main.f","born":3,
                      "exited":1,"alive":2,"preexisting":0,"waits":{"chan receive":{"count":2,"blocked_ns":10}}},
                     {"tgid":7,"created_by":{"function":"main.main","file":"main.go","line":9},"start_function":null,"born":1,"exited":1,
                      "alive":0,"preexisting":0,"waits":null}]}"#;
        serde_json::from_str(text).unwrap()
    }

    /// Check that claims are summed over what was narrowed down to, and that files are compared by their base name.
    #[test]
    fn claims_that_hold() {
        let report = report();
        let _ = report.goroutines().of(7).born(4).exited(2).alive(2);
        let _ = report.goroutines().created_by("main.worker").at("main.go", 5).blocked_on("chan receive").count(2).born(3);
        let _ = report.goroutines().created_by("main.main").exits();
        assert_eq!(report.process(7).exit_code, Some(0));
    }

    /// Check that a claim that does not hold says so.
    #[test]
    #[should_panic(expected = "created by main.worker: exited: 1, expected 3")]
    fn claim_that_fails() {
        let _ = report().goroutines().created_by("main.worker").exits();
    }

    /// Check that goroutines nobody made are not vacuously right.
    #[test]
    #[should_panic(expected = "no goroutines created by main.nobody")]
    fn nothing_matches() {
        let _ = report().goroutines().created_by("main.nobody").born(0);
    }
}
