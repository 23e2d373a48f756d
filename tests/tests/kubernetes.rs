//! `lifetrace agent` beside an API server that tells of pods, or does not: who is followed, whose series they are, and what becomes of it
//! when the server is away, forgets, refuses, or talks nonsense.

use std::fs;

use anyhow::{Context, Result};
use lifetrace_tests::{
    agent::{Agent, Metrics},
    api_server::{ApiServer, Mood, PodOf},
    cgroup::Cgroup,
    pod::{InPod, asking},
    process,
    scenario::{Need, along},
};
use nix::sys::signal::Signal;

/// Nobody is followed.
const NOBODY: &str = "[[rule]]\naction = \"follow\"\nexe = \"/nowhere/app\"\n";

fn is(metrics: &Metrics, series: &str, value: f64) -> Option<()> {
    (metrics.sum(series, &[]) == Some(value)).then_some(())
}

fn errors(metrics: &Metrics, kind: &str) -> f64 {
    metrics.sum("lifetrace_kubernetes_errors_total", &[&format!("kind=\"{kind}\"")]).unwrap_or_default()
}

/// Check that pods are followed by namespace, label and what their container is called, that annotations decide over rules, and
/// in which detail, that one of which the server tells late is followed once it does, and that series, also that of an end, are
/// the pod's.
#[test]
fn chosen_by_pod() -> Result<()> {
    along(&[Need::Root], || {
        let dir = tempfile::tempdir()?;
        let top = Cgroup::new("kube")?;
        let programs = dir.path().join("programs");
        fs::create_dir(&programs)?;
        let start = |pod: PodOf| InPod::start(&top, &programs, pod);
        let mut orders = start(PodOf::new("shop-eu", "orders-0").labelled("app", "orders"))?;
        let carts = start(PodOf::new("shop-eu", "carts-0").labelled("app", "carts"))?;
        let system = start(PodOf::new("kube-system", "dns-0").labelled("app", "orders"))?;
        let wants = PodOf::new("other", "wants-0").annotated("lifetrace.dev/follow", "true");
        let wants = start(wants.annotated("lifetrace.dev/tier", "1"))?;
        let refuses = PodOf::new("shop-eu", "refuses-0").labelled("app", "orders");
        let refuses = start(refuses.annotated("lifetrace.dev/follow", "false").annotated("lifetrace.dev/tier", "all"))?;
        let late = start(PodOf::new("shop-us", "late-0").labelled("app", "orders"))?;
        let server = ApiServer::start()?;
        [&orders, &carts, &system, &wants, &refuses].into_iter().for_each(|there| server.apply(&there.pod));
        let rules = format!(
            "[[rule]]\naction = \"ignore\"\nnamespace = \"kube-*\"\n\
             [[rule]]\naction = \"follow\"\nexe = \"{}/**\"\nnamespace = \"shop-*\"\ncontainer = \"a*\"\nlabels = {{ app = \"orders\" }}\n",
            programs.display()
        );
        let agent = Agent::start(&asking(&server, dir.path(), &rules)?)?;
        for followed in [&orders, &wants] {
            agent.until("those who are wanted", |metrics| followed.alive(metrics).filter(|alive| *alive == 50.0))?;
        }
        for (followed, tier) in [(&orders, "tier=\"T2\""), (&wants, "tier=\"T1\"")] {
            agent.until("the detail that is wanted", |metrics| {
                metrics.sum("lifetrace_processes", &[&followed.labels(), tier]).filter(|processes| *processes == 1.0)
            })?;
        }
        server.apply(&late.pod);
        agent.until("the late one", |metrics| late.alive(metrics).filter(|alive| *alive == 50.0))?;
        let metrics = agent.metrics()?;
        for ignored in [&carts, &system, &refuses] {
            assert!(!metrics.0.contains(&ignored.label()), "{} is followed: {}", ignored.pod.name, metrics.0);
        }
        is(&metrics, "lifetrace_kubernetes_pods", 6.0).with_context(|| metrics.0.clone())?;
        assert_eq!(metrics.sum("lifetrace_kubernetes_left_out_total", &["nonsense"]), Some(1.0), "no tier is called \"all\"");
        server.delete(&orders.pod);
        agent.until("one pod less", |metrics| is(metrics, "lifetrace_kubernetes_pods", 5.0))?;
        orders.running.signal(Signal::SIGKILL)?;
        orders.running.wait_exit()?;
        let ended = |metrics: &Metrics| metrics.sum("lifetrace_process_exits_total", &[&orders.labels(), "how=\"SIGKILL\""]);
        agent.until("its end", |metrics| ended(metrics).filter(|ends| *ends == 1.0))?;
        let metrics = agent.metrics()?;
        for line in metrics.0.lines().filter(|line| line.starts_with("lifetrace_followed_cpu_seconds_total{")) {
            assert!(!line.contains("pod="), "probes are set on files: {line}");
        }
        agent.terminate()?;
        Ok(())
    })
}

