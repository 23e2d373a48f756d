//! Faults, built in behind test-only knobs: records are lost while the order service works, and once it has stood still for two
//! snapshots, who is alive by creation site is exactly right.
//!
//! `cargo xtask faults` prints what each case came to as a table (docs/snapshots.md); without it, the same cases are tests.

use std::{
    collections::BTreeMap,
    env, fs,
    io::Write,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use lifetrace_tests::{
    deadline::{PATIENCE, wait_for},
    fixture,
    lifetrace::Run,
    recording::Recording,
    report::{Report, Site},
    scenario::{Need, along},
    truth::{self, Orders},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::Serialize;

/// What goes wrong: its name, the knobs that make it, and at which tier.
struct Case {
    name: &'static str,
    knobs: &'static [&'static str],
    tier: &'static str,
}

const fn case(name: &'static str, tier: &'static str, knobs: &'static [&'static str]) -> Case {
    Case { name, knobs, tier }
}

const BY_CHANCE: [Case; 6] = [
    case("1 % of records", "T2", &["drop-permille=10", "drop-seed=1"]),
    case("10 % of records", "T2", &["drop-permille=100", "drop-seed=2"]),
    case("50 % of records", "T2", &["drop-permille=500", "drop-seed=3"]),
    case("50 % of records, others", "T2", &["drop-permille=500", "drop-seed=4"]),
    case("50 % of records", "T1", &["drop-permille=500", "drop-seed=5"]),
    case("50 % of records", "T3", &["drop-permille=500", "drop-seed=6"]),
];

const BY_KIND: [Case; 8] = [
    case("births for 2 s", "T2", &["drop-kind=1"]),
    case("parks for 2 s", "T2", &["drop-kind=2"]),
    case("wakes for 2 s", "T2", &["drop-kind=4"]),
    case("exits for 2 s", "T2", &["drop-kind=5"]),
    case("transitions for 2 s", "T3", &["drop-kind=6"]),
    case("stacks for 2 s", "T2", &["drop-kind=16"]),
    case("a process's image", "T2", &["drop-kind=32"]),
    case("execs for 2 s", "T2", &["drop-kind=34"]),
];

const FROZEN: [Case; 2] = [
    case("reader frozen for 5 s, ring of 64 KiB", "T2", &["freeze-ms=5000", "freeze-from-ms=500", "ring-bytes=65536"]),
    case("reader frozen for 5 s, ring of 64 KiB", "T3", &["freeze-ms=5000", "freeze-from-ms=500", "ring-bytes=65536"]),
];

/// What a case came to.
#[derive(Serialize)]
struct Outcome<'a> {
    case: &'a str,
    tier: &'a str,
    lost: u64,
    alive_truth: u64,
    alive_by_events: u64,
    unconfirmed_by_events: u64,
    /// Sites at which events alone are wrong.
    sites_wrong_by_events: usize,
    alive_repaired: u64,
    sites_wrong_repaired: usize,
    repairs: BTreeMap<String, u64>,
}

/// Check that after losses by chance the count alive by creation site is exactly right.
#[test]
fn by_chance() -> Result<()> {
    along(&[Need::Root], || BY_CHANCE.iter().try_for_each(hold))
}

/// Check the same where every record of one kind is lost for two seconds.
#[test]
fn by_kind() -> Result<()> {
    along(&[Need::Root], || BY_KIND.iter().try_for_each(hold))
}

/// Check the same where the reader stops for five seconds and the ring is small.
#[test]
fn frozen() -> Result<()> {
    along(&[Need::Root], || FROZEN.iter().try_for_each(hold))
}

fn hold(case: &Case) -> Result<()> {
    tried(case).with_context(|| format!("{} at {}", case.name, case.tier))
}

