//! The Perfetto trace of a recording: read with the schema that Perfetto publishes, and held against the timeline.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use anyhow::{Context, Result};
use lifetrace_tests::{
    deadline::once_in_three,
    fixture,
    life::{self, Lives},
    lifetrace::Run,
    process, program,
    recording::{Recording, Span},
    scenario::{Need, alone, along},
    truth::{self, Births, Collected, Orders},
};
use serde::Deserialize;
use tempfile::TempDir;

const SCHEMA: Need = Need::Program("perfetto/bin/perfetto/protos/perfetto/trace/perfetto_trace_pb2.py");
/// Tracks of goroutines, as docs/perfetto.md has it.
const MOST: usize = 1500;

/// What `python/perfetto_trace.py` says of a trace.
#[derive(Deserialize)]
struct Trace {
    /// Clock of the recording's zero.
    zero: u64,
    tracks: BTreeMap<u64, Track>,
    slices: Vec<Slice>,
    instants: Vec<Slice>,
    values: Vec<Value>,
    flows: Vec<Flow>,
}

#[derive(Deserialize)]
struct Track {
    name: String,
    parent: Option<u64>,
    pid: Option<i32>,
    tid: Option<i32>,
    events: u64,
}

#[derive(Deserialize)]
struct Slice {
    track: u64,
    name: String,
    category: Vec<String>,
    start: u64,
    end: Option<u64>,
    says: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct Value {
    track: u64,
    value: i64,
}

#[derive(Deserialize)]
struct Flow {
    from: u64,
    to: u64,
    at: u64,
}

/// What `leaks --format json` says of who leaks.
#[derive(Deserialize)]
struct Said {
    leaks: Vec<Leak>,
}

#[derive(Deserialize)]
struct Leak {
    kind: String,
    strength: String,
    ids: Vec<String>,
}

impl Trace {
    fn of(recording: &Recording) -> Result<Self> {
        let dir = TempDir::new()?;
        let file = dir.path().join("trace.perfetto-trace");
        recording.answer("timeline", &["--format", "perfetto", "-o", &file.display().to_string()])?;
        let mut python = Command::new("python3");
        python.arg(fixture::workspace_root().join("tests/python/perfetto_trace.py")).arg(&file);
        python.env("PYTHONPATH", program::fetched("perfetto/bin"));
        serde_json::from_str(&process::run(python)?.expect_code(0)?.stdout).context("what the script says")
    }

    /// The names of a track and of those above it, the process's number for its own.
    fn path(&self, track: u64) -> Vec<String> {
        let track = &self.tracks[&track];
        let mut path = track.parent.map_or(Vec::new(), |parent| self.path(parent));
        path.push(track.pid.map_or_else(|| track.name.clone(), |pid| format!("pid:{pid}")));
        path
    }

    /// The tracks of single goroutines, by process and id.
    fn goroutines(&self) -> BTreeMap<(String, String), u64> {
        let tracks = self.tracks.iter().filter(|(_, track)| track.name.starts_with("go:"));
        tracks.map(|(uuid, track)| ((self.path(*uuid)[0].clone(), track.name.clone()), *uuid)).collect()
    }

