//! What `lifetrace agent` sends, received by the OpenTelemetry Collector.

use std::{collections::BTreeSet, fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use lifetrace_tests::{
    agent::{Agent, Metrics},
    api_server::{ApiServer, PodOf},
    cgroup::Cgroup,
    deadline::{PATIENCE, let_pass, wait_for},
    fixture,
    otelcol::{Collector, Item, PROGRAM, attributes, integer},
    pod::{InPod, asking},
    process::Running,
    scenario::{Need, along},
};
use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// For so long nobody receives.
const OUTAGE: Duration = Duration::from_secs(30);
/// Its order of signals.
const SIGNALS: [&str; 3] = ["metrics", "logs", "traces"];

/// The order service, leaking.
fn leaking(path: &Path) -> Result<Running> {
    if !path.exists() {
        fixture::copied(&fixture::orders()?, path)?;
    }
    let mut command = Command::new(path);
    command.args(["-leak", "afterfunc", "-n", "5000", "-rate", "50", "-for", "600s"]);
    Running::start(command, None)
}

/// An agent's file that follows everybody below a folder, and sends to `endpoint` every second.
fn config(dir: &Path, endpoint: &str, more: &str) -> String {
    format!(
        "budget = \"none\"\nsnapshot_every = \"1s\"\n[[rule]]\naction = \"follow\"\nexe = \"{}/**\"\n{}{more}\n",
        dir.join("programs").display(),
        sending(dir, endpoint)
    )
}

/// The last section of an agent's file.
fn sending(dir: &Path, endpoint: &str) -> String {
    format!(
        "[otlp]\nendpoint = \"{endpoint}\"\ninterval = \"1s\"\ntimeout = \"20s\"\nspan_lived = \"2s\"\nspan_blocked = \"3s\"\n\
         max_spans = 500\nqueue = \"{}\"\n",
        dir.join("queue").display()
    )
}

/// Claims that every batch came, once, and each signal's in order.
fn assert_whole(collector: &Collector) -> Result<u64> {
    let mut all = Vec::new();
    for signal in SIGNALS {
        let numbers = collector.batches(signal)?;
        ensure!(numbers.is_sorted_by(|one, other| one < other), "{signal}: {numbers:?}");
        all.extend(numbers);
    }
    all.sort_unstable();
    let last = all.last().copied().context("nothing came")?;
    let wanted: Vec<u64> = (1..=last).collect();
    ensure!(all == wanted, "{all:?}");
    Ok(last)
}

fn sum(metrics: &Metrics, series: &str, parts: &[&str]) -> f64 {
    metrics.sum(series, parts).unwrap_or_default()
}

fn event<'a>(items: &'a [Item], name: &str) -> Option<&'a Item> {
    items.iter().find(|item| item.json["eventName"] == name)
}

/// Waits until something was received of which `find` answers.
fn received<T>(collector: &Collector, agent: &Agent, signal: &str, what: &str, find: impl Fn(&[Item]) -> Option<T>) -> Result<T> {
    let found = wait_for(what, PATIENCE, || Ok(find(&collector.items(signal)?)));
    found.with_context(|| {
        let items = collector.items(signal).map(|items| format!("{:#?}", items.iter().rev().take(5).collect::<Vec<_>>()));
        let metrics = agent.metrics().map(|metrics| metrics.0).unwrap_or_default();
        format!("{}\n{}\n{metrics}", items.unwrap_or_default(), agent.running.stderr())
    })
}

