//! `lifetrace snapshot` against what the program says of itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use lifetrace_tests::{
    deadline::{PATIENCE, wait_for},
    dump::{self, Creator, Frame, Goroutine},
    fixture,
    lifetrace::{self, command},
    process::{self, Finished, Running},
    scenario::{Need, along},
    truth::{self, Births, Waits},
    user,
};
use serde_json::Value;
use tempfile::TempDir;

fn snapshot(pid: u32, format: &str) -> Result<Finished> {
    let mut snapshot = command();
    snapshot.args(["snapshot", "--pid", &pid.to_string(), "--format", format]);
    process::run(snapshot)
}

/// Claims that the goroutines of each site are there, all of them waiting as the site says, with a whole stack.
#[track_caller]
fn assert_sites(snapshot: &Value, births: &Births) {
    let goroutines = snapshot["goroutines"].as_array().expect("no goroutines");
    for site in &births.sites {
        let of_site = goroutines.iter().filter(|goroutine| {
            let by = &goroutine["created_by"];
            let file = by["file"].as_str().is_some_and(|file| file.ends_with(&format!("/{}", site.file)));
            by["function"] == site.function.as_str() && by["line"] == site.line && file
        });
        let found: Vec<_> = of_site.collect();
        assert_eq!(found.len() as u64, site.alive, "{site:?}");
        for goroutine in found {
            assert_eq!(goroutine["state"], "waiting", "{goroutine:#}");
            assert_eq!(goroutine["wait_reason"].as_str(), site.wait_reason.as_deref(), "{goroutine:#}");
            assert_eq!((&goroutine["created_by"]["goid"], &goroutine["system"]), (&Value::from(1), &Value::from(false)));
            let stack = goroutine["stack"].as_array().expect("no stack");
            assert_eq!(stack[0]["function"], "runtime.gopark", "{goroutine:#}");
            assert_eq!(stack.last().map(|frame| &frame["function"]), Some(&goroutine["start_function"]), "{goroutine:#}");
        }
    }
}

