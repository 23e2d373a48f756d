//! `lifetrace agent` on programs that know their own truth, asked as Prometheus asks, and by Prometheus.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};
use lifetrace_tests::{
    agent::Agent,
    bpf::Inventory,
    deadline::{PATIENCE, wait_for},
    fixture, kernel, lifetrace,
    process::{self, Running, is_alive},
    program,
    prometheus::Prometheus,
    scenario::{Need, alone, along, skip},
};
use nix::sys::signal::Signal;

/// The order service under a name of its own.
fn orders_at(path: &Path, args: &[&str]) -> Result<Running> {
    if !path.exists() {
        return fixture::orders_at(path, args);
    }
    let mut command = Command::new(path);
    command.args(args);
    Running::start(command, None)
}

/// Everybody below a folder, whatever that costs.
fn rule(dir: &Path, more: &str) -> String {
    format!("budget = \"none\"\n{more}\n[[rule]]\naction = \"follow\"\nexe = \"{}/**\"\n", dir.display())
}

fn label(path: &Path) -> String {
    format!("program=\"{}\"", path.display())
}

/// Check that a file is read without following anybody: what it means, or what is wrong with it.
#[test]
fn check_config() -> Result<()> {
    along(&[], || {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("agent.toml");
        let check = |text: &str| -> Result<process::Finished> {
            fs::write(&file, text)?;
            let mut command = lifetrace::command();
            command.args(["agent", "--check-config", "--config"]).arg(&file);
            process::run(command)
        };
        let fine = check("[[rule]]\naction = \"follow\"\ncontainer = true\n")?.expect_code(0)?;
        assert!(fine.stdout.contains("follows         Go programs in a container\n"), "{}", fine.stdout);
        for (text, said) in
            [("listen = \"0.0.0.0:1\"", "name a token_file"), ("tire = \"T1\"", "unknown field `tire`"), ("[[", "line 1")]
        {
            let refused = check(text)?.expect_code(2)?;
            assert!(refused.stderr.contains(said) && refused.stderr.contains("agent.toml"), "{}", refused.stderr);
        }
        let mut absent = lifetrace::command();
        absent.args(["agent", "--config", "/nowhere/agent.toml"]);
        process::run(absent)?.expect_code(2)?.expect_said(&["/nowhere/agent.toml cannot be read"])
    })
}

/// Check that those whom the rules name are followed, those who run already and those who start later, and nobody else; that counts are the
/// program's own, that ends are counted, that a file is read again, and that nothing is left behind.
#[test]
fn follows_the_chosen() -> Result<()> {
    alone(&[Need::Root], || {
        let dir = tempfile::tempdir()?;
        let (first, later, other) =
            (dir.path().join("wanted/first"), dir.path().join("wanted/later"), dir.path().join("other/app"));
        let leak = ["-leak", "afterfunc", "-n", "600", "-rate", "30", "-for", "600s"];
        let _first = orders_at(&first, &leak)?;
        let other_runs = orders_at(&other, &leak)?;
        let before = Inventory::take()?;
        let mut agent = Agent::start(&rule(&dir.path().join("wanted"), ""))?;
        let mut later_runs = orders_at(&later, &leak)?;
        for path in [&first, &later] {
            agent.until("600 reminders", |metrics| {
                let alive = metrics.sum("lifetrace_goroutines", &[&label(path), "time.goFunc (time/sleep.go:215)"]);
                (alive == Some(600.0)).then_some(())
            })?;
        }
        let metrics = agent.metrics()?;
        assert!(!metrics.0.contains(&label(&other)), "nobody asked for that one: {}", metrics.0);
        // It was joined within a second or two: most were born since.
        let born = metrics.sum("lifetrace_goroutines_born_total", &[&label(&later), "time.goFunc"]).context("none was born")?;
        assert!(born > 0.0 && born <= 600.0, "{born}");
        let waiting = metrics.sum("lifetrace_goroutines_by_state", &[&label(&later), "state=\"blocked\""]);
        assert!(waiting.is_some_and(|waiting| waiting >= 600.0), "{waiting:?}");
        assert_eq!(metrics.sum("lifetrace_processes", &[&label(&later), "tier=\"T2\""]), Some(1.0));
        assert_few_rights(&agent)?;
        later_runs.signal(Signal::SIGKILL)?;
        later_runs.wait_exit()?;
        agent.until("the end of one", |metrics| {
            metrics.sum("lifetrace_process_exits_total", &[&label(&later), "how=\"SIGKILL\""]).filter(|ends| *ends == 1.0)
        })?;
        assert_eq!(agent.metrics()?.sum("lifetrace_processes", &[&label(&later)]), None);

        agent.reload("tire = \"T1\"")?;
        agent.until("a refusal", |metrics| {
            metrics.sum("lifetrace_agent_reloads_total", &["refused"]).filter(|count| *count == 1.0)
        })?;
        agent.running.said("unknown field `tire`")?;
        agent.until("it goes on as before", |metrics| metrics.sum("lifetrace_goroutines", &[&label(&first)]))?;
        agent.reload(&rule(&dir.path().join("other"), ""))?;
        agent.until("the other one", |metrics| {
            let alive = metrics.sum("lifetrace_goroutines", &[&label(&other), "time.goFunc"]);
            (alive == Some(600.0)).then_some(())
        })?;
        assert_eq!(agent.metrics()?.sum("lifetrace_agent_reloads_total", &["taken"]), Some(1.0));
        agent.terminate()?;
        before.wait_restored(PATIENCE)?;
        assert!(is_alive(other_runs.pid()));
        Ok(())
    })
}

