//! Who descends from whom, as /proc shows it.

use std::{collections::BTreeMap, fs};

use rustc_hash::{FxHashMap, FxHashSet};

use crate::{
    clock::KtimeNs,
    id::{ProcessKey, Tgid},
    recording::contract::{ChildSeen, ChildState, ChildrenSeen},
    target::{
        memory::comm,
        procfs::{self, Stat},
    },
};

/// Processes that are looked at in one search.
const MAX_PROCESSES: usize = 65_536;
/// Between two looks at a process's children.
const LOOK_EVERY_NS: u64 = 500_000_000;

fn everybody() -> Vec<Stat> {
    let numbers = procfs::all().unwrap_or_default();
    numbers.into_iter().take(MAX_PROCESSES).filter_map(|tgid| procfs::stat(tgid).ok()).collect()
}

/// The living descendants of `root`, itself included, and those of `known` that are still there: whose parent ended is an orphan, and a
/// descendant all the same.
pub fn descendants(root: Tgid, known: &[ProcessKey]) -> Vec<ProcessKey> {
    let known: FxHashSet<ProcessKey> = known.iter().copied().collect();
    let all = everybody();
    let mut children: FxHashMap<Tgid, Vec<&Stat>> = FxHashMap::default();
    for stat in &all {
        children.entry(stat.parent).or_default().push(stat);
    }
    let mut found: BTreeMap<Tgid, ProcessKey> = BTreeMap::new();
    let mut open: Vec<&Stat> = all.iter().filter(|stat| stat.key.tgid == root || known.contains(&stat.key)).collect();
    while let Some(stat) = open.pop() {
        if !stat.zombie && found.insert(stat.key.tgid, stat.key).is_none() {
            open.extend(children.get(&stat.key.tgid).into_iter().flatten());
        }
    }
    found.into_values().collect()
}

/// The children of one process, from look to look.
pub struct Children {
    parent: Tgid,
    known: BTreeMap<ProcessKey, ChildState>,
    due: KtimeNs,
    looked: bool,
}

impl Children {
    pub fn of(parent: Tgid) -> Self {
        Self { parent, known: BTreeMap::new(), due: KtimeNs(0), looked: false }
    }

    /// What is new since the look before, if it is time to look, and anything is.
    pub fn look(&mut self, now: KtimeNs) -> Option<ChildrenSeen> {
        if now < self.due {
            return None;
        }
        self.due = KtimeNs(now.0.saturating_add(LOOK_EVERY_NS));
        let parent = self.parent;
        let children = everybody().into_iter().filter(|stat| stat.parent == parent);
        let children: Vec<ChildSeen> = self.changes(children.map(|stat| (stat.key, stat.zombie)).collect());
        (!children.is_empty()).then_some(ChildrenSeen { at: now, parent, children })
    }

    fn changes(&mut self, now: Vec<(ProcessKey, bool)>) -> Vec<ChildSeen> {
        let looked = std::mem::replace(&mut self.looked, true);
        let mut changes = Vec::new();
        let mut tell = |key: ProcessKey, state: ChildState, new: bool| {
            let exe = if state == ChildState::Gone { String::new() } else { program(key.tgid) };
            changes.push(ChildSeen { tgid: key.tgid, start_ticks: key.start_ticks, exe, state, new });
        };
        let now: BTreeMap<ProcessKey, ChildState> =
            now.into_iter().map(|(key, zombie)| (key, if zombie { ChildState::Zombie } else { ChildState::Alive })).collect();
        for (key, state) in &now {
            match self.known.get(key) {
                Some(before) if before == state => {}
                before => tell(*key, *state, looked && before.is_none()),
            }
        }
        for key in self.known.keys().filter(|key| !now.contains_key(key)) {
            tell(*key, ChildState::Gone, false);
        }
        self.known = now;
        changes
    }
}

/// What a process runs; a zombie runs nothing, and has kept its name.
fn program(tgid: Tgid) -> String {
    let exe = fs::read_link(format!("/proc/{tgid}/exe")).map(|path| path.display().to_string());
    exe.or_else(|_| comm(tgid)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn own() -> Tgid {
        Tgid(std::process::id())
    }

    /// Check that a child of a child is a descendant, and that a zombie is none.
    #[test]
    fn descent() {
        let mut child = Command::new("sh").args(["-c", "sleep 60 & wait"]).spawn().unwrap();
        let key_of = |pid: u32| procfs::stat(Tgid(pid)).unwrap().key;
        let key = key_of(child.id());
        let found = loop {
            let found = descendants(Tgid(child.id()), &[]);
            if found.len() > 1 {
                break found;
            }
            std::thread::yield_now();
        };
        assert!(found.contains(&key) && descendants(own(), &[]).len() >= 3);
        let sleep = *found.iter().find(|other| **other != key).unwrap();
        child.kill().unwrap();
        while !procfs::stat(key.tgid).is_ok_and(|stat| stat.zombie) {
            std::thread::yield_now();
        }
        assert_eq!(descendants(key.tgid, &[sleep]), [sleep]);
        child.wait().unwrap();
        Command::new("kill").arg(sleep.tgid.to_string()).status().unwrap();
    }

    /// Check that what changes among children is told once: who came, who died, who is gone.
    #[test]
    fn changes() {
        let mut children = Children::of(Tgid(7));
        let key = |n: u32| ProcessKey { tgid: Tgid(4_000_000 + n), start_ticks: 1 };
        let mut told = |now: &[(u32, bool)]| -> Vec<(u32, ChildState, bool)> {
            let changes = children.changes(now.iter().map(|(n, zombie)| (key(*n), *zombie)).collect());
            changes.into_iter().map(|child| (child.tgid.0 - 4_000_000, child.state, child.new)).collect()
        };
        use ChildState::{Alive, Gone, Zombie};
        assert_eq!(told(&[(1, false), (2, true)]), [(1, Alive, false), (2, Zombie, false)]);
        assert_eq!(told(&[(1, false), (2, true)]), []);
        assert_eq!(told(&[(1, true), (3, false)]), [(1, Zombie, false), (3, Alive, true), (2, Gone, false)]);
        assert_eq!(told(&[]), [(1, Gone, false), (3, Gone, false)]);
    }
}
