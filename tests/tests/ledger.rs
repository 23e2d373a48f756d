//! What the agent adds up, held against programs that know their own truth: within its bounds, with two programs at one budget,
//! with two containers of one file, and with arguments that are as long as can be.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use lifetrace_tests::{
    agent::{Agent, Metrics},
    bpf::Inventory,
    container::{Contained, Container, Image},
    deadline::{PATIENCE, once_in_three, wait_for},
    fixture,
    process::{self, Running},
    program,
    scenario::{Need, alone, along},
    segments::{DUCKDB, whole},
    truth::{self, Births, Grown},
};
use nix::sys::signal::{Signal, kill};
use tempfile::TempDir;

fn label(path: &Path) -> String {
    format!("program=\"{}\"", path.display())
}

/// Everybody below a folder.
fn rule(dir: &Path) -> String {
    format!("[[rule]]\naction = \"follow\"\nexe = \"{}/**\"\n", dir.display())
}

/// A program of which a copy runs under a path of its own.
fn copy_of(name: &str, path: &Path, args: &[&str]) -> Result<Command> {
    let mut command = Command::new(fixture::copied(&fixture::go(name)?, path)?);
    command.args(args).envs([("GOGC", "off"), ("GOTRACEBACK", "none")]);
    Ok(command)
}

/// A grower that has grown once and stands still, and its truth.
fn standing(grower: Command) -> Result<(Running, Grown)> {
    let mut running = Running::start(grower, None)?;
    let grown = truth::read(&running.line(0)?)?;
    Ok((running, grown))
}

fn made(grown: &Grown) -> u64 {
    grown.sites.iter().map(|site| site.made).sum()
}

/// Waits until as many goroutines live as there are, and claims that as many were born as were made.
fn assert_counted(agent: &Agent, program: &str, alive: u64, born: u64) -> Result<Metrics> {
    agent.until("everybody", |metrics| metrics.sum("lifetrace_goroutines", &[program]).filter(|told| *told == alive as f64))?;
    let told = agent.until("all births", |metrics| {
        metrics.sum("lifetrace_goroutines_born_total", &[program]).filter(|told| *told >= born as f64)
    })?;
    assert_eq!(told, born as f64, "births of {program}");
    agent.metrics()
}

/// Check that what has a series of its own and what has none add up to what the program says, that pauses are counted, that waits
/// are as long as they can have been, and that an exit is told by its code.
#[test]
fn more_than_has_series() -> Result<()> {
    along(&[Need::Root], || {
        let dir = TempDir::new()?;
        let (app, late) = (dir.path().join("app"), dir.path().join("late"));
        let began = Instant::now();
        let args = ["-phases", "10000", "-many", "5", "-few", "2", "-mib", "1"];
        let (mut running, first) = standing(copy_of("grower", &app, &args)?)?;
        let agent = Agent::start(&format!("budget = \"none\"\nprograms = 1\nsites = 1\n{}", rule(dir.path())))?;
        let program = label(&app);
        agent.until("its probes", |metrics| metrics.sum("lifetrace_processes", &[&program, "tier=\"T2\""]))?;

        // Only its main goroutine waits for what comes: from its words to each signal.
        let (mut last, mut phase) = (first.clone(), 0);
        let waited = wait_for("a second of waits", PATIENCE, || {
            phase += 1;
            running.signal(Signal::SIGUSR1)?;
            last = truth::read(&running.line(phase)?)?;
            let waited = agent.metrics()?.sum("lifetrace_blocked_seconds_total", &[&program, "reason=\"chan receive\""]);
            Ok(waited.filter(|waited| *waited >= 1.0))
        })?;
        let lasted = began.elapsed().as_secs_f64();
        assert!(waited <= lasted, "one goroutine waited for {waited} of {lasted} s");

        let metrics = assert_counted(&agent, &program, last.goroutines, made(&last) - made(&first))?;
        let alive = |site: &str| metrics.sum("lifetrace_goroutines", &[&program, site]);
        let shown = &last.sites[0];
        assert_eq!(alive(&format!("{}:{})", shown.file, shown.line)), Some(shown.alive as f64), "{}", metrics.0);
        assert_eq!(alive("site=\"other\""), Some((last.goroutines - shown.alive) as f64), "{}", metrics.0);

        let least = 2.0 * f64::from(last.cycles - first.cycles);
        agent.until("two pauses a collection", |metrics| {
            metrics.sum("lifetrace_gc_pause_seconds_count", &[&program]).filter(|pauses| *pauses >= least)
        })?;
        let paused = agent.metrics()?.sum("lifetrace_gc_pause_seconds_sum", &[&program]).unwrap_or_default();
        let lasted = began.elapsed().as_secs_f64();
        assert!(paused > 0.0 && paused <= lasted, "{paused} s of pauses in {lasted} s");

        let mut sleeper = Running::start(copy_of("sleeper", &late, &["-n", "7"])?, None)?;
        let births: Births = truth::read(&sleeper.line(0)?)?;
        let site = format!("{}:{})", births.sites[0].file, births.sites[0].line);
        agent.until("the other program", |metrics| {
            metrics.sum("lifetrace_goroutines", &["program=\"other\"", &site]).filter(|alive| *alive == 7.0)
        })?;

        // Go's runtime leaves by exit(2) then.
        running.signal(Signal::SIGQUIT)?;
        assert_eq!(running.wait_exit()?.code(), Some(2));
        agent.until("its exit", |metrics| metrics.sum("lifetrace_process_exits_total", &[&program, "how=\"exit 2\""]))?;
        let metrics = agent.metrics()?;
        assert_eq!(metrics.sum("lifetrace_process_exits_total", &[&program]), Some(1.0), "{}", metrics.0);
        assert!(!metrics.0.contains(&label(&late)), "there is one program too many: {}", metrics.0);
        assert_eq!(metrics.sum("lifetrace_lost_events_total", &[]), None);
        agent.terminate()?;
        Ok(())
    })
}

