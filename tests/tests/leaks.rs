//! Verdicts on recordings, against programs that know what they left behind.

use std::{collections::BTreeSet, fs, process::Command, time::Instant};

use anyhow::{Context, Result, ensure};
use lifetrace_tests::{
    deadline::{PATIENCE, once_in_three},
    fixture,
    leaks::{Leak, Leaks},
    lifetrace::{self, Run},
    process::{Finished, Running},
    program,
    recording::Recording,
    scenario::{Need, along},
    truth::{self, Orders},
};
use tempfile::TempDir;

/// The order service with one of its leaks, at a pace, so that what it leaves behind is spread over time.
fn order_service(leak: &str) -> Result<(Orders, Recording)> {
    // No more than a hundred of its connections are left behind, so that it does not run out of descriptors.
    let (orders, rate) = if leak == "httpbody" { ("100", "12") } else { ("900", "100") };
    let (finished, recording) = Run::of(fixture::orders()?).args(["-n", orders, "-rate", rate, "-leak", leak]).finish()?;
    Ok((truth::read(finished.expect_code(0)?.last_line())?, recording))
}

/// One whose leak is seen: a machine that stands still for a second makes growth look like none.
fn leaking(leak: &str) -> Result<(Orders, Recording)> {
    let mut made = None;
    once_in_three(|| {
        let (orders, recording) = order_service(leak)?;
        Leaks::of(&recording, &[], 1)?;
        made = Some((orders, recording));
        Ok(())
    })?;
    made.context("a leak")
}

/// Check that each of its leaks is suspected at its own creation line, with advice, and nothing else is; and nothing without a leak.
#[test]
fn order_service_with_each_leak() -> Result<()> {
    along(&[Need::Root], || {
        for leak in ["none", "afterfunc", "ticker", "httpbody", "ctx", "timeout"] {
            let (orders, recording) = if leak == "none" { order_service(leak)? } else { leaking(leak)? };
            let said = Leaks::of(&recording, &[], i32::from(leak != "none"))?;
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
        let (_, first) = leaking("afterfunc")?;
        Leaks::of(&first, &["--baseline", &file], 2).err().context("there is no baseline yet")?;
        let before = Leaks::of(&first, &["--baseline", &file, "--update-baseline"], 0)?;
        assert!(Leaks::of(&first, &["--fail-on", "never"], 0).is_ok());
        // Another run: other ids, other addresses, the same leak.
        let (_, second) = leaking("afterfunc")?;
        let again = Leaks::of(&second, &["--baseline", &file], 0)?;
        let names = |leaks: &Leaks| {
            let suspected = leaks.leaks.iter().filter(|leak| leak.strength == "suspected");
            suspected.map(|leak| leak.fingerprint.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&before), names(&again));
        assert!(again.leaks.iter().all(|leak| leak.known == (leak.strength == "suspected")), "{again:#?}");
        let (_, other) = leaking("ticker")?;
        Leaks::of(&other, &["--baseline", &file], 1)?;
        Ok(())
    })
}

/// A `go` command in the module of Go tests; go is where the tests found it.
fn go_tests(through: &[&str], go: &[&str]) -> Result<Command> {
    let go_command = fixture::go_command().context("no go command")?;
    let mut command = match through {
        [] => Command::new(&go_command),
        options => {
            let mut traced = lifetrace::command();
            traced.arg("leaks").args(options).arg("--").arg(&go_command);
            traced
        }
    };
    command.args(go).current_dir(fixture::go_tests()).env("GOWORK", "off").env("GOTOOLCHAIN", "local").env("GOFLAGS", "");
    Ok(command)
}

/// Runs it: go builds first, the tests and what they stand on.
fn built(command: Command) -> Result<Finished> {
    Running::start(command, None)?.finish_within(PATIENCE * 5)
}

/// Runs it, again while a machine that is busy made lifetrace come too late to a program, and patience lasts.
fn judged_whole(command: impl Fn() -> Result<Command>) -> Result<Finished> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let finished = built(command()?)?;
        let late = finished.stdout.contains(lifetrace::TOO_LATE) || finished.stderr.contains(lifetrace::TOO_LATE);
        if !late || Instant::now() > deadline {
            return Ok(finished);
        }
    }
}

/// What the Go tests leave behind, by the names of the tests.
const LEFT: [&str; 4] = ["TestForgotten", "TestParallel/b/inner", "TestTable/left_open", "TestTable/left_open#01"];

