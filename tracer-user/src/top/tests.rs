//! The model over a made-up recording, and the screens that are drawn of it.

use tracer_common::header::Kind;

use super::{
    model::Model,
    picture::{Focus, Lasting, Picture, SiteRow, Suspicion},
};
use crate::{
    clock::{ClockTie, KtimeNs, WallTime},
    correlate::feed::Step,
    event::{CodeOf, Event, ProcessExit, Top, Transition, What},
    id::{Address, BinaryId, Goid, SiteId, StackId, Tgid, Tid},
    recording::{
        Block,
        contract::{
            Binary, Code, CodeEntry, CodeUse, Counters, Drained, DumpBegins, DumpSource, DumpedGoroutine, End, Frame,
            GoroutineDump, Joined, Likeness, Lost, Meta, Note, Paid, Site, Threads, Tier,
        },
    },
};

const SECOND: u64 = 1_000_000_000;
const ZERO: KtimeNs = KtimeNs(100 * SECOND);
/// Return addresses of `go` statements, and the entries of what they start.
const SERVE: (u64, u64) = (0x10, 0x20);
const REMIND: (u64, u64) = (0x30, 0x40);
/// Where a goroutine blocks.
const STACK: StackId = StackId(7);

/// A recording as it is made.
pub(super) struct Made {
    pub model: Model,
    seq: u64,
}

impl Made {
    /// A process with one binary at T3, whose code has names.
    pub fn new() -> Self {
        let meta = Meta {
            lifetrace: "0".into(),
            hostname: "here".into(),
            kernel: "6".into(),
            cpus: 1,
            clock: ClockTie { ktime_ns: ZERO, wall_ns: WallTime(0), error_ns: 0 },
            tier: Tier::T3,
            budget_ppm: Some(10_000),
            command: Vec::new(),
            target: Some("--pid 7".into()),
            hit_cost_ns: None,
            threads: Threads::Off,
            min_block_ns: None,
            cut: None,
        };
        let mut made = Self { model: Model::begin(meta), seq: 0 };
        made.block(Block::Binary(binary()));
        made.block(Block::Code(Code { binary: BinaryId(1), entries: names() }));
        made.event(0, What::ProcessImage { ip: Address(0x1000) });
        made.event(
            0,
            What::Stack { id: STACK, pcs: vec![Address(0x50)], truncated: false, top: Top::Return, of: CodeOf::Binary },
        );
        made
    }

    pub fn block(&mut self, block: Block) {
        assert!(self.model.step(Step::Block(block)));
    }

    fn event(&mut self, at_ms: u64, what: What) {
        let (at, seq) = (ZERO + at_ms * 1_000_000, self.seq);
        self.seq += 1;
        let event = Event { at, cpu: 0, seq, tgid: Tgid(7), tid: Tid(70), binary: Some(BinaryId(1)), site: SiteId(0), what };
        assert!(self.model.step(Step::Events { events: vec![event], undecodable: 0 }));
    }

    pub fn born(&mut self, at_ms: u64, goid: u64, (gopc, startpc): (u64, u64)) {
        let (gopc, startpc) = (Address(gopc), Address(startpc));
        self.event(at_ms, What::GoroutineBirth { goid: Goid(goid), parent: Some(Goid(1)), gopc, startpc, stack: None });
    }

    pub fn step(&mut self, at_ms: u64, goid: u64, transition: Transition) {
        self.event(at_ms, What::GoroutineTransition { goid: Goid(goid), transition, stack: None });
    }

    pub fn parks(&mut self, at_ms: u64, goid: u64) {
        let stack = Some(STACK);
        self.event(at_ms, What::GoroutinePark { goid: Goid(goid), wait_reason: 1, lock: Some(Address(0xc0)), stack });
    }

    pub fn wakes(&mut self, at_ms: u64, goid: u64) {
        self.event(at_ms, What::GoroutineWake { goid: Goid(goid), waker: Some(Goid(1)) });
    }

    pub fn exits(&mut self, at_ms: u64, goid: u64) {
        self.event(at_ms, What::GoroutineExit { goid: Goid(goid) });
    }

    /// Everything up to then is there.
    pub fn until(&mut self, at_ms: u64) {
        self.block(Block::Drained(Drained { at: ZERO + at_ms * 1_000_000, next_seq: vec![self.seq] }));
    }

    pub fn picture(&mut self) -> Picture {
        self.model.picture(&Focus::default())
    }

    pub fn site(&mut self, name: &str) -> SiteRow {
        self.picture().sites.into_iter().find(|site| site.name.contains(name)).expect("no such site")
    }
}

