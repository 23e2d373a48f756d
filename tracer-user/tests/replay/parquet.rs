//! Tables for SQL: what is in them, and that their documentation is true.

use std::{collections::BTreeMap, fmt::Write, fs::File, path::Path};

use parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::Field,
};
use tracer_user::{
    correlate::replay::View,
    export::{
        flamegraph::By,
        parquet::{ExportError, Learned, schema},
    },
};

use crate::{graph, open, report_json, scene::Scene};

/// A row, without what is null.
type Cells = BTreeMap<String, String>;

fn export(bytes: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    Learned::from(open(bytes), View::default()).unwrap().write(open(bytes), dir.path()).unwrap();
    dir
}

fn reader(dir: &Path, table: &str) -> SerializedFileReader<File> {
    SerializedFileReader::new(File::open(dir.join(format!("{table}.parquet"))).unwrap()).unwrap()
}

fn rows(dir: &Path, table: &str) -> Vec<Cells> {
    let cells = |row: parquet::record::Row| {
        let told = row.get_column_iter().filter(|(_, field)| !matches!(field, Field::Null));
        let text = |field: &Field| match field {
            Field::Str(text) => text.clone(),
            other => other.to_string(),
        };
        told.map(|(name, field)| (name.clone(), text(field))).collect()
    };
    reader(dir, table).get_row_iter(None).unwrap().map(|row| cells(row.unwrap())).collect()
}

fn shop() -> Scene {
    let mut scene = Scene::default();
    scene.shop(1000);
    scene
}

/// The part of docs/parquet.md that is made of the schema.
fn documented() -> String {
    let mut page = String::new();
    for table in schema() {
        write!(page, "\n### `{}`\n{}\n\n| column | type | |\n| --- | --- | --- |\n", table.name, table.about).unwrap();
        for column in table.columns {
            let null = if column.always { "" } else { " or null" };
            writeln!(page, "| `{}` | `{}`{null} | {} |", column.name, column.sql_type, column.about).unwrap();
        }
    }
    page
}

/// Check that docs/parquet.md describes the tables as they are.
#[test]
fn documentation() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/parquet.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let marker = "(tracer-user/tests/replay/parquet.rs). -->\n";
    let (_, described) = page.split_once(marker).expect("the marker");
    let documented = documented();
    assert!(described == documented, "docs/parquet.md is not of this schema; behind the marker belongs\n{documented}");
}

/// Check the lives of a shop: where each comes from, how it ended, and its sums, which are the report's.
#[test]
fn lives() {
    let scene = shop();
    let dir = export(&scene.bytes());
    let goroutines = rows(dir.path(), "goroutines");
    let report = report_json(&scene);
    let sites = report["sites"].as_array().unwrap().iter().chain(report["system_sites"].as_array().unwrap());
    let mut count = 0;
    for site in sites {
        let of = |row: &&Cells| row.get("start_function").map(String::as_str) == site["start_function"].as_str();
        let lives: Vec<&Cells> = goroutines.iter().filter(of).collect();
        let sum = |column: &str| lives.iter().filter_map(|row| row[column].parse::<u64>().ok()).sum::<u64>();
        let exited = lives.iter().filter(|row| row["ended"] == "exit").count() as u64;
        let alive = lives.iter().filter(|row| row["alive"] == "true").count() as u64;
        assert_eq!((sum("blocked_ns"), exited), (site["blocked_ns"].as_u64().unwrap(), site["exited"].as_u64().unwrap()));
        assert_eq!(alive, site["alive"].as_u64().unwrap());
        assert!(lives.iter().all(|row| row["created_function"] == site["created_by"]["function"].as_str().unwrap()));
        count += lives.len();
    }
    assert_eq!((count, goroutines.len()), (4, 4));
    let done = goroutines.iter().find(|row| row["goid"] == "17").unwrap();
    let told = |column: &str| done.get(column).map(String::as_str);
    assert_eq!((told("parent_goid"), told("born_at_ns"), told("ended_at_ns")), (Some("1"), Some("2000000"), Some("5500000")));
    assert_eq!((told("waits"), told("longest_wait_ns"), told("last_state")), (Some("1"), Some("3000000"), Some("awake")));
    // T2 does not tell.
    assert_eq!((told("runnable_ns"), told("running_ns"), told("system")), (None, None, Some("false")));
}

/// Check that spans are those of the timeline, and that their stacks lead to functions.
#[test]
fn spans() {
    let dir = export(&shop().bytes());
    let (spans, stacks, frames) = (rows(dir.path(), "spans"), rows(dir.path(), "stacks"), rows(dir.path(), "frames"));
    let (_, jsonl) = crate::timeline(&shop(), None).unwrap();
    let mut told: Vec<(String, u64, u64, Option<String>)> = Vec::new();
    for line in jsonl.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let (Some(goid), state) = (line["id"].as_str().unwrap().strip_prefix("go:"), line["state"].as_str().unwrap()) else {
            continue;
        };
        if state != "dead" {
            let top = line["stack"][0]["function"].as_str().map(str::to_owned);
            told.push((format!("{goid} {state}"), line["start_ns"].as_u64().unwrap(), line["end_ns"].as_u64().unwrap(), top));
        }
    }
    let top = |row: &Cells| {
        let id = row.get("stack_id")?;
        let frame = &stacks.iter().find(|frame| frame["stack_id"] == *id && frame["position"] == "0")?["frame_id"];
        Some(frames.iter().find(|row| row["frame_id"] == *frame)?["function"].clone())
    };
    let number = |row: &Cells, column: &str| row[column].parse::<u64>().unwrap();
    let mut found: Vec<_> = spans
        .iter()
        .map(|row| (format!("{} {}", row["goid"], row["state"]), number(row, "start_ns"), number(row, "end_ns"), top(row)))
        .collect();
    found.sort();
    told.sort();
    assert_eq!(found, told);
    assert!(found.iter().any(|(_, _, _, top)| top.as_deref() == Some("runtime.chanrecv1")), "{found:?}");
}

