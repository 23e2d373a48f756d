//! What the Go runtime does for itself: cycles, pauses, and where CPU time goes.

use tracer_user::export::flamegraph::By;

use crate::{graph, report_as_text, report_json, scene::Scene, timeline};

fn shop() -> Scene {
    let mut scene = Scene::default();
    scene.shop(1000).collector(1000).samples(1000);
    // In order of time, as the ring gives them.
    scene.events.sort_by_key(|event| event.at);
    scene
}

/// Check the track in JSON and for people: reasons by name or number, who asked, and what did not end.
#[test]
fn track() {
    let (text, jsonl) = timeline(&shop(), Some("gc:1000")).unwrap();
    insta::assert_snapshot!(jsonl, @r#"
    {"id":"gc","tgid":1000,"state":"running","start_ns":6000000,"end_ns":9000000,"reason":null,"caused_by":"go:1","tid":null}
    {"id":"stw","tgid":1000,"state":"stopped","start_ns":6010000,"end_ns":6040000,"reason":"GC sweep termination","caused_by":"go:1","tid":1000}
    {"id":"stw","tgid":1000,"state":"stopped","start_ns":7000000,"end_ns":9000000,"reason":"GC mark termination","caused_by":"go:2","tid":1000}
    {"id":"stw","tgid":1000,"state":"stopped","start_ns":9200000,"end_ns":9205000,"reason":"reason 200","caused_by":"go:1","tid":1000}
    {"id":"stw","tgid":1000,"state":"unknown","start_ns":9900000,"end_ns":10000000,"reason":"unknown","caused_by":"go:1","tid":1000}
    "#);
    insta::assert_snapshot!(text, @r"
    no event lost; coverage T2

    gc:1000  the Go runtime of ./shop --workers 2
      6.000 ms         3 ms  cycle    by go:1
      6.010 ms        30 µs  stopped  GC sweep termination, by go:1
      7.000 ms         2 ms  stopped  GC mark termination, by go:2
      9.200 ms         5 µs  stopped  reason 200, by go:1
      9.900 ms       100 µs  stopped  unknown, by go:1, its end was not seen
    ");
}

/// Check that the track stands beside the goroutines of its process, and not beside a single one.
#[test]
fn track_among_others() {
    let lines = |id: Option<&str>| {
        let (_, jsonl) = timeline(&shop(), id).unwrap();
        jsonl.lines().filter(|line| line.contains(r#""id":"stw""#) || line.contains(r#""id":"gc""#)).count()
    };
    assert_eq!((lines(None), lines(Some("pid:1000")), lines(Some("go:17"))), (5, 5, 0));
}

/// Check what the report says of the collector, of CPU time, and of who waited behind a pause.
#[test]
fn report() {
    let report = report_json(&shop());
    let part = |name: &str| serde_json::to_string_pretty(&report[name]).unwrap();
    insta::assert_snapshot!(part("gc"), @r#"
    [
      {
        "cycles": 1,
        "partial": 0,
        "pauses": {
          "by_reason": {
            "GC mark termination": {
              "count": 1,
              "max_ns": 2000000,
              "total_ns": 2000000
            },
            "GC sweep termination": {
              "count": 1,
              "max_ns": 30000,
              "total_ns": 30000
            },
            "reason 200": {
              "count": 1,
              "max_ns": 5000,
              "total_ns": 5000
            }
          },
          "count": 3,
          "max_ns": 2000000,
          "p50_ns": 30079,
          "p95_ns": 2000000,
          "p99_ns": 2000000,
          "total_ns": 2035000,
          "unended": 1
        },
        "tgid": 1000,
        "total_ns": 3000000
      }
    ]
    "#);
    insta::assert_snapshot!(part("cpu"), @r#"
    {
      "by_process": [
        {
          "cpu_ns": 50000000,
          "in_kernel": 3,
          "known_goid": 0.8,
          "samples": 5,
          "shares": {
            "gc": 0.0,
            "park": 0.0,
            "probes": 0.2,
            "ready": 0.0,
            "schedule": 0.2,
            "unknown": 0.2,
            "user": 0.4
          },
          "tgid": 1000
        }
      ],
      "cpu_ns": 50000000,
      "cpus": 2,
      "expected_ticks": 3,
      "hz": 100,
      "known_goid": 0.8,
      "samples": 5,
      "ticks": 0
    }
    "#);
    insta::assert_snapshot!(part("findings"), @r#"
    [
      {
        "cause": "GC mark termination, by go:2",
        "end_ns": 9000000,
        "evidence": {
          "goroutines": 1,
          "longest_ns": 1800000,
          "spans": [
            {
              "delayed_ns": 1800000,
              "end_ns": 9100000,
              "id": "go:18",
              "start_ns": 7200000,
              "state": "awake"
            }
          ]
        },
        "id": "stw",
        "kind": "delayed_by_pause",
        "start_ns": 7000000,
        "tgid": 1000
      }
    ]
    "#);
    let text = report_as_text(&shop());
    let begin = text.find("CPU time by samples").unwrap();
    insta::assert_snapshot!(&text[begin..text.find("goroutines by creation").unwrap()], @r"
    CPU time by samples
      5 samples at 100 Hz, 50 ms, 80.0 % of a known goroutine or none; 3 ticks did not come
      TGID    CPU   PARK  READY  SCHEDULE     GC  PROBES    USER  UNKNOWN
      1000  50 ms  0.0 %  0.0 %    20.0 %  0.0 %  20.0 %  40.0 %   20.0 %

    garbage collection and pauses
      pid 1000: 1 cycle in 3 ms; 3 pauses in 2.04 ms, 1 more without an end
        median 30.1 µs, p99 2 ms, max 2 ms
        GC mark termination 1x, 2 ms: max 2 ms
        GC sweep termination 1x, 30 µs: max 30 µs
        reason 200 1x, 5 µs: max 5 µs

    findings
      pid 1000: at 7.000 ms 1 goroutine waited up to 1.80 ms behind a pause of 2 ms (GC mark termination, by go:2): go:18

    over time
         TIME  ALIVE  A  B  GC   PAUSED
      0.002 s      1  0  1   0     0 ns
      0.004 s      3  2  1   0     0 ns
      0.006 s      2  1  1   0     0 ns
      0.008 s      2  1  1   0    30 µs
      0.010 s      2  1  1   1  2.00 ms
      0.012 s      2  1  1   0     0 ns
      A: main.open (shop/main.go:12) -> main.worker, at most 2, grew by 1
      B: runtime.rt0_go (runtime/asm_amd64.s:360) -> runtime.main, at most 1, grew by 1
    ");
}

/// Check the CPU flamegraph: by creation site, a frameless leaf with its caller, the kernel on top, and what is not known.
#[test]
fn oncpu() {
    insta::assert_snapshot!(graph(&shop(), By::OnCpu).folded().join("\n"), @r"
    [goroutine unknown];[no stack];[kernel] 10000000
    [no goroutine];runtime.schedule 10000000
    created by main.open;main.worker;? 0x555500001001;[kernel] 10000000
    created by main.open;main.worker;main.hash 10000000
    created by main.open;main.worker;main.hash;[kernel] 10000000
    ");
}
