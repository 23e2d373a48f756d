//! What was recorded before the flight recorder's oldest leg, as far as later blocks speak of it. Bounded.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::Arc,
};

use rustc_hash::FxHashMap;
use tracer_common::{
    header::{Header, Kind as RecordKind},
    stack::Stack,
};
use zerocopy::FromBytes;

use crate::{
    clock::KtimeNs,
    id::{BinaryId, StackId, Tgid},
    recording::{
        Block, Kind, RecordingError,
        contract::{Counters, Found, Joined, Note, ThreadsMet, Tier},
        frame_record,
        reader::{Stored, Unpacker},
        records,
        writer::{WriteError, Writer},
    },
};

/// Packed names of addresses that are kept: the oldest go.
const MAX_NAMES: usize = 16 << 20;
/// Binaries, cgroups and facts that are remembered.
const MAX_LASTING: usize = 16_384;
/// Stacks that are kept: the oldest go.
const MAX_STACKS: usize = 32_768;
/// Processes that are remembered, and records of one.
const MAX_PROCESSES: usize = 16_384;
const MAX_RECORDS: usize = 64;
/// Bytes of records in one block.
const BLOCK_BYTES: usize = 1 << 20;

/// What is remembered.
#[derive(Default)]
pub(super) struct Past {
    /// Binaries, USDT files, cgroups, facts: blocks of which there are as many as there are of these.
    lasting: Vec<Arc<Stored>>,
    names: VecDeque<Arc<Stored>>,
    name_bytes: usize,
    /// At which tier each binary was followed at last.
    tiers: BTreeMap<BinaryId, Tier>,
    counters: Option<Counters>,
    processes: FxHashMap<Tgid, Process>,
    stacks: FxHashMap<StackId, Arc<[u8]>>,
    stack_order: VecDeque<StackId>,
    /// Where the oldest leg begins: the first sequence numbers of its time, by CPU.
    next_seq: Vec<u64>,
    /// Records of its time that came before its mark.
    early: Vec<Arc<[u8]>>,
    /// Blocks that could not be read, and whatever there was no room for.
    forgotten: u64,
}

/// One that has not ended, as far as is known.
#[derive(Clone, Default)]
struct Process {
    found: Option<Found>,
    joined: Option<Joined>,
    threads: Option<ThreadsMet>,
    /// Its birth, and what it has executed since.
    records: Vec<Arc<[u8]>>,
}

impl Past {
    /// From here on the oldest leg begins at these sequence numbers; the blocks before it follow.
    pub fn begin(&mut self, next_seq: &[u64]) {
        next_seq.clone_into(&mut self.next_seq);
        for record in mem::take(&mut self.early) {
            self.record(&record);
        }
    }

    /// Takes a block that is too old to be kept as it is.
    pub fn take(&mut self, stored: &Arc<Stored>, unpacker: &mut Unpacker) {
        match stored.kind() {
            Some(Kind::Binary | Kind::Usdt | Kind::Cgroup) => self.last(stored),
            Some(Kind::Code | Kind::NativeCode) => self.name(stored),
            Some(Kind::Records | Kind::Note | Kind::Counters | Kind::Joined | Kind::Found | Kind::Gone | Kind::ThreadsMet) => {
                self.read(stored, unpacker.unpack(stored));
            }
            // Looks are taken again; sums, loads and profiles are of their time.
            _ => {}
        }
    }

    fn read(&mut self, stored: &Arc<Stored>, block: Result<Block, RecordingError>) {
        match block {
            Ok(Block::Records(framed)) => records(&framed).for_each(|record| self.record(record)),
            Ok(Block::Note(Note::Coverage { binary, tier, .. })) => _ = self.tiers.insert(binary, tier),
            Ok(Block::Note(Note::Facts { .. } | Note::Sampling { .. })) => self.last(stored),
            Ok(Block::Counters(counters)) => self.counters = Some(counters),
            Ok(Block::Found(found)) => self.remember(found.tgid, |process| process.found = Some(found)),
            Ok(Block::Joined(joined)) => self.remember(joined.tgid, |process| process.joined = Some(joined)),
            Ok(Block::ThreadsMet(met)) => self.remember(met.tgid, |process| process.threads = Some(met)),
            Ok(Block::Gone(gone)) => _ = self.processes.remove(&gone.tgid),
            Ok(_) => {}
            Err(_) => self.forgotten += 1,
        }
    }

    fn last(&mut self, stored: &Arc<Stored>) {
        if self.lasting.len() < MAX_LASTING {
            self.lasting.push(Arc::clone(stored));
        } else {
            self.forgotten += 1;
        }
    }

    fn name(&mut self, stored: &Arc<Stored>) {
        self.names.push_back(Arc::clone(stored));
        self.name_bytes += size(stored);
        while self.name_bytes > MAX_NAMES {
            let Some(oldest) = self.names.pop_front() else { break };
            self.name_bytes -= size(&oldest);
            self.forgotten += 1;
        }
    }