/// Check that a real receiver gets every batch in order, though nobody receives for half a minute, with what happened meanwhile; that the
/// leak is told as an event, an end as another, a goroutine as a span with its links; and that the agent's own counters agree.
#[test]
fn outage() -> Result<()> {
    along(&[Need::Root, Need::Program(PROGRAM)], || {
        let dir = tempfile::tempdir()?;
        let mut collector = Collector::new(&dir.path().join("received"))?;
        collector.start()?;
        let (leak, waits) = (dir.path().join("programs/leak"), dir.path().join("programs/waits"));
        let mut leaks = leaking(&leak)?;
        fixture::copied(&fixture::go("waits")?, &waits)?;
        let mut command = Command::new(&waits);
        command.arg("-dir").arg(dir.path());
        let mut waiting = Running::start(command, None)?;
        waiting.line(0)?;
        let agent = Agent::start(&config(dir.path(), &format!("http://{}", collector.grpc), ""))?;
        received(&collector, &agent, "logs", "the leak", |items| {
            let leak = event(items, "lifetrace.leak.begin")?;
            assert_eq!(leak.json["severityText"], "WARN");
            assert_eq!(leak.resource["service.name"], "leak");
            let site = leak.attributes["lifetrace.site"].as_str()?;
            assert!(site.starts_with("time.goFunc (time/sleep.go:215)"), "{site}");
            Some(())
        })?;
        assert_span(&collector, &agent, waiting.pid().as_raw())?;
        assert_metrics(&collector, &agent, &leak)?;

        collector.stop()?;
        let pid = leaks.pid().as_raw();
        leaks.signal(Signal::SIGKILL)?;
        leaks.wait_exit()?;
        let_pass(OUTAGE);
        let metrics = agent.metrics()?;
        assert!(sum(&metrics, "lifetrace_otlp_queue_batches", &[]) >= 10.0, "{}", metrics.0);
        assert!(sum(&metrics, "lifetrace_otlp_retries_total", &[]) >= 3.0, "{}", metrics.0);
        assert_eq!(metrics.sum("lifetrace_otlp_queue_on_disk", &[]), Some(1.0));
        let kept = fs::read_dir(dir.path().join("queue"))?.count();
        assert!(kept >= 10, "{kept} files wait");
        collector.start()?;
        agent.until("nothing waits", |metrics| (sum(metrics, "lifetrace_otlp_queue_batches", &[]) <= 1.0).then_some(()))?;
        received(&collector, &agent, "logs", "what happened meanwhile", |items| {
            let exit = event(items, "lifetrace.process.exit")?;
            assert_eq!(exit.attributes["lifetrace.process.signal"], "SIGKILL");
            assert_eq!(integer(&exit.resource["process.pid"]), u64::try_from(pid).ok());
            assert_eq!(
                (exit.resource["process.runtime.name"].as_str(), exit.json["severityText"].as_str()),
                (Some("go"), Some("ERROR"))
            );
            let is_end = |item: &&Item| item.json["eventName"] == "lifetrace.leak.end";
            items.iter().filter(is_end).find(|end| end.attributes["lifetrace.why"] == "no process runs it").map(drop)
        })?;
        let metrics = agent.metrics()?;
        let sent = sum(&metrics, "lifetrace_otlp_batches_total", &["result=\"sent\""]);
        for lost in ["refused", "full", "behind", "damaged"] {
            assert_eq!(metrics.sum("lifetrace_otlp_batches_total", &[&format!("result=\"{lost}\"")]), Some(0.0), "{}", metrics.0);
        }
        agent.terminate()?;
        // Each signal has a writer of its own, which may be a moment behind.
        collector.stop()?;
        let last = assert_whole(&collector)?;
        assert!(sent >= 20.0 && last as f64 >= sent, "{sent} of {last}");
        assert_eq!(fs::read_dir(dir.path().join("queue"))?.count(), 1, "the next number");
        Ok(())
    })
}

/// Claims that the goroutine whose labels name a span is told as one, with a link to that and to the goroutine that made it, and that its
/// wait is a child of it.
fn assert_span(collector: &Collector, agent: &Agent, pid: i32) -> Result<()> {
    let traced = |item: &Item| item.attributes.get("lifetrace.label.request").is_some_and(|value| value == "traced");
    let links = |item: &Item| -> Vec<(String, String, String)> {
        let text = |link: &serde_json::Value, key: &str| link[key].as_str().unwrap_or_default().to_owned();
        let kind =
            |link: &serde_json::Value| attributes(link).get("lifetrace.link").and_then(|kind| Some(kind.as_str()?.to_owned()));
        let all = item.json["links"].as_array().into_iter().flatten();
        all.map(|link| (kind(link).unwrap_or_default(), text(link, "traceId"), text(link, "spanId"))).collect()
    };
    received(collector, agent, "traces", "a span with its links", |items| {
        let life = items
            .iter()
            .find(|item| traced(item) && item.json["name"].as_str().is_some_and(|name| name.starts_with("goroutine ")))?;
        let wait = items.iter().find(|item| traced(item) && item.json["name"] == "wait chan receive")?;
        assert_eq!(integer(&life.resource["process.pid"]), u64::try_from(pid).ok());
        assert_eq!(life.attributes["lifetrace.unfinished"], true);
        let links = links(life);
        let named = ("labels".to_owned(), "00000000000000004bf92f3577b34da6".to_owned(), "00f067aa0ba902b7".to_owned());
        assert!(links.contains(&named), "{links:?}");
        assert!(links.iter().any(|(kind, ..)| kind == "creator"), "{links:?}");
        assert_eq!(life.json["traceId"], wait.json["traceId"]);
        assert!(wait.attributes["code.stacktrace"].as_str().is_some_and(|stack| stack.contains("main.labelled")), "{wait:?}");
        let (start, end) = (integer(&life.json["startTimeUnixNano"])?, integer(&life.json["endTimeUnixNano"])?);
        assert!(end - start >= 2_000_000_000, "{start} {end}");
        Some(())
    })
}

