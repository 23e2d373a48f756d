//! The program itself: exit codes, what goes where, and that nothing is half-written.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
    time::Instant,
};

use tempfile::TempDir;
use tracer_user::recording::contract::Tier;

use crate::scene::Scene;

fn lifetrace(dir: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lifetrace"));
    command.current_dir(dir).args(line.split(' ')).stdin(Stdio::null()).env_remove("NO_COLOR");
    command
}

fn run(dir: &Path, line: &str) -> Output {
    lifetrace(dir, line).output().expect("starts")
}

fn recorded() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let mut scene = Scene::default();
    fs::write(dir.path().join("shop.rec"), scene.shop(1000).bytes()).expect("writes");
    fs::write(dir.path().join("cut.rec"), &scene.bytes()[..1500]).expect("writes");
    fs::write(dir.path().join("two.rec"), scene.shop(1001).bytes()).expect("writes");
    let mut births = Scene::default();
    births.tier = Some(Tier::T1);
    fs::write(dir.path().join("t1.rec"), births.start(1_000, 1000, &["./shop"]).bytes()).expect("writes");
    fs::write(dir.path().join("notes.txt"), "shopping list").expect("writes");
    dir
}

/// Check the exit code of each kind of line, and that failures say why on stderr and nothing on stdout.
#[test]
fn exit_codes() {
    let dir = recorded();
    for (line, code, says) in [
        ("report shop.rec", 0, ""),
        ("--help", 0, ""),
        ("report missing.rec", 2, "cannot read missing.rec: No such file"),
        ("report notes.txt", 2, "notes.txt is not a lifetrace recording"),
        ("report .", 2, ". is not a lifetrace recording"),
        ("timeline shop.rec --id go:99", 2, "this recording has no go:99"),
        ("timeline two.rec --id go:17", 2, "go:17@1000, go:17@1001"),
        ("timeline two.rec --id tid:3", 2, "has no tid:3"),
        ("flame shop.rec --by oncpu", 2, "holds no CPU samples"),
        ("flame shop.rec --by nothing", 2, "possible values"),
        ("flame shop.rec --by inuse_space", 2, "holds no heap profiles: record with --pprof auto --heap-every 30s"),
        ("flame shop.rec --by blocked --diff", 2, "--diff wants a second recording here"),
        ("flame shop.rec --by blocked --at 3s", 2, "--at is for what profiles say"),
        ("flame shop.rec --by blocked --diff missing.rec", 2, "cannot read missing.rec"),
        ("flame shop.rec --by mutex --diff missing.rec", 2, "cannot read missing.rec"),
        ("timeline shop.rec --id gc:1000", 2, "this recording has no gc:1000"),
        ("flame t1.rec --by blocked", 2, "made at tier T1, and --by blocked needs T2"),
        ("flame t1.rec --by created", 0, ""),
        ("flame shop.rec --by runnable", 2, "made at tier T2, and --by runnable needs T3"),
        ("report shop.rec -o no/such/dir/out.txt", 2, "cannot write no/such/dir/out.txt"),
        ("run --bogus", 125, "unexpected argument"),
    ] {
        let output = run(dir.path(), line);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line}: {stderr}");
        assert!(stderr.contains(says), "{line}: {stderr}");
        assert!(code == 0 || output.stdout.is_empty(), "{line}");
    }
}

/// Check that a cut recording still reports, says so in the output and on stderr, and stays silent there with --quiet.
#[test]
fn cut_recording() {
    let dir = recorded();
    let output = run(dir.path(), "report cut.rec");
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("the recording is cut at byte"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("the recording is cut at byte"));
    assert!(run(dir.path(), "report cut.rec --quiet").stderr.is_empty());
}

/// Check that -o gives the same bytes as stdout, in one file and nothing beside it.
#[test]
fn output_files() {
    let dir = recorded();
    for line in [
        "report shop.rec --format json",
        "timeline shop.rec --format jsonl",
        "flame shop.rec --by blocked",
        "flame shop.rec --by alive --format folded",
        "flame shop.rec --by created --format pprof",
    ] {
        let before = fs::read_dir(dir.path()).unwrap().count();
        let printed = run(dir.path(), line).stdout;
        assert!(run(dir.path(), &format!("{line} -o out")).stdout.is_empty());
        assert_eq!(fs::read(dir.path().join("out")).unwrap(), printed, "{line}");
        fs::remove_file(dir.path().join("out")).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), before, "{line}");
    }
}

