//! The engine over whole sequences of events, lossy ones included.

use proptest::prelude::*;

use super::{goroutine::LookedAt, *};
use crate::{
    event::{Event, ProcessExit, Program, Transition},
    id::{Address, SiteId, Tgid},
    recording::contract::{
        DumpSource, DumpedGoroutine, GoroutineDump, Joined, KeptAt, KeptGoroutine, KeptWait, Likeness, Site, Tier,
    },
};

/// Collects what the engine tells, as text.
#[derive(Default)]
struct Told {
    spans: Vec<(Who, Span)>,
    lives: Vec<(Who, Life)>,
}

impl Sink for Told {
    fn span(&mut self, who: &Who, span: &Span) {
        self.spans.push((*who, *span));
    }
    fn life(&mut self, who: &Who, life: &Life) {
        self.lives.push((*who, *life));
    }
}

fn program() -> Binary {
    let site = |id, function: &str, address| Site {
        id: SiteId(id),
        function: function.into(),
        address: Address(address),
        instruction: "push %rbp".into(),
    };
    Binary {
        id: BinaryId(1),
        path: "/bin/app".into(),
        go_version: "go1.26.6".into(),
        module: "app".into(),
        sites: vec![site(0, "runtime.gopark", 0x1000), site(1, "runtime.ready", 0x2000)],
        wait_reasons: vec!["".into(), "chan receive".into(), "sleep".into(), "stopping the world".into()],
        hchan_lock: Some(0x58),
        semaphores: true,
        offsets: None,
        scheduling: false,
        stw_reasons: vec!["unknown".into(), "GC mark termination".into()],
    }
}

fn event(at: u64, site: u16, what: What) -> Event {
    Event { at: KtimeNs(at), cpu: 0, seq: at, tgid: Tgid(7), tid: Tid(70), binary: Some(BinaryId(1)), site: SiteId(site), what }
}

fn birth(at: u64, goid: u64) -> Event {
    let (gopc, startpc) = (Address(0x10), Address(0x20));
    event(at, 0, What::GoroutineBirth { goid: Goid(goid), parent: Some(Goid(1)), gopc, startpc, stack: None })
}

fn park(at: u64, goid: u64, wait_reason: u8) -> Event {
    event(at, 0, What::GoroutinePark { goid: Goid(goid), wait_reason, lock: Some(Address(0xc058)), stack: None })
}

fn wake(at: u64, goid: u64, waker: Option<u64>) -> Event {
    event(at, 1, What::GoroutineWake { goid: Goid(goid), waker: waker.map(Goid) })
}

fn exit(at: u64, goid: u64) -> Event {
    event(at, 0, What::GoroutineExit { goid: Goid(goid) })
}

fn process_exit(at: u64) -> Event {
    let ended = ProcessExit { start_boottime_ns: 0, wait_status: Some(0), parent: None, autoreaped: false };
    Event { binary: None, ..event(at, 0, What::ProcessExit(ended)) }
}

fn run(events: &[Event], end: u64) -> (Told, Engine) {
    run_binary(&program(), events, end)
}

fn run_binary(binary: &Binary, events: &[Event], end: u64) -> (Told, Engine) {
    let (mut told, mut engine) = (Told::default(), Engine::default());
    engine.binary(binary);
    for event in events {
        engine.event(event, &mut told);
    }
    engine.finish(KtimeNs(end), &mut told);
    (told, engine)
}

/// Check that a channel wait carries its reason, its channel and its waker.
#[test]
fn channel_wait() {
    let (told, engine) = run(&[birth(10, 17), park(20, 17, 1), wake(30, 17, Some(1)), exit(40, 17)], 50);
    let (_, blocked) = told.spans.iter().find(|(_, span)| span.state == SpanState::Blocked).unwrap();
    assert_eq!(engine.reason(blocked.reason.unwrap()), "chan receive");
    assert_eq!((blocked.object, blocked.woken_by), (Some(Address(0xc000)), Some(WokenBy::Goroutine(Goid(1)))));
    assert_eq!(
        told.lives[0].1,
        Life { ended_at: KtimeNs(40), end: LifeEnd::Exit, last_known: KtimeNs(40), looked_at: LookedAt::default() }
    );
}

