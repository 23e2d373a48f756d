//! Every change of a goroutine's state (T3), against what the program counted itself.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use lifetrace_tests::{
    fixture,
    lifetrace::Run,
    recording::{Recording, Span},
    scenario::{Need, alone, along},
    truth::{self, CThreads, PingPong, Sched},
};

/// Check yields, sleeps, system calls, coroutine switches and delays of goroutines that share one processor.
#[test]
fn one_processor() -> Result<()> {
    scheduled("1")
}

/// Check the same on two.
#[test]
fn two_processors() -> Result<()> {
    scheduled("2")
}

fn scheduled(procs: &str) -> Result<()> {
    alone(&[Need::Root], || {
        let (finished, recording) = Run::of(fixture::go("sched")?).args(["-procs", procs]).option("--tier=T3").finish()?;
        let truth: Sched = truth::read(finished.expect_code(0)?.last_line())?;
        let report = recording.report()?;
        report.assert_nothing_lost();
        assert!(report.coverage.iter().all(|part| part.tier == "T3"), "{:?}", report.coverage);
        truth::assert_sites(&report, truth.pid, &truth.sites);

        let lives = Lives::of(&recording)?;
        lives.assert_whole();
        lives.assert_states_follow();
        assert_eq!(lives.count(|span| span.state == "runnable" && span.at("runtime.Gosched", "main.yield")), truth.yields);
        assert_eq!(lives.count(|span| span.state == "blocked" && span.at("time.Sleep", "main.sleep")), truth.sleeps);
        assert_eq!(lives.count(|span| span.state == "syscall" && span.at("syscall.Read", "main.call")), truth.calls);
        assert_eq!(lives.count(|span| span.reason() == "coroutine" && span.id == "go:1"), truth.switches);
        assert_eq!(lives.count(|span| span.reason() == "coroutine" && span.id != "go:1"), truth.switches);
        assert_woken(&lives);
        assert_delay(&lives, &truth)
    })
}

/// Who ends a wait is known: a timer that of a sleep, the network poller one for input, the other side that for a coroutine.
fn assert_woken(lives: &Lives) {
    let ended = |reason: &'static str| lives.all().filter(move |span| span.reason() == reason && span.woken_by.is_some());
    assert!(ended("sleep").count() > 0 && ended("sleep").all(|span| span.woken_by.as_deref() == Some("timer")));
    assert!(ended("IO wait").count() > 0 && ended("IO wait").all(|span| span.woken_by.as_deref() == Some("netpoll")));
    for span in ended("coroutine") {
        let by = span.woken_by.as_deref().unwrap_or_default();
        assert!(by.starts_with("go:") && by != span.id, "{span:?}");
    }
}

/// The goroutine that was woken behind main's back, and the time it then had to wait for a CPU.
fn assert_delay(lives: &Lives, truth: &Sched) -> Result<()> {
    let id = format!("go:{}", truth.delay.goid);
    let life = lives.0.get(&id).context("the delayed goroutine")?;
    let woken = life.windows(2).filter(|pair| pair[0].reason() == "chan receive" && pair[1].state == "runnable");
    for delay in woken.map(|pair| pair[1].length()) {
        assert!((truth.delay.at_least_ns..=truth.delay.at_most_ns).contains(&delay), "{delay} is not within {:?}", truth.delay);
    }
    Ok(())
}

/// Check that each park of a ping-pong is followed by one wake, one wait for a CPU and one run, on one processor and on two.
#[test]
fn ping_pong() -> Result<()> {
    alone(&[Need::Root], || {
        for procs in ["1", "2"] {
            let run = Run::of(fixture::go("pingpong")?).args(["-rounds", "20000", "-procs", procs]).option("--tier=T3");
            let (finished, recording) = run.finish()?;
            let truth: PingPong = truth::read(finished.expect_code(0)?.last_line())?;
            let report = recording.report()?;
            report.assert_nothing_lost();
            let lives = Lives::of(&recording)?;
            lives.assert_whole();
            lives.assert_states_follow();
            let players: Vec<&Vec<Span>> = lives.0.iter().filter(|(id, _)| *id != "go:1").map(|(_, life)| life).collect();
            let parks = |life: &&Vec<Span>| life.iter().filter(|span| span.reason().starts_with("chan ")).count() as u64;
            assert_eq!(players.iter().map(parks).sum::<u64>(), truth.parks);
        }
        Ok(())
    })
}

