//! Verdicts on synthetic recordings: the same on every machine.

use serde_json::Value;
use tracer_user::{
    correlate::replay::replay,
    event::{CodeOf, Top, What},
    export::leaks::{leaks as leaks_out, text},
    id::{Address, Goid, StackId},
    leak::{
        gate::Gate,
        ignore::IgnoreList,
        tally::LeakTally,
        verdict::{Judged, Strength, leaks},
    },
    recording::contract::Tier,
};

use crate::{
    open,
    scene::{BIAS, GO_TEST, Scene},
};

pub const TGID: u32 = 1000;
/// Link addresses of scene.rs: the `go` statement of workers, what they run, where they receive, and the root of every stack.
const GO_WORKER: u64 = 0x3010;
const WORKER: u64 = 0x4000;
const BLOCKING: [u64; 3] = [0x5000, 0x5010, 0x5030];

/// Verdicts as JSON and as text.
pub fn judged(scene: &Scene) -> (Value, String) {
    let mut tally = LeakTally::default();
    let replayed = replay(open(&scene.bytes()), &mut tally).expect("replays");
    let gate = Gate::new(None, IgnoreList::default(), Some(Strength::Suspected));
    let said = leaks_out(&replayed, &leaks(&replayed, &tally, Judged::Tests), &gate);
    let mut written = Vec::new();
    text::write(&said, false, &mut written).expect("writes");
    (serde_json::to_value(said).expect("serializes"), String::from_utf8(written).expect("text"))
}

/// A program that runs for a second, and the stack at which its workers wait.
pub fn service() -> Scene {
    let mut scene = Scene::lasting(1_000);
    let pcs = BLOCKING.iter().map(|pc| Address(BIAS + pc)).collect();
    let stack = What::Stack { id: StackId(9), pcs, truncated: false, top: Top::Return, of: CodeOf::Binary };
    scene.start(1_000, TGID, &["./shop"]).event(1_300, 0, TGID, Some(0), stack);
    scene
}

/// Workers, one each 10 ms from `from_ms` to `to_ms`, of which each waits for what never comes.
pub fn stuck(scene: &mut Scene, from_ms: u64, to_ms: u64) {
    for (goid, at_ms) in (100..).zip((from_ms..to_ms).step_by(10)) {
        scene.birth(at_ms * 1_000, TGID, goid, 1, (GO_WORKER, WORKER)).park(at_ms * 1_000 + 50, TGID, goid, 2);
    }
}

