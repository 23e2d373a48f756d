//! What a process lived through besides its programs: parents, signals, stops, cgroups, and what became of it after its end.

use std::collections::VecDeque;

use tracer_common::process::Cgroup;

use super::{Change, Process, ProcessId, Processes};
use crate::{
    clock::KtimeNs,
    event::{ProcessReaped, SignalSent},
    id::{ProcessKey, Tgid, Tid},
    recording::contract::{Adopted, ChildSeen, ChildState, Found, Gone},
};

/// Signals of one process that are kept: the newest; older ones are only counted.
const MAX_SIGNALS: usize = 256;
/// Stops, and moves between cgroups, of one process that are kept.
const MAX_STOPS: usize = 256;
/// Parents of one process after that of its birth.
const MAX_ADOPTIONS: usize = 16;
/// Within this time after a stop began, other threads may still act.
const STOPPING_NS: u64 = 10_000_000;

/// `include/uapi/asm/signal.h` of x86.
pub mod number {
    pub const SIGKILL: u32 = 9;
    pub const SIGTERM: u32 = 15;
    pub const SIGCONT: u32 = 18;
    pub const SIGSTOP: u32 = 19;
    pub const SIGTTOU: u32 = 22;
}
use number::{SIGCONT, SIGKILL, SIGSTOP, SIGTTOU};

/// What befell a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Life {
    /// Parents after that of its birth, in order of time.
    pub adoptions: Vec<Adoption>,
    pub signals: Signals,
    pub stops: Vec<Stop>,
    /// The kernel chose it to be killed, because memory ran out.
    pub oom_at: Option<KtimeNs>,
    /// Where it was from when on, as its own records tell.
    pub cgroups: Vec<(KtimeNs, Cgroup)>,
    pub moves: Vec<CgroupMove>,
    /// Nobody was to ask for its status: it was no zombie.
    pub autoreaped: bool,
    /// Nobody told of its end, but a look at /proc found it dead by then.
    pub seen_dead: Option<KtimeNs>,
    pub reaped: Option<Reaped>,
}

/// A process got another parent, because the one before ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// When the parent before ended; else when the new one was first known.
    pub at: KtimeNs,
    pub parent: Tgid,
}

/// A zombie went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaped {
    /// If `seen`, exactly; else soon after that.
    pub at: KtimeNs,
    pub by: Option<Tgid>,
    /// Whether the reaper was seen to do it; else `by` is who was the parent, and so had to.
    pub seen: bool,
    /// No record told, but a look at /proc: it was gone by then.
    pub by_look: bool,
}

/// From when to when a process was stopped by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    pub from: KtimeNs,
    /// `None`: to its end, or the recording's.
    pub to: Option<KtimeNs>,
    pub signal: u32,
}

/// A process was moved to another cgroup of one hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupMove {
    pub at: KtimeNs,
    pub hierarchy: u32,
    pub cgroup: u64,
}

/// The signals of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// How many there were, kept or not.
    pub sent: u64,
    pub received: u64,
    pub taken: u64,
    /// The newest, in order of time.
    pub kept: VecDeque<Signal>,
}

/// One signal, seen from one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    pub at: KtimeNs,
    pub signal: u32,
    /// `si_code`.
    pub code: i32,
    pub what: SignalWhat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalWhat {
    Sent {
        to: Tgid,
    },
    Received {
        /// `None`: the kernel.
        from: Option<Tgid>,
        /// `TRACE_SIGNAL_…`: 0 delivered, 1 ignored, 2 already pending, 3 and 4 lost.
        result: u32,
    },
    Taken {
        /// By a handler of its own; else the default action.
        handled: bool,
        tid: Tid,
    },
}

impl Signals {
    fn keep(&mut self, signal: Signal) {
        let count = match signal.what {
            SignalWhat::Sent { .. } => &mut self.sent,
            SignalWhat::Received { .. } => &mut self.received,
            SignalWhat::Taken { .. } => &mut self.taken,
        };
        *count += 1;
        if self.kept.len() == MAX_SIGNALS {
            self.kept.pop_front();
        }
        self.kept.push_back(signal);
    }

