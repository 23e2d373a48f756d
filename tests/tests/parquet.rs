//! The tables of a recording: the questions of docs/parquet.md, asked with DuckDB, and the answers held against the report and the timeline.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result};
use lifetrace_tests::{
    fixture,
    lifetrace::Run,
    process, program,
    recording::{Recording, Span},
    report::Report,
    scenario::{Need, along},
};
use serde::{Deserialize, de::DeserializeOwned};
use tempfile::TempDir;

const DUCKDB: Need = Need::Program("duckdb/bin/duckdb/__init__.py");
const NEEDS: [Need; 3] = [Need::Root, Need::Command("python3"), DUCKDB];

/// What `python/parquet_tables.py` says of an export.
#[derive(Deserialize)]
struct Tables {
    answers: BTreeMap<String, serde_json::Value>,
    /// Process and id of the runtime's own goroutines.
    system: BTreeSet<(u32, u64)>,
}

impl Tables {
    fn of(recording: &Recording) -> Result<Self> {
        let dir = TempDir::new()?;
        let tables = dir.path().join("tables");
        recording.answer("export", &["--format", "parquet", "-o", &tables.display().to_string()])?;
        assert_eq!(fs::read_dir(dir.path())?.count(), 1, "something is left beside the tables");
        let root = fixture::workspace_root();
        let mut python = Command::new("python3");
        python.arg(root.join("tests/python/parquet_tables.py")).arg(&tables).arg(root.join("docs/parquet.md"));
        python.env("PYTHONPATH", program::fetched("duckdb/bin"));
        serde_json::from_str(&process::run(python)?.expect_code(0)?.stdout).context("what the script says")
    }

    /// The answer to the question that begins so.
    fn answer<T: DeserializeOwned>(&self, question: &str) -> Result<Vec<T>> {
        let mut found = self.answers.iter().filter(|(asked, _)| asked.starts_with(question));
        let (_, rows) = found.next().with_context(|| format!("docs/parquet.md does not ask {question}"))?;
        serde_json::from_value(rows.clone()).with_context(|| format!("{question}: {rows}"))
    }
}

/// The rows of one goroutine.
type Lives<'a> = BTreeMap<(u32, u64), Vec<&'a Span>>;

fn lives(timeline: &[Span]) -> Lives<'_> {
    let mut lives = Lives::new();
    for row in timeline.iter().filter(|row| row.state != "lost") {
        if let Some(goid) = row.id.strip_prefix("go:").and_then(|goid| goid.parse().ok()) {
            lives.entry((row.tgid, goid)).or_default().push(row);
        }
    }
    lives
}

fn lasted(row: &Span) -> u64 {
    row.end_ns.map_or(0, |end| end - row.start_ns)
}

#[derive(Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Site {
    tgid: u32,
    created_function: Option<String>,
    created_file: Option<String>,
    created_line: Option<u32>,
    start_function: Option<String>,
    born: u64,
    exited: u64,
    gone: u64,
    alive: u64,
    blocked_ns: Option<u64>,
}

fn sites(tables: &Tables, report: &Report) -> Result<()> {
    let mut answer: Vec<Site> = tables.answer("Who made the goroutines")?;
    let of_report = report.sites.iter().map(|site| Site {
        tgid: site.tgid,
        created_function: site.created_by.function.clone(),
        created_file: site.created_by.file.clone(),
        created_line: site.created_by.line.filter(|line| *line != 0),
        start_function: site.start_function.clone(),
        born: site.born,
        exited: site.exited,
        gone: site.gone,
        alive: site.alive,
        blocked_ns: site.blocked_ns,
    });
    let mut expected: Vec<Site> = of_report.collect();
    answer.sort();
    expected.sort();
    assert!(expected.len() >= 5, "{} sites: the test proves nothing", expected.len());
    assert_eq!(answer, expected);
    assert_eq!(tables.system.len() as u64, report.goroutines.system.unwrap_or_default());
    Ok(())
}

#[derive(Deserialize)]
struct Reason {
    reason: String,
    waits: u64,
    blocked_ns: u64,
    p50_ns: u64,
    p99_ns: u64,
    max_ns: u64,
}

