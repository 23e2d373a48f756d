//! The table over time.

use serde_json::Value;

use crate::{
    checks::{LEFT, look},
    report_as_text, report_json,
    scene::Scene,
};

const GO_WORKER: u64 = 0x3010;
const WORKER: u64 = 0x4000;

/// A shop that makes a goroutine every 100 ms and keeps each second one, for four seconds, with a proxy beside it.
fn growing() -> Scene {
    let mut scene = Scene::lasting(4_100);
    scene.shop(1000).collector(1000);
    scene.events.sort_by_key(|event| event.at);
    scene.events.retain(|event| !matches!(event.what, tracer_user::event::What::ProcessExit(_)));
    for n in 0..40 {
        scene.birth(100_000 + n * 100_000, 1000, 100 + n, 1, (GO_WORKER, WORKER));
        if n % 2 == 0 {
            scene.exit(150_000 + n * 100_000, 1000, 100 + n);
        }
    }
    scene.memory_beside(1_000, 77, "envoy", 20);
    for second in 0..4 {
        let at = 5_000 + second * 1_000_000;
        let heap = (second % 2 == 0).then_some(10 + second);
        scene.memory(at, 1000, 30 + second, Some(60 + second), heap).memory_beside(at, 77, "envoy", 20);
    }
    scene.stop(4_050_000, 1000, 0);
    scene
}

fn text(scene: &Scene) -> String {
    let text = report_as_text(scene);
    let begin = text.find("over time").unwrap_or_else(|| panic!("{text}"));
    text[begin..text.find("\ngoroutines by creation").unwrap()].to_owned()
}