/// Claims that every thread has the rights to trace and to read, no other, and cannot get any by executing something.
fn assert_few_rights(agent: &Agent) -> Result<()> {
    const DAC_READ_SEARCH: u64 = 1 << 2;
    const SYS_PTRACE: u64 = 1 << 19;
    const PERFMON_AND_BPF: u64 = 0b11 << 38;
    // Where the kernel sets no probes without, it says so.
    let keeps = agent.running.stderr().contains("CAP_SYS_ADMIN is kept");
    assert!(!keeps || kernel::may_close_perf());
    let admin = u64::from(keeps) << 21;
    for thread in fs::read_dir(format!("/proc/{}/task", agent.running.pid()))? {
        // One may just have ended.
        let Ok(status) = fs::read_to_string(thread?.path().join("status")) else { continue };
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
        for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
            assert_eq!(
                u64::from_str_radix(field(set), 16)?,
                DAC_READ_SEARCH | SYS_PTRACE | PERFMON_AND_BPF | admin,
                "{set} {status}"
            );
        }
        assert_eq!((field("CapInh:"), field("CapAmb:"), field("NoNewPrivs:")), ("0000000000000000", "0000000000000000", "1"));
    }
    Ok(())
}

/// Check that recordings are begun anew as often as is asked for, and that no counter falls and nobody is missed for it.
#[test]
fn renewals() -> Result<()> {
    along(&[Need::Root], || {
        let dir = tempfile::tempdir()?;
        let app = dir.path().join("app");
        let _running = orders_at(&app, &["-leak", "afterfunc", "-n", "2000", "-rate", "100", "-for", "600s"])?;
        let agent = Agent::start(&rule(dir.path(), "renew = \"2s\""))?;
        agent.until("everybody", |metrics| {
            metrics.sum("lifetrace_goroutines", &[&label(&app)]).filter(|alive| *alive >= 2000.0)
        })?;
        let (mut born, mut ended) = (0.0, 0.0);
        agent.until("five recordings", |metrics| {
            let alive = metrics.sum("lifetrace_goroutines", &[&label(&app)]).unwrap_or_default();
            assert!(alive >= 1900.0, "{alive}: while another recording begins, what was so in the last one holds: {}", metrics.0);
            let total = |series: &str| metrics.sum(series, &[&label(&app)]).unwrap_or_default();
            let now = (total("lifetrace_goroutines_born_total"), total("lifetrace_goroutines_ended_total"));
            assert!(now.0 >= born && now.1 >= ended, "{now:?} after {born} and {ended}");
            (born, ended) = now;
            metrics.sum("lifetrace_agent_recordings_total", &[]).filter(|recordings| *recordings >= 5.0)
        })?;
        assert!(born > 0.0 && ended > 0.0, "{born} {ended}");
        agent.until("everybody there", |metrics| {
            let alive = metrics.sum("lifetrace_goroutines", &[&label(&app), "placeAll"])?;
            let left = metrics.sum("lifetrace_goroutines", &[&label(&app), "time.goFunc"])?;
            (alive + left == 2000.0).then_some(())
        })?;
        agent.terminate()?;
        Ok(())
    })
}

