//! Leaks of what is no goroutine, proofs by Go's collector, and processes that are watched without a probe.

use std::{fs, net::TcpListener, os::unix::process::CommandExt, path::PathBuf, process::Command};

use anyhow::{Context, Result};
use lifetrace_tests::{
    deadline::{PATIENCE, once_in_three, wait_for},
    fixture,
    leaks::Leaks,
    lifetrace::{self, Run},
    process::{Running, run},
    scenario::{self, Need, along},
    user,
};
use tempfile::TempDir;

fn pid_of(running: &Running) -> u32 {
    running.pid().as_raw().cast_unsigned()
}

/// Check that threads, children and descriptors that grow without bound are suspected, each by its kind and name.
#[test]
fn piles() -> Result<()> {
    along(&[Need::Root], || {
        for (what, ms, kind, name) in [
            ("threads", "8000", "thread", "worker-#"),
            ("children", "8000", "process", "piles"),
            ("descriptors", "32000", "fd", "eventfd"),
        ] {
            let (finished, recording) = Run::of(fixture::c("piles")?).args([what, ms]).finish()?;
            let truth: serde_json::Value = serde_json::from_str(finished.expect_code(0)?.last_line())?;
            let said = Leaks::of(&recording, &[], 1)?;
            let leak = said.only();
            assert_eq!((leak.kind.as_str(), leak.name.as_deref()), (kind, Some(name)), "{said:#?}");
            assert_eq!((leak.strength.as_str(), leak.because.as_deref()), ("suspected", Some("growth")));
            let waits = leak.blocked_on.as_ref().map(|on| (on.reason.as_str(), on.objects, on.never_woken));
            assert_eq!(waits, (kind == "thread").then_some(("futex", Some(1), Some(leak.count))), "{said:#?}");
            // Of descriptors looks alone tell: those made behind the last one are in none.
            let unseen = if kind == "fd" { 10 } else { 0 };
            let count = truth["count"].as_u64().context("no count")?;
            assert!((count - unseen..=count).contains(&leak.count) && leak.advice.is_some(), "{truth}: {leak:#?}");
        }
        Ok(())
    })
}

/// Check that children and descriptors of any process are seen by looks alone, as whoever owns it.
#[test]
fn piles_watched() -> Result<()> {
    along(&[], || {
        for (what, kind, watch) in [("children", "process", "8s"), ("descriptors", "fd", "24s")] {
            let mut piles = Command::new(fixture::c("piles")?);
            piles.args([what, "60000"]);
            let piles = Running::start(piles, None)?;
            let said = Leaks::watching(pid_of(&piles), &["--watch", watch], 1)?;
            assert_eq!(said.only().kind, kind, "{said:#?}");
            assert!(!said.not_seen.is_empty() && said.trust.contains("none: no Go process"), "{said:#?}");
        }
        Ok(())
    })
}

/// Check that a healthy service under no load, watched without a probe, is only watched, and what is refused.
#[test]
fn watched_service() -> Result<()> {
    along(&[], || {
        let mut orders = Command::new(fixture::orders()?);
        orders.args(["-n", "2000", "-hold", "-for", "60s"]);
        let orders = Running::start(orders, None)?;
        let said = Leaks::watching(pid_of(&orders), &["--watch", "3s"], 0)?;
        assert!(said.sure().is_empty() && said.trust.contains("coverage T0"), "{said:#?}");
        let held = said.leaks.iter().filter(|leak| leak.kind == "goroutine").map(|leak| leak.count).sum::<u64>();
        assert!(held >= 2000, "{said:#?}");
        for (pid, options, code) in [
            (pid_of(&orders), &["--require-tier", "T2"][..], 3),
            (4_000_000, &[][..], 2),
            (pid_of(&orders), &["--watch", "1ms"][..], 2),
        ] {
            let mut command = lifetrace::command();
            command.args(["leaks", "--pid", &pid.to_string()]).args(options);
            run(command)?.expect_code(code)?;
        }
        Ok(())
    })
}

