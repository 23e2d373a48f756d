//! Goroutines that were looked at from outside while their process ran, and the marks that put the looks between the events.

use serde::{Deserialize, Serialize};

use super::Tier;
use crate::{
    clock::KtimeNs,
    id::{Address, BinaryId, Goid, StackId, Tgid},
};

/// A process that ran already when it came to be followed. What it did before is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// From here on its probes report.
    pub at: KtimeNs,
    pub tgid: Tgid,
    /// `starttime` of `/proc/PID/stat`, in ticks.
    pub start_ticks: u64,
    pub parent: Option<Tgid>,
    pub args: Vec<String>,
    /// What it runs, and by how much that was moved when it was loaded; 0 for what is no Go program.
    pub binary: BinaryId,
    pub load_bias: u64,
    /// Its goroutines follow in [`GoroutineDump`]s, taken from here on.
    pub dump_follows: bool,
}

impl Joined {
    /// Whether it runs a Go program.
    pub fn runs_go(&self) -> bool {
        self.binary.0 != 0
    }
}

/// A look at a process's goroutines begins: its [`GoroutineDump`]s follow, and what they say is as of this time or later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpBegins {
    pub at: KtimeNs,
    pub tgid: Tgid,
    pub source: DumpSource,
}

/// Every record that is older than this time is in the blocks before this one, or is lost (docs/order.md). At time 0, without numbers, it
/// says that others will follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    pub at: KtimeNs,
    /// By CPU: one more than the largest sequence number dealt out by then. Those below that are in no block are lost, and were made by then; all
    /// others are made later.
    pub next_seq: Vec<u64>,
}

/// Who told of goroutines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DumpSource {
    /// Their process's memory, read from outside.
    Memory,
    /// The process itself, asked by HTTP.
    Pprof,
}

/// All goroutines of a process as somebody saw them while it ran: one part of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoroutineDump {
    pub tgid: Tgid,
    /// `starttime` of `/proc/PID/stat`, in ticks.
    pub start_ticks: u64,
    /// What it runs, and by how much that was moved when it was loaded; 0 for what is no Go program.
    pub binary: BinaryId,
    pub load_bias: u64,
    pub source: DumpSource,
    /// It is one of a series that holds what events told against what is there; else the first look at a process that was joined.
    pub check: bool,
    /// When the reading began and ended. Anything that an event of that time or later says is newer.
    pub from: KtimeNs,
    pub to: KtimeNs,
    /// Detail at which the process is followed: at T1 what they do now is not kept up; at T0 looks are all there is.
    pub tier: Tier,
    /// What goroutines of this part have in common, each once.
    pub kinds: Vec<Likeness>,
    pub goroutines: Vec<DumpedGoroutine>,
    /// What each of these waits on, 0 where that is not known; empty where nobody looked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<Address>,
    /// Stacks that are not in an earlier part, by id.
    pub stacks: Vec<DumpedStack>,
    /// Sets of labels of this part, each once.
    pub labels: Vec<Vec<(String, String)>>,
    /// Goroutines that could not be read because they kept changing.
    pub torn: u64,
    /// No part follows.
    pub last: bool,
    /// Why nothing, or not all, could be read.
    pub problem: Option<String>,
    /// There is no such process any more.
    pub gone: bool,
}

/// Half a million goroutines are some twelve megabytes of JSON, and most of what there is to write: they stand behind it, packed.
impl GoroutineDump {
    /// The JSON of everything else, a line feed, and the goroutines.
    pub fn pack(&self) -> serde_json::Result<Vec<u8>> {
        let mut packed = serde_json::to_vec(&self.without_goroutines())?;
        packed.push(b'\n');
        packed.push(u8::from(!self.objects.is_empty()));
        let (mut last, mut last_object) = (0, 0);
        let objects = self.objects.iter().map(|object| object.0).chain(std::iter::repeat(0));
        for (&DumpedGoroutine(goid, creator, kind), object) in self.goroutines.iter().zip(objects) {
            varint(&mut packed, zigzag(goid.0.wrapping_sub(last)));
            // 0 for none, else how far back the creator is.
            varint(&mut packed, creator.map_or(0, |creator| zigzag(goid.0.wrapping_sub(creator.0)).wrapping_add(1)));
            varint(&mut packed, kind.into());
            if !self.objects.is_empty() {
                varint(&mut packed, zigzag(object.wrapping_sub(last_object)));
                last_object = object;
            }
            last = goid.0;
        }
        Ok(packed)
    }

