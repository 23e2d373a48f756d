//! What the agent keeps as recordings of a while, and what may be followed of whom: rules, requests and triggers, on programs that know
//! their own truth.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lifetrace_tests::{
    agent::{Agent, Metrics},
    deadline::{PATIENCE, once_in_three, wait_for},
    disk::SmallDisk,
    fixture,
    process::Running,
    recording::Recording,
    report::Report,
    scenario::{Need, alone, along, skip},
};

fn label(path: &Path) -> String {
    format!("program=\"{}\"", path.display())
}

/// What is kept in a folder, once there is as much as that and none is in the making.
fn kept(dir: &Path, count: usize, agent: &Agent) -> Result<Vec<PathBuf>> {
    // Delays must be many before they are believed.
    let found = wait_for("recordings", PATIENCE * 2, || {
        let Ok(entries) = fs::read_dir(dir) else { return Ok(None) };
        let mut all: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        all.retain(|path| path.extension().is_some_and(|ending| ending == "lifetrace"));
        all.sort();
        Ok((all.len() >= count).then_some(all))
    });
    found.with_context(|| agent.running.stderr())
}

fn report(path: &Path) -> Result<Report> {
    Ok(serde_json::from_str(&Recording::at(path).answer("report", &["--format", "json"])?)?)
}

