//! Synthetic recordings: a scene is a list of events, written as a tracer would.

use std::path::Path;

use tracer_common::process::Cgroup;
use tracer_user::{
    clock::{ClockTie, KtimeNs, WallTime},
    decode::encode,
    event::{CodeOf, Event, ProcessExit, ProcessFork, Program, Runner, Top, Transition, What},
    id::{Address, BinaryId, Goid, SiteId, StackId, Tgid, Tid},
    index,
    recording::{
        contract::{
            Binary, CgroupMemory, Code, CodeEntry, CodeUse, Counters, Drained, DumpBegins, End, Frame, GoHeap, GoroutineDump,
            KindCount, Lost, MemoryAt, Meta, Note, ProcessMemory, Profile, ProfileKind, Site, Tier, UsdtFile, Why,
        },
        frame_record,
        writer::Writer,
    },
};

/// The recording's zero.
pub const ZERO: u64 = 1_000_000_000;
pub const BIAS: u64 = 0x5555_0000_0000;
const MS: u64 = 1_000_000;
/// Link addresses.
const GOPARK: u64 = 0x1000;
const READY: u64 = 0x2000;
const NEWCORO: u64 = 0x2010;
const GO_WORKER: u64 = 0x3010;
const GO_MAIN: u64 = 0x3020;
const GO_SWEEP: u64 = 0x3030;
/// Where Go's test framework makes the goroutine of a test.
pub const GO_TEST: u64 = 0x3040;
const WORKER: u64 = 0x4000;
const MAIN: u64 = 0x4100;
const SWEEP: u64 = 0x4200;
const RECV: u64 = 0x5000;
const IN_WORKER: u64 = 0x5010;
const IN_MAIN: u64 = 0x5020;
const GOEXIT: u64 = 0x5030;
const NEWPROC: u64 = 0x5040;
const LEAF: u64 = 0x6000;
const IN_SCHEDULE: u64 = 0x6010;
const STOP: u64 = 0x7000;
const START: u64 = 0x7100;

/// Records of a session, in the order in which they arrive.
#[derive(Clone, Default)]
pub struct Scene {
    pub events: Vec<Event>,
    seqs: [u64; 4],
    pub tier: Option<Tier>,
    /// From when on another tier was followed, ms.
    pub steps: Vec<(u64, Tier, Why)>,
    pub lost: Vec<Lost>,
    pub unended: bool,
    /// Behind so many events: up to when everything is there. By place.
    pub marks: Vec<(usize, Drained)>,
    /// Milliseconds after zero, if not 20.
    pub ends_at_ms: Option<u64>,
    /// The CPUs were sampled a hundred times a second.
    pub sampled: bool,
    /// Looks at the processes; they come late, as they do in life.
    pub dumps: Vec<GoroutineDump>,
    pub profiles: Vec<Profile>,
    pub memory: Vec<MemoryAt>,
    pub usdt: Vec<UsdtFile>,
    /// Blocks of three records, each with its index.
    pub indexed: bool,
}

impl Scene {
    /// One that ends so many milliseconds after zero.
    pub fn lasting(ms: u64) -> Self {
        Self { ends_at_ms: Some(ms), ..Self::default() }
    }

    /// Adds an event of `tgid` on `cpu`, `at_us` microseconds after zero.
    pub fn event(&mut self, at_us: u64, cpu: u16, tgid: u32, site: Option<u16>, what: What) -> &mut Self {
        let seq = self.seqs[cpu as usize];
        self.seqs[cpu as usize] += 1;
        self.events.push(Event {
            at: KtimeNs(ZERO + at_us * 1000),
            cpu,
            seq,
            tgid: Tgid(tgid),
            tid: Tid(tgid + u32::from(cpu)),
            binary: site.map(|_| BinaryId(1)),
            site: SiteId(site.unwrap_or(0)),
            what,
        });
        self
    }