/// Check the table that a person reads: counts at the end of each row, memory where somebody looked, pauses since the row before.
#[test]
fn table() {
    insta::assert_snapshot!(text(&growing()), @r"
    over time
         TIME  PROCESS   ALIVE   A  B    HEAP  IN USE    GOAL     SYS  GC   PAUSED     RSS  CGROUP    LIMIT
      1.000 s  1000          6   5  1  10 MiB  11 MiB  20 MiB  30 MiB   1  2.04 ms  30 MiB  60 MiB  512 MiB
               77 envoy      -   -  -       -       -       -       -   -        -  20 MiB       -        -
      2.000 s  1000         11  10  1       -       -       -       -   0     0 ns  31 MiB  61 MiB  512 MiB
               77 envoy      -   -  -       -       -       -       -   -        -  20 MiB       -        -
      3.000 s  1000         16  15  1  12 MiB  13 MiB  24 MiB  36 MiB   0     0 ns  32 MiB  62 MiB  512 MiB
               77 envoy      -   -  -       -       -       -       -   -        -  20 MiB       -        -
      4.000 s  1000         21  20  1       -       -       -       -   0     0 ns  33 MiB  63 MiB  512 MiB
               77 envoy      -   -  -       -       -       -       -   -        -  20 MiB       -        -
      4.100 s  1000         22  21  1       -       -       -       -   0     0 ns       -       -        -
      pid 1000, A: main.open (shop/main.go:12) -> main.worker, at most 21, grew by 21
      pid 1000, B: runtime.rt0_go (runtime/asm_amd64.s:360) -> runtime.main, at most 1, grew by 1
    ");
}

/// Check the counts in JSON against the scene: at each row those that were born before it, less those that had exited.
#[test]
fn counts() {
    let report = report_json(&growing());
    let series = &report["series"];
    let rows = series["rows"].as_array().unwrap();
    assert!((250..=500).contains(&rows.len()), "{}", rows.len());
    assert_eq!(series["step_ns"], 15_625_000);
    let step_ms = 15.625;
    for (n, row) in rows.iter().enumerate() {
        let Some(shop) = row["processes"].as_array().unwrap().iter().find(|cell| cell["tgid"] == 1000) else { continue };
        let end_ms = (n + 1) as f64 * step_ms;
        let came = (0..40).filter(|n| 100.0 + f64::from(*n) * 100.0 < end_ms).count();
        let went = (0..40).filter(|n| n % 2 == 0 && 150.0 + f64::from(*n) * 100.0 < end_ms).count();
        // Beside main and worker 18.
        assert_eq!(shop["goroutines"], 2 + came - went, "row {n}");
        assert_eq!(shop["sites"][0], 1 + came - went, "row {n}");
    }
    let site = &series["processes"][0]["sites"][0];
    assert_eq!((&site["growth"], &site["goroutines"], &site["start_function"]), (&21.into(), &21.into(), &"main.worker".into()));
    let sum = |name: &str| -> u64 {
        let cells = rows.iter().flat_map(|row| row["processes"].as_array().unwrap());
        cells.filter_map(|cell| cell["gc"][name].as_u64()).sum()
    };
    // One pause has no end.
    assert_eq!((sum("cycles"), sum("pauses")), (1, 3));
    // After its end a process is in no row.
    assert!(rows.last().unwrap()["processes"].as_array().unwrap().iter().all(|cell| cell["tgid"] != 1000));
}

/// Check that those who lived before the recording are there from its beginning on and are no growth.
#[test]
fn met() {
    let mut scene = Scene::lasting(1_000);
    scene.start(1_000, 1000, &["./shop"]).park(200_000, 1000, 7, 2).birth(500_000, 1000, 8, 7, (GO_WORKER, WORKER));
    let report = report_json(&scene);
    let rows = report["series"]["rows"].as_array().unwrap();
    let alive = |row: &Value| row["processes"][0]["goroutines"].as_u64();
    assert_eq!((alive(&rows[0]), alive(rows.last().unwrap())), (Some(1), Some(2)));
    let growth: Vec<i64> =
        report["series"]["processes"][0]["sites"].as_array().unwrap().iter().filter_map(|site| site["growth"].as_i64()).collect();
    assert_eq!(growth, [1, 0]);
}

/// Check that many processes make fewer rows, not a larger table, and that those left out are counted.
#[test]
fn many_processes() {
    let mut scene = Scene::lasting(2_000);
    for n in 0..70 {
        scene.start(1_000 + n * 1_000, 1000 + n as u32, &["./shop"]).birth(
            100_000 + n,
            1000 + n as u32,
            1,
            0,
            (GO_WORKER, WORKER),
        );
    }
    scene.events.sort_by_key(|event| event.at);
    scene.memory_beside(1_000_000, 77, "envoy", 20);
    let report = report_json(&scene);
    let series = &report["series"];
    let cells: usize = series["rows"].as_array().unwrap().iter().map(|row| row["processes"].as_array().unwrap().len()).sum();
    assert!(cells <= 8_000, "{cells}");
    assert_eq!((series["left_out"].as_u64(), series["processes"].as_array().unwrap().len()), (Some(7), 64));
    assert!(series["processes"].as_array().unwrap().iter().any(|process| process["beside"] == "envoy"), "who was named stays");
    assert!(text(&scene).contains("and 65 more processes"), "{}", text(&scene));
}

/// Check that the memory of stacks is counted with the creation site where somebody looked, without that of the runtime's own.
#[test]
fn stacks() {
    let mut scene = Scene::default();
    scene.shop(1000);
    // Main, the sweeper and worker 18, 2 KiB each; then main and the sweeper.
    scene.dumps = vec![look(6_000, &LEFT), look(8_000, &LEFT[..2])];
    let report = report_json(&scene);
    let series = &report["series"];
    let rows: Vec<&Value> = series["rows"].as_array().unwrap().iter().map(|row| &row["processes"][0]).collect();
    let seen: Vec<_> = rows.iter().filter(|cell| cell["stack_bytes"].is_u64()).map(|cell| cell["stack_bytes"].as_u64()).collect();
    assert_eq!(seen, [Some(4096), Some(2048)]);
    let of = |site: &Value| (site["start_function"].as_str().unwrap_or("").to_owned(), site["stack_bytes"].as_u64());
    let sites: Vec<_> = report["sites"].as_array().unwrap().iter().map(of).collect();
    assert!(
        sites.contains(&("main.worker".into(), Some(0))) && sites.contains(&("runtime.main".into(), Some(2048))),
        "{sites:?}"
    );
    assert_eq!(of(&report["system_sites"][0]), ("runtime.bgsweep".into(), Some(2048)));
    let worker =
        series["processes"][0]["sites"].as_array().unwrap().iter().position(|site| site["start_function"] == "main.worker");
    let of_worker: Vec<_> = rows.iter().filter_map(|cell| cell["site_stack_bytes"][worker.unwrap()].as_u64()).collect();
    assert_eq!(of_worker, [2048, 0]);
}