/// The recording that a trigger has begun, which is called after it and the program.
fn begun_by(why: &str, app: &Path, dir: &Path, agent: &Agent) -> Result<Report> {
    let path = kept(dir, 1, agent)?.remove(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let of = app.file_name().unwrap_or_default().display();
    ensure!(name.ends_with(&format!("-{why}-{of}.lifetrace")), "{name}");
    report(&path)
}

/// Waits until all processes of a program are followed as before a trigger began a recording, the only one.
fn as_before(why: &str, app: &Path, tier: &str, processes: u32, agent: &Agent) -> Result<()> {
    let (why, tier) = (format!("why=\"{why}\""), format!("tier=\"{tier}\""));
    agent.until("the tier of before", |metrics| {
        let followed = metrics.sum("lifetrace_processes", &[&label(app), &tier])?;
        let kept = metrics.sum("lifetrace_agent_windows_total", &[&why, "kept"])?;
        (followed == f64::from(processes) && kept == 1.0).then_some(())
    })
}

/// The tiers that a recording has of a process.
fn tiers(report: &Report, of: &Running) -> Vec<String> {
    let tgid = of.pid().as_raw().cast_unsigned();
    report.coverage.iter().filter(|part| part.tgid == tgid).map(|part| part.tier.clone()).collect()
}

/// Check that a rule says what may be followed of whom.
#[test]
fn detail_by_rule() -> Result<()> {
    along(&[Need::Root], || {
        let dir = tempfile::tempdir()?;
        let (much, little) = (dir.path().join("much/app"), dir.path().join("little/app"));
        let args = ["-leak", "afterfunc", "-n", "100", "-rate", "50", "-for", "600s"];
        let _much = fixture::orders_at(&much, &args)?;
        let _little = fixture::orders_at(&little, &args)?;
        let rule =
            |of: &str, more: &str| format!("[[rule]]\naction = \"follow\"\nexe = \"{}/{of}/**\"\n{more}\n", dir.path().display());
        let rules = rule("much", "tier = \"T3\"") + &rule("little", "tier = \"T1\"");
        let agent = Agent::start(&format!("budget = \"none\"\n{rules}"))?;
        for (path, tier) in [(&much, "tier=\"T3\""), (&little, "tier=\"T1\"")] {
            agent.until("its tier", |metrics| {
                metrics.sum("lifetrace_processes", &[&label(path), tier]).filter(|processes| *processes == 1.0)
            })?;
        }
        // T1 tells nothing of waits, T3 everything.
        agent.until("waits", |metrics| metrics.sum("lifetrace_blocked_seconds_total", &[&label(&much)]))?;
        agent.until("delays", |metrics| metrics.sum("lifetrace_runnable_delay_seconds_count", &[&label(&much)]))?;
        assert_eq!(agent.metrics()?.sum("lifetrace_blocked_seconds_total", &[&label(&little)]), None);
        agent.terminate()?;
        Ok(())
    })
}

/// Check that a window can be asked for: it reaches back to before it was asked for, follows the program in more detail from then on, and is
/// a recording like any other, of which nothing is lost and everything has a name; and that what cannot be done is refused.
#[test]
fn asked_for() -> Result<()> {
    along(&[Need::Root], || {
        let dir = tempfile::tempdir()?;
        let app = dir.path().join("programs/app");
        let running = fixture::orders_at(&app, &["-leak", "afterfunc", "-n", "400", "-rate", "20", "-for", "600s"])?;
        let windows = dir.path().join("windows");
        let agent = Agent::guarded(&format!(
            "node = \"n1\"\nbudget = \"none\"\nsnapshot_every = \"1s\"\n[record]\ndir = {windows:?}\nbefore = \"5s\"\nafter = \"3s\"\n\
             [[rule]]\naction = \"follow\"\nexe = \"{}/**\"\n",
            dir.path().join("programs").display()
        ))?;
        let alive = |least: f64| {
            agent.until("reminders", |metrics| {
                metrics.sum("lifetrace_goroutines", &[&label(&app), "time.goFunc"]).filter(|alive| *alive >= least)
            })
        };
        // Most were born longer ago than is kept: 5 s of 20 a second.
        alive(300.0)?;
        for (path, status) in [
            ("/v1/record?program=/nowhere", "HTTP/1.1 404"),
            ("/v1/record?after=1d", "HTTP/1.1 400"),
            ("/v1/record?x=y", "HTTP/1.1 400"),
        ] {
            let refused = agent.post(path)?;
            assert!(refused.starts_with(status), "{path}: {refused}");
        }
        let begun = agent.post(&format!("/v1/record?program={}&after=4s", app.display()))?;
        assert!(begun.starts_with("HTTP/1.1 202") && begun.contains("n1-") && begun.contains("asked-app.lifetrace"), "{begun}");
        let asked = Instant::now();
        assert!(
            agent.post("/v1/record")?.starts_with("HTTP/1.1 409") || asked.elapsed() > Duration::from_secs(4),
            "two at a time"
        );
        let path = kept(&windows, 1, &agent)?.remove(0);
        let report = report(&path)?;
        report.assert_nothing_lost_since_joined();
        assert!((7_000_000_000..30_000_000_000).contains(&report.duration_ns), "{}", report.duration_ns);
        let tiers: Vec<&str> = report.coverage.iter().map(|part| part.tier.as_str()).collect();
        assert!(tiers.contains(&"T2") && tiers.contains(&"T3"), "{tiers:?}");
        let left = report.goroutines().of(running.pid().as_raw().cast_unsigned()).created_by("time.goFunc");
        let (alive_then, born_before) = (left.sum(|site| site.alive), left.sum(|site| site.preexisting));
        assert!(alive_then >= 300 && born_before >= 50, "{alive_then} {born_before}");
        let process = report.process(running.pid().as_raw().cast_unsigned());
        assert!(process.exe.as_deref().is_some_and(|exe| exe.ends_with("programs/app")), "{process:?}");
        // As before, once it is over.
        agent.until("T2 again", |metrics| {
            metrics.sum("lifetrace_processes", &[&label(&app), "tier=\"T2\""]).filter(|processes| *processes == 1.0)
        })?;
        assert_eq!(agent.metrics()?.sum("lifetrace_agent_windows_total", &["why=\"asked\"", "kept"]), Some(1.0));
        agent.terminate()?;
        Ok(())
    })
}

/// Check that a budget holds for a file, whoever that asks for none was there first, and that a window has one of its own.
#[test]
fn smaller_budget() -> Result<()> {
    along(&[Need::Root], || {
        let dir = tempfile::tempdir()?;
        let app = dir.path().join("first/app");
        let args = ["-leak", "afterfunc", "-n", "100", "-rate", "50", "-for", "600s"];
        let _first = fixture::orders_at(&app, &args)?;
        fs::create_dir(dir.path().join("second"))?;
        fs::hard_link(&app, dir.path().join("second/app"))?;
        let rule =
            |of: &str, more: &str| format!("[[rule]]\naction = \"follow\"\nexe = \"{}/{of}/**\"\n{more}\n", dir.path().display());
        let rules = rule("first", "budget = \"none\"\ntier = \"T1\"") + &rule("second", "budget = \"0.5%\"\ntier = \"T3\"");
        let mut agent = Agent::start(&rules)?;
        agent.until("T1 whatever it costs", |metrics| {
            metrics.sum("lifetrace_processes", &["first/app", "tier=\"T1\""]).filter(|processes| *processes == 1.0)
        })?;
        let mut command = Command::new(dir.path().join("second/app"));
        command.args(args);
        let _second = Running::start(command, None)?;
        // Within a budget it is tried what each tier costs: the probes that were there go first.
        agent.running.said("T0 from here on (asked for)")?;
        agent.running.said("T1 from here on (room for more)")?;
        agent.terminate()?;
        Ok(())
    })
}

/// Check that goroutines that grow begin a recording, once, which shows them, in more detail than before and afterwards.
#[test]
fn growth() -> Result<()> {
    along(&[Need::Root], || {
        let dir = tempfile::tempdir()?;
        let app = dir.path().join("programs/app");
        let running = fixture::orders_at(&app, &["-leak", "afterfunc", "-n", "100000", "-rate", "50", "-for", "600s"])?;
        let windows = dir.path().join("windows");
        let agent = Agent::start(&format!(
            "budget = \"none\"\nsnapshot_every = \"1s\"\n[record]\ndir = {windows:?}\nbefore = \"5s\"\nafter = \"6s\"\n\
             when = {{ grows_for = \"1s\" }}\n[[rule]]\naction = \"follow\"\nexe = \"{}/**\"\n",
            dir.path().join("programs").display()
        ))?;
        let report = begun_by("grows", &app, &windows, &agent)?;
        assert!(
            report.goroutines().of(running.pid().as_raw().cast_unsigned()).created_by("time.goFunc").sum(|site| site.born) > 0
        );
        let tiers = tiers(&report, &running);
        assert!(["T2", "T3"].iter().all(|tier| tiers.iter().any(|there| there == tier)), "{tiers:?}");
        as_before("grows", &app, "T2", 1, &agent)?;
        agent.terminate()?;
        Ok(())
    })
}

/// Three goroutines that want a CPU all the time.
fn burner(app: &Path) -> Command {
    let mut command = Command::new(app);
    command.args(["-unit", "600s"]);
    command
}

/// Check that goroutines that wait long for a CPU begin a recording, which shows that they do, and that they are followed on as before.
#[test]
fn starved() -> Result<()> {
    // It takes all CPUs.
    alone(&[Need::Root], || {
        let dir = tempfile::tempdir()?;
        let app = fixture::copied(&fixture::go("burner")?, &dir.path().join("programs/starved"))?;
        // Three share one processor, which Go gives to the next one every 10 ms or more.
        let start = || {
            let mut command = burner(&app);
            command.env("GOMAXPROCS", "1");
            Running::start(command, None)
        };
        let running = [start()?, start()?, start()?];
        let windows = dir.path().join("windows");
        let agent = Agent::start(&format!(
            "tier = \"T3\"\nbudget = \"none\"\nsnapshot_every = \"1s\"\n[record]\ndir = {windows:?}\nbefore = \"5s\"\nafter = \"1s\"\n\
             when = {{ delay_p99 = \"5ms\" }}\n[[rule]]\naction = \"follow\"\nexe = \"{}/**\"\n",
            dir.path().join("programs").display()
        ))?;
        let report = begun_by("delay", &app, &windows, &agent)?;
        for one in &running {
            let tiers = tiers(&report, one);
            assert!(tiers.iter().any(|tier| tier == "T3"), "{tiers:?}");
        }
        let waited = report.sites.iter().filter_map(|site| site.runnable_ns).sum::<u64>();
        assert!(waited > 1_000_000_000, "runnable for {waited} ns");
        as_before("delay", &app, "T3", 3, &agent)?;
        agent.terminate()?;
        Ok(())
    })
}

/// A cgroup that may use a fifth of a CPU; it goes with the test, whose programs have ended by then.
struct Quota(PathBuf);

impl Quota {
    /// In the hierarchy that has the CPU controller; `None`: there is none.
    fn new() -> Result<Option<Self>> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let mounted = |kind: &str, option: &str| {
            mounts.lines().find_map(|line| {
                let mut fields = line.split(' ').skip(1);
                let (at, of, options) = (fields.next()?, fields.next()?, fields.next()?);
                (of == kind && options.split(',').any(|one| one == option)).then(|| PathBuf::from(at))
            })
        };
        let old = mounted("cgroup", "cpu");
        let Some(mount) = old.clone().or_else(|| mounted("cgroup2", "rw")) else { return Ok(None) };
        if old.is_none() {
            if !fs::read_to_string(mount.join("cgroup.controllers"))?.split_whitespace().any(|one| one == "cpu") {
                return Ok(None);
            }
            fs::write(mount.join("cgroup.subtree_control"), "+cpu")?;
        }
        let path = mount.join(format!("lifetrace-held-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let quota = Self(path);
        // Short periods: fifty of them must have passed.
        let values: &[(&str, &str)] = match old {
            Some(_) => &[("cpu.cfs_period_us", "10000"), ("cpu.cfs_quota_us", "2000")],
            None => &[("cpu.max", "2000 10000")],
        };
        let set = values.iter().try_for_each(|(file, value)| fs::write(quota.0.join(file), value));
        Ok(set.is_ok().then_some(quota))
    }

    /// What moves into it and then becomes this command.
    fn around(&self, inner: &Command) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]).arg(&self.0);
        command.arg(inner.get_program()).args(inner.get_args());
        command
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        // Its last process may still be on its way out.
        let _ = wait_for("the cgroup to be empty", PATIENCE, || Ok(fs::remove_dir(&self.0).ok()));
    }
}