/// The order service as a Go with the leak profile builds it; `None`: this Go has none.
fn orders_with_profile(dir: &TempDir) -> Result<Option<PathBuf>> {
    let into = dir.path().join("orders");
    for experiment in ["", "goroutineleakprofile"] {
        let mut build = Command::new(fixture::go_command().context("no go command")?);
        build.args(["build", "-buildvcs=false", "-o"]).arg(&into).arg(".").current_dir(fixture::example("orders"));
        build.env("GOTOOLCHAIN", "local").env("GOWORK", "off").env("GOEXPERIMENT", experiment);
        let built = build.output()?.status.success();
        let has = |text: &str| fs::read(&into).is_ok_and(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes()));
        if built && has("runtime/pprof.writeGoroutineLeak") {
            return Ok(Some(into));
        }
    }
    Ok(None)
}

/// Check that what Go's collector proves is proven, goroutine by goroutine, with probes and without, and that nothing else is.
#[test]
fn proven_by_the_collector() -> Result<()> {
    along(&[Need::Root], || {
        let dir = TempDir::new()?;
        let Some(program) = orders_with_profile(&dir)? else {
            return scenario::skip("this Go has no goroutineleak profile, not even as an experiment");
        };
        for probes in [false, true] {
            let at = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
            let mut orders = Command::new(&program);
            orders.args(["-leak", "timeout", "-serve", &at, "-n", "700"]);
            let orders = Running::start(orders, None)?;
            // By then nothing is left to grow.
            wait_for("the leak", PATIENCE, || {
                let said = Leaks::watching(pid_of(&orders), &["--watch", "1s"], 0)?;
                Ok(said.leaks.iter().any(|leak| leak.kind == "goroutine" && leak.count == 700).then_some(()))
            })?;
            let ask = ["--pprof", "auto", "--profile", "goroutineleak"];
            let pid = pid_of(&orders);
            let said = if probes {
                let recording = dir.path().join("proof.rec");
                let mut attach = lifetrace::command();
                attach.args(["attach", "--pid", &pid.to_string(), "--for", "4s", "--tier", "T2", "-o"]).arg(&recording).args(ask);
                run(attach)?.expect_code(0)?;
                Leaks::of(&lifetrace_tests::recording::Recording::at(&recording), &["--fail-on", "proven"], 1)?
            } else {
                Leaks::watching(pid, &[&ask[..], &["--watch", "4s"]].concat(), 1)?
            };
            let leak = said.only();
            assert_eq!(
                (leak.strength.as_str(), leak.because.as_deref(), leak.count),
                ("proven", Some("collector"), 700),
                "{said:#?}"
            );
            assert!(leak.proven >= 690, "{leak:#?}");
            assert!(leak.created_by.as_ref().is_some_and(|at| at.function.ends_with("checkStock")), "{leak:#?}");
        }
        Ok(())
    })
}