    pub fn birth(&mut self, at_us: u64, tgid: u32, goid: u64, parent: u64, code: (u64, u64)) -> &mut Self {
        let what = What::GoroutineBirth {
            goid: Goid(goid),
            parent: (parent != 0).then_some(Goid(parent)),
            gopc: Address(BIAS + code.0),
            startpc: Address(BIAS + code.1),
            stack: (code.0 == GO_WORKER).then_some(StackId(8)),
        };
        self.event(at_us, 0, tgid, Some(0), what)
    }

    pub fn park(&mut self, at_us: u64, tgid: u32, goid: u64, wait_reason: u8) -> &mut Self {
        let lock = (wait_reason == 2).then_some(Address(0xc000_1058));
        let what = What::GoroutinePark { goid: Goid(goid), wait_reason, lock, stack: Some(StackId(9)) };
        self.event(at_us, 0, tgid, Some(0), what)
    }

    pub fn wake(&mut self, at_us: u64, tgid: u32, goid: u64, waker: u64) -> &mut Self {
        let waker = (waker != 0).then_some(Goid(waker));
        self.event(at_us, 1, tgid, Some(1), What::GoroutineWake { goid: Goid(goid), waker })
    }

    /// Another change of state, on a thread of `cpu`.
    pub fn step(&mut self, at_us: u64, cpu: u16, tgid: u32, goid: u64, transition: Transition) -> &mut Self {
        use Transition::{CoroutineStop, Preempt, Syscall, Yield};
        let stops = matches!(transition, Yield | Preempt | Syscall | CoroutineStop);
        let what = What::GoroutineTransition { goid: Goid(goid), transition, stack: stops.then_some(StackId(9)) };
        self.event(at_us, cpu, tgid, Some(1), what)
    }

    pub fn exit(&mut self, at_us: u64, tgid: u32, goid: u64) -> &mut Self {
        self.event(at_us, 1, tgid, Some(1), What::GoroutineExit { goid: Goid(goid) })
    }

    /// Fork, exec, and the first hit of a probe.
    pub fn start(&mut self, at_us: u64, tgid: u32, args: &[&str]) -> &mut Self {
        let born = u64::from(tgid) * 10 * MS;
        let fork = What::ProcessFork(ProcessFork {
            child: Tgid(tgid),
            child_start_boottime_ns: born,
            parent_start_boottime_ns: 5 * MS,
            parent: Tgid(900),
            cgroup: Cgroup::default(),
        });
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let exec = What::ProcessExec(Box::new(Program { start_boottime_ns: born, args, ..Program::default() }));
        self.event(at_us, 0, 900, None, fork);
        self.event(at_us + 100, 0, tgid, None, exec);
        self.event(at_us + 200, 0, tgid, Some(0), What::ProcessImage { ip: Address(BIAS + GOPARK) })
    }

    pub fn stop(&mut self, at_us: u64, tgid: u32, wait_status: u32) -> &mut Self {
        let what = What::ProcessExit(ProcessExit {
            start_boottime_ns: u64::from(tgid) * 10 * MS,
            wait_status: Some(wait_status),
            parent: None,
            autoreaped: false,
        });
        self.event(at_us, 1, tgid, None, what)
    }

    /// Loses the newest event, as a full ring would.
    pub fn lose(&mut self) -> &mut Self {
        let event = self.events.pop().expect("something to lose");
        self.lost.push(Lost { cpu: event.cpu, kind: encode(&event)[30], count: 1 });
        self
    }