/// Check that reports and flamegraphs of a recording with scheduling say what T3 adds.
#[test]
fn outputs() -> Result<()> {
    along(&[Need::Root], || {
        let (finished, recording) = Run::of(fixture::go("sched")?).args(["-n", "20"]).option("--tier=T3").finish()?;
        finished.expect_code(0)?;
        let report = recording.report()?;
        assert!(report.sites.iter().all(|site| site.runnable_ns.is_some() && site.running_ns.is_some_and(|ns| ns > 0)));
        let raw: serde_json::Value = serde_json::from_str(&recording.answer("report", &["--format", "json"])?)?;
        let depths = raw["depths"].as_array().context("depths")?;
        let born = |depth: &serde_json::Value| depth["born"].as_u64().unwrap_or(0);
        assert_eq!(Some(depths.iter().map(born).sum()), report.goroutines.born, "{depths:?}");
        assert!(depths.iter().any(|depth| depth["depth"] == 1 && depth["runnable"]["p99_ns"].is_u64()), "{depths:?}");
        assert!(recording.answer("report", &[])?.contains("goroutines by depth"));
        let folded = recording.answer("flame", &["--by", "runnable", "--format", "folded"])?;
        assert!(folded.contains("main.yield;runtime.Gosched "), "{folded}");
        let total: u64 = report.sites.iter().filter_map(|site| site.runnable_ns).sum();
        let drawn = folded
            .lines()
            .filter(|line| !line.starts_with("[runtime];"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        assert_eq!(drawn.sum::<u64>(), total);
        assert!(recording.answer("flame", &["--by", "runnable"])?.contains("Time waiting for a CPU"));
        Ok(())
    })
}

/// Check the goroutine that C threads call Go with: attached by each, and not known to do anything while no thread has it.
#[test]
fn goroutines_of_c_threads() -> Result<()> {
    alone(&[Need::Root, Need::Command("gcc")], || {
        let (finished, recording) = Run::of(fixture::go("cthreads")?).option("--tier=T3").finish()?;
        let truth: CThreads = truth::read(finished.expect_code(0)?.last_line())?;
        let report = recording.report()?;
        report.assert_nothing_lost();
        let lives = Lives::of(&recording)?;
        let attached = lives.0.values().flat_map(|life| life.windows(2));
        let attached = attached.filter(|pair| pair[0].state == "unknown" && pair[1].state == "syscall");
        assert_eq!(attached.count() as u64, truth.threads);
        assert_eq!(lives.count(|span| span.state == "runnable" && span.at("runtime.Gosched", "main.callback")), truth.calls);
        assert_eq!(lives.count(|span| span.state == "blocked" && span.at("time.Sleep", "main.callback")), truth.calls);
        Ok(())
    })
}

/// The spans of each goroutine, by id.
struct Lives(BTreeMap<String, Vec<Span>>);

impl Lives {
    fn of(recording: &Recording) -> Result<Self> {
        let mut lives: BTreeMap<String, Vec<Span>> = BTreeMap::new();
        for span in recording.timeline(None)?.into_iter().filter(|span| span.id.starts_with("go:")) {
            lives.entry(span.id.clone()).or_default().push(span);
        }
        Ok(Self(lives))
    }

    fn all(&self) -> impl Iterator<Item = &Span> {
        self.0.values().flatten()
    }

    fn count(&self, which: impl Fn(&&Span) -> bool) -> u64 {
        self.all().filter(which).count() as u64
    }

    /// Claims that nothing is unknown, and that the spans of each goroutine follow each other without a hole.
    fn assert_whole(&self) {
        for life in self.0.values() {
            for pair in life.windows(2) {
                assert_eq!(pair[0].end_ns, Some(pair[1].start_ns), "{pair:?}");
            }
            let known = ["runnable", "running", "syscall", "blocked", "dead"];
            assert!(life.iter().all(|span| known.contains(&span.state.as_str())), "{life:?}");
        }
    }

    /// Claims that nobody runs who was not runnable, in a system call or a coroutine's other side, and that who is woken waits for a CPU.
    fn assert_states_follow(&self) {
        for pair in self.0.values().flat_map(|life| life.windows(2)) {
            let fine = match (pair[0].state.as_str(), pair[1].state.as_str()) {
                ("runnable", "running") | ("syscall", "running" | "runnable") => true,
                ("running", "runnable" | "blocked" | "syscall" | "dead") => true,
                ("blocked", "runnable") => pair[0].reason() != "coroutine",
                ("blocked", "running") => pair[0].reason() == "coroutine",
                // The process ended.
                (_, "dead") => pair[1].reason() == "process end",
                _ => false,
            };
            assert!(fine, "{pair:#?}");
        }
    }
}

trait Shape {
    fn at(&self, innermost: &str, through: &str) -> bool;
    fn reason(&self) -> &str;
    fn length(&self) -> u64;
}

impl Shape for Span {
    /// Whether one of the innermost frames is of a function, called by another one.
    fn at(&self, innermost: &str, through: &str) -> bool {
        let functions = || self.stack.iter().flatten().map(|frame| frame.function.as_str());
        functions().take(4).any(|function| function == innermost) && functions().any(|function| function == through)
    }

    fn reason(&self) -> &str {
        self.reason.as_deref().unwrap_or_default()
    }

    fn length(&self) -> u64 {
        self.end_ns.unwrap_or(self.start_ns).saturating_sub(self.start_ns)
    }
}
