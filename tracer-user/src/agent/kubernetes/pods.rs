//! The pods of this node by container, as they were last heard of. Bounded, whatever is sent; who asks never waits for the API server.
//!
//! What is not there any more is remembered for [`LINGER`]: ends of processes are told later than they were.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;

use super::pod::Pod;
use crate::container::Container;

/// How long a pod and a container are known after they are gone.
const LINGER: Duration = Duration::from_secs(300);
/// Names of pods of a node (the kubelet takes 110 pods where nobody says otherwise), and containers, the gone ones included.
const MAX_UIDS: usize = 4096;
const MAX_CONTAINERS: usize = 8192;

/// What goes wrong with the API server, by what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// How to reach it is not known: no cluster, no kubeconfig, no credentials.
    Config,
    /// It does not answer, or breaks off.
    Unreachable,
    /// It does not let us (401, 403).
    Forbidden,
    /// What it sent makes no sense, or is too long.
    Malformed,
    /// It does not remember what we know any more (410): all is listed again.
    Gone,
    /// Any other answer.
    Refused,
}

impl Trouble {
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::Config, "config"),
        (Self::Unreachable, "unreachable"),
        (Self::Forbidden, "forbidden"),
        (Self::Malformed, "malformed"),
        (Self::Gone, "gone"),
        (Self::Refused, "refused"),
    ];
}

/// What is told of the cache itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The newest question was answered.
    pub up: bool,
    /// Since anything was last heard; `None`: nothing ever was.
    pub heard: Option<Duration>,
    /// Pods that are there.
    pub pods: u64,
    /// As in [`Trouble::ALL`].
    pub errors: [u64; Trouble::ALL.len()],
    /// Annotations of pods that say nothing.
    pub nonsense: u64,
    /// Pods and containers for which there was no room.
    pub left_out: u64,
}

/// The cache; many read it, and one watches.
#[derive(Debug, Default)]
pub struct Pods {
    known: Mutex<Known>,
    status: Mutex<Link>,
    /// How often somebody was learned of who was not known.
    news: AtomicU64,
    /// Somebody watches.
    on: AtomicBool,
}

#[derive(Debug, Default)]
struct Known {
    by_uid: FxHashMap<Arc<str>, Entry>,
    by_container: FxHashMap<Arc<str>, Entry>,
    /// What is gone, the oldest first.
    gone: VecDeque<(Instant, Arc<Pod>)>,
    /// Counts lists.
    round: u64,
    left_out: u64,
}

/// A pod under one of its names.
#[derive(Debug)]
struct Entry {
    pod: Arc<Pod>,
    /// It is not there any more.
    gone: bool,
    round: u64,
}

#[derive(Debug, Default)]
struct Link {
    up: bool,
    heard: Option<Instant>,
    errors: [u64; Trouble::ALL.len()],
    nonsense: u64,
}

impl Pods {
    /// Whose container this is; its name is [`Pod::container`].
    pub fn of_container(&self, id: &str) -> Option<Arc<Pod>> {
        self.known().by_container.get(id).map(|entry| Arc::clone(&entry.pod))
    }

    /// Whose cgroup this is: by its container, or, where that is not known (yet), by the pod.
    pub fn of(&self, container: &Container) -> Option<Arc<Pod>> {
        let known = self.known();
        let by_id = container.id.as_deref().and_then(|id| known.by_container.get(id));
        let entry = by_id.or_else(|| known.by_uid.get(container.pod_uid.as_deref()?))?;
        Some(Arc::clone(&entry.pod))
    }

    /// The pod of that name, the one that is there before one that was.
    pub fn named(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let known = self.known();
        let of_name = known.by_uid.values().filter(|entry| *entry.pod.name == *name && *entry.pod.namespace == *namespace);
        of_name.min_by_key(|entry| entry.gone).map(|entry| Arc::clone(&entry.pod))
    }

    /// Another number: somebody is known now who was not.
    pub fn news(&self) -> u64 {
        self.news.load(Ordering::Acquire)
    }

    /// Whether anybody watches.
    pub fn on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    pub fn status(&self, now: Instant) -> Status {
        let known = self.known();
        let pods = known.by_uid.iter().filter(|(name, entry)| !entry.gone && **name == entry.pod.uid).count() as u64;
        let left_out = known.left_out;
        drop(known);
        let link = self.link();
        let heard = link.heard.map(|heard| now.saturating_duration_since(heard));
        Status { up: link.up, heard, pods, errors: link.errors, nonsense: link.nonsense, left_out }
    }

    /// Somebody begins to watch, or nobody does any more: then nothing is known.
    pub fn turn(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
        self.link().up = false;
        if !on {
            let mut known = self.known();
            *known = Known { left_out: known.left_out, ..Known::default() };
        }
    }

    /// A pod is there, or is not as it was.
    pub fn apply(&self, pod: Pod, now: Instant) {
        if self.known().apply(&Arc::new(pod), now) {
            self.news.fetch_add(1, Ordering::Release);
        }
    }