    fn record(&mut self, record: &[u8]) {
        let Ok((header, _)) = Header::read_from_prefix(record) else { return };
        if self.next_seq.get(usize::from(header.cpu)).is_some_and(|next| header.seq >= *next) {
            return self.early.push(record.into());
        }
        let tgid = Tgid(header.tgid);
        match RecordKind::from_u8(header.kind) {
            Some(RecordKind::Stack) => self.stack(record),
            Some(RecordKind::ProcessExit) => _ = self.processes.remove(&tgid),
            // Of a fork, the parent's number is in the header, and the child's behind it.
            Some(RecordKind::ProcessFork) => {
                if let Some(child) = forked(record) {
                    self.processes.remove(&child);
                    self.remember_record(child, record);
                }
            }
            Some(RecordKind::ProcessExec | RecordKind::ProcessImage | RecordKind::ProcessMet | RecordKind::CgroupMoved) => {
                self.remember_record(tgid, record);
            }
            _ => {}
        }
    }

    fn remember(&mut self, tgid: Tgid, what: impl FnOnce(&mut Process)) {
        if self.processes.len() < MAX_PROCESSES || self.processes.contains_key(&tgid) {
            what(self.processes.entry(tgid).or_default());
        } else {
            self.forgotten += 1;
        }
    }

    fn remember_record(&mut self, tgid: Tgid, record: &[u8]) {
        self.remember(tgid, |process| {
            if process.records.len() == MAX_RECORDS {
                // Its birth stays.
                process.records.remove(1);
            }
            process.records.push(record.into());
        });
    }

    fn stack(&mut self, record: &[u8]) {
        let Ok((stack, _)) = Stack::read_from_prefix(record) else { return };
        let id = StackId(stack.stack_id);
        if self.stacks.insert(id, record.into()).is_none() {
            self.stack_order.push_back(id);
        }
        if self.stack_order.len() > MAX_STACKS
            && let Some(oldest) = self.stack_order.pop_front()
        {
            self.stacks.remove(&oldest);
            self.forgotten += 1;
        }
    }

    /// What is to be told before the blocks of a recording that begins at that time.
    pub fn told(&self, from: KtimeNs) -> Told {
        let mut processes: Vec<Process> = self.processes.values().cloned().collect();
        processes.sort_by_key(|process| process.records.first().map_or(0, |record| made_at(record)));
        Told {
            from,
            blocks: self.lasting.iter().chain(&self.names).map(Arc::clone).collect(),
            records: self
                .stacks
                .values()
                .chain(processes.iter().flat_map(|process| &process.records))
                .chain(&self.early)
                .cloned()
                .collect(),
            processes,
            tiers: self.tiers.clone(),
            counters: self.counters.clone(),
            forgotten: self.forgotten,
        }
    }
}

/// The same, at one moment: it can be written while more is recorded.
pub(super) struct Told {
    from: KtimeNs,
    blocks: Vec<Arc<Stored>>,
    records: Vec<Arc<[u8]>>,
    processes: Vec<Process>,
    tiers: BTreeMap<BinaryId, Tier>,
    counters: Option<Counters>,
    forgotten: u64,
}

impl Told {
    pub fn write<W: std::io::Write>(self, writer: &mut Writer<W>) -> Result<(), WriteError> {
        for stored in &self.blocks {
            writer.stored(stored)?;
        }
        // Goroutines that were born before are met: no probe told of them in this recording.
        let coverage = |at, binary, tier| Note::Coverage { at, binary, tier, why: None, share_ppm: None };
        for (&binary, &tier) in &self.tiers {
            writer.note(&coverage(self.from, binary, Tier::T0))?;
            writer.note(&coverage(KtimeNs(self.from.0 + 1), binary, tier))?;
        }
        if self.forgotten > 0 {
            let text = format!(
                "{} things of before this window were no longer kept (stacks, names, files, processes): what speaks of them has no name",
                self.forgotten
            );
            writer.note(&Note::Warning { at: self.from, text })?;
        }
        let mut block = Vec::new();
        for record in &self.records {
            frame_record(&mut block, record);
            if block.len() >= BLOCK_BYTES {
                writer.records(&block)?;
                block.clear();
            }
        }
        writer.records(&block)?;
        for Process { found, joined, threads, .. } in self.processes {
            if let Some(found) = found {
                writer.found(&found)?;
            }
            if let Some(joined) = joined {
                // Its goroutines are in later looks.
                writer.joined(&Joined { dump_follows: false, ..joined })?;
            }
            if let Some(threads) = threads {
                writer.threads_met(&threads)?;
            }
        }
        self.counters.map_or(Ok(()), |counters| writer.counters(&counters))
    }
}

fn size(stored: &Stored) -> usize {
    stored.bytes().iter().map(|part| part.len()).sum()
}

fn made_at(record: &[u8]) -> u64 {
    Header::read_from_prefix(record).map_or(0, |(header, _)| header.ktime_ns)
}

fn forked(record: &[u8]) -> Option<Tgid> {
    let (fork, _) = tracer_common::process::ProcessFork::read_from_prefix(record).ok()?;
    Some(Tgid(fork.child_tgid))
}
