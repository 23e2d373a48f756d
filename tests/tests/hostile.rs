//! Targets that lie: bounded time and memory, a status of the table, and a sentence instead of a panic.

use std::{
    fs,
    os::unix::fs::{FileExt, PermissionsExt},
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context, Result, ensure};
use lifetrace_tests::{
    attach::Attached,
    fixture,
    lifetrace::{self, Run},
    process::{self, Finished, Running},
    scenario::{Need, alone, along},
    truth::{self, Births, Waiter},
};
use serde_json::Value;
use tempfile::TempDir;

/// Address space that lifetrace gets, in KiB: far more than it needs, far less than what is promised to it.
const KIBIBYTES: u32 = 1 << 20;
/// Where an ELF header has its tables: offsets and counts of program and section headers.
const SECTIONS_AT: usize = 40;
const PROGRAMS_AT: usize = 32;
const PROGRAM_COUNT: usize = 56;
const SECTION_COUNT: usize = 60;

/// Check that executables with headers and tables that lie are named as broken, by `doctor` and by `run`, within bounds.
#[test]
fn malformed_executables() -> Result<()> {
    alone(&[Need::Root], || {
        let whole = fs::read(fixture::go("stdio")?)?;
        let table = find(&whole, &[0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8]).context("no pclntab")?;
        let dir = TempDir::new()?;
        for (index, (name, damaged)) in damages(&whole, table).into_iter().enumerate() {
            let path = dir.path().join(name);
            fs::write(&path, damaged)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
            let finished = bounded(&["doctor", "--exe", &path.display().to_string()])?;
            assert_orderly(name, &finished, &[0, 3]);
            let said = ["problem", "missing"].iter().any(|word| finished.stdout.contains(word));
            assert!(said || finished.code() == 0, "{name}: {}", finished.stdout);
            assert!(!finished.stdout.contains('\x1b'), "{name}: {:?}", finished.stdout);
            if index % 3 != 0 {
                continue;
            }
            let finished = Run::of(&path).finish()?.0;
            // 126: the kernel refuses it; 139: it runs, is followed, and falls over its own damage.
            assert_orderly(name, &finished, &[0, 125, 126, 139]);
            assert!(finished.code() != 125 || finished.stderr.contains(name), "{name}: {}", finished.stderr);
        }
        Ok(())
    })
}

