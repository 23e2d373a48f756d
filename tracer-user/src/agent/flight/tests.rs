use std::fs;

use tracer_common::{
    goroutine::{GoroutineBirth, GoroutinePark},
    header::{Header, Kind as RecordKind},
    process::ProcessImage,
    stack::{MAX_FRAMES, Stack},
};
use zerocopy::{Immutable, IntoBytes};

use super::*;
use crate::{
    clock::WallTime,
    correlate::{
        Life, Sink, Span, SpanState,
        goroutine::Who,
        replay::{Replayed, replay},
    },
    id::{Address, BinaryId, Goid, StackId, Tgid},
    recording::{
        contract::{Binary, DumpSource, DumpedGoroutine, GoroutineDump, Joined, Likeness, Note, Threads, Tier},
        frame_record,
        reader::Recording,
        writer::Writer,
    },
};

const S: u64 = 1_000_000_000;
const ZERO: u64 = 100 * S;

/// A recording in the making: packed blocks, as the tap sees them.
struct Made {
    writer: Writer<Vec<u8>>,
    seq: u64,
}

impl Made {
    fn new() -> Self {
        let mut writer = Writer::start(Vec::new(), Path::new("made"), &meta()).unwrap();
        writer.drained(&Drained { at: KtimeNs(0), next_seq: Vec::new() }).unwrap();
        writer.binary(&binary()).unwrap();
        writer
            .joined(&Joined {
                at: KtimeNs(ZERO),
                tgid: Tgid(7),
                start_ticks: 5,
                parent: None,
                args: vec!["app".into()],
                binary: BinaryId(1),
                load_bias: 0,
                dump_follows: false,
            })
            .unwrap();
        let mut made = Self { writer, seq: 0 };
        let header = made.header(0, RecordKind::ProcessImage);
        made.record(&ProcessImage { header, ip: 0 });
        made
    }

    /// The probes are there from now on.
    fn covered(mut self) -> Self {
        let note = Note::Coverage { at: KtimeNs(ZERO), binary: BinaryId(1), tier: Tier::T2, why: None, share_ppm: None };
        self.writer.note(&note).unwrap();
        self
    }

    fn header(&mut self, at: u64, kind: RecordKind) -> Header {
        self.seq += 1;
        let seq = self.seq - 1;
        Header { ktime_ns: ZERO + at, seq, tgid: 7, tid: 7, cpu: 0, binary: 1, site: 0, kind: kind as u8, _pad: 0 }
    }

    fn record<R: IntoBytes + Immutable>(&mut self, record: &R) {
        let mut framed = Vec::new();
        frame_record(&mut framed, record.as_bytes());
        self.writer.records(&framed).unwrap();
    }

    fn birth(&mut self, at: u64, goid: u64) {
        let header = self.header(at, RecordKind::GoroutineBirth);
        self.record(&GoroutineBirth { header, goid, parent_goid: 1, gopc: 0x10, startpc: 0x20, stack_id: 0 });
    }

    fn stack(&mut self, at: u64, stack_id: u64) {
        let header = self.header(at, RecordKind::Stack);
        self.record(&Stack { header, stack_id, depth: 1, flags: 0, pcs: [0x50; MAX_FRAMES] });
    }

    fn park(&mut self, at: u64, goid: u64, stack_id: u64) {
        let header = self.header(at, RecordKind::GoroutinePark);
        self.record(&GoroutinePark { header, goid, stack_id, lock: 0, wait_reason: 0, _pad: [0; 7] });
    }

    /// A mark that is not as young as the newest records.
    fn late_mark(&mut self, at: u64, next_seq: u64) {
        self.writer.drained(&Drained { at: KtimeNs(ZERO + at), next_seq: vec![next_seq] }).unwrap();
    }

    fn mark(&mut self, at: u64) {
        self.writer.drained(&Drained { at: KtimeNs(ZERO + at), next_seq: vec![self.seq] }).unwrap();
    }

    /// A part of a look that began at that time.
    fn look(&mut self, from: u64, goids: &[u64], last: bool) {
        let alike = Likeness {
            gopc: Address(0x10),
            startpc: Address(0x20),
            state: Some("runnable".into()),
            wait_reason: None,
            stack: None,
            stack_bytes: None,
            labels: None,
        };
        let dump = GoroutineDump {
            tgid: Tgid(7),
            start_ticks: 5,
            binary: BinaryId(1),
            load_bias: 0,
            source: DumpSource::Memory,
            check: true,
            from: KtimeNs(ZERO + from),
            to: KtimeNs(ZERO + from + S),
            tier: Tier::T2,
            kinds: vec![alike],
            goroutines: goids.iter().map(|goid| DumpedGoroutine(Goid(*goid), None, 0)).collect(),
            objects: Vec::new(),
            stacks: Vec::new(),
            labels: Vec::new(),
            torn: 0,
            last,
            problem: None,
            gone: false,
        };
        self.writer.dump(&dump).unwrap();
    }

