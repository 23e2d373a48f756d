//! Goroutines that were read out of memory, joined with those that events tell of.
//!
//! A dump is taken after the probes are set, and its reading takes a while: whatever an event says that came after the
//! reading began is newer. So it is put in at that moment, as the state of those of which no event has told, and their first event
//! decides what it meant ([`Goroutine::found`]).

use super::{
    Engine, Sink, SpanState,
    goroutine::{Goroutine, Origin, Park, Seen, Who},
};
use crate::recording::contract::{DumpedGoroutine, GoroutineDump, Joined, Likeness, Tier};

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
        for &DumpedGoroutine(goid, creator, kind) in &dump.goroutines {
            let Some(found) = dump.kinds.get(kind as usize) else { continue };
            let seen = self.seen(found, dump.tier);
            let origin = Origin { parent: creator, gopc: found.gopc, startpc: found.startpc, stack: None };
            let population = self.populations.entry(image).or_default();
            if population.dead.contains(goid) {
                continue;
            }
            match population.live.get_mut(&goid) {
                Some(known) => known.identify(origin),
                None => {
                    let parent = creator.and_then(|parent| population.live.get(&parent));
                    let depth = parent.map_or(0, |parent| parent.who.depth.saturating_add(1));
                    let who = Who { image, goid, born_at: None, origin: Some(origin), since, depth };
                    let fresh = Goroutine::found(who, (dump.from, dump.to), seen, dump.tier >= Tier::T3);
                    population.live.insert(goid, fresh);
                }
            }
        }
    }

    /// What a goroutine did, as far as events of the tier will keep that up.
    fn seen(&mut self, found: &Likeness, tier: Tier) -> Seen {
        if tier < Tier::T2 {
            return Seen::Open(SpanState::Awake);
        }
        let scheduled = |state| if tier >= Tier::T3 { state } else { SpanState::Awake };
        match found.state.as_deref() {
            Some("waiting" | "leaked") => {
                let reason = found.wait_reason.as_ref().map(|name| self.intern(name));
                match reason {
                    // It only seems to wait.
                    Some(None) => Seen::Open(scheduled(SpanState::Running)),
                    reason => Seen::Blocked(Park { reason: reason.flatten(), stack: found.stack, object: None, tid: None }),
                }
            }
            Some("runnable" | "preempted") => Seen::Open(scheduled(SpanState::Runnable)),
            Some("running" | "copystack") => Seen::Open(scheduled(SpanState::Running)),
            Some("syscall") => Seen::Open(scheduled(SpanState::Syscall)),
            _ => Seen::Open(SpanState::Unknown),
        }
    }
}