/// Check that an agent begins while the server is not there, learns of pods when it is, keeps what it knew when it goes, goes on where it
/// was when it comes back, and does not fill the log meanwhile.
#[test]
fn server_comes_and_goes() -> Result<()> {
    along(&[Need::Root], || {
        let dir = tempfile::tempdir()?;
        let mut server = ApiServer::nowhere()?;
        server.apply(&PodOf::new("shop", "a"));
        let agent = Agent::start(&asking(&server, dir.path(), NOBODY)?)?;
        let metrics = agent.until("that nobody answers", |metrics| {
            (errors(metrics, "unreachable") >= 2.0).then(|| Metrics(metrics.0.clone()))
        })?;
        assert!(is(&metrics, "lifetrace_kubernetes_up", 0.0).is_some() && !metrics.0.contains("lifetrace_kubernetes_age"));
        server.begin()?;
        agent.until("a pod", |metrics| is(metrics, "lifetrace_kubernetes_pods", 1.0))?;
        agent.until("an answer", |metrics| is(metrics, "lifetrace_kubernetes_up", 1.0))?;
        let first = &server.asked(false)[0];
        assert!(first.contains("resourceVersion=0") && !first.contains("limit="), "out of the server's memory: {first}");

        server.stop();
        agent.until("that nobody answers", |metrics| is(metrics, "lifetrace_kubernetes_up", 0.0))?;
        server.apply(&PodOf::new("shop", "b"));
        let metrics = agent.metrics()?;
        is(&metrics, "lifetrace_kubernetes_pods", 1.0).with_context(|| metrics.0.clone())?;
        assert!(metrics.sum("lifetrace_kubernetes_age_seconds", &[]).is_some(), "{}", metrics.0);
        let lists = server.asked(false).len();
        server.begin()?;
        agent.until("the other pod", |metrics| is(metrics, "lifetrace_kubernetes_pods", 2.0))?;
        agent.until("an answer", |metrics| is(metrics, "lifetrace_kubernetes_up", 1.0))?;
        assert_eq!(server.asked(false).len(), lists, "it goes on where it was: {:?}", server.asked(false));
        let said = agent.terminate()?.stderr;
        assert_eq!(said.matches("as they were last known").count(), 1, "{said}");
        assert!(!said.contains("hyper") || said.lines().count() < 10, "{said}");
        Ok(())
    })
}