    /// A pod is not there any more.
    pub fn delete(&self, uid: &str, now: Instant) {
        let mut known = self.known();
        if let Some(pod) = known.by_uid.get(uid).filter(|entry| !entry.gone).map(|entry| Arc::clone(&entry.pod)) {
            known.end(&pod, now);
        }
    }

    /// All that are there follow, one by one.
    pub fn begin_list(&self) {
        self.known().round += 1;
    }

    /// They have come: whoever was not among them is gone.
    pub fn end_list(&self, now: Instant) {
        let mut known = self.known();
        let round = known.round;
        let missing = |entry: &&Entry| !entry.gone && entry.round != round;
        let missing: Vec<Arc<Pod>> = known.by_uid.values().filter(missing).map(|entry| Arc::clone(&entry.pod)).collect();
        missing.iter().for_each(|pod| known.end(pod, now));
    }

    /// Lets go of what was gone long ago.
    pub fn forget(&self, now: Instant) {
        let mut known = self.known();
        while known.gone.front().is_some_and(|(gone, _)| now.saturating_duration_since(*gone) >= LINGER) {
            known.forget_oldest();
        }
    }

    /// It answers. True: it did not before.
    pub fn heard(&self, now: Instant) -> bool {
        let mut link = self.link();
        link.heard = Some(now);
        !std::mem::replace(&mut link.up, true)
    }

    /// True: it was not in trouble before.
    pub fn trouble(&self, trouble: Trouble) -> bool {
        let mut link = self.link();
        let count = &mut link.errors[trouble as usize];
        *count = count.saturating_add(1);
        std::mem::replace(&mut link.up, false)
    }