    /// A shop with two workers: one is done, one waits for ever; main sleeps; the runtime sweeps.
    pub fn shop(&mut self, tgid: u32) -> &mut Self {
        let pcs = |pcs: &[u64]| pcs.iter().map(|pc| Address(BIAS + pc)).collect();
        let creation = pcs(&[NEWPROC, GO_WORKER, IN_MAIN, GOEXIT]);
        let blocking = pcs(&[RECV, IN_WORKER, GOEXIT]);
        self.start(1_000, tgid, &["./shop", "--workers", "2"])
            .event(
                1_201,
                0,
                tgid,
                Some(0),
                What::Stack { id: StackId(8), pcs: creation, truncated: false, top: Top::Return, of: CodeOf::Binary },
            )
            .event(
                1_202,
                0,
                tgid,
                Some(0),
                What::Stack { id: StackId(9), pcs: blocking, truncated: false, top: Top::Return, of: CodeOf::Binary },
            )
            .birth(1_300, tgid, 1, 0, (GO_MAIN, MAIN))
            .birth(1_400, tgid, 2, 1, (GO_SWEEP, SWEEP))
            .park(1_500, tgid, 2, 3)
            .birth(2_000, tgid, 17, 1, (GO_WORKER, WORKER))
            .birth(2_100, tgid, 18, 1, (GO_WORKER, WORKER))
            .park(2_200, tgid, 17, 2)
            .event(2_250, 0, tgid, Some(0), What::GoroutineParkAbort { goid: Goid(17) })
            .park(2_300, tgid, 17, 2)
            .park(2_400, tgid, 18, 2)
            .park(3_000, tgid, 1, 1)
            .wake(5_000, tgid, 1, 0)
            .wake(5_300, tgid, 17, 1)
            .exit(5_500, tgid, 17)
            .stop(10_000, tgid, 3 << 8)
    }

    /// The same with every change of state: main makes a worker and yields to it; the worker enters a system call and loses its
    /// processor, then waits to be woken, is preempted, and switches to a coroutine, which ends.
    pub fn scheduled_shop(&mut self, tgid: u32) -> &mut Self {
        use Transition::{CoroutineRun, CoroutineStop, Preempt, Run, Syscall, SyscallExit, SyscallExitQueued, Yield};
        let pcs = |pcs: &[u64]| pcs.iter().map(|pc| Address(BIAS + pc)).collect();
        self.tier = Some(Tier::T3);
        self.start(1_000, tgid, &["./shop", "--workers", "1"])
            .event(
                1_201,
                0,
                tgid,
                Some(0),
                What::Stack {
                    id: StackId(8),
                    pcs: pcs(&[NEWPROC, GO_WORKER, IN_MAIN]),
                    truncated: false,
                    top: Top::Return,
                    of: CodeOf::Binary,
                },
            )
            .event(
                1_202,
                0,
                tgid,
                Some(0),
                What::Stack {
                    id: StackId(9),
                    pcs: pcs(&[RECV, IN_WORKER]),
                    truncated: false,
                    top: Top::Return,
                    of: CodeOf::Binary,
                },
            )
            .birth(1_300, tgid, 1, 0, (GO_MAIN, MAIN))
            .step(1_310, 0, tgid, 1, Run)
            .birth(2_000, tgid, 17, 1, (GO_WORKER, WORKER))
            .step(2_100, 0, tgid, 1, Yield)
            .step(2_150, 0, tgid, 17, Run)
            .step(2_200, 0, tgid, 17, Syscall)
            .step(2_400, 0, tgid, 17, SyscallExitQueued)
            .step(2_410, 1, tgid, 1, Run)
            .step(2_500, 0, tgid, 17, Run)
            .park(2_600, tgid, 17, 2)
            .wake(3_000, tgid, 17, 1)
            .step(3_050, 1, tgid, 1, Syscall)
            .step(3_060, 1, tgid, 1, SyscallExit)
            .step(3_100, 0, tgid, 17, Run)
            .step(3_200, 0, tgid, 17, Preempt)
            .wake(3_220, tgid, 17, 1)
            .step(3_250, 0, tgid, 17, Run)
            .birth_at(3_300, 2, tgid, 18, 17)
            .step(3_400, 0, tgid, 17, CoroutineStop)
            .step(3_401, 0, tgid, 18, CoroutineRun)
            .event(3_500, 0, tgid, Some(1), What::GoroutineExit { goid: Goid(18) })
            .step(3_501, 0, tgid, 17, CoroutineRun)
            .event(3_600, 0, tgid, Some(1), What::GoroutineExit { goid: Goid(17) })
            .stop(10_000, tgid, 0)
    }

    /// A birth at another site than newproc's.
    fn birth_at(&mut self, at_us: u64, site: u16, tgid: u32, goid: u64, parent: u64) -> &mut Self {
        self.birth(at_us, tgid, goid, parent, (GO_WORKER, WORKER));
        if let Some(event) = self.events.last_mut() {
            event.site = SiteId(site);
        }
        self
    }

