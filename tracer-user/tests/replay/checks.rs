//! Looks at a process held against its events: what they confirm, supply and repair.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::Value;
use tracer_user::{
    clock::KtimeNs,
    correlate::replay::{View, replay_as},
    event::{Event, Program, What},
    export::{labels::LabelTally, report, tally::Tally},
    id::{Address, BinaryId, Goid, Tgid},
    recording::contract::{DumpSource, DumpedGoroutine, GoroutineDump, Likeness, Tier},
    timeline::{Collector, Timeline, write::Writer},
};

use crate::{
    open,
    properties::Possible,
    report_json,
    scene::{BIAS, Scene, ZERO},
};

const SHOP: u32 = 1000;
/// Creation site and start function of the shop's workers, of main, and of the runtime's sweeper.
pub const WORKER: (u64, u64) = (0x3010, 0x4000);
const MAIN: (u64, u64) = (0x3020, 0x4100);
const SWEEPER: (u64, u64) = (0x3030, 0x4200);

/// A goroutine as a look finds it: id, site, what it waits for, and the endpoint it serves.
pub type Found<'a> = (u64, (u64, u64), Option<&'a str>, Option<&'a str>);

/// A look at the shop's goroutines that begins at a time and takes a millisecond.
pub fn look(at_us: u64, found: &[Found<'_>]) -> GoroutineDump {
    let from = KtimeNs(ZERO + at_us * 1000);
    let mut dump = GoroutineDump {
        tgid: Tgid(SHOP),
        start_ticks: u64::from(SHOP),
        binary: BinaryId(1),
        load_bias: BIAS,
        source: DumpSource::Memory,
        check: true,
        from,
        to: KtimeNs(from.0 + 1_000_000),
        tier: Tier::T2,
        kinds: Vec::new(),
        goroutines: Vec::new(),
        objects: Vec::new(),
        stacks: Vec::new(),
        labels: vec![vec![]],
        torn: 0,
        last: true,
        problem: None,
        gone: false,
    };
    for (goid, site, reason, endpoint) in found {
        let labels = endpoint.map_or(0, |endpoint| {
            dump.labels.push(vec![("endpoint".into(), endpoint.into()), ("trace_id".into(), format!("t{goid}"))]);
            dump.labels.len() as u32 - 1
        });
        dump.goroutines.push(DumpedGoroutine(Goid(*goid), None, dump.kinds.len() as u32));
        dump.kinds.push(Likeness {
            gopc: Address(BIAS.wrapping_add(site.0)),
            startpc: Address(BIAS.wrapping_add(site.1)),
            state: Some(if reason.is_some() { "waiting" } else { "running" }.into()),
            wait_reason: reason.map(str::to_owned),
            stack: None,
            stack_bytes: Some(2048),
            labels: Some(labels),
        });
    }
    dump
}

/// The shop without some of its events: those whose description holds one of the words.
fn shop_without(words: &[&str]) -> Scene {
    let mut scene = Scene::default();
    scene.shop(SHOP);
    scene.events.retain(|event| !words.iter().any(|word| format!("{:?}", event.what).contains(word)));
    scene
}

/// What lives in the shop at the end, worker 17 being gone.
pub const LEFT: [Found<'_>; 3] =
    [(1, MAIN, None, None), (2, SWEEPER, Some("GC sweep wait"), None), (18, WORKER, Some("chan receive"), Some("/pay"))];

fn json(scene: &Scene, view: View) -> Value {
    let mut tally = Tally { labels: LabelTally::by("endpoint"), ..Tally::default() };
    let replayed = replay_as(open(&scene.bytes()), view, &mut tally).unwrap();
    serde_json::to_value(report::report(&replayed, &tally)).unwrap()
}

fn timeline(scene: &Scene, shape: impl FnOnce(&mut Timeline<'_>)) -> String {
    let mut collector = Collector::new(None);
    let replayed = replay_as(open(&scene.bytes()), View::Repaired, &mut collector).unwrap();
    let mut timeline = Timeline::new(&replayed, collector, None).unwrap();
    shape(&mut timeline);
    let mut out = Vec::new();
    Writer::new(&timeline).jsonl(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Check that looks that find what events told repair nothing.
#[test]
fn nothing_to_repair() {
    let mut scene = shop_without(&[]);
    scene.dumps = vec![look(6_000, &LEFT), look(8_000, &LEFT)];
    let report = json(&scene, View::Repaired);
    assert_eq!(report["repairs"]["by_kind"], serde_json::json!({}));
    assert_eq!((&report["snapshots"]["taken"], &report["snapshots"]["reading_ns"]), (&2.into(), &2_000_000.into()));
}

/// Check that one whose exit is lost is gone once two looks did not find it, that one look is not enough, and that both views are there.
#[test]
fn lost_exit() {
    let mut scene = shop_without(&["GoroutineExit"]);
    scene.dumps = vec![look(6_000, &LEFT)];
    assert_eq!(json(&scene, View::Repaired)["goroutines"]["alive"], 3);
    scene.dumps.push(look(8_000, &LEFT));
    let (events, repaired) = (json(&scene, View::EventsOnly), json(&scene, View::Repaired));
    assert_eq!((&events["goroutines"]["alive"], &events["goroutines"]["unconfirmed"]), (&3.into(), &3.into()));
    assert_eq!(events["snapshots"]["left_out"], true);
    assert_eq!((&repaired["goroutines"]["alive"], &repaired["goroutines"]["gone"]), (&2.into(), &1.into()));
    assert_eq!(repaired["goroutines"]["unconfirmed"], 2, "whoever was last seen before the newest record that may be lost");
    assert_eq!(repaired["repairs"]["by_kind"], serde_json::json!({"gone_by_snapshot": 1}));
    let lines = timeline(&scene, |_| ());
    let dead = lines.lines().find(|line| line.contains("\"go:17\"") && line.contains("\"dead\"")).unwrap();
    assert!(dead.contains("\"gone by then\"") && dead.contains("\"repaired\":\"gone_by_snapshot\""), "{dead}");
    assert!(dead.contains("\"start_ns\":8000000"), "{dead}");
}

/// Check that an event between two looks that miss a goroutine keeps it alive.
#[test]
fn not_gone() {
    let mut scene = shop_without(&["GoroutineExit"]);
    scene.wake(7_000, SHOP, 17, 1);
    scene.dumps = vec![look(6_000, &LEFT), look(8_000, &LEFT)];
    assert_eq!(json(&scene, View::Repaired)["goroutines"]["gone"], 0);
}

/// Check that one whose birth, and all else, is lost was born by the time a look found it, with its creation site.
#[test]
fn lost_birth() {
    let mut scene = shop_without(&["Goid(18)"]);
    scene.dumps = vec![look(6_000, &LEFT)];
    let report = json(&scene, View::Repaired);
    assert_eq!(report["repairs"]["by_kind"], serde_json::json!({"born_by_snapshot": 1}));
    assert_eq!((&report["goroutines"]["born"], &report["goroutines"]["preexisting"]), (&3.into(), &0.into()));
    let site = &report["sites"][0];
    assert_eq!((&site["created_by"]["function"], &site["alive"]), (&"main.open".into(), &1.into()));
    let lines = timeline(&scene, |_| ());
    let first = lines.lines().find(|line| line.contains("\"go:18\"")).unwrap();
    assert!(first.contains("\"unknown\"") && first.contains("\"repaired\":\"born_by_snapshot\""), "{first}");
}

/// Check that a state is replaced once two looks contradict it, and not by one.
#[test]
fn lost_wake() {
    let runs: Vec<Found<'_>> = LEFT.iter().map(|found| if found.0 == 18 { (18, WORKER, None, None) } else { *found }).collect();
    let mut scene = shop_without(&[]);
    scene.dumps = vec![look(6_000, &runs)];
    assert_eq!(json(&scene, View::Repaired)["repairs"]["by_kind"], serde_json::json!({}));
    scene.dumps.push(look(8_000, &runs));
    assert_eq!(json(&scene, View::Repaired)["repairs"]["by_kind"], serde_json::json!({"state_by_snapshot": 1}));
    let lines = timeline(&scene, |_| ());
    let of_18: Vec<&str> = lines.lines().filter(|line| line.contains("\"go:18\"")).collect();
    let state = |line: &&str| serde_json::from_str::<Value>(line).unwrap()["state"].as_str().unwrap().to_owned();
    assert_eq!(of_18.iter().map(state).collect::<Vec<_>>(), ["awake", "unknown", "awake", "dead"], "{of_18:#?}");
    assert!(of_18[2].contains("\"start_ns\":6000000") && of_18[2].contains("state_by_snapshot"), "{}", of_18[2]);
}

/// Check that a process of which every record was lost is known by the looks at it, named, and ends when it is found gone.
#[test]
fn lost_process() {
    let mut scene = shop_without(&["G", "P", "S"]);
    assert!(scene.events.is_empty());
    let gone = GoroutineDump { gone: true, problem: Some("it ended".into()), ..look(9_000, &[]) };
    scene.dumps = vec![look(6_000, &LEFT), look(8_000, &LEFT), gone];
    let report = json(&scene, View::Repaired);
    assert_eq!((&report["goroutines"]["alive"], &report["goroutines"]["born"]), (&2.into(), &2.into()));
    assert_eq!(report["processes"][0]["exited_at_ns"], 9_000_000);
    assert_eq!(
        report["repairs"]["by_kind"],
        serde_json::json!({"born_by_snapshot": 3, "lost_process_exit": 1, "process_by_snapshot": 1})
    );
}

/// Check that a look that fails because the process has just ended, or that is taken once the probes go, changes nothing.
#[test]
fn looks_that_come_too_late() {
    let gone = |from_us| GoroutineDump { gone: true, problem: Some("it ended".into()), ..look(from_us, &[]) };
    let failed = |from_us| GoroutineDump { problem: Some("it ended".into()), ..look(from_us, &[]) };
    let whole = json(&shop_without(&[]), View::Repaired);
    for dump in [gone(10_500), failed(10_500), failed(12_000)] {
        let mut scene = shop_without(&[]);
        scene.dumps = vec![dump];
        let report = json(&scene, View::Repaired);
        assert_eq!(report["processes"], whole["processes"]);
        assert_eq!(report["repairs"]["by_kind"], serde_json::json!({}));
    }
}

/// Check that what belongs to a thread of C, which has no birth, is no repair however it comes and goes.
#[test]
fn of_a_thread_of_c() {
    let with: Vec<Found<'_>> =
        LEFT.iter().copied().chain([(40, (0u64.wrapping_sub(BIAS), 0u64.wrapping_sub(BIAS)), None, None)]).collect();
    let mut scene = shop_without(&[]);
    scene.dumps = vec![look(6_000, &with), look(7_000, &LEFT), look(8_000, &LEFT), look(9_000, &with)];
    let report = json(&scene, View::Repaired);
    assert_eq!(report["repairs"]["by_kind"], serde_json::json!({}));
    assert!(!timeline(&scene, |_| ()).contains("repaired"));
}

/// Check that labels are on the lines from when they were seen on, that goroutines can be picked and grouped by them.
#[test]
fn labels() {
    let mut scene = shop_without(&[]);
    let refund: Vec<Found<'_>> =
        LEFT.iter().map(|found| if found.0 == 18 { (18, WORKER, found.2, Some("/refund")) } else { *found }).collect();
    scene.dumps = vec![look(6_000, &LEFT), look(8_000, &refund)];
    let lines = timeline(&scene, |timeline| timeline.keep_labelled(&[("endpoint".into(), "/pay".into())]));
    assert!(lines.lines().count() > 0 && lines.lines().all(|line| line.contains("\"go:18\"")), "{lines}");
    let last = lines.lines().last().unwrap();
    assert!(
        last.contains(r#""labels":{"endpoint":"/refund","trace_id":"t18"}"#) && last.contains(r#""trace_id":"t18""#),
        "{last}"
    );
    assert!(!lines.lines().next().unwrap().contains("labels"), "{lines}");
    let grouped = timeline(&scene, |timeline| timeline.group_by("endpoint"));
    let first = grouped.lines().find(|line| line.contains("\"go:")).unwrap();
    assert!(first.contains("\"go:18\""), "{grouped}");
    let groups = json(&scene, View::Repaired)["labels"]["groups"].clone();
    assert_eq!((&groups[0]["value"], &groups[0]["goroutines"]), (&"/refund".into(), &1.into()));
    assert_eq!(groups[1]["value"], Value::Null);
}

/// A program of a few goroutines: each is born, parks and is woken some times, and may exit.
fn program(lives: &[(u8, bool)]) -> (Scene, BTreeSet<u64>) {
    let mut scene = Scene::default();
    scene.start(1_000, SHOP, &["./shop"]).birth(1_300, SHOP, 1, 0, MAIN);
    let mut left = BTreeSet::from([1]);
    for (index, (parks, exits)) in (0u64..).zip(lives) {
        let (goid, born) = (100 + index, 2_000 + index * 10);
        scene.birth(born, SHOP, goid, 1, if index % 2 == 0 { WORKER } else { MAIN });
        for park in 0..u64::from(*parks) {
            scene.park(born + 1_000 + park * 100, SHOP, goid, 2).wake(born + 1_050 + park * 100, SHOP, goid, 1);
        }
        if *exits {
            scene.exit(born + 3_000, SHOP, goid);
        } else {
            scene.park(born + 3_000, SHOP, goid, 2);
            left.insert(goid);
        }
    }
    // Something of each CPU arrives behind all that may be dropped: so every gap shows.
    for cpu in [0, 1] {
        let met = What::ProcessMet(Box::new(Program { start_boottime_ns: 10_000_000_000, ..Program::default() }));
        scene.event(9_500, cpu, SHOP, None, met);
    }
    (scene, left)
}

fn site_of(goid: u64) -> (u64, u64) {
    if goid != 1 && goid.is_multiple_of(2) { WORKER } else { MAIN }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Check that whatever was lost, the count alive by creation site is exactly right once the program has stood still for two looks; and that
    /// events alone never call one surely alive that is not.
    #[test]
    fn alive_is_right(
        lives in proptest::collection::vec((0u8..3, any::<bool>()), 1..20),
        drop in proptest::collection::vec(0u8..100, 200),
        share in prop::sample::select(vec![0u8, 1, 10, 50, 100]),
    ) {
        let (mut scene, left) = program(&lives);
        let kept_from = scene.events.len() - 2;
        let kept: Vec<Event> = scene.events.iter().enumerate().zip(drop.iter().cycle())
            .filter(|((index, _), drop)| *index >= kept_from || **drop >= share).map(|((_, event), _)| event.clone()).collect();
        scene.events = kept;
        let found: Vec<Found<'_>> =
            left.iter().map(|goid| (*goid, site_of(*goid), (*goid != 1).then_some("chan receive"), None)).collect();
        scene.dumps = vec![look(10_000, &found), look(12_000, &found)];
        replay_as(open(&scene.bytes()), View::Repaired, &mut Possible).unwrap();
        let repaired = report_json(&scene);
        let mut truth: BTreeMap<String, u64> = BTreeMap::new();
        for goid in &left {
            *truth.entry(if site_of(*goid) == WORKER { "main.worker" } else { "runtime.main" }.to_owned()).or_default() += 1;
        }
        let alive = |report: &Value, what: &str| -> BTreeMap<String, u64> {
            let all = report["sites"].as_array().unwrap().iter().chain(report["system_sites"].as_array().unwrap());
            all.map(|site| (site["start_function"].as_str().unwrap_or("?").to_owned(), site["alive"].as_u64().unwrap() - site[what].as_u64().unwrap_or(0)))
                .filter(|(_, alive)| *alive > 0).collect()
        };
        prop_assert_eq!(alive(&repaired, "none"), truth, "{}", serde_json::to_string_pretty(&repaired).unwrap());
        prop_assert_eq!(&repaired["goroutines"]["unconfirmed"], &Value::from(0));
        let events = json(&scene, View::EventsOnly);
        let sure: u64 = alive(&events, "unconfirmed").values().sum();
        prop_assert!(sure <= left.len() as u64, "{} surely alive, of {}", sure, left.len());
    }
}
