//! A recording of many goroutines and events, and what lifetrace takes to make something of it: rows of `cargo xtask bench`.
//!
//! A process is joined, dumped, and followed: goroutines are born, park, are woken and exit, on two CPUs; once a million events all are
//! looked at again. Prints one line of JSON.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::{TimeVal, TimeValLike},
};
use tracer_user::{
    clock::{ClockTie, KtimeNs, WallTime},
    decode::encode,
    event::{CodeOf, Event, Top, What},
    id::{Address, BinaryId, Goid, SiteId, StackId, Tgid, Tid},
    recording::{
        contract::{
            Binary, Code, CodeEntry, CodeUse, Drained, DumpBegins, DumpSource, DumpedGoroutine, End, Frame, GoroutineDump,
            Joined, Likeness, Meta, Note, Site, Tier,
        },
        frame_record,
        writer::Writer,
    },
};

const CHECK_EVERY: u64 = 1_000_000;
/// Events while a check is being read.
const CHECK_LASTS: u64 = 100_000;
const CPUS: u16 = 2;
const BLOCK_BYTES: usize = 1 << 20;
const PART: usize = 16_384;
const ZERO: u64 = 1_000_000_000_000;
const BIAS: u64 = 0x5555_0000_0000;
/// Between two events.
const STEP_NS: u64 = 2_000;
const TGID: Tgid = Tgid(4711);
/// Creation sites, and stacks to wait at.
const SITES: u64 = 40;
const STACKS: u64 = 200;

fn main() -> Result<()> {
    let usage = "usage: replay_load LIFETRACE RECORDING GOROUTINES EVENTS SUBCOMMAND [OPTIONS]";
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [lifetrace, recording, goroutines, events, what @ ..] = &args[..] else { bail!(usage) };
    let (recording, goroutines, events) =
        (PathBuf::from(recording), goroutines.parse().context(usage)?, events.parse().context(usage)?);
    Load::new(&recording, goroutines)?.run(events)?;
    let made = recording.with_extension("made");
    let began = Instant::now();
    let mut command = Command::new(lifetrace);
    let status = command.args(what).args(["--quiet", "-o"]).args([&made, &recording]).status()?;
    let seconds = began.elapsed().as_secs_f64();
    ensure!(status.success(), "lifetrace {what:?}: {status}");
    let made_bytes = weighed(&made)?;
    // Of the only child there was.
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let spent = |time: TimeVal| time.num_microseconds() as f64 / 1e6;
    let cpu = spent(usage.user_time()) + spent(usage.system_time());
    let mib = usage.max_rss() as f64 / 1024.0;
    let bytes_an_event = recording.metadata()?.len() as f64 / events as f64;
    println!(
        r#"{{"seconds":{seconds:.3},"cpu_seconds":{cpu:.3},"mib":{mib:.1},"bytes_an_event":{bytes_an_event:.2},"made_bytes":{made_bytes}}}"#
    );
    Ok(())
}

/// Bytes of a file, or of all files of a directory, which is taken away.
fn weighed(made: &Path) -> io::Result<u64> {
    if made.is_file() {
        let bytes = made.metadata()?.len();
        fs::remove_file(made)?;
        return Ok(bytes);
    }
    let bytes = fs::read_dir(made)?.map(|file| Ok(file?.metadata()?.len())).sum::<io::Result<u64>>()?;
    fs::remove_dir_all(made)?;
    Ok(bytes)
}

#[derive(Clone, Copy)]
struct Living {
    goid: u64,
    blocked: bool,
}

struct Load {
    writer: Writer<File>,
    framed: Vec<u8>,
    /// A record that is overtaken by the next one.
    slow: Option<Vec<u8>>,
    clock: u64,
    seqs: [u64; CPUS as usize],
    random: u64,
    living: Vec<Living>,
    /// About so many live.
    goroutines: usize,
    next_goid: u64,
}

impl Load {
    fn new(path: &Path, goroutines: usize) -> Result<Self> {
        let living = (1..=goroutines as u64).map(|goid| Living { goid, blocked: true }).collect();
        Ok(Self {
            writer: Writer::create(path, &meta())?,
            framed: Vec::with_capacity(BLOCK_BYTES + 1024),
            slow: None,
            clock: ZERO,
            seqs: [0; CPUS as usize],
            random: 1,
            living,
            goroutines,
            next_goid: goroutines as u64 + 1,
        })
    }