    /// What the runtime of the shop does besides: a cycle whose second pause is long, a pause of another reason, one that does
    /// not end. Worker 18 is woken in the long one.
    pub fn collector(&mut self, tgid: u32) -> &mut Self {
        let stop = |goid, reason| What::StopTheWorld { goid: Some(Goid(goid)), reason };
        let start = |goid| What::StartTheWorld { goid: Some(Goid(goid)) };
        self.event(6_000, 0, tgid, Some(3), What::GcCycleStart { goid: Some(Goid(1)) })
            .event(6_010, 0, tgid, Some(3), stop(1, 2))
            .event(6_040, 0, tgid, Some(4), start(1))
            .event(7_000, 0, tgid, Some(3), stop(2, 1))
            .wake(7_200, tgid, 18, 0)
            .event(9_000, 0, tgid, Some(4), start(2))
            .park(9_100, tgid, 18, 2)
            .event(9_200, 0, tgid, Some(3), stop(1, 200))
            .event(9_205, 0, tgid, Some(4), start(1))
            .event(9_900, 0, tgid, Some(3), stop(1, 0))
    }

    /// Samples of worker 18, of nobody, of somebody unknown, and of the kernel at a probe.
    pub fn samples(&mut self, tgid: u32) -> &mut Self {
        self.sampled = true;
        let stack = |id, pcs: &[u64], top| What::Stack {
            id: StackId(id),
            pcs: pcs.iter().map(|pc| Address(BIAS + pc)).collect(),
            truncated: false,
            top,
            of: CodeOf::Binary,
        };
        let sample = |runner, stack: u64, in_kernel| What::OnCpuSample {
            runner,
            stack: (stack != 0).then_some(StackId(stack)),
            in_kernel,
            period_ns: 10_000_000,
        };
        let worker = Runner::Goroutine(Goid(18));
        self.event(9_110, 1, tgid, Some(0), stack(20, &[LEAF, IN_WORKER, GOEXIT], Top::InstructionAndWord))
            .event(9_111, 1, tgid, Some(0), sample(worker, 20, false))
            .event(9_112, 1, tgid, Some(0), sample(worker, 20, true))
            .event(9_113, 1, tgid, Some(0), stack(21, &[IN_SCHEDULE, GOEXIT], Top::Instruction))
            .event(9_114, 1, tgid, Some(0), sample(Runner::Nobody, 21, false))
            .event(9_115, 1, tgid, Some(0), sample(Runner::Unknown, 0, true))
            .event(9_116, 1, tgid, Some(0), stack(22, &[GOPARK + 1, IN_WORKER], Top::Instruction))
            .event(9_117, 1, tgid, Some(0), sample(worker, 22, true))
    }

    /// A profile that `tgid` gave.
    pub fn profile(&mut self, at_us: u64, tgid: u32, kind: ProfileKind, data: &[u8]) -> &mut Self {
        let (at, url) = (KtimeNs(ZERO + at_us * 1000), "http://127.0.0.1:6060/debug/pprof/".into());
        self.profiles.push(Profile { at, took_ns: MS, tgid: Tgid(tgid), kind, url, data: data.into() });
        self
    }

    /// A look at the memory of `tgid`, in MiB: resident, of its cgroup, and the heap that its runtime tells of.
    pub fn memory(&mut self, at_us: u64, tgid: u32, rss: u64, cgroup: Option<u64>, heap: Option<u64>) -> &mut Self {
        let cgroup = cgroup.map(|current| CgroupMemory {
            path: "/shop".into(),
            current_bytes: current << 20,
            limit_bytes: Some(512 << 20),
        });
        let heap = heap.map(|alloc| GoHeap {
            alloc_bytes: alloc << 20,
            inuse_bytes: (alloc + 1) << 20,
            goal_bytes: (2 * alloc) << 20,
            sys_bytes: (3 * alloc) << 20,
            ..GoHeap::default()
        });
        self.look(
            at_us,
            ProcessMemory { tgid: Tgid(tgid), beside: None, rss_bytes: Some(rss << 20), cgroup, heap, descriptors: None },
        )
    }