/// Check that a server which does not remember what happened is asked for all again, whereby who is gone is noticed, and that one which
/// refuses is asked again.
#[test]
fn forgetful_and_refusing() -> Result<()> {
    along(&[Need::Root], || {
        let dir = tempfile::tempdir()?;
        let server = ApiServer::start()?;
        let (a, b) = (PodOf::new("shop", "a"), PodOf::new("shop", "b"));
        [&a, &b].into_iter().for_each(|pod| server.apply(pod));
        let agent = Agent::start(&asking(&server, dir.path(), NOBODY)?)?;
        agent.until("two pods", |metrics| is(metrics, "lifetrace_kubernetes_pods", 2.0))?;
        agent.until("a watch", |metrics| is(metrics, "lifetrace_kubernetes_up", 1.0))?;
        server.forget(&b);
        agent.until("a new list", |metrics| is(metrics, "lifetrace_kubernetes_pods", 1.0))?;
        assert_eq!(server.asked(false).len(), 2, "{:?}", server.asked(false));
        assert_eq!(errors(&agent.metrics()?, "gone"), 1.0);
        server.answer(Mood::Refuses(403));
        agent.until("a refusal", |metrics| (errors(metrics, "forbidden") >= 1.0).then_some(()))?;
        server.answer(Mood::Well);
        server.apply(&b);
        agent.until("two pods again", |metrics| is(metrics, "lifetrace_kubernetes_pods", 2.0))?;
        agent.until("an answer", |metrics| is(metrics, "lifetrace_kubernetes_up", 1.0))?;
        agent.terminate()?;
        Ok(())
    })
}

/// Check that answers without an end or without sense are given up, in little memory and without a word of them in the log, that a pod with
/// more of everything than there can be is cut down, and that what comes afterwards is understood.
#[test]
fn nonsense() -> Result<()> {
    along(&[Need::Root], || {
        let dir = tempfile::tempdir()?;
        let server = ApiServer::start()?;
        server.answer(Mood::Endless);
        let agent = Agent::start(&asking(&server, dir.path(), NOBODY)?)?;
        agent.until("that a list has no end", |metrics| (errors(metrics, "malformed") >= 1.0).then_some(()))?;
        server.answer(Mood::Babbles);
        agent.until("that it is no list", |metrics| (errors(metrics, "malformed") >= 2.0).then_some(()))?;
        let mut huge = PodOf::new("shop", "huge");
        huge.labels = (0..5000).map(|number| (format!("key{number}"), "x".repeat(63))).collect();
        huge.annotations = (0..5000).map(|number| (format!("key{number}"), "SECRET".repeat(100))).collect();
        server.apply(&huge);
        server.answer(Mood::Well);
        agent.until("a huge pod", |metrics| is(metrics, "lifetrace_kubernetes_pods", 1.0))?;
        server.say("{\"type\": \"ADDED\", \"object\": [\"SECRET\"]}");
        agent.until("that it is no event", |metrics| (errors(metrics, "malformed") >= 3.0).then_some(()))?;
        server.apply(&PodOf::new("shop", "after"));
        agent.until("another pod", |metrics| is(metrics, "lifetrace_kubernetes_pods", 2.0))?;
        let peak = peak_bytes(&agent)?;
        assert!(peak < 300 << 20, "{peak} bytes");
        let said = agent.terminate()?.stderr;
        assert!(!said.contains("SECRET") && said.len() < 4096, "{said}");
        Ok(())
    })
}

/// The most memory that it ever had.
fn peak_bytes(agent: &Agent) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.running.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}

/// Check that a file which has us execute something to get in is refused, and one without the server's address.
#[test]
fn refused_files() -> Result<()> {
    along(&[], || {
        let dir = tempfile::tempdir()?;
        let (file, kubeconfig) = (dir.path().join("agent.toml"), dir.path().join("kubeconfig"));
        let check = || -> Result<process::Finished> {
            fs::write(&file, format!("[kubernetes]\nkubeconfig = {kubeconfig:?}\n"))?;
            let mut command = lifetrace_tests::lifetrace::command();
            command.args(["agent", "--check-config", "--config"]).arg(&file);
            process::run(command)
        };
        check()?.expect_code(2)?.expect_said(&["kubeconfig"])?;
        let server = ApiServer::nowhere()?;
        server.kubeconfig(&kubeconfig)?;
        let fine = check()?.expect_code(0)?;
        assert!(fine.stdout.contains("asks for pods   the API server of"), "{}", fine.stdout);
        let text = fs::read_to_string(&kubeconfig)?;
        fs::write(&kubeconfig, text.replace("\"token\":", "\"exec\":{\"command\":\"/bin/sh\"},\"token\":"))?;
        check()?.expect_code(2)?.expect_said(&["execute commands"])
    })
}