/// CPUs that the probes of each program take: over some seconds of its CPU time, once it is known how much of that it uses.
fn paid(apps: &[PathBuf; 2], config: &str) -> Result<[f64; 2]> {
    let agent = Agent::start(config)?;
    let of = |metrics: &Metrics, series: &str| apps.each_ref().map(|app| metrics.sum(series, &[&label(app)]).unwrap_or_default());
    let after = |least: [f64; 2]| {
        agent.until("CPU time", |metrics| {
            let used = of(metrics, "lifetrace_followed_cpu_seconds_total");
            let enough = used.iter().zip(least).all(|(used, least)| *used > least);
            enough.then(|| (Instant::now(), used, of(metrics, "lifetrace_probe_cost_seconds_total")))
        })
    };
    let (from, used, before) = after([2.0; 2])?;
    let (to, _, cost) = after(used.map(|used| used + 4.0))?;
    agent.terminate()?;
    let seconds = (to - from).as_secs_f64();
    Ok([cost[0] - before[0], cost[1] - before[1]].map(|cost| cost / seconds))
}

fn online_cpus() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    Ok(stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count() as f64)
}

/// Check that two programs, each of which alone would pay three times the budget of the node, keep to it together.
#[test]
fn two_at_one_budget() -> Result<()> {
    alone(&[Need::Root], || {
        let dir = TempDir::new()?;
        let apps = ["one", "two"].map(|name| dir.path().join(name));
        let start = |app: &PathBuf| Running::start(copy_of("pingpong", app, &["-rounds", "2000000000"])?, None);
        let _running = apps.iter().map(start).collect::<Result<Vec<_>>>()?;
        let config = |more: &str| format!("budget = \"100%\"\n{more}\n{}", rule(dir.path()));
        once_in_three(|| {
            let own = paid(&apps, &config(""))?;
            let all = own[0].min(own[1]) / 3.0;
            ensure!(all > 0.01, "they pay too little to tell: {own:?} CPUs");
            let cut = paid(&apps, &config(&format!("node_budget = \"{:.3}%\"", all / online_cpus()? * 100.0)))?;
            println!("paid {own:?} CPUs each, {cut:?} within a budget of {all} of both");
            // Some seconds' worth may have been saved before.
            let together: f64 = cut.iter().sum();
            ensure!(together <= 2.0 * all, "{together} CPUs, {cut:?}, for a budget of {all}; without it {own:?}");
            Ok(())
        })
    })
}

/// Check that one file in two containers carries its probes once, and that whoever lives and is born in either is counted once.
#[test]
fn two_containers_of_one_file() -> Result<()> {
    const NAME: &str = "/ledger-twin";
    let needs = [Need::Root, Need::Command("unshare"), Need::Command("mount"), Need::Command("chroot")];
    alone(&needs, || {
        let dir = TempDir::new()?;
        let image = Image::of(&[&fixture::copied(&fixture::go("grower")?, &dir.path().join(&NAME[1..]))?])?;
        let containers = [image.container()?, image.container()?];
        let start = |container: &Container| -> Result<(Contained, Grown)> {
            let mut contained = container.start(NAME, &["-many", "20", "-few", "5", "-mib", "1"])?;
            let grown = truth::read(&contained.running.line(0)?)?;
            Ok((contained, grown))
        };
        let program = format!("{NAME}\"");
        let before = Inventory::take()?;
        let one = start(&containers[0])?;
        let agent = Agent::start(&format!("budget = \"none\"\n[[rule]]\naction = \"follow\"\nexe = \"**{NAME}\"\n"))?;
        let followed = |count: f64| {
            agent.until("its probes", |metrics| {
                metrics.sum("lifetrace_processes", &[&program, "tier=\"T2\""]).filter(|processes| *processes == count)
            })
        };
        followed(1.0)?;
        let probed = Inventory::take()?;
        assert!(!before.new_in(&probed).links.is_empty(), "no probe was set");
        let mut both = [one, start(&containers[1])?];
        followed(2.0)?;
        let more = probed.new_in(&Inventory::take()?);
        assert!(more.links.is_empty(), "the one file was attached to once more: {more:?}");

        let (mut alive, mut born) = (0, 0);
        for (contained, first) in &mut both {
            kill(contained.pid, Signal::SIGUSR1)?;
            let second: Grown = truth::read(&contained.running.line(1)?)?;
            alive += second.goroutines;
            born += made(&second) - made(first);
        }
        let metrics = assert_counted(&agent, &program, alive, born)?;
        let rows = metrics.0.lines().filter(|line| line.starts_with("lifetrace_processes{") && line.contains(&program));
        assert_eq!(rows.count(), 1, "one file is one program: {}", metrics.0);
        agent.terminate()?;
        before.wait_restored(PATIENCE)
    })
}