    /// A look at the descriptors of `tgid`.
    pub fn descriptors(&mut self, at_us: u64, tgid: u32, counts: &[(&str, u64)]) -> &mut Self {
        let descriptors = Some(counts.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect());
        self.look(at_us, ProcessMemory { tgid: Tgid(tgid), beside: None, rss_bytes: None, cgroup: None, heap: None, descriptors })
    }

    /// A look at the memory of one that was named.
    pub fn memory_beside(&mut self, at_us: u64, tgid: u32, comm: &str, rss: u64) -> &mut Self {
        let (tgid, beside) = (Tgid(tgid), Some(comm.into()));
        self.look(at_us, ProcessMemory { tgid, beside, rss_bytes: Some(rss << 20), cgroup: None, heap: None, descriptors: None })
    }

    fn look(&mut self, at_us: u64, process: ProcessMemory) -> &mut Self {
        let at = KtimeNs(ZERO + at_us * 1000);
        match self.memory.last_mut().filter(|last| last.at == at) {
            Some(last) => last.processes.push(process),
            None => self.memory.push(MemoryAt { at, processes: vec![process] }),
        }
        self
    }

    pub fn meta(&self) -> Meta {
        Meta {
            lifetrace: "0.1.0".into(),
            hostname: "box".into(),
            kernel: "6.18.0".into(),
            cpus: 2,
            clock: ClockTie { ktime_ns: KtimeNs(ZERO), wall_ns: WallTime(1_700_000_000_000_000_000), error_ns: 40 },
            tier: self.tier.unwrap_or(Tier::T2),
            command: ["./shop", "--workers", "2"].map(str::to_owned).to_vec(),
            target: None,
            budget_ppm: (!self.steps.is_empty()).then_some(10_000),
            hit_cost_ns: Some(800),
            threads: tracer_user::recording::contract::Threads::Off,
            min_block_ns: None,
            cut: None,
        }
    }

    /// The file's bytes, records in blocks of seven.
    pub fn bytes(&self) -> Vec<u8> {
        let mut writer = Writer::start(Vec::new(), Path::new("scene.rec"), &self.meta()).unwrap();
        writer.binary(&binary(self.tier >= Some(Tier::T3))).unwrap();
        self.usdt.iter().for_each(|file| writer.usdt(file).unwrap());
        let tier = self.tier.unwrap_or(Tier::T2);
        writer
            .note(&Note::Coverage { at: KtimeNs(ZERO + MS / 2), binary: BinaryId(1), tier, why: None, share_ppm: None })
            .unwrap();
        for (at_ms, tier, why) in &self.steps {
            let (at, share_ppm) = (KtimeNs(ZERO + at_ms * MS), Some(1000));
            writer.note(&Note::Coverage { at, binary: BinaryId(1), tier: *tier, why: Some(*why), share_ppm }).unwrap();
        }
        if self.sampled {
            writer.note(&Note::Sampling { at: KtimeNs(ZERO), hz: 100, cpus: 2 }).unwrap();
            writer.note(&Note::Sampling { at: KtimeNs(ZERO + 15 * MS), hz: 0, cpus: 2 }).unwrap();
        }
        let records = |writer: &mut Writer<Vec<u8>>, framed: Vec<u8>| {
            if self.indexed && !framed.is_empty() {
                writer.index(&index::of(&framed)).unwrap();
            }
            writer.records(&framed).unwrap();
        };
        let length = if self.indexed { 3 } else { 7 };
        let mut framed = Vec::new();
        for (index, event) in self.events.iter().enumerate() {
            let marks: Vec<_> = self.marks.iter().filter(|(place, _)| *place == index).collect();
            if index % length == 0 || !marks.is_empty() {
                records(&mut writer, std::mem::take(&mut framed));
            }
            marks.into_iter().for_each(|(_, mark)| writer.drained(mark).unwrap());
            frame_record(&mut framed, &encode(event));
        }
        records(&mut writer, framed);
        let last_marks = self.marks.iter().filter(|(place, _)| *place >= self.events.len());
        last_marks.for_each(|(_, mark)| writer.drained(mark).unwrap());
        for dump in &self.dumps {
            writer.dump_begins(&DumpBegins { at: dump.from, tgid: dump.tgid, source: dump.source }).unwrap();
            writer.dump(dump).unwrap();
        }
        writer.code(&code()).unwrap();
        self.profiles.iter().for_each(|profile| writer.profile(profile).unwrap());
        self.memory.iter().for_each(|memory| writer.memory(memory).unwrap());
        let at = KtimeNs(ZERO + self.ends_at_ms.unwrap_or(20) * MS);
        let hits = [1, 2, 3, 4, 5].map(|kind| KindCount { kind, count: 2 }).to_vec();
        writer.counters(&Counters { at, lost: self.lost.clone(), hits, ..Counters::default() }).unwrap();
        if !self.unended {
            let end = End {
                at,
                reason: "exited".into(),
                detach_ns: None,
                clock: None,
                wait_status: Some(3 << 8),
                target_cpu_ns: Some(4 * MS),
            };
            writer.end(&end).unwrap();
        }
        writer.into_inner()
    }
}

