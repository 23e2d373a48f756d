//! The page of a recording, as a browser shows it: opened in headless Chromium, used by mouse and keyboard, looked at by axe, and held
//! against the timeline and the report.

use std::{collections::BTreeMap, fs, process::Command};

use anyhow::{Context, Result};
use lifetrace_tests::{
    attach,
    deadline::PATIENCE,
    fixture,
    lifetrace::Run,
    process::Running,
    program,
    recording::{Recording, Span},
    scenario::{Need, alone, along},
    truth::{self, Births},
};
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

const NEEDS: [Need; 5] = [
    Need::Root,
    Need::Command("node"),
    Need::Command("chromium"),
    Need::Program("browser/bin/node_modules/playwright-core/package.json"),
    Need::Program("browser/bin/node_modules/axe-core/package.json"),
];

/// What `node/page.js` says of a page.
#[derive(Debug, Deserialize)]
struct Page {
    title: String,
    /// In their order.
    sections: Vec<String>,
    /// Numbers of the summary, by what they are of.
    tiles: BTreeMap<String, String>,
    lanes: u64,
    /// `None`: there are too many to tell.
    goroutines: Option<Vec<Lane>>,
    /// How many the canvas shows, in light and dark.
    colours: usize,
    #[serde(rename = "darkColours")]
    dark_colours: usize,
    background: String,
    one: Option<Told>,
    filtered: Option<Filtered>,
    /// Lanes that are left when one of the first leaks is shown.
    leaks: Vec<u64>,
    flames: Flames,
    /// For sixty frames.
    pan_ms: f64,
    /// Bytes of the printed page.
    pdf: u64,
    /// What axe finds seriously wrong.
    axe: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Lane {
    tgid: u32,
    id: String,
    spans: Vec<Drawn>,
}

#[derive(Debug, Deserialize)]
struct Drawn {
    state: String,
    start: f64,
    end: f64,
    reason: Option<String>,
    by: Option<String>,
}

/// What is told of a span that was pointed at, and of the one beside it.
#[derive(Debug, Deserialize)]
struct Told {
    title: String,
    first: String,
    beside: String,
}

#[derive(Debug, Deserialize)]
struct Filtered {
    /// Lanes that are left of `all` when one is looked for.
    all: u64,
    found: u64,
    /// And for each choice of each list.
    by: BTreeMap<String, BTreeMap<String, u64>>,
}

#[derive(Debug, Deserialize)]
struct Flames {
    titles: Vec<String>,
    /// How wide they are in all.
    roots: Vec<f64>,
}

impl Page {
    /// What `lifetrace SUBCOMMAND --format html` makes of a recording; the exit code is not looked at.
    fn of(recording: &Recording, subcommand: &str) -> Result<(Self, u64)> {
        Self::of_only(recording, subcommand, &[])
    }