fn reasons(tables: &Tables, report: &Report) -> Result<()> {
    let answer: Vec<Reason> = tables.answer("What do they wait for")?;
    let mut expected: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (reason, wait) in report.sites.iter().filter_map(|site| site.waits.as_ref()).flatten() {
        let sum = expected.entry(reason.clone()).or_default();
        *sum = (sum.0 + wait.count, sum.1 + wait.blocked_ns.unwrap_or_default());
    }
    let found = answer.iter().map(|row| (row.reason.clone(), (row.waits, row.blocked_ns))).collect();
    assert!(expected.len() >= 3, "{expected:?}: the test proves nothing");
    assert_eq!(expected, found);
    assert!(answer.iter().all(|row| row.p50_ns <= row.p99_ns && row.p99_ns <= row.max_ns));
    Ok(())
}

#[derive(Deserialize)]
struct Longest {
    tgid: u32,
    goid: u64,
    start_ns: u64,
    waited_ns: u64,
    reason: Option<String>,
    stack: Option<String>,
}

fn longest(tables: &Tables, timeline: &[Span], lives: &Lives<'_>) -> Result<()> {
    let answer: Vec<Longest> = tables.answer("Which waits were the longest")?;
    let own = lives.iter().filter(|(who, _)| !tables.system.contains(who)).flat_map(|(_, rows)| rows);
    let mut waits: Vec<u64> = own.filter(|row| row.state == "blocked").map(|row| lasted(row)).collect();
    waits.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(answer.iter().map(|row| row.waited_ns).collect::<Vec<_>>(), waits[..10]);
    for row in answer {
        let id = format!("go:{}", row.goid);
        let told = |of: &&Span| of.id == id && of.tgid == row.tgid && of.start_ns == row.start_ns && of.state == "blocked";
        let told = timeline.iter().find(told).with_context(|| format!("{id} at {} is not in the timeline", row.start_ns))?;
        assert_eq!((row.waited_ns, &row.reason), (lasted(told), &told.reason));
        let frames = told.stack.iter().flatten();
        let frames: Vec<String> = frames.map(|frame| format!("{} ({}:{})", frame.function, frame.file, frame.line)).collect();
        assert!(!frames.is_empty(), "{id} has no stack");
        assert_eq!(row.stack, Some(frames.join(" < ")));
    }
    Ok(())
}

#[derive(Deserialize)]
struct Wakes {
    waker: Option<String>,
    woken: Option<String>,
    wakes: u64,
}

fn wakes(tables: &Tables, timeline: &[Span]) -> Result<()> {
    let answer: Vec<Wakes> = tables.answer("Who wakes whom")?;
    let told = |row: &&Span| row.id.starts_with("go:") && row.woken_by.as_ref().is_some_and(|by| by.starts_with("go:"));
    let expected = timeline.iter().filter(told).count() as u64;
    assert_eq!(answer.iter().map(|row| row.wakes).sum::<u64>(), expected);
    assert!(expected > 100, "{expected} wakes: the test proves nothing");
    assert!(answer[0].waker.is_some() && answer[0].woken.is_some());
    Ok(())
}

#[derive(Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Delays {
    tgid: u32,
    created_function: Option<String>,
    created_line: Option<u32>,
    start_function: Option<String>,
    runnable_ns: u64,
}

fn delays(tables: &Tables, report: &Report) -> Result<()> {
    let mut answer: Vec<Delays> = tables.answer("Who waits for a CPU")?;
    let of_report = report.sites.iter().filter_map(|site| {
        Some(Delays {
            tgid: site.tgid,
            created_function: site.created_by.function.clone(),
            created_line: site.created_by.line.filter(|line| *line != 0),
            start_function: site.start_function.clone(),
            runnable_ns: site.runnable_ns.filter(|ns| *ns > 0)?,
        })
    });
    let mut expected: Vec<Delays> = of_report.collect();
    answer.sort();
    expected.sort();
    assert!(!expected.is_empty());
    assert_eq!(answer, expected);
    Ok(())
}

#[derive(Deserialize)]
struct Cpu {
    tgid: u32,
    runner: String,
    created_function: Option<String>,
    function: Option<String>,
    samples: u64,
    cpu_ns: u64,
}

/// Process, whose sample it is, and what ran.
type Ran = (u32, String, Option<String>);