/// Claims that the fields are those of docs/json.md, all of them and no other.
#[track_caller]
fn assert_shape(snapshot: &Value) {
    let fields = |value: &Value| {
        value.as_object().expect("an object").keys().cloned().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    };
    assert_eq!(snapshot["schema"], "lifetrace.snapshot/1");
    assert_eq!(fields(snapshot), ["duration_ns", "go_version", "goroutines", "schema", "taken_at_ns", "torn"]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_nanos() as u64;
    let (taken, took) = (snapshot["taken_at_ns"].as_u64(), snapshot["duration_ns"].as_u64());
    let ago = taken.zip(took).and_then(|(taken, took)| now.checked_sub(taken + took)).expect("in the past");
    assert!(ago < PATIENCE.as_nanos() as u64, "{ago} ns ago");
    for goroutine in snapshot["goroutines"].as_array().expect("no goroutines") {
        let expected = [
            "created_by",
            "goid",
            "labels",
            "locked_to_thread",
            "stack",
            "stack_missing",
            "stack_truncated",
            "start_function",
            "state",
            "system",
            "wait_reason",
            "waited_ns",
        ];
        assert_eq!(fields(goroutine), expected);
        assert_eq!(fields(&goroutine["created_by"]), ["file", "function", "goid", "line"]);
    }
}

/// Check count, creator, line, wait reason and stack of a thousand parked goroutines, and that the runtime's own are marked.
#[test]
fn parked_goroutines() -> Result<()> {
    along(&[Need::Root], || {
        let (_running, births) = fixture::sleeper(&["-n", "1000"])?;
        let found: Value = serde_json::from_str(&snapshot(births.pid, "json")?.expect_code(0)?.stdout)?;
        assert_shape(&found);
        assert_eq!(found["torn"], 0);
        assert_sites(&found, &births);
        let goroutines = found["goroutines"].as_array().context("no goroutines")?;
        let main = goroutines.iter().find(|goroutine| goroutine["goid"] == 1).context("no main")?;
        assert_eq!((&main["start_function"], &main["system"]), (&"runtime.main".into(), &false.into()));
        assert!(goroutines.iter().any(|goroutine| goroutine["system"] == true));
        Ok(())
    })
}

/// Check that those who stay are counted exactly while others come and go.
#[test]
fn while_others_come_and_go() -> Result<()> {
    along(&[Need::Root], || {
        let (_running, births) = fixture::sleeper(&["-n", "1000", "-churn"])?;
        for _ in 0..20 {
            let found: Value = serde_json::from_str(&snapshot(births.pid, "json")?.expect_code(0)?.stdout)?;
            assert_sites(&found, &births);
        }
        Ok(())
    })
}

/// Check that the text has the shape of Go's own dump.
#[test]
fn text() -> Result<()> {
    along(&[Need::Root], || {
        let (_running, births) = fixture::sleeper(&["-n", "10"])?;
        // It says what it made just before it waits itself.
        let text = wait_for("it to wait", PATIENCE, || {
            let text = snapshot(births.pid, "text")?.expect_code(0)?.stdout;
            Ok(text.starts_with("goroutine 1 [select]:\n").then_some(text))
        })?;
        let site = &births.sites[0];
        let created = format!("created by {} in goroutine 1\n\t", site.function);
        let entries: Vec<_> = text.split("\n\n").filter(|entry| entry.contains(&created)).collect();
        let parked = entries.iter().filter(|entry| entry.contains(&format!("{}:{}", site.file, site.line)));
        let parked: Vec<_> = parked.filter(|entry| entry.contains(" [chan receive]:\nruntime.gopark(...)\n\t")).collect();
        assert_eq!(parked.len() as u64, site.alive, "{text}");
        Ok(())
    })
}

/// Check what is said, and with which code, of a process that is not there and of one that is not Go.
#[test]
fn no_go_process() -> Result<()> {
    along(&[], || {
        snapshot(u32::MAX, "text")?.expect_code(2)?.expect_said(&["no process"])?;
        let mut sleep = Command::new("sleep");
        sleep.arg("60");
        let sleep = Running::start(sleep, None)?;
        let pid = u32::try_from(sleep.pid().as_raw())?;
        snapshot(pid, "text")?.expect_code(3)?.expect_said(&["no Go program", "not allowed"])
    })
}

/// A `waits` that has printed its truth, and the folder of its socket.
fn waits(args: &[&str]) -> Result<(Running, Waits, TempDir)> {
    started(Command::new(fixture::go("waits")?), args)
}

fn started(mut command: Command, args: &[&str]) -> Result<(Running, Waits, TempDir)> {
    let dir = TempDir::new()?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777))?;
    command.arg("-dir").arg(dir.path()).args(args);
    let mut running = Running::start(command, None)?;
    let truth = truth::read(&running.line(0)?)?;
    Ok((running, truth, dir))
}

fn json(pid: u32) -> Result<Value> {
    Ok(serde_json::from_str(&snapshot(pid, "json")?.expect_code(0)?.stdout)?)
}

/// The goroutines of a snapshot by id, in the words of Go's own dump; without the runtime's own, which that does not show.
fn as_dump(snapshot: &Value) -> Result<BTreeMap<u64, Goroutine>> {
    let goroutines = snapshot["goroutines"].as_array().context("no goroutines")?;
    let own = goroutines.iter().filter(|goroutine| goroutine["system"] == false);
    own.map(|goroutine| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let line = |value: &Value| value.as_u64().and_then(|line| line.try_into().ok()).unwrap_or(0);
        let frame = |frame: &Value| (without_types(&text(&frame["function"])), text(&frame["file"]), line(&frame["line"]));
        let goid = goroutine["goid"].as_u64().context("no goid")?;
        let by = &goroutine["created_by"];
        let state = if goroutine["wait_reason"].is_null() { &goroutine["state"] } else { &goroutine["wait_reason"] };
        let entry = Goroutine {
            state: text(state),
            locked_to_thread: goroutine["locked_to_thread"] == true,
            stack: goroutine["stack"].as_array().into_iter().flatten().map(frame).collect(),
            creator: (goid != 1).then(|| Creator { goid: by["goid"].as_u64(), frame: frame(by) }),
        };
        Ok((goid, entry))
    })
    .collect()
}

/// A function's name as Go prints it: `main.f[...]` for `main.f[go.shape.int]`.
fn without_types(function: &str) -> String {
    match (function.find('['), function.rfind(']')) {
        (Some(start), Some(end)) if start < end => format!("{}[...{}", &function[..start], &function[end..]),
        _ => function.to_owned(),
    }
}

