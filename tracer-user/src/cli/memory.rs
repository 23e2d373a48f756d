//! Looks at the memory and the descriptors of processes once a second: Go's that are followed, others that were met, and those that were
//! named to be shown beside them.

use rustc_hash::FxHashSet;

use super::{Failure, join::JoinError};
use crate::{
    clock::KtimeNs,
    id::{ProcessKey, Tgid},
    recording::contract::{MemoryAt, Note, ProcessMemory},
    target::{
        memory::{Memory, Meter, comm},
        procfs,
    },
};

/// How often each process is looked at.
const EVERY_NS: u64 = 1_000_000_000;
/// Processes that are looked at in one round.
const MAX_PROCESSES: usize = 64;

/// Whose memory is recorded, and when it is due.
pub struct MemoryWatch {
    /// Nobody's is.
    off: bool,
    meter: Meter,
    beside: Vec<Beside>,
    /// Rounds are due at whole seconds after this.
    zero: Option<KtimeNs>,
    next: KtimeNs,
    /// Those that were looked at, and those that have ended: their numbers need not be tried again.
    seen: FxHashSet<ProcessKey>,
    gone: FxHashSet<ProcessKey>,
    said: bool,
}

/// A process that was named to be shown beside the target.
struct Beside {
    key: ProcessKey,
    comm: String,
}

/// What a round gave.
#[derive(Default)]
pub struct Round {
    pub memory: Option<MemoryAt>,
    pub note: Option<Note>,
}

impl MemoryWatch {
    /// `beside`: numbers of processes to be shown beside the target, which must exist.
    pub fn new(beside: &[u32]) -> Result<Self, Failure> {
        let named = |pid: &u32| {
            let of = |error| Failure::usage(JoinError::of(Tgid(*pid), error));
            let key = procfs::stat(Tgid(*pid)).map_err(of)?.key;
            Ok(Beside { key, comm: comm(key.tgid).map_err(of)? })
        };
        let beside = beside.iter().map(named).collect::<Result<_, Failure>>()?;
        let (seen, gone) = Default::default();
        Ok(Self { off: false, meter: Meter::new(), beside, zero: None, next: KtimeNs(0), seen, gone, said: false })
    }

    /// For a recording of which nobody asks for memory.
    #[cfg(feature = "agent")]
    pub fn off() -> Result<Self, Failure> {
        Ok(Self { off: true, ..Self::new(&[])? })
    }

    /// Comes a few times a second: looks at everybody when that is due, else at those of `met` who are new. Those of `followed` come first.
    pub fn look(
        &mut self,
        at: KtimeNs,
        followed: impl Iterator<Item = ProcessKey>,
        met: impl Iterator<Item = ProcessKey>,
    ) -> Round {
        if self.off {
            return Round::default();
        }
        if at < self.next {
            let new: Vec<ProcessKey> = met.filter(|key| !self.seen.contains(key) && !self.gone.contains(key)).collect();
            return if new.is_empty() { Round::default() } else { self.round(at, new, Vec::new(), false) };
        }
        let zero = *self.zero.get_or_insert(at);
        self.next = KtimeNs(zero.0.saturating_add((at.since(zero) / EVERY_NS + 1).saturating_mul(EVERY_NS)));
        self.last(at, followed, met)
    }

    /// Looks at everybody once more.
    pub fn last(
        &mut self,
        at: KtimeNs,
        followed: impl Iterator<Item = ProcessKey>,
        met: impl Iterator<Item = ProcessKey>,
    ) -> Round {
        if self.off {
            return Round::default();
        }
        let followed: Vec<ProcessKey> = followed.collect();
        let mut others: Vec<ProcessKey> = met.filter(|key| !self.gone.contains(key) && !followed.contains(key)).collect();
        // The command itself before what it starts.
        others.sort_unstable_by_key(|key| (key.start_ticks, key.tgid));
        self.round(at, followed, others, true)
    }