/// What a line of the flamegraph of CPU time says, and the time. Several processes have a root each.
fn folded(line: &str, alone: Option<u32>) -> Option<(Ran, u64)> {
    let (path, ns) = line.rsplit_once(' ')?;
    let mut frames = path.split(';').filter(|frame| !["[runtime]", "[kernel]"].contains(frame));
    let tgid = match alone {
        Some(tgid) => tgid,
        None => frames.next()?.rsplit_once("(pid ")?.1.trim_end_matches(')').parse().ok()?,
    };
    let whose = frames.next()?.to_owned();
    let ran = frames.next_back().filter(|frame| !frame.starts_with('['));
    // An address without a name is told by itself.
    let ran = ran.map(|function| if function.starts_with("? ") { "?" } else { function }.to_owned());
    Some(((tgid, whose, ran), ns.parse().ok()?))
}

fn cpu(tables: &Tables, recording: &Recording, report: &Report) -> Result<()> {
    let answer: Vec<Cpu> = tables.answer("What uses the CPUs")?;
    let tgids: BTreeSet<u32> = answer.iter().map(|row| row.tgid).collect();
    let alone = tgids.first().copied().filter(|_| tgids.len() == 1);
    let mut found: BTreeMap<Ran, u64> = BTreeMap::new();
    for row in &answer {
        let whose = match (row.runner.as_str(), &row.created_function) {
            ("goroutine", Some(creator)) => format!("created by {creator}"),
            ("goroutine", None) => "[birth not seen]".to_owned(),
            ("nobody", None) => "[no goroutine]".to_owned(),
            ("unknown", None) => "[goroutine unknown]".to_owned(),
            other => panic!("{other:?}"),
        };
        *found.entry((row.tgid, whose, row.function.clone())).or_default() += row.cpu_ns;
    }
    let mut expected: BTreeMap<Ran, u64> = BTreeMap::new();
    for line in recording.answer("flame", &["--by", "oncpu", "--of", "goroutines", "--format", "folded"])?.lines() {
        let (ran, ns) = folded(line, alone).with_context(|| format!("not folded: {line}"))?;
        *expected.entry(ran).or_default() += ns;
    }
    assert_eq!(found, expected);
    let told = report.cpu.as_ref().context("no CPU samples")?.samples;
    assert_eq!(answer.iter().map(|row| row.samples).sum::<u64>(), told);
    let known = answer.iter().filter(|row| row.created_function.is_some() && row.function.is_some());
    assert!(known.count() >= 3, "{found:?}: the test proves nothing");
    Ok(())
}

#[derive(Deserialize)]
struct Moment {
    at_ns: u64,
    own: u64,
    of_the_runtime: u64,
}

fn moments(tables: &Tables, report: &Report, lives: &Lives<'_>) -> Result<()> {
    let answer: Vec<Moment> = tables.answer("How many were there")?;
    assert!(answer.len() >= 20 && answer.windows(2).all(|pair| pair[0].at_ns < pair[1].at_ns));
    assert!(answer.iter().any(|moment| moment.own > 50), "hardly anything lived at once");
    for moment in answer {
        let lived = |rows: &[&Span]| {
            let end = rows.iter().find(|row| row.state == "dead").map_or(report.duration_ns + 1, |dead| dead.start_ns);
            rows[0].start_ns <= moment.at_ns && moment.at_ns < end
        };
        let (of_the_runtime, own): (Vec<_>, Vec<_>) =
            lives.iter().filter(|(_, rows)| lived(rows)).partition(|(who, _)| tables.system.contains(who));
        assert_eq!((moment.own, moment.of_the_runtime), (own.len() as u64, of_the_runtime.len() as u64), "at {}", moment.at_ns);
    }
    Ok(())
}

#[derive(Deserialize)]
struct Look {
    from_ns: u64,
    goroutines: u64,
    stack_bytes: u64,
}

fn looks(tables: &Tables, report: &Report) -> Result<()> {
    let answer: Vec<Look> = tables.answer("How did they and their stacks grow")?;
    assert!(answer.len() >= 2, "{} looks: the test proves nothing", answer.len());
    assert_eq!(
        (answer.len() as u64, answer.last().map(|look| look.from_ns)),
        (report.snapshots.taken, report.snapshots.newest_ns)
    );
    assert!(answer.iter().all(|look| look.goroutines > 0 && look.stack_bytes >= 2048 * look.goroutines));
    Ok(())
}