/// Its frames but for the runtime's, most of which Go's dump leaves out, and for wrappers that the compiler made.
fn shown(goroutine: &Goroutine) -> Vec<&Frame> {
    let wrapper = |function: &str, file: &str| {
        let last = function.rsplit('.').next().unwrap_or_default();
        file == "<autogenerated>" || last.strip_prefix("gowrap").is_some_and(|n| n.parse::<u32>().is_ok())
    };
    let hidden = |function: &str, file: &str| function.starts_with("runtime.") || wrapper(function, file);
    goroutine.stack.iter().filter(|(function, file, _)| !hidden(function, file)).collect()
}

/// Whether a goroutine serves the dump itself: it comes and goes with the asking.
fn serves(goroutine: &Goroutine) -> bool {
    goroutine.creator.as_ref().is_some_and(|by| by.frame.0.starts_with("net/http."))
}

/// Claims that a goroutine of both lists is the same in both.
#[track_caller]
fn assert_same(goid: u64, ours: &Goroutine, gos: &Goroutine) {
    assert_eq!(ours.state, gos.state, "goroutine {goid}: {ours:?} {gos:?}");
    assert_eq!(ours.locked_to_thread, gos.locked_to_thread, "goroutine {goid}");
    assert_eq!(ours.creator, gos.creator, "goroutine {goid}");
    let (ours, gos) = (shown(ours), shown(gos));
    let common = ours.len().min(gos.len());
    assert_eq!(ours[..common], gos, "goroutine {goid}");
    // Up to Go 1.21 the wrapper of a go statement is named like any function inside of another.
    let named_as_wrapper = |(function, ..): &&Frame| {
        let last = function.rsplit('.').next().unwrap_or_default();
        last.trim_start_matches("func").parse::<u32>().is_ok()
    };
    assert!(ours[common..].len() <= 1 && ours[common..].iter().all(named_as_wrapper), "goroutine {goid}: {:?}", ours.last());
}

/// What Go says once the program stands still: twice the same.
fn settled(socket: &Path) -> Result<BTreeMap<u64, Goroutine>> {
    let own = || -> Result<BTreeMap<_, _>> {
        Ok(dump::take(socket)?.into_iter().filter(|(_, goroutine)| !serves(goroutine)).collect())
    };
    wait_for("two dumps that agree", PATIENCE, || {
        let (first, second) = (own()?, own()?);
        let stands = first.values().all(|goroutine| !matches!(goroutine.state.as_str(), "running" | "runnable"));
        Ok((stands && first == second).then_some(second))
    })
}

fn agrees(socket: &Path, pid: u32) -> Result<usize> {
    let gos = settled(socket)?;
    let ours: BTreeMap<_, _> = as_dump(&json(pid)?)?.into_iter().filter(|(_, goroutine)| !serves(goroutine)).collect();
    assert!(ours.keys().eq(gos.keys()), "ours: {:?}, Go's: {:?}", ours.keys(), gos.keys());
    for (goid, ours) in &ours {
        assert_same(*goid, ours, &gos[goid]);
    }
    Ok(ours.len())
}

/// Check that a program that stands still is seen as it sees itself: every goroutine, its state, stack and creator, whatever it waits for.
#[test]
fn agrees_with_the_dump() -> Result<()> {
    along(&[Need::Root], || {
        let (_running, truth, _dir) = waits(&[])?;
        let count = agrees(&truth.socket, truth.pid)?;
        assert!(count >= truth.said.len(), "{count} goroutines");
        let gos = settled(&truth.socket)?;
        let states: BTreeSet<&str> = gos.values().map(|goroutine| goroutine.state.as_str()).collect();
        for state in ["chan receive", "chan send", "select", "sleep", "IO wait", "syscall", "sync.Cond.Wait"] {
            assert!(states.contains(state), "the program has no {state}: {states:?}");
        }
        Ok(())
    })
}