/// Check that the target goes on when the agent is killed, and that nothing is left attached to it.
#[test]
fn killed() -> Result<()> {
    alone(&[Need::Root], || {
        let dir = tempfile::tempdir()?;
        let app = dir.path().join("app");
        let running = orders_at(&app, &["-leak", "afterfunc", "-n", "10", "-for", "600s"])?;
        let before = Inventory::take()?;
        let mut agent = Agent::start(&rule(dir.path(), ""))?;
        agent.until("somebody", |metrics| metrics.sum("lifetrace_goroutines", &[&label(&app)]))?;
        agent.running.signal(Signal::SIGKILL)?;
        agent.running.wait_exit()?;
        before.wait_restored(PATIENCE)?;
        assert!(is_alive(running.pid()));
        Ok(())
    })
}

/// Check that names that a target chose stay inside their labels: a file name with quotes, line ends and markup.
#[test]
fn hostile_names() -> Result<()> {
    along(&[Need::Root], || {
        let dir = tempfile::tempdir()?;
        let app = dir.path().join("a\"} 1\nevil 7\n<script>\x1b[2J");
        let _running = orders_at(&app, &["-leak", "afterfunc", "-n", "10", "-for", "600s"])?;
        let agent = Agent::start(&rule(dir.path(), ""))?;
        let metrics =
            agent.until("somebody", |metrics| metrics.sum("lifetrace_processes", &["evil"]).map(|_| metrics.0.clone()))?;
        let body = metrics.split_once("\r\n\r\n").context("no body")?.1;
        for line in body.lines() {
            let known = ["# ", "lifetrace_", "process_"].iter().any(|begin| line.starts_with(begin));
            assert!(known && !line.chars().any(char::is_control), "{line:?}");
        }
        agent.terminate()?;
        Ok(())
    })
}

/// Check that a real Prometheus scrapes it, and that its query finds the leak.
#[test]
fn prometheus() -> Result<()> {
    along(&[Need::Root], || {
        let server = program::fetched("prometheus/bin/prometheus");
        if !server.is_file() {
            return skip("Prometheus is not there: `cargo xtask test` fetches it");
        }
        let dir = tempfile::tempdir()?;
        let app = dir.path().join("programs/app");
        let _running = orders_at(&app, &["-leak", "afterfunc", "-n", "5000", "-rate", "50", "-for", "600s"])?;
        let agent = Agent::start(&rule(&dir.path().join("programs"), ""))?;
        let prometheus = Prometheus::scraping(&server, dir.path(), &agent.address, &[])?;
        let leak = wait_for("Prometheus to find the leak", PATIENCE, || {
            let answer = prometheus.query("topk(1,lifetrace_goroutines_growth_per_hour)")?;
            Ok(answer["data"]["result"][0]["metric"]["site"].as_str().map(str::to_owned))
        });
        let leak = leak.with_context(|| agent.metrics().map(|metrics| metrics.0).unwrap_or_default())?;
        assert!(leak.starts_with("time.goFunc (time/sleep.go:215)"), "{leak}");
        let up = prometheus.query("sum(lifetrace_goroutines)")?;
        let alive = up["data"]["result"][0]["value"][1].as_str().context("no sum")?.parse::<f64>()?;
        assert!(alive >= 5000.0, "{up}");
        agent.terminate()?;
        Ok(())
    })
}