/// Check that a program whose cgroup runs out of its CPU quota begins a recording, which has it in more detail than before and afterwards.
#[test]
fn throttled() -> Result<()> {
    along(&[Need::Root], || {
        let Some(quota) = Quota::new()? else { return skip("no CPU quota to be had") };
        let dir = tempfile::tempdir()?;
        let app = fixture::copied(&fixture::go("burner")?, &dir.path().join("programs/held"))?;
        let running = Running::start(quota.around(&burner(&app)), None)?;
        let windows = dir.path().join("windows");
        let agent = Agent::start(&format!(
            "tier = \"T1\"\nbudget = \"none\"\nsnapshot_every = \"1s\"\n[record]\ndir = {windows:?}\nbefore = \"5s\"\nafter = \"6s\"\n\
             when = {{ throttled = \"25%\" }}\n[[rule]]\naction = \"follow\"\nexe = \"{}/**\"\n",
            dir.path().join("programs").display()
        ))?;
        let report = begun_by("throttled", &app, &windows, &agent)?;
        let tiers = tiers(&report, &running);
        assert!(["T1", "T3"].iter().all(|tier| tiers.iter().any(|there| there == tier)), "{tiers:?}");
        as_before("throttled", &app, "T1", 1, &agent)?;
        agent.terminate()?;
        Ok(())
    })
}