    /// How many are not among the kept.
    pub fn left_out(&self) -> u64 {
        (self.sent + self.received + self.taken).saturating_sub(self.kept.len() as u64)
    }
}

/// Whether a signal with this `si_code` comes from the task that made it, and not from the kernel on its CPU (SI_USER, SI_QUEUE,
/// SI_TKILL of `include/uapi/asm-generic/siginfo.h`).
pub fn is_from_task(code: i32) -> bool {
    matches!(code, 0 | -1 | -6)
}

impl Process {
    /// Its parent by the end of what is known.
    pub fn last_parent(&self) -> Option<Tgid> {
        self.life.adoptions.last().map(|adoption| adoption.parent).or(self.parent)
    }

    /// From when to when it was a zombie; the end is `None` if it was not reaped while anybody looked. `None` for one that still lives, or
    /// that nobody had to wait for.
    pub fn zombie(&self) -> Option<(KtimeNs, Option<KtimeNs>)> {
        let (from, status) = self.ended?;
        // Of one whose exit was lost nothing more is known, unless somebody saw it lie there.
        if status.is_none() && self.life.seen_dead.is_none() {
            return None;
        }
        (!self.life.autoreaped).then(|| (from, self.life.reaped.map(|reaped| reaped.at)))
    }

    fn wakes(&mut self, at: KtimeNs) {
        if let Some(stop) = self.life.stops.last_mut() {
            stop.to.get_or_insert(at);
        }
    }

    /// It did something: a signal that stops processes did not stop it (the kernel spares those whose group has no shell left).
    fn acts(&mut self, at: KtimeNs) {
        if self.life.stops.last().is_some_and(|stop| stop.to.is_none() && at.since(stop.from) > STOPPING_NS) {
            self.life.stops.pop();
        }
    }
}

impl Processes {
    fn life_of(&mut self, id: ProcessId) -> &mut Process {
        &mut self.processes[id.0 as usize]
    }

    /// Who has a tgid now, by a start in boot time if one is told.
    fn living(&mut self, tgid: Tgid) -> Option<&mut Process> {
        let id = *self.current.get(&tgid)?;
        Some(self.life_of(id))
    }

    /// The process was seen to have this parent.
    pub(super) fn learn_parent(&mut self, id: ProcessId, parent: Option<Tgid>, at: KtimeNs) {
        let Some(parent) = parent else { return };
        let process = self.process(id);
        match process.last_parent() {
            None => self.life_of(id).parent = Some(parent),
            Some(before) if before != parent => {
                let since = process.life.adoptions.last().map_or(process.first_seen, |adoption| adoption.at);
                let ended = self.ended.get(&before).copied().filter(|ended| *ended >= since && *ended <= at);
                let adoptions = &mut self.life_of(id).life.adoptions;
                if adoptions.len() < MAX_ADOPTIONS {
                    adoptions.push(Adoption { at: ended.unwrap_or(at), parent });
                }
            }
            Some(_) => {}
        }
    }

    pub(in crate::correlate) fn in_cgroup(&mut self, id: ProcessId, cgroup: Cgroup, at: KtimeNs) {
        let life = &mut self.life_of(id).life;
        let news = cgroup != Cgroup::default() && life.cgroups.last().is_none_or(|(_, last)| *last != cgroup);
        if news && life.cgroups.len() < MAX_STOPS {
            life.cgroups.push((at, cgroup));
        }
    }

    /// A process did something that one which is stopped cannot.
    pub(super) fn acts(&mut self, id: ProcessId, at: KtimeNs) {
        self.life_of(id).acts(at);
    }

