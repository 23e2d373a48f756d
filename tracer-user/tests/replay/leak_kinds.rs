//! Verdicts on what is proven, on looks alone, and on what is no goroutine.

use flate2::{Compression, write::GzEncoder};
use pprof::protos::{Function, Line, Location, Message, Profile, Sample, ValueType};
use serde_json::Value;
use std::io::Write;
use tracer_common::process::Cgroup;
use tracer_user::{
    event::{ProcessExit, ProcessFork, ProcessReaped, Program, What},
    id::Tgid,
    recording::contract::{GoroutineDump, ProfileKind, Tier},
};

use crate::{
    checks::{WORKER, look},
    leaks::{TGID, judged, service, stuck},
    scene::Scene,
};

const MS: u64 = 1_000_000;
/// Of the shop's children, in boot time.
const BORN: u64 = 7_000 * MS;

fn only(said: &Value, kind: &str) -> Value {
    let mut all = said["leaks"].as_array().expect("leaks").iter().filter(|leak| leak["kind"] == kind);
    let found = all.next().unwrap_or_else(|| panic!("no {kind}: {said:#}")).clone();
    assert!(all.next().is_none(), "{said:#}");
    found
}

/// A look at the workers that are there, all waiting.
fn workers(at_ms: u64, goids: impl Iterator<Item = u64>) -> GoroutineDump {
    let found: Vec<_> = goids.map(|goid| (goid, WORKER, Some("chan receive"), Some("cart"))).collect();
    let mut dump = look(at_ms * 1_000, &found);
    (dump.tgid, dump.start_ticks) = (Tgid(TGID), u64::from(TGID));
    dump
}

/// Check that those that a look found to be leaked are proven, whatever their number does, and that it is said of how many.
#[test]
fn proven_by_a_state() {
    let mut scene = service();
    stuck(&mut scene, 10, 60);
    let mut dump = workers(900, 100..105);
    dump.kinds[0].state = Some("leaked".into());
    dump.kinds[1].state = Some("leaked".into());
    scene.dumps.push(dump);
    let (said, text) = judged(&scene);
    let leak = only(&said, "goroutine");
    assert_eq!((&leak["strength"], &leak["because"]), (&"proven".into(), &"collector".into()));
    assert_eq!((&leak["proven"], &leak["count"], &said["summary"]["failing"]), (&2.into(), &5.into(), &1.into()));
    assert_eq!((&leak["stack_bytes"], &leak["stacks_known"]), (&(5 * 2048).into(), &5.into()));
    assert_eq!(leak["labels"][0], serde_json::json!({"key": "endpoint", "value": "cart", "count": 5}));
    assert!(text.contains("nobody can wake 2 of them"), "{text}");
    // One that is woken was not leaked.
    scene.wake(950_000, TGID, 100, 1).park(951_000, TGID, 100, 2);
    assert_eq!(only(&judged(&scene).0, "goroutine")["proven"], 1);
}

/// A profile of the leaked that counts so many where workers receive.
fn leaked(count: i64) -> Vec<u8> {
    let names = ["", "goroutineleak", "count", "runtime.gopark", "main.worker"];
    let kind = ValueType { ty: 1, unit: 2 };
    let line = |function_id, line| vec![Line { function_id, line }];
    let profile = Profile {
        sample_type: vec![kind],
        string_table: names.map(str::to_owned).to_vec(),
        function: vec![Function { id: 1, name: 3, ..Function::default() }, Function { id: 2, name: 4, ..Function::default() }],
        location: vec![
            Location { id: 1, line: line(1, 460), ..Location::default() },
            Location { id: 2, line: line(2, 33), ..Location::default() },
        ],
        sample: vec![Sample { location_id: vec![1, 2], value: vec![count], ..Sample::default() }],
        ..Profile::default()
    };
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&profile.encode_to_vec()).expect("packs");
    packed.finish().expect("packs")
}

/// Check that a profile proves as many as it counts where they wait, and none that came later.
#[test]
fn proven_by_a_profile() {
    for (count, proven) in [(5, 5), (3, 3), (0, 0)] {
        let mut scene = service();
        stuck(&mut scene, 10, 60);
        scene.birth(910_000, TGID, 300, 1, WORKER).park(910_050, TGID, 300, 2);
        scene.profile(800_000, TGID, ProfileKind::GoroutineLeak, &leaked(count));
        let leak = only(&judged(&scene).0, "goroutine");
        assert_eq!((&leak["proven"], leak["strength"] == "proven"), (&proven.into(), proven > 0), "{count}");
    }
    let mut scene = service();
    stuck(&mut scene, 10, 60);
    scene.profile(800_000, TGID, ProfileKind::GoroutineLeak, b"no profile");
    assert_eq!(only(&judged(&scene).0, "goroutine")["strength"], "watched");
}