    fn run(mut self, events: u64) -> Result<()> {
        self.begin()?;
        let mut check: Option<Vec<Living>> = None;
        let mut began = 0;
        for n in 0..events {
            if n % CHECK_EVERY == CHECK_EVERY - CHECK_LASTS {
                began = self.clock;
                self.writer.dump_begins(&DumpBegins { at: KtimeNs(began), tgid: TGID, source: DumpSource::Memory })?;
                check = Some(self.living.clone());
            }
            if n % CHECK_EVERY == CHECK_EVERY - 1
                && let Some(living) = check.take()
            {
                self.dump(&living, began, true)?;
            }
            self.happen()?;
        }
        self.flush()?;
        self.writer.end(&End {
            clock: None,
            at: KtimeNs(self.clock),
            reason: "interrupted".into(),
            detach_ns: None,
            wait_status: None,
            target_cpu_ns: None,
        })?;
        Ok(())
    }

    /// Everything before the first event of a goroutine.
    fn begin(&mut self) -> Result<()> {
        self.writer.binary(&binary())?;
        self.writer.note(&Note::Coverage {
            at: KtimeNs(ZERO),
            binary: BinaryId(1),
            tier: Tier::T2,
            why: None,
            share_ppm: None,
        })?;
        self.writer.drained(&Drained { at: KtimeNs(0), next_seq: vec![] })?;
        let joined = Joined {
            at: KtimeNs(ZERO),
            tgid: TGID,
            start_ticks: 100,
            parent: None,
            args: vec!["./crowd".into()],
            binary: BinaryId(1),
            load_bias: BIAS,
            dump_follows: true,
        };
        self.writer.joined(&joined)?;
        let living = self.living.clone();
        self.dump(&living, ZERO, false)?;
        for id in 1..=STACKS {
            let pcs = [0x5000 + id * 16, 0x9000 + id % 7, 0xa000].map(|pc| Address(BIAS + pc)).to_vec();
            self.event(1, What::Stack { id: StackId(id), pcs, truncated: false, top: Top::Return, of: CodeOf::Binary })?;
        }
        self.writer.code(&code())?;
        Ok(())
    }