#[derive(Deserialize)]
struct Lifetimes {
    lives: u64,
    p50_ns: u64,
    p99_ns: u64,
    max_ns: u64,
}

fn lifetimes(tables: &Tables, report: &Report, lives: &Lives<'_>) -> Result<()> {
    let answer: Vec<Lifetimes> = tables.answer("How long do they live")?;
    assert_eq!(Some(answer.iter().map(|row| row.lives).sum()), report.goroutines.exited);
    assert!(answer.iter().all(|row| row.p50_ns <= row.p99_ns && row.p99_ns <= row.max_ns));
    let own = lives.iter().filter(|(who, _)| !tables.system.contains(who));
    let exited = own.filter_map(|(_, rows)| {
        let dead = rows.iter().find(|row| row.state == "dead" && row.reason.as_deref() == Some("exit"))?;
        Some(dead.start_ns - rows[0].start_ns)
    });
    assert_eq!(answer.iter().map(|row| row.max_ns).max(), exited.max());
    Ok(())
}

#[derive(Deserialize)]
struct Pause {
    tgid: u32,
    pause_ns: u64,
    reason: String,
    held_up: u64,
}

fn pauses(tables: &Tables, report: &Report) -> Result<()> {
    let answer: Vec<Pause> = tables.answer("What stopped the world")?;
    assert!(!answer.is_empty() && answer.iter().any(|pause| pause.held_up > 0));
    for gc in &report.gc {
        let of: Vec<&Pause> = answer.iter().filter(|pause| pause.tgid == gc.tgid).collect();
        assert_eq!((of.len() as u64, of.iter().map(|pause| pause.pause_ns).sum()), (gc.pauses.count, gc.pauses.total_ns));
        for (reason, told) in &gc.pauses.by_reason {
            assert_eq!(of.iter().filter(|pause| pause.reason == *reason).count() as u64, told.count, "{reason}");
        }
    }
    Ok(())
}

fn processes(tables: &Tables, recording: &Recording) -> Result<()> {
    let answer: Vec<serde_json::Value> = tables.answer("Which processes were there")?;
    let report: serde_json::Value = serde_json::from_str(&recording.answer("report", &["--format", "json"])?)?;
    let told = report["processes"].as_array().context("processes")?;
    assert!(told.len() >= 3, "{} processes: the test proves nothing", told.len());
    assert_eq!(answer.len(), told.len());
    for (row, told) in answer.iter().zip(told) {
        assert_eq!(row["parent_tgid"], told["parent"], "{row} and {told}");
        for column in ["tgid", "exe", "started_at_ns", "exited_at_ns", "exit_code", "signal", "zombie_ns"] {
            assert_eq!(row[column], told[column], "{column} of {row} and {told}");
        }
        let goroutines = told["goroutines"]["born"].as_u64().unwrap_or_default();
        // The runtime's own are born too.
        assert!(row["goroutines"].as_u64() >= Some(goroutines), "{row} and {told}");
    }
    Ok(())
}

#[derive(Deserialize)]
struct Waiting {
    start_function: Option<String>,
    last_reason: Option<String>,
    waiting: u64,
    at_least_ns: u64,
}

fn never_woken(tables: &Tables, lives: &Lives<'_>, leaks: u64) -> Result<()> {
    let answer: Vec<Waiting> = tables.answer("Who blocked once")?;
    let own = lives.iter().filter(|(who, _)| !tables.system.contains(who));
    let waiting = own.filter(|(_, rows)| {
        let end = rows.iter().position(|row| row.state == "dead");
        let ended = end.is_some_and(|end| rows[end].reason.as_deref() != Some("process end"));
        let spans = &rows[..end.unwrap_or(rows.len())];
        let blocked = spans.iter().filter(|row| row.state == "blocked").count();
        !ended && blocked == 1 && spans.last().is_some_and(|row| row.state == "blocked")
    });
    assert_eq!(answer.iter().map(|row| row.waiting).sum::<u64>(), waiting.count() as u64);
    let first = answer.first().context("nobody waits")?;
    assert!(first.waiting >= leaks && first.at_least_ns > 0, "{} wait", first.waiting);
    assert!(first.start_function.is_some() && first.last_reason.as_deref() == Some("chan send"), "{:?}", first.last_reason);
    Ok(())
}