fn binary(scheduling: bool) -> Binary {
    let site = |id, function: &str, address| Site {
        id: SiteId(id),
        function: function.into(),
        address: Address(address),
        instruction: "push %rbp".into(),
    };
    Binary {
        id: BinaryId(1),
        path: "/srv/shop".into(),
        go_version: "go1.26.6".into(),
        module: "example.org/shop".into(),
        sites: vec![
            site(0, "runtime.gopark", GOPARK),
            site(1, "runtime.ready", READY),
            site(2, "runtime.newcoro.func1", NEWCORO),
            site(3, "runtime.stopTheWorldWithSema", STOP),
            site(4, "runtime.startTheWorldWithSema", START),
        ],
        wait_reasons: ["", "sleep", "chan receive", "GC sweep wait", "coroutine"].map(str::to_owned).to_vec(),
        hchan_lock: Some(0x58),
        semaphores: true,
        offsets: None,
        scheduling,
        stw_reasons: ["unknown", "GC mark termination", "GC sweep termination"].map(str::to_owned).to_vec(),
    }
}

fn code() -> Code {
    let frame = |function: &str, file: &str, line| Frame { function: function.into(), file: file.into(), line };
    let entry =
        |address, use_as, frame| CodeEntry { address: Address(address), use_as, frames: vec![frame], frameless: address == LEAF };
    let (chan, main) = ("runtime/chan.go", "shop/main.go");
    Code {
        binary: BinaryId(1),
        entries: vec![
            entry(GO_WORKER, CodeUse::Return, frame("main.open", main, 12)),
            entry(GO_MAIN, CodeUse::Return, frame("runtime.rt0_go", "runtime/asm_amd64.s", 360)),
            entry(GO_SWEEP, CodeUse::Return, frame("runtime.gcenable", "runtime/mgc.go", 214)),
            entry(GO_TEST, CodeUse::Return, frame("testing.(*T).Run", "testing/testing.go", 1742)),
            entry(WORKER, CodeUse::Entry, frame("main.worker", main, 30)),
            entry(MAIN, CodeUse::Entry, frame("runtime.main", "runtime/proc.go", 147)),
            entry(SWEEP, CodeUse::Entry, frame("runtime.bgsweep", "runtime/mgcsweep.go", 277)),
            entry(RECV, CodeUse::Return, frame("runtime.chanrecv1", chan, 509)),
            entry(IN_WORKER, CodeUse::Return, frame("main.worker", main, 33)),
            entry(IN_MAIN, CodeUse::Return, frame("main.main", main, 21)),
            entry(GOEXIT, CodeUse::Return, frame("runtime.goexit", "runtime/asm_amd64.s", 1700)),
            entry(LEAF, CodeUse::Entry, frame("main.hash", main, 50)),
            entry(IN_SCHEDULE, CodeUse::Entry, frame("runtime.schedule", "runtime/proc.go", 4000)),
            entry(NEWPROC, CodeUse::Return, frame("runtime.newproc", "runtime/proc.go", 5078)),
        ],
    }
}
