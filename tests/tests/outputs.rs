//! Every output of a recording opens in what it is meant for, and says what was lost and what was covered.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use lifetrace_tests::{
    fixture,
    lifetrace::{self, Run},
    process, program,
    recording::Recording,
    scenario::{Need, along},
    truth::{self, Births},
};
use serde_json::Value;
use tempfile::TempDir;

/// Check that the text report names each creation site with its counts and wait reason, and speaks of loss, coverage and price.
#[test]
fn report_text() -> Result<()> {
    with_recording(|recording, births| {
        let text = recording.answer("report", &[])?;
        for site in &births.sites {
            let place = format!("{}:{}", site.file, site.line);
            for part in [&site.function, &place, &grouped(site.made), &grouped(site.alive)] {
                assert!(text.contains(part.as_str()), "{part} is missing:\n{text}");
            }
        }
        let lower = text.to_lowercase();
        for word in ["lost", "coverage", "t2", "probe"] {
            assert!(lower.contains(word), "{word} is missing:\n{text}");
        }
        Ok(())
    })
}

/// Check that the JSON report carries its schema, the coverage of the process at the default tier, and the price.
#[test]
fn report_json() -> Result<()> {
    with_recording(|recording, births| {
        let report = recording.report()?;
        assert_eq!(report.schema, "lifetrace.report/1");
        assert!(report.duration_ns > 0);
        assert!(report.coverage.iter().any(|part| part.tgid == births.pid && part.tier == "T2"), "{:?}", report.coverage);
        let process = report.process(births.pid);
        assert!(process.go_version.as_deref().is_some_and(|version| version.starts_with("go1.")), "{process:?}");
        let raw: Value = serde_json::from_str(&recording.answer("report", &["--format", "json"])?)?;
        assert!(raw["price"]["probe_hits"].as_u64().is_some_and(|hits| hits > births.sites.iter().map(|site| site.made).sum()));
        Ok(())
    })
}

/// Check that folded stacks of what is alive add up to what is alive, and name the functions that wait.
#[test]
fn flame_folded() -> Result<()> {
    with_recording(|recording, births| {
        let alive: u64 = births.sites.iter().map(|site| site.alive).sum();
        let folded = recording.answer("flame", &["--by", "alive", "--format", "folded"])?;
        let mut sum = 0;
        for line in folded.lines().filter(|line| !line.starts_with("[runtime];")) {
            let (stack, count) = line.rsplit_once(' ').with_context(|| format!("not folded: {line}"))?;
            assert!(!stack.is_empty());
            sum += count.parse::<u64>()?;
        }
        // Main may be counted or, having no creator, not.
        assert!((alive..=alive + 1).contains(&sum), "{sum} alive, expected {alive}:\n{folded}");
        assert!(folded.contains("main.choose") || folded.contains("main.makeSelectors"), "{folded}");
        Ok(())
    })
}

/// Check that flamegraphs of each kind are whole SVG files.
#[test]
fn flame_svg() -> Result<()> {
    with_recording(|recording, _| {
        for by in ["created", "alive", "blocked", "lifetime"] {
            let svg = recording.answer("flame", &["--by", by, "--format", "svg"])?;
            assert!(svg.contains("<svg") && svg.trim_end().ends_with("</svg>"), "{by}: {} bytes", svg.len());
            assert!(svg.contains("main."), "{by}: no function of the program");
        }
        Ok(())
    })
}

/// Check that speedscope takes folded stacks and pprof profiles, and finds the same times in them.
#[test]
fn speedscope() -> Result<()> {
    let needs = [
        Need::Command("node"),
        Need::Command("chromium"),
        Need::Program("browser/bin/node_modules/playwright-core/package.json"),
        Need::Program("speedscope/bin/node_modules/speedscope/package.json"),
    ];
    along(&needs, || {
        let dir = TempDir::new()?;
        let folded = flame_of_orders(&dir.path().join("blocked.folded"), "folded")?;
        let profile = flame_of_orders(&dir.path().join("blocked.pb.gz"), "pprof")?;
        let lines = fs::read_to_string(&folded)?;
        let told = |reason: &str| -> u64 {
            let of_reason = lines.lines().filter_map(|line| line.split_once(reason));
            of_reason.filter_map(|(_, ns)| ns.trim().parse::<u64>().ok()).sum()
        };
        for reason in ["[chan send]", "[select]", "[sync.WaitGroup.Wait]"] {
            assert!(told(reason) > 0, "{reason}: {lines}");
            assert_eq!(in_speedscope(&folded, reason)?, grouped(told(reason)), "{reason}");
        }
        // Of a profile it knows the unit: minutes and seconds.
        let seconds = told("[chan send]") / 1_000_000_000;
        assert_eq!(in_speedscope(&profile, "[chan send]")?, format!("{}:{:02}", seconds / 60, seconds % 60));
        Ok(())
    })
}

