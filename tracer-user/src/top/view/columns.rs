//! The columns of the tables: what stands in them, how they are ordered, and which are left out first where there is no room.

use std::cmp::Ordering;

use crate::{
    correlate::SpanState,
    recording::contract::Tier,
    timeline::human::{count, duration},
    top::picture::{GoroutineRow, Lasting, ProcessRow, SiteRow, States, Suspicion},
};

/// What stands where nothing is known.
pub const UNKNOWN: &str = "-";

/// One column.
pub struct Column<R> {
    pub title: &'static str,
    /// 0: what is left.
    pub width: u16,
    /// The higher, the sooner it is left out.
    pub rank: u8,
    /// A number.
    pub right: bool,
    pub cell: fn(&R) -> String,
    /// As it is ordered if not reversed: large numbers first, names from A.
    pub order: fn(&R, &R) -> Ordering,
}

/// Large ones first; what is not known comes last.
fn falling<T: PartialOrd + Copy>(one: T, other: T) -> Ordering {
    other.partial_cmp(&one).unwrap_or(Ordering::Equal)
}

fn rate(rate: Option<f64>) -> String {
    match rate {
        None => UNKNOWN.to_owned(),
        Some(rate) if rate > 0.0 && rate < 9.95 => format!("{rate:.1}"),
        Some(rate) => count(rate.round() as u64),
    }
}

/// A time with its unit, `>` before it if it may be more.
fn lasting(time: Option<Lasting>) -> String {
    time.map_or_else(
        || UNKNOWN.to_owned(),
        |Lasting { ns, at_least }| format!("{}{}", if at_least { ">" } else { "" }, duration(ns)),
    )
}

pub fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| UNKNOWN.to_owned(), |share| format!("{:.2} %", share * 100.0))
}

fn states(row: &SiteRow) -> Option<&States> {
    row.states.as_ref()
}

/// A count of which only those can tell whose state is known.
fn known(states: Option<&States>, of: fn(&States) -> u64) -> Option<u64> {
    states.filter(|states| states.unknown < states.alive() || states.alive() == 0).map(of)
}

/// Running and runnable can be told apart only where every step is told.
fn scheduled(row: &SiteRow, of: fn(&States) -> u64) -> Option<u64> {
    known(states(row), of).filter(|_| row.tier >= Some(Tier::T3))
}

fn number(number: Option<u64>) -> String {
    number.map_or_else(|| UNKNOWN.to_owned(), count)
}

fn reasons(states: Option<&States>) -> String {
    let Some(states) = states else { return UNKNOWN.to_owned() };
    let shown: Vec<String> = states.reasons.iter().take(3).map(|(reason, of)| format!("{reason} {}", count(*of))).collect();
    if shown.is_empty() { UNKNOWN.to_owned() } else { shown.join(", ") }
}

fn suspicion(suspicion: Suspicion) -> String {
    match suspicion {
        Suspicion::Unknown => UNKNOWN.to_owned(),
        Suspicion::None => "no".to_owned(),
        Suspicion::Grows(per_hour) => format!("+{}/h", count(per_hour.round() as u64)),
    }
}

fn grows(suspicion: Suspicion) -> f64 {
    match suspicion {
        Suspicion::Unknown => -1.0,
        Suspicion::None => 0.0,
        Suspicion::Grows(per_hour) => per_hour,
    }
}

pub const PROCESSES: &[Column<ProcessRow>] = &[
    Column { title: "TGID", width: 7, rank: 0, right: true, cell: |row| row.tgid.to_string(), order: |a, b| a.tgid.cmp(&b.tgid) },
    Column {
        title: "ALIVE",
        width: 9,
        rank: 0,
        right: true,
        cell: |row| count(row.alive),
        order: |a, b| falling(a.alive, b.alive),
    },
    Column {
        title: "BORN/s",
        width: 8,
        rank: 3,
        right: true,
        cell: |row| rate(row.born_per_s),
        order: |a, b| falling(a.born_per_s, b.born_per_s),
    },
    Column {
        title: "ENDED/s",
        width: 8,
        rank: 4,
        right: true,
        cell: |row| rate(row.ended_per_s),
        order: |a, b| falling(a.ended_per_s, b.ended_per_s),
    },
    Column {
        title: "BLOCKED",
        width: 9,
        rank: 2,
        right: true,
        cell: |row| number(known(Some(&row.states), |states| states.blocked)),
        order: |a, b| falling(a.states.blocked, b.states.blocked),
    },
    Column {
        title: "AWAKE",
        width: 7,
        rank: 5,
        right: true,
        cell: |row| number(known(Some(&row.states), States::not_blocked)),
        order: |a, b| falling(a.states.not_blocked(), b.states.not_blocked()),
    },
    Column { title: "TIER", width: 5, rank: 1, right: true, cell: |row| tier(row.tier), order: |a, b| falling(a.tier, b.tier) },
    Column {
        title: "PRICE",
        width: 8,
        rank: 1,
        right: true,
        cell: |row| percent(row.price),
        order: |a, b| falling(a.price, b.price),
    },
    Column {
        title: "GO",
        width: 9,
        rank: 6,
        right: false,
        cell: |row| row.go_version.clone(),
        order: |a, b| a.go_version.cmp(&b.go_version),
    },
    Column {
        title: "ENDED",
        width: 8,
        rank: 5,
        right: false,
        cell: |row| row.ended.clone().unwrap_or_default(),
        order: |a, b| b.ended.cmp(&a.ended),
    },
    Column {
        title: "COMMAND",
        width: 0,
        rank: 0,
        right: false,
        cell: |row| row.command.clone(),
        order: |a, b| a.command.cmp(&b.command),
    },
];
/// Ordered by this at first: ALIVE.
pub const PROCESSES_SORT: usize = 1;

