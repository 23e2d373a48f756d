//! A pod, as far as anybody here asks for it: a small part of what the API server has, and bounded whatever that sends. Pure.

use std::{collections::BTreeMap, sync::Arc};

use crate::{recording::contract::Tier, timeline::human::plain};

/// Whether a pod's programs are followed, whatever the rules say: `"true"` or `"false"`.
pub const FOLLOW: &str = "lifetrace.dev/follow";
/// In which detail: `"1"`, `"T2"`.
pub const TIER: &str = "lifetrace.dev/tier";
/// Labels that are kept of one pod, and containers.
const MAX_LABELS: usize = 64;
const MAX_CONTAINERS: usize = 64;
/// Bytes of a key and of a value: of labels, names have 63 and prefixes 253 (apimachinery's `IsQualifiedName`).
const MAX_KEY: usize = 320;
const MAX_VALUE: usize = 256;

/// What is known of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    /// As the API server writes it; the kubelet names the pod's cgroup by it, but for a static pod's.
    pub uid: Arc<str>,
    /// Of a static pod: what the kubelet names its cgroup by (annotation `kubernetes.io/config.hash`).
    pub static_uid: Option<Arc<str>>,
    /// Where it runs.
    pub node: Arc<str>,
    pub labels: BTreeMap<Box<str>, Box<str>>,
    /// Those that a rule asks for.
    pub annotations: BTreeMap<Box<str>, Box<str>>,
    /// Who made it.
    pub owner: Option<Owner>,
    /// The Deployment behind its ReplicaSet.
    pub deployment: Option<Arc<str>>,
    pub containers: Vec<PodContainer>,
    follow: Option<bool>,
    tier: Option<Tier>,
}

/// What made a pod: a ReplicaSet, a DaemonSet, a StatefulSet, a Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub kind: Arc<str>,
    pub name: Arc<str>,
}

/// A container that a pod has, or had last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodContainer {
    /// 64 hexadecimal digits, as its cgroup has them.
    pub id: Arc<str>,
    pub name: Arc<str>,
}

/// What is there of a pod before it is cut down to what is kept.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// Kind and name.
    pub owner: Option<(String, String)>,
    /// Name, and id with its runtime (`containerd://ID`).
    pub containers: Vec<(String, String)>,
}

/// What is kept of pods besides what all have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    pub node: Arc<str>,
    /// Keys of annotations that rules ask for.
    pub annotations: Vec<String>,
    /// Pods say themselves whether and how they are followed.
    pub wishes: bool,
}

impl Pod {
    /// Cuts down what was sent; beside it how many of its wishes make no sense. `None`: it has no name or no uid.
    pub fn of(raw: &Raw, keep: &Keep) -> Option<(Self, u64)> {
        if raw.name.is_empty() || raw.uid.is_empty() {
            return None;
        }
        let wish = |key: &str| raw.annotations.get(key).filter(|_| keep.wishes);
        let (follow, tier) = (wish(FOLLOW), wish(TIER));
        let (followed, at) = (follow.and_then(|text| follow_of(text)), tier.and_then(|text| tier_of(text)));
        let nonsense = [follow.is_some() && followed.is_none(), tier.is_some() && at.is_none()];
        let pod = Self {
            namespace: name(&raw.namespace),
            name: name(&raw.name),
            uid: name(&raw.uid),
            static_uid: raw.annotations.get("kubernetes.io/config.hash").map(|uid| name(uid)),
            node: Arc::clone(&keep.node),
            labels: pairs(raw.labels.iter()),
            annotations: pairs(keep.annotations.iter().filter_map(|key| raw.annotations.get_key_value(key))),
            owner: raw.owner.as_ref().map(|(kind, owner)| Owner { kind: name(kind), name: name(owner) }),
            deployment: deployment(raw).map(name),
            containers: raw.containers.iter().take(MAX_CONTAINERS).filter_map(container).collect(),
            follow: followed,
            tier: at,
        };
        Some((pod, nonsense.into_iter().map(u64::from).sum()))
    }

    /// Whether it says itself that its Go programs are to be followed.
    pub fn follow(&self) -> Option<bool> {
        self.follow
    }

    /// The most that it wants to be followed.
    pub fn tier(&self) -> Option<Tier> {
        self.tier
    }

    /// What it calls a container of its own.
    pub fn container(&self, id: &str) -> Option<&Arc<str>> {
        self.containers.iter().find(|container| &*container.id == id).map(|container| &container.name)
    }
}

/// Of `containerd://ID`; those that have not been made yet have none.
fn container((own, id): &(String, String)) -> Option<PodContainer> {
    let (_, id) = id.split_once("://")?;
    let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| PodContainer { id: id.into(), name: name(own) })
}

/// A ReplicaSet is called as its Deployment, and by the hash of its template, which is a label of its pods
/// (`pkg/controller/deployment/sync.go`: `d.Name + "-" + podTemplateSpecHash`).
fn deployment(raw: &Raw) -> Option<&str> {
    let (_, set) = raw.owner.as_ref().filter(|(kind, _)| kind == "ReplicaSet")?;
    set.strip_suffix(raw.labels.get("pod-template-hash")?.as_str())?.strip_suffix('-').filter(|name| !name.is_empty())
}