/// The column `argv` of all processes in a store, where there is one.
fn arguments(store: &Path) -> Result<Vec<String>> {
    const SCRIPT: &str = "import duckdb, json, sys\n\
        files = sys.argv[1] + '/processes/date=*/node=*/program=*/*.parquet'\n\
        table = f\"read_parquet('{files}', hive_partitioning = false)\"\n\
        found = duckdb.connect().execute(f'SELECT argv FROM {table} WHERE argv IS NOT NULL').fetchall()\n\
        print(json.dumps([row[0] for row in found]))\n";
    let mut python = Command::new("python3");
    python.args(["-c", SCRIPT]).arg(store).env("PYTHONPATH", program::fetched("duckdb/bin"));
    Ok(serde_json::from_str(&process::run(python)?.expect_code(0)?.stdout)?)
}

/// Check that a program with 1.9 MB of arguments and environment, with some that mean something elsewhere, is counted on over
/// segments, that these keep the beginning of its arguments and no more, and that metrics know nothing of them.
#[test]
fn long_command_line() -> Result<()> {
    /// Bytes of arguments that are kept of a process that runs already, without what JSON puts around them.
    const MAX_KEPT: usize = 4096;
    along(&[Need::Root, Need::Command("python3"), DUCKDB], || {
        let dir = TempDir::new()?;
        let (programs, store) = (dir.path().join("programs"), dir.path().join("store"));
        let hostile = "\"} 2\nmischief 8\n\x1b[2J";
        let mut command = copy_of("grower", &programs.join("a\"} 1\nevil 7\n\x1b[2J"), &["-mib", "1", hostile])?;
        command.args((0..15).map(|number| format!("{number}{}", "x".repeat(100_000))));
        command.envs(["A", "B", "C"].map(|name| (name, "y".repeat(120_000))));
        let (mut running, first) = standing(command)?;
        let agent = Agent::start(&format!(
            "node = \"n1\"\nbudget = \"none\"\n{}[segments]\nstore = \"file://{}\"\nspool = \"{}\"\nevery = \"2s\"\n",
            rule(&programs),
            store.display(),
            dir.path().join("spool").display()
        ))?;
        let alive = |goroutines: u64| {
            agent.until("everybody", |metrics| {
                metrics.sum("lifetrace_goroutines", &["evil 7"]).filter(|alive| *alive == goroutines as f64)
            })
        };
        alive(first.goroutines)?;
        let had = whole(&store)?;
        wait_for("two more segments", PATIENCE, || Ok((whole(&store)? >= had + 2).then_some(())))?;
        running.signal(Signal::SIGUSR1)?;
        let second: Grown = truth::read(&running.line(1)?)?;
        alive(second.goroutines)?;
        let metrics = agent.metrics()?;
        metrics.assert_rows();
        assert!(!metrics.0.contains("mischief") && !metrics.0.contains("xxxx"), "{}", metrics.0);
        agent.terminate()?;

        let kept = arguments(&store)?;
        assert!(kept.iter().all(|text| text.len() <= 2 * MAX_KEPT), "{:?}", kept.iter().map(String::len).collect::<Vec<_>>());
        let args: Vec<Vec<String>> = kept.iter().map(|text| serde_json::from_str(text)).collect::<Result<_, _>>()?;
        let ours = args.iter().find(|args| args.iter().any(|arg| arg == hostile));
        let ours = ours.with_context(|| format!("nobody has these arguments: {kept:?}"))?;
        assert!(ours.iter().map(String::len).sum::<usize>() <= MAX_KEPT, "{ours:?}");
        assert!(ours.last().is_some_and(|arg| arg.starts_with("0xxx")), "{ours:?}");
        Ok(())
    })
}
