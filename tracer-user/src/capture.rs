//! Writing the recording while it happens: raw records as they came, and beside them the symbols they need.
//!
//! Runs on a thread of its own behind a bounded channel. When the disk is slower than the ring, the channel fills, the
//! reader waits, the ring fills, and the kernel counts the loss. What it does not do: order or interpret events.

use std::{
    fmt,
    fs::File,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
};

use rustc_hash::{FxHashMap, FxHashSet};
use tracer_common::{
    goroutine::{GoroutineBirth, GoroutineLateBirth},
    header::{Header, Kind},
    process::{ProcessFork, ProcessImage},
    stack::{EXACT, KERNEL, NATIVE, Stack, TOP_WORD},
};
use zerocopy::FromBytes;

use crate::{
    clock::KtimeNs,
    golang::GoBinary,
    id::{Address, BinaryId, Tgid},
    index,
    native::{Maps, Names},
    recording::{
        contract::{
            Adopted, Binary, CgroupNamed, ChildrenSeen, Code, CodeEntry, CodeUse, Counters, Drained, DumpBegins, End, Found,
            Gone, GoroutineDump, Joined, KeptAt, LoadAt, MemoryAt, NativeCode, NativeEntry, Note, Profile, Summed, TestsSeen,
            ThreadsMet, UsdtFile,
        },
        records,
        writer::{WriteError, Writer},
    },
};

/// Blocks that may wait for the disk.
const QUEUE: usize = 16;
/// Addresses that are named at most: a target may make up as many as it likes.
const MAX_NAMED: usize = 4_000_000;
/// Processes, and creation sites of one, that are remembered for what comes early or late.
const MAX_REMEMBERED: usize = 4096;
/// Addresses named in one block.
const NAMES_A_BLOCK: usize = 4096;

/// What is to be written.
pub enum Message {
    /// Framed raw records.
    Records(Vec<u8>),
    /// A binary that is probed from now on, and the means to name its code.
    Binary(Box<(Binary, Arc<GoBinary>)>),
    Note(Note),
    /// A process that is followed from its middle on.
    Joined(Joined),
    Dump(Box<GoroutineDump>),
    DumpBegins(DumpBegins),
    /// Behind the records it speaks of.
    Drained(Drained),
    Profile(Box<Profile>),
    Memory(MemoryAt),
    /// A file whose USDT probes are set from now on.
    Usdt(UsdtFile),
    Found(Found),
    Adopted(Adopted),
    Cgroup(CgroupNamed),
    Load(LoadAt),
    Gone(Gone),
    ThreadsMet(ThreadsMet),
    TestsSeen(TestsSeen),
    ChildrenSeen(ChildrenSeen),
    Summed(Summed),
    Kept(KeptAt),
    /// So many goroutines were born whose birth no record tells.
    BornUntold(u64),
    /// What a process had mapped, read at that time.
    Maps {
        tgid: Tgid,
        at: KtimeNs,
        maps: Maps,
    },
    Counters(Box<Counters>),
    End(End),
}

/// What has been written so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub records: u64,
    pub goroutines_born: u64,
    /// Goroutines that were read out of the memory of processes that ran already.
    pub goroutines_found: u64,
    /// Processes whose first hit was seen.
    pub go_processes: u64,
    /// Processes that were forked under our eyes.
    pub processes_begun: u64,
    /// Hits of USDT probes.
    pub usdt_hits: u64,
}

impl fmt::Display for Written {
    /// What is in it, for whoever has just recorded.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { records, goroutines_born, goroutines_found, go_processes, processes_begun, usdt_hits } = self;
        write!(f, "{records} records, {processes_begun} processes forked")?;
        if *go_processes > 0 {
            write!(f, ", ")?;
            if *goroutines_found > 0 {
                write!(f, "{goroutines_found} goroutines found and ")?;
            }
            write!(f, "{goroutines_born} goroutines born in {go_processes} Go process(es)")?;
        }
        if *usdt_hits > 0 {
            write!(f, ", {usdt_hits} hits of USDT probes")?;
        }
        Ok(())
    }
}