/// A process joined at 5, and what its memory told between 10 and 20: goroutines that wait, or do not.
fn dumped(engine: &mut Engine, told: &mut Told, goroutines: &[(u64, bool)]) {
    let joined = Joined {
        at: KtimeNs(5),
        tgid: Tgid(7),
        start_ticks: 0,
        parent: Some(Tgid(1)),
        args: vec!["app".into()],
        binary: BinaryId(1),
        load_bias: 0x1000,
        dump_follows: true,
    };
    engine.joined(&joined, told);
    let kind = |waits: bool| Likeness {
        gopc: Address(0x10),
        startpc: Address(0x20),
        state: Some(if waits { "waiting" } else { "running" }.into()),
        wait_reason: waits.then(|| "chan receive".into()),
        stack: None,
        stack_bytes: None,
        labels: None,
    };
    let goroutines = goroutines.iter().map(|(goid, waits)| DumpedGoroutine(Goid(*goid), None, u32::from(*waits)));
    engine.dump(
        &GoroutineDump {
            tgid: Tgid(7),
            start_ticks: 0,
            binary: BinaryId(1),
            load_bias: 0x1000,
            source: DumpSource::Memory,
            check: false,
            from: KtimeNs(10),
            to: KtimeNs(20),
            tier: Tier::T2,
            kinds: vec![kind(false), kind(true)],
            goroutines: goroutines.collect(),
            objects: vec![],
            stacks: vec![],
            labels: vec![],
            torn: 0,
            last: true,
            gone: false,
            problem: None,
        },
        told,
    );
}

/// Check that of those in a dump nobody who was born since is told of twice, nobody who ended before comes back, and one who was met
/// before learns where it comes from.
#[test]
fn dump_between_events() {
    let (mut told, mut engine) = (Told::default(), Engine::default());
    engine.binary(&program());
    for early in [birth(6, 1), exit(7, 1), park(8, 2, 1), birth(9, 3)] {
        engine.event(&early, &mut told);
    }
    dumped(&mut engine, &mut told, &[(1, false), (2, true), (3, false), (4, true), (5, false), (6, false)]);
    for late in [birth(12, 6), exit(15, 5), exit(30, 6)] {
        engine.event(&late, &mut told);
    }
    engine.finish(KtimeNs(50), &mut told);
    told.lives.sort_by_key(|(who, _)| who.goid);
    let lives: Vec<_> = told.lives.iter().map(|(who, life)| (who.goid.0, who.born_at.map(|at| at.0), life.end)).collect();
    assert_eq!(
        lives,
        [
            (1, Some(6), LifeEnd::Exit),
            (2, None, LifeEnd::RecordingEnd),
            (3, Some(9), LifeEnd::RecordingEnd),
            (4, None, LifeEnd::RecordingEnd),
            (5, None, LifeEnd::Exit),
            (6, Some(12), LifeEnd::Exit),
        ]
    );
    assert!(told.lives.iter().all(|(who, _)| who.origin.is_some()));
    assert!(engine.repairs().by_kind.is_empty(), "{:?}", engine.repairs());
    assert!(told.spans.iter().all(|(who, span)| who.born_at.is_none() || span.state != SpanState::Unknown));
}

/// Check that a joined process keeps what its events told of it, and a later one of the same number is another.
#[test]
fn joined_process() {
    let (mut told, mut engine) = (Told::default(), Engine::default());
    engine.binary(&program());
    engine.event(&event(4, 0, What::ProcessImage { ip: Address(0x3000) }), &mut told);
    dumped(&mut engine, &mut told, &[]);
    let (_, process) = engine.processes().processes().next().unwrap();
    let image = engine.processes().image(process.images[0]);
    assert_eq!((image.bias, image.binary, process.parent), (Some(0x2000), Some(BinaryId(1)), Some(Tgid(1))));
    let met =
        What::ProcessMet(Box::new(Program { start_boottime_ns: 70_000_000, args: vec!["other".into()], ..Program::default() }));
    engine.event(&Event { binary: None, ..event(30, 0, met) }, &mut told);
    assert_eq!(engine.processes().processes().count(), 2);
}

/// Check that a pseudo-wait never shows as blocked.
#[test]
fn pseudo_wait() {
    let (told, _) = run(&[birth(10, 17), park(20, 17, 3), wake(30, 17, None), exit(40, 17)], 50);
    assert_eq!(told.spans.len(), 1);
    assert_eq!((told.spans[0].1.state, told.spans[0].1.end), (SpanState::Awake, KtimeNs(40)));
}

