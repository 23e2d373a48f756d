//! Every Go version in every build mode: the same small program, held against its own truth in each cell.
//!
//! `cargo xtask test` chooses a slice of the matrix and `cargo xtask test --matrix` all of it: both fetch the toolchains and name the cells
//! in a file (`LIFETRACE_MATRIX`). Without that, the machine's own Go is the matrix. What each cell came to is written down for
//! the summary that xtask prints.

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use lifetrace_tests::{
    fixture,
    lifetrace::{Run, command},
    process::{self, Running},
    recording::Recording,
    report::Report,
    scenario::{self, Need, alone},
    truth::{self, Matrix},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What xtask asks for.
#[derive(Deserialize)]
struct Asked {
    cells: Vec<Cell>,
    tiers: Vec<String>,
    /// One line a cell and tier is added to it.
    results: PathBuf,
    /// `GOCACHE`.
    build_cache: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
struct Cell {
    release: String,
    /// `None`: it could not be had; `problem` says why.
    go: Option<PathBuf>,
    problem: Option<String>,
    mode: String,
    flags: Vec<String>,
    cgo: bool,
}

#[derive(Serialize)]
struct Outcome<'a> {
    release: &'a str,
    mode: &'a str,
    tier: &'a str,
    ok: bool,
    /// Where the offsets came from, and how many sites of each hook there are.
    offsets: Value,
    hooks: Value,
    problem: Option<String>,
}

fn asked() -> Result<Option<Asked>> {
    let Some(path) = env::var_os("LIFETRACE_MATRIX") else { return Ok(None) };
    let text = fs::read(&path).with_context(|| Path::new(&path).display().to_string())?;
    Ok(Some(serde_json::from_slice(&text)?))
}

/// The machine's own Go, in the two modes that differ most.
fn by_default() -> Asked {
    let cell = |mode: &str, flags: &[&str]| Cell {
        release: "own".to_owned(),
        go: fixture::go_command(),
        problem: None,
        mode: mode.to_owned(),
        flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        cgo: false,
    };
    Asked {
        cells: vec![cell("default", &[]), cell("pie, stripped", &["-buildmode=pie", "-ldflags=-s -w"])],
        tiers: vec!["T2".to_owned()],
        results: fixture::target_dir().join("matrix.jsonl"),
        build_cache: fixture::target_dir().join("go-build"),
    }
}

/// Check births, deaths, creators, lines, wait reasons and parks of a traced run, and a snapshot of a standing process, in each cell.
#[test]
fn cells() -> Result<()> {
    let asked = asked()?.unwrap_or_else(by_default);
    let mut results = fs::File::create(&asked.results).with_context(|| asked.results.display().to_string())?;
    let mut failures = Vec::new();
    for cell in &asked.cells {
        let Some(go) = &cell.go else {
            scenario::skip(&format!("go{}: {}", cell.release, cell.problem.as_deref().unwrap_or("no such toolchain")))?;
            continue;
        };
        for tier in &asked.tiers {
            let (found, problem) = match try_cell(cell, go, tier, &asked.build_cache) {
                Ok(None) => continue,
                Ok(Some(found)) => (found, None),
                Err(error) => (Value::Null, Some(format!("{error:#}"))),
            };
            let outcome = Outcome {
                release: &cell.release,
                mode: &cell.mode,
                tier,
                ok: problem.is_none(),
                offsets: found["offsets_source"].clone(),
                hooks: counts(&found["hooks"]),
                problem: problem.clone(),
            };
            writeln!(results, "{}", serde_json::to_string(&outcome)?)?;
            failures.extend(problem.map(|problem| format!("go{} {} {tier}: {problem}", cell.release, cell.mode)));
        }
    }
    ensure!(failures.is_empty(), "{} cells failed:\n{}", failures.len(), failures.join("\n"));
    Ok(())
}

/// What doctor says of the cell's program, after all else went well; `None`: skipped.
fn try_cell(cell: &Cell, go: &Path, tier: &str, build_cache: &Path) -> Result<Option<Value>> {
    let program = build(cell, go, build_cache)?;
    let mut doctored = None;
    // A claim that does not hold panics; the other cells are to be tried all the same.
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        alone(&[Need::Root], || {
            let target = doctor(&program)?;
            check_offsets(cell, &target)?;
            trace(cell, &program, tier)?;
            snapshot(cell, &program)?;
            doctored = Some(target);
            Ok(())
        })
    }));
    match caught {
        Ok(result) => result.map(|()| doctored),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            bail!(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
        }
    }
}

fn build(cell: &Cell, go: &Path, build_cache: &Path) -> Result<PathBuf> {
    let name = format!("{}-{}", cell.release, cell.mode.replace([' ', ','], "-"));
    let program = fixture::target_dir().join("matrix").join(name).join("matrix");
    fs::create_dir_all(program.parent().context("it lies in a folder")?)?;
    let mut build = Command::new(go);
    build.args(["build", "-buildvcs=false"]).args(&cell.flags).arg("-o").arg(&program).arg("./matrix");
    for variable in ["GOROOT", "GOFLAGS", "GOEXPERIMENT", "GOOS", "GOARCH"] {
        build.env_remove(variable);
    }
    build.env("GOTOOLCHAIN", "local").env("GOWORK", "off").env("GOCACHE", build_cache).env("GOAMD64", "v1");
    build.env("CGO_ENABLED", if cell.cgo { "1" } else { "0" }).current_dir(fixture::go_sources());
    let output = build.output().with_context(|| format!("cannot start {}", go.display()))?;
    ensure!(output.status.success(), "build: {}", String::from_utf8_lossy(&output.stderr));
    Ok(program)
}

