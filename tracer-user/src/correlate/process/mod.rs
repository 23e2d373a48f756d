//! Processes and their images: which program ran under a tgid, from when to when.
//!
//! A tgid names another process after the exit of the first, and another program after an exec. So a process is an entry
//! of [`Processes`], and each exec begins a new [`Image`] of it: goroutine ids and load biases are an image's own. What else befell
//! it is in [`life`].

use rustc_hash::FxHashMap;

use crate::{
    clock::KtimeNs,
    event::{ProcessExit, ProcessFork, Program},
    id::{Address, BinaryId, ProcessKey, Tgid, Tid},
    recording::contract::Joined,
};

pub mod life;

use life::Life;

/// A process of this recording, by order of appearance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub u32);

/// One program run by a process, by order of appearance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageId(pub u32);

/// One process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub tgid: Tgid,
    /// With the tgid, who it is; `None` until a record tells.
    pub key: Option<ProcessKey>,
    /// At its birth, or as soon as that was known.
    pub parent: Option<Tgid>,
    /// `None`: it ran before it was followed, or its fork was lost.
    pub forked_at: Option<KtimeNs>,
    /// Its first record.
    pub first_seen: KtimeNs,
    /// When it ended, and its wait status; the status is `None` if its exit was lost and the tgid turned up as another.
    pub ended: Option<(KtimeNs, Option<u32>)>,
    /// In order of time; never empty.
    pub images: Vec<ImageId>,
    pub life: Life,
}

/// A program run by a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub process: ProcessId,
    /// From exec, or from the first thing known of it.
    pub since: KtimeNs,
    pub until: Option<KtimeNs>,
    pub args: Vec<String>,
    pub args_truncated: bool,
    /// The path of the program; empty where nobody told.
    pub exe: String,
    /// It began with an exec that was seen; else it is a copy of the parent's, or ran before.
    pub executed: bool,
    /// The thread that executed it, if that was not the leader: it is the leader since.
    pub by_thread: Option<Tid>,
    /// The probed binary; `None` while no probe was hit.
    pub binary: Option<BinaryId>,
    /// Runtime address less link-time address.
    pub bias: Option<u64>,
    /// The first hit of a probe.
    pub first_hit: Option<KtimeNs>,
    /// What it runs and where, no event told, but a look at its memory.
    pub by_look: bool,
}

impl Image {
    /// The link-time address of a runtime one, if the load bias is known.
    pub fn link_address(&self, pc: Address) -> Option<(BinaryId, Address)> {
        Some((self.binary?, Address(pc.0.wrapping_sub(self.bias?))))
    }
}

/// All processes of a recording.
#[derive(Clone, Debug, Default)]
pub struct Processes {
    processes: Vec<Process>,
    images: Vec<Image>,
    /// Who has a tgid now.
    current: FxHashMap<Tgid, ProcessId>,
    /// When the last owner of a tgid ended: an event from before that is late, not another process's.
    ended: FxHashMap<Tgid, KtimeNs>,
    /// Who has exited and was not seen to be reaped, by tgid and start in boot time, ns: the one name that is never used twice.
    by_start: FxHashMap<(Tgid, u64), ProcessId>,
}

/// What an event about a process changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing ended.
    None,
    /// This image ended: its goroutines are gone with it.
    Ended { image: ImageId, at: KtimeNs },
}

/// What a look at a process's memory meant for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looked {
    pub image: ImageId,
    pub changes: [Change; 3],
    /// Where its program is loaded was not known.
    pub news: bool,
}

impl Processes {
    pub fn process(&self, id: ProcessId) -> &Process {
        &self.processes[id.0 as usize]
    }

    pub fn image(&self, id: ImageId) -> &Image {
        &self.images[id.0 as usize]
    }

    pub fn of_image(&self, id: ImageId) -> &Process {
        self.process(self.image(id).process)
    }

    pub fn processes(&self) -> impl ExactSizeIterator<Item = (ProcessId, &Process)> {
        self.processes.iter().enumerate().map(|(index, process)| (ProcessId(index as u32), process))
    }