/// Check that the questions of docs/parquet.md are answered as the report and the timeline answer them: of a Go program that leaks, at
/// the highest tier, and of processes and threads beside it.
#[test]
fn questions() -> Result<()> {
    along(&NEEDS, || {
        let orders = fixture::orders()?;
        let script =
            format!("GOGC=5 {} -leak afterfunc -n 300 -rate 600 -for 3s; (exit 3); sh -c 'kill -9 $$'; exit 0", orders.display());
        let options = ["--tier", "T3", "--threads", "on", "--snapshot-every", "250ms", "--cpu-hz=999"];
        let run = options.into_iter().fold(Run::of("bash").args(["-c", &script]), Run::option);
        let (finished, recording) = run.finish()?;
        finished.expect_code(0)?;
        let (tables, report, timeline) = (Tables::of(&recording)?, recording.report()?, recording.timeline(None)?);
        assert_eq!(tables.answers.len(), 13);
        let lives = lives(&timeline);
        sites(&tables, &report)?;
        reasons(&tables, &report)?;
        longest(&tables, &timeline, &lives)?;
        wakes(&tables, &timeline)?;
        delays(&tables, &report)?;
        cpu(&tables, &recording, &report)?;
        moments(&tables, &report, &lives)?;
        looks(&tables, &report)?;
        lifetimes(&tables, &report, &lives)?;
        pauses(&tables, &report)?;
        processes(&tables, &recording)?;
        never_woken(&tables, &lives, 200)?;
        assert_eq!(tables.answer::<serde_json::Value>("Where are events missing")?.len(), 0);
        Ok(())
    })
}

#[derive(Deserialize)]
struct Gap {
    from_ns: u64,
    to_ns: u64,
    events: u64,
    goroutines: u64,
}

/// Check that losses are where they are, and that the tables still agree with the report.
#[test]
fn losses() -> Result<()> {
    along(&NEEDS, || {
        let run = Run::of(fixture::orders()?).option("--knob").option("drop-permille=50");
        let (finished, recording) = run.args(["-n", "500", "-rate", "1000", "-for", "1s"]).finish()?;
        finished.expect_code(0)?;
        let (tables, report) = (Tables::of(&recording)?, recording.report()?);
        let gaps: Vec<Gap> = tables.answer("Where are events missing")?;
        let missing: u64 = gaps.iter().map(|gap| gap.events).sum();
        assert!(missing > 0, "nothing is said to be lost");
        assert_eq!(missing, report.lost.events - report.lost.undated);
        assert!(gaps.iter().all(|gap| gap.from_ns <= gap.to_ns) && gaps.iter().any(|gap| gap.goroutines > 0));
        sites(&tables, &report)?;
        reasons(&tables, &report)
    })
}

/// Check that an export appears whole or not at all, replaces one that is there, and nothing else.
#[test]
fn directories() -> Result<()> {
    along(&[Need::Root], || {
        let (finished, recording) = Run::of("true").finish()?;
        finished.expect_code(0)?;
        let dir = TempDir::new()?;
        let export = |to: &Path| recording.ask("export", &["--format", "parquet", "-o", &to.display().to_string()]);
        let tables = dir.path().join("tables");
        for _ in 0..2 {
            export(&tables)?.expect_code(0)?;
            assert!(tables.join("meta.parquet").is_file());
            assert_eq!(fs::read_dir(dir.path())?.count(), 1);
        }
        let mine = tables.join("mine.txt");
        fs::write(&mine, "precious")?;
        export(&tables)?.expect_code(2)?.expect_said(&["mine.txt"])?;
        assert_eq!(fs::read_to_string(&mine)?, "precious");
        export(&dir.path().join("no/such/dir"))?.expect_code(2)?;
        export(&mine)?.expect_code(2)?;
        assert_eq!(fs::read_dir(dir.path())?.count(), 1);
        Ok(())
    })
}