fn doctor(program: &Path) -> Result<Value> {
    let mut doctor = command();
    doctor.args(["doctor", "--json", "--exe"]).arg(program);
    let said: Value = serde_json::from_str(&process::run(doctor)?.expect_code(0)?.stdout)?;
    Ok(said["target"].clone())
}

/// A binary with debug information is read by that; a stripped one by the table, and of exactly its release if the table has it.
fn check_offsets(cell: &Cell, target: &Value) -> Result<()> {
    let stripped = cell.flags.iter().any(|flag| flag.contains("-w"));
    let source = &target["offsets_source"]["source"];
    if !stripped {
        ensure!(source == "dwarf", "offsets from {source}");
    } else if cell.release != "own" {
        ensure!(source == "table" || source == "table_unverified", "offsets from {source}");
    }
    for hook in target["hooks"].as_array().context("no hooks")? {
        ensure!(hook["emulated"] == true, "single-stepped: {hook}");
    }
    if cell.mode == "pgo" && minor(&cell.release) >= 23 {
        let inlined = target["hooks"]
            .as_array()
            .is_some_and(|hooks| hooks.iter().any(|hook| hook["note"].as_str().is_some_and(|note| note.contains("casgstatus"))));
        ensure!(inlined, "the profile inlined nothing: this is no profile-guided build");
    }
    Ok(())
}

fn minor(release: &str) -> u32 {
    release.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(0)
}

fn trace(cell: &Cell, program: &Path, tier: &str) -> Result<()> {
    let (finished, recording) = Run::of(program).option("--tier").option(tier).finish()?;
    let truth: Matrix = truth::read(finished.expect_code(0)?.last_line())?;
    ensure!((truth.from_c == 3) == cell.cgo, "C said {}", truth.from_c);
    let report = recording.report()?;
    report.assert_nothing_lost();
    truth::assert_sites(&report, truth.pid, &truth.sites);
    truth::assert_waits(&report, truth.pid, &truth.sites);
    ensure!(parks(&report, &truth) == truth.parks, "{} parks of the players, expected {}", parks(&report, &truth), truth.parks);
    locked(cell, &recording, &truth)
}

/// Those who wait for the mutex wait for its own semaphore, which lies in it; where `goparkunlock` stands alone it is not told.
fn locked(cell: &Cell, recording: &Recording, truth: &Matrix) -> Result<()> {
    let said = recording.ask("leaks", &["--fail-on", "never", "--format", "json"])?.expect_code(0)?;
    let said: Value = serde_json::from_str(&said.stdout)?;
    let mut groups = said["leaks"].as_array().into_iter().flatten();
    let waiting =
        groups.find(|leak| leak["created_by"]["function"] == "main.makeLockers").context("nobody waits for the mutex")?;
    let waiting = &waiting["blocked_on"];
    let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16);
    match waiting["object"].as_str() {
        None => {
            let alone = cell.flags.iter().any(|flag| flag.contains("-N")) || cell.mode == "pgo" && minor(&cell.release) == 21;
            ensure!(alone, "the lock is not told: {waiting}");
        }
        Some(object) => {
            let (object, lock) = (number(object)?, number(&truth.lock)?);
            ensure!((lock..lock + 8).contains(&object), "{object:#x} does not lie in the mutex at {lock:#x}");
        }
    }
    Ok(())
}

/// How often the players waited for each other.
fn parks(report: &Report, truth: &Matrix) -> u64 {
    let players = truth.sites.iter().filter(|site| site.function == "main.play");
    let of = |site: &truth::Site| {
        let found = report.goroutines().of(truth.pid).created_by(&site.function).at(&site.file, site.line);
        found.waits_for("chan receive") + found.waits_for("chan send")
    };
    players.map(of).sum()
}

fn snapshot(cell: &Cell, program: &Path) -> Result<()> {
    let mut standing = Command::new(program);
    standing.args(["-stay", "-n", "200", "-rounds", "1"]);
    let mut standing = Running::start(standing, None)?;
    let truth: Matrix = truth::read(&standing.line(0)?)?;
    let mut snapshot = command();
    snapshot.args(["snapshot", "--format", "json", "--pid", &truth.pid.to_string()]);
    let found: Value = serde_json::from_str(&process::run(snapshot)?.expect_code(0)?.stdout)?;
    let goroutines = found["goroutines"].as_array().context("no goroutines")?;
    for site in truth.sites.iter().filter(|site| site.alive > 0) {
        let of_site = goroutines.iter().filter(|goroutine| {
            let by = &goroutine["created_by"];
            let file = by["file"].as_str().is_some_and(|file| file.ends_with(&format!("/{}", site.file)));
            by["function"] == site.function.as_str() && by["line"] == site.line && file
        });
        let as_told = of_site.clone().filter(|goroutine| {
            let stack = goroutine["stack"].as_array();
            goroutine["wait_reason"].as_str() == site.wait_reason.as_deref()
                && stack.and_then(|stack| stack.first()).is_some_and(|frame| frame["function"] == "runtime.gopark")
                && stack.and_then(|stack| stack.last()).is_some_and(|frame| frame["function"] == goroutine["start_function"])
        });
        let (all, as_told) = (of_site.count() as u64, as_told.count() as u64);
        ensure!((all, as_told) == (site.alive, site.alive), "{}: {all} and {as_told} of {site:?} in a snapshot", cell.mode);
    }
    Ok(())
}

/// How many sites each hook has.
fn counts(hooks: &Value) -> Value {
    let mut counts = serde_json::Map::new();
    for hook in hooks.as_array().into_iter().flatten().filter_map(|hook| hook["hook"].as_str()) {
        let known = counts.get(hook).and_then(Value::as_u64).unwrap_or(0);
        counts.insert(hook.to_owned(), (known + 1).into());
    }
    counts.into()
}