    /// SplitMix64.
    fn below(&mut self, bound: usize) -> usize {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    /// Something happens to somebody: one in five events is a birth or an exit.
    fn happen(&mut self) -> Result<()> {
        let who = self.below(self.living.len());
        let Living { goid, blocked } = self.living[who];
        let (birth_or_exit, stack) = (self.below(5) == 0, self.below(STACKS as usize) as u64 + 1);
        let what = if birth_or_exit && self.living.len() <= self.goroutines {
            let born = self.next_goid;
            self.next_goid += 1;
            self.living.push(Living { goid: born, blocked: false });
            let (gopc, startpc) = origin_of(born);
            What::GoroutineBirth { goid: Goid(born), parent: Some(Goid(goid)), gopc, startpc, stack: Some(StackId(stack)) }
        } else if blocked {
            self.living[who].blocked = false;
            let by = self.below(self.living.len());
            let waker = self.living[by].goid;
            What::GoroutineWake { goid: Goid(goid), waker: Some(Goid(waker)).filter(|waker| waker.0 != goid) }
        } else if birth_or_exit || self.living.len() > self.goroutines {
            self.living.swap_remove(who);
            What::GoroutineExit { goid: Goid(goid) }
        } else {
            self.living[who].blocked = true;
            let lock = Some(Address(0xc000_0000_0000 + goid * 128));
            What::GoroutinePark { goid: Goid(goid), wait_reason: 2, lock, stack: Some(StackId(stack)) }
        };
        let site = if matches!(what, What::GoroutineWake { .. }) { 1 } else { 0 };
        self.event(site, what)
    }

    fn event(&mut self, site: u16, what: What) -> Result<()> {
        self.clock += STEP_NS;
        let at = KtimeNs(self.clock);
        let cpu = self.below(CPUS.into()) as u16;
        let seq = self.seqs[usize::from(cpu)];
        self.seqs[usize::from(cpu)] += 1;
        let tid = Tid(TGID.0 + u32::from(cpu));
        let event = Event { at, cpu, seq, tgid: TGID, tid, binary: Some(BinaryId(1)), site: SiteId(site), what };
        if self.slow.is_none() && self.below(4) == 0 {
            self.slow = Some(encode(&event));
            return Ok(());
        }
        frame_record(&mut self.framed, &encode(&event));
        self.slow.take().into_iter().for_each(|slow| frame_record(&mut self.framed, &slow));
        if self.framed.len() >= BLOCK_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.slow.take().into_iter().for_each(|slow| frame_record(&mut self.framed, &slow));
        self.writer.records(&self.framed)?;
        self.framed.clear();
        Ok(self.writer.drained(&Drained { at: KtimeNs(self.clock + 1), next_seq: self.seqs.to_vec() })?)
    }

    /// What a look at all of them finds.
    fn dump(&mut self, living: &[Living], from: u64, check: bool) -> Result<()> {
        let parts = living.chunks(PART).count();
        for (part, living) in living.chunks(PART).enumerate() {
            let goroutines = living.iter().map(|of| {
                let kind = (of.goid % SITES) * 2 + u64::from(of.blocked);
                DumpedGoroutine(Goid(of.goid), Some(Goid(1)), kind as u32)
            });
            self.writer.dump(&GoroutineDump {
                tgid: TGID,
                start_ticks: 100,
                binary: BinaryId(1),
                load_bias: BIAS,
                source: DumpSource::Memory,
                check,
                from: KtimeNs(from),
                to: KtimeNs(self.clock.max(from)),
                tier: Tier::T2,
                kinds: kinds(),
                goroutines: goroutines.collect(),
                objects: Vec::new(),
                stacks: Vec::new(),
                labels: [vec![], vec![("endpoint".to_owned(), "/orders".to_owned())]].to_vec(),
                torn: 0,
                last: part + 1 == parts,
                problem: None,
                gone: false,
            })?;
        }
        Ok(())
    }
}

fn origin_of(goid: u64) -> (Address, Address) {
    (Address(BIAS + 0x3000 + goid % SITES * 16), Address(BIAS + 0x4000 + goid % SITES * 16))
}

/// Of each site those who wait and those who do not.
fn kinds() -> Vec<Likeness> {
    let kind = |index: u64| {
        let ((gopc, startpc), waits) = (origin_of(index / 2), index % 2 == 1);
        Likeness {
            gopc,
            startpc,
            state: Some(if waits { "waiting" } else { "runnable" }.to_owned()),
            wait_reason: waits.then(|| "chan receive".to_owned()),
            stack: waits.then_some(StackId(index / 2 + 1)),
            stack_bytes: Some(8192),
            labels: Some(u32::from(index.is_multiple_of(8))),
        }
    };
    (0..SITES * 2).map(kind).collect()
}

fn meta() -> Meta {
    Meta {
        lifetrace: env!("CARGO_PKG_VERSION").into(),
        hostname: "box".into(),
        kernel: "6.18.0".into(),
        cpus: CPUS.into(),
        clock: ClockTie { ktime_ns: KtimeNs(ZERO), wall_ns: WallTime(1_700_000_000_000_000_000), error_ns: 40 },
        tier: Tier::T2,
        command: vec![],
        target: Some("--pid 4711".into()),
        budget_ppm: None,
        hit_cost_ns: Some(800),
        threads: tracer_user::recording::contract::Threads::Off,
        min_block_ns: None,
        cut: None,
    }
}

fn binary() -> Binary {
    let site = |id, function: &str, address| Site {
        id: SiteId(id),
        function: function.into(),
        address: Address(address),
        instruction: "push %rbp".into(),
    };
    Binary {
        id: BinaryId(1),
        path: "/srv/crowd".into(),
        go_version: "go1.26.6".into(),
        module: "example.org/crowd".into(),
        sites: vec![site(0, "runtime.gopark", 0x1000), site(1, "runtime.ready", 0x2000)],
        wait_reasons: ["", "sleep", "chan receive"].map(str::to_owned).to_vec(),
        hchan_lock: Some(0x58),
        semaphores: true,
        offsets: None,
        scheduling: false,
        stw_reasons: vec![],
    }
}

fn code() -> Code {
    let entry = |base: u64, use_as, name: &str, n: u64| CodeEntry {
        address: Address(base + n * 16),
        use_as,
        frames: vec![Frame { function: format!("main.{name}{n}"), file: "main.go".into(), line: n as u32 + 1 }],
        frameless: false,
    };
    let made = (0..SITES).flat_map(|n| [entry(0x3000, CodeUse::Return, "open", n), entry(0x4000, CodeUse::Entry, "worker", n)]);
    let waits = (1..=STACKS).map(|n| entry(0x5000, CodeUse::Return, "receive", n));
    Code { binary: BinaryId(1), entries: made.chain(waits).collect() }
}