/// Check that a reason beyond the table is a wait without a name, not a guess.
#[test]
fn unknown_reason() {
    let (told, _) = run(&[birth(10, 17), park(20, 17, 200), wake(30, 17, None)], 50);
    assert_eq!((told.spans[1].1.state, told.spans[1].1.reason), (SpanState::Blocked, None));
}

/// Check that the end of a process closes its goroutines then, alive, and late events revive none.
#[test]
fn process_end() {
    let late = Event { at: KtimeNs(29), ..wake(29, 17, None) };
    let (told, engine) = run(&[birth(10, 17), park(20, 17, 2), process_exit(30), late], 90);
    assert_eq!(told.lives.len(), 1);
    assert_eq!(
        told.lives[0].1,
        Life { ended_at: KtimeNs(30), end: LifeEnd::ProcessEnd, last_known: KtimeNs(20), looked_at: LookedAt::default() }
    );
    assert_eq!(engine.repairs().by_kind.get("event_after_process_exit"), Some(&1));
}

/// Check that a second birth of a live goid closes the first as gone by then.
#[test]
fn lost_exit() {
    let (told, engine) = run(&[birth(10, 17), park(20, 17, 2), birth(30, 17), exit(40, 17)], 90);
    let ends: Vec<_> = told.lives.iter().map(|(_, life)| (life.end, life.ended_at.0)).collect();
    assert_eq!(ends, [(LifeEnd::Gone, 30), (LifeEnd::Exit, 40)]);
    assert_eq!(engine.repairs().by_kind.get("lost_exit"), Some(&1));
}

/// Check that what arrives after an exit does not make a second goroutine of the same id.
#[test]
fn no_ghosts() {
    let (told, engine) = run(&[birth(10, 17), exit(20, 17), wake(21, 17, None), birth(22, 17)], 90);
    assert_eq!(told.lives.len(), 1);
    assert_eq!(engine.repairs().by_kind.get("event_after_exit"), Some(&2));
}

/// Check that a coroutine's wait is ended by who switched to it, from its birth on, and that depths count from main.
#[test]
fn coroutines_and_depths() {
    let scheduled = Binary { scheduling: true, sites: coroutine_sites(), ..program() };
    let step = |at, goid, transition| event(at, 1, What::GoroutineTransition { goid: Goid(goid), transition, stack: None });
    let main = Event {
        what: What::GoroutineBirth { goid: Goid(1), parent: None, gopc: Address(1), startpc: Address(2), stack: None },
        ..birth(5, 1)
    };
    let events = [
        main,
        step(6, 1, Transition::Run),
        Event { site: SiteId(2), ..birth(10, 17) },
        step(20, 1, Transition::CoroutineStop),
        step(21, 17, Transition::CoroutineRun),
        exit(30, 17),
        step(31, 1, Transition::CoroutineRun),
    ];
    let (told, engine) = run_binary(&scheduled, &events, 50);
    let waits: Vec<_> = told
        .spans
        .iter()
        .filter(|(_, span)| span.state == SpanState::Blocked)
        .map(|(who, span)| (who.goid.0, who.depth, span.start.0, span.end.0, span.woken_by.unwrap().to_string()))
        .collect();
    assert_eq!(waits, [(17, 1, 10, 21, "go:1".to_owned()), (1, 0, 20, 31, "go:17".to_owned())]);
    assert_eq!(engine.repairs(), &Repairs::default());
}

fn coroutine_sites() -> Vec<Site> {
    let mut sites = program().sites;
    let newcoro = Site { id: SiteId(2), function: "runtime.newcoro.func1".into(), ..sites[1].clone() };
    sites.push(newcoro);
    sites
}

/// Check that goids count anew after an exec.
#[test]
fn exec_begins_anew() {
    let what = What::ProcessExec(Box::default());
    let exec = Event { binary: None, ..event(30, 0, what) };
    let (told, _) = run(&[birth(10, 17), exec, birth(40, 17), exit(50, 17)], 90);
    let ends: Vec<_> = told.lives.iter().map(|(_, life)| (life.end, life.ended_at.0)).collect();
    assert_eq!(ends, [(LifeEnd::ProcessEnd, 30), (LifeEnd::Exit, 50)]);
}

