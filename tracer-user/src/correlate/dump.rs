//! Goroutines that were read out of memory, joined with those that events tell of.
//!
//! A dump is taken after the probes are set, and its reading takes a while: whatever an event says that came after the
//! reading began is newer. So it is put in at that moment, as the state of those of which no event has told, and their first event
//! decides what it meant ([`Goroutine::found`]).

use super::{
    Engine, Sink,
    goroutine::{Goroutine, Origin, Park, Who},
};
use crate::recording::contract::{DumpedGoroutine, GoroutineDump, Joined, Tier};

impl Engine {
    /// A process is followed that ran already.
    pub fn joined(&mut self, joined: &Joined, sink: &mut impl Sink) {
        self.newest = self.newest.max(joined.at);
        let change = self.processes.joined(joined);
        self.lost_process_exit(change);
        self.apply(change, sink);
    }

    /// A part of what was read out of the memory of a process. Comes when every event before it has.
    pub fn dump(&mut self, dump: &GoroutineDump) {
        self.newest = self.newest.max(dump.from);
        let Some(image) = self.processes.running(dump.tgid, dump.from) else { return };
        let since = self.processes.image(image).since;
        for found in &dump.goroutines {
            let waits = self.park_of(found).filter(|_| dump.tier >= Tier::T2);
            let origin = Origin { parent: found.parent, gopc: found.gopc, startpc: found.startpc, stack: None };
            let population = self.populations.entry(image).or_default();
            if population.dead.contains(found.goid) {
                continue;
            }
            match population.live.get_mut(&found.goid) {
                Some(known) => known.identify(origin),
                None => {
                    let who = Who { image, goid: found.goid, born_at: None, origin: Some(origin), since };
                    population.live.insert(found.goid, Goroutine::found(who, dump.from, dump.to, waits));
                }
            }
        }
    }

    /// How a goroutine waits; `None` if it does not, or only seems to.
    fn park_of(&mut self, found: &DumpedGoroutine) -> Option<Park> {
        if !matches!(found.state.as_deref(), Some("waiting" | "leaked")) {
            return None;
        }
        let reason = match &found.wait_reason {
            Some(name) => Some(self.intern(name)?),
            None => None,
        };
        Some(Park { reason, stack: found.stack, object: None, tid: None })
    }
}