/// Looks at a program without probes, each 100 ms, at which so many workers are there.
fn watched(alive: impl Fn(u64) -> std::ops::Range<u64>) -> Scene {
    let mut scene = Scene::lasting(3_000);
    scene.tier = Some(Tier::T0);
    for at_ms in (0..3_000).step_by(100) {
        let mut dump = workers(at_ms, alive(at_ms));
        (dump.tier, dump.check) = (Tier::T0, at_ms > 0);
        scene.dumps.push(dump);
    }
    scene
}

/// Check that looks alone tell growth: what was there before counts with it but not as growth, and turnover, a plateau and a constant number
/// are none.
#[test]
fn looks_alone() {
    let growing = watched(|at_ms| 100..200 + at_ms / 20);
    let (said, text) = judged(&growing);
    let leak = only(&said, "goroutine");
    assert_eq!((&leak["strength"], &leak["because"]), (&"suspected".into(), &"growth".into()), "{said:#}");
    assert_eq!((&leak["count"], &leak["blocked_on"]["never_woken"]), (&245.into(), &Value::Null));
    assert!(text.contains("coverage T0") && text.contains("between two looks"), "{text}");
    for (what, scene) in [
        ("turnover", watched(|at_ms| 100 + at_ms / 20..200 + at_ms / 20)),
        ("plateau", watched(|at_ms| 100..200 + (at_ms / 20).min(60))),
        ("constant", watched(|_| 100..500)),
    ] {
        let leak = only(&judged(&scene).0, "goroutine");
        assert_eq!(leak["strength"], "watched", "{what}: {leak:#}");
    }
}

/// Check that one whose place changes between two looks is not taken for one that waits there all the time.
#[test]
fn moving_between_looks() {
    let mut scene = watched(|_| 100..101);
    for (index, dump) in scene.dumps.iter_mut().enumerate() {
        dump.kinds[0].wait_reason = Some(if index % 2 == 0 { "chan receive" } else { "sleep" }.into());
    }
    let leak = only(&judged(&scene).0, "goroutine");
    assert_eq!(leak["blocked_on"]["reason"], "sleep");
    assert!(leak["blocked_on"]["longest_ns"].as_u64() < Some(200 * MS), "{leak:#}");
}

/// Check that it is told who went on last from what a group waits on.
#[test]
fn last_touched() {
    let mut scene = service();
    stuck(&mut scene, 10, 1_000);
    scene.wake(500_000, TGID, 104, 1).exit(501_000, TGID, 104);
    let (said, text) = judged(&scene);
    let touched = &only(&said, "goroutine")["blocked_on"]["last_touched"];
    assert_eq!(*touched, serde_json::json!({"by": "go:104", "woken_by": "go:1", "at_ns": 500 * MS}));
    assert!(text.contains("go:104 went on from there at 500 ms, woken by go:1"), "{text}");
}

/// A child of the shop is born; it runs `sleep`.
fn child(scene: &mut Scene, at_ms: u64, tgid: u32) {
    let born = BORN + u64::from(tgid) * 10 * MS;
    let fork = ProcessFork {
        child: Tgid(tgid),
        child_start_boottime_ns: born,
        parent_start_boottime_ns: u64::from(TGID) * 10 * MS,
        parent: Tgid(TGID),
        cgroup: Cgroup::default(),
    };
    let exec = Program { start_boottime_ns: born, exe: "/bin/sleep".into(), args: vec!["sleep".into()], ..Program::default() };
    scene.event(at_ms * 1_000, 0, TGID, None, What::ProcessFork(fork));
    scene.event(at_ms * 1_000 + 10, 0, tgid, None, What::ProcessExec(Box::new(exec)));
}

fn dies(scene: &mut Scene, at_ms: u64, tgid: u32) {
    let start_boottime_ns = BORN + u64::from(tgid) * 10 * MS;
    let exit = ProcessExit { start_boottime_ns, wait_status: Some(0), parent: Some(Tgid(TGID)), autoreaped: false };
    scene.event(at_ms * 1_000, 0, tgid, None, What::ProcessExit(exit));
}

fn reaped(scene: &mut Scene, at_ms: u64, tgid: u32) {
    let start_boottime_ns = BORN + u64::from(tgid) * 10 * MS;
    let reaped = ProcessReaped { tgid: Tgid(tgid), start_boottime_ns, parent: Some(Tgid(TGID)), reaper_known: true };
    scene.event(at_ms * 1_000, 0, TGID, None, What::ProcessReaped(reaped));
}

/// A shop that lives for so long.
fn shop(ms: u64) -> Scene {
    let mut scene = Scene::lasting(ms);
    scene.start(1_000, TGID, &["./shop"]);
    scene
}

