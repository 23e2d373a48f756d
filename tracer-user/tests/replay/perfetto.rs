//! Timelines as Perfetto traces: what is drawn of a process besides what its goroutines and threads did (`tests/tests/perfetto.rs` reads traces
//! with the published schema).

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use rustc_hash::FxHashSet;
use tracer_user::{
    clock::KtimeNs,
    correlate::replay::replay,
    event::What,
    id::{Goid, Tgid},
    recording::contract::{CgroupLoad, LoadAt, Throttling, Tier, Why},
    timeline::{Collector, Timeline, perfetto},
};

use crate::{
    checks::WORKER,
    open,
    scene::{Scene, ZERO},
};

const SHOP: u32 = 1000;
const BESIDE: u32 = 2000;
const MS: u64 = 1_000_000;
/// Tracks of goroutines, as docs/perfetto.md has it.
const MOST: usize = 1500;

/// Tracks by their names from the process down, and what is on each: `FROM..TO NAME (WHAT)` of a slice, `AT NAME (WHAT)` of an instant,
/// `AT = VALUE` of a counter; times in µs since the recording's zero.
type Drawn = BTreeMap<String, Vec<String>>;

/// The fields of Perfetto's schema that are looked at.
#[derive(Clone, PartialEq, Message)]
struct Trace {
    #[prost(message, repeated, tag = "1")]
    packets: Vec<Packet>,
}

#[derive(Clone, PartialEq, Message)]
struct Packet {
    #[prost(uint64, tag = "8")]
    timestamp: u64,
    #[prost(message, optional, tag = "11")]
    event: Option<TrackEvent>,
    #[prost(message, optional, tag = "12")]
    interned: Option<Interned>,
    #[prost(message, optional, tag = "60")]
    track: Option<Track>,
}

#[derive(Clone, PartialEq, Message)]
struct Track {
    #[prost(uint64, tag = "1")]
    uuid: u64,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, optional, tag = "3")]
    process: Option<Process>,
    #[prost(uint64, tag = "5")]
    parent: u64,
    #[prost(message, optional, tag = "8")]
    counter: Option<Counter>,
}

#[derive(Clone, PartialEq, Message)]
struct Process {
    #[prost(int32, tag = "1")]
    pid: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Counter {
    #[prost(int32, tag = "3")]
    unit: i32,
}

#[derive(Clone, PartialEq, Message)]
struct TrackEvent {
    #[prost(message, repeated, tag = "4")]
    annotations: Vec<Annotation>,
    #[prost(int32, tag = "9")]
    kind: i32,
    #[prost(uint64, tag = "10")]
    name: u64,
    #[prost(uint64, tag = "11")]
    track: u64,
    #[prost(int64, tag = "30")]
    value: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Annotation {
    #[prost(uint64, tag = "1")]
    name: u64,
    #[prost(string, tag = "6")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Interned {
    #[prost(message, repeated, tag = "2")]
    names: Vec<Text>,
    #[prost(message, repeated, tag = "3")]
    annotations: Vec<Text>,
}

#[derive(Clone, PartialEq, Message)]
struct Text {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(string, tag = "2")]
    text: String,
}

/// Texts by number, as the packets so far told them.
#[derive(Default)]
struct Texts {
    names: BTreeMap<u64, String>,
    annotations: BTreeMap<u64, String>,
}

impl Texts {
    fn learn(&mut self, interned: &Interned) {
        self.names.extend(interned.names.iter().map(|name| (name.number, name.text.clone())));
        self.annotations.extend(interned.annotations.iter().map(|name| (name.number, name.text.clone())));
    }

