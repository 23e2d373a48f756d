use std::{collections::BTreeMap, time::Instant};

use opentelemetry_proto::tonic::common::v1::any_value::Value;

use super::*;
use crate::agent::kubernetes::pod::{Keep, tests::raw};

const NAME: &str = "orders-5d4f8-x2x9z";
const APP: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const PROXY: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";
const PATH: &str = "/srv/bin/orders.go";
/// The label by which a ReplicaSet's Deployment is known.
const HASH: (&str, &str) = ("pod-template-hash", "5d4f8");

/// Of two containers, on a node `n1`.
fn pod(owner: Option<(&str, &str)>, labels: &[(&str, &str)]) -> Pod {
    let mut sent = raw("shop", NAME, &[("app", APP), ("proxy", PROXY)]);
    sent.owner = owner.map(|(kind, name)| (kind.to_owned(), name.to_owned()));
    sent.labels.extend(labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    Pod::of(&sent, &Keep { node: "n1".into(), ..Keep::default() }).unwrap().0
}

/// What is said of any pod, and more.
fn expected<'a>(more: &[(&'a str, &'a str)]) -> BTreeMap<&'a str, &'a str> {
    let always = [
        ("service.namespace", "shop"),
        ("k8s.namespace.name", "shop"),
        ("k8s.pod.name", NAME),
        ("k8s.pod.uid", "uid-of-orders-5d4f8-x2x9z"),
        ("k8s.node.name", "n1"),
    ];
    always.into_iter().chain(more.iter().copied()).collect()
}

/// What is said of a container, each thing once.
fn attributes(workload: &Workload) -> BTreeMap<&str, &str> {
    let all: BTreeMap<&str, &str> = workload.attributes.iter().map(|(key, value)| (*key, value.as_str())).collect();
    assert_eq!(all.len(), workload.attributes.len(), "a key twice: {:?}", workload.attributes);
    all
}

/// What a resource says, each thing once.
fn told(resource: &Resource) -> BTreeMap<String, String> {
    let value = |pair: &KeyValue| match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{}: {other:?}", pair.key),
    };
    let all: BTreeMap<String, String> = resource.attributes.iter().map(|pair| (pair.key.clone(), value(pair))).collect();
    assert_eq!(all.len(), resource.attributes.len(), "a key twice: {:?}", resource.attributes);
    all
}

/// What a resource says, but for the instance, which is a UUID.
fn without_instance(resource: &Resource) -> BTreeMap<String, String> {
    let mut all = told(resource);
    let instance = all.remove("service.instance.id").unwrap_or_default();
    assert!(instance.len() == 36 && instance.matches('-').count() == 4, "{instance:?} is no UUID");
    all
}