fn any_event() -> impl Strategy<Value = (u8, u64, u8, bool)> {
    (0u8..7, 1u64..6, 0u8..4, any::<bool>())
}

/// What must hold whatever was lost.
fn check(told: &Told) -> Result<(), TestCaseError> {
    for (who, span) in &told.spans {
        prop_assert!(span.start <= span.end, "{span:?}");
        prop_assert!(who.since <= span.start, "{who:?} {span:?}");
    }
    for (who, life) in &told.lives {
        prop_assert!(who.since <= life.ended_at);
        prop_assert!(who.born_at.is_none_or(|born| born <= life.ended_at));
    }
    // The spans of one life touch each other and fill it.
    for (who, life) in &told.lives {
        let mut at = who.since;
        for (_, span) in told.spans.iter().filter(|(of, _)| of == who) {
            prop_assert_eq!(span.start, at);
            at = span.end;
        }
        prop_assert_eq!(at, life.ended_at);
    }
    Ok(())
}

proptest! {
    /// Check that no sequence of events, however much is missing, makes a negative span, an exit before birth, or a panic.
    #[test]
    fn any_loss_is_harmless(picks in proptest::collection::vec(any_event(), 0..80)) {
        let events: Vec<Event> = picks.iter().enumerate().filter(|(_, pick)| pick.3).map(|(index, &(kind, goid, reason, _))| {
            let at = 10 + index as u64;
            match kind {
                0 => birth(at, goid),
                1 => park(at, goid, reason),
                2 => event(at, 0, What::GoroutineParkAbort { goid: Goid(goid) }),
                3 => wake(at, goid, (reason > 1).then_some(1)),
                4 => exit(at, goid),
                5 => event(at, 0, What::ProcessImage { ip: Address(0x1000 + u64::from(reason)) }),
                _ => process_exit(at),
            }
        }).collect();
        let (told, _) = run(&events, 1000);
        check(&told)?;
    }

    /// Check the same where every change of state is told.
    #[test]
    fn any_loss_of_scheduling_is_harmless(picks in proptest::collection::vec((0u8..15, 1u64..6, 0u8..4, any::<bool>()), 0..120)) {
        let events: Vec<Event> = picks.iter().enumerate().filter(|(_, pick)| pick.3).map(|(index, &(kind, goid, reason, _))| {
            let at = 10 + index as u64;
            match kind {
                0 => birth(at, goid),
                1 => park(at, goid, reason),
                2 => event(at, 0, What::GoroutineParkAbort { goid: Goid(goid) }),
                3 => wake(at, goid, (reason > 1).then_some(1)),
                4 => exit(at, goid),
                kind => {
                    let transition = Transition::ALL[usize::from(kind - 5)];
                    event(at, 1, What::GoroutineTransition { goid: Goid(goid), transition, stack: None })
                }
            }
        }).collect();
        let (told, _) = run_binary(&Binary { scheduling: true, sites: coroutine_sites(), ..program() }, &events, 1000);
        check(&told)?;
    }

    /// Check the same for events that come far too late.
    #[test]
    fn disorder_is_harmless(picks in proptest::collection::vec((any_event(), 0u64..100), 0..80)) {
        let events: Vec<Event> = picks.iter().map(|&((kind, goid, reason, _), at)| match kind {
            0 | 5 => birth(at, goid),
            1 | 6 => park(at, goid, reason),
            2 => event(at, 0, What::GoroutineParkAbort { goid: Goid(goid) }),
            3 => wake(at, goid, None),
            _ => exit(at, goid),
        }).collect();
        let (told, _) = run(&events, 1000);
        for (_, span) in &told.spans {
            prop_assert!(span.start <= span.end);
        }
    }
}

fn late_birth(at: u64, goid: u64, born_at: u64) -> Event {
    let (gopc, startpc, born_at) = (Address(0x10), Address(0x20), KtimeNs(born_at));
    event(at, 0, What::GoroutineLateBirth { goid: Goid(goid), born_at, parent: Some(Goid(1)), gopc, startpc, stack: None })
}

fn wait(at: u64, goid: u64, parked_at: u64, wait_reason: u8) -> Event {
    let (lock, park_tid, parked_at) = (Some(Address(0xc058)), Tid(70), KtimeNs(parked_at));
    let wait =
        What::GoroutineWait { goid: Goid(goid), parked_at, wait_reason, lock, stack: None, park_tid, waker: Some(Goid(3)) };
    event(at, 1, wait)
}