fn tier(tier: Option<Tier>) -> String {
    tier.map_or_else(|| UNKNOWN.to_owned(), |tier| format!("{tier:?}"))
}

pub const SITES: &[Column<SiteRow>] = &[
    Column {
        title: "ALIVE",
        width: 9,
        rank: 0,
        right: true,
        cell: |row| count(row.alive),
        order: |a, b| falling(a.alive, b.alive),
    },
    Column {
        title: "BORN/s",
        width: 8,
        rank: 3,
        right: true,
        cell: |row| rate(row.born_per_s),
        order: |a, b| falling(a.born_per_s, b.born_per_s),
    },
    Column {
        title: "ENDED/s",
        width: 8,
        rank: 4,
        right: true,
        cell: |row| rate(row.ended_per_s),
        order: |a, b| falling(a.ended_per_s, b.ended_per_s),
    },
    Column {
        title: "BLOCKED",
        width: 9,
        rank: 2,
        right: true,
        cell: |row| number(known(states(row), |states| states.blocked)),
        order: |a, b| falling(states(a).map(|states| states.blocked), states(b).map(|states| states.blocked)),
    },
    Column {
        title: "LONGEST",
        width: 10,
        rank: 1,
        right: true,
        cell: |row| lasting(states(row).and_then(|states| states.longest)),
        order: |a, b| falling(states(a).and_then(|states| states.longest), states(b).and_then(|states| states.longest)),
    },
    Column {
        title: "AWAKE",
        width: 7,
        rank: 7,
        right: true,
        cell: |row| number(known(states(row), States::not_blocked)),
        order: |a, b| falling(states(a).map(States::not_blocked), states(b).map(States::not_blocked)),
    },
    Column {
        title: "RUN",
        width: 5,
        rank: 8,
        right: true,
        cell: |row| number(scheduled(row, |states| states.running + states.syscall)),
        order: |a, b| falling(states(a).map(|states| states.running), states(b).map(|states| states.running)),
    },
    Column {
        title: "READY",
        width: 6,
        rank: 8,
        right: true,
        cell: |row| number(scheduled(row, |states| states.runnable)),
        order: |a, b| falling(states(a).map(|states| states.runnable), states(b).map(|states| states.runnable)),
    },
    Column {
        title: "DELAY p50",
        width: 9,
        rank: 9,
        right: true,
        cell: |row| row.delay_ns.map_or_else(|| UNKNOWN.to_owned(), |(p50, _)| duration(p50)),
        order: |a, b| falling(a.delay_ns.map(|of| of.0), b.delay_ns.map(|of| of.0)),
    },
    Column {
        title: "p99",
        width: 8,
        rank: 9,
        right: true,
        cell: |row| row.delay_ns.map_or_else(|| UNKNOWN.to_owned(), |(_, p99)| duration(p99)),
        order: |a, b| falling(a.delay_ns.map(|of| of.1), b.delay_ns.map(|of| of.1)),
    },
    Column {
        title: "LEAK?",
        width: 10,
        rank: 1,
        right: true,
        cell: |row| suspicion(row.suspicion),
        order: |a, b| falling(grows(a.suspicion), grows(b.suspicion)),
    },
    Column { title: "TGID", width: 7, rank: 6, right: true, cell: |row| row.tgid.to_string(), order: |a, b| a.tgid.cmp(&b.tgid) },
    Column {
        title: "WAITS FOR",
        width: 26,
        rank: 5,
        right: false,
        cell: |row| reasons(states(row)),
        order: |a, b| reasons(states(a)).cmp(&reasons(states(b))),
    },
    Column {
        title: "CREATED BY -> START",
        width: 0,
        rank: 0,
        right: false,
        cell: |row| row.name.clone(),
        order: |a, b| a.name.cmp(&b.name),
    },
];
/// Ordered by this at first: ALIVE.
pub const SITES_SORT: usize = 0;

pub const GOROUTINES: &[Column<GoroutineRow>] = &[
    Column {
        title: "GOROUTINE",
        width: 10,
        rank: 0,
        right: true,
        cell: |row| row.goid.to_string(),
        order: |a, b| a.goid.cmp(&b.goid),
    },
    Column {
        title: "STATE",
        width: 9,
        rank: 1,
        right: false,
        cell: |row| state(row.state).to_owned(),
        order: |a, b| state(a.state).cmp(state(b.state)),
    },
    Column {
        title: "FOR",
        width: 11,
        rank: 0,
        right: true,
        cell: |row| lasting(Some(row.since)),
        order: |a, b| falling(a.since, b.since),
    },
    Column { title: "AGE", width: 11, rank: 2, right: true, cell: |row| lasting(row.age), order: |a, b| falling(a.age, b.age) },
    Column {
        title: "PARENT",
        width: 10,
        rank: 3,
        right: true,
        cell: |row| row.parent.map_or_else(|| UNKNOWN.to_owned(), |parent| parent.to_string()),
        order: |a, b| a.parent.cmp(&b.parent),
    },
    Column {
        title: "LABELS",
        width: 24,
        rank: 4,
        right: false,
        cell: |row| row.labels.to_string(),
        order: |a, b| a.labels.cmp(&b.labels),
    },
    Column {
        title: "WAITS FOR",
        width: 0,
        rank: 0,
        right: false,
        cell: |row| row.reason.as_deref().unwrap_or(UNKNOWN).to_owned(),
        order: |a, b| a.reason.cmp(&b.reason),
    },
];
/// Ordered by this at first: FOR.
pub const GOROUTINES_SORT: usize = 2;

fn state(state: Option<SpanState>) -> &'static str {
    state.map_or(UNKNOWN, SpanState::name)
}