/// Why a recording is not whole.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    #[error(transparent)]
    Write(WriteError),
    #[error("the thread that writes it has panicked (a bug of lifetrace's)")]
    Panicked,
}

/// The writing thread, seen from the reader.
pub struct Capture {
    sender: Option<SyncSender<Message>>,
    failed: Arc<AtomicBool>,
    written: Arc<Mutex<Written>>,
    thread: JoinHandle<Result<(), WriteError>>,
}

impl Capture {
    pub fn start(writer: Writer<File>) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE);
        let failed = Arc::new(AtomicBool::new(false));
        let written = Arc::new(Mutex::new(Written::default()));
        let mut scribe = Scribe {
            writer,
            binaries: FxHashMap::default(),
            images: FxHashMap::default(),
            ended: FxHashMap::default(),
            early: FxHashMap::default(),
            named: FxHashSet::default(),
            unnamed: FxHashMap::default(),
            native: Native::default(),
            written: Written::default(),
            shared: Arc::clone(&written),
        };
        let flag = Arc::clone(&failed);
        let thread = thread::Builder::new().name("capture".into()).spawn(move || scribe.serve(&receiver, &flag))?;
        Ok(Self { sender: Some(sender), failed, written, thread })
    }

    /// Hands over something to write; waits while the queue is full. After a failed write everything is dropped.
    pub fn send(&self, message: Message) {
        if let Some(sender) = &self.sender
            && sender.send(message).is_err()
        {
            self.failed.store(true, Ordering::Relaxed);
        }
    }

    /// Another end to send through, for a thread that reads a process's memory. [`Capture::finish`] waits until it is dropped.
    pub fn sender(&self) -> Option<SyncSender<Message>> {
        self.sender.clone()
    }

    /// Hands over something to write if there is room for it; gives it back otherwise.
    pub fn try_send(&self, message: Message) -> Result<(), Message> {
        let Some(sender) = &self.sender else {
            return Ok(());
        };
        match sender.try_send(message) {
            Err(TrySendError::Full(message)) => Err(message),
            Err(TrySendError::Disconnected(_)) => {
                self.failed.store(true, Ordering::Relaxed);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Whether writing has failed: [`Capture::finish`] tells why.
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Waits until everything is written.
    pub fn finish(mut self) -> (Written, Result<(), CaptureError>) {
        self.sender = None;
        let result = self.thread.join().map_or(Err(CaptureError::Panicked), |written| written.map_err(CaptureError::Write));
        let written = self.written.lock().map_or_else(|poisoned| *poisoned.into_inner(), |written| *written);
        (written, result)
    }
}

/// A creation site of a program: return address of the `go` statement, and entry of the start function.
type SiteOf = (BinaryId, (Address, Address));

struct Scribe {
    writer: Writer<File>,
    binaries: FxHashMap<BinaryId, (Binary, Arc<GoBinary>)>,
    /// What each followed process runs, and where it is mapped.
    images: FxHashMap<Tgid, Image>,
    /// What processes ran that have ended it, and creation sites of those of which that is not known yet.
    ended: FxHashMap<(Tgid, BinaryId), Image>,
    early: FxHashMap<Tgid, Vec<SiteOf>>,
    /// Addresses whose names are written.
    named: FxHashSet<(BinaryId, u64, CodeUse)>,
    /// Those still to be written, by binary.
    unnamed: FxHashMap<BinaryId, Vec<(u64, CodeUse)>>,
    native: Native,
    written: Written,
    shared: Arc<Mutex<Written>>,
}

/// The same for code that is of no probed binary. `None` for a process: the kernel.
#[derive(Default)]
struct Native {
    names: Names,
    named: FxHashMap<Option<Tgid>, FxHashSet<(u64, CodeUse)>>,
    /// And whether it may be no address at all.
    unnamed: FxHashMap<Option<Tgid>, Vec<(u64, CodeUse, bool)>>,
    /// What was looked up already, and is to be written.
    looked_up: Vec<NativeCode>,
    count: usize,
    /// The newest record.
    at: KtimeNs,
}

impl Native {
    fn want(&mut self, tgid: Tgid, stack: &Stack) {
        let of = (stack.flags & KERNEL == 0).then_some(tgid);
        for (index, &pc) in stack.pcs.iter().take(stack.depth as usize).enumerate() {
            let use_as = if index == 0 && stack.flags & EXACT != 0 { CodeUse::Entry } else { CodeUse::Return };
            let fresh = self.count < MAX_NAMED && self.named.entry(of).or_default().insert((pc, use_as));
            if pc != 0 && fresh {
                self.count += 1;
                let word = index == 1 && stack.flags & TOP_WORD != 0;
                self.unnamed.entry(of).or_default().push((pc, use_as, word));
            }
        }
    }

    /// Another program is in the place of the one whose addresses were seen: what of these is not known by now stays so.
    fn replaced(&mut self, tgid: Tgid, at: KtimeNs) {
        if self.names.knows_before(tgid, at) {
            self.look_up(Some(tgid));
        }
        self.unnamed.remove(&Some(tgid));
        if let Some(named) = self.named.remove(&Some(tgid)) {
            self.count -= named.len().min(self.count);
        }
        self.names.forget_before(tgid, at);
    }

    fn look_up(&mut self, of: Option<Tgid>) {
        let wanted = self.unnamed.remove(&of).unwrap_or_default();
        let names = &mut self.names;
        let entry = |(pc, use_as, word): (u64, CodeUse, bool)| match of {
            Some(tgid) => names.entry(tgid, pc, use_as, word),
            None => names.kernel(pc).map(|frame| NativeEntry { address: Address(pc), use_as, frame }),
        };
        let entries: Vec<NativeEntry> = wanted.into_iter().filter_map(entry).collect();
        if !entries.is_empty() {
            self.looked_up.push(NativeCode { at: self.at, tgid: of, entries });
        }
    }

    /// Looks up everything that is wanted, and returns what is to be written.
    fn take(&mut self) -> Vec<NativeCode> {
        let wanted: Vec<Option<Tgid>> = self.unnamed.keys().copied().collect();
        wanted.into_iter().for_each(|of| self.look_up(of));
        std::mem::take(&mut self.looked_up)
    }
}

#[derive(Clone, Copy)]
struct Image {
    binary: BinaryId,
    load_bias: u64,
}

impl Scribe {
    fn serve(&mut self, receiver: &Receiver<Message>, failed: &AtomicBool) -> Result<(), WriteError> {
        let mut outcome = Ok(());
        for message in receiver {
            if outcome.is_ok() {
                outcome = self.write(message);
                if let Ok(mut shared) = self.shared.lock() {
                    *shared = self.written;
                }
                if outcome.is_err() {
                    failed.store(true, Ordering::Relaxed);
                }
            }
        }
        outcome
    }

    fn write(&mut self, message: Message) -> Result<(), WriteError> {
        match message {
            Message::Records(framed) => {
                for record in records(&framed) {
                    self.look_at(record);
                }
                if framed.len() >= index::MIN_INDEXED {
                    self.writer.index(&index::of(&framed))?;
                }
                self.writer.records(&framed)?;
                self.write_names()
            }
            Message::Binary(boxed) => {
                let (binary, code) = *boxed;
                self.writer.binary(&binary)?;
                self.binaries.insert(binary.id, (binary, code));
                Ok(())
            }
            Message::Note(note) => self.writer.note(&note),
            Message::Joined(joined) => {
                self.meet(&joined);
                self.writer.joined(&joined)
            }
            Message::Dump(dump) => {
                self.name_dump(&dump);
                self.writer.dump(&dump)?;
                self.write_names()
            }
            Message::DumpBegins(begins) => self.writer.dump_begins(&begins),
            Message::Drained(drained) => self.writer.drained(&drained),
            Message::Profile(profile) => self.writer.profile(&profile),
            Message::Memory(memory) => self.writer.memory(&memory),
            Message::Usdt(file) => self.writer.usdt(&file),
            Message::Found(found) => self.writer.found(&found),
            Message::Adopted(adopted) => self.writer.adopted(&adopted),
            Message::Cgroup(cgroup) => self.writer.cgroup(&cgroup),
            Message::Load(load) => self.writer.load(&load),
            Message::Gone(gone) => self.writer.gone(&gone),
            Message::Maps { tgid, at, maps } => {
                self.native.names.see(tgid, at, maps);
                Ok(())
            }
            Message::ThreadsMet(met) => self.writer.threads_met(&met),
            Message::TestsSeen(seen) => self.writer.tests_seen(&seen),
            Message::ChildrenSeen(seen) => self.writer.children_seen(&seen),
            Message::Summed(summed) => {
                for sum in &summed.sums {
                    self.written.goroutines_born += if sum.wait_reason.is_none() { sum.count } else { 0 };
                    self.want_site(sum.binary, sum.tgid, (sum.gopc, sum.startpc));
                }
                self.writer.summed(&summed)?;
                self.write_names()
            }
            Message::Kept(kept) => {
                for kept in &kept.goroutines {
                    self.want_site(kept.binary, kept.tgid, (kept.gopc, kept.startpc));
                }
                self.writer.kept(&kept)?;
                self.write_names()
            }
            Message::BornUntold(count) => {
                self.written.goroutines_born += count;
                Ok(())
            }
            Message::Counters(counters) => self.writer.counters(&counters),
            Message::End(end) => self.writer.end(&end),
        }
    }

    /// Takes out of a record what names need: which process runs what, and which addresses occur.
    fn look_at(&mut self, record: &[u8]) {
        self.written.records += 1;
        let Ok((header, _)) = Header::read_from_prefix(record) else {
            return;
        };
        let (binary, tgid) = (BinaryId(header.binary), Tgid(header.tgid));
        self.native.at = KtimeNs(header.ktime_ns);
        match Kind::from_u8(header.kind) {
            Some(Kind::GoroutineBirth) => {
                self.written.goroutines_born += 1;
                if let Ok(birth) = GoroutineBirth::read_from_bytes(record) {
                    self.want(binary, tgid, birth.gopc, CodeUse::Return);
                    self.want(binary, tgid, birth.startpc, CodeUse::Entry);
                }
            }
            Some(Kind::GoroutineLateBirth) => {
                self.written.goroutines_born += 1;
                if let Ok(birth) = GoroutineLateBirth::read_from_bytes(record) {
                    self.want(binary, tgid, birth.gopc, CodeUse::Return);
                    self.want(binary, tgid, birth.startpc, CodeUse::Entry);
                }
            }
            Some(Kind::Stack) => {
                if let Ok(stack) = Stack::read_from_bytes(record) {
                    if stack.flags & (KERNEL | NATIVE) != 0 {
                        return self.native.want(tgid, &stack);
                    }
                    for (index, &pc) in stack.pcs.iter().take(stack.depth as usize).enumerate() {
                        let exact = index == 0 && stack.flags & EXACT != 0;
                        self.want(binary, tgid, pc, if exact { CodeUse::Entry } else { CodeUse::Return });
                    }
                }
            }
            Some(Kind::ProcessImage) => {
                if let Ok(image) = ProcessImage::read_from_bytes(record) {
                    self.written.go_processes += u64::from(!self.images.contains_key(&tgid));
                    self.settle_image(&header, image.ip);
                }
            }
            Some(Kind::UsdtHit) => self.written.usdt_hits += 1,
            Some(Kind::ProcessExec | Kind::ProcessExit) => {
                // What came early may be of the program that is executed here.
                if header.kind == Kind::ProcessExit as u8 {
                    self.early.remove(&tgid);
                }
                if let Some(image) = self.images.remove(&tgid) {
                    if self.ended.len() >= MAX_REMEMBERED {
                        self.ended.clear();
                    }
                    self.ended.insert((tgid, image.binary), image);
                }
                self.native.replaced(tgid, KtimeNs(header.ktime_ns));
            }
            Some(Kind::ProcessFork) => {
                self.written.processes_begun += 1;
                if let Ok(fork) = ProcessFork::read_from_bytes(record) {
                    self.native.names.inherit(tgid, Tgid(fork.child_tgid));
                }
            }
            _ => {}
        }
    }

    /// A process whose binary and place are known before its first hit.
    fn meet(&mut self, joined: &Joined) {
        if !joined.runs_go() {
            return;
        }
        let known = self.images.insert(joined.tgid, Image { binary: joined.binary, load_bias: joined.load_bias });
        self.written.go_processes += u64::from(known.is_none());
    }

    fn name_dump(&mut self, dump: &GoroutineDump) {
        let binary = dump.binary;
        if dump.check && dump.problem.is_none() {
            // The record of its first hit may be lost, or come later.
            let known = self.images.len();
            self.images.entry(dump.tgid).or_insert(Image { binary, load_bias: dump.load_bias });
            self.written.go_processes += u64::from(self.images.len() > known);
        }
        if !dump.check {
            self.written.goroutines_found += dump.goroutines.len() as u64;
        }
        for kind in &dump.kinds {
            self.want(binary, dump.tgid, kind.gopc.0, CodeUse::Return);
            self.want(binary, dump.tgid, kind.startpc.0, CodeUse::Entry);
        }
        for pc in dump.stacks.iter().flat_map(|stack| &stack.pcs) {
            self.want(binary, dump.tgid, pc.0, CodeUse::Return);
        }
    }

    fn settle_image(&mut self, header: &Header, ip: u64) {
        let binary = BinaryId(header.binary);
        let Some((known, _)) = self.binaries.get(&binary) else {
            return;
        };
        if let Some(site) = known.sites.iter().find(|site| site.id.0 == header.site) {
            let load_bias = ip.wrapping_sub(site.address.0);
            let tgid = Tgid(header.tgid);
            self.images.insert(tgid, Image { binary, load_bias });
            for (binary, site) in self.early.remove(&tgid).unwrap_or_default() {
                self.want_site(binary, tgid, site);
            }
        }
    }

    /// Names a creation site that no record tells of: the records that tell where its process is loaded may be still to come, or it may
    /// have ended.
    fn want_site(&mut self, binary: BinaryId, tgid: Tgid, (gopc, startpc): (Address, Address)) {
        let image = self.images.get(&tgid).filter(|image| image.binary == binary).or_else(|| self.ended.get(&(tgid, binary)));
        let Some(image) = image.copied() else {
            if self.early.len() < MAX_REMEMBERED {
                let sites = self.early.entry(tgid).or_default();
                if sites.len() < MAX_REMEMBERED && !sites.contains(&(binary, (gopc, startpc))) {
                    sites.push((binary, (gopc, startpc)));
                }
            }
            return;
        };
        self.want_at(image, gopc.0, CodeUse::Return);
        self.want_at(image, startpc.0, CodeUse::Entry);
    }

    fn want(&mut self, binary: BinaryId, tgid: Tgid, pc: u64, use_as: CodeUse) {
        if let Some(image) = self.images.get(&tgid).filter(|image| image.binary == binary) {
            self.want_at(*image, pc, use_as);
        }
    }

    fn want_at(&mut self, Image { binary, load_bias }: Image, pc: u64, use_as: CodeUse) {
        if pc == 0 {
            return;
        }
        let address = pc.wrapping_sub(load_bias);
        if self.named.len() < MAX_NAMED && self.named.insert((binary, address, use_as)) {
            self.unnamed.entry(binary).or_default().push((address, use_as));
        }
    }

    fn write_names(&mut self) -> Result<(), WriteError> {
        for code in self.native.take() {
            self.writer.native_code(&code)?;
        }
        for (binary, wanted) in self.unnamed.drain() {
            let Some((_, code)) = self.binaries.get(&binary) else {
                continue;
            };
            for piece in wanted.chunks(NAMES_A_BLOCK) {
                let entry = |&(address, use_as)| CodeEntry {
                    address: Address(address),
                    use_as,
                    frames: code.symbolize(address, use_as),
                    frameless: use_as == CodeUse::Entry && code.frame_bytes(address) == Some(0),
                };
                self.writer.code(&Code { binary, entries: piece.iter().map(entry).collect() })?;
            }
        }
        Ok(())
    }
}