/// A flamegraph of the recording of the guide.
fn flame_of_orders(out: &Path, format: &str) -> Result<PathBuf> {
    let recording = fixture::workspace_root().join("tests/recordings/orders.lifetrace");
    let mut command = lifetrace::command();
    command.args(["flame", "--by", "blocked", "--format", format, "-o"]).arg(out).arg(recording);
    process::run(command)?.expect_code(0)?;
    Ok(out.to_owned())
}

/// The total of a frame, as speedscope's table shows it.
fn in_speedscope(file: &Path, frame: &str) -> Result<String> {
    let mut node = Command::new("node");
    node.arg(fixture::workspace_root().join("tests/node/speedscope.js")).arg(file);
    node.env("PACKAGES", program::fetched("browser/bin/node_modules"));
    node.env("SPEEDSCOPE", program::fetched("speedscope/bin/node_modules"));
    let said: Value = serde_json::from_str(&process::run(node)?.expect_code(0)?.stdout)?;
    let rows = said["rows"].as_array().context("no table")?;
    let row = rows.iter().find(|row| row[2] == frame).with_context(|| format!("{frame}: {said}"))?;
    let total = row[0].as_str().context("no total")?;
    Ok(total.split(" (").next().unwrap_or_default().to_owned())
}

/// Check that `go tool pprof` opens the profile and puts the creating functions into its table.
#[test]
fn flame_pprof() -> Result<()> {
    with_recording(|recording, _| {
        let dir = TempDir::new()?;
        let profile = dir.path().join("created.pb.gz");
        let mut command = lifetrace_tests::lifetrace::command();
        command.arg("flame").arg(recording.path()).args(["--by", "created", "--format", "pprof"]);
        let output = command.output()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::write(&profile, output.stdout)?;

        let top = pprof_top(&profile)?;
        for function in ["main.makeReceivers", "main.makeSelectors", "main.makeLockers"] {
            assert!(top.contains(function), "{function} is missing:\n{top}");
        }
        Ok(())
    })
}

/// Check that the timeline has a span of the right state and reason for each goroutine that stays, in each of its forms.
#[test]
fn timeline() -> Result<()> {
    with_recording(|recording, births| {
        let spans = recording.timeline(None)?;
        for site in &births.sites {
            let reason = site.wait_reason.as_deref();
            let blocked = |state: &str| {
                let spans = spans.iter().filter(|span| span.state == state && span.reason.as_deref() == reason);
                spans.map(|span| &span.id).collect::<std::collections::BTreeSet<_>>().len() as u64
            };
            assert!(blocked("blocked") >= site.alive, "{reason:?}: {} blocked, expected {}", blocked("blocked"), site.alive);
        }
        assert!(spans.iter().all(|span| span.end_ns.is_none_or(|end| end >= span.start_ns)), "a span ends before it starts");

        assert!(!recording.answer("timeline", &["--id", "go:1"])?.is_empty());
        Ok(())
    })
}

/// Check that an output file asked for by -o is whole, or not there at all.
#[test]
fn timeline_to_a_file() -> Result<()> {
    with_recording(|recording, _| {
        let dir = TempDir::new()?;
        let file = dir.path().join("timeline.jsonl");
        let path = file.display().to_string();
        recording.answer("timeline", &["--format", "jsonl", "-o", &path])?;
        assert_eq!(fs::read_to_string(&file)?, recording.answer("timeline", &["--format", "jsonl"])?);

        let missing = dir.path().join("no/such/dir/timeline.jsonl").display().to_string();
        recording.ask("timeline", &["--format", "jsonl", "-o", &missing])?.expect_code(2)?.expect_said(&[&missing])?;
        assert_eq!(fs::read_dir(dir.path())?.count(), 1, "a temporary file was left behind");
        Ok(())
    })
}

/// A count as people read it: thousands apart.
fn grouped(count: u64) -> String {
    if count < 1000 { count.to_string() } else { format!("{},{:03}", grouped(count / 1000), count % 1000) }
}

/// Records a small `births` and hands out the recording with its truth.
fn with_recording(body: impl FnOnce(&Recording, &Births) -> Result<()>) -> Result<()> {
    along(&[Need::Root], || {
        let (finished, recording) = Run::of(fixture::go("births")?).args(["-n", "3000"]).finish()?;
        let births: Births = truth::read(finished.expect_code(0)?.last_line())?;
        body(&recording, &births)
    })
}

fn pprof_top(profile: &Path) -> Result<String> {
    fixture::go_pprof(&["-top", "-nodecount=100", &profile.display().to_string()])
}
