//! Recordings that hold every change of state (T3).

use proptest::prelude::*;
use tracer_user::{
    correlate::{Life, Sink, Span, goroutine::Who, replay::replay},
    event::{Event, Transition},
    export::flamegraph::{self, By, Unanswerable},
    recording::contract::Tier,
};

use crate::{graph, open, pprof_bytes, report_as_text, report_json, scene::Scene, timeline};

fn shop() -> Scene {
    let mut scene = Scene::default();
    scene.scheduled_shop(1000);
    scene
}

/// Check what a goroutine did, each change of state a line.
#[test]
fn timeline_for_people() {
    insta::assert_snapshot!(timeline(&shop(), Some("go:17")).unwrap().0, @r"
    no event lost; coverage T3

    go:17@1000  main.worker
      created by main.open (shop/main.go:12), by go:1
      in ./shop --workers 1
      2.000 ms       150 µs  runnable
      2.150 ms        50 µs  running
      2.200 ms       200 µs  syscall   at main.worker (shop/main.go:33)
      2.400 ms       100 µs  runnable  at main.worker (shop/main.go:33)
      2.500 ms       100 µs  running
      2.600 ms       400 µs  blocked   chan receive at main.worker (shop/main.go:33), woken by go:1
      3.000 ms       100 µs  runnable  at main.worker (shop/main.go:33)
      3.100 ms       100 µs  running
      3.200 ms        50 µs  runnable  at main.worker (shop/main.go:33)
      3.250 ms       150 µs  running
      3.400 ms       101 µs  blocked   coroutine at main.worker (shop/main.go:33), woken by go:18
      3.501 ms        99 µs  running
      3.600 ms               dead      exit
    ");
    insta::assert_snapshot!(timeline(&shop(), Some("go:18")).unwrap().0, @r"
    no event lost; coverage T3

    go:18@1000  main.worker
      created by main.open (shop/main.go:12), by go:17
      in ./shop --workers 1
      3.300 ms       101 µs  blocked  coroutine, woken by go:17
      3.401 ms        99 µs  running
      3.500 ms               dead     exit
    ");
}

/// Check that what is runnable has the stack at which it goes on, and no thread.
#[test]
fn timeline_contract() {
    let (_, jsonl) = timeline(&shop(), Some("go:17")).unwrap();
    let lines: Vec<serde_json::Value> = jsonl.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let states: Vec<&str> = lines.iter().map(|line| line["state"].as_str().unwrap()).collect();
    assert!(states.iter().all(|state| ["runnable", "running", "syscall", "blocked", "dead"].contains(state)), "{states:?}");
    for line in lines.iter().filter(|line| line["state"] == "runnable") {
        assert!(line["tid"].is_null(), "{line}");
        assert_eq!(line["stack"].is_null(), line["start_ns"] == 2_000_000, "only the newborn has stopped nowhere: {line}");
    }
}

/// Check the delays and times of a site, and by depth; nothing had to be repaired.
#[test]
fn report() {
    let report = report_json(&shop());
    assert!(report["repairs"]["by_kind"].as_object().unwrap().is_empty(), "{}", report["repairs"]);
    let worker = report["sites"].as_array().unwrap().iter().find(|site| site["start_function"] == "main.worker").unwrap();
    insta::assert_snapshot!(serde_json::to_string(worker).unwrap(), @r#"{"alive":0,"blocked_ns":602000,"born":2,"created_by":{"file":"shop/main.go","function":"main.open","line":12},"exited":2,"gone":0,"oncpu_ns":null,"preexisting":0,"runnable":{"max_ns":150000,"p50_ns":100351,"p95_ns":150000,"p99_ns":150000},"runnable_ns":400000,"running_ns":598000,"scaled":null,"stack_bytes":null,"start_function":"main.worker","syscall_ns":200000,"tgid":1000,"unconfirmed":0,"waits":{"chan receive":{"blocked_ns":400000,"count":1,"max_ns":400000,"p50_ns":400000,"p95_ns":400000,"p99_ns":400000},"coroutine":{"blocked_ns":202000,"count":2,"max_ns":101000,"p50_ns":101000,"p95_ns":101000,"p99_ns":101000}}}"#);
    insta::assert_snapshot!(serde_json::to_string(&report["depths"]).unwrap(), @r#"[{"blocked":null,"blocked_ns":0,"born":1,"depth":0,"runnable":{"max_ns":310000,"p50_ns":10047,"p95_ns":310000,"p99_ns":310000},"runnable_ns":320000,"running_ns":8370000,"tgid":1000},{"blocked":{"max_ns":400000,"p50_ns":101375,"p95_ns":400000,"p99_ns":400000},"blocked_ns":501000,"born":1,"depth":1,"runnable":{"max_ns":150000,"p50_ns":100351,"p95_ns":150000,"p99_ns":150000},"runnable_ns":400000,"running_ns":499000,"tgid":1000},{"blocked":{"max_ns":101000,"p50_ns":101000,"p95_ns":101000,"p99_ns":101000},"blocked_ns":101000,"born":1,"depth":2,"runnable":null,"runnable_ns":0,"running_ns":99000,"tgid":1000}]"#);
    insta::assert_snapshot!(report_as_text(&shop()), @r"
    lifetrace report: ./shop --workers 2
    recorded   2023-11-14 22:13:20 UTC on box (kernel 6.18.0, 2 CPUs) by lifetrace 0.1.0, for 20 ms
    trust      no event lost; coverage T3
    price      10 probe hits, about 8 µs of 4 ms CPU time (0.20 %)
    goroutines 3 born, 2 exited, 1 alive at the end; 0 of the runtime besides

    processes
      TGID  PARENT  GO        TIER  BORN  ALIVE   STARTED  LIVED  ENDED   COMMAND
      1000     900  go1.26.6  T3       3      1  1.000 ms   9 ms  exit 0  ./shop --workers 1

    over time
         TIME  ALIVE  A  B  GC  PAUSED
      0.002 s      1  1  0   0    0 ns
      0.004 s      1  1  0   0    0 ns
      0.006 s      1  1  0   0    0 ns
      0.008 s      1  1  0   0    0 ns
      0.010 s      1  1  0   0    0 ns
      0.012 s      1  1  0   0    0 ns
      A: runtime.rt0_go (runtime/asm_amd64.s:360) -> runtime.main, at most 1, grew by 1
      B: main.open (shop/main.go:12) -> main.worker, at most 0, grew by 0

    goroutines by creation site
      BORN  EXITED  ALIVE  BLOCKED  RUNNABLE  RUNNING  CREATED BY -> START
         1       0      1     0 ns    320 µs  8.37 ms  runtime.rt0_go (runtime/asm_amd64.s:360) -> runtime.main
                                                         waiting for a CPU: median 10.0 µs, p99 310 µs, max 310 µs
         2       2      0   602 µs    400 µs   598 µs  main.open (shop/main.go:12) -> main.worker
                                                         waiting for a CPU: median 100 µs, p99 150 µs, max 150 µs
                                                         chan receive 1x, 400 µs: median 400 µs, p99 400 µs, max 400 µs
                                                         coroutine 2x, 202 µs: median 101 µs, p99 101 µs, max 101 µs

    goroutines by depth in the tree of creation
      DEPTH  BORN  RUNNING  RUNNABLE   MEDIAN     P99  BLOCKED  MEDIAN     P99
          0     1  8.37 ms    320 µs  10.0 µs  310 µs     0 ns       -       -
          1     1   499 µs    400 µs   100 µs  150 µs   501 µs  101 µs  400 µs
          2     1    99 µs      0 ns        -       -   101 µs  101 µs  101 µs
    ");
}

/// Check that the time in the queue is told by where a goroutine goes on, else by where it was made, in each form.
#[test]
fn runnable_flamegraph() {
    insta::assert_snapshot!(graph(&shop(), By::Runnable).folded().join("\n"), @r"
    main.main;main.open;go main.worker 150000
    main.worker;runtime.chanrecv1 560000
    runtime.rt0_go;go runtime.main 10000
    ");
    let mut svg = Vec::new();
    graph(&shop(), By::Runnable).write_svg(&mut svg).unwrap();
    assert!(String::from_utf8(svg).unwrap().contains("Time waiting for a CPU"));
    assert!(pprof_bytes(&shop(), By::Runnable).starts_with(&[0x1f, 0x8b]));
}

/// Check that a recording without scheduling is not asked for delays.
#[test]
fn delays_need_t3() {
    let mut tally = flamegraph::Tally::new(By::Runnable);
    let mut scene = Scene::default();
    let replayed = replay(open(&scene.shop(1000).bytes()), &mut tally).unwrap();
    assert!(matches!(flamegraph::graph(&replayed, &tally, true), Err(Unanswerable::NoDelays(Tier::T2))));
}

/// Check that a lost change of state is a repair and unknown time, not a guess.
#[test]
fn lost_transition() {
    let mut scene = Scene::default();
    scene.tier = Some(Tier::T3);
    scene.start(1_000, 1000, &["./shop"]).birth(2_000, 1000, 17, 1, (0x3010, 0x4000));
    scene.step(2_100, 0, 1000, 17, Transition::Run).lose().step(2_200, 0, 1000, 17, Transition::Yield);
    let report = report_json(&scene);
    assert_eq!(report["lost"]["by_kind"]["goroutine_transition"], 1);
    assert_eq!(report["repairs"]["by_kind"]["lost_transition"], 1);
    let (text, _) = timeline(&scene, Some("go:17")).unwrap();
    assert!(text.contains("unknown") && !text.contains("running"), "{text}");
}

/// Fails on spans of a life that do not follow each other from its beginning to its end.
#[derive(Default)]
struct Tiled {
    ends: std::collections::HashMap<(u32, u64), u64>,
}

impl Sink for Tiled {
    fn span(&mut self, who: &Who, span: &Span) {
        let end = self.ends.entry((who.image.0, who.goid.0)).or_insert(who.since.0);
        assert_eq!(*end, span.start.0, "{who:?} {span:?}");
        assert!(span.start <= span.end, "{span:?}");
        *end = span.end.0;
    }
    fn life(&mut self, who: &Who, life: &Life) {
        let end = self.ends.remove(&(who.image.0, who.goid.0)).unwrap_or(who.since.0);
        assert_eq!(end, life.ended_at.0, "{who:?} {life:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Check that any order of arrival within the window gives the same timeline and the same report.
    #[test]
    fn order_of_arrival(events in Just(shop().events).prop_shuffle()) {
        let mut shuffled = shop();
        shuffled.events = events;
        prop_assert_eq!(timeline(&shop(), None), timeline(&shuffled, None));
        prop_assert_eq!(report_json(&shop()), report_json(&shuffled));
    }

    /// Check that whatever is dropped, the spans of a life follow each other without a hole, and all that is missing is counted.
    #[test]
    fn dropped(keep in proptest::collection::vec(any::<bool>(), 40)) {
        let mut scene = shop();
        let all = scene.events.len();
        let kept: Vec<Event> = scene.events.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(event, _)| event.clone()).collect();
        scene.events = kept;
        replay(open(&scene.bytes()), &mut Tiled::default()).unwrap();
        prop_assert!(timeline(&scene, None).is_ok());
        let gaps = report_json(&scene)["lost"]["events"].as_u64().unwrap();
        prop_assert!(gaps <= (all - scene.events.len()) as u64);
    }
}