/// Claims that what is sent is what is served.
fn assert_metrics(collector: &Collector, agent: &Agent, program: &Path) -> Result<()> {
    received(collector, agent, "metrics", "as many goroutines as are served", |items| {
        let of = |name: &str| {
            items
                .iter()
                .rev()
                .find(|item| item.json["name"] == name && item.resource["service.name"] == "leak")
                .map(|item| &item.json)
        };
        let born = &of("lifetrace.goroutines_born")?["sum"];
        assert_eq!((born["aggregationTemporality"].as_u64(), born["isMonotonic"].as_bool()), (Some(2), Some(true)));
        let point = born["dataPoints"]
            .as_array()?
            .iter()
            .find(|point| attributes(point)["program"] == program.to_str().unwrap_or_default())?;
        assert!(integer(&point["startTimeUnixNano"])? < integer(&point["timeUnixNano"])?, "{point}");
        let points = of("lifetrace.goroutines")?["gauge"]["dataPoints"].as_array()?;
        let alive: f64 = points.iter().filter_map(|point| point["asDouble"].as_f64()).sum();
        // More are born between two questions.
        let served = agent.metrics().ok()?.sum("lifetrace_goroutines", &[&program.display().to_string()])?;
        (alive > 0.0 && (alive - served).abs() <= 300.0).then_some(())
    })
}

/// Check that what is told of a program in a pod says whose it is by OpenTelemetry's conventions: its metrics, of the same
/// instance each time, and its end.
#[test]
fn in_a_pod() -> Result<()> {
    along(&[Need::Root, Need::Program(PROGRAM)], || {
        let dir = tempfile::tempdir()?;
        let mut collector = Collector::new(&dir.path().join("received"))?;
        collector.start()?;
        let top = Cgroup::new("otlp")?;
        let pod = PodOf::new("shop", "orders-0").labelled("app.kubernetes.io/instance", "orders-eu");
        let mut orders = InPod::start(&top, dir.path(), pod.labelled("app.kubernetes.io/name", "orders"))?;
        let server = ApiServer::start()?;
        server.apply(&orders.pod);
        let to = sending(dir.path(), &format!("http://{}", collector.grpc));
        let rule = "[[rule]]\naction = \"follow\"\nnamespace = \"shop\"\n";
        let agent = Agent::start(&asking(&server, dir.path(), &format!("{rule}{to}"))?)?;
        received(&collector, &agent, "metrics", "the pod's goroutines, twice", |items| {
            let of_pod = |item: &&Item| item.json["name"] == "lifetrace.goroutines" && item.resource.contains_key("k8s.pod.name");
            let told: Vec<&Item> = items.iter().filter(of_pod).collect();
            told.iter().for_each(|item| assert_resource(item, &orders));
            let instances: BTreeSet<String> = told.iter().map(|item| item.resource["service.instance.id"].to_string()).collect();
            assert!(instances.len() <= 1, "{instances:?}");
            (told.len() >= 2).then_some(())
        })?;

        let pid = u64::try_from(orders.running.pid().as_raw()).ok();
        orders.running.signal(Signal::SIGKILL)?;
        orders.running.wait_exit()?;
        received(&collector, &agent, "logs", "its end", |items| {
            let exit = event(items, "lifetrace.process.exit")?;
            assert_resource(exit, &orders);
            assert_eq!(exit.attributes["lifetrace.process.signal"], "SIGKILL");
            assert_eq!(integer(&exit.resource["process.pid"]), pid);
            let (_, container) = &orders.pod.containers[0];
            assert_eq!(exit.resource["container.id"], container.as_str());
            assert_eq!(exit.resource["process.runtime.name"], "go");
            Some(())
        })?;
        agent.terminate()?;
        collector.stop()
    })
}

/// Claims that it is told of the program in this pod.
fn assert_resource(item: &Item, of: &InPod) {
    let InPod { program, pod, .. } = of;
    let path = program.display().to_string();
    for (key, expected) in [
        ("service.name", "orders-eu"),
        ("host.name", "n1"),
        ("process.executable.path", path.as_str()),
        ("process.executable.name", pod.name),
        ("k8s.namespace.name", pod.namespace),
        ("k8s.pod.name", pod.name),
        ("k8s.pod.uid", pod.uid.as_str()),
        ("k8s.node.name", "n1"),
        ("k8s.container.name", "app"),
    ] {
        let told = item.resource.get(key).and_then(|value| value.as_str());
        assert_eq!(told, Some(expected), "{key} of {:#?}", item.resource);
    }
    let instance = item.resource.get("service.instance.id").and_then(|value| value.as_str()).unwrap_or_default();
    assert!(instance.len() == 36 && instance.matches('-').count() == 4, "{instance:?} is no UUID");
}

