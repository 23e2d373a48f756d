//! Units over whole sequences of events, lossy ones included.

use proptest::prelude::*;

use super::*;
use crate::{
    correlate::{
        Sink,
        goroutine::{LookedAt, Who},
        sink::Span,
    },
    event::ProcessExit,
    id::{SiteId, Tgid},
    recording::contract::UsdtSite,
};

#[derive(Default)]
struct Told {
    spans: Vec<(UnitWho, UnitSpan)>,
    lives: Vec<(UnitWho, Life)>,
}

impl Sink for Told {
    fn span(&mut self, _: &Who, _: &Span) {}
    fn life(&mut self, _: &Who, _: &Life) {}
    fn unit_span(&mut self, who: &UnitWho, span: &UnitSpan) {
        self.spans.push((who.clone(), *span));
    }
    fn unit_life(&mut self, who: &UnitWho, life: &Life) {
        self.lives.push((who.clone(), *life));
    }
}

/// Sites 1 to 4 start, block, wake and exit the unit of the first argument; 5 and 6 block and wake that of the thread.
fn file(wakes_are_seen: bool) -> UsdtFile {
    let site = |id, event, unit, reason: Option<&str>| UsdtSite {
        id: SiteId(id),
        provider: "go".into(),
        name: format!("{event}"),
        address: Address(0x1000),
        meaning: UsdtMeaning {
            runtime: "job".into(),
            event,
            id: unit,
            text: Some(1),
            text_len: None,
            reason: reason.map(str::to_owned),
            object: Some(2),
            wakes_are_seen,
        },
    };
    let id = UnitId::Argument(0);
    let mut probes = vec![
        site(1, UnitEvent::Start, id, None),
        site(2, UnitEvent::Block, id, Some("queue")),
        site(3, UnitEvent::Wake, id, None),
        site(4, UnitEvent::Exit, id, None),
    ];
    if wakes_are_seen {
        probes.extend([site(5, UnitEvent::Block, UnitId::Thread, Some("park")), site(6, UnitEvent::Wake, UnitId::Thread, None)]);
    }
    UsdtFile { id: BinaryId(3), path: "/bin/jobs".into(), probes }
}

fn hit(at: u64, site: u16, id: u64, text: Option<&str>) -> Event {
    let args = [Some(id), None, Some(0xbeef), None, None, None];
    let what = What::UsdtHit { args: Box::new(args), text: text.map(str::to_owned) };
    Event { at: KtimeNs(at), cpu: 0, seq: at, tgid: Tgid(7), tid: Tid(70), binary: Some(BinaryId(3)), site: SiteId(site), what }
}

fn process_exit(at: u64) -> Event {
    let ended = ProcessExit { start_boottime_ns: 0, wait_status: Some(0), parent: None, autoreaped: false };
    Event { binary: None, what: What::ProcessExit(ended), ..hit(at, 0, 0, None) }
}

fn run(file: &UsdtFile, events: &[Event], end: u64) -> (Told, Engine) {
    let (mut told, mut engine) = (Told::default(), Engine::default());
    engine.usdt_file(file);
    for event in events {
        engine.event(event, &mut told);
    }
    engine.finish(KtimeNs(end), &mut told);
    (told, engine)
}

/// State, start, end and reason of each span.
fn spans<'e>(told: &Told, engine: &'e Engine) -> Vec<(SpanState, u64, u64, Option<&'e str>)> {
    let span = |(_, span): &(UnitWho, UnitSpan)| (span.state, span.start.0, span.end.0, span.reason.map(|id| engine.reason(id)));
    told.spans.iter().map(span).collect()
}

use SpanState::{Awake, Blocked, Unknown};

/// Check a life without losses: name, reason, object, end.
#[test]
fn whole_life() {
    let events = [
        hit(10, 1, 17, Some("resize")),
        hit(20, 2, 17, Some("disk")),
        hit(30, 3, 17, None),
        hit(40, 2, 17, None),
        hit(50, 3, 17, None),
        hit(60, 4, 17, None),
    ];
    let (told, engine) = run(&file(true), &events, 100);
    let expected = [
        (Awake, 10, 20, None),
        (Blocked, 20, 30, Some("disk")),
        (Awake, 30, 40, None),
        (Blocked, 40, 50, Some("queue")),
        (Awake, 50, 60, None),
    ];
    assert_eq!(spans(&told, &engine), expected);
    assert_eq!(told.spans[1].1.object, Some(Address(0xbeef)));
    let (who, life) = &told.lives[0];
    assert_eq!((who.number, who.name.as_deref(), who.born_at), (UnitNumber::Id(17), Some("resize"), Some(KtimeNs(10))));
    assert_eq!(
        *life,
        Life { ended_at: KtimeNs(60), end: LifeEnd::Exit, last_known: KtimeNs(60), looked_at: LookedAt::default() }
    );
    assert_eq!((engine.runtime(who.runtime), engine.repairs().by_kind.len()), ("job", 0));
}

/// Check that without a probe that tells of wakes a block lasts until the next event, and says so.
#[test]
fn no_wakes() {
    let events = [hit(10, 1, 1, None), hit(20, 2, 1, None), hit(30, 2, 1, None), hit(40, 4, 1, None)];
    let (told, engine) = run(&file(false), &events, 100);
    assert_eq!(
        spans(&told, &engine),
        [(Awake, 10, 20, None), (Blocked, 20, 30, Some("queue")), (Blocked, 30, 40, Some("queue"))]
    );
    assert!(told.spans[1..].iter().all(|(_, span)| span.at_most));
    assert!(engine.repairs().by_kind.is_empty());
}

