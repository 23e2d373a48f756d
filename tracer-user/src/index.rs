//! What a block of records is about, so that whoever asks for one goroutine can leave out the blocks that say nothing of it.
//!
//! Everything that a goroutine's timeline needs besides its own events (processes, stacks, who left a thread to a coroutine) makes a block one
//! that is always read.

use std::collections::BTreeMap;

use rustc_hash::FxHashSet;
use tracer_common::{
    goroutine::{GoroutineExit, GoroutineTransition, status},
    header::{Header, Kind},
};
use zerocopy::FromBytes;

use crate::{
    clock::KtimeNs,
    id::{BinaryId, Goid, Tgid},
    recording::{
        contract::{Index, IndexedProcess, IndexedRun},
        records,
    },
};

/// Smaller blocks are read faster than their index.
pub const MIN_INDEXED: usize = 64 << 10;

/// The index of a payload of records.
pub fn of(payload: &[u8]) -> Index {
    let mut processes: BTreeMap<(Tgid, BinaryId), (KtimeNs, FxHashSet<u64>)> = BTreeMap::new();
    let mut index = Index::default();
    for record in records(payload) {
        let Ok((header, _)) = Header::read_from_prefix(record) else {
            index.always = true;
            continue;
        };
        run(&mut index.runs, &header);
        match told(&header, record) {
            Told::Goroutine(goid) => {
                let of = (Tgid(header.tgid), BinaryId(header.binary));
                let fresh = || (KtimeNs(header.ktime_ns), FxHashSet::default());
                processes.entry(of).or_insert_with(fresh).1.insert(goid);
            }
            Told::Nobody => {}
            Told::Everybody => index.always = true,
        }
    }
    for ((tgid, binary), (from, goids)) in processes {
        let mut goids: Vec<u64> = goids.into_iter().collect();
        goids.sort_unstable();
        let mut before = 0;
        let steps = goids.into_iter().map(|goid| goid - std::mem::replace(&mut before, goid));
        index.processes.push(IndexedProcess { tgid, binary, from, goroutines: steps.collect() });
    }
    index
}

/// Adds a record to the runs of numbers.
fn run(runs: &mut Vec<IndexedRun>, header: &Header) {
    let at = KtimeNs(header.ktime_ns);
    let of_cpu = runs.iter_mut().rev().find(|run| run.cpu == header.cpu);
    match of_cpu.filter(|run| run.first.checked_add(run.count) == Some(header.seq)) {
        Some(run) => {
            run.count += 1;
            run.to = at;
        }
        None => runs.push(IndexedRun { cpu: header.cpu, first: header.seq, count: 1, from: at, to: at }),
    }
}

/// Of whom a record tells.
enum Told {
    Goroutine(u64),
    /// Nothing that a goroutine's timeline shows.
    Nobody,
    Everybody,
}

fn told(header: &Header, record: &[u8]) -> Told {
    use Kind::*;
    match Kind::from_u8(header.kind) {
        Some(GoroutineTransition) if leaves_to_coroutine(record) => Told::Everybody,
        Some(
            GoroutineBirth | GoroutineLateBirth | GoroutinePark | GoroutineParkAbort | GoroutineWake | GoroutineWait
            | GoroutineExit | GoroutineTransition,
        ) => {
            // It is the first thing that all of them say.
            self::GoroutineExit::read_from_prefix(record).map_or(Told::Everybody, |(record, _)| Told::Goroutine(record.goid))
        }
        Some(StopTheWorld | StartTheWorld | GcCycleStart | OnCpuSample | TestRun) => Told::Nobody,
        Some(ThreadBirth | ThreadExit | ThreadOff | ThreadOn | ThreadWake | ThreadWait) => Told::Nobody,
        _ => Told::Everybody,
    }
}

fn leaves_to_coroutine(record: &[u8]) -> bool {
    GoroutineTransition::read_from_prefix(record)
        .is_ok_and(|(record, _)| (record.from, record.to) == (status::RUNNING, status::WAITING))
}

/// A goroutine, perhaps of any process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Only {
    pub goid: Goid,
    pub tgid: Option<Tgid>,
}

impl Only {
    /// Whether a block with that index is of interest.
    pub fn wants(&self, index: &Index) -> bool {
        let mut of = index.processes.iter().filter(|process| self.tgid.is_none_or(|wanted| wanted == process.tgid));
        index.always || of.any(|process| holds(&process.goroutines, self.goid))
    }
}

fn holds(steps: &[u64], goid: Goid) -> bool {
    let mut at = 0u64;
    steps.iter().any(|step| {
        at = at.saturating_add(*step);
        at == goid.0
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        decode::encode,
        event::{Event, What},
        id::{SiteId, Tid},
        recording::frame_record,
    };

    fn block(events: &[(u16, u64, u32, What)]) -> Vec<u8> {
        let mut payload = Vec::new();
        for (cpu, seq, tgid, what) in events {
            let (tgid, tid, what) = (Tgid(*tgid), Tid(1), what.clone());
            let event = Event { at: KtimeNs(seq * 10), cpu: *cpu, seq: *seq, tgid, tid, binary: None, site: SiteId(0), what };
            frame_record(&mut payload, &encode(&event));
        }
        payload
    }

    /// Check that a block is wanted for those it tells of, and for all where it tells of more.
    #[test]
    fn wanted() {
        let exit = |goid| What::GoroutineExit { goid: Goid(goid) };
        let events = [(0, 5, 7, exit(3)), (1, 1, 7, exit(900)), (0, 6, 7, exit(4)), (0, 8, 9, exit(5)), (1, 2, 7, exit(3))];
        let index = of(&block(&events));
        let only = |goid, tgid: Option<u32>| Only { goid: Goid(goid), tgid: tgid.map(Tgid) };
        for (goid, tgid, wanted) in
            [(3, None, true), (5, None, true), (5, Some(7), false), (900, Some(7), true), (6, None, false)]
        {
            assert_eq!(only(goid, tgid).wants(&index), wanted, "{goid} of {tgid:?}");
        }
        let runs: Vec<(u16, u64, u64)> = index.runs.iter().map(|run| (run.cpu, run.first, run.count)).collect();
        assert_eq!(runs, [(0, 5, 2), (1, 1, 2), (0, 8, 1)]);
        let stopped = block(&[(0, 1, 7, What::StopTheWorld { goid: None, reason: 1 })]);
        assert!(!only(1, None).wants(&of(&stopped)));
        let image = block(&[(0, 1, 7, What::ProcessImage { ip: crate::id::Address(1) })]);
        assert!(only(1, None).wants(&of(&image)));
    }
}
