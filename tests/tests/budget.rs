//! A price that is kept: the governor on programs that cost nothing, too much, and that fare worse.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lifetrace_tests::{
    attach::Attached,
    bpf::Inventory,
    deadline::{PATIENCE, let_pass, once_in_three, slowness, wait_for},
    fixture,
    process::Running,
    recording::Recording,
    report::{Coverage, Report},
    scenario::{Need, alone, along},
    truth::{self, Births},
};
use nix::sys::signal::Signal;

const S: u64 = 1_000_000_000;

fn start(name: &str, args: &[&str]) -> Result<Running> {
    let mut command = Command::new(fixture::go(name)?);
    command.args(args);
    Running::start(command, None)
}

/// Two goroutines that do nothing but wake each other: no program pays more for T2.
fn pingpong() -> Result<Running> {
    start("pingpong", &["-rounds", "2000000000"])
}

/// What is told of a ping-pong that was followed at T2 within a budget.
fn pingpong_within(budget: &str, lasts: &str) -> Result<Recording> {
    let target = pingpong()?;
    let pid = target.pid().to_string();
    let (_, recording) = Attached::to(&["--pid", &pid, "--budget", budget, "--tier", "T2", "--for", lasts])?.finish()?;
    end(target)?;
    Ok(recording)
}

fn end(running: Running) -> Result<()> {
    running.signal(Signal::SIGKILL)?;
    running.finish().map(drop)
}

/// How long a process was followed at a tier.
fn time_at(report: &Report, tier: &str) -> u64 {
    report.coverage.iter().filter(|span| span.tier == tier).map(length).sum()
}

fn length(span: &Coverage) -> u64 {
    span.to_ns.unwrap().saturating_sub(span.from_ns)
}

/// Check that a program that pays next to nothing is followed in all detail soon, without being told to, and that every goroutine of it is
/// known then.
#[test]
fn cheap() -> Result<()> {
    alone(&[Need::Root], || {
        once_in_three(|| {
            let mut target = start("sleeper", &["-n", "50"])?;
            let births: Births = truth::read(&target.line(0)?)?;
            let pid = target.pid().to_string();
            let (_, recording) = Attached::to(&["--pid", &pid, "--budget", "1%", "--for", "8s"])?.finish()?;
            end(target)?;
            let report = recording.report()?;
            assert_eq!(report.price.budget, Some(0.01));
            ensure!(report.price.share.unwrap_or(0.0) < 0.5, "{:?}", report.price);
            let first: Vec<&str> = report.steps.iter().take(2).map(|step| step.why.as_str()).collect();
            ensure!(first == ["trial", "room"], "{:#?}", report.steps);
            let detailed = time_at(&report, "T2") + time_at(&report, "T3");
            ensure!(detailed > 4 * S, "{:?}\n{:#?}", report.coverage, report.steps);
            let known: u64 = report.sites.iter().map(|site| site.alive).sum();
            let made: u64 = births.sites.iter().map(|site| site.made).sum();
            assert!(known >= made, "{known} of {made} are known: {:#?}", report.sites);
            Ok(())
        })
    })
}

/// Check that a program that would pay many times the budget at T2 is tried there for a moment, and pays no more than that; everything that
/// it pays nothing for it keeps.
#[test]
fn much_too_dear() -> Result<()> {
    alone(&[Need::Root], || {
        once_in_three(|| {
            let report = pingpong_within("1%", "12s")?.report()?;
            ensure!(report.steps.iter().any(|step| step.tier == "T1" && step.why == "runaway"), "{:#?}", report.steps);
            ensure!(time_at(&report, "T2") < 2 * S * u64::from(slowness()), "{:#?}", report.steps);
            ensure!(time_at(&report, "T1") > 8 * S, "{:#?}", report.steps);
            // What a first trial costs that has to be taken for a moment.
            ensure!(report.price.programs[0].share.unwrap() < 0.1 * f64::from(slowness()), "{:#?}", report.price);
            Ok(())
        })
    })
}