/// Check that while goroutines come and go the snapshot and two dumps around it differ by these alone: whoever is in both dumps
/// is in the snapshot, with the same creator, and if both saw it wait for the same at the same place, the snapshot did too.
#[test]
fn agrees_while_others_come_and_go() -> Result<()> {
    along(&[Need::Root], || {
        let (_running, truth, _dir) = waits(&["-churn"])?;
        for _ in 0..10 {
            let before = dump::take(&truth.socket)?;
            let snapshot = json(truth.pid)?;
            let (ours, after) = (as_dump(&snapshot)?, dump::take(&truth.socket)?);
            let torn = snapshot["torn"].as_u64().context("no torn")?;
            let missing = before.keys().filter(|goid| after.contains_key(goid) && !ours.contains_key(goid)).count();
            assert!(missing as u64 <= torn, "{missing} are missing, {torn} were torn");
            for (goid, gos) in before.iter().filter(|(goid, _)| truth.said.iter().any(|said| said.goid == **goid)) {
                assert_eq!(after.get(goid), Some(gos));
                assert_same(*goid, &ours[goid], gos);
            }
            let born_between = ours.iter().filter(|(goid, _)| !before.contains_key(goid));
            let oldest = before.keys().next_back().copied().unwrap_or(0);
            for (goid, goroutine) in born_between {
                let by = goroutine.creator.as_ref().map_or("", |by| by.frame.0.as_str());
                assert!(
                    by.starts_with("main.bearAndForget") || serves(goroutine),
                    "goroutine {goid} (of {oldest}): {goroutine:?}"
                );
            }
        }
        Ok(())
    })
}

/// Check each goroutine's labels against what it says itself: none, some, odd ones, more than one bucket, inherited ones.
#[test]
fn labels() -> Result<()> {
    along(&[Need::Root], || {
        let (_running, truth, _dir) = waits(&[])?;
        assert_labels(&truth)?;
        for header in ["[chan receive] {job: one}:\n", "{empty: , job: \"two words\", user: ann}:\n"] {
            let told = || Ok(snapshot(truth.pid, "text")?.expect_code(0)?.stdout.contains(header).then_some(()));
            wait_for(header, PATIENCE, told)?;
        }
        Ok(())
    })
}

fn assert_labels(truth: &Waits) -> Result<()> {
    let found = json(truth.pid)?;
    let goroutines = found["goroutines"].as_array().context("no goroutines")?;
    for said in &truth.said {
        let goroutine = goroutines.iter().find(|goroutine| goroutine["goid"] == said.goid).context("a goroutine is missing")?;
        assert_eq!(goroutine["labels"], serde_json::to_value(&said.labels)?, "{goroutine:#}");
    }
    assert!(truth.said.iter().any(|said| said.labels.len() > 8));
    Ok(())
}

/// Check that `go tool pprof` reads the profile, and finds the goroutines by stack and by label.
#[test]
fn pprof() -> Result<()> {
    along(&[Need::Root, Need::Go], || {
        let (_running, births) = fixture::sleeper(&["-n", "1000"])?;
        let (_labelled, truth, dir) = waits(&[])?;
        let take = |pid: u32, file: &Path| -> Result<()> {
            let mut snapshot = command();
            snapshot.args(["snapshot", "--pid", &pid.to_string(), "--format", "pprof", "-o"]).arg(file);
            process::run(snapshot)?.expect_code(0).map(drop)
        };
        let (plain, labelled) = (dir.path().join("plain.pb.gz"), dir.path().join("labelled.pb.gz"));
        take(births.pid, &plain)?;
        take(truth.pid, &labelled)?;
        let pprof = |args: &[&str], file: &Path| -> Result<String> {
            fixture::go_pprof(&[args, &[&file.display().to_string()]].concat())
        };
        let top = pprof(&["-top"], &plain)?;
        let parked = top.lines().find(|line| line.ends_with(" main.main.func1")).context(top.clone())?;
        assert_eq!(parked.split_whitespace().nth(3), Some("1000"), "{top}");
        let raw = pprof(&["-raw"], &plain)?;
        // One stack, one sample.
        assert!(raw.lines().any(|line| line.trim_start().starts_with("1000: ")), "{raw}");
        assert!(raw.contains("goroutine/count"), "{raw}");
        let tags = pprof(&["-tags"], &labelled)?;
        assert!(tags.contains("job: Total 4") && tags.contains(": two words"), "{tags}");
        Ok(())
    })
}