    /// What an event is called, and what is said of it.
    fn of(&self, event: &TrackEvent) -> String {
        let name = &self.names[&event.name];
        let what = event.annotations.iter().map(|one| format!("{}: {}", self.annotations[&one.name], one.value));
        let what: Vec<String> = what.collect();
        if what.is_empty() { name.clone() } else { format!("{name} ({})", what.join(", ")) }
    }
}

impl Track {
    fn title(&self) -> String {
        let unit = match self.counter.as_ref().map(|counter| counter.unit) {
            Some(2) => ", count",
            Some(3) => ", bytes",
            Some(_) => ", of another unit",
            None => "",
        };
        self.process.as_ref().map_or_else(|| format!("{}{unit}", self.name), |process| format!("pid:{}", process.pid))
    }
}

impl Trace {
    fn drawn(&self) -> Drawn {
        let (mut drawn, mut texts) = (Drawn::new(), Texts::default());
        let mut paths: BTreeMap<u64, String> = BTreeMap::new();
        let mut begun: BTreeMap<u64, (u64, String)> = BTreeMap::new();
        for packet in &self.packets {
            if let Some(track) = &packet.track {
                let above = paths.get(&track.parent);
                let path = above.map_or_else(|| track.title(), |above| format!("{above} > {}", track.title()));
                paths.insert(track.uuid, path);
            }
            packet.interned.iter().for_each(|interned| texts.learn(interned));
            let Some(event) = &packet.event else { continue };
            let at = (packet.timestamp - ZERO) / 1000;
            let line = match event.kind {
                1 => {
                    let open = begun.insert(event.track, (at, texts.of(event)));
                    assert_eq!(open, None, "on {} at {at}", paths[&event.track]);
                    continue;
                }
                2 => {
                    let (from, said) = begun.remove(&event.track).expect("a slice that began");
                    format!("{from}..{at} {said}")
                }
                3 => format!("{at} {}", texts.of(event)),
                4 => format!("{at} = {}", event.value),
                other => panic!("an event of kind {other}"),
            };
            drawn.entry(paths[&event.track].clone()).or_default().push(line);
        }
        assert!(begun.is_empty(), "{begun:?} have no end");
        drawn
    }
}

/// What is drawn of a scene, in which cgroups had something to bear, and some goroutines leak.
fn drawn_with(scene: &Scene, load: Vec<LoadAt>, leaking: &FxHashSet<(Tgid, Goid)>) -> Drawn {
    let mut collector = Collector::new(None);
    let mut replayed = replay(open(&scene.bytes()), &mut collector).expect("replays");
    replayed.load = load;
    let timeline = Timeline::new(&replayed, collector, None).expect("all of it");
    let mut bytes = Vec::new();
    perfetto::write(&timeline, leaking, &mut bytes).expect("writes");
    Trace::decode(bytes.as_slice()).expect("a trace").drawn()
}

fn drawn(scene: &Scene) -> Drawn {
    drawn_with(scene, Vec::new(), &FxHashSet::default())
}

/// What is on the tracks of that name, of whatever process.
fn on<'a>(drawn: &'a Drawn, track: &str) -> BTreeMap<&'a str, &'a [String]> {
    let of_process = |path: &'a String| path.split_once(" > ").filter(|(_, name)| *name == track);
    drawn.iter().filter_map(|(path, lines)| Some((of_process(path)?.0, lines.as_slice()))).collect()
}

/// That of the shop, which no other process has.
#[track_caller]
fn only<'a>(drawn: &'a Drawn, track: &str) -> &'a [String] {
    let found = on(drawn, track);
    assert!(found.keys().eq(["pid:1000"].iter()), "{track} of {:?} among {:?}", found.keys(), drawn.keys());
    found["pid:1000"]
}

/// A shop that exits at 10 ms, and a process beside it that lives on.
fn shop() -> Scene {
    let mut scene = Scene::default();
    scene.shop(SHOP).start(1_600, BESIDE, &["./beside"]);
    scene.events.sort_by_key(|event| event.at);
    scene
}

/// A look at the cgroups of both: for how long, and in how many periods, that of the shop was throttled so far.
fn load(at_ms: u64, throttled_ms: u64, throttled_periods: u64) -> LoadAt {
    let cgroup = |path: &str, tgid: u32, cpu: Throttling| CgroupLoad {
        cpu_path: Some(path.into()),
        tgids: vec![Tgid(tgid)],
        cpu: Some(cpu),
        ..CgroupLoad::default()
    };
    let of_shop = Throttling { throttled_periods, throttled_ns: throttled_ms * MS, ..Throttling::default() };
    let of_beside = Throttling { throttled_periods: 7, throttled_ns: 7 * MS, ..Throttling::default() };
    let cgroups = vec![cgroup("/pod", SHOP, of_shop), cgroup("/free", BESIDE, of_beside)];
    LoadAt { at: KtimeNs(ZERO + at_ms * MS), cgroups }
}

/// Check that a cgroup's throttling lasts from the look before it was told to the one that told of it, or to the process's end, on a track
/// of that cgroup, and that one which was not throttled meanwhile has none.
#[test]
fn throttled() {
    let looks = vec![load(2, 5, 1), load(4, 5, 1), load(6, 9, 3), load(8, 12, 5), load(12, 14, 8)];
    let drawn = drawn_with(&shop(), looks, &FxHashSet::default());
    let line = |span: &str, what: &str| format!("{span} throttled (what: {what} periods: cgroup /pod had used up its CPU quota)");
    let expected = [line("4000..6000", "4 ms in 2"), line("6000..8000", "3 ms in 2"), line("8000..10000", "2 ms in 3")];
    assert_eq!(only(&drawn, "throttled: /pod"), expected);
    assert!(on(&drawn, "throttled: /free").is_empty());
}