fn tried(case: &Case) -> Result<()> {
    let (orders, recording) = stand_still(case)?;
    let (repaired, events) = (recording.report()?, recording.report_of(&["--events-only"])?);
    let truth = alive_in_truth(&orders);
    let (of_repaired, of_events) = (alive_in(&repaired, orders.pid), alive_in(&events, orders.pid));
    let outcome = Outcome {
        case: case.name,
        tier: case.tier,
        lost: repaired.lost.events,
        alive_truth: truth.values().sum(),
        alive_by_events: of_events.values().sum(),
        unconfirmed_by_events: events.sites.iter().map(|site| site.unconfirmed).sum(),
        sites_wrong_by_events: differing(&truth, &of_events),
        alive_repaired: of_repaired.values().sum(),
        sites_wrong_repaired: differing(&truth, &of_repaired),
        repairs: repaired.repairs.by_kind.clone(),
    };
    if let Some(path) = env::var_os("LIFETRACE_FAULTS") {
        let line = serde_json::to_string(&outcome)?;
        writeln!(fs::OpenOptions::new().create(true).append(true).open(path)?, "{line}")?;
    }
    ensure!(of_repaired == truth, "alive: {of_repaired:?}, in truth {truth:?}; repairs {:?}", repaired.repairs.by_kind);
    ensure!(repaired.lost.events > 0, "nothing was lost: the case proves nothing");
    ensure!(repaired.lost.late == 0, "{} events came behind a mark that was past them", repaired.lost.late);
    ensure!(events.snapshots.left_out && events.repairs.by_kind.keys().all(|kind| !kind.ends_with("by_snapshot")));
    Ok(())
}

/// Runs the order service until it has stood still for two snapshots, and kills it there. Its own truth is of that time.
fn stand_still(case: &Case) -> Result<(Orders, Recording)> {
    let mut run = Run::of(fixture::orders()?).option("--tier").option(case.tier).option("--snapshot-every").option("400ms");
    for knob in case.knobs {
        run = run.option("--knob").option(knob);
    }
    let mut traced = run.args(["-n", "2000", "-rate", "1500", "-leak", "ctx", "-truth", "-for", "5m"]).start()?;
    let orders: Orders = truth::read(&traced.running.line(0)?)?;
    ensure!(orders.settled, "the service cannot vouch for itself");
    let stands_since = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
    let mut first = None;
    wait_for("two snapshots", PATIENCE, || {
        let report = traced.recording().report()?;
        let newest = report.snapshots.newest_ns.map(|at| at + report.meta.zero_unix_ns);
        if newest.is_some_and(|at| at > stands_since + report.meta.clock_error_ns) {
            let first = *first.get_or_insert(report.snapshots.taken);
            return Ok((report.snapshots.taken > first).then_some(()));
        }
        Ok(None)
    })?;
    kill(Pid::from_raw(orders.pid.cast_signed()), Signal::SIGKILL)?;
    let (finished, recording) = traced.finish()?;
    finished.expect_code(128 + 9)?;
    Ok((orders, recording))
}

type Alive = BTreeMap<(String, Option<u32>), u64>;

fn alive_in_truth(orders: &Orders) -> Alive {
    orders.alive.iter().filter(|count| count.count > 0).map(|count| ((count.function.clone(), count.line), count.count)).collect()
}

/// Who is alive by creation site; main, and what os/signal keeps, are not the service's own.
fn alive_in(report: &Report, pid: u32) -> Alive {
    let mut alive = Alive::new();
    let of_process = |site: &&Site| site.tgid == pid && site.alive > 0;
    for site in report.sites.iter().filter(of_process) {
        let function = site.created_by.function.clone().unwrap_or_else(|| "unknown".to_owned());
        if !function.starts_with("runtime.") && !function.starts_with("os/signal.") {
            *alive.entry((function, site.created_by.line)).or_default() += site.alive;
        }
    }
    alive
}

fn differing(truth: &Alive, told: &Alive) -> usize {
    let sites: std::collections::BTreeSet<_> = truth.keys().chain(told.keys()).collect();
    sites.into_iter().filter(|site| truth.get(*site) != told.get(*site)).count()
}