/// Check that a user who may set no probes gets verdicts on a command by looks alone, tests by their names, that `--require-tier` refuses
/// that, and that the command's own status comes first.
#[test]
fn without_privilege() -> Result<()> {
    along(&[Need::Root, Need::Nobody, Need::FreePtrace], || {
        let dir = TempDir::new()?;
        let nobody = user::nobody().context("there is a nobody")?;
        let lifetrace = fixture::copy_for_everyone(&lifetrace::binary(), dir.path())?;
        let tests = dir.path().join("slow.test");
        let mut build = Command::new(fixture::go_command().context("no go command")?);
        build.args(["test", "-c", "-tags", "slow", "-o"]).arg(&tests).arg("./slow").current_dir(fixture::go_tests());
        let built = build.env("GOTOOLCHAIN", "local").env("GOWORK", "off").env("GOFLAGS", "").output()?;
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let tests =
            fixture::copy_for_everyone(&tests, &fs::create_dir(dir.path().join("bin")).map(|()| dir.path().join("bin"))?)?;
        // A folder that nobody may write to holds no outputs.
        let out = TempDir::new()?;
        fs::set_permissions(out.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
        let verdicts = out.path().join("leaks.json");
        let through = |options: &[&str], command: &[&str]| {
            let mut through = Command::new(&lifetrace);
            through.args(["leaks", "--format", "json", "-o"]).arg(&verdicts).args(options).arg("--").args(command);
            through.uid(nobody.uid).gid(nobody.gid).current_dir("/").env("TMPDIR", out.path());
            through
        };
        let tests = tests.to_str().context("a path of text")?;
        let said = Leaks::written(through(&[], &[tests]), &verdicts, 1)?;
        let leak = said.only();
        assert_eq!((leak.because.as_deref(), leak.count), (Some("test"), 2), "{said:#?}");
        let names: Vec<_> = leak.born_under.iter().map(|test| (test.name.as_str(), test.exact, test.count)).collect();
        assert_eq!(names, [("TestSlow/left_open", true, 1), ("TestSlow/left_open#01", true, 1)]);
        assert_eq!(leak.blocked_on.as_ref().map(|on| (on.reason.as_str(), on.objects)), Some(("chan receive", Some(2))));
        assert!(said.not_seen.len() >= 3 && said.trust.contains("coverage T0"), "{said:#?}");
        let refused = run(through(&["--require-tier", "T2"], &[tests]))?.expect_code(125)?;
        refused.expect_said(&["T2 is required"])?;
        run(through(&[], &["sh", "-c", "exit 7"]))?.expect_code(7)?;
        run(through(&[], &["/nonexistent/program"]))?.expect_code(127)?;
        Ok(())
    })
}

/// Check that with probes a command is judged at the tier that was required, and that a recording in less detail is refused.
#[test]
fn required_tier() -> Result<()> {
    along(&[Need::Root], || {
        let orders = fixture::orders()?;
        let (finished, recording) = Run::of(&orders).args(["-n", "10"]).option("--tier").option("T1").finish()?;
        finished.expect_code(0)?;
        recording.ask("leaks", &["--require-tier", "T1"])?.expect_code(0)?;
        recording.ask("leaks", &["--require-tier", "T2"])?.expect_code(3)?.expect_said(&["T2 is required", "T1"])?;
        let mut command = lifetrace::command();
        command.args(["leaks", "--require-tier", "T2", "--"]).arg(&orders).args(["-n", "10"]);
        run(command)?.expect_code(0)?;
        Ok(())
    })
}

/// Check that what leaks is drawn, and beside a baseline what is new and what is gone since.
#[test]
fn flamegraphs() -> Result<()> {
    along(&[Need::Root, Need::Go], || {
        let dir = TempDir::new()?;
        let at = |name: &str| dir.path().join(name).display().to_string();
        // A machine that stands still for half a second makes growth look like none.
        let recorded = |leak: &str| -> Result<_> {
            let mut leaking = None;
            once_in_three(|| {
                let run = Run::of(fixture::orders()?).args(["-n", "600", "-rate", "150", "-leak", leak]);
                let (finished, recording) = run.finish()?;
                finished.expect_code(0)?;
                Leaks::of(&recording, &[], 1)?;
                leaking = Some(recording);
                Ok(())
            })?;
            leaking.context("a leak")
        };
        let (before, after) = (recorded("afterfunc")?, recorded("ctx")?);
        Leaks::of(&before, &["--baseline", &at("leaks.json"), "--update-baseline", "--flame", &at("before.svg")], 0)?;
        Leaks::of(&after, &["--baseline", &at("leaks.json"), "--flame", &at("after.svg")], 1)?;
        let text = |name: &str| fs::read_to_string(at(name));
        assert!(text("before.svg")?.contains("remind") && text("before.diff.svg").is_err());
        assert!(text("after.svg")?.contains("checkFraud") && text("after.svg")?.contains("[chan receive]"));
        let difference = text("after.diff.svg")?;
        assert!(difference.contains("checkFraud") && difference.contains("1 of it leak no more"), "{difference}");
        let told = Leaks::of(&after, &["--baseline", &at("leaks.json"), "--flame", &at("after.folded")], 1)?;
        let leaked: u64 = told.leaks.iter().filter(|leak| leak.strength != "watched").map(|leak| leak.count).sum();
        let widths = |text: String| text.lines().filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>();
        assert_eq!(widths(text("after.folded")?), leaked);
        assert_eq!(widths(text("after.diff.folded")?), leaked);
        Leaks::of(&after, &["--baseline", &at("leaks.json"), "--flame", &at("after.pb.gz")], 1)?;
        let top = fixture::go_pprof(&["-top", "-tagfocus=strength=suspected", &at("after.pb.gz")])?;
        assert!(top.contains("Type: leaked") && top.contains("checkFraud"), "{top}");
        assert!(fs::metadata(at("after.diff.pb.gz"))?.len() > 0);
        Ok(())
    })
}
