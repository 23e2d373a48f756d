//! Who runs on this host and is to be followed: /proc looked through once a second.
//!
//! A process that is new is looked at, and again ever more rarely: it may execute another program. So who executes something else late is
//! met within [`SELDOM`]; who is not new costs a number in a folder's list. Who is in a container of which the pod is not known is looked at
//! again as soon as it is.

use std::{
    fs::File,
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;

use super::{
    kubernetes::{Places, pod::Pod, residence::Residence},
    policy::{Candidate, Policy},
};
use crate::{
    container::Container,
    golang,
    governor::Care,
    id::Tgid,
    kernel::gate::FileKey,
    target::{Choose, procfs},
};

/// Between two looks at a process, at first and at last.
const SOON: Duration = Duration::from_millis(900);
const SELDOM: Duration = Duration::from_secs(30);
/// Files of which it is kept whether they are Go's; then all are forgotten.
const MAX_FILES: usize = 4096;
/// One whose pod may say itself whether it is followed is waited for so long where nothing but that depends on the pod: the API server
/// may be away for days.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks for those whom a policy names.
pub struct Discovery {
    policy: Policy,
    places: Places,
    /// Pods may say themselves who is followed.
    wishes: bool,
    /// As far as it was looked for who waits.
    news: u64,
    seen: FxHashMap<Tgid, Seen>,
    is_go: FxHashMap<FileKey, bool>,
}

/// When one is looked at again.
struct Seen {
    due: Instant,
    wait: Duration,
    since: Instant,
    /// Where it is, if the pod is not known and matters.
    awaits: Option<Container>,
    /// Of the newest round in which it was there.
    round: Instant,
}

impl Discovery {
    pub fn new(policy: Policy, places: Places, wishes: bool) -> Self {
        Self { policy, places, wishes, news: 0, seen: FxHashMap::default(), is_go: FxHashMap::default() }
    }

    /// Those who are due in this round; who is not there any more is forgotten.
    fn due(&mut self, there: Vec<Tgid>, now: Instant) -> Vec<Tgid> {
        self.wake(now);
        let due = |tgid: &Tgid| {
            let new = || Seen { due: now, wait: SOON, since: now, awaits: None, round: now };
            let seen = self.seen.entry(*tgid).or_insert_with(new);
            seen.round = now;
            let is_due = seen.due <= now;
            if is_due {
                seen.due = now + seen.wait;
                seen.wait = (seen.wait * 2).min(SELDOM);
            }
            is_due
        };
        let due = there.into_iter().filter(due).collect();
        self.seen.retain(|_, seen| seen.round == now);
        due
    }

    /// Those are due whose pod is known now.
    fn wake(&mut self, now: Instant) {
        let news = self.places.pods.news();
        if news == self.news {
            return;
        }
        self.news = news;
        for seen in self.seen.values_mut() {
            if seen.awaits.as_ref().is_some_and(|container| self.places.pods.of(container).is_some()) {
                (seen.due, seen.awaits) = (now, None);
            }
        }
    }

    /// What may be followed of a process, if it is to be followed.
    fn care_for(&mut self, tgid: Tgid, now: Instant) -> Option<Care> {
        // The kernel's own threads run no file.
        let exe = procfs::exe(tgid).ok()?;
        let Residence { cgroup, container } = Residence::of(tgid);
        let mut pod = None;
        if let Some(container) = &container {
            // So that its series are its pod's, also when it has ended.
            let since = procfs::stat(tgid).ok().and_then(|stat| self.places.residents.note(stat.key, container, now));
            if let (Some(since), Some(seen)) = (since, self.seen.get_mut(&tgid)) {
                seen.since = since;
            }
            pod = self.places.pods.of(container);
        }
        let id = container.as_ref().and_then(|container| container.id.clone());
        let who = Candidate { exe: &exe, cgroup: &cgroup, container: id.as_deref(), pod: pod.as_deref() };
        let waits = match &pod {
            None => self.waits(tgid, &who, container, now),
            Some(pod) => self.waits_for_container(tgid, &who, pod, now),
        };
        if waits {
            return None;
        }
        let Self { policy, is_go, .. } = self;
        policy.care_for(&who, || runs_go(tgid, is_go))
    }

    /// Whether nobody can decide yet, because the pod is not known.
    fn waits(&mut self, tgid: Tgid, who: &Candidate<'_>, container: Option<Container>, now: Instant) -> bool {
        let Self { policy, places, wishes, seen, is_go, .. } = self;
        let (Some(seen), true) = (seen.get_mut(&tgid), places.pods.on()) else { return false };
        // Of others nobody knows whether they are Kubernetes' at all.
        let is_of_pod = container.as_ref().is_some_and(|container| container.pod_uid.is_some());
        seen.awaits = container;
        let may_wish = *wishes && now.saturating_duration_since(seen.since) < PATIENCE;
        is_of_pod && (may_wish || policy.depends_on_pod(who, || runs_go(tgid, is_go)))
    }
}

impl Discovery {
    /// A container that was started just now is not among its pod's yet: for a while that is waited for where it matters.
    fn waits_for_container(&mut self, tgid: Tgid, who: &Candidate<'_>, pod: &Pod, now: Instant) -> bool {
        let Self { policy, seen, is_go, .. } = self;
        let is_new = seen.get(&tgid).is_some_and(|seen| now.saturating_duration_since(seen.since) < PATIENCE);
        let is_named = who.container.is_none_or(|id| pod.container(id).is_some());
        is_new && !is_named && policy.depends_on_container(who, || runs_go(tgid, is_go))
    }
}

impl Choose for Discovery {
    fn newcomers(&mut self) -> Vec<(Tgid, Care)> {
        let there = procfs::all().unwrap_or_default();
        let now = Instant::now();
        let due = self.due(there, now);
        self.places.residents.keep(|tgid| self.seen.contains_key(&tgid), now);
        due.into_iter().filter_map(|tgid| Some((tgid, self.care_for(tgid, now)?))).collect()
    }
}

fn runs_go(tgid: Tgid, known: &mut FxHashMap<FileKey, bool>) -> bool {
    let Ok(file) = File::open(format!("/proc/{tgid}/exe")) else { return false };
    let Ok(key) = FileKey::of(&file) else { return false };
    if known.len() >= MAX_FILES {
        known.clear();
    }
    if let Some(is_go) = known.get(&key) {
        return *is_go;
    }
    // What cannot be read now may be read at the next look.
    let is_go = golang::looks_like_go(&file);
    known.extend(is_go.as_ref().ok().map(|is_go| (key, *is_go)));
    is_go.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::{
        super::kubernetes::pod::{Keep, Pod, tests::raw},
        *,
    };
    use crate::recording::contract::Tier;

    const CARE: Care = Care { tier: Tier::T2, budget: None };

    fn everybody() -> Policy {
        Policy::new(Vec::new(), CARE)
    }

    /// Check that a process is looked at at once, then more and more rarely, that one that is gone is forgotten, and that its number can
    /// come again.
    #[test]
    fn rounds() {
        let mut discovery = Discovery::new(everybody(), Places::default(), true);
        let began = Instant::now();
        let mut looks = Vec::new();
        for second in 0..100 {
            if !discovery.due(vec![Tgid(7)], began + Duration::from_secs(second)).is_empty() {
                looks.push(second);
            }
        }
        assert_eq!(looks, [0, 1, 3, 7, 15, 30, 59, 89]);
        assert!(discovery.due(Vec::new(), began + Duration::from_secs(100)).is_empty());
        assert!(discovery.seen.is_empty());
        assert_eq!(discovery.due(vec![Tgid(7)], began + Duration::from_secs(101)), [Tgid(7)]);
    }

    /// Check that we run no Go program, and are in some cgroup or in none, without an error.
    #[test]
    fn ourselves() {
        let own = Tgid(std::process::id());
        let mut discovery = Discovery::new(everybody(), Places::default(), true);
        assert_eq!(discovery.care_for(own, Instant::now()), None);
        assert_eq!(discovery.is_go.len(), 1);
        assert_eq!(discovery.care_for(Tgid(u32::MAX), Instant::now()), None);
    }

    /// Check that who waits for a pod is due as soon as that is known, and that other news wake nobody.
    #[test]
    fn awaited() {
        let places = Places::default();
        let mut discovery = Discovery::new(everybody(), places.clone(), true);
        let began = Instant::now();
        let second = |count| began + Duration::from_secs(count);
        discovery.due(vec![Tgid(7)], began);
        discovery.due(vec![Tgid(7)], second(1));
        let seen = discovery.seen.get_mut(&Tgid(7)).unwrap();
        seen.awaits = Some(Container { pod_uid: Some("uid-of-a".to_owned()), ..Container::default() });
        let learn = |name: &str| places.pods.apply(Pod::of(&raw("shop", name, &[]), &Keep::default()).unwrap().0, began);
        learn("b");
        assert_eq!(discovery.due(vec![Tgid(7)], second(2)), []);
        learn("a");
        assert_eq!(discovery.due(vec![Tgid(7)], second(2)), [Tgid(7)]);
        assert_eq!(discovery.due(vec![Tgid(7)], second(2)), [], "once");
    }
}
