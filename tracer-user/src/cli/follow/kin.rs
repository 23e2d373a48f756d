//! Who among the followed processes is whose child, and what becomes of children whose parent ends.
//!
//! No hook tells of adoption. So where a followed process ends and leaves followed children, they are asked for their new parent: soon
//! after, and at the recording's end.

use rustc_hash::FxHashMap;
use tracer_common::process::Cgroup;

use super::Follower;
use crate::{
    capture::Message,
    clock::{KtimeNs, ktime_now},
    id::{ProcessKey, Tgid},
    kernel::ring::{Kin, Place},
    recording::contract::{Adopted, FactTold, Found, Gone, LoadAt, Note},
    target::procfs,
};

/// Processes that are kept: as many as are followed at once, and some whose exit was lost.
const MAX_KIN: usize = 131_072;
/// Orphans that wait to be asked.
const MAX_ORPHANS: usize = 16_384;
/// Between two looks at one that has ended or at what cgroups bear, and how many processes are looked at in one round.
const LOOK_AGAIN_NS: u64 = 2_000_000_000;
const MAX_LOOKS: usize = 1000;
/// A cgroup that is new is looked at so soon.
const LOOK_SOON_NS: u64 = 5_000_000;
/// How long after its parent's last word an orphan is asked: by then the kernel has found it another one.
const SETTLED_NS: u64 = 5_000_000;

