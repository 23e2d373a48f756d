//! Binaries on trial: probed by offsets of another release of their Go, until a process of theirs has borne these out.
//!
//! Owns who is to be looked at, and when to stop looking. The looking itself is [`crate::snapshot::self_check`]; what follows from
//! a verdict is the follower's business.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::{
    clock::KtimeNs,
    golang::GoBinary,
    id::{BinaryId, Tgid},
    snapshot::{
        process::{ProcessError, verify},
        self_check::{Borne, Doubt},
    },
};

/// Between two looks at a process.
const PAUSE_NS: u64 = 10_000_000;
/// After so many looks it is enough that no goroutine was seen on a thread.
const PATIENT_LOOKS: u32 = 20;
/// After so many looks a process that has too few goroutines is given up.
const MAX_LOOKS: u32 = 3000;
/// A process that is just starting may look odd once.
const CONTRADICTIONS: u32 = 3;

/// How a trial ended.
#[derive(Debug)]
pub enum Verdict {
    /// From now on nothing more need be checked.
    Borne { tgid: Tgid, by: Borne },
    /// The probes must go.
    Refused { binary: BinaryId, tgid: Tgid, error: ProcessError },
    /// The process ended, or had too little to show; the next one will be looked at.
    Open { tgid: Tgid },
}

struct Waiting {
    tgid: Tgid,
    binary: BinaryId,
    looks: u32,
    contradictions: u32,
    next: KtimeNs,
}

/// All trials of a session.
#[derive(Default)]
pub struct Trials {
    binaries: FxHashMap<BinaryId, Arc<GoBinary>>,
    waiting: Vec<Waiting>,
}

impl Trials {
    /// Puts a binary on trial, if it has to be.
    pub fn open(&mut self, binary: BinaryId, code: &Arc<GoBinary>) {
        if code.needs_self_check() {
            self.binaries.insert(binary, Arc::clone(code));
        }
    }

    /// A process hit a probe of a binary for the first time.
    pub fn first_hit(&mut self, tgid: Tgid, binary: BinaryId) {
        if self.binaries.contains_key(&binary) {
            self.waiting.push(Waiting { tgid, binary, looks: 0, contradictions: 0, next: KtimeNs(0) });
        }
    }

    /// Looks at every process whose turn it is.
    pub fn judge(&mut self, now: KtimeNs) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for mut waiting in std::mem::take(&mut self.waiting) {
            let Some(code) = self.binaries.get(&waiting.binary) else { continue };
            if now < waiting.next {
                self.waiting.push(waiting);
                continue;
            }
            waiting.next = KtimeNs(now.0.saturating_add(PAUSE_NS));
            match waiting.judge(verify(waiting.tgid, code)) {
                None => self.waiting.push(waiting),
                Some(verdict) => {
                    if !matches!(verdict, Verdict::Open { .. }) {
                        self.binaries.remove(&waiting.binary);
                    }
                    verdicts.push(verdict);
                }
            }
        }
        verdicts
    }
}

impl Waiting {
    /// What this look leads to; `None`: look again.
    fn judge(&mut self, look: Result<Borne, ProcessError>) -> Option<Verdict> {
        let (tgid, binary) = (self.tgid, self.binary);
        self.looks += 1;
        match look {
            Ok(by) if by.threads > 0 || self.looks >= PATIENT_LOOKS => Some(Verdict::Borne { tgid, by }),
            Ok(_) => None,
            Err(ProcessError::Gone { .. } | ProcessError::NoProcess { .. } | ProcessError::NoProgram { .. }) => {
                Some(Verdict::Open { tgid })
            }
            Err(ProcessError::Doubted { source: Doubt::NotYet, .. }) => {
                (self.looks >= MAX_LOOKS).then_some(Verdict::Open { tgid })
            }
            Err(error) => {
                self.contradictions += 1;
                (self.contradictions >= CONTRADICTIONS).then_some(Verdict::Refused { binary, tgid, error })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting() -> Waiting {
        Waiting { tgid: Tgid(7), binary: BinaryId(1), looks: 0, contradictions: 0, next: KtimeNs(0) }
    }

    fn doubted(source: Doubt) -> Result<Borne, ProcessError> {
        Err(ProcessError::Doubted { tgid: Tgid(7), source })
    }

    /// Check that goroutines on threads settle it at once, and goroutines alone after some patience.
    #[test]
    fn borne_out() {
        let with_threads = waiting().judge(Ok(Borne { goroutines: 5, threads: 1 }));
        assert!(matches!(with_threads, Some(Verdict::Borne { by: Borne { goroutines: 5, threads: 1 }, .. })));
        let mut idle = waiting();
        let looks = (1..).find(|_| idle.judge(Ok(Borne { goroutines: 5, threads: 0 })).is_some());
        assert_eq!(looks, Some(PATIENT_LOOKS));
    }

    /// Check that one contradiction is not believed, and the same again and again is.
    #[test]
    fn refused() {
        let mut odd = waiting();
        let contradicted = || doubted(Doubt::Contradicted { what: "its id", failed: 4, of: 5 });
        let looks = (1..).find(|_| matches!(odd.judge(contradicted()), Some(Verdict::Refused { .. })));
        assert_eq!(looks, Some(CONTRADICTIONS));
    }

    /// Check that a process that ends, or has no goroutines to show, leaves it open.
    #[test]
    fn left_open() {
        let gone = waiting().judge(Err(ProcessError::Gone { tgid: Tgid(7) }));
        assert!(matches!(gone, Some(Verdict::Open { .. })));
        let mut empty = waiting();
        let looks = (1..).find(|_| matches!(empty.judge(doubted(Doubt::NotYet)), Some(Verdict::Open { .. })));
        assert_eq!(looks, Some(MAX_LOOKS));
    }
}