fn end(at_ms: u64) -> End {
    End {
        at: ZERO + at_ms * 1_000_000,
        reason: "exited".into(),
        detach_ns: None,
        wait_status: None,
        clock: None,
        target_cpu_ns: None,
    }
}

fn binary() -> Binary {
    Binary {
        id: BinaryId(1),
        path: "/bin/app".into(),
        go_version: "go1.26.6".into(),
        module: "app".into(),
        sites: vec![Site {
            id: SiteId(0),
            function: "runtime.gopark".into(),
            address: Address(0x1000),
            instruction: "push %rbp".into(),
        }],
        wait_reasons: vec!["".into(), "chan receive".into()],
        hchan_lock: None,
        semaphores: true,
        offsets: None,
        scheduling: true,
        stw_reasons: vec![],
    }
}

fn names() -> Vec<CodeEntry> {
    let entry = |address, use_as, function: &str, line| CodeEntry {
        address: Address(address),
        use_as,
        frames: vec![Frame { function: function.into(), file: "app/main.go".into(), line }],
        frameless: false,
    };
    vec![
        entry(SERVE.0, CodeUse::Return, "main.serve", 10),
        entry(SERVE.1, CodeUse::Entry, "main.handle", 20),
        entry(REMIND.0, CodeUse::Return, "main.(*shop).remind", 30),
        // A hostile name must not reach the terminal as it is.
        entry(REMIND.1, CodeUse::Entry, "main.evil\x1b[2Jremind", 40),
        entry(0x50, CodeUse::Return, "main.handle", 25),
    ]
}

/// Twelve seconds of a service: a handler each half second that ends, one that hangs, reminders that pile up.
pub(super) fn service() -> Made {
    let mut made = Made::new();
    made.born(1, 2, SERVE);
    made.step(2, 2, Transition::Run);
    made.parks(1_000, 2);
    for n in 0..24 {
        let (at, handler, reminder) = (n * 500 + 10, 100 + 2 * n, 101 + 2 * n);
        made.born(at, handler, SERVE);
        made.step(at + 2, handler, Transition::Run);
        made.born(at + 3, reminder, REMIND);
        made.exits(at + 4, handler);
        made.step(at + 5, reminder, Transition::Run);
        made.parks(at + 6, reminder);
    }
    let paid =
        Paid { binary: BinaryId(1), hits: [0, 9, 9, 9], cost_ns: [0, 40_000_000, 30_000_000, 20_000_000], cpu_ns: 12 * SECOND };
    let lost = vec![Lost { cpu: 0, kind: 2, count: 5 }];
    made.block(Block::Counters(Counters { at: ZERO + 12 * SECOND, lost, paid: vec![paid], ..Counters::default() }));
    made.until(12_000);
    made
}

/// Check that a site's goroutines are counted by what they do, its births and deaths by the second.
#[test]
fn counts() {
    let mut made = service();
    let serve = made.site("main.serve");
    assert_eq!((serve.alive, serve.name.as_str()), (1, "main.serve (app/main.go:10) -> main.handle"));
    assert_eq!((serve.born_per_s, serve.ended_per_s), (Some(2.0), Some(2.0)));
    let states = serve.states.unwrap();
    assert_eq!((states.blocked, states.not_blocked()), (1, 0));
    assert_eq!(states.longest, Some(Lasting { ns: 11 * SECOND, at_least: false }));
    assert_eq!(states.reasons, [("chan receive".into(), 1)]);
    // From birth to running it took two milliseconds each time, and one once.
    let about = |known: u64, is: u64| known.abs_diff(is) < 50_000;
    let delay = serve.delay_ns.unwrap();
    assert!(about(delay.0, 2_000_000) && about(delay.1, 2_000_000), "{delay:?}");
    let remind = made.site("remind");
    assert_eq!((remind.alive, remind.born_per_s, remind.ended_per_s), (24, Some(2.0), Some(0.0)));
}

/// Check that growth without bound is suspected, once it was watched for long enough, and nothing else is.
#[test]
fn suspicion() {
    let mut made = service();
    assert!(matches!(made.site("remind").suspicion, Suspicion::Grows(per_hour) if (5_000.0..9_000.0).contains(&per_hour)));
    assert_eq!(made.site("main.serve").suspicion, Suspicion::None);
    let mut young = Made::new();
    young.born(1, 2, SERVE);
    young.until(2_000);
    assert_eq!(young.site("main.serve").suspicion, Suspicion::Unknown);
}