    /// Has the flight recorder see all of it.
    fn fly(self, limits: Limits) -> Flight {
        let bytes = self.writer.into_inner();
        let recording = Recording::from_reader(&bytes[..], Path::new("made")).unwrap();
        let flight = Flight::new(recording.meta().clone(), limits);
        let mut recording = recording.tapped(flight.tap());
        while recording.next_stored().unwrap().is_some() {}
        flight
    }
}

fn meta() -> Meta {
    Meta {
        lifetrace: "0".into(),
        hostname: "here".into(),
        kernel: "6".into(),
        cpus: 1,
        clock: ClockTie { ktime_ns: KtimeNs(ZERO), wall_ns: WallTime(1000 * S), error_ns: 0 },
        tier: Tier::T2,
        budget_ppm: None,
        command: Vec::new(),
        target: None,
        hit_cost_ns: None,
        threads: Threads::Off,
        min_block_ns: None,
        cut: None,
    }
}

fn binary() -> Binary {
    Binary {
        id: BinaryId(1),
        path: "/app".into(),
        go_version: "1.24".into(),
        module: String::new(),
        sites: Vec::new(),
        wait_reasons: vec!["chan receive".into()],
        hchan_lock: None,
        semaphores: false,
        offsets: None,
        scheduling: false,
        stw_reasons: Vec::new(),
    }
}

/// Blocked spans, by goroutine.
#[derive(Default)]
struct Blocked(Vec<(u64, KtimeNs, Option<StackId>)>);

impl Sink for Blocked {
    fn span(&mut self, who: &Who, span: &Span) {
        if span.state == SpanState::Blocked {
            self.0.push((who.goid.0, span.start, span.stack));
        }
    }

    fn life(&mut self, _: &Who, _: &Life) {}
}

/// Who lived, and whether a look had to tell of their birth.
#[derive(Default)]
struct Lives(Vec<(u64, bool)>);

impl Sink for Lives {
    fn span(&mut self, _: &Who, _: &Span) {}

    fn life(&mut self, who: &Who, _: &Life) {
        self.0.push((who.goid.0, who.born_by.is_some()));
    }
}

fn read(path: &Path) -> (Replayed, Blocked) {
    let mut blocked = Blocked::default();
    let replayed = replay(Recording::open(path).unwrap(), &mut blocked).unwrap();
    (replayed, blocked)
}

fn to(path: &Path) -> Place {
    Place { path: path.to_owned(), most_bytes: 1 << 30, first: Box::new(|| ()) }
}

/// The clock when something is cut, an hour into the recording: set by somebody meanwhile.
fn clock() -> ClockTie {
    ClockTie { ktime_ns: KtimeNs(ZERO + 3540 * S), wall_ns: WallTime(9000 * S), error_ns: 0 }
}

/// Cuts, and waits until the file is there.
fn cut(flight: &Flight, path: &Path, after: u64) -> (Kept, impl Fn() -> Fate + use<>) {
    let kept = flight.cut(to(path), Duration::from_secs(after), clock()).unwrap();
    let flight = flight.clone();
    let fate = move || loop {
        if let Some(fate) = flight.over() {
            return fate;
        }
        std::thread::yield_now();
    };
    (kept, fate)
}

/// The recording goes on for one mark, once so many records were made.
fn goes_on(flight: &Flight, seq: u64, at: u64) {
    let mut more = Made::new();
    more.seq = seq;
    more.mark(at);
    let bytes = more.writer.into_inner();
    let mut more = Recording::from_reader(&bytes[..], Path::new("made")).unwrap().tapped(flight.tap());
    while more.next_stored().unwrap().is_some() {}
}

/// An hour of marks, a second apart, with a stack that came early and parks that name it.
fn hour() -> Made {
    let mut made = Made::new().covered();
    made.stack(1, 77);
    for second in 1..3600 {
        if second % 10 == 0 {
            made.birth(second * S, second);
            made.park(second * S + 1000, second, 77);
        }
        made.mark(second * S + S / 2);
    }
    made
}

/// Check that what is cut is a recording of its own: it begins where it was wanted to, misses nothing, knows stacks that were sent long
/// before, and who lives.
#[test]
fn reaches_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lifetrace");
    let flight = hour().fly(Limits { before: Duration::from_secs(60), bytes: 1 << 20 });
    let (kept, fate) = cut(&flight, &path, 0);
    assert_eq!(kept.before, Duration::from_secs(60));
    assert!(flight.cut(to(&path), Duration::ZERO, clock()).is_none(), "one at a time");
    goes_on(&flight, 10_000, 3600 * S);
    let fate = fate();
    assert!(fate.whole && fate.written.is_ok() && !path.with_extension("part").exists());
    let (replayed, blocked) = read(&path);
    assert_eq!(replayed.meta.clock.ktime_ns, KtimeNs(ZERO + 3539 * S + S / 2));
    assert_eq!(replayed.meta.clock.wall_ns, WallTime(9000 * S - S / 2), "by the clock as it was when it was cut");
    assert_eq!(replayed.end.as_ref().map(|end| end.reason.as_str()), Some(WINDOW_OVER));
    let goids: Vec<u64> = blocked.0.iter().map(|(goid, ..)| *goid).collect();
    assert_eq!(goids, [3540, 3550, 3560, 3570, 3580, 3590]);
    assert!(blocked.0.iter().all(|(_, _, stack)| *stack == Some(StackId(77))));
    assert!(replayed.stacks.contains_key(&StackId(77)));
    let processes = replayed.engine.processes();
    assert_eq!(processes.processes().count(), 1);
    assert!(processes.images().any(|(_, image)| image.binary == Some(BinaryId(1)) && image.args == ["app"]));
    // The mark that followed says that records were made which are not there.
    assert_eq!(replayed.order.gaps.len(), 1);
    assert!(replayed.order.gaps[0].from >= KtimeNs(ZERO + 3590 * S));
}

