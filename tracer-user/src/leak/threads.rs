//! What is kept of threads while a recording is replayed: how long those lived that ended, and where those are off their CPU that did not.

use hdrhistogram::Histogram;
use rustc_hash::FxHashMap;

use super::tally::{ended_within_ns, record};
use crate::{
    clock::KtimeNs,
    correlate::{
        ReasonId,
        process::{ImageId, ProcessId},
        thread::{ThreadEnd, ThreadId, ThreadLife, ThreadSpan, ThreadState, ThreadWho, WaitObject},
    },
    event::ThreadName,
    id::{StackId, Tid},
};

/// A process that ends wakes all of its threads, one after the other, before the first of them exits: up to so long before, ns.
const DYING: u64 = 100_000_000;

/// The sink's part.
#[derive(Default)]
pub(super) struct ThreadTally {
    living: FxHashMap<ThreadId, OffCpu>,
    /// When the first thread of a process exited because all of it did.
    dying: FxHashMap<ProcessId, KtimeNs>,
    /// By process, and name without its digits.
    pub pools: FxHashMap<(ProcessId, String), Pool>,
}

/// Where a thread is off its CPU.
#[derive(Clone, Copy, Debug)]
pub(super) struct OffCpu {
    pub image: ImageId,
    pub reason: Option<ReasonId>,
    pub object: Option<WaitObject>,
    pub user_stack: Option<StackId>,
    pub kernel_stack: Option<StackId>,
    pub since: KtimeNs,
    /// Since then it has been off its CPU at this place alone.
    pub here_since: KtimeNs,
    pub wakes: u32,
    pub until: KtimeNs,
}

impl OffCpu {
    /// Who was woken only to end was not woken there.
    fn but_for_the_end(self, ended_at: KtimeNs) -> Self {
        Self { wakes: self.wakes.saturating_sub(u32::from(self.until < ended_at)), ..self }
    }
}

/// Threads of one process with names alike.
#[derive(Default)]
pub(super) struct Pool {
    ended: Option<Histogram<u32>>,
    lives: u64,
    found: u64,
    exited: u64,
    pub alive: Vec<ThreadSurvivor>,
}

/// One that is alive at the end.
#[derive(Clone, Copy, Debug)]
pub(super) struct ThreadSurvivor {
    pub tid: Tid,
    pub since: KtimeNs,
    pub born: bool,
    pub ended_at: KtimeNs,
    pub off_cpu: Option<OffCpu>,
}

impl Pool {
    pub fn ended_within_ns(&self) -> Option<u64> {
        ended_within_ns(self.ended.as_ref(), self.exited, self.lives)
    }

    pub fn risen(&self) -> i64 {
        self.alive.len() as i64 - i64::try_from(self.found).unwrap_or(i64::MAX)
    }
}

impl ThreadTally {
    pub fn span(&mut self, who: &ThreadWho, span: &ThreadSpan) {
        if span.state != ThreadState::Blocked {
            return;
        }
        let place = |off: &OffCpu| (off.image, off.reason, off.user_stack, off.kernel_stack);
        let fresh = OffCpu {
            image: span.image,
            reason: span.reason,
            object: span.object,
            user_stack: span.user_stack,
            kernel_stack: span.kernel_stack,
            since: span.start,
            here_since: span.start,
            wakes: 0,
            until: span.end,
        };
        let off = self.living.entry(who.id).or_insert(fresh);
        let before = if place(off) == place(&fresh) { *off } else { fresh };
        let wakes = before.wakes.saturating_add(u32::from(span.woken_by.is_some()));
        *off = OffCpu { here_since: before.here_since, wakes, ..fresh };
    }

    pub fn life(&mut self, who: &ThreadWho, life: &ThreadLife) {
        let off_cpu = self.living.remove(&who.id);
        let pool = self.pools.entry((who.process, life.name.map_or_else(String::new, |name| alike(&name)))).or_default();
        let born = who.born_at.is_some();
        pool.lives += 1;
        pool.found += u64::from(!born);
        match life.end {
            ThreadEnd::ExitOfAll | ThreadEnd::ProcessEnd | ThreadEnd::RecordingEnd => {
                let until = if life.end == ThreadEnd::RecordingEnd {
                    life.ended_at
                } else {
                    let dying = *self.dying.entry(who.process).or_insert(life.ended_at);
                    KtimeNs(dying.0.saturating_sub(DYING))
                };
                pool.alive.push(ThreadSurvivor {
                    tid: who.tid,
                    since: who.since,
                    born,
                    ended_at: life.ended_at,
                    off_cpu: off_cpu.filter(|off| off.until >= until).map(|off| off.but_for_the_end(life.ended_at)),
                });
            }
            ThreadEnd::Exit | ThreadEnd::Exec | ThreadEnd::Gone => {
                pool.exited += 1;
                record(&mut pool.ended, life.ended_at.since(who.since), 1);
            }
        }
    }
}

/// A thread's name without its digits: `worker-17` and `worker-18` do the same work.
fn alike(name: &ThreadName) -> String {
    let mut out = String::new();
    for c in name.text().chars() {
        match c {
            '0'..='9' if out.ends_with('#') => {}
            '0'..='9' => out.push('#'),
            c => out.push(c),
        }
    }
    out
}