fn owned(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn within(program: &str, namespace: &str, pod: &str, container: &str) -> Subject {
    Subject { program: program.into(), namespace: namespace.into(), pod: pod.into(), container: container.into() }
}

fn host(node: &str) -> Host {
    Host::new(node, Places::default())
}

/// Check that a service is called by the first there is of the label `…/instance`, the label `…/name`, Deployment, owner, and
/// pod.
#[test]
fn service_names() {
    let of = |owner: Option<(&str, &str)>, labels: &[(&str, &str)]| {
        let workload = Workload::of(&pod(owner, labels), Some(APP));
        workload.service_name.unwrap_or_default()
    };
    let (instance, name) = (("app.kubernetes.io/instance", "orders-eu"), ("app.kubernetes.io/name", "orders-service"));
    let set = Some(("ReplicaSet", "orders-5d4f8"));
    assert_eq!(of(set, &[name, HASH, instance]), "orders-eu");
    assert_eq!(of(set, &[name, HASH]), "orders-service");
    assert_eq!(of(set, &[HASH, ("app", "other"), ("name", "other")]), "orders");
    assert_eq!(of(set, &[]), "orders-5d4f8", "a ReplicaSet of nobody's");
    assert_eq!(of(Some(("DaemonSet", "orders-each")), &[HASH]), "orders-each");
    assert_eq!(of(Some(("Job", "bills-29606400")), &[]), "bills", "of a CronJob");
    assert_eq!(of(Some(("Job", "bills-20261130")), &[]), "bills-20261130", "somebody's own date");
    assert_eq!(of(Some(("Node", "n1")), &[]), NAME, "a kubelet's own");
    assert_eq!(of(None, &[]), NAME);
}

/// Check that who made a pod is told under the name that its kind has, and that a kind without one is not told.
#[test]
fn owners() {
    for (kind, key) in [
        ("ReplicaSet", "k8s.replicaset.name"),
        ("StatefulSet", "k8s.statefulset.name"),
        ("DaemonSet", "k8s.daemonset.name"),
        ("Job", "k8s.job.name"),
    ] {
        let workload = Workload::of(&pod(Some((kind, "maker")), &[]), None);
        assert_eq!(attributes(&workload), expected(&[(key, "maker")]), "{kind}");
    }
    for owner in [Some(("Gang", "maker")), None] {
        assert_eq!(attributes(&Workload::of(&pod(owner, &[]), None)), expected(&[]), "{owner:?}");
    }
    let deployed = Workload::of(&pod(Some(("ReplicaSet", "orders-5d4f8")), &[HASH]), None);
    let both = [("k8s.deployment.name", "orders"), ("k8s.replicaset.name", "orders-5d4f8")];
    assert_eq!(attributes(&deployed), expected(&both));
    let scheduled = Workload::of(&pod(Some(("Job", "bills-29606400")), &[("app.kubernetes.io/version", "1.2")]), None);
    let all = [("k8s.cronjob.name", "bills"), ("k8s.job.name", "bills-29606400"), ("service.version", "1.2")];
    assert_eq!(attributes(&scheduled), expected(&all));
}

/// Check that a container is called what its own pod calls it, by its id, and nothing where the pod has none of that id.
#[test]
fn containers() {
    let stranger = APP.replace('0', "1");
    for (id, name) in [(Some(APP), Some("app")), (Some(PROXY), Some("proxy")), (Some(stranger.as_str()), None), (None, None)] {
        let workload = Workload::of(&pod(None, &[]), id);
        assert_eq!(attributes(&workload).get("k8s.container.name").copied(), name, "{id:?}");
    }
}

/// Check what the agent says of itself, and that it is the same instance however often it is started, and another one on another
/// node.
#[test]
fn of_the_agent() {
    let pid = std::process::id().to_string();
    let all = [
        ("service.name", "lifetrace"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("host.name", "n1"),
        ("process.pid", pid.as_str()),
    ];
    assert_eq!(without_instance(&host("n1").agent()), owned(&all));
    let instance = |node: &str| told(&host(node).agent()).remove("service.instance.id");
    assert_eq!(instance("n1"), instance("n1"));
    assert_ne!(instance("n1"), instance("n2"));
}

/// Check that a program outside of pods is called as its file, and that a path without a file's name is a name itself.
#[test]
fn of_a_file() {
    for (path, name) in [(PATH, "orders.go"), ("orders", "orders"), ("?", "?"), ("/srv/", "/srv/")] {
        let all =
            [("service.name", name), ("process.executable.path", path), ("process.executable.name", name), ("host.name", "n1")];
        assert_eq!(without_instance(&host("n1").program(&Subject::from(path))), owned(&all), "{path}");
    }
}

/// Check that a program in a pod says of it what its series say where the pod is not known (any more), and all of it where it is,
/// as the same instance.
#[test]
fn of_a_pod() {
    let places = Places::default();
    let host = Host::new("n1", places.clone());
    let file = [("process.executable.path", PATH), ("process.executable.name", "orders.go"), ("host.name", "n1")];
    let named = [("k8s.namespace.name", "shop"), ("k8s.pod.name", NAME), ("k8s.container.name", "app")];
    let (app, whole) = (within(PATH, "shop", NAME, "app"), within(PATH, "shop", NAME, ""));
    let alone = [("service.name", "orders.go")];
    assert_eq!(without_instance(&host.program(&app)), owned(&[&alone[..], &file, &named].concat()));
    assert_eq!(without_instance(&host.program(&whole)), owned(&[&alone[..], &file, &named[..2]].concat()), "no container");

    let before = told(&host.program(&app)).remove("service.instance.id");
    places.pods.turn(true);
    places.pods.apply(pod(Some(("ReplicaSet", "orders-5d4f8")), &[HASH]), Instant::now());
    let mut all = owned(&file);
    let more = [("k8s.deployment.name", "orders"), ("k8s.replicaset.name", "orders-5d4f8"), ("service.name", "orders")];
    all.extend(expected(&more).into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())));
    assert_eq!(without_instance(&host.program(&whole)), all);
    all.insert("k8s.container.name".to_owned(), "app".to_owned());
    assert_eq!(without_instance(&host.program(&app)), all);
    assert_eq!(told(&host.program(&app)).remove("service.instance.id"), before);

    let elsewhere = told(&host.program(&within(PATH, "other", NAME, "app")));
    assert_eq!((elsewhere["service.name"].as_str(), elsewhere.get("k8s.pod.uid")), ("orders.go", None), "a pod of the same name");
}

/// Check that each program, pod, container and node is an instance of its own, also where their names together are the same
/// letters, and the same one each time.
#[test]
fn instances() {
    let subjects = [
        Subject::from(PATH),
        Subject::from("/srv/bin/carts"),
        within(PATH, "shop", "a", "app"),
        within(PATH, "shop", "a", "proxy"),
        within(PATH, "shop", "b", "app"),
        within(PATH, "shopa", "", "app"),
        within(PATH, "sho", "pa", "app"),
        within(PATH, "shop", "aapp", ""),
        within("/srv/bin/carts", "shop", "a", "app"),
    ];
    let mut seen = BTreeMap::new();
    for node in ["n1", "n2"] {
        for subject in &subjects {
            let instance = || told(&host(node).program(subject)).remove("service.instance.id").unwrap_or_default();
            assert_eq!(instance(), instance(), "{subject}");
            let other = seen.insert(instance(), (node, subject));
            assert_eq!(other, None, "as {subject} on {node}");
        }
        let agent = told(&host(node).agent()).remove("service.instance.id").unwrap_or_default();
        assert!(!seen.contains_key(&agent), "{agent} is a program's as well");
    }
}
