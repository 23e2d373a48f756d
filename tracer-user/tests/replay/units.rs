//! Units of work of other runtimes, as their probes told of them.

use tracer_user::{
    event::What,
    id::{Address, BinaryId, SiteId},
    recording::contract::{UnitEvent, UnitId, UsdtFile, UsdtMeaning, UsdtSite},
};

use crate::{report_as_text, report_json, scene::Scene, timeline};

/// Sites 1 to 4: start, block, wake, exit of the unit of the first argument.
fn file() -> UsdtFile {
    let site = |id, event, reason: Option<&str>| UsdtSite {
        id: SiteId(id),
        provider: "pool".into(),
        name: format!("job_{event}"),
        address: Address(0x1000),
        meaning: UsdtMeaning {
            runtime: "job".into(),
            event,
            id: UnitId::Argument(0),
            text: Some(1),
            text_len: None,
            reason: reason.map(str::to_owned),
            object: Some(2),
            wakes_are_seen: true,
        },
    };
    let events = [(UnitEvent::Start, None), (UnitEvent::Block, Some("queue")), (UnitEvent::Wake, None), (UnitEvent::Exit, None)];
    let probes = (1..).zip(events).map(|(id, (event, reason))| site(id, event, reason)).collect();
    UsdtFile { id: BinaryId(2), path: "/bin/pool".into(), probes }
}

fn hit(scene: &mut Scene, at_us: u64, site: u16, id: u64, text: Option<&str>) {
    let object = (site == 2).then_some(0xc000);
    let what = What::UsdtHit { args: Box::new([Some(id), None, object, None, None, None]), text: text.map(str::to_owned) };
    scene.event(at_us, 0, 3000, Some(site), what);
    scene.events.last_mut().unwrap().binary = Some(BinaryId(2));
}

/// Two jobs: one ends, and one still waits for the disk when its process ends.
fn pool() -> Scene {
    let mut scene = Scene::default();
    scene.usdt.push(file());
    scene.start(1_000, 3000, &["./pool"]);
    hit(&mut scene, 2_000, 1, 7, Some("resize"));
    hit(&mut scene, 2_500, 1, 8, Some("up\x1bload"));
    hit(&mut scene, 3_000, 2, 7, None);
    hit(&mut scene, 4_000, 2, 8, Some("disk"));
    hit(&mut scene, 5_000, 3, 7, None);
    hit(&mut scene, 6_000, 4, 7, None);
    scene.stop(9_000, 3000, 0);
    scene
}

/// Check what a person reads of units.
#[test]
fn for_people() {
    let (text, _) = timeline(&pool(), None).unwrap();
    let begin = text.find("\njob:7").unwrap();
    insta::assert_snapshot!(&text[begin..], @r#"
    job:7@3000  resize
      in ./pool
      2.000 ms         1 ms  awake    tid 3000
      3.000 ms         2 ms  blocked  queue on 0xc000, tid 3000
      5.000 ms         1 ms  awake    tid 3000
      6.000 ms               dead     exit

    job:8@3000  up\u{1b}load
      in ./pool
      2.500 ms      1.50 ms  awake    tid 3000
      4.000 ms         5 ms  blocked  disk on 0xc000, tid 3000
      9.000 ms               dead     process end
    "#);
    let report = report_as_text(&pool());
    let begin = report.find("units of work").unwrap();
    insta::assert_snapshot!(&report[begin..], @r#"
    units of work by runtime
      TGID  RUNTIME  BORN  EXITED  ALIVE  BLOCKED
      3000  job         2       1      1     7 ms
                                                   disk 1x, 5 ms: median 5 ms, p99 5 ms, max 5 ms
                                                   queue 1x, 2 ms: median 2 ms, p99 2 ms, max 2 ms
    "#);
}

/// Check the JSON contracts.
#[test]
fn contract() {
    let (_, jsonl) = timeline(&pool(), Some("job:8")).unwrap();
    insta::assert_snapshot!(jsonl, @r#"
    {"id":"job:8","tgid":3000,"state":"awake","start_ns":2500000,"end_ns":4000000,"reason":null,"name":"up\u001bload","tid":3000,"object":null}
    {"id":"job:8","tgid":3000,"state":"blocked","start_ns":4000000,"end_ns":9000000,"reason":"disk","name":"up\u001bload","tid":3000,"object":"0xc000"}
    {"id":"job:8","tgid":3000,"state":"dead","start_ns":9000000,"end_ns":9000000,"reason":"process end","name":"up\u001bload","tid":null,"object":null}
    "#);
    assert_eq!(timeline(&pool(), Some("job:7@3000")).unwrap().1.lines().count(), 4);
    assert!(timeline(&pool(), Some("job:9")).is_err() && timeline(&pool(), Some("java:7")).is_err());
    let units = &report_json(&pool())["units"][0];
    assert_eq!(
        (&units["runtime"], &units["born"], &units["exited"], &units["alive"]),
        (&"job".into(), &2.into(), &1.into(), &1.into())
    );
    assert_eq!(units["waits"]["disk"]["blocked_ns"], 5_000_000);
}