/// Check that `--no-stacks` leaves out stacks and says so, and nothing else.
#[test]
fn no_stacks() -> Result<()> {
    along(&[Need::Root], || {
        let (_running, births) = fixture::sleeper(&["-n", "10"])?;
        let mut without = command();
        without.args(["snapshot", "--no-stacks", "--pid", &births.pid.to_string(), "--format", "json"]);
        let without: Value = serde_json::from_str(&process::run(without)?.expect_code(0)?.stdout)?;
        let site = &births.sites[0];
        let of_site =
            |goroutine: &&Value| goroutine["created_by"]["line"] == site.line && goroutine["wait_reason"] == "chan receive";
        let found: Vec<_> = without["goroutines"].as_array().context("none")?.iter().filter(of_site).collect();
        assert_eq!(found.len() as u64, site.alive);
        assert!(found.iter().all(|goroutine| goroutine["stack"].is_null() && goroutine["stack_missing"] == "left out"));
        Ok(())
    })
}

/// Check programs loaded anywhere, stripped ones and ones with C in them.
#[test]
fn kinds_of_binaries() -> Result<()> {
    along(&[Need::Root, Need::Go], || {
        let dir = TempDir::new()?;
        for (name, flags, cgo) in [
            ("pie", &["-buildmode=pie"][..], "0"),
            ("stripped", &["-ldflags=-s -w"], "0"),
            ("stripped-pie", &["-buildmode=pie", "-ldflags=-s -w"], "0"),
            ("cgo-pie", &["-buildmode=pie", "-ldflags=-linkmode=external"], "1"),
        ] {
            let program = fixture::go_built_with("waits", &dir.path().join(name), flags, cgo)?;
            let (_running, truth, _dir) = started(Command::new(program), &[])?;
            agrees(&truth.socket, truth.pid).with_context(|| name.to_owned())?;
            assert_labels(&truth)?;
        }
        Ok(())
    })
}

/// A command as `nobody`, with a copy of its program where that user may execute it.
fn as_nobody(program: &Path, dir: &Path) -> Result<Command> {
    let nobody = user::nobody().context("no user nobody")?;
    let mut command = Command::new(fixture::copy_for_everyone(program, dir)?);
    command.uid(nobody.uid).gid(nobody.gid).env("HOME", "/").current_dir("/");
    Ok(command)
}

fn snapshot_as_nobody(pid: u32, dir: &Path) -> Result<Finished> {
    let mut snapshot = as_nobody(&lifetrace::binary(), dir)?;
    snapshot.args(["snapshot", "--format", "json", "--pid", &pid.to_string()]);
    process::run(snapshot)
}

/// Check that a user without rights may look into a process of its own.
#[test]
fn own_process_without_rights() -> Result<()> {
    along(&[Need::Root, Need::Nobody, Need::FreePtrace], || {
        let dir = TempDir::new()?;
        let (_running, truth, _dir) = started(as_nobody(&fixture::go("waits")?, dir.path())?, &[])?;
        let found: Value = serde_json::from_str(&snapshot_as_nobody(truth.pid, dir.path())?.expect_code(0)?.stdout)?;
        let goroutines = found["goroutines"].as_array().context("no goroutines")?;
        for said in &truth.said {
            let goroutine = goroutines.iter().find(|goroutine| goroutine["goid"] == said.goid).context("one is missing")?;
            assert_eq!(goroutine["labels"], serde_json::to_value(&said.labels)?);
        }
        Ok(())
    })
}

/// Check that another's process and one that hides from its own user are refused, with what would help, and that root sees the latter.
#[test]
fn refused_without_rights() -> Result<()> {
    along(&[Need::Root, Need::Nobody], || {
        let dir = TempDir::new()?;
        let (_roots, of_root, _dir) = waits(&[])?;
        let refused = snapshot_as_nobody(of_root.pid, dir.path())?.expect_code(3)?;
        assert!(refused.stdout.is_empty());
        refused.expect_said(&["cap_sys_ptrace"])?;
        let (_hidden, hidden, _dir) = started(as_nobody(&fixture::go("waits")?, dir.path())?, &["-undumpable"])?;
        snapshot_as_nobody(hidden.pid, dir.path())?.expect_code(3)?.expect_said(&["dumpable"])?;
        assert_labels(&hidden)
    })
}
