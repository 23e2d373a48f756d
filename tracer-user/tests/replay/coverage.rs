//! Recordings with gaps: what is followed changes from tier to tier.

use tracer_user::recording::contract::{Tier, Why};

use crate::{
    checks::{WORKER, look},
    report_as_text, report_json,
    scene::Scene,
    timeline,
};

const SHOP: u32 = 1000;

/// Two workers, one made while everything is told, the other while nothing is; from 5 ms on nothing is told, from 8 ms on births and exits,
/// from 12 ms on everything.
fn gaps() -> Scene {
    let mut scene = Scene::default();
    scene.steps = vec![(5, Tier::T0, Why::Dear), (8, Tier::T1, Why::Trial), (12, Tier::T2, Why::Window)];
    scene.start(1000, SHOP, &["./shop"]);
    scene.birth(2000, SHOP, 17, 1, WORKER).park(3000, SHOP, 17, 2);
    // Told while probes went: not all of them tell any more.
    scene.wake(5500, SHOP, 17, 1).park(5600, SHOP, 17, 2).birth(6000, SHOP, 18, 1, WORKER);
    scene.birth(9000, SHOP, 19, 1, WORKER).park(9500, SHOP, 19, 2);
    scene.wake(14_000, SHOP, 17, 1).park(15_000, SHOP, 18, 2).exit(16_000, SHOP, 19).wake(17_000, SHOP, 18, 17);
    scene
}

/// Check that no state is claimed for times of which nothing was told, and that nothing counts as lost for that.
#[test]
fn unknown_in_gaps() {
    insta::assert_snapshot!(timeline(&gaps(), Some("go:17")).unwrap().0, @r"
    no event lost; coverage T2, 1 of them in part

    go:17@1000  main.worker
      created by main.open (shop/main.go:12), by go:1
      in ./shop
       2.000 ms         1 ms  awake
       3.000 ms         2 ms  blocked  chan receive
       5.000 ms         3 ms  unknown
       8.000 ms         4 ms  alive
      12.000 ms         2 ms  unknown
      14.000 ms         6 ms  awake
    ");
    insta::assert_snapshot!(timeline(&gaps(), Some("go:18")).unwrap().0, @r"
    no event lost; coverage T2, 1 of them in part

    go:18@1000  start function unknown
      its birth was not seen
      in ./shop
       1.100 ms      13.9 ms  unknown
      15.000 ms         2 ms  blocked  chan receive, woken by go:17
      17.000 ms         3 ms  awake
    ");
    insta::assert_snapshot!(timeline(&gaps(), Some("go:19")).unwrap().0, @r"
    no event lost; coverage T2, 1 of them in part

    go:19@1000  main.worker
      created by main.open (shop/main.go:12), by go:1
      in ./shop
       9.000 ms         3 ms  alive
      12.000 ms         4 ms  unknown
      16.000 ms               dead     exit
    ");
    let report = report_json(&gaps());
    assert_eq!(report["lost"]["events"], 0);
    insta::assert_snapshot!(report["repairs"]["by_kind"].to_string(), @r"{}");
}

/// Check that a look in a gap tells who lives then, and one behind it who is gone: no repair, for nothing was there to be lost.
#[test]
fn looks_in_gaps() {
    let mut scene = gaps();
    scene.dumps = vec![
        look(6500, &[(17, WORKER, Some("chan receive"), None), (18, WORKER, Some("select"), None)]),
        look(12_500, &[(17, WORKER, Some("chan receive"), None), (19, WORKER, None, None), (18, WORKER, None, None)]),
    ];
    insta::assert_snapshot!(timeline(&scene, Some("go:17")).unwrap().0, @r"
    no event lost; coverage T2, 1 of them in part

    go:17@1000  main.worker
      created by main.open (shop/main.go:12), by go:1
      in ./shop
       2.000 ms         1 ms  awake
       3.000 ms         2 ms  blocked  chan receive
       5.000 ms      1.50 ms  unknown
       6.500 ms      1.50 ms  unknown
       8.000 ms         4 ms  alive
      12.000 ms       500 µs  unknown
      12.500 ms      1.50 ms  blocked  chan receive, woken by go:1
      14.000 ms         6 ms  awake
    ");
    insta::assert_snapshot!(timeline(&scene, Some("go:18")).unwrap().0, @r"
    no event lost; coverage T2, 1 of them in part

    go:18@1000  main.worker
      created by main.open (shop/main.go:12)
      its birth was not seen: a snapshot found it, no probe was there to tell
      in ./shop
       1.100 ms      5.40 ms  unknown
       6.500 ms      1.50 ms  unknown
       8.000 ms         4 ms  alive
      12.000 ms       500 µs  unknown
      12.500 ms      2.50 ms  awake
      15.000 ms         2 ms  blocked  chan receive, woken by go:17
      17.000 ms         3 ms  awake
    ");
    insta::assert_snapshot!(report_json(&scene)["repairs"]["by_kind"].to_string(), @r"{}");
}

/// Check what the report says of a budget that was kept.
#[test]
fn report() {
    let text = report_as_text(&gaps());
    let lines: Vec<&str> =
        text.lines().filter(|line| ["trust", "budget", "scaled"].iter().any(|word| line.starts_with(word))).collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    trust      no event lost; coverage T2, 1 of them in part
    budget     1 %: T2 for 11.9 ms, T1 for 4 ms, T0 for 3 ms; steps: too dear 1, trial 1, window 1
    scaled     pid 1000, over the gaps too: about 1 born, 1 waits, 3.75 ms blocked (without bounds: too few windows)
    ");
    let report = report_json(&gaps());
    let coverage: Vec<String> = report["coverage"]
        .as_array()
        .unwrap()
        .iter()
        .map(|span| format!("{} {} {}", span["tier"], span["from_ns"], span["to_ns"]))
        .collect();
    insta::assert_snapshot!(coverage.join("\n"), @r#"
    "T2" 1100000 5000000
    "T0" 5000000 8000000
    "T1" 8000000 12000000
    "T2" 12000000 20000000
    "#);
    assert_eq!(report["steps"].as_array().unwrap().len(), 3);
}

/// Check that whoever was there before the last gap, and was not seen behind it, is not said to live for sure.
#[test]
fn unconfirmed_behind_gaps() {
    let mut scene = gaps();
    scene.steps.truncate(1);
    let worker = |report: &serde_json::Value| {
        let sites = report["sites"].as_array().unwrap();
        sites.iter().find(|site| site["start_function"] == "main.worker").unwrap()["unconfirmed"].as_u64().unwrap()
    };
    assert_eq!(worker(&report_json(&scene)), 1);
    scene.steps.clear();
    assert_eq!(worker(&report_json(&scene)), 0);
}