/// Check that a window for which the disk has no room fails, and is told as failed, that nothing else does, and that the next one is kept once there is
/// room.
#[test]
fn full_disk() -> Result<()> {
    along(&[Need::Root, Need::Command("mount")], || {
        let dir = tempfile::tempdir()?;
        // Room for a window of so many goroutines, many times over.
        let disk = SmallDisk::mount("16m")?;
        let filler = disk.path().join("filler");
        let _ = fs::write(&filler, vec![0; 32 << 20]);
        let app = dir.path().join("programs/app");
        let _running = fixture::orders_at(&app, &["-leak", "afterfunc", "-n", "20000", "-rate", "50", "-for", "600s"])?;
        let windows = disk.path().join("windows");
        let agent = Agent::guarded(&format!(
            "budget = \"none\"\nsnapshot_every = \"1s\"\n[record]\ndir = {windows:?}\nbefore = \"5s\"\nafter = \"1s\"\n\
             [[rule]]\naction = \"follow\"\nexe = \"{}/**\"\n",
            dir.path().join("programs").display()
        ))?;
        let alive = |metrics: &Metrics| metrics.sum("lifetrace_goroutines", &[&label(&app), "time.goFunc"]);
        agent.until("reminders", |metrics| alive(metrics).filter(|alive| *alive >= 100.0))?;
        let begun = agent.post("/v1/record")?;
        if begun.starts_with("HTTP/1.1 202") {
            agent.until("its failure", |metrics| windows_that(metrics, "failed").filter(|failed| *failed == 1.0))?;
        } else {
            assert!(begun.starts_with("HTTP/1.1 500") && begun.contains("No space left"), "{begun}");
        }
        fs::remove_file(&filler)?;
        let before = agent.until("reminders", alive)?;
        agent.until("more of them", |metrics| alive(metrics).filter(|alive| *alive > before))?;
        wait_for("another window", PATIENCE, || Ok(agent.post("/v1/record")?.starts_with("HTTP/1.1 202").then_some(())))?;
        agent.until("it to be kept", |metrics| windows_that(metrics, "kept").filter(|kept| *kept == 1.0))?;
        report(&kept(&windows, 1, &agent)?.remove(0))?.assert_nothing_lost_since_joined();
        assert_eq!(agent.metrics()?.sum("lifetrace_lost_events_total", &[]), None, "a full disk costs events");
        agent.terminate()?;
        Ok(())
    })
}