/// Check that what waits outlives an agent that is killed, and is sent by the next one, by HTTP, with numbers that go on.
#[test]
fn killed_agent() -> Result<()> {
    along(&[Need::Root, Need::Program(PROGRAM)], || {
        let dir = tempfile::tempdir()?;
        let mut collector = Collector::new(&dir.path().join("received"))?;
        let _leaks = leaking(&dir.path().join("programs/leak"))?;
        let to = config(dir.path(), &format!("http://{}", collector.http), "protocol = \"http/protobuf\"\nprofiles = true");
        let mut first = Agent::start(&to)?;
        first.until("some wait", |metrics| (sum(metrics, "lifetrace_otlp_queue_batches", &[]) >= 6.0).then_some(()))?;
        first.running.signal(Signal::SIGKILL)?;
        first.running.wait_exit()?;
        let waiting: BTreeSet<_> =
            fs::read_dir(dir.path().join("queue"))?.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
        collector.start()?;
        let second = Agent::start(&to)?;
        second.until("all and more is sent", |metrics| {
            let sent = sum(metrics, "lifetrace_otlp_batches_total", &["result=\"sent\""]);
            (sent >= waiting.len() as f64 + 5.0).then_some(())
        })?;
        received(&collector, &second, "profiles", "a profile", |items| (items.len() >= 2).then_some(()))?;
        second.terminate()?;
        collector.stop()?;
        let mut all: Vec<u64> = Vec::new();
        for signal in ["metrics", "logs", "traces", "profiles"] {
            all.extend(collector.batches(signal)?);
        }
        all.sort_unstable();
        assert_eq!(all, (1..=all.len() as u64).collect::<Vec<_>>());
        Ok(())
    })
}

/// Check that both protocols go through TLS with certificates on both sides, and that a receiver that nobody vouches for gets nothing.
#[test]
fn certificates() -> Result<()> {
    along(&[Need::Root, Need::Program(PROGRAM)], || {
        let dir = tempfile::tempdir()?;
        let issue = |ca: &CertifiedIssuer<'static, KeyPair>, name: &str| -> Result<()> {
            let key = KeyPair::generate()?;
            let cert = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?.signed_by(&key, ca)?;
            fs::write(dir.path().join(format!("{name}.crt")), cert.pem())?;
            Ok(fs::write(dir.path().join(format!("{name}.key")), key.serialize_pem())?)
        };
        let authority = |name: &str| -> Result<CertifiedIssuer<'static, KeyPair>> {
            let mut params = CertificateParams::new(Vec::new())?;
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
            fs::write(dir.path().join(format!("{name}.crt")), ca.pem())?;
            Ok(ca)
        };
        let (ca, _other) = (authority("ca")?, authority("other")?);
        issue(&ca, "receiver")?;
        issue(&ca, "agent")?;
        let at = |name: &str| dir.path().join(name);
        let collector = Collector::new(&at("received"))?;
        let mut collector = collector.with_tls(&at("receiver.crt"), &at("receiver.key"), &at("ca.crt"));
        collector.start()?;
        let tls = |ca: &str, protocol: &str| {
            let (ca, cert, key) = (at(ca), at("agent.crt"), at("agent.key"));
            format!("protocol = \"{protocol}\"\nca_file = {ca:?}\ncert_file = {cert:?}\nkey_file = {key:?}")
        };
        let by = |address: &str, more: &str| Agent::start(&config(dir.path(), &format!("https://{address}"), more));
        for (address, protocol) in [(&collector.grpc, "grpc"), (&collector.http, "http/protobuf")] {
            let stranger = by(address, &tls("other.crt", protocol))?;
            stranger
                .until("it gets nothing", |metrics| (sum(metrics, "lifetrace_otlp_retries_total", &[]) >= 2.0).then_some(()))?;
            let metrics = stranger.metrics()?;
            assert_eq!(sum(&metrics, "lifetrace_otlp_batches_total", &["sent"]), 0.0, "{protocol}");
            stranger.terminate()?;
            let agent = by(address, &tls("ca.crt", protocol))?;
            agent.until("it gets what waits", |metrics| {
                (sum(metrics, "lifetrace_otlp_batches_total", &["sent"]) >= 2.0).then_some(())
            })?;
            agent.terminate()?;
        }
        collector.stop()?;
        assert_whole(&collector)?;
        Ok(())
    })
}