/// Check what the header says of loss, price and detail.
#[test]
fn header() {
    let mut made = service();
    let header = made.picture().header;
    assert_eq!((header.alive, header.processes, header.lost), (25, 1, 5));
    assert_eq!((header.price, header.budget), (Some(0.0075), Some(0.01)));
    assert_eq!(header.tiers.into_iter().collect::<Vec<_>>(), [(Tier::T3, 1)]);
    assert_eq!(header.now_ns, 12 * SECOND);
}

/// Check that at a tier that tells nothing of births no rate is made up, and of states none that nobody saw.
#[test]
fn unknown() {
    let mut made = service();
    let coverage =
        |at_ms: u64, tier| Note::Coverage { at: ZERO + at_ms * 1_000_000, binary: BinaryId(1), tier, why: None, share_ppm: None };
    made.block(Block::Note(coverage(0, Tier::T3)));
    made.block(Block::Note(coverage(12_000, Tier::T0)));
    made.until(20_000);
    let remind = made.site("remind");
    assert_eq!((remind.alive, remind.born_per_s, remind.ended_per_s), (24, None, None));
    let states = remind.states.unwrap();
    assert_eq!((states.unknown, states.blocked, states.longest), (24, 0, None));
}

/// Check that a goroutine's story has what it did before somebody looked, goes on while somebody does, and tells of its end.
#[test]
fn story() {
    let mut made = service();
    let sites = made.picture().sites;
    let serve = sites.iter().find(|site| site.name.contains("main.serve")).unwrap();
    let focus = Focus { site: Some(serve.id), goroutine: Some((serve.image, Goid(2))) };
    let picture = made.model.picture(&focus);
    assert_eq!(picture.goroutines.iter().map(|row| row.goid).collect::<Vec<_>>(), [Goid(2)]);
    let told = |picture: &Picture| -> Vec<(&'static str, u64, String)> {
        let detail = picture.goroutine.as_ref().expect("no story");
        detail.spans.iter().map(|span| (span.state, span.ns / 1_000_000, span.what.clone())).collect()
    };
    assert_eq!(picture.goroutine.as_ref().unwrap().stack, ["main.handle (app/main.go:25)"]);
    let until_then = [
        ("runnable", 1, String::new()),
        ("running", 998, String::new()),
        ("blocked", 11_000, "chan receive at main.handle (app/main.go:25)".to_owned()),
    ];
    assert_eq!(told(&picture), until_then);
    made.wakes(12_500, 2);
    made.step(12_600, 2, Transition::Run);
    made.exits(13_000, 2);
    made.until(14_000);
    let picture = made.model.picture(&focus);
    let story = told(&picture);
    assert_eq!((&story[..2], story[2].1), (&until_then[..2], 11_500));
    assert_eq!(story[2].2, "chan receive at main.handle (app/main.go:25), woken by go:1");
    assert_eq!(story[3..], [("runnable", 100, "at main.handle (app/main.go:25)".to_owned()), ("running", 400, String::new())]);
    let facts = &picture.goroutine.unwrap().facts;
    assert!(facts.contains(&("ended", "it returned, 1 s ago".to_owned())), "{facts:?}");
    assert!(picture.goroutines.is_empty());
}

/// Check that what was alive when its process ended stays to be seen, and why nothing new comes.
#[test]
fn process_ends() {
    let mut made = service();
    let exit = ProcessExit { start_boottime_ns: 0, wait_status: Some(3 << 8), parent: None, autoreaped: false };
    made.event(12_500, What::ProcessExit(exit));
    made.block(Block::End(end(13_000)));
    made.until(13_000);
    assert!(!made.model.step(Step::End(Ok(crate::recording::Completeness::Complete))));
    let picture = made.picture();
    assert_eq!(picture.processes[0].ended.as_deref(), Some("exit 3"));
    assert_eq!((picture.header.over.as_deref(), picture.header.processes), (Some("the process has ended"), 0));
    let remind = made.site("remind");
    assert_eq!((remind.alive, remind.states.is_none()), (24, true));
}

/// Check that memory is let go of: of many ended processes the newest are kept.
#[test]
fn forgets() {
    let mut made = Made::new();
    for n in 0..100u64 {
        let (at, tgid) = (10 + n * 10, Tgid(100 + n as u32));
        let seq = made.seq;
        made.seq += 2;
        let event = |at_ms: u64, seq, binary, what| Event {
            at: ZERO + at_ms * 1_000_000,
            cpu: 0,
            seq,
            tgid,
            tid: Tid(tgid.0),
            binary,
            site: SiteId(0),
            what,
        };
        let (gopc, startpc) = (Address(SERVE.0), Address(SERVE.1));
        let birth = What::GoroutineBirth { goid: Goid(1), parent: None, gopc, startpc, stack: None };
        let exit = What::ProcessExit(ProcessExit { start_boottime_ns: 0, wait_status: Some(0), parent: None, autoreaped: false });
        let events = vec![event(at, seq, Some(BinaryId(1)), birth), event(at + 5, seq + 1, None, exit)];
        made.model.step(Step::Events { events, undecodable: 0 });
    }
    made.until(5_000);
    let picture = made.picture();
    assert!((32..=33).contains(&picture.processes.len()), "{}", picture.processes.len());
    assert!(picture.processes.iter().any(|process| process.tgid == Tgid(199)));
}