/// Check that what costs a little more than the budget is followed in windows of a second or more, with gaps, and that sums are scaled.
#[test]
fn windows() -> Result<()> {
    alone(&[Need::Root], || {
        once_in_three(|| {
            let recording = pingpong_within("40%", "15s")?;
            let report = recording.report()?;
            let windows: Vec<&Coverage> = report.coverage.iter().filter(|span| span.tier == "T2").collect();
            ensure!(windows.len() >= 3, "{:#?}\n{:#?}", report.steps, report.price);
            // The first one is a trial, and the last one may be cut off by the end.
            ensure!(windows[1..windows.len() - 1].iter().all(|window| length(window) >= S), "{windows:#?}");
            ensure!(time_at(&report, "T1") > 2 * S, "{:#?}", report.coverage);
            ensure!(report.price.programs[0].share.unwrap() < 0.5, "{:#?}", report.price);
            let text = recording.answer("report", &["--format", "text"])?;
            assert!(text.contains("scaled     pid ") && text.contains(" waits, "), "{text}");
            Ok(())
        })
    })
}

/// Check that hits of a process that is not followed are counted, where it runs the same file: it pays too. And that a budget counts them.
#[test]
fn bystander() -> Result<()> {
    alone(&[Need::Root], || {
        let (target, bystander) = (start("sleeper", &["-n", "3"])?, start("sleeper", &["-n", "3", "-churn"])?);
        let pid = target.pid().to_string();
        let follow = |args: &[&str]| -> Result<Report> {
            Attached::to(&[&["--pid", &pid, "--for", "5s"], args].concat())?.finish()?.1.report()
        };
        let (at_t1, governed) = (follow(&["--tier", "T1"])?, follow(&["--budget", "1%"])?);
        end(target)?;
        end(bystander)?;
        assert!(at_t1.price.programs[0].hits["T1"] > 1_000, "{:?}", at_t1.price);
        assert!(at_t1.goroutines.born.is_some_and(|born| born < 100), "{:?}", at_t1.goroutines);
        assert!(governed.steps.iter().any(|step| step.why == "runaway"), "{:#?}", governed.steps);
        Ok(())
    })
}

/// A page that takes a while to answer, against which a machine's moods are small, or, once it was told to, much longer.
fn page() -> Result<(SocketAddr, Arc<AtomicBool>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let slow = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&slow);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut question = [0; 4096];
            let _ = stream.read(&mut question);
            let_pass(Duration::from_millis(if told.load(Ordering::Relaxed) { 3000 } else { 80 }));
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n");
        }
    });
    Ok((address, slow))
}

/// Check that every probe goes, and nothing else, once the target answers much later than before. How long that takes is printed.
#[test]
fn guard() -> Result<()> {
    alone(&[Need::Root], || {
        let target = start("sleeper", &["-n", "20"])?;
        let pid = target.pid().to_string();
        let (address, slow) = page()?;
        let url = format!("http://{address}/");
        let mut attached = Attached::to(&["--pid", &pid, "--budget", "50%", "--guard-url", &url])?;
        // The guard has not heard ten answers yet, so there are no probes.
        let at_t0 = Inventory::take()?;
        attached.running.said("T3 from here on (room for more)")?;
        assert!(!at_t0.new_in(&Inventory::take()?).links.is_empty(), "no probe was set");
        slow.store(true, Ordering::Relaxed);
        let began = Instant::now();
        attached.running.said("T0 from here on (the target is worse off)")?;
        wait_for("the probes to go", PATIENCE, || Ok(at_t0.new_in(&Inventory::take()?).links.is_empty().then_some(())))?;
        println!("probes were gone {:?} after the target had become slow", began.elapsed());
        let (_, recording) = attached.interrupt()?;
        end(target)?;
        let report = recording.report()?;
        let last = report.steps.last().unwrap();
        assert_eq!((last.tier.as_str(), last.why.as_str()), ("T0", "guard"));
        assert!(report.meta.warnings.iter().any(|warning| warning.contains("worse than without probes")), "{:?}", report.meta);
        Ok(())
    })
}

/// Check that budgets and guards that make no sense are refused.
#[test]
fn refused() -> Result<()> {
    along(&[], || {
        for args in [
            &["--pid", "1", "--budget", "0%"][..],
            &["--pid", "1", "--budget", "1"],
            &["--pid", "1", "--budget", "1%", "--guard-url", "https://localhost/"],
            &["--pid", "1", "--tier", "T2", "--guard-url", "http://localhost/"],
        ] {
            let finished = Attached::start(args)?.running.finish()?;
            assert_eq!(finished.code(), 2, "{args:?}: {finished:?}");
        }
        Ok(())
    })
}
