//! Who among the followed processes is whose child, and what becomes of children whose parent ends.
//!
//! No hook tells of adoption. So where a followed process ends and leaves followed children, they are asked for their new parent: soon
//! after, and at the recording's end.

use std::fs;

use rustc_hash::{FxHashMap, FxHashSet};
use tracer_common::process::Cgroup;

use super::Follower;
use crate::{
    capture::Message,
    clock::{KtimeNs, ktime_now},
    id::Tgid,
    kernel::ring::{Kin, Place},
    recording::contract::{Adopted, FactTold, Found, Note},
    target::procfs,
};

/// Processes that are kept: as many as are followed at once, and some whose exit was lost.
const MAX_KIN: usize = 131_072;
/// Orphans that wait to be asked.
const MAX_ORPHANS: usize = 16_384;
/// How long after its parent's last word an orphan is asked: by then the kernel has found it another one.
const SETTLED_NS: u64 = 5_000_000;

/// The family tree of those who live.
#[derive(Default)]
pub struct Family {
    parents: FxHashMap<Tgid, Tgid>,
    children: FxHashMap<Tgid, Vec<Tgid>>,
    orphans: Vec<Orphan>,
    /// Those who have ended and were not told to be reaped.
    ended: FxHashSet<Tgid>,
}

struct Orphan {
    tgid: Tgid,
    parent: Tgid,
    since: KtimeNs,
}

impl Family {
    fn take(&mut self, kin: Kin, now: KtimeNs) {
        match kin {
            Kin::Born { parent, child } => {
                if self.parents.len() >= MAX_KIN {
                    *self = Self::default();
                }
                self.parents.insert(child, parent);
                self.children.entry(parent).or_default().push(child);
            }
            Kin::Reaped(tgid) => {
                self.ended.remove(&tgid);
            }
            Kin::Ended(tgid) => {
                if self.ended.len() < MAX_KIN {
                    self.ended.insert(tgid);
                }
                if let Some(siblings) = self.parents.remove(&tgid).and_then(|parent| self.children.get_mut(&parent)) {
                    siblings.retain(|sibling| *sibling != tgid);
                }
                for child in self.children.remove(&tgid).unwrap_or_default() {
                    if self.orphans.len() < MAX_ORPHANS {
                        self.orphans.push(Orphan { tgid: child, parent: tgid, since: now });
                    }
                }
            }
        }
    }

    /// Whether anybody is gone of whose reaping no record has come.
    fn awaits_reapings(&mut self) -> bool {
        self.ended.retain(|tgid| !procfs::stat(*tgid).is_ok_and(|stat| stat.zombie));
        !self.ended.is_empty()
    }

    /// The orphans that have been adopted by now; the others are asked again, until they are gone.
    fn adopted(&mut self, now: KtimeNs) -> Vec<Adopted> {
        let mut adopted = Vec::new();
        self.orphans.retain(|orphan| {
            if now.since(orphan.since) < SETTLED_NS {
                return true;
            }
            let Ok(stat) = procfs::stat(orphan.tgid) else { return false };
            if stat.parent == orphan.parent {
                return true;
            }
            if stat.parent.0 != 0 {
                adopted.push(Adopted { at: now, tgid: orphan.tgid, start_ticks: stat.key.start_ticks, parent: stat.parent });
            }
            false
        });
        for Adopted { tgid, parent, .. } in &adopted {
            self.parents.insert(*tgid, *parent);
            self.children.entry(*parent).or_default().push(*tgid);
        }
        adopted
    }
}

impl Follower {
    /// Takes who was born and who has ended.
    pub fn kin(&mut self, kin: Vec<Kin>) {
        let now = ktime_now();
        kin.into_iter().for_each(|kin| self.family.take(kin, now));
    }

    /// Names cgroups that records gave by id.
    pub fn name_cgroups(&mut self, places: Vec<Place>) {
        for place in places {
            let named = match place {
                Place::Of(cgroup) => self.names.of(cgroup),
                Place::In { hierarchy, cgroup } => self.names.name(hierarchy, cgroup).into_iter().collect(),
            };
            named.into_iter().for_each(|named| self.capture.send(Message::Cgroup(named)));
        }
    }

    /// Tells the recording what this kernel tells of.
    pub fn tell_facts(&mut self) {
        let told = self.session.told().iter().map(|told| FactTold {
            fact: told.fact.to_owned(),
            through: told.through.to_owned(),
            by: told.by.clone(),
        });
        let note = Note::Facts { at: ktime_now(), told: told.collect() };
        self.capture.send(Message::Note(note));
    }

    /// Whether a process is gone of whose reaping no record has come, although this kernel tells of it.
    pub fn awaits_reapings(&mut self) -> bool {
        let told = self.session.told().iter().any(|told| told.fact == "process reaped" && told.through != "none");
        told && self.family.awaits_reapings()
    }

    /// Asks orphans for their parents. Comes a few times a second, and at the end.
    pub fn look_at_orphans(&mut self) {
        for adopted in self.family.adopted(ktime_now()) {
            self.capture.send(Message::Adopted(adopted));
        }
    }

    /// Tells the recording what /proc shows of a process that ran already.
    pub(super) fn tell_found(&mut self, stat: &procfs::Stat) {
        let tgid = stat.key.tgid;
        let Cgroup { unified, memory } = self.names.of_process(tgid);
        self.name_cgroups(vec![Place::Of(Cgroup { unified, memory })]);
        self.capture.send(Message::Found(Found {
            at: ktime_now(),
            tgid,
            start_ticks: stat.key.start_ticks,
            parent: Some(stat.parent).filter(|parent| parent.0 != 0),
            exe: fs::read_link(format!("/proc/{tgid}/exe")).map_or_else(|_| String::new(), |path| path.display().to_string()),
            args: procfs::args(tgid),
            unified,
            memory,
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that only the living children of one that ended are asked, and not before the kernel can have answered.
    #[test]
    fn orphans() {
        let own = Tgid(std::process::id());
        let mut family = Family::default();
        for child in [own, Tgid(4_000_001), Tgid(4_000_002)] {
            family.take(Kin::Born { parent: Tgid(4_000_000), child }, KtimeNs(1));
        }
        family.take(Kin::Ended(Tgid(4_000_001)), KtimeNs(2));
        family.take(Kin::Ended(Tgid(4_000_000)), KtimeNs(3));
        assert_eq!(family.orphans.len(), 2);
        assert_eq!(family.adopted(KtimeNs(4)), []);
        let adopted = family.adopted(KtimeNs(4 + SETTLED_NS));
        assert_eq!(adopted.iter().map(|one| one.tgid).collect::<Vec<_>>(), [own]);
        assert!(family.orphans.is_empty());
        // And once more, when who took it ends.
        family.take(Kin::Ended(adopted[0].parent), KtimeNs(5 + SETTLED_NS));
        assert_eq!(family.orphans.len(), 1);
        family.take(Kin::Ended(own), KtimeNs(6));
        assert!(family.parents.is_empty() && family.children.is_empty());
    }
}