    pub fn images(&self) -> impl Iterator<Item = (ImageId, &Image)> {
        self.images.iter().enumerate().map(|(index, image)| (ImageId(index as u32), image))
    }

    /// The image that runs under `tgid`, one of a new process if none is known. `None` for a late event of an ended one.
    pub fn running(&mut self, tgid: Tgid, at: KtimeNs) -> Option<ImageId> {
        let id = match self.current.get(&tgid) {
            Some(id) => *id,
            None if self.ended.get(&tgid).is_some_and(|ended| at <= *ended) => return None,
            None => self.begin(tgid, None, None, at),
        };
        self.processes[id.0 as usize].images.last().copied()
    }

    /// The image that runs under `tgid` now, if one is known.
    pub fn newest_image(&self, tgid: Tgid) -> Option<ImageId> {
        self.process(*self.current.get(&tgid)?).images.last().copied()
    }

    /// A probe of `binary` was hit under `image`. A hit of another binary than the known one means that an exec was lost.
    pub fn hit(&mut self, image: ImageId, binary: BinaryId, at: KtimeNs) -> (ImageId, Change) {
        let entry = &mut self.images[image.0 as usize];
        entry.first_hit.get_or_insert(at);
        match entry.binary {
            Some(known) if known != binary => {
                let (fresh, change) = self.replace_image(image, at);
                let entry = &mut self.images[fresh.0 as usize];
                (entry.binary, entry.first_hit) = (Some(binary), Some(at));
                (fresh, change)
            }
            _ => {
                entry.binary = Some(binary);
                (image, Change::None)
            }
        }
    }

    /// The first hit of an image told its load bias.
    pub fn loaded(&mut self, image: ImageId, bias: u64, at: KtimeNs) -> Change {
        let entry = &mut self.images[image.0 as usize];
        match entry.bias {
            // Another bias of the same binary: it executed itself, and the exec was lost.
            Some(known) if known != bias => {
                let binary = entry.binary;
                let (fresh, change) = self.replace_image(image, at);
                let entry = &mut self.images[fresh.0 as usize];
                (entry.binary, entry.bias, entry.first_hit) = (binary, Some(bias), Some(at));
                change
            }
            _ => {
                entry.bias = Some(bias);
                Change::None
            }
        }
    }

    /// The process of `forker` forked. The child runs a copy of its image until it executes another.
    pub fn fork(&mut self, forker: Tgid, fork: &ProcessFork, at: KtimeNs) -> Change {
        let forker_key = key_of(forker, fork.parent_start_boottime_ns);
        let child_key = key_of(fork.child, fork.child_start_boottime_ns);
        let inherited = self.current.get(&forker).copied().map(|id| {
            let key = &mut self.processes[id.0 as usize].key;
            *key = key.or(forker_key);
            self.image(*self.process(id).images.last().expect("a process has an image")).clone()
        });
        // The child's own first event may have come before: then the fork only completes what is known.
        if let Some(&id) = self.current.get(&fork.child)
            && self.processes[id.0 as usize].key.is_none_or(|key| child_key.is_none_or(|child| child == key))
            && self.processes[id.0 as usize].first_seen >= at
        {
            let process = &mut self.processes[id.0 as usize];
            (process.key, process.parent, process.forked_at) = (process.key.or(child_key), Some(fork.parent), Some(at));
            self.in_cgroup(id, fork.cgroup, at);
            return Change::None;
        }
        let change = self.vacate(fork.child, at);
        let id = self.begin(fork.child, child_key, inherited, at);
        let process = &mut self.processes[id.0 as usize];
        (process.parent, process.forked_at) = (Some(fork.parent), Some(at));
        self.in_cgroup(id, fork.cgroup, at);
        if let Some(forker) = self.current.get(&forker).copied() {
            self.acts(forker, at);
        }
        change
    }

