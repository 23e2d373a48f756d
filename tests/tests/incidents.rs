//! The incidents that lifetrace was made for, and their mended twins.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lifetrace_tests::{
    deadline::{once_in_three, wait_for},
    fixture,
    leaks::Leaks,
    lifetrace::Run,
    process::Running,
    scenario::{Need, alone, along},
    truth,
};
use nix::sys::signal::Signal;
use serde::Deserialize;

/// Half a million goroutines are made by a machine that may be slow.
const LONG: Duration = Duration::from_secs(240);

/// What an incident left behind, as it says itself.
#[derive(Debug, Deserialize)]
struct Incident {
    leaked: Vec<Left>,
    settled: bool,
}

#[derive(Debug, Deserialize)]
struct Left {
    function: String,
    file: String,
    line: u32,
    count: u64,
}

/// Check that each incident is found where it says that it is, and nothing of its mended twin.
#[test]
fn incidents() -> Result<()> {
    along(&[Need::Root], || {
        for name in ["ratelimiter", "metrics", "reload", "httpclient", "stream"] {
            // A machine that stands still for half a second makes growth look like none.
            once_in_three(|| incident(name, false))?;
            incident(name, true)?;
        }
        Ok(())
    })
}

fn incident(name: &str, healthy: bool) -> Result<()> {
    let flags: &[&str] = if healthy { &["-healthy"] } else { &[] };
    let (finished, recording) = Run::of(fixture::incident(name)?).args(flags).finish()?;
    let truth: Incident = truth::read(finished.expect_code(0)?.last_line())?;
    assert!(truth.settled && truth.leaked.is_empty() == healthy, "{name}: {truth:?}");
    let said = Leaks::of(&recording, &[], i32::from(!healthy))?;
    let mut found: BTreeMap<(String, u32), u64> = BTreeMap::new();
    for leak in said.sure() {
        let place = leak.created_by.as_ref().context("made somewhere")?;
        *found.entry((place.function.clone(), place.line)).or_default() += leak.count;
    }
    let mut expected: BTreeMap<(String, u32), u64> = BTreeMap::new();
    for left in &truth.leaked {
        ensure!(Path::new(&left.file).extension().is_some(), "{left:?}");
        *expected.entry((left.function.clone(), left.line)).or_default() += left.count;
    }
    assert!(found.keys().all(|place| expected.contains_key(place)), "{name}: {said:#?}");
    ensure!(found.len() == expected.len(), "{name}: {said:#?}");
    for (place, count) in &expected {
        // One may do its work as the process ends, and is not blocked then.
        assert!(found[place] <= *count && found[place] * 10 >= count * 8, "{name}: {place:?}: {} of {count}", found[place]);
    }
    Ok(())
}

/// How many goroutines the split of the order service left behind.
const LEFT_BEHIND: u32 = 472_108;

/// Check that the order service is found out while it runs and goes on leaking, with as many goroutines as the incident had: by looks at its
/// memory, without a probe, the line is named, and every one of them is in the group.
#[test]
fn order_service_at_its_size() -> Result<()> {
    alone(&[], || {
        let at = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let mut orders = Command::new(fixture::orders()?);
        orders.args(["-leak", "afterfunc", "-truth", "-serve", &at, "-n", &LEFT_BEHIND.to_string()]);
        let orders = Running::start(orders, None)?;
        // What is left behind is left two seconds after the order.
        wait_for("the split", LONG, || Ok(orders.stdout().contains("\"count\":472108").then_some(())))?;
        let over = AtomicBool::new(false);
        let said = thread::scope(|scope| {
            let customer = scope.spawn(|| -> Result<u64> {
                let mut placed = 0;
                while !over.load(Ordering::Relaxed) {
                    place_order(&at)?;
                    placed += 1;
                    thread::sleep(Duration::from_millis(10));
                }
                Ok(placed)
            });
            let pid = orders.pid().as_raw().cast_unsigned();
            let said = Leaks::watching(pid, &["--watch", "30s"], 1);
            over.store(true, Ordering::Relaxed);
            let placed = customer.join().map_err(|_| anyhow::anyhow!("the customer panicked"))??;
            said.map(|said| (said, placed))
        });
        let (said, placed) = said?;
        let leak = said.only();
        assert_eq!((leak.kind.as_str(), leak.because.as_deref()), ("goroutine", Some("growth")), "{leak:#?}");
        let runs = leak.starts_at.as_ref().context("it starts somewhere")?;
        assert!(runs.function.starts_with("main.(*leaks).remind") && runs.file.ends_with("leaks.go"), "{leak:#?}");
        assert!(
            (u64::from(LEFT_BEHIND) + 12..=u64::from(LEFT_BEHIND) + placed).contains(&leak.count),
            "{placed} placed: {leak:#?}"
        );
        assert!(leak.advice.as_ref().is_some_and(|advice| advice.contains("AfterFunc")), "{leak:#?}");
        orders.signal(Signal::SIGTERM)?;
        orders.finish_within(LONG)?;
        Ok(())
    })
}