/// Check that zombies whose parent lives on for ten seconds while they become more are proven; and not if they are too young, too few, or if
/// the parent reaps late, but does.
#[test]
fn zombies() {
    let verdict = |ms: u64, count: u32, reaped_after: Option<u64>| {
        let mut scene = shop(ms);
        for n in 0..count {
            let at_ms = 100 + 1_000 * u64::from(n);
            child(&mut scene, at_ms, 2_000 + n);
            dies(&mut scene, at_ms + 50, 2_000 + n);
            if let Some(after) = reaped_after.filter(|after| at_ms + 50 + after < ms) {
                reaped(&mut scene, at_ms + 50 + after, 2_000 + n);
            }
        }
        let said = judged(&scene).0;
        let zombies = said["leaks"].as_array().expect("leaks").iter().find(|leak| leak["kind"] == "zombie").cloned();
        zombies.map(|leak| (leak["strength"].as_str().unwrap_or_default().to_owned(), leak["count"].as_u64().unwrap_or(0)))
    };
    assert_eq!(verdict(13_000, 5, None), Some(("proven".into(), 5)));
    assert_eq!(verdict(9_000, 5, None), Some(("watched".into(), 5)));
    assert_eq!(verdict(13_000, 2, None), Some(("watched".into(), 2)));
    assert_eq!(verdict(40_000, 38, Some(12_000)), Some(("watched".into(), 10)));
    assert_eq!(verdict(20_000, 15, Some(10)), None);
    let mut scene = shop(13_000);
    for n in 0..5 {
        child(&mut scene, 100 + u64::from(n), 2_000 + n);
        dies(&mut scene, 150 + u64::from(n), 2_000 + n);
    }
    // A parent that ends leaves them to somebody who reaps.
    scene.stop(300_000, TGID, 0);
    assert!(judged(&scene).0["leaks"].as_array().expect("leaks").is_empty());
}

/// Check that children that never end, ever more of them, are suspected, with the program's name and its parent; and not those that end.
#[test]
fn processes() {
    for (ends, strength) in [(false, "suspected"), (true, "watched")] {
        let mut scene = shop(10_000);
        for n in 0..90u32 {
            let at_ms = 200 + 100 * u64::from(n);
            child(&mut scene, at_ms, 2_000 + n);
            if ends && n < 85 {
                dies(&mut scene, at_ms + 500, 2_000 + n);
                reaped(&mut scene, at_ms + 501, 2_000 + n);
            }
        }
        let (said, text) = judged(&scene);
        let leak = only(&said, "process");
        assert_eq!((&leak["strength"], &leak["name"], &leak["tgid"]), (&strength.into(), &"sleep".into(), &TGID.into()));
        assert!(text.contains(&format!("\"sleep\", children of process {TGID}")), "{text}");
    }
}

/// Check that children that had to be killed when their parent was done are what it left behind.
#[test]
fn processes_of_one_that_ended() {
    let mut scene = shop(10_000);
    for n in 0..90u32 {
        child(&mut scene, 200 + 100 * u64::from(n), 2_000 + n);
    }
    scene.stop(9_300_000, TGID, 0);
    for n in 0..90u32 {
        let start_boottime_ns = BORN + u64::from(2_000 + n) * 10 * MS;
        let exit = ProcessExit { start_boottime_ns, wait_status: Some(9), parent: Some(Tgid(1)), autoreaped: false };
        scene.event(9_310_000, 0, 2_000 + n, None, What::ProcessExit(exit));
    }
    let leak = only(&judged(&scene).0, "process");
    assert_eq!((&leak["strength"], &leak["tgid"], &leak["count"]), (&"suspected".into(), &TGID.into(), &90.into()), "{leak:#}");
}

/// Check that children whose end may be among lost records are no leak.
#[test]
fn processes_and_loss() {
    let mut scene = shop(10_000);
    for n in 0..90u32 {
        child(&mut scene, 200 + 100 * u64::from(n), 2_000 + n);
    }
    dies(&mut scene, 9_400, 2_000);
    scene.lose();
    reaped(&mut scene, 9_500, 2_001);
    let leak = only(&judged(&scene).0, "process");
    assert_eq!((&leak["strength"], &leak["weakened_by_loss"]), (&"watched".into(), &true.into()), "{leak:#}");
}

/// Check that a kind of descriptor whose number rises to the end is suspected, with its counts; and not one that has come to rest.
#[test]
fn descriptors() {
    let mut scene = shop(60_000);
    for second in 0..60 {
        scene.descriptors(
            second * 1_000_000 + 1_500,
            TGID,
            &[("socket", 7 + second * 2), ("file", 40.min(second * 3)), ("pipe", 2)],
        );
    }
    let (said, text) = judged(&scene);
    let leak = only(&said, "fd");
    assert_eq!((&leak["strength"], &leak["name"], &leak["count"]), (&"suspected".into(), &"socket".into(), &125.into()));
    assert_eq!((leak["counts"].as_array().map(Vec::len), &leak["counts"][3]["count"]), (Some(60), &13.into()));
    assert!(text.contains("descriptors of kind socket, of process 1000"), "{text}");
}
