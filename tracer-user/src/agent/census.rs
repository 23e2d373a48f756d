//! Threads of those who are followed, and children of theirs that have ended and that nobody has asked how: by a look at /proc, so those of
//! before the agent began are counted as well.

use std::{
    fs::{self, File},
    io::Read,
    mem,
    time::{Duration, Instant},
};

use rustc_hash::{FxHashMap, FxHashSet};

use crate::{id::Tgid, target::procfs};

/// What was counted holds for so long, however often somebody asks.
const HOLDS: Duration = Duration::from_secs(10);
/// Looks at threads and children in one round.
const MAX_LOOKS: u32 = 20_000;
/// Of these, for one process.
const MOST: u32 = MAX_LOOKS / 2;
/// Bytes of a list of children: some 9,000 of them.
const MAX_CHILDREN: u64 = 64 << 10;

/// Threads and zombies of a process, or of all that run one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kin {
    pub threads: u64,
    /// `None`: not known, because the kernel does not tell of children (`CONFIG_PROC_CHILDREN`), one has too many threads and children to
    /// look at, or nobody has got to it yet.
    pub zombies: Option<u64>,
}

impl Kin {
    /// Nobody's.
    pub const NONE: Self = Self { threads: 0, zombies: Some(0) };

    /// Both together: known if both are.
    pub fn plus(self, other: Self) -> Self {
        let zombies = self.zombies.zip(other.zombies).map(|(one, other)| one + other);
        Self { threads: self.threads + other.threads, zombies }
    }
}

/// Counts, now and then.
#[derive(Default)]
pub struct Census {
    round: Option<Instant>,
    looks: u32,
    known: FxHashMap<Tgid, Kin>,
    before: FxHashMap<Tgid, Kin>,
    /// Those whose children nobody got to in this round, and in the last.
    owed: FxHashSet<Tgid>,
    owed_before: FxHashSet<Tgid>,
}

impl Census {
    /// What a process has; `None` for one that is gone.
    pub fn of(&mut self, tgid: Tgid) -> Option<Kin> {
        self.begin(Instant::now());
        if let Some(kin) = self.known.get(&tgid) {
            return Some(*kin);
        }
        let stat = procfs::stat(tgid).ok().filter(|stat| !stat.zombie)?;
        let known = self.before.get(&tgid).and_then(|kin| kin.zombies);
        // While some are owed, those who were counted take no looks.
        if !self.owed_before.is_empty() && known.is_some() && !self.owed_before.contains(&tgid) {
            let kin = Kin { threads: stat.threads, zombies: known };
            self.known.insert(tgid, kin);
            return Some(kin);
        }
        let room = MAX_LOOKS.saturating_sub(self.looks).min(MOST);
        let mut looks = Looks { left: room };
        let zombies = match zombies(tgid, stat.threads, &mut looks) {
            Ok(zombies) => zombies,
            Err(Spent) if room == MOST => None,
            Err(Spent) => {
                self.owed.insert(tgid);
                known
            }
        };
        self.looks += room - looks.left;
        let kin = Kin { threads: stat.threads, zombies };
        self.known.insert(tgid, kin);
        Some(kin)
    }

    /// A round is over after its time: who is asked for then is counted anew.
    fn begin(&mut self, now: Instant) {
        if self.round.is_some_and(|round| now.duration_since(round) < HOLDS) {
            return;
        }
        self.round = Some(now);
        self.looks = 0;
        self.before = mem::take(&mut self.known);
        self.owed_before = mem::take(&mut self.owed);
    }
}

/// How often may be looked.
struct Looks {
    left: u32,
}

/// There was no look left.
struct Spent;

impl Looks {
    fn take(&mut self) -> Result<(), Spent> {
        self.left = self.left.checked_sub(1).ok_or(Spent)?;
        Ok(())
    }
}

/// Each thread has children of its own: proc_tid_children(5).
fn zombies(tgid: Tgid, threads: u64, looks: &mut Looks) -> Result<Option<u64>, Spent> {
    if threads > u64::from(looks.left) {
        return Err(Spent);
    }
    let Ok(all) = fs::read_dir(format!("/proc/{tgid}/task")) else { return Ok(None) };
    let mut zombies = None;
    for thread in all.flatten() {
        looks.take()?;
        let mut children = String::new();
        let Ok(list) = File::open(thread.path().join("children")) else { continue };
        // A thread that has just ended has none.
        let _ = list.take(MAX_CHILDREN).read_to_string(&mut children);
        if children.len() as u64 == MAX_CHILDREN {
            return Err(Spent);
        }
        let sum = zombies.get_or_insert(0);
        for child in children.split_ascii_whitespace().filter_map(|child| child.parse().ok()) {
            looks.take()?;
            *sum += u64::from(procfs::stat(Tgid(child)).is_ok_and(|stat| stat.zombie));
        }
    }
    Ok(zombies)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, id};

    use super::*;

    /// Check that a child that has ended is counted until it is reaped, that a look holds for a while, and that nobody is counted who is not
    /// there.
    #[test]
    fn ourselves() {
        let own = Tgid(id());
        let fresh = || Census::default().of(own).unwrap();
        assert!(fresh().threads >= 1);
        assert!(fresh().zombies.is_some(), "a kernel that lists children");
        let mut child = Command::new("true").spawn().unwrap();
        while !procfs::stat(Tgid(child.id())).unwrap().zombie {
            std::thread::yield_now();
        }
        let mut census = Census::default();
        // Other tests of this process have children, too.
        assert!(census.of(own).unwrap().zombies >= Some(1));
        let held = census.of(own);
        child.wait().unwrap();
        assert_eq!(census.of(own), held);
        assert_eq!(census.of(Tgid(u32::MAX)), None);
        census.begin(Instant::now() + HOLDS);
        assert!(census.known.is_empty() && census.before.contains_key(&own));
        let one = Kin { threads: 2, zombies: Some(1) };
        assert_eq!(one.plus(one).plus(Kin::NONE), Kin { threads: 4, zombies: Some(2) });
        assert_eq!(one.plus(Kin { threads: 1, zombies: None }), Kin { threads: 3, zombies: None });
    }

    /// Check that whom a round does not get to keeps what was counted before, and that the next round is for those alone, so that everybody
    /// has a turn.
    #[test]
    fn owed() {
        let own = Tgid(id());
        let zombies = Census::default().of(own).unwrap().zombies.expect("a kernel that lists children");
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let other = Tgid(child.id());
        let stale = Kin { threads: 1, zombies: Some(zombies + 1000) };
        let mut census = Census { looks: MAX_LOOKS, round: Some(Instant::now()), ..Census::default() };
        census.before.extend([(own, stale), (other, stale)]);
        assert_eq!(census.of(own).unwrap().zombies, stale.zombies, "as before");
        assert!(census.owed.contains(&own));
        census.known.insert(other, stale);
        census.begin(Instant::now() + HOLDS);
        census.round = Some(Instant::now());
        assert_eq!(census.of(other).unwrap().zombies, stale.zombies, "it has had its turn");
        assert_eq!(census.looks, 0);
        assert!(census.of(own).unwrap().zombies < stale.zombies && census.owed.is_empty());
        census.begin(Instant::now() + HOLDS);
        census.round = Some(Instant::now());
        assert_eq!(census.of(other).unwrap().zombies, Some(0), "nobody is owed anything");
        child.kill().unwrap();
        child.wait().unwrap();
        let mut looks = Looks { left: 3 };
        assert!(super::zombies(own, 4, &mut looks).is_err() && looks.left == 3, "too many threads to begin with");
    }
}