fn kept(at: u64, goid: u64, born_at: u64, since: Option<u64>) -> KeptAt {
    let waits = since.map(|since| KeptWait { since: KtimeNs(since), wait_reason: 1, lock: None, stack: None, tid: Tid(70) });
    let goroutine = KeptGoroutine {
        tgid: Tgid(7),
        goid: Goid(goid),
        binary: BinaryId(1),
        born_at: Some(KtimeNs(born_at)),
        parent: Some(Goid(1)),
        gopc: Address(0x10),
        startpc: Address(0x20),
        stack: None,
        waits,
    };
    KeptAt { at: KtimeNs(at), goroutines: vec![goroutine] }
}

/// Check that what is told late is as if it had been told in time: a birth, a wait that is over, and one that is not, twice.
#[test]
fn told_late() {
    let (mut late, mut engine) = (Told::default(), Engine::default());
    engine.binary(&program());
    engine.sum_short(true);
    let event_of = |engine: &mut Engine, told: &mut Told, event: Event| engine.event(&event, told);
    event_of(&mut engine, &mut late, event(1, 0, What::ProcessImage { ip: Address(0x1000) }));
    event_of(&mut engine, &mut late, late_birth(30, 9, 10));
    event_of(&mut engine, &mut late, wait(30, 9, 20, 1));
    engine.kept(&kept(60, 9, 10, Some(50)), &mut late);
    engine.kept(&kept(70, 9, 10, Some(50)), &mut late);
    event_of(&mut engine, &mut late, wait(80, 9, 50, 1));
    event_of(&mut engine, &mut late, exit(90, 9));
    engine.finish(KtimeNs(100), &mut late);
    let in_time = [birth(10, 9), park(20, 9, 1), wake(30, 9, Some(3)), park(50, 9, 1), wake(80, 9, Some(3)), exit(90, 9)];
    let image = event(1, 0, What::ProcessImage { ip: Address(0x1000) });
    let (told, _) = run(&[&[image], &in_time[..]].concat(), 100);
    let spans = |told: &Told| -> Vec<(SpanState, u64, u64)> {
        told.spans.iter().map(|(_, span)| (span.state, span.start.0, span.end.0)).collect()
    };
    assert_eq!(spans(&late), spans(&told));
    assert_eq!(late.lives, told.lives);
    assert!(engine.repairs().by_kind.is_empty(), "{:?}", engine.repairs());
}

/// Check that a look at a process neither makes a life of one that is too young to be told, nor a wait of one that is too short, where these
/// are summed.
#[test]
fn looks_beside_sums() {
    let (mut told, mut engine) = (Told::default(), Engine::default());
    engine.binary(&program());
    engine.sum_short(true);
    engine.event(&event(1, 0, What::ProcessImage { ip: Address(0x1000) }), &mut told);
    engine.kept(&kept(20, 9, 10, None), &mut told);
    for at in [30, 40, 50] {
        let alike = Likeness {
            gopc: Address(0x10),
            startpc: Address(0x20),
            state: Some("waiting".into()),
            wait_reason: Some("chan receive".into()),
            stack: None,
            stack_bytes: None,
            labels: None,
        };
        let look = GoroutineDump {
            tgid: Tgid(7),
            start_ticks: 0,
            binary: BinaryId(1),
            load_bias: 0,
            source: DumpSource::Memory,
            check: true,
            from: KtimeNs(at),
            to: KtimeNs(at + 5),
            tier: Tier::T2,
            kinds: vec![alike],
            goroutines: [9, 12].map(|goid| DumpedGoroutine(Goid(goid), None, 0)).to_vec(),
            objects: vec![],
            stacks: vec![],
            labels: vec![],
            torn: 0,
            last: true,
            gone: false,
            problem: None,
        };
        engine.dump(&look, &mut told);
    }
    engine.finish(KtimeNs(100), &mut told);
    let lives: Vec<(u64, Option<KtimeNs>)> = told.lives.iter().map(|(who, _)| (who.goid.0, who.born_at)).collect();
    assert_eq!(lives, [(9, Some(KtimeNs(10)))]);
    assert!(told.spans.iter().all(|(_, span)| span.state == SpanState::Awake), "{:?}", told.spans);
    assert!(engine.repairs().by_kind.is_empty(), "{:?}", engine.repairs());
}
