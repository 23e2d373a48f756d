//! Snapshots of every output, and what must hold of them.

use std::process::{Command, Stdio};

use tracer_user::{
    correlate::replay::replay,
    export::{
        flame_diff::Difference,
        flamegraph::{self, By, Tally},
        profile_flame::parser::parse,
    },
    recording::contract::Tier,
    timeline::IdError,
};

use crate::{graph, open, pprof_bytes, report_as_text, report_json, scene::Scene, timeline};

fn shop() -> Scene {
    let mut scene = Scene::default();
    scene.shop(1000);
    scene
}

/// Check the whole report in JSON: the contract.
#[test]
fn report_contract() {
    insta::assert_snapshot!(serde_json::to_string_pretty(&report_json(&shop())).unwrap(), @r#"
    {
      "cgroups": [],
      "coverage": [
        {
          "from_ns": 1100000,
          "tgid": 1000,
          "tier": "T2",
          "to_ns": 10000000
        }
      ],
      "cpu": null,
      "depths": [
        {
          "blocked": {
            "max_ns": 2000000,
            "p50_ns": 2000000,
            "p95_ns": 2000000,
            "p99_ns": 2000000
          },
          "blocked_ns": 2000000,
          "born": 1,
          "depth": 0,
          "runnable": null,
          "runnable_ns": null,
          "running_ns": null,
          "tgid": 1000
        },
        {
          "blocked": {
            "max_ns": 7600000,
            "p50_ns": 3014655,
            "p95_ns": 7600000,
            "p99_ns": 7600000
          },
          "blocked_ns": 10600000,
          "born": 2,
          "depth": 1,
          "runnable": null,
          "runnable_ns": null,
          "running_ns": null,
          "tgid": 1000
        }
      ],
      "duration_ns": 20000000,
      "findings": [],
      "gc": [
        {
          "cycles": 0,
          "partial": 0,
          "pauses": {
            "by_reason": {},
            "count": 0,
            "total_ns": 0,
            "unended": 0
          },
          "tgid": 1000,
          "total_ns": 0
        }
      ],
      "goroutines": {
        "alive": 2,
        "born": 3,
        "exited": 1,
        "gone": 0,
        "preexisting": 0,
        "system": 1,
        "unconfirmed": 0
      },
      "labels": null,
      "lost": {
        "by_kind": {},
        "events": 0,
        "late": 0,
        "left_out": {},
        "undated": 0
      },
      "meta": {
        "clock_drift_ns": null,
        "clock_error_ns": 40,
        "command": [
          "./shop",
          "--workers",
          "2"
        ],
        "completeness": "complete",
        "cpus": 2,
        "detach_ns": null,
        "end_reason": "exited",
        "hit_cost_ns": 800,
        "hostname": "box",
        "kernel": "6.18.0",
        "lifetrace": "0.1.0",
        "target": null,
        "tier": "T2",
        "truncated_at": null,
        "warnings": [],
        "zero_unix_ns": 1700000000000000000
      },
      "price": {
        "asked": [],
        "budget": null,
        "cost_ns": 8000,
        "duplicate_hits": 0,
        "probe_hits": 10,
        "programs": [],
        "share": 0.002,
        "target_cpu_ns": 4000000
      },
      "processes": [
        {
          "adopted_at_ns": null,
          "adopted_by": null,
          "argv": [
            "./shop",
            "--workers",
            "2"
          ],
          "autoreaped": false,
          "cgroup": null,
          "container_id": null,
          "core_dumped": false,
          "exe": "/srv/shop",
          "exit_code": 3,
          "exited_at_ns": 10000000,
          "go_version": "go1.26.6",
          "goroutines": {
            "alive": 2,
            "born": 3,
            "exited": 1,
            "gone": 0,
            "preexisting": 0,
            "system": 1,
            "unconfirmed": 0
          },
          "offsets": null,
          "oom_killed": false,
          "parent": 900,
          "pod_uid": null,
          "programs": [
            {
              "argv": [
                "./shop",
                "--workers",
                "2"
              ],
              "at_ns": 1100000,
              "by_tid": null,
              "exe": null
            }
          ],
          "reaped_at_ns": null,
          "reaped_by": null,
          "reaper_seen": null,
          "runtime": null,
          "scaled": null,
          "signal": null,
          "signals": {
            "received": 0,
            "sent": 0,
            "taken": 0
          },
          "started_at_ns": 1000000,
          "stopped_ns": 0,
          "tgid": 1000,
          "threads": {
            "alive": 1,
            "born": 1,
            "exited": 0,
            "gone": 0,
            "preexisting": 0
          },
          "throttled_ns": null,
          "tier": "T2",
          "unprobed": null,
          "zombie_ns": null
        }
      ],
      "repairs": {
        "by_kind": {}
      },
      "schema": "lifetrace.report/1",
      "series": {
        "left_out": 0,
        "processes": [
          {
            "beside": null,
            "sites": [
              {
                "created_by": {
                  "file": "shop/main.go",
                  "function": "main.open",
                  "line": 12
                },
                "goroutines": 1,
                "growth": 1,
                "peak": 2,
                "stack_bytes": null,
                "start_function": "main.worker"
              },
              {
                "created_by": {
                  "file": "runtime/asm_amd64.s",
                  "function": "runtime.rt0_go",
                  "line": 360
                },
                "goroutines": 1,
                "growth": 1,
                "peak": 1,
                "stack_bytes": null,
                "start_function": "runtime.main"
              }
            ],
            "tgid": 1000
          }
        ],
        "rows": [
          {
            "at_ns": 1953125,
            "processes": [
              {
                "cgroup": null,
                "descriptors": null,
                "gc": {
                  "cycles": 0,
                  "pause_ns": 0,
                  "pauses": 0
                },
                "goroutines": 1,
                "heap": null,
                "process": 0,
                "rss_bytes": null,
                "site_stack_bytes": null,
                "sites": [
                  0,
                  1
                ],
                "stack_bytes": null,
                "tgid": 1000
              }
            ]
          },
          {
            "at_ns": 3906250,
            "processes": [
              {
                "cgroup": null,
                "descriptors": null,
                "gc": {
                  "cycles": 0,
                  "pause_ns": 0,
                  "pauses": 0
                },
                "goroutines": 3,
                "heap": null,
                "process": 0,
                "rss_bytes": null,
                "site_stack_bytes": null,
                "sites": [
                  2,
                  1
                ],
                "stack_bytes": null,
                "tgid": 1000
              }
            ]
          },
          {
            "at_ns": 5859375,
            "processes": [
              {
                "cgroup": null,
                "descriptors": null,
                "gc": {
                  "cycles": 0,
                  "pause_ns": 0,
                  "pauses": 0
                },
                "goroutines": 2,
                "heap": null,
                "process": 0,
                "rss_bytes": null,
                "site_stack_bytes": null,
                "sites": [
                  1,
                  1
                ],
                "stack_bytes": null,
                "tgid": 1000
              }
            ]
          },
          {
            "at_ns": 7812500,
            "processes": [
              {
                "cgroup": null,
                "descriptors": null,
                "gc": {
                  "cycles": 0,
                  "pause_ns": 0,
                  "pauses": 0
                },
                "goroutines": 2,
                "heap": null,
                "process": 0,
                "rss_bytes": null,
                "site_stack_bytes": null,
                "sites": [
                  1,
                  1
                ],
                "stack_bytes": null,
                "tgid": 1000
              }
            ]
          },
          {
            "at_ns": 9765625,
            "processes": [
              {
                "cgroup": null,
                "descriptors": null,
                "gc": {
                  "cycles": 0,
                  "pause_ns": 0,
                  "pauses": 0
                },
                "goroutines": 2,
                "heap": null,
                "process": 0,
                "rss_bytes": null,
                "site_stack_bytes": null,
                "sites": [
                  1,
                  1
                ],
                "stack_bytes": null,
                "tgid": 1000
              }
            ]
          },
          {
            "at_ns": 11718750,
            "processes": [
              {
                "cgroup": null,
                "descriptors": null,
                "gc": {
                  "cycles": 0,
                  "pause_ns": 0,
                  "pauses": 0
                },
                "goroutines": 2,
                "heap": null,
                "process": 0,
                "rss_bytes": null,
                "site_stack_bytes": null,
                "sites": [
                  1,
                  1
                ],
                "stack_bytes": null,
                "tgid": 1000
              }
            ]
          },
          {
            "at_ns": 13671875,
            "processes": []
          },
          {
            "at_ns": 15625000,
            "processes": []
          },
          {
            "at_ns": 17578125,
            "processes": []
          },
          {
            "at_ns": 19531250,
            "processes": []
          },
          {
            "at_ns": 20000000,
            "processes": []
          }
        ],
        "step_ns": 1953125
      },
      "signals": {
        "left_out": 0,
        "preemption": 0
      },
      "sites": [
        {
          "alive": 1,
          "blocked_ns": 10600000,
          "born": 2,
          "created_by": {
            "file": "shop/main.go",
            "function": "main.open",
            "line": 12
          },
          "exited": 1,
          "gone": 0,
          "oncpu_ns": null,
          "preexisting": 0,
          "runnable": null,
          "runnable_ns": null,
          "running_ns": null,
          "scaled": null,
          "stack_bytes": null,
          "start_function": "main.worker",
          "syscall_ns": null,
          "tgid": 1000,
          "unconfirmed": 0,
          "waits": {
            "chan receive": {
              "blocked_ns": 10600000,
              "count": 2,
              "max_ns": 7600000,
              "p50_ns": 3014655,
              "p95_ns": 7600000,
              "p99_ns": 7600000
            }
          }
        },
        {
          "alive": 1,
          "blocked_ns": 2000000,
          "born": 1,
          "created_by": {
            "file": "runtime/asm_amd64.s",
            "function": "runtime.rt0_go",
            "line": 360
          },
          "exited": 0,
          "gone": 0,
          "oncpu_ns": null,
          "preexisting": 0,
          "runnable": null,
          "runnable_ns": null,
          "running_ns": null,
          "scaled": null,
          "stack_bytes": null,
          "start_function": "runtime.main",
          "syscall_ns": null,
          "tgid": 1000,
          "unconfirmed": 0,
          "waits": {
            "sleep": {
              "blocked_ns": 2000000,
              "count": 1,
              "max_ns": 2000000,
              "p50_ns": 2000000,
              "p95_ns": 2000000,
              "p99_ns": 2000000
            }
          }
        }
      ],
      "snapshots": {
        "by_pprof": 0,
        "failed": 0,
        "left_out": false,
        "newest_ns": null,
        "reading_ns": 0,
        "taken": 0
      },
      "steps": [],
      "summed": null,
      "system_sites": [
        {
          "alive": 1,
          "blocked_ns": 8500000,
          "born": 1,
          "created_by": {
            "file": "runtime/mgc.go",
            "function": "runtime.gcenable",
            "line": 214
          },
          "exited": 0,
          "gone": 0,
          "oncpu_ns": null,
          "preexisting": 0,
          "runnable": null,
          "runnable_ns": null,
          "running_ns": null,
          "scaled": null,
          "stack_bytes": null,
          "start_function": "runtime.bgsweep",
          "syscall_ns": null,
          "tgid": 1000,
          "unconfirmed": 0,
          "waits": {
            "GC sweep wait": {
              "blocked_ns": 8500000,
              "count": 1,
              "max_ns": 8500000,
              "p50_ns": 8500000,
              "p95_ns": 8500000,
              "p99_ns": 8500000
            }
          }
        }
      ],
      "units": []
    }
    "#);
}

/// Check the report that people read.
#[test]
fn report_for_people() {
    insta::assert_snapshot!(report_as_text(&shop()), @r"
    lifetrace report: ./shop --workers 2
    recorded   2023-11-14 22:13:20 UTC on box (kernel 6.18.0, 2 CPUs) by lifetrace 0.1.0, for 20 ms
    trust      no event lost; coverage T2
    price      10 probe hits, about 8 µs of 4 ms CPU time (0.20 %)
    goroutines 3 born, 1 exited, 2 alive at the end; 1 of the runtime besides

    processes
      TGID  PARENT  GO        TIER  BORN  ALIVE   STARTED  LIVED  ENDED   COMMAND
      1000     900  go1.26.6  T2       3      2  1.000 ms   9 ms  exit 3  ./shop --workers 2

    over time
         TIME  ALIVE  A  B  GC  PAUSED
      0.002 s      1  0  1   0    0 ns
      0.004 s      3  2  1   0    0 ns
      0.006 s      2  1  1   0    0 ns
      0.008 s      2  1  1   0    0 ns
      0.010 s      2  1  1   0    0 ns
      0.012 s      2  1  1   0    0 ns
      A: main.open (shop/main.go:12) -> main.worker, at most 2, grew by 1
      B: runtime.rt0_go (runtime/asm_amd64.s:360) -> runtime.main, at most 1, grew by 1

    goroutines by creation site
      BORN  EXITED  ALIVE  BLOCKED  CREATED BY -> START
         2       1      1  10.6 ms  main.open (shop/main.go:12) -> main.worker
                                      chan receive 2x, 10.6 ms: median 3.01 ms, p99 7.60 ms, max 7.60 ms
         1       0      1     2 ms  runtime.rt0_go (runtime/asm_amd64.s:360) -> runtime.main
                                      sleep 1x, 2 ms: median 2 ms, p99 2 ms, max 2 ms

    goroutines of the Go runtime
      BORN  EXITED  ALIVE  BLOCKED  CREATED BY -> START
         1       0      1  8.50 ms  runtime.gcenable (runtime/mgc.go:214) -> runtime.bgsweep
                                      GC sweep wait 1x, 8.50 ms: median 8.50 ms, p99 8.50 ms, max 8.50 ms
    ");
}

/// Check that the timeline says of each goroutine what it did, in text.
#[test]
fn timeline_for_people() {
    insta::assert_snapshot!(timeline(&shop(), None).unwrap().0, @r"
    no event lost; coverage T2

    pid:1000  ./shop --workers 2
      started by pid:900
       1.000 ms         9 ms  alive
       1.100 ms               executes  ./shop --workers 2
      10.000 ms               dead      exit 3

    go:1@1000  runtime.main
      created by runtime.rt0_go (runtime/asm_amd64.s:360)
      in ./shop --workers 2
       1.300 ms      1.70 ms  awake
       3.000 ms         2 ms  blocked  sleep at main.worker (shop/main.go:33), woken by timer
       5.000 ms         5 ms  awake
      10.000 ms               dead     process end

    go:2@1000  runtime.bgsweep
      created by runtime.gcenable (runtime/mgc.go:214), by go:1
      in ./shop --workers 2
       1.400 ms       100 µs  awake
       1.500 ms      8.50 ms  blocked  GC sweep wait at main.worker (shop/main.go:33)
      10.000 ms               dead     process end

    go:17@1000  main.worker
      created by main.open (shop/main.go:12), by go:1
      in ./shop --workers 2
      2.000 ms       300 µs  awake
      2.300 ms         3 ms  blocked  chan receive at main.worker (shop/main.go:33), woken by go:1
      5.300 ms       200 µs  awake
      5.500 ms               dead     exit

    go:18@1000  main.worker
      created by main.open (shop/main.go:12), by go:1
      in ./shop --workers 2
       2.100 ms       300 µs  awake
       2.400 ms      7.60 ms  blocked  chan receive at main.worker (shop/main.go:33)
      10.000 ms               dead     process end
    ");
}

/// Check the JSON lines of one goroutine: the contract.
#[test]
fn timeline_contract() {
    insta::assert_snapshot!(timeline(&shop(), Some("go:17")).unwrap().1, @r#"
    {"id":"go:17","tgid":1000,"state":"awake","start_ns":2000000,"end_ns":2300000,"reason":null,"stack":null,"woken_by":null,"tid":1000,"object":null}
    {"id":"go:17","tgid":1000,"state":"blocked","start_ns":2300000,"end_ns":5300000,"reason":"chan receive","stack":[{"function":"runtime.chanrecv1","file":"runtime/chan.go","line":509},{"function":"main.worker","file":"shop/main.go","line":33}],"woken_by":"go:1","tid":1000,"object":"0xc0001000"}
    {"id":"go:17","tgid":1000,"state":"awake","start_ns":5300000,"end_ns":5500000,"reason":null,"stack":null,"woken_by":null,"tid":1001,"object":null}
    {"id":"go:17","tgid":1000,"state":"dead","start_ns":5500000,"end_ns":5500000,"reason":"exit","stack":null,"woken_by":null,"tid":null,"object":null}
    "#);
}

/// Check that a lost wake shows as lost and unknown, never as a wait that went on.
#[test]
fn lost_wake() {
    let mut scene = shop();
    scene.park(10_500, 1001, 5, 2).wake(11_000, 1001, 5, 1).lose().park(12_000, 1001, 5, 2).wake(13_000, 1001, 5, 1);
    insta::assert_snapshot!(timeline(&scene, Some("go:5")).unwrap().0, @r"
    1 event lost (goroutine_wake 1); coverage T2 (2 programs)

    go:5@1001  start function unknown
      its birth was not seen
      in /srv/shop
      10.500 ms      1.50 ms  unknown  chan receive at ? 0x555500005000
      10.500 ms      2.50 ms  lost     events of CPU 1 are missing here
      12.000 ms         1 ms  blocked  chan receive at ? 0x555500005000, woken by go:1
      13.000 ms         7 ms  awake
    ");
    let report = report_json(&scene);
    assert_eq!(report["lost"]["by_kind"]["goroutine_wake"], 1);
    assert_eq!(report["repairs"]["by_kind"]["lost_wake"], 1);
}

/// Check that tier T1 says alive, and null where it cannot know.
#[test]
fn lower_tier() {
    let mut scene = Scene::default();
    scene.tier = Some(Tier::T1);
    scene.start(1_000, 1000, &["./shop"]).birth(2_000, 1000, 17, 1, (0x3010, 0x4000)).exit(5_000, 1000, 17);
    let (text, jsonl) = timeline(&scene, Some("go:17@1000")).unwrap();
    assert!(jsonl.contains(r#""state":"alive","start_ns":2000000,"end_ns":5000000"#), "{jsonl}");
    assert!(!text.contains("awake"), "{text}");
    let report = report_json(&scene);
    assert!(report["sites"][0]["blocked_ns"].is_null() && report["sites"][0]["waits"].is_null());
}

/// Check what ids name: one process, all of a process, several, none.
#[test]
fn ids() {
    let mut scene = Scene::default();
    scene.shop(1000).shop(1001);
    assert!(matches!(timeline(&scene, Some("go:17")), Err(IdError::Ambiguous { candidates, .. }) if candidates.len() == 2));
    assert_eq!(
        timeline(&scene, Some("go:17")).unwrap_err().to_string(),
        "go:17 lives in several processes: say which one (go:17@1000, go:17@1001)"
    );
    assert!(timeline(&scene, Some("go:17@1001")).unwrap().1.lines().all(|line| line.contains(r#""tgid":1001"#)));
    assert_eq!(timeline(&scene, Some("go:99")).unwrap_err().to_string(), "this recording has no go:99");
    assert!(timeline(&scene, Some("tid:1000")).is_ok(), "a process has a first thread");
    assert!(matches!(timeline(&scene, Some("tid:3")), Err(IdError::Unknown(_))));
    let (_, process) = timeline(&scene, Some("pid:1000")).unwrap();
    assert!(process.contains(r#""id":"pid:1000""#) && process.contains(r#""id":"go:18""#));
}

/// Check the folded stacks of each kind.
#[test]
fn folded() {
    let folded = |by| graph(&shop(), by).folded().join("\n");
    insta::assert_snapshot!(folded(By::Created), @r"
    [runtime];runtime.gcenable;go runtime.bgsweep 1
    main.main;main.open;go main.worker 2
    runtime.rt0_go;go runtime.main 1
    ");
    insta::assert_snapshot!(folded(By::Alive), @r"
    [runtime];runtime.gcenable;go runtime.bgsweep 1
    main.main;main.open;go main.worker 1
    runtime.rt0_go;go runtime.main 1
    ");
    insta::assert_snapshot!(folded(By::Blocked), @r"
    [runtime];main.worker;runtime.chanrecv1;[GC sweep wait] 8500000
    main.worker;runtime.chanrecv1;[chan receive] 10600000
    main.worker;runtime.chanrecv1;[sleep] 2000000
    ");
    insta::assert_snapshot!(folded(By::Lifetime), @r"
    [runtime];runtime.gcenable;go runtime.bgsweep 8600000
    main.main;main.open;go main.worker 11400000
    runtime.rt0_go;go runtime.main 8700000
    ");
}

/// Check that more than one process makes each a root of its own.
#[test]
fn roots() {
    let mut scene = Scene::default();
    scene.shop(1000).shop(1001);
    let folded = graph(&scene, By::Created).folded();
    assert!(folded.iter().all(|line| line.starts_with("shop (pid 100")), "{folded:?}");
}

/// Check that a difference tells values before and after by stack, whoever's process it was, and that what vanished is said.
#[test]
fn difference() {
    let answer = |scene: &Scene| {
        let mut tally = Tally::new(By::Blocked);
        let replayed = replay(open(&scene.bytes()), &mut tally).unwrap();
        flamegraph::graph(&replayed, &tally, false).unwrap()
    };
    let mut twice = Scene::default();
    twice.shop(1000).shop(1001);
    let grown = Difference::new(answer(&shop()), answer(&twice));
    insta::assert_snapshot!(grown.folded().join("\n"), @r"
    [runtime];main.worker;runtime.chanrecv1;[GC sweep wait] 8500000 17000000
    main.worker;runtime.chanrecv1;[chan receive] 10600000 21200000
    main.worker;runtime.chanrecv1;[sleep] 2000000 4000000
    ");
    let mut svg = Vec::new();
    grown.write_svg(&mut svg).unwrap();
    assert!(String::from_utf8(svg).unwrap().contains("Time blocked: growth"));
    let mut profile = Vec::new();
    grown.write_pprof(&mut profile).unwrap();
    let profile = parse(&profile, "blocked").unwrap();
    let mut values: Vec<i64> = profile.samples.iter().map(|sample| sample.value).collect();
    values.sort_unstable();
    assert_eq!(values, [2_000_000, 8_500_000, 10_600_000], "what grew, and nothing else");

    let vanished = Difference::new(answer(&shop()), answer(&Scene::default()));
    assert!(vanished.notes().contains("21.1 ms are gone from stacks that have none left"), "{}", vanished.notes());
    let mut svg = Vec::new();
    vanished.write_svg(&mut svg).unwrap();
    assert!(String::from_utf8(svg).unwrap().contains("Time blocked: growth: none"));
}

/// Check that the SVG carries its title, and the loss and coverage.
#[test]
fn svg() {
    let mut scene = shop();
    scene.wake(9_000, 1000, 18, 1).lose();
    let mut out = Vec::new();
    graph(&scene, By::Blocked).write_svg(&mut out).unwrap();
    let svg = String::from_utf8(out).unwrap();
    for text in ["Time blocked: ./shop --workers 2", "1 event lost (goroutine_wake 1)", "coverage T2", "[chan receive]"] {
        assert!(svg.contains(text), "{text}");
    }
    let mut out = Vec::new();
    graph(&Scene::default(), By::Alive).write_svg(&mut out).unwrap();
    assert!(String::from_utf8(out).unwrap().contains("Goroutines alive at the end: none"));
}

/// Check that Go's own tool opens the profile and finds the waits. Without a Go toolchain there is nothing to check it with.
#[test]
fn go_tool_pprof() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blocked.pb.gz");
    std::fs::write(&path, pprof_bytes(&shop(), By::Blocked)).unwrap();
    let run = Command::new("go").args(["tool", "pprof", "-top"]).arg(&path).stdin(Stdio::null()).output();
    let output = match run {
        Ok(output) => output,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: no Go toolchain to open the profile with");
            return;
        }
        Err(err) => panic!("{err}"),
    };
    let top = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(top.contains("Type: blocked") && top.contains("[chan receive]") && top.contains("main.worker"), "{top}");
}