fn follow_of(text: &str) -> Option<bool> {
    match text {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

fn tier_of(text: &str) -> Option<Tier> {
    match text.strip_prefix(['T', 't']).unwrap_or(text) {
        "1" => Some(Tier::T1),
        "2" => Some(Tier::T2),
        "3" => Some(Tier::T3),
        _ => None,
    }
}

fn pairs<'a>(all: impl Iterator<Item = (&'a String, &'a String)>) -> BTreeMap<Box<str>, Box<str>> {
    let fits = |(key, value): &(&String, &String)| key.len() <= MAX_KEY && value.len() <= MAX_VALUE;
    all.filter(fits).take(MAX_LABELS).map(|(key, value)| (plain(key).into(), plain(value).into())).collect()
}

/// A name that a stranger chose: without control characters, and no longer than names are.
fn name(text: &str) -> Arc<str> {
    let end = (0..=text.len().min(MAX_KEY)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    plain(&text[..end]).into()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn raw(namespace: &str, name: &str, containers: &[(&str, &str)]) -> Raw {
        Raw {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: format!("uid-of-{name}"),
            containers: containers.iter().map(|(name, id)| ((*name).to_owned(), format!("containerd://{id}"))).collect(),
            ..Raw::default()
        }
    }

    /// Check that what is kept is what was sent: names, the container's id without its runtime, and the Deployment behind the ReplicaSet.
    #[test]
    fn kept() {
        let id = "0123456789abcdef".repeat(4);
        let mut sent = raw("shop", "orders-5d4f8-x2x9z", &[("app", &id), ("making", "")]);
        sent.owner = Some(("ReplicaSet".to_owned(), "orders-5d4f8".to_owned()));
        sent.labels.extend([("app", "orders"), ("pod-template-hash", "5d4f8")].map(|(key, value)| (key.into(), value.into())));
        let of = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        sent.annotations.extend([of("team", "a"), of("big", "x"), of("kubernetes.io/config.hash", "abc")]);
        let keep = Keep { node: "n1".into(), annotations: vec!["team".to_owned(), "absent".to_owned()], wishes: true };
        let (pod, nonsense) = Pod::of(&sent, &keep).unwrap();
        assert_eq!((&*pod.namespace, &*pod.name, &*pod.node, nonsense), ("shop", "orders-5d4f8-x2x9z", "n1", 0));
        assert_eq!(pod.container(&id).map(|name| &**name), Some("app"));
        assert_eq!((pod.containers.len(), pod.container("")), (1, None), "one that is not made yet has no id");
        assert_eq!((pod.deployment.as_deref(), pod.owner.map(|owner| owner.kind)), (Some("orders"), Some("ReplicaSet".into())));
        assert_eq!((pod.labels.len(), pod.annotations.len(), pod.static_uid.as_deref()), (2, 1, Some("abc")));
        sent.labels.remove("pod-template-hash");
        assert_eq!(Pod::of(&sent, &keep).unwrap().0.deployment, None, "a ReplicaSet of nobody's");
        assert!(Pod::of(&raw("shop", "", &[]), &keep).is_none());
    }

    /// Check that a pod's wishes are taken where they make sense and may be had, and that others are counted.
    #[test]
    fn wishes() {
        for (follow, tier, expected) in [
            (Some("true"), Some("1"), (Some(true), Some(Tier::T1), 0)),
            (Some("false"), Some("T2"), (Some(false), Some(Tier::T2), 0)),
            (Some("yes"), Some("t3"), (None, Some(Tier::T3), 1)),
            (Some(""), Some("9"), (None, None, 2)),
            (None, Some("T0"), (None, None, 1)),
            (None, None, (None, None, 0)),
        ] {
            let mut sent = raw("a", "b", &[]);
            sent.annotations.extend(follow.map(|text| (FOLLOW.to_owned(), text.to_owned())));
            sent.annotations.extend(tier.map(|text| (TIER.to_owned(), text.to_owned())));
            let of = |wishes| Pod::of(&sent, &Keep { wishes, ..Keep::default() }).unwrap();
            let (pod, nonsense) = of(true);
            assert_eq!((pod.follow(), pod.tier(), nonsense), expected, "{follow:?} {tier:?}");
            let (pod, nonsense) = of(false);
            assert_eq!((pod.follow(), pod.tier(), nonsense), (None, None, 0));
        }
    }

    /// Check that a pod with more of anything than pods have is cut down, and that its names have no control characters.
    #[test]
    fn bounds() {
        let mut sent = raw("a\x1b[2J", &"é".repeat(10_000), &[]);
        sent.labels = (0..10_000).map(|number| (format!("key{number}"), "x".repeat(number))).collect();
        sent.containers = (0..10_000).map(|number| (format!("c{number}"), format!("containerd://{number:064x}"))).collect();
        let (pod, _) = Pod::of(&sent, &Keep::default()).unwrap();
        assert!(pod.name.len() <= MAX_KEY && !pod.namespace.contains('\x1b'), "{}", pod.namespace);
        assert_eq!((pod.labels.len(), pod.containers.len()), (MAX_LABELS, MAX_CONTAINERS));
        assert!(pod.labels.values().all(|value| value.len() <= MAX_VALUE));
    }
}