/// An order over HTTP.
fn place_order(at: &str) -> Result<()> {
    let body = r#"{"customer":"late","item":"tea","quantity":1}"#;
    let mut connection = TcpStream::connect(at)?;
    connection.set_read_timeout(Some(Duration::from_secs(60)))?;
    write!(
        connection,
        "POST /orders HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.") && answer[9..].starts_with('2'), "{answer}");
    Ok(())
}

/// Check that zombies that Node never waits for are proven, with the program and its parent, and that its mended twin has none.
#[test]
fn glue_in_node() -> Result<()> {
    along(&[Need::Root, Need::Command("node"), Need::Command("unshare")], || {
        for healthy in [false, true] {
            let glue = fixture::example("glue-node/glue.js");
            let mut args = vec!["--pid", "--fork", "node", glue.to_str().context("a path of text")?, "-n", "26", "-rate", "2"];
            if healthy {
                args.push("-healthy");
            }
            let (finished, recording) = Run::of("unshare").args(args).finish()?;
            let finished = finished.expect_code(0)?;
            let said = Leaks::of(&recording, &[], i32::from(!healthy))?;
            let zombies: Vec<_> = said.leaks.iter().filter(|leak| leak.kind == "zombie" && leak.strength == "proven").collect();
            assert_eq!(zombies.len(), usize::from(!healthy), "{said:#?}\n{}", finished.stdout);
            for leak in zombies {
                assert_eq!((leak.because.as_deref(), leak.name.as_deref()), (Some("unreaped"), Some("sleep")), "{leak:#?}");
                // The last ones are hardly dead when it ends.
                assert!((20..=26).contains(&leak.count) && leak.advice.is_some(), "{leak:#?}");
            }
        }
        Ok(())
    })
}

/// What the lease says of itself.
#[derive(Debug, Deserialize)]
struct Lease {
    goroutine: u64,
    late: Vec<Late>,
}

#[derive(Debug, Deserialize)]
struct Late {
    late_ns: u64,
}

/// Check that renewals of a lease that a collection made late are found, with the pause and the cycle that cover it; and that nothing is found
/// of the same program where a lock makes them late, or nothing does.
#[test]
fn late_leases() -> Result<()> {
    alone(&[Need::Root], || {
        for tier in ["T2", "T3"] {
            for cause in ["gc", "lock", "none"] {
                let run = Run::of(fixture::incident("lease")?).args(["-cause", cause]).option("--tier").option(tier);
                let (finished, recording) = run.finish()?;
                let truth: Lease = truth::read(finished.expect_code(0)?.last_line())?;
                let said = Leaks::of(&recording, &[], 0)?;
                let id = format!("go:{}", truth.goroutine);
                let found: Vec<_> =
                    said.findings("late_timer").into_iter().filter(|finding| finding["id"] == id.as_str()).collect();
                if cause != "gc" {
                    // On a machine that is busy beyond measure a renewal may really wait for a CPU; no pause makes it late. Without a
                    // cause it collects all the same, and a pause may last as long as a thread waits for a CPU in it: by no more is it late
                    // than it says itself, and what it does not call late is less than 20 ms.
                    let told = truth.late.iter().map(|late| late.late_ns).max().unwrap_or(20_000_000);
                    let bound = if cause == "none" { told + 50_000_000 } else { 0 };
                    let paused = found.iter().map(|finding| &finding["evidence"]).filter(|evidence| !evidence["pause"].is_null());
                    let invented: Vec<_> = paused.filter(|evidence| evidence["late_ns"].as_u64() >= Some(bound)).collect();
                    assert!(invented.is_empty(), "{cause} {tier}: {invented:#?} {truth:?}");
                    continue;
                }
                assert!(!truth.late.is_empty(), "{truth:?}");
                // One may be late for the wait for a CPU behind the pause as well, by more than a fifth.
                assert!(
                    !found.is_empty() && found.len() * 2 >= truth.late.len(),
                    "{tier}: {} of {truth:?}: {found:#?}",
                    found.len()
                );
                for finding in found {
                    let evidence = &finding["evidence"];
                    let [late, covered] = ["late_ns", "covered_ns"].map(|name| evidence[name].as_u64().unwrap_or(0));
                    assert!(late > 0 && covered * 100 >= late * 80, "{finding:#}");
                    let named = finding["cause"].as_str().unwrap_or_default();
                    let pause = evidence["pause"]["reason"].as_str().is_some_and(|reason| reason.starts_with("GC "));
                    assert!(pause && named.contains("pause") || named.contains("CPU"), "{finding:#}");
                    assert!(evidence["pause"].is_null() || !evidence["cycle"].is_null(), "{finding:#}");
                    let told = truth.late.iter().map(|late| late.late_ns).max().unwrap_or(0);
                    assert!(late <= told + 50_000_000, "{finding:#} {truth:?}");
                }
            }
        }
        Ok(())
    })
}