/// Check when escape sequences are sent.
#[test]
fn color() {
    let dir = recorded();
    assert!(!run(dir.path(), "report shop.rec").stdout.contains(&0x1b));
    assert!(!run(dir.path(), "report shop.rec --color never").stdout.contains(&0x1b));
    assert!(run(dir.path(), "report shop.rec --color always").stdout.contains(&0x1b));
}

/// Check that what a package installs beside the program is whole: a script that bash takes, and a page for each subcommand that is shown.
#[test]
fn packaged() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(dir.path(), &format!("completions {shell}"));
        let script = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && script.contains("snapshot-every"), "{shell}: {script}");
        fs::write(dir.path().join(shell), &*script).unwrap();
    }
    let bash = Command::new("bash").arg("-n").arg(dir.path().join("bash")).output().unwrap();
    assert!(bash.status.success() && bash.stderr.is_empty(), "{bash:?}");
    assert_eq!(run(dir.path(), "man .").status.code(), Some(0));
    let help = run(dir.path(), "--help").stdout;
    let help = String::from_utf8_lossy(&help);
    let (_, listed) = help.split_once("Commands:\n").unwrap();
    let listed = listed.lines().take_while(|line| !line.is_empty());
    // A longer text goes on further right.
    let names = listed.filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|name| !name.is_empty()));
    let names: Vec<&str> = names.collect();
    assert!(names.len() >= 10, "{names:?}");
    for name in names.into_iter().filter(|name| *name != "help") {
        let page = fs::read_to_string(dir.path().join(format!("lifetrace-{name}.1"))).expect(name);
        assert!(page.contains(".SH SYNOPSIS"), "{name}: {page}");
    }
}

/// Check that nothing is drawn on stderr for who is no terminal, however long it takes.
#[test]
fn progress_is_for_terminals() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::default();
    scene.start(1_000, 1000, &["./shop"]);
    for goid in 1..100_000 {
        scene.birth(2_000 + goid, 1000, goid, 1, (0x3010, 0x4000));
    }
    fs::write(dir.path().join("big.rec"), scene.bytes()).unwrap();
    for line in [
        "report big.rec --format html -o page.html",
        "timeline big.rec --format perfetto -o trace",
        "export big.rec --format parquet -o tables",
    ] {
        let output = run(dir.path(), line);
        let said = String::from_utf8_lossy(&output.stderr);
        let notes = said.is_empty() || said.ends_with('\n') && said.lines().all(|line| line.starts_with("lifetrace: note: "));
        assert!(output.status.success() && notes && !said.contains(['\r', '\x1b']), "{line}: {output:?}");
    }
}

/// Check that a reader that goes away ends the program quietly.
#[test]
fn broken_pipe() {
    let dir = recorded();
    let mut scene = Scene::default();
    scene.start(1_000, 1000, &["./shop"]);
    for goid in 1..20_000 {
        scene.birth(2_000 + goid, 1000, goid, 1, (0x3010, 0x4000));
    }
    fs::write(dir.path().join("big.rec"), scene.bytes()).unwrap();
    for line in ["timeline big.rec", "timeline big.rec --format jsonl --quiet"] {
        let mut child = lifetrace(dir.path(), line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::with_capacity(64, child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), &*String::from_utf8_lossy(&output.stderr)), (Some(0), ""), "{line}");
    }
}

/// Measures a recording of five million events; prints what each output took.
#[test]
#[ignore = "a measurement: run it alone, with --ignored --nocapture"]
fn five_million_events() {
    let dir = tempfile::tempdir().unwrap();
    let mut scene = Scene::default();
    scene.shop(900_000).events.pop();
    for n in 0..1_000_000u64 {
        let (at, goid) = (20_000 + n * 5, 100 + n);
        scene
            .birth(at, 900_000, goid, 1, (0x3010, 0x4000))
            .park(at + 100, 900_000, goid, 2)
            .wake(at + 300, 900_000, goid, 1)
            .park(at + 400, 900_000, goid, 1)
            .exit(at + 900, 900_000, goid);
    }
    fs::write(dir.path().join("big.rec"), scene.bytes()).unwrap();
    for line in [
        "report big.rec",
        "flame big.rec --by blocked",
        "timeline big.rec --id go:5000",
        "timeline big.rec --format jsonl --quiet",
    ] {
        let start = Instant::now();
        let output = run(dir.path(), &format!("{line} -o out"));
        println!("{line}: {:.2} s", start.elapsed().as_secs_f64());
        assert_eq!(output.status.code(), Some(0));
    }
}