/// Check that who was there before is not said to be known while the look that found it lies here untold: it comes behind a younger mark,
/// and is told with the next one.
#[test]
fn known_once_told() {
    let at = |ms: u64| ZERO + ms * 1_000_000;
    let mut made = Made::new();
    made.until(5);
    made.block(Block::Joined(Joined {
        at: at(10),
        tgid: Tgid(7),
        start_ticks: 1,
        parent: None,
        args: vec!["app".into()],
        binary: BinaryId(1),
        load_bias: 0,
        dump_follows: true,
    }));
    made.until(12);
    assert!(!made.model.knows(at(11)));
    let kind = Likeness {
        gopc: Address(SERVE.0),
        startpc: Address(SERVE.1),
        state: Some("waiting".into()),
        wait_reason: Some("chan receive".into()),
        stack: None,
        stack_bytes: None,
        labels: None,
    };
    made.block(Block::Dump(GoroutineDump {
        tgid: Tgid(7),
        start_ticks: 1,
        binary: BinaryId(1),
        load_bias: 0,
        source: DumpSource::Memory,
        check: false,
        from: at(20),
        to: at(120),
        tier: Tier::T2,
        kinds: vec![kind],
        goroutines: (1..=5).map(|goid| DumpedGoroutine(Goid(goid), None, 0)).collect(),
        objects: vec![],
        stacks: vec![],
        labels: vec![],
        torn: 0,
        last: true,
        gone: false,
        problem: None,
    }));
    let alive = |made: &mut Made| made.picture().processes.first().map_or(0, |process| process.alive);
    // The mark that is written next was begun before the look was.
    for mark in [None, Some(15)] {
        mark.into_iter().for_each(|mark| made.until(mark));
        assert!(!made.model.knows(at(11)), "{mark:?}");
        assert_eq!(alive(&mut made), 0, "{mark:?}");
    }
    made.until(200);
    assert!(made.model.knows(at(11)));
    assert_eq!(alive(&mut made), 5);
}

/// Check that a record whose number was passed over is lost once a mark is past it and counters were read, not while it may still come, and that
/// it is told under one name.
#[test]
fn losses_once_counted() {
    let mut made = Made::new();
    made.until(1);
    let lost = |made: &mut Made| made.picture().header.lost_kinds;
    made.seq += 2;
    made.born(5, 1, SERVE);
    assert_eq!(lost(&mut made), "");
    made.until(10);
    assert_eq!(lost(&mut made), "", "who lost them says so soon");
    let exits = |at_s: u64| {
        let lost = vec![Lost { cpu: 0, kind: Kind::GoroutineExit as u8, count: 2 }];
        Block::Counters(Counters { at: ZERO + at_s * SECOND, lost, ..Counters::default() })
    };
    made.block(exits(1));
    assert_eq!(lost(&mut made), "goroutine_exit 2");
    made.seq += 1;
    made.born(2_020, 2, SERVE);
    made.until(2_030);
    assert_eq!(lost(&mut made), "goroutine_exit 2");
    // Nobody says what it was.
    made.block(exits(3));
    assert_eq!(lost(&mut made), "goroutine_exit 2, unknown 1");
}

/// Check that what waited for a look that never came is told when the recording ends, at the latest.
#[test]
fn last_block_tells_all() {
    let mut made = Made::new();
    made.until(5);
    made.block(Block::DumpBegins(DumpBegins { at: ZERO + 10_000_000, tgid: Tgid(7), source: DumpSource::Memory }));
    made.born(20, 1, SERVE);
    made.until(100);
    let alive = |made: &mut Made| made.picture().processes.first().map(|process| process.alive);
    assert_eq!((alive(&mut made), made.model.knows(ZERO + 20_000_000)), (None, false));
    made.block(Block::End(end(100)));
    assert_eq!((alive(&mut made), made.model.knows(ZERO + 20_000_000)), (Some(1), true));
}

/// Check that no byte of the target's reaches the terminal as a control character.
#[test]
fn hostile_names() {
    let mut made = service();
    let remind = made.site("remind");
    assert!(remind.name.ends_with(r"main.evil\u{1b}[2Jremind"), "{}", remind.name);
}