    /// A process executed a program: a new image begins, and the old one's goroutines are gone.
    pub fn exec(&mut self, tgid: Tgid, program: &Program, at: KtimeNs) -> Change {
        let (id, mut change) = self.identified(tgid, program.start_boottime_ns, at);
        let image = *self.process(id).images.last().expect("a process has an image");
        // A process that begins with this exec has an image already, and nothing of it is known: it is this one.
        let fresh = self.image(image).since == at && self.image(image).first_hit.is_none();
        let image = if fresh {
            image
        } else {
            let (fresh, ended) = self.replace_image(image, at);
            change = if change == Change::None { ended } else { change };
            fresh
        };
        let entry = &mut self.images[image.0 as usize];
        (entry.args, entry.args_truncated) = (program.args.clone(), program.args_truncated);
        (entry.binary, entry.bias, entry.first_hit) = (None, None, None);
        entry.exe.clone_from(&program.exe);
        (entry.executed, entry.by_thread) = (true, program.old_tid.filter(|tid| tid.0 != tgid.0));
        self.in_cgroup(id, program.cgroup, at);
        self.acts(id, at);
        change
    }

    /// A process that ran before it was followed told who it is.
    pub fn met(&mut self, tgid: Tgid, program: &Program, at: KtimeNs) -> Change {
        let (id, change) = self.identified(tgid, program.start_boottime_ns, at);
        let image = *self.process(id).images.last().expect("a process has an image");
        let entry = &mut self.images[image.0 as usize];
        if entry.args.is_empty() {
            (entry.args, entry.args_truncated) = (program.args.clone(), program.args_truncated);
        }
        self.in_cgroup(id, program.cgroup, at);
        change
    }

    /// The same, told by somebody who looked at it. What its own events told of binary and load bias stands.
    pub fn joined(&mut self, joined: &Joined) -> Change {
        let key = ProcessKey { tgid: joined.tgid, start_ticks: joined.start_ticks };
        let (id, change) = self.of_key(key, joined.at);
        let process = &mut self.processes[id.0 as usize];
        process.parent = process.parent.or(joined.parent);
        let image = *process.images.last().expect("a process has an image");
        let entry = &mut self.images[image.0 as usize];
        if entry.args.is_empty() {
            entry.args.clone_from(&joined.args);
        }
        if joined.runs_go() {
            entry.binary.get_or_insert(joined.binary);
            entry.bias.get_or_insert(joined.load_bias);
            entry.first_hit.get_or_insert(joined.at);
        }
        change
    }

    /// The same, told by a look at its memory: who it is, and what it runs. `None` if it has ended, as events know.
    pub fn looked(&mut self, key: ProcessKey, binary: BinaryId, bias: u64, at: KtimeNs) -> Option<Looked> {
        let last = self.processes.iter().rev().find(|process| process.key == Some(key));
        if last.is_some_and(|process| process.ended.is_some()) {
            return None;
        }
        let (_, other) = self.of_key(key, at);
        let image = self.running(key.tgid, at)?;
        let news = self.image(image).bias.is_none();
        let (image, exec) = self.hit(image, binary, at);
        let moved = self.loaded(image, bias, at);
        self.images[image.0 as usize].by_look |= news;
        Some(Looked { image: self.running(key.tgid, at)?, changes: [other, exec, moved], news })
    }

    /// The image that runs under a tgid, if that is the process of this key, as far as is known.
    pub fn current_image(&self, key: ProcessKey) -> Option<ImageId> {
        let process = self.process(*self.current.get(&key.tgid)?);
        process.images.last().copied().filter(|_| process.key.is_none_or(|known| known == key))
    }

    /// There is no such process any more, and its exit was lost.
    pub fn vanished(&mut self, key: ProcessKey, at: KtimeNs) -> Change {
        let current = self.current.get(&key.tgid).copied();
        match current.filter(|id| self.processes[id.0 as usize].key.is_none_or(|known| known == key)) {
            Some(id) => self.end(id, at, None),
            None => Change::None,
        }
    }

    /// The last thread of a process exited.
    pub fn exit(&mut self, tgid: Tgid, exit: &ProcessExit, at: KtimeNs) -> [Change; 2] {
        let (id, before) = self.identified(tgid, exit.start_boottime_ns, at);
        self.learn_parent(id, exit.parent, at);
        self.processes[id.0 as usize].life.autoreaped = exit.autoreaped;
        self.by_start.insert((tgid, exit.start_boottime_ns), id);
        [before, self.end(id, at, exit.wait_status)]
    }

