//! Labels of goroutines on the timeline, against what each goroutine says of itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use anyhow::{Result, ensure};
use lifetrace_tests::{
    attach::Attached,
    deadline::{PATIENCE, wait_for},
    fixture,
    process::Running,
    scenario::{Need, along},
    truth::{self, Waits},
};
use serde_json::Value;
use tempfile::TempDir;

/// Check that a program's labels, as snapshots see them, are on the lines of whoever has them, that goroutines are found by them, a request by its
/// trace, and that they are counted by their values.
#[test]
fn on_the_timeline() -> Result<()> {
    along(&[Need::Root], || {
        let dir = TempDir::new()?;
        let mut command = Command::new(fixture::go("waits")?);
        command.arg("-dir").arg(dir.path());
        let mut running = Running::start(command, None)?;
        let waits: Waits = truth::read(&running.line(0)?)?;
        let attached = Attached::to(&["--pid", &waits.pid.to_string(), "--snapshot-every", "300ms"])?;
        wait_for("a snapshot", PATIENCE, || Ok((attached.recording().report()?.snapshots.taken > 0).then_some(())))?;
        let (_, recording) = attached.interrupt()?;
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
        Ok(())
    })
}