/// A broken executable each, by what is wrong with it.
fn damages(whole: &[u8], table: usize) -> Vec<(&'static str, Vec<u8>)> {
    let with = |at: usize, bytes: &[u8]| {
        let mut damaged = whole.to_vec();
        damaged[at..at + bytes.len()].copy_from_slice(bytes);
        damaged
    };
    let noise: Vec<u8> = (0..0x2_0000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut version = whole.to_vec();
    let at = find(whole, b"\xff Go buildinf:").unwrap_or(0) + 33;
    version[at..at + 8].copy_from_slice(b"go1.99\x1b[");
    vec![
        ("table-of-noise", with(table + 72, &noise)),
        ("table-of-0xff", with(table + 72, &vec![0xff; 0x2_0000])),
        ("five-million-functions", with(table + 8, &5_000_000u64.to_le_bytes())),
        ("too-many-functions", with(table + 8, &u64::MAX.to_le_bytes())),
        ("table-beyond-the-end", with(table + 64, &0x7fff_ffffu64.to_le_bytes())),
        ("no-sections", with(SECTIONS_AT, &[0; 8])),
        ("sections-beyond-the-end", with(SECTIONS_AT, &u64::MAX.to_le_bytes())),
        ("too-many-sections", with(SECTION_COUNT, &[0xff; 2])),
        ("too-many-segments", with(PROGRAM_COUNT, &[0xff; 2])),
        ("segments-beyond-the-end", with(PROGRAMS_AT, &(u64::MAX - 7).to_le_bytes())),
        ("half-a-file", whole[..whole.len() / 2].to_vec()),
        ("headers-only", whole[..0x1000].to_vec()),
        ("unknown-version", version),
        ("thousand-times-the-same", thousand_times(whole)),
    ]
}

/// The same file loaded by a thousand segments, each the whole of it, with a table that is to be searched for in each.
fn thousand_times(whole: &[u8]) -> Vec<u8> {
    const SEGMENTS: u16 = 1000;
    let mut file = whole.to_vec();
    let programs = file.len().next_multiple_of(8);
    file.resize(programs, 0);
    let size = file.len() as u64;
    for number in 0..u64::from(SEGMENTS) {
        for word in [1 | 6 << 32, 0, 0x40_0000 + (number << 32), 0, size, size, 0x1000] {
            file.extend(word.to_le_bytes());
        }
    }
    file[PROGRAMS_AT..PROGRAMS_AT + 8].copy_from_slice(&(programs as u64).to_le_bytes());
    file[PROGRAM_COUNT..PROGRAM_COUNT + 2].copy_from_slice(&SEGMENTS.to_le_bytes());
    file[SECTIONS_AT..SECTIONS_AT + 8].fill(0);
    // The table is not to be found, wherever it is looked for.
    while let Some(at) = find(&file, &[0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8]) {
        file[at + 7] = 9;
    }
    file
}

/// Check that what is no regular file is refused, and not waited for.
#[test]
fn no_regular_files() -> Result<()> {
    along(&[Need::Command("mkfifo")], || {
        let dir = TempDir::new()?;
        let fifo = dir.path().join("fifo");
        ensure!(Command::new("mkfifo").arg(&fifo).status()?.success(), "mkfifo");
        for path in [fifo.as_path(), Path::new("/dev/zero"), dir.path()] {
            let finished = bounded(&["doctor", "--exe", &path.display().to_string()])?;
            assert_orderly(&path.display().to_string(), &finished, &[2, 3]);
        }
        Ok(())
    })
}

/// Check what `snapshot` says of a runtime that claims four billion goroutines, that lists ten million on top of one another, whose
/// stacks lead in circles, and whose goroutines are nonsense.
#[test]
fn lying_runtimes() -> Result<()> {
    along(&[Need::Root, Need::Go], || {
        let refused = snapshot_of_liar("count")?.expect_code(3)?;
        refused.expect_said(&["claims to have 4294967296 goroutines"])?;
        let _ = snapshot_of_liar("list")?.expect_code(0)?;

        let circles = snapshot_of_liar("frames")?.expect_code(0)?;
        let circles: Value = serde_json::from_str(&circles.stdout)?;
        let stacks: Vec<_> = circles["goroutines"].as_array().context("no goroutines")?.iter().map(|g| &g["stack"]).collect();
        assert!(stacks.len() > 100 && stacks.iter().all(|stack| stack.as_array().is_none_or(|stack| stack.len() <= 256)));

        let nonsense = snapshot_of_liar("nonsense")?.expect_code(0)?;
        let nonsense: Value = serde_json::from_str(&nonsense.stdout)?;
        assert!(nonsense["torn"].as_u64().is_some_and(|torn| torn >= 90), "{nonsense:#}");
        Ok(())
    })
}

fn snapshot_of_liar(lie: &str) -> Result<Finished> {
    let program = fixture::go("liar")?;
    let go = fixture::go_command().context("no go command")?;
    let symbols = process::run({
        let mut nm = Command::new(go);
        nm.args(["tool", "nm"]).arg(&program);
        nm
    })?;
    let symbols = symbols.expect_code(0)?.stdout;
    let address = |name: &str| {
        let line = symbols.lines().find(|line| line.ends_with(name));
        line.and_then(|line| line.split_whitespace().next()).with_context(|| format!("no {name}"))
    };
    let mut command = Command::new(&program);
    command.args(["-len", address(" runtime.allglen")?, "-first", address(" runtime.allgptr")?, lie]);
    let mut liar = Running::start(command, None)?;
    let pid = liar.line(0)?;
    let finished = bounded(&["snapshot", "--pid", &pid, "--format", "json"])?;
    assert_orderly(lie, &finished, &[0, 3]);
    assert!(process::is_alive(liar.pid()), "{lie}: the liar is dead");
    Ok(finished)
}

/// Check that a binary that is deleted or replaced while it runs is still read as what it was.
#[test]
fn deleted_and_replaced_binaries() -> Result<()> {
    // Alone: a copy cannot be executed while another test's fork still has it open for writing.
    alone(&[Need::Root], || {
        let dir = TempDir::new()?;
        let program = fixture::copy_for_everyone(&fixture::go("sleeper")?, dir.path())?;
        let mut sleeper = Running::start(
            {
                let mut command = Command::new(&program);
                command.args(["-n", "100"]);
                command
            },
            None,
        )?;
        let births: Births = truth::read(&sleeper.line(0)?)?;
        fs::remove_file(&program)?;
        assert_read(&births)?;
        fs::write(&program, "#!/bin/sh\n")?;
        assert_read(&births)
    })
}

fn assert_read(births: &Births) -> Result<()> {
    let pid = births.pid.to_string();
    let snapshot: Value =
        serde_json::from_str(&bounded(&["snapshot", "--pid", &pid, "--format", "json"])?.expect_code(0)?.stdout)?;
    let goroutines = snapshot["goroutines"].as_array().context("no goroutines")?;
    let parked = goroutines.iter().filter(|goroutine| goroutine["created_by"]["function"] == births.sites[0].function.as_str());
    assert_eq!(parked.count() as u64, births.sites[0].alive);
    let doctor: Value = serde_json::from_str(&bounded(&["doctor", "--json", "--pid", &pid])?.expect_code(0)?.stdout)?;
    assert_eq!(doctor["target"]["tier"], "T3");
    Ok(())
}

/// Check that a file that is truncated, overwritten and replaced all the time while it is read never kills the reader: it is read, and
/// not mapped.
#[test]
fn replaced_while_read() -> Result<()> {
    const ROUNDS: u32 = 60;
    along(&[Need::Root], || {
        let dir = TempDir::new()?;
        let path = dir.path().join("restless");
        let whole = fs::read(fixture::go("births")?)?;
        fs::write(&path, &whole)?;
        let (over, path) = (AtomicBool::new(false), path.as_path());
        thread::scope(|scope| {
            let restless = scope.spawn(|| change_until(&over, path, &whole));
            let read = (0..ROUNDS).try_for_each(|_| {
                let finished = bounded(&["doctor", "--exe", &path.display().to_string()])?;
                assert_orderly("restless", &finished, &[0, 2, 3]);
                Ok(())
            });
            over.store(true, Ordering::Relaxed);
            let changes = restless.join().map_err(|_| anyhow::anyhow!("the changing thread"))??;
            ensure!(changes > ROUNDS, "only {changes} changes");
            read
        })
    })
}

/// Empties, fills and replaces a file until it is `over`. Answers how often.
fn change_until(over: &AtomicBool, path: &Path, whole: &[u8]) -> Result<u32> {
    let beside = path.with_extension("new");
    let mut changes = 0;
    while !over.load(Ordering::Relaxed) {
        let file = fs::OpenOptions::new().write(true).open(path)?;
        file.set_len(4096)?;
        file.write_all_at(whole, 0)?;
        file.set_len(0)?;
        fs::write(&beside, whole)?;
        fs::rename(&beside, path)?;
        changes += 4;
    }
    Ok(changes)
}

/// Check that a storm of execs, of programs that are not Go and of Go programs that are all different files, is followed without
/// anybody noticing.
#[test]
fn storm_of_execs() -> Result<()> {
    const PLAIN: u32 = 500;
    const DIFFERENT: usize = 12;
    alone(&[Need::Root], || {
        let waiter = fixture::c("waiter")?;
        let (finished, _) = Run::of(&waiter).args([PLAIN.to_string()]).args(["/bin/true"]).finish()?;
        truth::read::<Waiter>(finished.expect_code(0)?.last_line())?.assert_undisturbed(PLAIN);

        let dir = TempDir::new()?;
        let births = fixture::go("births")?;
        let mut script = String::new();
        for number in 0..DIFFERENT {
            let copy = fixture::copied(&births, &dir.path().join(format!("births-{number}")))?;
            script += &format!("{} -n 3 & ", copy.display());
        }
        let (finished, recording) = Run::of("sh").args(["-c", &(script + "wait")]).finish()?;
        assert_eq!(finished.expect_code(0)?.stdout.lines().count(), DIFFERENT);
        let report = recording.report()?;
        let followed =
            report.processes.iter().filter(|process| process.exe.as_deref().is_some_and(|exe| exe.contains("births-")));
        assert_eq!(followed.count(), DIFFERENT);
        Ok(())
    })
}

/// Arguments and environment that are as long as a kernel lets them be: 2 MiB, with a stack of 8 MiB (execve(2)).
fn long_arguments() -> (Vec<String>, String) {
    ((0..15).map(|number| format!("{number}{}", "x".repeat(100_000))).collect(), "y".repeat(120_000))
}

/// Check that arguments of 1.5 MB and an environment of 360 kB are no burden: a program that has them is followed from its start and joined
/// on its way, what is kept of them is bounded, and what cannot be told of them is not made up.
#[test]
fn long_command_lines() -> Result<()> {
    const MAX_KEPT: usize = 64 << 10;
    along(&[Need::Root], || {
        let (args, value) = long_arguments();
        let births = fixture::go("births")?;
        let mut run = Run::of(&births).args(["-n", "3"]).args(&args);
        for name in ["A", "B", "C"] {
            run = run.env(name, &value);
        }
        let (finished, recording) = run.finish()?;
        finished.expect_code(0)?;
        let report = recording.report()?;
        let process = report.processes.iter().find(|process| process.exe.as_deref().is_some_and(|exe| exe.ends_with("births")));
        let text = recording.answer("report", &["--format", "json"])?;
        assert!(process.is_some() && text.len() < 2 * MAX_KEPT, "{} bytes of a report", text.len());
        assert!(text.contains("births") && !text.contains(&"y".repeat(100)), "the environment is nobody's business");
        assert!(
            fs::metadata(recording.path())?.len() < 1 << 20,
            "a recording of {} bytes",
            fs::metadata(recording.path())?.len()
        );

        let mut command = Command::new(fixture::go("sleeper")?);
        command.args(["-n", "10"]).args(&args).env("A", &value).env("B", &value);
        let mut sleeper = Running::start(command, None)?;
        let births: Births = truth::read(&sleeper.line(0)?)?;
        assert_read(&births)?;
        let (_, joined) = Attached::to(&["--pid", &births.pid.to_string(), "--for", "1s"])?.finish()?;
        let text = joined.answer("report", &["--format", "json"])?;
        assert!(text.contains("0xxx") && !text.contains(&"x".repeat(4097)), "more than 4 KiB of an argument");
        let judged = bounded(&["leaks", "--pid", &births.pid.to_string(), "--watch", "1s"])?;
        assert_orderly("leaks", &judged, &[0, 1]);
        assert!(judged.stdout.len() < MAX_KEPT);
        Ok(())
    })
}

/// Check that whatever a program is called, it is text in everything that is told of it: nothing of it moves a cursor, ends a line, or is
/// markup.
#[test]
fn names_that_mean_something() -> Result<()> {
    const MARKUP: [&str; 3] = ["<script>alert", "<img src", "</script>x"];
    alone(&[Need::Root], || {
        let dir = TempDir::new()?;
        // A name cannot have a slash, but a path does.
        let evil = dir.path().join("a\"'} 1\n::error::evil\u{9b}2J\x1b[2J<img src=x><script>alert(1)<");
        fs::create_dir(&evil)?;
        let program = fixture::copied(&fixture::go("births")?, &evil.join("script>x&amp;\r$(id)`id`"))?;
        let (finished, recording) = Run::of(&program).args(["-n", "30"]).finish()?;
        finished.expect_code(0)?;
        let path = |name: &str| dir.path().join(name).display().to_string();
        let asked = [
            ("report", &["text", "json", "html"][..], &[][..]),
            ("timeline", &["text", "jsonl", "html"], &[]),
            ("flame", &["svg", "folded"], &["--by", "created"]),
            ("leaks", &["text", "json", "junit", "sarif", "markdown", "github", "html"], &[]),
        ];
        for (what, formats, more) in asked {
            for format in formats {
                let to = path(&format!("{what}.{format}"));
                let finished = recording.ask(what, &[more, &["--format", format, "-o", &to]].concat())?;
                ensure!(finished.code() <= 1, "{what} {format}: {finished:?}");
                let told = fs::read_to_string(&to)?;
                let told_of = told.contains("alert(1)") || what == "leaks" || *format == "folded";
                assert!(told_of, "{what} {format} does not tell of it: the test proves nothing\n{told}");
                // Programs read JSON, in which the controls of ISO 6429's 8-bit code are letters (RFC 8259).
                let is_json = ["json", "jsonl", "sarif"].contains(format);
                let moves =
                    |letter: &char| letter.is_control() && !matches!(letter, '\n' | '\t') && !(is_json && *letter > '\x7e');
                let moves = told.chars().find(moves);
                assert_eq!(moves, None, "{what} {format}");
                assert!(!told.lines().any(|line| line.starts_with("::error::evil")), "{what} {format}: {told}");
                if ["html", "svg", "markdown", "junit"].contains(format) {
                    let markup = MARKUP.iter().find(|markup| told.contains(**markup));
                    assert_eq!(markup, None, "{what} {format}");
                }
            }
        }
        for args in
            [&["doctor", "--exe", &program.display().to_string()][..], &["usdt", "list", "--exe", &program.display().to_string()]]
        {
            let finished = bounded(args)?;
            let told = format!("{}{}", finished.stdout, finished.stderr);
            assert!(!told.chars().any(|letter| letter.is_control() && letter != '\n' && letter != '\t'), "{args:?}: {told:?}");
        }
        Ok(())
    })
}

/// Runs lifetrace with a bounded address space.
fn bounded(args: &[&str]) -> Result<Finished> {
    let mut shell = lifetrace::command_through("sh");
    shell.args(["-c", &format!("ulimit -v {KIBIBYTES}; exec \"$0\" \"$@\"")]).arg(lifetrace::binary()).args(args);
    process::run(shell)
}

/// Claims that it ended with one of these codes, without a panic, and with a sentence where it failed.
#[track_caller]
fn assert_orderly(what: &str, finished: &Finished, codes: &[i32]) {
    assert!(codes.contains(&finished.code()), "{what}: {finished:?}");
    assert!(!finished.stderr.contains("panicked"), "{what}: {}", finished.stderr);
    let said = finished.stdout.len() + finished.stderr.len() > 0;
    assert!(finished.code() == 0 || said, "{what}: not a word");
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}
