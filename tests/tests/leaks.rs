//! Verdicts on recordings, against programs that know what they left behind.

use anyhow::{Context, Result};
use lifetrace_tests::{
    fixture,
    lifetrace::Run,
    recording::Recording,
    scenario::{Need, along},
    truth::{self, Orders},
};
use serde::Deserialize;
use tempfile::TempDir;

#[derive(Debug, Deserialize)]
struct Leaks {
    leaks: Vec<Leak>,
}

#[derive(Debug, Deserialize)]
struct Leak {
    fingerprint: String,
    strength: String,
    known: bool,
    count: u64,
    created_by: Option<Place>,
    advice: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Place {
    function: String,
    line: u32,
}

/// What is said of a recording, which exits with `code`.
fn leaks(recording: &Recording, options: &[&str], code: i32) -> Result<Leaks> {
    let said = recording.ask("leaks", &[options, &["--format", "json"]].concat())?.expect_code(code)?;
    Ok(serde_json::from_str(&said.stdout)?)
}

/// The order service with one of its leaks, at a pace, so that what it leaves behind is spread over time.
fn order_service(leak: &str) -> Result<(Orders, Recording)> {
    // No more than a hundred of its connections are left behind, so that it does not run out of descriptors.
    let (orders, rate) = if leak == "httpbody" { ("100", "25") } else { ("600", "150") };
    let (finished, recording) = Run::of(fixture::orders()?).args(["-n", orders, "-rate", rate, "-leak", leak]).finish()?;
    Ok((truth::read(finished.expect_code(0)?.last_line())?, recording))
}

/// Check that each of its leaks is suspected at its own creation line, with advice, and nothing else is; and nothing without a leak.
#[test]
fn order_service_with_each_leak() -> Result<()> {
    along(&[Need::Root], || {
        for leak in ["none", "afterfunc", "ticker", "httpbody", "ctx"] {
            let (orders, recording) = order_service(leak)?;
            let said = leaks(&recording, &[], i32::from(leak != "none"))?;
            let suspected: Vec<&Leak> = said.leaks.iter().filter(|leak| leak.strength == "suspected").collect();
            let many = || orders.alive.iter().filter(|alive| alive.count >= 100);
            assert_eq!(many().count() > 0, leak != "none", "{leak}: {:?}", orders.alive);
            for alive in many() {
                let here = |found: &&&Leak| {
                    found
                        .created_by
                        .as_ref()
                        .is_some_and(|place| place.function == alive.function && alive.line.is_none_or(|line| line == place.line))
                };
                let count: u64 = suspected.iter().filter(here).map(|leak| leak.count).sum();
                assert!(count >= alive.count * 9 / 10 && count <= alive.count, "{leak}: {alive:?} of {suspected:#?}");
                assert!(suspected.iter().filter(here).all(|leak| leak.advice.is_some()), "{leak}: {suspected:#?}");
            }
            for found in suspected {
                let place = found.created_by.as_ref().context("made somewhere")?;
                assert!(many().any(|alive| alive.function == place.function), "{leak}: {found:?} is no leak");
            }
        }
        Ok(())
    })
}

/// Check that a leak that the baseline knows fails no gate, that another one does, and what a baseline that cannot be read does.
#[test]
fn baseline() -> Result<()> {
    along(&[Need::Root], || {
        let dir = TempDir::new()?;
        let file = dir.path().join("leaks.json").display().to_string();
        let (_, first) = order_service("afterfunc")?;
        leaks(&first, &["--baseline", &file], 2).err().context("there is no baseline yet")?;
        let before = leaks(&first, &["--baseline", &file, "--update-baseline"], 0)?;
        assert!(leaks(&first, &["--fail-on", "never"], 0).is_ok());
        // Another run: other ids, other addresses, the same leak.
        let (_, second) = order_service("afterfunc")?;
        let again = leaks(&second, &["--baseline", &file], 0)?;
        let names = |leaks: &Leaks| {
            let suspected = leaks.leaks.iter().filter(|leak| leak.strength == "suspected");
            suspected.map(|leak| leak.fingerprint.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&before), names(&again));
        assert!(again.leaks.iter().all(|leak| leak.known == (leak.strength == "suspected")), "{again:#?}");
        let (_, other) = order_service("ticker")?;
        leaks(&other, &["--baseline", &file], 1)?;
        Ok(())
    })
}
