//! An agent whose clock is set while it runs: forward, as the calendar goes on while a machine sleeps and the clock of events does not, and
//! back, as a server of time may have it. By libfaketime, which gives the agent alone another calendar.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use lifetrace_tests::{
    agent::Agent,
    deadline::{PATIENCE, wait_for},
    fixture, lifetrace,
    otelcol::{Collector, PROGRAM, integer},
    recording::Recording,
    report::Report,
    scenario::{Need, along},
    segments,
};

const DAY: i64 = 86_400;
/// How far from here the calendar is, one after the other.
const SETTINGS: [i64; 3] = [0, 3 * DAY, -2 * DAY];
/// What is told of a moment is of a moment so near.
const NEAR: i64 = 600;

fn library() -> Result<PathBuf> {
    let mut places = fs::read_dir("/usr/lib")?.filter_map(|entry| Some(entry.ok()?.path().join("faketime/libfaketimeMT.so.1")));
    places.find(|path| path.is_file()).context("no libfaketime")
}

/// Sets the calendar, at once and as a whole.
fn set(file: &Path, seconds: i64) -> Result<()> {
    let fresh = file.with_extension("new");
    fs::write(&fresh, format!("{seconds:+}\n"))?;
    Ok(fs::rename(fresh, file)?)
}

fn here() -> Result<i64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs().cast_signed())
}

/// Check that programs are followed on, that nothing counted is lost or counted twice, that windows, segments and what is sent say what the
/// calendar says, and that no series sent ends before it begins, whichever way the clock is set.
#[test]
fn set_while_it_runs() -> Result<()> {
    along(&[Need::Root, Need::Command("faketime"), Need::Program(PROGRAM)], || {
        let dir = tempfile::tempdir()?;
        let at = |name: &str| dir.path().join(name);
        let mut collector = Collector::new(&at("received"))?;
        collector.start()?;
        set(&at("calendar"), 0)?;
        let app = at("programs/app");
        let _running = fixture::orders_at(&app, &["-leak", "afterfunc", "-n", "20000", "-rate", "50", "-for", "600s"])?;
        let mut command = Command::new(lifetrace::binary());
        command.env("LD_PRELOAD", library()?).env("FAKETIME_TIMESTAMP_FILE", at("calendar"));
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("NO_FAKE_STAT", "1");
        let agent = Agent::guarded_by(
            command,
            &format!(
                "node = \"n1\"\nbudget = \"none\"\nsnapshot_every = \"1s\"\nrenew = \"1h\"\n\
                 [[rule]]\naction = \"follow\"\nexe = \"{}\"\n\
                 [record]\ndir = {:?}\nbefore = \"2s\"\nafter = \"1s\"\n\
                 [segments]\nstore = \"file://{}\"\nspool = {:?}\nevery = \"5s\"\n\
                 [otlp]\nendpoint = \"http://{}\"\ninterval = \"1s\"\nqueue = {:?}\n",
                app.display(),
                at("windows"),
                at("store").display(),
                at("spool"),
                collector.grpc,
                at("queue")
            ),
        )?;
        let born = |metrics: &lifetrace_tests::agent::Metrics| metrics.sum("lifetrace_goroutines_born_total", &["time.goFunc"]);
        for setting in SETTINGS {
            set(&at("calendar"), setting)?;
            let before = agent.until("births", born)?;
            agent.until("further births", |metrics| born(metrics).filter(|born| *born > before))?;
            let moment = here()? + setting;
            // It may be about to end.
            let days = [moment, moment + NEAR].map(day_of);
            wait_for("a segment of that day", PATIENCE, || {
                let files = segments::files(&at("store").join("meta"))?;
                let of_then = |file: &String| days.iter().any(|day| file.contains(day)) && file.ends_with(".parquet");
                Ok(files.iter().any(of_then).then_some(()))
            })
            .with_context(|| format!("{days:?}: {}", agent.running.stderr()))?;
            let path = window(&agent, &at("windows"))?;
            let report: Report = serde_json::from_str(&Recording::at(&path).answer("report", &["--format", "json"])?)?;
            report.assert_nothing_lost_since_joined();
            let zero = (report.meta.zero_unix_ns / 1_000_000_000).cast_signed();
            assert!((moment - NEAR..=moment + NEAR).contains(&zero), "{zero} is not {moment}");
            agent.until("a batch of then", |_| {
                let items = collector.items("metrics").ok()?;
                items.iter().rev().flat_map(points).any(|(_, time)| (time - moment).abs() < NEAR).then_some(())
            })?;
            assert!(agent.get("/healthz")?.starts_with("HTTP/1.1 200"));
        }
        assert_eq!(agent.metrics()?.sum("lifetrace_lost_events_total", &[]), None);
        agent.terminate()?;
        collector.stop()?;
        for (start, time) in collector.items("metrics")?.iter().flat_map(points) {
            assert!(start <= time, "a series from {start} to {time}");
        }
        Ok(())
    })
}

/// The day of a moment, in UTC, as date(1) has it.
fn day_of(moment: i64) -> String {
    let mut date = Command::new("date");
    date.args(["-u", "-d", &format!("@{moment}"), "+%F"]);
    let said = lifetrace_tests::process::run(date).and_then(|date| date.expect_code(0));
    said.map(|date| date.stdout.trim().to_owned()).unwrap_or_default()
}

/// Asks for a window, and waits for its file.
fn window(agent: &Agent, dir: &Path) -> Result<PathBuf> {
    let all = || -> Result<BTreeSet<PathBuf>> {
        let entries = fs::read_dir(dir).map_or_else(|_| Ok(Vec::new()), Iterator::collect::<Result<Vec<_>, _>>)?;
        let ready = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "lifetrace");
        Ok(entries.iter().map(fs::DirEntry::path).filter(ready).collect())
    };
    let before = all()?;
    wait_for("a window to begin", PATIENCE, || Ok(agent.post("/v1/record")?.starts_with("HTTP/1.1 202").then_some(())))?;
    let fresh = wait_for("a window", PATIENCE, || Ok(all()?.difference(&before).next().cloned()));
    fresh.with_context(|| agent.running.stderr())
}

/// When a metric's points begin and end, in seconds; a gauge begins nowhere.
fn points(item: &lifetrace_tests::otelcol::Item) -> Vec<(i64, i64)> {
    let seconds = |value: &serde_json::Value| integer(value).map_or(0, |ns| (ns / 1_000_000_000).cast_signed());
    let points = ["sum", "gauge", "histogram"].iter().filter_map(|kind| item.json[kind]["dataPoints"].as_array());
    points.flatten().map(|point| (seconds(&point["startTimeUnixNano"]), seconds(&point["timeUnixNano"]))).collect()
}
