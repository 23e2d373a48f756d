//! Labels of goroutines on the timeline, against what each goroutine says of itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use lifetrace_tests::{
    attach,
    deadline::{PATIENCE, wait_for},
    fixture,
    process::{self, Running},
    scenario::{Need, along},
};
use serde_json::Value;
use tempfile::TempDir;

/// Check that a program's labels, as snapshots see them, are on the lines of whoever has them, that goroutines are found by them, a request by its
/// trace, and that they are counted by their values.
#[test]
fn on_the_timeline() -> Result<()> {
    along(&[Need::Root, Need::Go, Need::Command("curl")], || {
        let dir = TempDir::new()?;
        let (waits, recording) = attach::labelled()?;
        let mut seen: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for span in recording.timeline(None)?.into_iter().filter(|span| span.id.starts_with("go:")) {
            if let Some(labels) = span.labels {
                ensure!(span.trace_id.as_ref() == labels.get("trace_id") && span.span_id.as_ref() == labels.get("span_id"));
                seen.insert(span.id, labels);
            }
        }
        for said in &waits.said {
            assert_eq!(seen.get(&format!("go:{}", said.goid)), Some(&said.labels), "go:{}", said.goid);
        }
        let picked = |args: &[&str]| -> Result<BTreeSet<String>> {
            Ok(recording.timeline_of(args)?.into_iter().map(|span| span.id).collect())
        };
        let who = |key: &str, value: &str| -> BTreeSet<String> {
            let has = waits.said.iter().filter(|said| said.labels.get(key).is_some_and(|known| known == value));
            has.map(|said| format!("go:{}", said.goid)).collect()
        };
        assert_eq!(picked(&["--label", "trace_id=4bf92f3577b34da6"])?, who("request", "traced"));
        assert_eq!(picked(&["--label", "job=inherited"])?, who("job", "inherited"));
        assert_eq!(picked(&["--label", "job=two words", "--label", "empty="])?, who("user", "ann"));
        assert!(picked(&["--label", "job=nobody"])?.is_empty());
        let report: Value = serde_json::from_str(&recording.answer("report", &["--format", "json", "--group-by", "label:job"])?)?;
        for (job, count) in [("one", 1), ("two words", 1), ("inherited", who("job", "inherited").len() as u64)] {
            let groups = report["labels"]["groups"].as_array().into_iter().flatten();
            let group = groups.into_iter().find(|group| group["value"] == job);
            assert_eq!(group.map(|group| group["goroutines"].as_u64()), Some(Some(count)), "{job}: {}", report["labels"]);
        }
        // Where the same goroutines are a profile, Go's own tool tells them by their labels.
        let profile = dir.path().join("alive.pb.gz");
        recording.answer("flame", &["--by", "alive", "--format", "pprof", "-o", &profile.display().to_string()])?;
        let of = |args: &[&str]| -> Result<String> { fixture::go_pprof(&[args, &[&profile.display().to_string()]].concat()) };
        let tags = of(&["-tags"])?;
        for tag in ["job:", "inherited", "two words", "trace_id:", "4bf92f3577b34da6", "tgid:", &waits.pid.to_string()] {
            assert!(tags.contains(tag), "no {tag} in {tags}");
        }
        let inherited = of(&["-top", "-tagfocus=job=inherited"])?;
        let wanted = format!("Showing nodes accounting for {}, ", who("job", "inherited").len());
        assert!(inherited.contains(&wanted), "{inherited}");
        // And its pages in a browser show them by function and label.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut go = Command::new(fixture::go_command().context("no go command")?);
        go.args(["tool", "pprof", "-no_browser", &format!("-http={address}")]).arg(&profile);
        let _serving = Running::start(go, None)?;
        let page = |path: &str| -> Result<Option<String>> {
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--fail", &format!("http://{address}/ui/{path}")]);
            Ok(Some(process::run(curl)?.stdout).filter(|page| page.contains("</html>")))
        };
        let flames = wait_for("a flamegraph", PATIENCE, || page("flamegraph"))?;
        let narrowed = wait_for("those of one label", PATIENCE, || page("flamegraph?tf=job%3Dinherited"))?;
        let functions = |page: &str| page.matches("main.").count();
        assert!((1..functions(&flames)).contains(&functions(&narrowed)), "{narrowed}");
        Ok(())
    })
}