/// The family tree of those who live.
#[derive(Default)]
pub struct Family {
    parents: FxHashMap<Tgid, Tgid>,
    children: FxHashMap<Tgid, Vec<Tgid>>,
    orphans: Vec<Orphan>,
    /// Those who have ended and were not told to be reaped, by number and start in boot time, ns; and when to look at them.
    ended: FxHashMap<(Tgid, u64), KtimeNs>,
    /// Those whose reaping came out of one CPU's ring before their end came out of another's.
    reaped: FxHashMap<(Tgid, u64), KtimeNs>,
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
            Kin::Reaped { tgid, start_boottime_ns } => {
                let key = (tgid, start_boottime_ns);
                if self.ended.remove(&key).is_none() && self.reaped.len() < MAX_KIN {
                    self.reaped.insert(key, now);
                }
            }
            Kin::Ended { tgid, zombie } => {
                if let Some(key) = zombie.map(|start_boottime_ns| (tgid, start_boottime_ns))
                    && self.reaped.remove(&key).is_none()
                    && self.ended.len() < MAX_KIN
                {
                    self.ended.insert(key, KtimeNs(now.0.saturating_add(LOOK_AGAIN_NS)));
                }
                if let Some(parent) = self.parents.remove(&tgid)
                    && let Some(siblings) = self.children.get_mut(&parent)
                {
                    siblings.retain(|sibling| *sibling != tgid);
                    if siblings.is_empty() {
                        self.children.remove(&parent);
                    }
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
    fn awaits_reapings(&self) -> bool {
        self.ended.keys().take(MAX_LOOKS).any(|key| !is_zombie(*key))
    }

    /// Those who have ended a while ago and are gone, although no record told of it: it was lost. `last`: however long ago.
    fn gone(&mut self, now: KtimeNs, last: bool) -> Vec<Gone> {
        // Rings are not out of step for that long: its end was lost, or told before.
        self.reaped.retain(|_, since| now.since(*since) < LOOK_AGAIN_NS);
        let due = self.ended.iter_mut().filter(|(_, due)| last || **due <= now).take(if last { MAX_KIN } else { MAX_LOOKS });
        let mut gone = Vec::new();
        for (key, due) in due {
            *due = KtimeNs(now.0.saturating_add(LOOK_AGAIN_NS));
            if !is_zombie(*key) {
                gone.push(Gone { at: now, tgid: key.0, start_boottime_ns: key.1 });
            }
        }
        for Gone { tgid, start_boottime_ns, .. } in &gone {
            self.ended.remove(&(*tgid, *start_boottime_ns));
        }
        gone
    }

    /// The orphans that have been adopted by now; the others are asked again, until they are gone.
    fn adopted(&mut self, now: KtimeNs, last: bool) -> Vec<Adopted> {
        let mut adopted = Vec::new();
        let parents = &mut self.parents;
        self.orphans.retain(|orphan| {
            if !last && now.since(orphan.since) < SETTLED_NS {
                return true;
            }
            let Ok(stat) = procfs::stat(orphan.tgid) else {
                // It has ended; whether a record tells of that is not known.
                parents.remove(&orphan.tgid);
                return false;
            };
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

/// Whether a process that has ended is still there, and no other one that has its number. Starts in /proc are cut to hundredths of a
/// second.
fn is_zombie((tgid, start_boottime_ns): (Tgid, u64)) -> bool {
    let key = ProcessKey::from_boottime(tgid, start_boottime_ns);
    procfs::stat(tgid).is_ok_and(|stat| stat.zombie && (start_boottime_ns == 0 || stat.key == key))
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
            for named in named {
                // Its accounts are counted from the first look on.
                self.load_due = self.load_due.min(KtimeNs(ktime_now().0.saturating_add(LOOK_SOON_NS)));
                self.capture.send(Message::Cgroup(named));
            }
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
    pub fn awaits_reapings(&self) -> bool {
        self.tells_of_reaping() && self.family.awaits_reapings()
    }

    /// Asks orphans for their parents. Comes a few times a second, and at the end.
    pub fn look_at_orphans(&mut self, last: bool) {
        for adopted in self.family.adopted(ktime_now(), last) {
            self.capture.send(Message::Adopted(adopted));
        }
        if self.tells_of_reaping() {
            for gone in self.family.gone(ktime_now(), last) {
                self.capture.send(Message::Gone(gone));
            }
        }
    }

    fn tells_of_reaping(&self) -> bool {
        self.session.told().iter().any(|told| told.fact == "process reaped" && told.through != "none")
    }

    /// Reads the accounts of the cgroups of those who are followed, every two seconds and at the end.
    pub fn look_at_load(&mut self, last: bool) {
        let at = ktime_now();
        if !last && at < self.load_due {
            return;
        }
        self.load_due = KtimeNs(at.0.saturating_add(LOOK_AGAIN_NS));
        let followed: Vec<Tgid> = self.session.followed().map(|(tgid, _)| tgid).take(MAX_LOOKS).collect();
        let cgroups = self.accounts.read(followed.into_iter());
        if !cgroups.is_empty() {
            self.capture.send(Message::Load(LoadAt { at, cgroups }));
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
            exe: procfs::exe(tgid).map_or_else(|_| String::new(), |path| path.display().to_string()),
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
        family.take(Kin::Ended { tgid: Tgid(4_000_001), zombie: None }, KtimeNs(2));
        family.take(Kin::Ended { tgid: Tgid(4_000_000), zombie: None }, KtimeNs(3));
        assert_eq!(family.orphans.len(), 2);
        assert_eq!(family.adopted(KtimeNs(4), false), []);
        let adopted = family.adopted(KtimeNs(4 + SETTLED_NS), false);
        assert_eq!(adopted.iter().map(|one| one.tgid).collect::<Vec<_>>(), [own]);
        assert!(family.orphans.is_empty());
        // And once more, when who took it ends.
        family.take(Kin::Ended { tgid: adopted[0].parent, zombie: None }, KtimeNs(5 + SETTLED_NS));
        assert_eq!(family.orphans.len(), 1);
        family.take(Kin::Ended { tgid: own, zombie: None }, KtimeNs(6));
        assert!(family.parents.is_empty() && family.children.is_empty());
    }

    /// Check that one that has ended and is not there is gone, in its time, and that one whose reaping was told, be it before its end, is
    /// not looked at.
    #[test]
    fn gone() {
        let mut family = Family::default();
        family.take(Kin::Reaped { tgid: Tgid(4_000_003), start_boottime_ns: 7 }, KtimeNs(0));
        family.take(Kin::Ended { tgid: Tgid(4_000_003), zombie: Some(7) }, KtimeNs(1));
        assert!(!family.awaits_reapings() && family.reaped.is_empty());
        for tgid in [Tgid(4_000_001), Tgid(4_000_002)] {
            family.take(Kin::Ended { tgid, zombie: Some(7) }, KtimeNs(1));
        }
        family.take(Kin::Reaped { tgid: Tgid(4_000_001), start_boottime_ns: 7 }, KtimeNs(2));
        family.take(Kin::Reaped { tgid: Tgid(4_000_002), start_boottime_ns: 8 }, KtimeNs(2));
        assert!(family.awaits_reapings());
        assert_eq!(family.gone(KtimeNs(3), false), []);
        let at = KtimeNs(1 + LOOK_AGAIN_NS);
        assert_eq!(family.gone(at, false), [Gone { at, tgid: Tgid(4_000_002), start_boottime_ns: 7 }]);
        assert!(!family.awaits_reapings());
    }
}