    /// A process that had exited was taken out of the kernel's tables, by the event's task if that is known. One whose exit was lost ends
    /// by this.
    pub fn reaped(&mut self, task: Tgid, reaped: &ProcessReaped, at: KtimeNs) -> Change {
        let Some(id) = self.by_start.remove(&(reaped.tgid, reaped.start_boottime_ns)) else {
            return self.vanished(ProcessKey::from_boottime(reaped.tgid, reaped.start_boottime_ns), at);
        };
        let by = if reaped.reaper_known { Some(task) } else { reaped.parent };
        // Where a parent ignores its child's end, the child goes by itself.
        if reaped.reaper_known && task == reaped.tgid {
            self.life_of(id).life.autoreaped = true;
            return Change::None;
        }
        self.learn_parent(id, reaped.parent, at);
        self.life_of(id).life.reaped = Some(Reaped { at, by, seen: reaped.reaper_known, by_look: false });
        Change::None
    }

    /// A signal was sent, by the event's task or by the kernel.
    pub fn signal_sent(&mut self, task: Tgid, sent: &SignalSent, at: KtimeNs) {
        let from = is_from_task(sent.code).then_some(task);
        let signal = |what| Signal { at, signal: sent.signal, code: sent.code, what };
        if let Some(receiver) = self.living(sent.to) {
            if matches!(sent.signal, SIGCONT | SIGKILL) {
                receiver.wakes(at);
            }
            receiver.life.signals.keep(signal(SignalWhat::Received { from, result: sent.result }));
        }
        if let Some(sender) = from.and_then(|from| self.living(from)) {
            sender.life.signals.keep(signal(SignalWhat::Sent { to: sent.to }));
        }
    }

    /// A thread of a process takes a signal.
    pub fn signal_taken(&mut self, (tgid, tid): (Tgid, Tid), signal: u32, code: i32, handled: bool, at: KtimeNs) {
        let Some(process) = self.living(tgid) else { return };
        process.acts(at);
        process.life.signals.keep(Signal { at, signal, code, what: SignalWhat::Taken { handled, tid } });
        let stops = &mut process.life.stops;
        let running = stops.last().is_none_or(|stop| stop.to.is_some());
        if !handled && (SIGSTOP..=SIGTTOU).contains(&signal) && running && stops.len() < MAX_STOPS {
            stops.push(Stop { from: at, to: None, signal });
        }
    }

    pub fn oom_victim(&mut self, tgid: Tgid, at: KtimeNs) {
        if let Some(victim) = self.living(tgid) {
            victim.life.oom_at.get_or_insert(at);
        }
    }

    /// A process as a whole was moved; single threads of it may be elsewhere.
    pub fn cgroup_moved(&mut self, tgid: Tgid, moved: CgroupMove) {
        if let Some(process) = self.living(tgid)
            && process.life.moves.len() < MAX_STOPS
        {
            process.life.moves.push(moved);
        }
    }

    /// A process that ran before it was followed, as /proc shows it. What its own events told stands.
    pub fn found(&mut self, found: &Found) -> Change {
        let key = ProcessKey { tgid: found.tgid, start_ticks: found.start_ticks };
        let (id, change) = self.of_key(key, found.at);
        self.learn_parent(id, found.parent, found.at);
        self.in_cgroup(id, Cgroup { unified: found.unified, memory: found.memory }, found.at);
        let image = *self.process(id).images.last().expect("a process has an image");
        let entry = &mut self.images[image.0 as usize];
        if entry.args.is_empty() {
            entry.args.clone_from(&found.args);
        }
        if entry.exe.is_empty() {
            entry.exe.clone_from(&found.exe);
        }
        change
    }

    /// A process that had exited is no zombie any more. False if that was known.
    pub fn gone(&mut self, gone: &Gone) -> bool {
        let Some(id) = self.by_start.remove(&(gone.tgid, gone.start_boottime_ns)) else { return false };
        self.life_of(id).life.reaped = Some(Reaped { at: gone.at, by: None, seen: false, by_look: true });
        true
    }