    fn slices_of(&self, track: u64) -> Vec<&Slice> {
        let mut slices: Vec<&Slice> = self.slices.iter().filter(|slice| slice.track == track).collect();
        slices.sort_by_key(|slice| (slice.start, slice.end));
        slices
    }
}

/// Check that every goroutine, process and span of the timeline is in the trace, where and when it belongs, with its reason and stack, and
/// that births and wakes are arrows between the right tracks.
#[test]
fn same_as_the_timeline() -> Result<()> {
    along(&[Need::Root, Need::Command("python3"), SCHEMA], || {
        let run = Run::of(fixture::go("pingpong")?).option("--tier").option("T3").args(["-rounds", "300"]);
        let (finished, recording) = run.finish()?;
        finished.expect_code(0)?;
        let (trace, timeline) = (Trace::of(&recording)?, recording.timeline(None)?);
        let mut rows: BTreeMap<(String, String), Vec<&Span>> = BTreeMap::new();
        for row in timeline.iter().filter(|row| row.id.starts_with("go:") && row.state != "dead" && row.state != "lost") {
            rows.entry((format!("pid:{}", row.tgid), row.id.clone())).or_default().push(row);
        }
        let tracks = trace.goroutines();
        assert!(rows.keys().eq(tracks.keys()), "{:?} and {:?}", rows.keys(), tracks.keys());
        let mut wakes = 0;
        for (who, rows) in &rows {
            let path = trace.path(tracks[who]);
            assert_eq!((path.len(), path[1].as_str()), (4, "goroutines"), "{path:?}");
            let slices = trace.slices_of(tracks[who]);
            assert_eq!(slices.len(), rows.len(), "{who:?}");
            for (slice, row) in slices.iter().zip(rows) {
                let name = if row.state == "blocked" { row.reason.as_ref().unwrap_or(&row.state) } else { &row.state };
                let (start, end) = (slice.start - trace.zero, slice.end.map(|end| end - trace.zero));
                assert_eq!((&slice.name, start, end), (name, row.start_ns, row.end_ns), "{who:?}");
                assert_eq!(slice.category, ["goroutine"]);
                if let Some([frame, ..]) = row.stack.as_deref() {
                    let stack = slice.says["stack"].as_str().unwrap_or_default();
                    assert!(stack.starts_with(&frame.function), "{stack} begins with {frame:?}");
                }
                assert_eq!(slice.says.get("woken by").and_then(|by| by.as_str()), row.woken_by.as_deref());
            }
            for pair in rows.windows(2) {
                let Some(waker) = pair[0].woken_by.as_ref().filter(|by| by.starts_with("go:")) else { continue };
                let from = tracks.get(&(who.0.clone(), waker.clone())).copied();
                let at = trace.zero + pair[1].start_ns;
                let arrow = trace.flows.iter().any(|flow| (Some(flow.from), flow.to, flow.at) == (from, tracks[who], at));
                assert!(arrow, "no arrow from {waker} to {who:?} at {at}");
                wakes += 1;
            }
        }
        assert!(wakes > 500, "{wakes} wakes: the test proves nothing");
        let born = trace.instants.iter().filter(|instant| instant.name == "go").count();
        assert!(born >= 1 && trace.flows.len() == wakes + born, "{wakes} wakes, {born} births, {} arrows", trace.flows.len());
        for id in timeline.iter().filter(|row| row.id.starts_with("pid:")).map(|row| &row.id) {
            let life = trace.tracks.iter().find(|(uuid, _)| trace.path(**uuid) == [id.as_str(), "process"]);
            assert!(life.is_some_and(|(_, track)| track.events > 0), "{id}");
        }
        let tier = trace.slices.iter().find(|slice| trace.path(slice.track)[1..] == ["tier".to_owned()]);
        assert!(tier.is_some_and(|tier| tier.name == "T3"), "{:?}", tier.map(|tier| &tier.name));
        Ok(())
    })
}

/// Check that a hundred thousand goroutines are not a hundred thousand tracks, and that all are counted where they were made.
#[test]
fn too_many_for_a_track_each() -> Result<()> {
    alone(&[Need::Root, Need::Command("python3"), SCHEMA], || {
        let (finished, recording) = Run::of(fixture::go("births")?).finish()?;
        let births: Births = truth::read(finished.expect_code(0)?.last_line())?;
        let made: u64 = births.sites.iter().map(|site| site.made).sum();
        let trace = Trace::of(&recording)?;
        assert_eq!((made, trace.goroutines().len()), (100_000, MOST));
        for site in &births.sites {
            let place = format!("{}:{}", site.file, site.line);
            // One for each function that is started there.
            let groups: Vec<u64> = trace
                .tracks
                .iter()
                .filter(|(_, track)| track.name.contains("  by ") && track.name.ends_with(&place))
                .map(|(uuid, _)| *uuid)
                .collect();
            let count = |group: &u64| {
                let (_, rest) = trace.tracks[group].name.split_once(" (")?;
                rest.split_once(')')?.0.parse::<u64>().ok()
            };
            assert_eq!(groups.iter().filter_map(count).sum::<u64>(), site.made, "{place}");
            let mut most_alive = 0;
            for group in &groups {
                let alive = trace.tracks.iter().find(|(_, track)| track.parent == Some(*group) && track.name == "alive");
                let (alive, _) = alive.with_context(|| format!("no counter by {place}"))?;
                let of: Vec<i64> = trace.values.iter().filter(|value| value.track == *alive).map(|value| value.value).collect();
                most_alive += of.iter().max().copied().unwrap_or_default();
                assert_eq!(of.last(), Some(&0), "when all has ended none lives");
            }
            assert!(most_alive >= i64::try_from(site.alive)?, "{most_alive} of {} were alive at once", site.alive);
        }
        Ok(())
    })
}

/// Check that where there are too many, those that are said to leak have tracks of their own, although others are older, have waited longer, and
/// are more than can be drawn.
#[test]
fn leaks_among_too_many() -> Result<()> {
    // A machine that stands still for half a second makes growth look like none.
    alone(&[Need::Root, Need::Command("python3"), SCHEMA], || once_in_three(drawn_among_too_many))
}

fn drawn_among_too_many() -> Result<()> {
    // Those of the sleeper are all there before the first order, and until the last.
    let script = r#""$0" -n 2000 | {
        read -r said; "$1" -n 600 -rate 150 -leak ctx; code=$?
        pid=${said#*:}; kill "${pid%%,*}"; exit $code
    }"#;
    let run = Run::of("sh").args(["-c", script]).args([fixture::go("sleeper")?, fixture::orders()?]);
    let (finished, recording) = run.finish_whole()?;
    let orders: Orders = truth::read(finished.expect_code(0)?.last_line())?;
    let said = recording.ask("leaks", &["--format", "json"])?.expect_code(1)?.stdout;
    let said: Said = serde_json::from_str(&said).with_context(|| said.clone())?;
    let strong = said.leaks.iter().filter(|leak| leak.kind == "goroutine" && leak.strength != "watched");
    let suffix = format!("@{}", orders.pid);
    let ids = strong.flat_map(|leak| &leak.ids);
    let leaked: BTreeSet<&str> = ids.filter_map(|id| id.strip_suffix(suffix.as_str())).collect();
    let trace = Trace::of(&recording)?;
    let (tracks, own) = (trace.goroutines(), format!("pid:{}", orders.pid));
    let of_orders = tracks.iter().filter(|((pid, _), _)| *pid == own);
    let drawn: BTreeMap<&str, u64> = of_orders.map(|((_, id), track)| (id.as_str(), *track)).collect();
    assert_eq!(tracks.len(), MOST);
    assert!(!leaked.is_empty() && drawn.keys().eq(&leaked), "{drawn:?} of {leaked:?}");
    for (id, track) in &drawn {
        let last = trace.slices_of(*track).last().map(|slice| slice.name.clone());
        assert_eq!(last.as_deref(), Some("chan receive"), "{id}");
    }
    Ok(())
}

/// Check that a recording with losses shows where they are, and that a trace that cannot be written is said so.
#[test]
fn losses() -> Result<()> {
    along(&[Need::Root, Need::Command("python3"), SCHEMA], || {
        let run = Run::of(fixture::go("pingpong")?).option("--knob").option("drop-permille=50").args(["-rounds", "2000"]);
        let (finished, recording) = run.finish()?;
        finished.expect_code(0)?;
        let trace = Trace::of(&recording)?;
        let lost = trace.slices.iter().find(|slice| trace.path(slice.track) == ["lost"]);
        assert!(lost.is_some_and(|lost| lost.says.contains_key("CPUs")), "nothing is said to be lost");
        let dir = TempDir::new()?;
        let missing = dir.path().join("no/such/dir/trace").display().to_string();
        recording.ask("timeline", &["--format", "perfetto", "-o", &missing])?.expect_code(2)?.expect_said(&[&missing])?;
        assert!(fs::read_dir(dir.path())?.next().is_none());
        Ok(())
    })
}

/// Check that cycles of the collector, pauses, signals and threads have tracks of their own with as many slices and instants as the timeline has rows,
/// where and when they belong, and that counters of goroutines and memory have values.
#[test]
fn tracks_of_each_kind() -> Result<()> {
    along(&[Need::Root, Need::Command("python3"), SCHEMA], || {
        let script = "\"$0\"; sleep 60 & kill -STOP $!; kill -CONT $!; kill -TERM $!; wait $!; sleep 2; echo $$";
        let run = Run::of("sh").option("--tier").option("T3").option("--threads").option("on").env("GOGC", "off");
        let run = run.option("--snapshot-every").option("250ms");
        let (finished, recording) = run.args(["-c", script]).args([&fixture::go("collector")?]).finish()?;
        let said = finished.expect_code(0)?.stdout;
        let truth: Collected = truth::read(said.lines().next().unwrap_or_default())?;
        let trace = Trace::of(&recording)?;
        let of_process = |pid: u32, name: &str| {
            let path = [format!("pid:{pid}"), name.to_owned()];
            trace.tracks.keys().copied().find(|uuid| trace.path(*uuid) == path)
        };
        let track = |name: &str| of_process(truth.pid, name).with_context(|| format!("no track {name} of {}", truth.pid));

        let rows = recording.timeline(Some(&format!("gc:{}", truth.pid)))?;
        for (name, id) in [("garbage collection", "gc"), ("stop the world", "stw")] {
            let told: Vec<(u64, Option<u64>)> =
                rows.iter().filter(|row| row.id == id).map(|row| (row.start_ns, row.end_ns)).collect();
            let drawn: Vec<(u64, Option<u64>)> = trace
                .slices_of(track(name)?)
                .iter()
                .map(|slice| (slice.start - trace.zero, slice.end.map(|end| end - trace.zero)))
                .collect();
            assert!(told.len() as u64 >= truth.cycles, "{name}: {}", told.len());
            assert_eq!(drawn, told, "{name}");
        }

        let mut signals = 0;
        for life in &Lives::of(&recording)?.processes {
            let rows = life::rows(&recording, Some(&format!("pid:{}", life.tgid)))?;
            let is_signal = |event: &str| event.starts_with("signal");
            let told: Vec<u64> =
                rows.iter().filter(|row| row.event.as_deref().is_some_and(is_signal)).map(|row| row.start_ns).collect();
            let drawn = of_process(life.tgid, "signals").map_or(Vec::new(), |signals| {
                let all = trace.instants.iter().filter(|instant| instant.track == signals);
                all.map(|instant| instant.start - trace.zero).collect()
            });
            assert_eq!(drawn, told, "signals of {}", life.tgid);
            signals += told.len();
        }
        assert!(signals >= 6, "{signals} signals: three sent, three got");

        let threads = recording.timeline(None)?;
        let threads: BTreeSet<&str> =
            threads.iter().filter(|row| row.id.starts_with("tid:")).map(|row| row.id.as_str()).collect();
        let drawn: BTreeSet<String> = trace.tracks.values().filter_map(|track| Some(format!("tid:{}", track.tid?))).collect();
        assert!(threads.len() > 4 && threads.iter().all(|id| drawn.contains(*id)), "{threads:?} and {drawn:?}");

        let (pid, shell) = (format!("pid:{}", truth.pid), format!("pid:{}", said.lines().last().unwrap_or_default()));
        for path in [vec![&*shell, "memory resident"], vec![&*pid, "goroutines", "alive"], vec![&*pid, "goroutines", "runnable"]]
        {
            let counter = trace.tracks.keys().find(|uuid| trace.path(**uuid) == path).with_context(|| format!("no {path:?}"))?;
            let most = trace.values.iter().filter(|value| value.track == *counter).map(|value| value.value).max();
            assert!(most > Some(0), "{path:?}: {most:?}");
        }
        Ok(())
    })
}