/// Check that the kernel's choice of whom to kill for memory stands on a track of its own of that process, when it was made: not of the one
/// that wanted more memory.
#[test]
fn out_of_memory() {
    let mut scene = shop();
    scene.event(9_950, 0, BESIDE, None, What::OomVictim { victim: Tgid(SHOP) });
    scene.events.sort_by_key(|event| event.at);
    let drawn = drawn(&scene);
    assert_eq!(only(&drawn, "out of memory"), ["9950 chosen (what: to be killed: memory ran out)"]);
    let life = on(&drawn, "process")["pid:1000"];
    assert!(life.iter().all(|line| !line.contains("chosen")), "{life:?}");
}

/// Check that memory and heap have a value for each look that told of them while the process lived.
#[test]
fn memory() {
    let mut scene = shop();
    scene.memory(5_000, SHOP, 30, None, Some(10)).memory(6_500, SHOP, 31, None, None).memory(8_000, SHOP, 29, None, Some(12));
    scene.memory(11_000, SHOP, 40, None, Some(20));
    let drawn = drawn(&scene);
    let values =
        |values: &[(u64, u64)]| -> Vec<String> { values.iter().map(|(at_us, mib)| format!("{at_us} = {}", mib << 20)).collect() };
    assert_eq!(only(&drawn, "memory resident, bytes"), values(&[(5_000, 30), (6_500, 31), (8_000, 29)]));
    assert_eq!(only(&drawn, "heap allocated, bytes"), values(&[(5_000, 10), (8_000, 12)]));
}

/// Check that cycles of the collector and pauses are slices of their own tracks, from when to when they lasted, with who caused them, and
/// with what was not seen of them.
#[test]
fn collector() {
    let mut scene = shop();
    scene.collector(SHOP);
    scene.events.sort_by_key(|event| event.at);
    let drawn = drawn(&scene);
    assert_eq!(only(&drawn, "garbage collection"), ["6000..9000 cycle (caused by: go:1)"]);
    let pauses = [
        "6010..6040 GC sweep termination (caused by: go:1)",
        "7000..9000 GC mark termination (caused by: go:2)",
        "9200..9205 reason 200 (caused by: go:1)",
        "9900..10000 unknown (caused by: go:1, end: not seen)",
    ];
    assert_eq!(only(&drawn, "stop the world"), pauses);
}

/// Check that each tier is a slice from its step to the next one, from the program's beginning to its end.
#[test]
fn tiers() {
    let mut scene = shop();
    scene.steps = vec![(3, Tier::T0, Why::Dear), (6, Tier::T1, Why::Trial), (8, Tier::T2, Why::Window)];
    let drawn = drawn(&scene);
    let from_to = |from: u64, to: u64| {
        [format!("{from}..3000 T2"), "3000..6000 T0".into(), "6000..8000 T1".into(), format!("8000..{to} T2")]
    };
    let found = on(&drawn, "tier");
    assert_eq!(found["pid:1000"], from_to(1_100, 10_000));
    assert_eq!(found["pid:2000"], from_to(1_700, 20_000));
    assert_eq!(found.len(), 2, "{:?}", found.keys());
}

/// Check that of more goroutines than can be drawn one by one those are that leak, that lived longest and that were blocked longest, and
/// that all are counted where they were made.
#[test]
fn too_many_goroutines() {
    let mut scene = Scene::default();
    scene.start(1_000, SHOP, &["./shop"]);
    // The older ones live longer.
    for n in 0..1_600 {
        scene.birth(2_000 + n, SHOP, 100 + n, 0, WORKER);
    }
    scene.park(5_000, SHOP, 1_698, 2);
    // The second id is one of another process.
    let leaking = [(Tgid(SHOP), Goid(1_699)), (Tgid(BESIDE), Goid(1_650))].into_iter().collect();
    let drawn = drawn_with(&scene, Vec::new(), &leaking);
    let single: BTreeSet<u64> = drawn.keys().filter_map(|path| path.rsplit_once(" > go:")?.1.parse().ok()).collect();
    let expected: BTreeSet<u64> = (100..1_598).chain([1_698, 1_699]).collect();
    assert_eq!(single.len(), MOST);
    assert_eq!(single, expected);
    let site = "goroutines > main.worker (1600)  by shop/main.go:12";
    let alive = only(&drawn, &format!("{site} > alive, count"));
    assert_eq!((alive.len(), &*alive[1_599], &*alive[1_600]), (1_601, "3599 = 1600", "20000 = 0"));
    assert_eq!(only(&drawn, &format!("{site} > blocked, count")), ["5000 = 1", "20000 = 0"]);
}