/// Check that what a test leaves behind is suspected under the name that go gives the test, that libraries' goroutines are not, that the
/// toolchain runs without probes, and that packages of the cache are told.
#[test]
fn go_tests_judged() -> Result<()> {
    along(&[Need::Root], || {
        let dir = TempDir::new()?;
        let (verdicts, recording) = (dir.path().join("leaks.json"), dir.path().join("tests.rec"));
        let options = ["--format", "json", "-o", &verdicts.display().to_string(), "--record", &recording.display().to_string()];
        let options: Vec<String> = options.map(str::to_owned).to_vec();
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let finished = judged_whole(|| go_tests(&options, &["test", "-count=1", "-v", "./..."]))?.expect_code(1)?;
        let said: Leaks = serde_json::from_str(&fs::read_to_string(&verdicts)?)?;
        let leak = said.only();
        assert_eq!(leak.because.as_deref(), Some("test"));
        let place = leak.created_by.as_ref().context("made somewhere")?;
        assert_eq!((place.function.as_str(), place.line), ("lifetrace.dev/tests/gotests/shop.Open", 13));
        assert_eq!(leak.born_under.iter().map(|test| test.name.as_str()).collect::<Vec<_>>(), LEFT);
        assert!(leak.born_under.iter().all(|test| test.exact && test.count == 1), "{leak:#?}");
        for name in LEFT {
            assert!(
                finished.stdout.contains(&format!("=== RUN   {name}\n")),
                "go does not call a test {name}:\n{}",
                finished.stdout
            );
        }
        assert!(said.not_watched.is_empty());
        let report = Recording::at(&recording).report()?;
        let probed: BTreeSet<u32> = report.coverage.iter().map(|part| part.tgid).collect();
        let is_test = |tgid: u32| report.process(tgid).exe.as_deref().is_some_and(|exe| exe.ends_with(".test"));
        assert!(probed.len() == 2 && probed.iter().all(|tgid| is_test(*tgid)), "{:?}", report.coverage);

        built(go_tests(&[], &["test", "./quiet"])?)?.expect_code(0)?;
        built(go_tests(&["--format", "json", "-o", &verdicts.display().to_string()], &["test", "./quiet"])?)?.expect_code(0)?;
        let cached: Leaks = serde_json::from_str(&fs::read_to_string(&verdicts)?)?;
        assert_eq!(cached.not_watched.iter().map(String::as_str).collect::<Vec<_>>(), ["lifetrace.dev/tests/gotests/quiet"]);
        Ok(())
    })
}

/// Check that `go test -exec` fails the packages whose tests leave something behind, and no others.
#[test]
fn go_tests_through_exec() -> Result<()> {
    along(&[Need::Root], || {
        let through = format!("{} leaks --", lifetrace::binary().display());
        let finished = judged_whole(|| go_tests(&[], &["test", "-count=1", "-exec", &through, "./..."]))?.expect_code(1)?;
        let told = format!("{}{}", finished.stdout, finished.stderr);
        assert!(finished.stdout.contains("ok  \tlifetrace.dev/tests/gotests/quiet"), "{told}");
        assert!(finished.stdout.contains("FAIL\tlifetrace.dev/tests/gotests/shop"), "{told}");
        assert!(LEFT.iter().all(|name| told.contains(name)), "{told}");
        Ok(())
    })
}

/// Check that every format tells of the leak, that the two with a schema of others' keep to it, and what an ignore file does.
#[test]
fn formats() -> Result<()> {
    let schemas = ["schemas/bin/junit.xsd", "schemas/bin/sarif.json"];
    let needs = schemas.map(Need::Program);
    along(&[&needs[..], &[Need::Root, Need::Command("xmllint"), Need::Command("jsonschema")]].concat(), || {
        let dir = TempDir::new()?;
        let at = |name: &str| dir.path().join(name);
        let root = fixture::workspace_root().display().to_string();
        let (_, leaking) = leaking("ctx")?;
        let (_, healthy) = order_service("none")?;
        for (recording, code) in [(&leaking, 1), (&healthy, 0)] {
            let said = |format: &str| -> Result<String> {
                let path = at(format);
                let options = ["--format", format, "--source-root", &root, "-o", &path.display().to_string()];
                recording.ask("leaks", &options)?.expect_code(code)?;
                Ok(fs::read_to_string(path)?)
            };
            for format in ["junit", "sarif", "markdown", "github", "text"] {
                let text = said(format)?;
                let named = text.contains("checkFraud") && (format == "sarif" || text.contains("leaks.go"));
                assert_eq!(named, code == 1, "{format}:\n{text}");
                let located = text.contains("examples/orders/leaks.go");
                assert_eq!(located, code == 1 && ["sarif", "github"].contains(&format), "{format}:\n{text}");
            }
            let [junit, sarif] = schemas.map(program::fetched);
            valid(Command::new("xmllint").args(["--noout", "--schema"]).arg(junit).arg(at("junit")))?;
            valid(Command::new("jsonschema").arg("-i").arg(at("sarif")).arg(sarif))?;
        }
        let ignore = |expires: &str| -> Result<Leaks> {
            let path = at("ignore.toml");
            fs::write(
                &path,
                format!("[[ignore]]\nfunction = \"main.(*leaks).checkFraud\"\nreason = \"#7\"\nexpires = \"{expires}\"\n"),
            )?;
            let counts = expires > "2026";
            Leaks::of(&leaking, &["--ignore", &path.display().to_string()], i32::from(!counts))
        };
        let (ignored, expired) = (ignore("9999-12-31")?, ignore("2020-01-31")?);
        assert!(ignored.leaks.iter().any(|leak| leak.ignored.as_ref().is_some_and(|ignored| ignored.reason == "#7")));
        assert!(ignored.expired.is_empty() && expired.expired.len() == 1);
        assert!(expired.leaks.iter().all(|leak| leak.ignored.is_none()));
        Ok(())
    })
}

fn valid(command: &mut Command) -> Result<()> {
    let said = command.output()?;
    ensure!(
        said.status.success(),
        "{command:?}:\n{}{}",
        String::from_utf8_lossy(&said.stdout),
        String::from_utf8_lossy(&said.stderr)
    );
    Ok(())
}