fn windows_that(metrics: &Metrics, result: &str) -> Option<f64> {
    metrics.sum("lifetrace_agent_windows_total", &["why=\"asked\"", result])
}

/// Check that a budget of the node cuts what a program's own would allow.
#[test]
fn budget_of_the_node() -> Result<()> {
    alone(&[Need::Root], || {
        let dir = tempfile::tempdir()?;
        let app = dir.path().join("app");
        let mut command = Command::new(fixture::copied(&fixture::go("pingpong")?, &app)?);
        command.args(["-rounds", "2000000000"]);
        let _running = Running::start(command, None)?;
        let rule = format!("[[rule]]\naction = \"follow\"\nexe = \"{}\"\n", app.display());
        // What probes cost of a few seconds of its CPU time, from when it is followed as it may be.
        let share = |more: &str| -> Result<f64> {
            let agent = Agent::start(&format!("budget = \"50%\"\n{more}\n{rule}"))?;
            let used = |metrics: &Metrics| metrics.sum("lifetrace_followed_cpu_seconds_total", &[&label(&app)]);
            agent.until("CPU time", |metrics| used(metrics).filter(|used| *used > 5.0))?;
            let metrics = agent.metrics()?;
            let paid = metrics.sum("lifetrace_probe_cost_seconds_total", &[&label(&app)]).context("no price")?;
            agent.terminate()?;
            Ok(paid / used(&metrics).context("no CPU time")?)
        };
        once_in_three(|| {
            let (own, cut) = (share("")?, share("node_budget = \"0.005%\"")?);
            println!("paid {:.2} % of its CPU time, {:.2} % within the node's budget", own * 100.0, cut * 100.0);
            ensure!(own > 0.0 && cut < own / 3.0, "{own} {cut}");
            Ok(())
        })
    })
}

/// Check that nothing is written through a link, nor into a folder that others can write.
#[test]
fn folders_of_others() -> Result<()> {
    along(&[Need::Root], || {
        let dir = tempfile::tempdir()?;
        let app = dir.path().join("programs/app");
        let _running = fixture::orders_at(&app, &["-leak", "afterfunc", "-n", "10", "-for", "600s"])?;
        let (link, elsewhere) = (dir.path().join("windows"), dir.path().join("elsewhere"));
        fs::create_dir(&elsewhere)?;
        std::os::unix::fs::symlink(&elsewhere, &link)?;
        let agent = Agent::guarded(&format!(
            "[record]\ndir = {link:?}\n[[rule]]\naction = \"follow\"\nexe = \"{}/**\"\n",
            dir.path().join("programs").display()
        ))?;
        let refused = agent.post("/v1/record")?;
        assert!(refused.starts_with("HTTP/1.1 500") && refused.contains("symbolic link"), "{refused}");
        assert_eq!(fs::read_dir(&elsewhere)?.count(), 0);
        agent.terminate()?;
        Ok(())
    })
}