/// Check that records that came before a mark, and are younger than it, are in what is cut there.
#[test]
fn younger_than_the_mark() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lifetrace");
    let mut made = Made::new();
    for second in 1..100 {
        made.birth(second * S, second);
        let seq = made.seq;
        made.park(second * S + 10, second, 0);
        made.late_mark(second * S + 5, seq);
    }
    made.mark(100 * S);
    let flight = made.fly(Limits { before: Duration::from_secs(50), bytes: 1 << 20 });
    let (_, fate) = cut(&flight, &path, 0);
    goes_on(&flight, 200, 101 * S);
    assert!(fate().whole);
    let (replayed, blocked) = read(&path);
    let goids: Vec<u64> = blocked.0.iter().map(|(goid, ..)| *goid).collect();
    assert_eq!(goids, (49..100).collect::<Vec<u64>>());
    assert_eq!(replayed.order.gaps.len(), 1, "that of the mark behind: {:?}", replayed.order.gaps);
}

/// Check that of a look of which the window has only the last part nothing is believed: the next one finds who was there.
#[test]
fn cut_in_a_look() {
    // The window may also begin before it is said that the probes are there.
    for mut made in [Made::new().covered(), Made::new()] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lifetrace");
        for second in 1..100 {
            match second {
                40 => made.look(40 * S, &[1, 2], false),
                60 => made.look(40 * S, &[3], true),
                80 => made.look(80 * S, &[1, 2, 3, 4], true),
                _ => {}
            }
            made.mark(second * S);
        }
        let flight = made.fly(Limits { before: Duration::from_secs(50), bytes: 1 << 20 });
        let (_, fate) = cut(&flight, &path, 0);
        goes_on(&flight, 1, 101 * S);
        assert!(fate().whole);
        let mut lives = Lives::default();
        let replayed = replay(Recording::open(&path).unwrap(), &mut lives).unwrap();
        assert_eq!(
            lives.0,
            [(1, false), (2, false), (3, false), (4, false)],
            "who was there, none of them as one of whom nothing was told"
        );
        assert!(replayed.engine.repairs().by_kind.is_empty(), "{:?}", replayed.engine.repairs());
    }
}

/// Check that what has begun late is cut whole, and that memory bounds how far it reaches back.
#[test]
fn bounded() {
    let dir = tempfile::tempdir().unwrap();
    let mut young = Made::new();
    young.birth(S, 3);
    young.mark(2 * S);
    let path = dir.path().join("a.lifetrace");
    let flight = young.fly(Limits { before: Duration::from_secs(60), bytes: 1 << 20 });
    let (kept, _fate) = cut(&flight, &path, 0);
    assert_eq!(kept.before, Duration::from_secs(2));
    let small = hour().fly(Limits { before: Duration::from_secs(3600), bytes: 20_000 });
    let other = dir.path().join("b.lifetrace");
    let (kept, _fate) = cut(&small, &other, 0);
    assert!(kept.before > Duration::from_secs(10) && kept.before < Duration::from_secs(1000), "{kept:?}");
    assert!(small.inner().bytes <= 20_000);
}

/// Check that a folder that is not there costs the window and nothing else.
#[test]
fn no_folder() {
    let dir = tempfile::tempdir().unwrap();
    let flight = hour().fly(Limits { before: Duration::from_secs(60), bytes: 1 << 20 });
    let (_, fate) = cut(&flight, &dir.path().join("no/a.lifetrace"), 60);
    assert!(fate().written.is_err());
    assert!(flight.cut(to(&dir.path().join("a.lifetrace")), Duration::ZERO, clock()).is_some());
    assert!(fs::read_dir(dir.path()).unwrap().count() <= 1);
}

/// Check that a window says that not everything of before it was kept.
#[test]
fn forgets() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lifetrace");
    let mut made = Made::new();
    for stack in 1..=32_768 + 5 {
        made.stack(stack, stack);
    }
    for second in 1..100 {
        made.mark(second * S);
    }
    let flight = made.fly(Limits { before: Duration::from_secs(10), bytes: 1 << 20 });
    let (_, fate) = cut(&flight, &path, 0);
    goes_on(&flight, 100_000, 101 * S);
    assert!(fate().whole);
    let (replayed, _) = read(&path);
    let said = replayed.notes.iter().find_map(|note| match note {
        Note::Warning { text, .. } => Some(text.as_str()),
        _ => None,
    });
    assert!(said.is_some_and(|text| text.starts_with("5 things")), "{:?}", replayed.notes);
}