    /// The process of that tgid and start; another one that held the tgid has ended unseen. Where starts are not known, who holds the
    /// tgid now.
    fn identified(&mut self, tgid: Tgid, boottime_ns: u64, at: KtimeNs) -> (ProcessId, Change) {
        match (key_of(tgid, boottime_ns), self.current.get(&tgid)) {
            (Some(key), _) => self.of_key(key, at),
            (None, Some(&id)) => (id, Change::None),
            (None, None) => (self.begin(tgid, None, None, at), Change::None),
        }
    }

    fn of_key(&mut self, key: ProcessKey, at: KtimeNs) -> (ProcessId, Change) {
        let tgid = key.tgid;
        let mut change = Change::None;
        if let Some(&id) = self.current.get(&tgid) {
            if *self.processes[id.0 as usize].key.get_or_insert(key) == key {
                return (id, Change::None);
            }
            change = self.vacate(tgid, at);
        }
        (self.begin(tgid, Some(key), None, at), change)
    }

    /// Ends whoever holds a tgid, with no status: its exit was lost.
    fn vacate(&mut self, tgid: Tgid, at: KtimeNs) -> Change {
        self.current.get(&tgid).copied().map_or(Change::None, |id| self.end(id, at, None))
    }

    fn begin(&mut self, tgid: Tgid, key: Option<ProcessKey>, inherited: Option<Image>, at: KtimeNs) -> ProcessId {
        let id = ProcessId(self.processes.len() as u32);
        let image = self.push_image(Image {
            since: at,
            until: None,
            process: id,
            first_hit: None,
            executed: false,
            by_thread: None,
            ..inherited.unwrap_or_else(|| empty_image(id, at))
        });
        self.processes.push(Process {
            tgid,
            key,
            parent: None,
            forked_at: None,
            first_seen: at,
            ended: None,
            images: vec![image],
            life: Life::default(),
        });
        self.current.insert(tgid, id);
        id
    }

    fn end(&mut self, id: ProcessId, at: KtimeNs, wait_status: Option<u32>) -> Change {
        let process = &mut self.processes[id.0 as usize];
        process.ended = Some((at, wait_status));
        let (tgid, image) = (process.tgid, *process.images.last().expect("a process has an image"));
        self.images[image.0 as usize].until = Some(at);
        self.current.remove(&tgid);
        self.ended.insert(tgid, at);
        Change::Ended { image, at }
    }

    fn replace_image(&mut self, image: ImageId, at: KtimeNs) -> (ImageId, Change) {
        self.images[image.0 as usize].until = Some(at);
        let process = self.images[image.0 as usize].process;
        let fresh = self.push_image(empty_image(process, at));
        self.processes[process.0 as usize].images.push(fresh);
        (fresh, Change::Ended { image, at })
    }

    fn push_image(&mut self, image: Image) -> ImageId {
        self.images.push(image);
        ImageId((self.images.len() - 1) as u32)
    }
}

/// Who a process is, if its start is known: a kernel without BTF does not tell it (0).
fn key_of(tgid: Tgid, start_boottime_ns: u64) -> Option<ProcessKey> {
    (start_boottime_ns != 0).then(|| ProcessKey::from_boottime(tgid, start_boottime_ns))
}

fn empty_image(process: ProcessId, since: KtimeNs) -> Image {
    Image {
        process,
        since,
        until: None,
        args: Vec::new(),
        args_truncated: false,
        exe: String::new(),
        executed: false,
        by_thread: None,
        binary: None,
        bias: None,
        first_hit: None,
        by_look: false,
    }
}

#[cfg(test)]
mod tests {
    use tracer_common::process::Cgroup;

    use super::*;

    const TICK: u64 = 10_000_000;

    fn fork(parent: u32, parent_start: u64, child: u32, child_start: u64) -> ProcessFork {
        ProcessFork {
            child: Tgid(child),
            child_start_boottime_ns: child_start,
            parent_start_boottime_ns: parent_start,
            parent: Tgid(parent),
            cgroup: Cgroup::default(),
        }
    }

    fn program(start_boottime_ns: u64, name: &str) -> Program {
        Program { start_boottime_ns, args: vec![name.to_owned()], ..Program::default() }
    }

