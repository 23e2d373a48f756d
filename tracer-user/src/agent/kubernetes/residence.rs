//! In which container a process is, as /proc told whoever looked: where a cgroup's path is out of sight for who records (an agent in a
//! container sees but its own part of the file system of cgroups), /proc has it all the same.

use std::{
    fs::File,
    io::Read,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;

use crate::{
    container::{self, Container},
    id::{ProcessKey, Tgid},
};

/// How long one that has ended is remembered: its end is told a while later.
const LINGER: Duration = Duration::from_secs(120);
const MAX_PROCESSES: usize = 65_536;
/// Bytes of a process's list of cgroups.
const MAX_CGROUPS: u64 = 64 << 10;

/// Where a process is accounted, by cgroups(7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Residence {
    /// Its path in the unified hierarchy; empty where there is none.
    pub cgroup: String,
    /// By the first of its paths that tells, the unified one before others.
    pub container: Option<Container>,
}

impl Residence {
    pub fn of(tgid: Tgid) -> Self {
        let mut lines = Vec::new();
        let read = File::open(format!("/proc/{tgid}/cgroup")).and_then(|file| file.take(MAX_CGROUPS).read_to_end(&mut lines));
        Self::parse(&String::from_utf8_lossy(if read.is_ok() { &lines } else { &[] }))
    }

    /// Lines of `/proc/PID/cgroup`: `NUMBER:CONTROLLERS:PATH`, `0::PATH` in the unified hierarchy.
    fn parse(lines: &str) -> Self {
        let paths = || lines.lines().filter_map(|line| line.splitn(3, ':').nth(2));
        let cgroup = lines.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
        let container = container::of_path(cgroup).or_else(|| paths().find_map(container::of_path));
        Self { cgroup: cgroup.to_owned(), container }
    }
}

/// Those who are in a container, and were lately.
#[derive(Debug, Default)]
pub struct Residents(Mutex<FxHashMap<Tgid, Resident>>);

#[derive(Debug)]
struct Resident {
    start_ticks: u64,
    container: Arc<Container>,
    /// When it was first met.
    since: Instant,
    gone: Option<Instant>,
}

impl Residents {
    /// When it was first met, whatever recording that was in; `None`: there is no room to remember.
    pub fn note(&self, key: ProcessKey, container: &Container, now: Instant) -> Option<Instant> {
        let mut all = self.all();
        if let Some(known) = all.get_mut(&key.tgid).filter(|known| known.start_ticks == key.start_ticks) {
            if *known.container != *container {
                known.container = Arc::new(container.clone());
            }
            known.gone = None;
            return Some(known.since);
        }
        if all.len() >= MAX_PROCESSES && !all.contains_key(&key.tgid) {
            return None;
        }
        let container = Arc::new(container.clone());
        all.insert(key.tgid, Resident { start_ticks: key.start_ticks, container, since: now, gone: None });
        Some(now)
    }

    /// From here on all are met for the first time: others may be wanted for other reasons.
    pub fn meet_anew(&self, now: Instant) {
        self.all().values_mut().for_each(|resident| resident.since = now);
    }

    /// Who is not there any more is forgotten a while later.
    pub fn keep(&self, is_there: impl Fn(Tgid) -> bool, now: Instant) {
        self.all().retain(|tgid, resident| {
            if is_there(*tgid) {
                resident.gone = None;
                return true;
            }
            let gone = *resident.gone.get_or_insert(now);
            now.saturating_duration_since(gone) < LINGER
        });
    }

    /// Where a process was last; of one whose start is not known, by its number.
    pub fn of(&self, tgid: Tgid, start_ticks: Option<u64>) -> Option<Arc<Container>> {
        let all = self.all();
        let resident = all.get(&tgid).filter(|known| start_ticks.is_none_or(|start| known.start_ticks == start))?;
        Some(Arc::clone(&resident.container))
    }

    fn all(&self) -> MutexGuard<'_, FxHashMap<Tgid, Resident>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the unified path tells before others, that another one tells where it does not, and that nonsense is none.
    #[test]
    fn paths() {
        let (one, two) = ("0".repeat(64), "f".repeat(64));
        let id = |lines: &str| Residence::parse(lines).container.and_then(|container| container.id);
        let hybrid = format!("4:memory:/docker/{one}\n1:name=systemd:/\n0::/");
        assert_eq!((id(&hybrid), Residence::parse(&hybrid).cgroup.as_str()), (Some(one.clone()), "/"));
        assert_eq!(id(&format!("4:memory:/docker/{one}\n0::/../../cri-containerd-{two}.scope")), Some(two));
        assert_eq!(id(&format!("4:memory:/odd:path/{one}")), Some(one));
        assert_eq!(Residence::parse("nonsense\n:\n0"), Residence::default());
    }

    /// Check that one process is not taken for another with the same number, that it is known since when one was met, and that who is gone is
    /// known for a while.
    #[test]
    fn residents() {
        let (all, began) = (Residents::default(), Instant::now());
        let key = |start_ticks| ProcessKey { tgid: Tgid(7), start_ticks };
        let container = |pod: &str| Container { pod_uid: Some(pod.to_owned()), ..Container::default() };
        assert_eq!(all.note(key(100), &container("a"), began), Some(began));
        let pod = |start| all.of(Tgid(7), start).and_then(|container| container.pod_uid.clone());
        assert_eq!((pod(Some(100)).as_deref(), pod(None).as_deref(), pod(Some(101))), (Some("a"), Some("a"), None));
        let later = began + Duration::from_secs(9);
        assert_eq!(all.note(key(100), &container("b"), later), Some(began));
        assert_eq!(pod(Some(100)).as_deref(), Some("b"), "it was moved");
        all.meet_anew(later);
        assert_eq!(all.note(key(100), &container("b"), later + LINGER), Some(later));
        all.keep(|_| false, began);
        assert!(pod(Some(100)).is_some());
        all.keep(|_| false, began + LINGER);
        assert_eq!(pod(Some(100)), None);
    }
}