    fn of_only(recording: &Recording, subcommand: &str, options: &[&str]) -> Result<(Self, u64)> {
        let dir = TempDir::new()?;
        let file = dir.path().join("page.html");
        let file_name = file.display().to_string();
        recording.ask(subcommand, &[&["--format", "html", "-o", &file_name], options].concat())?;
        let mut node = Command::new("node");
        node.arg(fixture::workspace_root().join("tests/node/page.js")).arg(&file);
        node.env("PACKAGES", program::fetched("browser/bin/node_modules"));
        let said = Running::start(node, None)?.finish_within(PATIENCE * 5)?.expect_code(0)?.stdout;
        let page: Self = serde_json::from_str(&said).context("what the script says")?;
        assert!(page.colours > 3 && page.dark_colours > 3, "the canvas is blank: {} colours", page.colours);
        assert_eq!(page.background, "rgb(20, 23, 27)", "the dark page is dark");
        assert!(page.pdf > 10_000, "it prints");
        assert!(page.axe.is_empty(), "{:#?}", page.axe);
        Ok((page, fs::metadata(&file)?.len()))
    }
}

/// Check that every goroutine and every span of the timeline is in the page, with its state, reason and waker, that the numbers are those of
/// the report, and that what was asked for comes first.
#[test]
fn same_as_the_timeline() -> Result<()> {
    along(&NEEDS, || {
        let run = Run::of(fixture::go("pingpong")?).option("--tier").option("T3").args(["-rounds", "300"]);
        let (finished, recording) = run.finish()?;
        finished.expect_code(0)?;
        let (page, _) = Page::of(&recording, "timeline")?;
        let timeline = recording.timeline(None)?;
        let mut rows: BTreeMap<(u32, &str), Vec<&Span>> = BTreeMap::new();
        for row in timeline.iter().filter(|row| row.id.starts_with("go:") && row.state != "dead" && row.state != "lost") {
            rows.entry((row.tgid, &row.id)).or_default().push(row);
        }
        let lanes = page.goroutines.context("there are few")?;
        let lanes: BTreeMap<(u32, &str), &Vec<Drawn>> =
            lanes.iter().map(|lane| ((lane.tgid, lane.id.as_str()), &lane.spans)).collect();
        assert!(rows.keys().eq(lanes.keys()), "{:?} and {:?}", rows.keys(), lanes.keys());
        let mut wakes = 0;
        for (who, rows) in &rows {
            let spans = lanes[who];
            assert_eq!(spans.len(), rows.len(), "{who:?}");
            for (span, row) in spans.iter().zip(rows) {
                let told = (&span.state, &span.reason, &span.by);
                assert_eq!(told, (&row.state, &row.reason, &row.woken_by), "{who:?}");
                wakes += usize::from(span.by.is_some());
                // As long as it was, within a five hundredth; where it was, within a thousandth of what was before.
                let (start, end) = (row.start_ns as f64, row.end_ns.context("spans end")? as f64);
                let (lasted, drawn) = (end - start, span.end - span.start);
                assert!((drawn - lasted).abs() <= lasted / 500.0 + 1.0, "{who:?}: {row:?} is drawn as {span:?}");
                assert!(span.end <= end && end - span.end <= end / 1000.0 + 1.0, "{who:?}: {row:?} is drawn as {span:?}");
            }
        }
        assert!(wakes > 500, "{wakes} wakes: the test proves nothing");
        let report = recording.report()?;
        assert_eq!(page.tiles["goroutines born"], report.goroutines.born.context("T3 knows")?.to_string());
        assert_eq!(page.tiles["events lost"], "0");
        assert_eq!(page.sections[..2], ["summary", "timeline"]);
        let one = page.one.context("a goroutine is pointed at")?;
        assert!(one.title.starts_with("go:") && one.first.contains("created by") && one.beside != one.first, "{one:?}");
        let filtered = page.filtered.context("it is looked for")?;
        assert_eq!(filtered.found, 1);
        assert_eq!(filtered.by["process"].values().sum::<u64>(), filtered.all, "each lane is of one process");
        assert_eq!(filtered.by["site"].values().sum::<u64>(), lanes.len() as u64, "each goroutine was made somewhere");
        let blocked = lanes.values().filter(|spans| spans.iter().any(|span| span.state == "blocked")).count() as u64;
        // Threads block as well.
        assert!((blocked..filtered.all).contains(&filtered.by["state"]["blocked"]), "{blocked} of {filtered:?}");
        // Of what is asked for alone there is something to see, too.
        let (tgid, id) = rows.keys().next().context("there are goroutines")?;
        for id in [format!("gc:{tgid}"), format!("{id}@{tgid}"), format!("pid:{tgid}")] {
            let (page, _) = Page::of_only(&recording, "timeline", &["--id", &id])?;
            assert!((1..=filtered.all).contains(&page.lanes), "{id}: {} lanes", page.lanes);
        }
        Ok(())
    })
}

/// Check that a page of a hundred thousand goroutines is small, is moved quickly, and that its flamegraphs count all of them; and that
/// `leaks` comes with its own section first.
#[test]
fn hundred_thousand() -> Result<()> {
    alone(&NEEDS, || {
        let (finished, recording) = Run::of(fixture::go("births")?).finish()?;
        let births: Births = truth::read(finished.expect_code(0)?.last_line())?;
        let (page, bytes) = Page::of(&recording, "leaks")?;
        let made: u64 = births.sites.iter().map(|site| site.made).sum();
        assert!(made >= 100_000 && page.lanes >= made, "{} lanes of {made} goroutines", page.lanes);
        assert!(bytes < 5_000_000, "{bytes} bytes");
        println!("{bytes} bytes; 60 frames in {:.0} ms", page.pan_ms);
        // Paced by the screen's sixty a second: a second at least.
        assert!(page.pan_ms < 3_000.0, "60 frames took {} ms", page.pan_ms);
        assert_eq!(page.sections[..2], ["summary", "leaks"]);
        let report = recording.report()?;
        let root = |title: &str| {
            let at = page.flames.titles.iter().position(|found| found == title)?;
            page.flames.roots.get(at).map(|root| *root as u64)
        };
        let of = &report.goroutines;
        let [born, alive, system] = [of.born, of.alive, of.system].map(|number| number.unwrap_or_default());
        let created = root("Goroutines created").context("who was created is drawn")?;
        assert!((born..=born + system).contains(&created), "{created} were created");
        let drawn = root("Goroutines alive at the end").context("who lives is drawn")?;
        assert!((alive..=alive + system).contains(&drawn), "{drawn} are alive");
        Ok(())
    })
}

/// Check that a leak is shown in the timeline when its button is pressed, with all that leaked.
#[test]
fn leaks_in_the_timeline() -> Result<()> {
    along(&NEEDS, || {
        let recording = Recording::at(&fixture::workspace_root().join("tests/recordings/stream.lifetrace"));
        let (page, _) = Page::of(&recording, "leaks")?;
        let said: Value = serde_json::from_str(&recording.ask("leaks", &["--format", "json"])?.stdout)?;
        let leaked = said["leaks"][0]["count"].as_u64().context("a leak")?;
        assert!(page.leaks.len() == 1 && (leaked..page.lanes).contains(&page.leaks[0]), "{:?} of {leaked}", page.leaks);
        Ok(())
    })
}

/// Check that the labels of goroutines are to choose from, and that each leaves those that have it.
#[test]
fn labels() -> Result<()> {
    along(&NEEDS, || {
        let (waits, recording) = attach::labelled()?;
        let (page, _) = Page::of(&recording, "timeline")?;
        let left = &page.filtered.context("it is looked for")?.by["label"];
        let mut said: BTreeMap<String, u64> = BTreeMap::new();
        for (key, value) in waits.said.iter().flat_map(|said| &said.labels) {
            *said.entry(format!("{key}={value}")).or_default() += 1;
        }
        assert!(left.len() > 2 && left.iter().all(|(label, lanes)| said.get(label) == Some(lanes)), "{left:?} of {said:?}");
        Ok(())
    })
}

/// Check that names in what is traced are text to the browser, whatever they look like, and that losses are shown.
#[test]
fn names_are_no_markup() -> Result<()> {
    along(&NEEDS, || {
        let evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>";
        let script = format!(": '{evil}'; exec \"$0\" -rounds 2000");
        let run = Run::of("sh").option("--knob").option("drop-permille=50");
        let (finished, recording) = run.args(["-c".into(), script.into(), fixture::go("pingpong")?.into_os_string()]).finish()?;
        finished.expect_code(0)?;
        // No dialog, no request, nothing on the console: the script has seen to that.
        let (page, _) = Page::of(&recording, "report")?;
        assert!(page.title.contains(evil), "{}", page.title);
        assert_ne!(page.tiles["events lost"], "0");
        assert_eq!(page.sections[..2], ["summary", "sites"]);
        Ok(())
    })
}