/// Check that CPU samples say what ran, on whose behalf, and what they stand for: as much as the flamegraph of CPU time.
#[test]
fn samples() {
    let mut scene = shop();
    scene.samples(1000);
    let dir = export(&scene.bytes());
    let (goroutines, stacks, frames) = (rows(dir.path(), "goroutines"), rows(dir.path(), "stacks"), rows(dir.path(), "frames"));
    let samples = rows(dir.path(), "samples");
    let row = |sample: &Cells| {
        let ran = sample.get("stack_id").map_or("-", |id| {
            let top = stacks.iter().find(|frame| frame["stack_id"] == *id && frame["position"] == "0").unwrap();
            &frames.iter().find(|frame| frame["frame_id"] == top["frame_id"]).unwrap()["function"]
        });
        let goid = sample.get("goroutine").map_or("-", |id| {
            let goid = &goroutines.iter().find(|row| row["goroutine"] == *id).unwrap()["goid"];
            assert_eq!(*goid, sample["goid"]);
            goid
        });
        format!("{} {} {goid} {ran} {} {}", sample["at_ns"], sample["runner"], sample["in_kernel"], sample["cpu_ns"])
    };
    insta::assert_snapshot!(samples.iter().map(row).collect::<Vec<_>>().join("\n"), @r"
    9111000 goroutine 18 main.hash false 10000000
    9112000 goroutine 18 main.hash true 10000000
    9114000 nobody - runtime.schedule false 10000000
    9115000 unknown - - true 10000000
    9117000 goroutine 18 ? true 10000000
    ");
    let drawn = graph(&scene, By::OnCpu).folded();
    let drawn: u64 = drawn.iter().map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum();
    assert_eq!(samples.iter().map(|sample| sample["cpu_ns"].parse::<u64>().unwrap()).sum::<u64>(), drawn);
}

/// Check that a table of several groups of rows is whole, and that a life's number is the same in all of them.
#[test]
fn groups() {
    const ROUNDS: u64 = 70_000;
    let mut scene = Scene::lasting(1_000);
    scene.start(1_000, 1000, &["./shop"]).birth(1_300, 1000, 1, 0, (0x3020, 0x4100));
    for round in 0..ROUNDS {
        scene.park(1_400 + round * 10, 1000, 1, 1).wake(1_405 + round * 10, 1000, 1, 0);
    }
    let dir = export(&scene.bytes());
    let metadata = reader(dir.path(), "spans").metadata().clone();
    assert_eq!((metadata.num_row_groups(), metadata.file_metadata().num_rows()), (2, 2 * ROUNDS as i64 + 1));
    let goroutines = rows(dir.path(), "goroutines");
    assert_eq!((goroutines.len(), goroutines[0]["waits"].as_str()), (1, "70000"));
    assert!(rows(dir.path(), "spans").iter().all(|row| row["goroutine"] == goroutines[0]["goroutine"]));
}

/// Check that a recording of nothing, and one that is cut anywhere, become tables that can be read.
#[test]
fn cut_anywhere() {
    let mut scene = shop();
    scene.collector(1000);
    let bytes = scene.bytes();
    let step = (bytes.len() / 40).max(1);
    let empty = Scene::default().bytes();
    let mut read = 0;
    for cut in (0..bytes.len()).step_by(step).map(|end| &bytes[..end]).chain([&empty[..], &bytes[..]]) {
        let Ok(recording) = tracer_user::recording::reader::Recording::from_reader(cut, Path::new("cut.rec")) else { continue };
        let dir = tempfile::tempdir().unwrap();
        let learned = Learned::from(recording, View::default()).unwrap();
        learned.write(open(cut), dir.path()).unwrap();
        for table in schema() {
            rows(dir.path(), table.name);
        }
        assert_eq!(rows(dir.path(), "meta").len(), 1);
        read += 1;
    }
    assert!(read > 10, "{read} could be read");
}

/// Check that a recording that became another one meanwhile is refused, or read as far as it is known.
#[test]
fn changed_meanwhile() {
    let mut other = shop();
    other.shop(2000);
    other.collector(2000);
    let (first, second) = (shop().bytes(), other.bytes());
    let dir = tempfile::tempdir().unwrap();
    let failed = Learned::from(open(&first), View::default()).unwrap().write(open(&second), dir.path()).unwrap_err();
    assert!(matches!(failed, ExportError::Changed), "{failed}");
    Learned::from(open(&second), View::default()).unwrap().write(open(&first), dir.path()).unwrap();
}

/// Check that a disk that is full is an error, and no panic.
#[test]
fn full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = shop().bytes();
    for table in schema() {
        std::os::unix::fs::symlink("/dev/full", dir.path().join(format!("{}.parquet", table.name))).unwrap();
    }
    let failed = Learned::from(open(&bytes), View::default()).unwrap().write(open(&bytes), dir.path()).unwrap_err();
    let ExportError::Write(error) = failed else { panic!("{failed}") };
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
}