/// Check that workers who never end are suspected, with the figures of the test, where they were made and where they wait.
#[test]
fn growing() {
    let mut scene = service();
    stuck(&mut scene, 10, 1_000);
    let (said, text) = judged(&scene);
    assert_eq!(
        said["summary"],
        serde_json::json!({"proven": 0, "suspected": 1, "watched": 0, "known": 0, "ignored": 0, "failing": 1})
    );
    let leak = &said["leaks"][0];
    assert_eq!((&leak["count"], &leak["unconfirmed"], &leak["weakened_by_loss"]), (&99.into(), &0.into(), &false.into()));
    assert_eq!(leak["test"]["births"].as_array().expect("births").iter().filter_map(Value::as_u64).sum::<u64>(), 95);
    insta::assert_snapshot!(text, @r"
    0 proven, 1 suspected, 0 watched
    trust      no event lost; coverage T2

    suspected  99 goroutines of main.open (main.go:12)  [a4a75c16a8418c29]
      growth     363,808 an hour: 95 are older than 49.9 ms, 16 16 16 15 16 16 born in each 157 ms
      blocked    chan receive for 9.95 ms to 990 ms; 99 were never woken there, 0 by timers alone
      waits on   0xc0001000, all of them
      at         main.worker (main.go:33)
      runs       main.worker (main.go:30)
      made by    main.open (main.go:12)
      advice     nobody sends or closes any more: close the channel when its sender is done, or select on ctx.Done() as well
      for one    lifetrace timeline REC --id go:100@1000
    ");
}

/// Check that a pool that is full, workers that come and go, and a burst are only watched.
#[test]
fn bounded() {
    let mut pool = service();
    stuck(&mut pool, 10, 600);
    let mut burst = service();
    stuck(&mut burst, 500, 700);
    let mut turnover = service();
    for (goid, at_ms) in (100..).zip((10..990).step_by(5)) {
        turnover.birth(at_ms * 1_000, TGID, goid, 1, (GO_WORKER, WORKER)).park(at_ms * 1_000 + 50, TGID, goid, 2);
        if at_ms > 300 {
            turnover.exit(at_ms * 1_000 + 100, TGID, goid - 50);
        }
    }
    for (scene, what) in [(pool, "pool"), (burst, "burst"), (turnover, "turnover")] {
        let (said, _) = judged(&scene);
        assert_eq!(said["summary"]["suspected"], 0, "{what}: {said:#}");
        assert_eq!(said["summary"]["watched"], 1, "{what}: {said:#}");
    }
}

/// Check that goroutines whose end may be among lost records carry no verdict, and that it is said so.
#[test]
fn weakened_by_loss() {
    let mut scene = service();
    stuck(&mut scene, 10, 990);
    scene.exit(995_000, TGID, 100).lose().exit(996_000, TGID, 101);
    let (said, text) = judged(&scene);
    assert_eq!(said["summary"]["suspected"], 0, "{said:#}");
    let leak = &said["leaks"][0];
    assert_eq!((&leak["weakened_by_loss"], &leak["unconfirmed"], &leak["count"]), (&true.into(), &97.into(), &97.into()));
    assert!(text.contains("only watched because records were lost"), "{text}");
}

/// Check that where nothing is known of blocking, nothing is suspected.
#[test]
fn births_alone() {
    let mut scene = Scene::lasting(1_000);
    scene.tier = Some(Tier::T1);
    scene.start(1_000, TGID, &["./shop"]);
    for (goid, at_ms) in (100..).zip((10..1_000).step_by(10)) {
        scene.birth(at_ms * 1_000, TGID, goid, 1, (GO_WORKER, WORKER));
    }
    let (said, text) = judged(&scene);
    assert_eq!(
        said["summary"],
        serde_json::json!({"proven": 0, "suspected": 0, "watched": 1, "known": 0, "ignored": 0, "failing": 0})
    );
    assert!(said["leaks"][0]["blocked_on"].is_null() && text.contains("not known to be blocked"), "{text}");
}

/// What becomes of a scene in which a test and its subtest run, as far as they do.
#[derive(Clone, Copy, Debug)]
struct Tested {
    named: bool,
    test_ends: bool,
    process_ends: bool,
}

/// A goroutine is made by one that a subtest made, and waits for what never comes.
fn tested(how: Tested) -> Value {
    let mut scene = service();
    let run = |by: u64, name: &str| What::TestRun { goid: Some(Goid(by)), name: name.to_owned(), cut: false };
    scene.event(10_000, 0, TGID, Some(0), run(1, "TestOrders")).birth(10_100, TGID, 20, 1, (GO_TEST, WORKER));
    if how.named {
        scene.event(12_000, 0, TGID, Some(0), run(20, "too many"));
    }
    scene.birth(12_100, TGID, 21, 20, (GO_TEST, WORKER)).birth(13_000, TGID, 30, 21, (GO_WORKER, WORKER));
    scene.birth(13_100, TGID, 31, 30, (GO_WORKER, WORKER)).park(13_200, TGID, 31, 2).exit(13_300, TGID, 30);
    if how.test_ends {
        scene.exit(14_000, TGID, 21).exit(14_100, TGID, 20);
    }
    if how.process_ends {
        scene.stop(20_000, TGID, 0);
    }
    let (said, _) = judged(&scene);
    let mut leaks = said["leaks"].as_array().expect("leaks").iter();
    leaks.find(|leak| leak["created_by"]["function"] == "main.open").expect("the one that waits").clone()
}

/// Check that what outlives its test is suspected under the test's name, also where the name of a part was lost; and that one whose test
/// has not ended, or ended less than a second before the recording, is watched.
#[test]
fn outlived_a_test() {
    let whole = Tested { named: true, test_ends: true, process_ends: true };
    let leak = tested(whole);
    assert_eq!((&leak["strength"], &leak["because"], &leak["count"]), (&"suspected".into(), &"test".into(), &1.into()));
    let under = |name: &str, exact: bool| serde_json::json!([{"name": name, "exact": exact, "count": 1}]);
    assert_eq!(leak["born_under"], under("TestOrders/too_many", true));
    let leak = tested(Tested { named: false, ..whole });
    assert_eq!((&leak["strength"], &leak["born_under"]), (&"suspected".into(), &under("TestOrders/?", false)));
    for watched in [Tested { test_ends: false, ..whole }, Tested { process_ends: false, ..whole }] {
        let leak = tested(watched);
        assert_eq!((&leak["strength"], &leak["because"]), (&"watched".into(), &Value::Null), "{watched:?}");
        assert_eq!(leak["born_under"], under("TestOrders/too_many", true));
    }
}
