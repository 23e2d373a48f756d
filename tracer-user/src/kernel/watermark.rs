//! Up to when everything is here: which records must still come out of the ring before what is older than a mark is all there.
//!
//! A mark is begun by reading, one after the other, how many records were lost, the clock, and the next sequence number, of each CPU. A
//! number that was not taken by then belongs to a younger record; of those that were, each must arrive, unless it was lost before. The
//! argument stands in docs/order.md. Pure: readings and records are handed in.

use crate::{clock::KtimeNs, recording::contract::Drained};

/// How much earlier than its clock was read a mark is: the processor may look at the counters a little before that, and the kernel's
/// fast clock may differ from the slow one by some nanoseconds.
const MARGIN_NS: u64 = 1000;

/// One reading of the BPF side's counters, by CPU, in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    pub lost: Vec<u64>,
    pub at: KtimeNs,
    pub next_seq: Vec<u64>,
}

/// Counts what has been taken out of the ring, against the mark that is under way.
#[derive(Debug, Default)]
pub struct Watermark {
    /// Records taken so far, by CPU.
    taken: Vec<u64>,
    pending: Option<Pending>,
}

#[derive(Debug)]
struct Pending {
    mark: Drained,
    /// Records that must still arrive.
    owed: u64,
}

impl Watermark {
    /// Begins a mark in place of the one that is under way. A reading that cannot be is refused: more lost or taken than were numbered.
    pub fn begin(&mut self, reading: Reading) {
        let Reading { lost, at, next_seq } = reading;
        let count_of = |counts: &[u64], cpu: usize| counts.get(cpu).copied().unwrap_or(0);
        let owed = next_seq.iter().enumerate().try_fold(0u64, |owed, (cpu, next)| {
            let settled = count_of(&self.taken, cpu).checked_add(count_of(&lost, cpu))?;
            owed.checked_add(next.checked_sub(settled)?)
        });
        self.pending = owed.map(|owed| Pending { mark: Drained { at: at - MARGIN_NS, next_seq }, owed });
    }

    /// A record was taken out of the ring, whatever becomes of it.
    pub fn took(&mut self, cpu: u16, seq: u64) {
        let cpu = usize::from(cpu);
        if cpu >= self.taken.len() {
            self.taken.resize(cpu + 1, 0);
        }
        self.taken[cpu] += 1;
        if let Some(pending) = &mut self.pending
            && pending.mark.next_seq.get(cpu).is_some_and(|next| seq < *next)
        {
            pending.owed = pending.owed.saturating_sub(1);
        }
    }

    /// Whether a mark is under way.
    pub fn pending(&self) -> bool {
        self.pending.is_some()
    }

    /// The mark, once everything that it is about was taken.
    pub fn reached(&mut self) -> Option<Drained> {
        self.pending.take_if(|pending| pending.owed == 0).map(|pending| pending.mark)
    }
}

#[cfg(test)]
mod tests;