    /// What [`Self::pack`] wrote; `None`: it is not that.
    pub fn unpack(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let (json, packed) = (bytes.get(..end)?, bytes.get(end + 1..)?);
        let mut dump: Self = serde_json::from_slice(json).ok()?;
        let (flag, mut packed) = packed.split_first()?;
        let with_objects = *flag == 1;
        let (mut last, mut last_object) = (0u64, 0u64);
        while !packed.is_empty() {
            last = last.wrapping_add(unzigzag(take(&mut packed)?));
            let creator = take(&mut packed)?;
            let creator = (creator != 0).then(|| Goid(last.wrapping_sub(unzigzag(creator - 1))));
            let kind = u32::try_from(take(&mut packed)?).ok()?;
            if with_objects {
                last_object = last_object.wrapping_add(unzigzag(take(&mut packed)?));
                dump.objects.push(Address(last_object));
            }
            dump.goroutines.push(DumpedGoroutine(Goid(last), creator, kind));
        }
        Some(dump)
    }

    fn without_goroutines(&self) -> Self {
        Self {
            goroutines: Vec::new(),
            objects: Vec::new(),
            kinds: self.kinds.clone(),
            stacks: self.stacks.clone(),
            labels: self.labels.clone(),
            problem: self.problem.clone(),
            ..*self
        }
    }
}

/// Small differences in either direction become small numbers.
fn zigzag(difference: u64) -> u64 {
    (difference << 1) ^ (difference.cast_signed() >> 63).cast_unsigned()
}

fn unzigzag(number: u64) -> u64 {
    (number >> 1) ^ (number & 1).wrapping_neg()
}

/// Seven bits a byte, the lowest first; the highest bit says that another follows (LEB128).
fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// One goroutine of a [`GoroutineDump`]: its id, its creator's, and an index into [`GoroutineDump::kinds`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpedGoroutine(pub Goid, pub Option<Goid>, pub u32);

/// What one goroutine of a [`GoroutineDump`] shares with many others; addresses are those of the process.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Likeness {
    pub gopc: Address,
    pub startpc: Address,
    /// In the runtime's words (`waiting`, `running`, …); `None`: it changed whenever it was looked at.
    pub state: Option<String>,
    /// What it waits for, if it waits and that is known.
    pub wait_reason: Option<String>,
    /// Where it waits: return addresses as a park has them.
    pub stack: Option<StackId>,
    /// Memory that is set aside for its stack; `None`: unknown.
    pub stack_bytes: Option<u64>,
    /// Index into [`GoroutineDump::labels`], where one that has none is an empty set; `None`: unknown.
    pub labels: Option<u32>,
}

/// Return addresses, innermost first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpedStack {
    pub id: StackId,
    pub pcs: Vec<Address>,
    pub truncated: bool,
}

/// Tests that ran in goroutines of a process when its memory was read, where no event tells of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestsSeen {
    pub at: KtimeNs,
    pub tgid: Tgid,
    pub tests: Vec<TestSeen>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TestSeen {
    /// The goroutine that runs it.
    pub goid: Goid,
    /// Its whole name, its parents' included; `None`: it could not be read.
    pub name: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(goroutines: &[(u64, Option<u64>, u32)], objects: &[u64]) -> GoroutineDump {
        GoroutineDump {
            tgid: Tgid(7),
            start_ticks: 3,
            binary: BinaryId(1),
            load_bias: 0x1000,
            source: DumpSource::Memory,
            check: true,
            from: KtimeNs(10),
            to: KtimeNs(20),
            tier: Tier::T2,
            kinds: Vec::new(),
            goroutines: goroutines.iter().map(|(goid, by, kind)| DumpedGoroutine(Goid(*goid), by.map(Goid), *kind)).collect(),
            objects: objects.iter().copied().map(Address).collect(),
            stacks: Vec::new(),
            labels: vec![vec![("key\n".into(), "value".into())]],
            torn: 0,
            last: true,
            problem: None,
            gone: false,
        }
    }

    /// Check that goroutines come back as they went in, and that what is cut or damaged is not taken for any.
    #[test]
    fn packed() {
        let goroutines =
            [(1, None, 0), (18, Some(1), 3), (17, Some(17), 3), (u64::MAX, Some(0), u32::MAX), (0, Some(u64::MAX), 1)];
        for objects in [&[][..], &[0xc000_1000, 0, 0xc000_1000, u64::MAX, 1]] {
            let dump = dump(&goroutines, objects);
            let packed = dump.pack().unwrap();
            assert_eq!(GoroutineDump::unpack(&packed), Some(dump));
            for cut in 0..packed.len() {
                let partial = GoroutineDump::unpack(&packed[..cut]);
                assert!(partial.is_none_or(|partial| partial.goroutines.len() < goroutines.len()), "cut at {cut}");
            }
        }
        assert_eq!(GoroutineDump::unpack(&[&dump(&[], &[]).pack().unwrap()[..], &[0xff; 11]].concat()), None);
        let many: Vec<_> = (1..100_000).map(|goid| (goid, Some(goid - goid % 7), 2)).collect();
        assert!(dump(&many, &[]).pack().unwrap().len() < 4 * many.len());
    }
}