    /// `others`: as many as there is time for.
    fn round(&mut self, at: KtimeNs, followed: Vec<ProcessKey>, others: Vec<ProcessKey>, everybody: bool) -> Round {
        let mut processes = Vec::new();
        if everybody {
            processes.extend(self.beside.iter().filter_map(|beside| {
                let memory = self.meter.read(beside.key)?;
                let comm = Some(beside.comm.clone());
                Some(ProcessMemory {
                    tgid: beside.key.tgid,
                    beside: comm,
                    rss_bytes: memory.rss_bytes,
                    cgroup: memory.cgroup,
                    heap: None,
                    descriptors: memory.descriptors,
                })
            }));
        }
        let mut left_out = false;
        let in_order = followed.into_iter().map(|key| (key, true)).chain(others.into_iter().map(|key| (key, false)));
        for (key, is_followed) in in_order {
            if self.gone.contains(&key) {
                continue;
            }
            if processes.len() >= MAX_PROCESSES {
                left_out = is_followed;
                break;
            }
            let Some(memory) = self.meter.read(key) else {
                self.gone.insert(key);
                continue;
            };
            self.seen.insert(key);
            let Memory { rss_bytes, cgroup, descriptors } = memory;
            processes.push(ProcessMemory { tgid: key.tgid, beside: None, rss_bytes, cgroup, heap: None, descriptors });
        }
        let note = (left_out && !self.said).then(|| {
            self.said = true;
            let text = format!("more than {MAX_PROCESSES} processes at a time: the memory of some is not recorded");
            Note::Warning { at, text }
        });
        Round { memory: (!processes.is_empty()).then_some(MemoryAt { at, processes }), note }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn own() -> ProcessKey {
        procfs::stat(Tgid(std::process::id())).unwrap().key
    }

    /// Check that everybody is looked at at once and then once a second, and one who is new without delay.
    #[test]
    fn rounds() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let mut watch = MemoryWatch::new(&[child.id()]).unwrap();
        let ms = |ms: u64| KtimeNs(7_000_000_000 + ms * 1_000_000);
        let mut who = |at, followed: Vec<ProcessKey>| -> Vec<(u32, bool)> {
            let memory = watch.look(ms(at), std::iter::empty(), followed.into_iter()).memory;
            memory.map_or(Vec::new(), |all| all.processes.iter().map(|one| (one.tgid.0, one.beside.is_some())).collect())
        };
        let (us, beside) = ((own().tgid.0, false), (child.id(), true));
        assert_eq!(who(0, vec![]), [beside]);
        assert_eq!(who(250, vec![own()]), [us]);
        assert_eq!(who(500, vec![own()]), []);
        assert_eq!(who(1100, vec![own()]), [beside, us]);
        assert_eq!(who(1900, vec![own()]), []);
        assert_eq!(who(2000, vec![own()]), [beside, us]);
        child.kill().unwrap();
        child.wait().unwrap();
        let gone = ProcessKey { start_ticks: 1, ..own() };
        assert_eq!(who(3000, vec![gone, own()]), [us]);
    }

    /// Check that no more than the limit is read, and that this is said once.
    #[test]
    fn many() {
        let mut watch = MemoryWatch::new(&[]).unwrap();
        let all = || std::iter::repeat_n(own(), MAX_PROCESSES + 1);
        let first = watch.look(KtimeNs(1), all(), all());
        assert_eq!(first.memory.unwrap().processes.len(), MAX_PROCESSES);
        let others = MemoryWatch::new(&[]).unwrap().look(KtimeNs(1), std::iter::empty(), all());
        assert_eq!((others.memory.unwrap().processes.len(), others.note.is_some()), (MAX_PROCESSES, false));
        assert!(first.note.is_some() && watch.last(KtimeNs(2), all(), all()).note.is_none());
    }

    /// Check that who does not exist is refused as wrong usage.
    #[test]
    fn nobody() {
        let failure = MemoryWatch::new(&[u32::MAX]).err().unwrap();
        assert_eq!(failure.code, super::super::USAGE);
        assert!(failure.to_string().contains("4294967295"), "{failure}");
    }
}