    /// /proc showed a child of a process, or shows it no more.
    pub fn child_seen(&mut self, parent: Tgid, child: &ChildSeen, at: KtimeNs) {
        let key = ProcessKey { tgid: child.tgid, start_ticks: child.start_ticks };
        let dead = self.processes.iter().rposition(|process| process.key == Some(key) && process.ended.is_some());
        if let Some(dead) = dead {
            let life = &mut self.processes[dead].life;
            if child.state == ChildState::Gone && life.reaped.is_none() {
                life.reaped = Some(Reaped { at, by: None, seen: false, by_look: true });
            }
            return;
        }
        let (id, _) = self.of_key(key, at);
        self.learn_parent(id, Some(parent), at);
        let process = &mut self.processes[id.0 as usize];
        if child.new {
            process.forked_at.get_or_insert(at);
        }
        let image = *process.images.last().expect("a process has an image");
        if self.images[image.0 as usize].exe.is_empty() {
            self.images[image.0 as usize].exe.clone_from(&child.exe);
        }
        if child.state != ChildState::Alive {
            self.end(id, at, None);
            self.life_of(id).life.seen_dead = (child.state == ChildState::Zombie).then_some(at);
        }
    }

    /// A process whose parent had ended was seen to have another one.
    pub fn adopted(&mut self, adopted: &Adopted) {
        let key = ProcessKey { tgid: adopted.tgid, start_ticks: adopted.start_ticks };
        let id = self.current.get(&adopted.tgid).copied();
        if let Some(id) = id.filter(|id| self.process(*id).key.is_none_or(|known| known == key)) {
            self.learn_parent(id, Some(adopted.parent), adopted.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        correlate::process::ProcessId,
        event::{ProcessExit, ProcessFork},
    };

    const TICK: u64 = 10_000_000;

    /// Processes 10, and 11 that it made at 100.
    fn family() -> Processes {
        let mut all = Processes::default();
        all.running(Tgid(10), KtimeNs(1)).unwrap();
        let fork = ProcessFork {
            child: Tgid(11),
            child_start_boottime_ns: 2 * TICK,
            parent_start_boottime_ns: TICK,
            parent: Tgid(10),
            cgroup: Cgroup::default(),
        };
        all.fork(Tgid(10), &fork, KtimeNs(100));
        all
    }

    fn exit(start_boottime_ns: u64, parent: u32, autoreaped: bool) -> ProcessExit {
        ProcessExit { start_boottime_ns, wait_status: Some(0), parent: Some(Tgid(parent)), autoreaped }
    }

    fn reap(tgid: u32, start_boottime_ns: u64, parent: u32, reaper_known: bool) -> ProcessReaped {
        ProcessReaped { tgid: Tgid(tgid), start_boottime_ns, parent: Some(Tgid(parent)), reaper_known }
    }

    fn sent(to: u32, signal: u32, code: i32) -> SignalSent {
        SignalSent { to: Tgid(to), to_tid: Tid(to), to_start_boottime_ns: 0, signal, code, result: 0, group: true }
    }

    /// Check from when to when one is a zombie: reaped by one that was seen, by the parent as told, by nobody, or never one at all.
    #[test]
    fn zombies() {
        let of = |known: Option<bool>, autoreaped: bool| {
            let mut all = family();
            all.exit(Tgid(11), &exit(2 * TICK, 10, autoreaped), KtimeNs(200));
            if let Some(known) = known {
                all.reaped(Tgid(77), &reap(11, 2 * TICK, 10, known), KtimeNs(300));
            }
            let process = all.process(ProcessId(1));
            (process.zombie(), process.life.reaped.and_then(|reaped| reaped.by))
        };
        assert_eq!(of(Some(true), false), (Some((KtimeNs(200), Some(KtimeNs(300)))), Some(Tgid(77))));
        assert_eq!(of(Some(false), false), (Some((KtimeNs(200), Some(KtimeNs(300)))), Some(Tgid(10))));
        assert_eq!(of(None, false), (Some((KtimeNs(200), None)), None));
        assert_eq!(of(None, true), (None, None));
        assert_eq!(family().process(ProcessId(1)).zombie(), None);
    }

    /// Check that a reaping that comes when the number is another's already is the first one's, and that one whose exit was lost ends by it.
    #[test]
    fn late_reaping() {
        let mut all = family();
        all.exit(Tgid(11), &exit(2 * TICK, 10, false), KtimeNs(200));
        let again = ProcessFork {
            child: Tgid(11),
            child_start_boottime_ns: 2 * TICK + 1,
            parent_start_boottime_ns: TICK,
            parent: Tgid(10),
            cgroup: Cgroup::default(),
        };
        all.fork(Tgid(10), &again, KtimeNs(250));
        assert_eq!(all.reaped(Tgid(10), &reap(11, 2 * TICK, 10, true), KtimeNs(300)), Change::None);
        assert_eq!(all.process(ProcessId(1)).life.reaped.map(|reaped| reaped.at), Some(KtimeNs(300)));
        assert!(all.process(ProcessId(2)).ended.is_none());
        let change = all.reaped(Tgid(10), &reap(11, 2 * TICK + 1, 10, true), KtimeNs(400));
        assert!(matches!(change, Change::Ended { .. }));
        assert_eq!(all.process(ProcessId(2)).ended, Some((KtimeNs(400), None)));
    }

    /// Check that a new parent is noticed wherever it shows, once, and as of the end of the one before.
    #[test]
    fn adoption() {
        let mut all = family();
        all.exit(Tgid(10), &exit(TICK, 1, false), KtimeNs(150));
        all.adopted(&Adopted { at: KtimeNs(180), tgid: Tgid(11), start_ticks: 2, parent: Tgid(1) });
        all.adopted(&Adopted { at: KtimeNs(181), tgid: Tgid(11), start_ticks: 3, parent: Tgid(5) });
        all.exit(Tgid(11), &exit(2 * TICK, 1, false), KtimeNs(200));
        all.reaped(Tgid(1), &reap(11, 2 * TICK, 1, true), KtimeNs(210));
        let process = all.process(ProcessId(1));
        assert_eq!(process.life.adoptions, [Adoption { at: KtimeNs(150), parent: Tgid(1) }]);
        assert_eq!((process.parent, process.last_parent()), (Some(Tgid(10)), Some(Tgid(1))));
    }

    /// Check that both ends of a signal are told, that the kernel is no sender, and that only so many are kept.
    #[test]
    fn signals() {
        let mut all = family();
        all.signal_sent(Tgid(10), &sent(11, 15, 0), KtimeNs(110));
        all.signal_sent(Tgid(10), &sent(11, 11, 1), KtimeNs(120));
        all.signal_taken((Tgid(11), Tid(12)), 15, 0, true, KtimeNs(130));
        let (sender, receiver) = (&all.process(ProcessId(0)).life.signals, &all.process(ProcessId(1)).life.signals);
        assert_eq!((sender.sent, receiver.received, receiver.taken), (1, 2, 1));
        let what: Vec<SignalWhat> = receiver.kept.iter().map(|signal| signal.what).collect();
        let received = |from| SignalWhat::Received { from, result: 0 };
        assert_eq!(what, [received(Some(Tgid(10))), received(None), SignalWhat::Taken { handled: true, tid: Tid(12) }]);
        for at in 0..2 * MAX_SIGNALS as u64 {
            all.signal_sent(Tgid(10), &sent(11, 10, 0), KtimeNs(200 + at));
        }
        let receiver = &all.process(ProcessId(1)).life.signals;
        assert_eq!((receiver.kept.len(), receiver.left_out()), (MAX_SIGNALS, MAX_SIGNALS as u64 + 3));
    }

    /// Check that a stop lasts until SIGCONT, and that one which the kernel did not carry out is taken back.
    #[test]
    fn stops() {
        let mut all = family();
        all.signal_taken((Tgid(11), Tid(11)), SIGSTOP, 0, false, KtimeNs(110));
        all.signal_sent(Tgid(10), &sent(11, SIGCONT, 0), KtimeNs(150));
        all.signal_taken((Tgid(11), Tid(11)), SIGTTOU, 0x80, false, KtimeNs(200));
        all.signal_taken((Tgid(11), Tid(11)), 10, 0, true, KtimeNs(201 + STOPPING_NS));
        let stop = Stop { from: KtimeNs(110), to: Some(KtimeNs(150)), signal: SIGSTOP };
        assert_eq!(all.process(ProcessId(1)).life.stops, [stop]);
    }
}