    fn end(start_boottime_ns: u64, wait_status: u32) -> ProcessExit {
        ProcessExit { start_boottime_ns, wait_status: Some(wait_status), parent: None, autoreaped: false }
    }

    /// Check that without start times a process is whom a fork says, and that its status stays unknown.
    #[test]
    fn without_start_times() {
        let mut all = Processes::default();
        all.fork(Tgid(1), &fork(1, 0, 2, 0), KtimeNs(10));
        all.exec(Tgid(2), &program(0, "a"), KtimeNs(20));
        let exit = ProcessExit { wait_status: None, ..end(0, 0) };
        assert_eq!(all.exit(Tgid(2), &exit, KtimeNs(30))[0], Change::None);
        all.fork(Tgid(1), &fork(1, 0, 2, 0), KtimeNs(40));
        let ended: Vec<_> =
            all.processes().filter(|(_, process)| process.tgid == Tgid(2)).map(|(_, process)| process.ended).collect();
        assert_eq!(ended, [Some((KtimeNs(30), None)), None]);
    }

    /// Check that fork, exec, exec, exit make one process with an image for each program.
    #[test]
    fn one_process_many_images() {
        let mut all = Processes::default();
        assert_eq!(all.fork(Tgid(1), &fork(1, TICK, 2, 9 * TICK), KtimeNs(10)), Change::None);
        assert!(matches!(all.exec(Tgid(2), &program(9 * TICK, "sh"), KtimeNs(20)), Change::Ended { .. }));
        let image = all.running(Tgid(2), KtimeNs(21)).unwrap();
        assert_eq!(all.hit(image, BinaryId(1), KtimeNs(22)), (image, Change::None));
        assert_eq!(all.loaded(image, 0x1000, KtimeNs(22)), Change::None);
        assert_eq!(all.image(image).link_address(Address(0x1234)), Some((BinaryId(1), Address(0x234))));
        assert_eq!(all.exec(Tgid(2), &program(9 * TICK, "app"), KtimeNs(30)), Change::Ended { image, at: KtimeNs(30) });
        all.exit(Tgid(2), &end(9 * TICK, 3 << 8), KtimeNs(40));
        let process = all.process(ProcessId(0));
        assert_eq!((process.parent, process.ended, process.images.len()), (Some(Tgid(1)), Some((KtimeNs(40), Some(768))), 3));
    }

    /// Check that a tgid after an exit is another process, and a late event of the first is nobody's.
    #[test]
    fn reused_tgid() {
        let mut all = Processes::default();
        let first = all.running(Tgid(5), KtimeNs(1)).unwrap();
        all.exit(Tgid(5), &end(TICK, 0), KtimeNs(10));
        assert_eq!(all.running(Tgid(5), KtimeNs(9)), None);
        let second = all.running(Tgid(5), KtimeNs(11)).unwrap();
        assert_ne!(all.image(first).process, all.image(second).process);
    }

    /// Check that an exec by another process than the known one ends that one without a status.
    #[test]
    fn lost_exit() {
        let mut all = Processes::default();
        all.exec(Tgid(5), &program(TICK, "a"), KtimeNs(1));
        all.exec(Tgid(5), &program(2 * TICK, "b"), KtimeNs(9));
        assert_eq!(all.process(ProcessId(0)).ended, Some((KtimeNs(9), None)));
        assert_eq!(all.process(ProcessId(1)).ended, None);
    }

    /// Check that a hit of another binary, or at another bias, means a lost exec.
    #[test]
    fn lost_exec() {
        let mut all = Processes::default();
        let first = all.running(Tgid(5), KtimeNs(1)).unwrap();
        all.hit(first, BinaryId(1), KtimeNs(1));
        let (second, change) = all.hit(first, BinaryId(2), KtimeNs(2));
        assert_eq!(change, Change::Ended { image: first, at: KtimeNs(2) });
        all.loaded(second, 0, KtimeNs(2));
        assert_eq!(all.loaded(second, 0, KtimeNs(3)), Change::None);
        assert_eq!(all.loaded(second, 7, KtimeNs(4)), Change::Ended { image: second, at: KtimeNs(4) });
    }
}