/// Check that what lost events would have told is unknown: a wake, a block, an exit, a start.
#[test]
fn losses() {
    let lost_wake = [hit(10, 1, 1, None), hit(20, 2, 1, None), hit(30, 2, 1, None), hit(40, 3, 1, None), hit(50, 4, 1, None)];
    let (told, engine) = run(&file(true), &lost_wake, 100);
    assert_eq!(spans(&told, &engine)[1..3], [(Unknown, 20, 30, Some("queue")), (Blocked, 30, 40, Some("queue"))]);
    assert_eq!(engine.repairs().by_kind.get("lost_unit_wake"), Some(&1));
    let lost_block = [hit(10, 1, 1, None), hit(20, 3, 1, None), hit(50, 4, 1, None)];
    let (told, engine) = run(&file(true), &lost_block, 100);
    assert_eq!(spans(&told, &engine), [(Unknown, 10, 20, None), (Awake, 20, 50, None)]);
    assert_eq!(engine.repairs().by_kind.get("lost_unit_block"), Some(&1));
    let lost_exit = [hit(10, 1, 1, None), hit(30, 1, 1, None), hit(50, 4, 1, None)];
    let (told, engine) = run(&file(true), &lost_exit, 100);
    assert_eq!(spans(&told, &engine), [(Unknown, 10, 30, None), (Awake, 30, 50, None)]);
    assert_eq!(told.lives.iter().map(|(_, life)| life.end).collect::<Vec<_>>(), [LifeEnd::Gone, LifeEnd::Exit]);
    assert_eq!(engine.repairs().by_kind.get("lost_unit_exit"), Some(&1));
    let other_thread = Event { tid: Tid(71), ..hit(40, 4, 1, None) };
    let lost_start = [hit(10, 1, 1, None), hit(20, 4, 1, None), other_thread];
    let (told, engine) = run(&file(true), &lost_start, 100);
    assert_eq!(spans(&told, &engine), [(Awake, 10, 20, None), (Unknown, 20, 40, None)]);
    assert_eq!(told.lives[1].0.born_at, None);
}

/// Check that at the end of its process a unit is what it was.
#[test]
fn ends_with_its_process() {
    let events = [hit(10, 1, 1, None), hit(12, 1, 2, None), hit(20, 2, 1, None), process_exit(60)];
    let (told, engine) = run(&file(true), &events, 100);
    assert_eq!(spans(&told, &engine), [(Awake, 10, 20, None), (Blocked, 20, 60, Some("queue")), (Awake, 12, 60, None)]);
    assert!(told.lives.iter().all(|(_, life)| life.end == LifeEnd::ProcessEnd && life.ended_at == KtimeNs(60)));
}

/// Check that probes that do not say who they are about are the thread's, whose id a start or a later probe tells.
#[test]
fn by_thread() {
    let events = [hit(10, 1, 12, None), hit(20, 5, 0, None), hit(30, 6, 0, None), hit(40, 4, 12, None)];
    let (told, engine) = run(&file(true), &events, 100);
    assert_eq!(spans(&told, &engine), [(Awake, 10, 20, None), (Blocked, 20, 30, Some("park")), (Awake, 30, 40, None)]);
    assert!(told.lives.iter().all(|(who, _)| who.number == UnitNumber::Id(12)));

    let late = [hit(20, 5, 0, None), hit(30, 6, 0, None), hit(40, 2, 12, None), hit(50, 3, 12, None), hit(60, 5, 0, None)];
    let (told, _) = run(&file(true), &late, 100);
    assert_eq!(told.lives.len(), 1);
    assert_eq!((told.lives[0].0.number, told.spans[0].0.number), (UnitNumber::Id(12), UnitNumber::Thread(Tid(70))));
    assert!(told.spans.iter().all(|(who, _)| who.serial == told.lives[0].0.serial));

    let after = [hit(10, 1, 12, None), hit(40, 4, 12, None), hit(41, 2, 12, None), hit(42, 3, 12, None), hit(43, 5, 0, None)];
    let (told, engine) = run(&file(true), &after, 100);
    assert_eq!((spans(&told, &engine), told.lives.len()), (vec![(Awake, 10, 40, None)], 1));

    let never = [hit(20, 5, 0, None), hit(30, 6, 0, None)];
    let (told, _) = run(&file(true), &never, 100);
    assert_eq!(told.lives[0].0.number.to_string(), "t70");
}

proptest! {
    /// Whatever is lost, the spans of each life lie end to end from its beginning to its end, and nothing is told twice.
    #[test]
    fn whole_whatever_is_lost(hits in proptest::collection::vec((1u16..7, 0u64..4, 0u32..3), 0..60), wakes in any::<bool>()) {
        let mut events: Vec<Event> = Vec::new();
        for (index, (site, id, tid)) in hits.into_iter().enumerate() {
            events.push(Event { tid: Tid(70 + tid), ..hit(10 + index as u64, site, id, None) });
        }
        let (told, _) = run(&file(wakes), &events, 1000);
        let mut serials = FxHashSet::default();
        for (who, life) in &told.lives {
            prop_assert!(serials.insert(who.serial));
            let mut at = who.since;
            for (_, span) in told.spans.iter().filter(|(of, _)| of.serial == who.serial) {
                prop_assert_eq!(span.start, at);
                prop_assert!(span.end > span.start);
                at = span.end;
            }
            prop_assert_eq!(at, life.ended_at);
        }
        prop_assert!(told.spans.iter().all(|(who, _)| serials.contains(&who.serial)));
    }
}