    pub fn nonsense(&self, count: u64) {
        let mut link = self.link();
        link.nonsense = link.nonsense.saturating_add(count);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// True: it was not known by every of its names.
    fn apply(&mut self, pod: &Arc<Pod>, now: Instant) -> bool {
        let before = self.by_uid.get(&pod.uid).map(|entry| Arc::clone(&entry.pod));
        if before.is_none() && !self.has_room() {
            self.left_out = self.left_out.saturating_add(1);
            return false;
        }
        // A container that was made anew has another id: ends of the one before are still to be told.
        let left = before.iter().flat_map(|before| before.containers.iter()).filter(|old| pod.container(&old.id).is_none());
        let mut ended = false;
        for container in left {
            let entry = self.by_container.get_mut(&container.id).filter(|entry| !entry.gone);
            ended |= entry.map(|entry| entry.gone = true).is_some();
        }
        if let Some(before) = before.filter(|_| ended) {
            self.remember(before, now);
        }
        let round = self.round;
        let entry = || Entry { pod: Arc::clone(pod), gone: false, round };
        let mut news = false;
        for uid in [Some(&pod.uid), pod.static_uid.as_ref()].into_iter().flatten() {
            news |= self.by_uid.insert(Arc::clone(uid), entry()).is_none();
        }
        for container in &pod.containers {
            let is_new = !self.by_container.contains_key(&container.id);
            if is_new && !self.has_room() {
                self.left_out = self.left_out.saturating_add(1);
                continue;
            }
            news |= self.by_container.insert(Arc::clone(&container.id), entry()).is_none();
        }
        news
    }

    /// Makes some at the expense of those that are gone.
    fn has_room(&mut self) -> bool {
        while self.by_uid.len() >= MAX_UIDS || self.by_container.len() >= MAX_CONTAINERS {
            if !self.forget_oldest() {
                return false;
            }
        }
        true
    }

    fn end(&mut self, pod: &Arc<Pod>, now: Instant) {
        for uid in [Some(&pod.uid), pod.static_uid.as_ref()].into_iter().flatten() {
            self.by_uid.get_mut(uid).into_iter().for_each(|entry| entry.gone = true);
        }
        for container in &pod.containers {
            self.by_container.get_mut(&container.id).into_iter().for_each(|entry| entry.gone = true);
        }
        self.remember(Arc::clone(pod), now);
    }

    fn remember(&mut self, pod: Arc<Pod>, now: Instant) {
        if self.gone.len() >= MAX_CONTAINERS {
            self.forget_oldest();
        }
        self.gone.push_back((now, pod));
    }

    /// False: nobody is gone.
    fn forget_oldest(&mut self) -> bool {
        let Some((_, pod)) = self.gone.pop_front() else { return false };
        for uid in [Some(&pod.uid), pod.static_uid.as_ref()].into_iter().flatten() {
            forget(&mut self.by_uid, uid);
        }
        for container in &pod.containers {
            forget(&mut self.by_container, &container.id);
        }
        true
    }
}

/// If it is gone: a pod's name may be another's again.
fn forget(names: &mut FxHashMap<Arc<str>, Entry>, name: &str) {
    if names.get(name).is_some_and(|entry| entry.gone) {
        names.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::pod::{Keep, tests::raw},
        *,
    };

    fn pod(name: &str, containers: &[(&str, &str)]) -> Pod {
        Pod::of(&raw("shop", name, containers), &Keep::default()).unwrap().0
    }

    fn id(number: usize) -> String {
        format!("{number:064x}")
    }

    fn name(pods: &Pods, id: &str) -> Option<String> {
        pods.of_container(id).map(|pod| pod.name.to_string())
    }

    /// Check that a pod is known by its container and, before that is made, by its own cgroup, and that who waits hears of it.
    #[test]
    fn names() {
        let (pods, now, one) = (Pods::default(), Instant::now(), id(1));
        let cgroup = Container { id: Some(one.clone()), pod_uid: Some("uid-of-a".to_owned()), ..Container::default() };
        assert_eq!((pods.of(&cgroup), pods.news()), (None, 0));
        pods.apply(pod("a", &[]), now);
        assert_eq!((pods.of(&cgroup).map(|pod| pod.name.to_string()), pods.news()), (Some("a".to_owned()), 1));
        pods.apply(pod("a", &[("app", &one)]), now);
        assert_eq!((name(&pods, &one).as_deref(), pods.news()), (Some("a"), 2));
        pods.apply(pod("a", &[("app", &one)]), now);
        assert_eq!(pods.news(), 2, "nothing new");
        let mut fixed = pod("b", &[]);
        fixed.static_uid = Some("hash".into());
        pods.apply(fixed, now);
        let cgroup = Container { pod_uid: Some("hash".to_owned()), ..Container::default() };
        assert_eq!(pods.of(&cgroup).map(|pod| pod.name.to_string()).as_deref(), Some("b"), "a static pod");
        assert_eq!(pods.status(now).pods, 2);
    }

    /// Check that what is gone is known for a while: a deleted pod, one that a list does not have, and a container that was made anew.
    #[test]
    fn lingering() {
        let (pods, began) = (Pods::default(), Instant::now());
        pods.apply(pod("a", &[("app", &id(1))]), began);
        pods.apply(pod("b", &[("app", &id(2))]), began);
        pods.apply(pod("c", &[("app", &id(3))]), began);
        pods.apply(pod("a", &[("app", &id(4))]), began);
        pods.delete("uid-of-b", began);
        pods.begin_list();
        pods.apply(pod("a", &[("app", &id(4))]), began);
        pods.end_list(began);
        assert_eq!(pods.status(began).pods, 1);
        let soon = began + LINGER - Duration::from_secs(1);
        pods.forget(soon);
        let all = |pods: &Pods| (1..=4).map(|number| name(pods, &id(number)).unwrap_or_default()).collect::<Vec<_>>();
        assert_eq!(all(&pods), ["a", "b", "c", "a"]);
        pods.forget(began + LINGER);
        assert_eq!(all(&pods), ["", "", "", "a"]);
        assert!(pods.known().gone.is_empty());
    }

    /// Check that a pod that comes back while it is remembered as gone stays, however it ended before.
    #[test]
    fn back_again() {
        let (pods, began) = (Pods::default(), Instant::now());
        pods.apply(pod("a", &[("app", &id(1))]), began);
        pods.delete("uid-of-a", began);
        pods.apply(pod("a", &[("app", &id(1))]), began);
        pods.forget(began + LINGER * 2);
        assert_eq!((name(&pods, &id(1)).as_deref(), pods.status(began).pods), (Some("a"), 1));
    }

    /// Check that a million pods are no more than fit, that those that are there stay at the expense of those that are gone, and that what
    /// was left out is counted.
    #[test]
    fn bounds() {
        let (pods, now) = (Pods::default(), Instant::now());
        for number in 0..20_000 {
            pods.apply(pod(&format!("p{number}"), &[("app", &id(number))]), now);
        }
        let known = pods.known();
        assert!(known.by_uid.len() <= MAX_UIDS && known.by_container.len() <= MAX_CONTAINERS);
        drop(known);
        assert!(pods.status(now).left_out > 10_000);
        assert_eq!(name(&pods, &id(0)).as_deref(), Some("p0"));
        for number in 0..1000 {
            pods.delete(&format!("uid-of-p{number}"), now);
        }
        pods.apply(pod("new", &[("app", &id(99_999))]), now);
        assert_eq!(name(&pods, &id(99_999)).as_deref(), Some("new"));
        for restart in 0..20_000 {
            pods.apply(pod("new", &[("app", &id(100_000 + restart))]), now);
        }
        let known = pods.known();
        assert!(known.by_container.len() <= MAX_CONTAINERS && known.gone.len() <= MAX_CONTAINERS, "{}", known.gone.len());
    }

    /// Check that trouble is counted by kind, that the first of it is told apart, and that nothing is known once nobody watches.
    #[test]
    fn link() {
        let (pods, began) = (Pods::default(), Instant::now());
        pods.turn(true);
        assert!(pods.heard(began) && !pods.heard(began));
        assert!(pods.trouble(Trouble::Gone) && !pods.trouble(Trouble::Gone));
        let status = pods.status(began + Duration::from_secs(7));
        assert_eq!((status.up, status.heard, status.errors), (false, Some(Duration::from_secs(7)), [0, 0, 0, 0, 2, 0]));
        pods.apply(pod("a", &[("app", &id(1))]), began);
        pods.turn(false);
        assert_eq!((pods.on(), name(&pods, &id(1))), (false, None));
    }
}
