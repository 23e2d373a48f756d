//! A recording in, outputs out.

mod scene;

use std::path::Path;

use scene::Scene;
use tracer_user::{
    correlate::replay::{Replayed, View, replay, replay_only},
    export::{flamegraph, pprof, report, report_text, tally::Tally},
    index::Only,
    recording::reader::Recording,
    timeline::{Collector, Id, IdError, Timeline, write::Writer},
};

mod checks;
mod coverage;
mod damage;
mod leak_kinds;
mod leaks;
mod memory;
mod outputs;
#[cfg(feature = "parquet")]
mod parquet;
mod perfetto;
mod profiles;
mod program;
mod properties;
mod runtime;
mod scheduling;
mod units;

fn open(bytes: &[u8]) -> Recording<&[u8]> {
    Recording::from_reader(bytes, Path::new("scene.rec")).expect("a recording")
}

fn tallied(scene: &Scene) -> (Replayed, Tally) {
    let mut tally = Tally::default();
    let replayed = replay(open(&scene.bytes()), &mut tally).expect("replays");
    (replayed, tally)
}

fn report_json(scene: &Scene) -> serde_json::Value {
    let (replayed, tally) = tallied(scene);
    serde_json::to_value(report::report(&replayed, &tally)).expect("serializes")
}

fn report_as_text(scene: &Scene) -> String {
    let (replayed, tally) = tallied(scene);
    let mut out = Vec::new();
    report_text::write(&report::report(&replayed, &tally), false, &mut out).expect("writes");
    String::from_utf8(out).expect("text")
}

/// The timeline as text and as JSON lines.
fn timeline(scene: &Scene, id: Option<&str>) -> Result<(String, String), IdError> {
    let id: Option<Id> = id.map(|id| id.parse().expect("an id"));
    let mut collector = Collector::new(id);
    let only = match id {
        Some(Id::Goroutine(goid, tgid)) => Some(Only { goid, tgid }),
        _ => None,
    };
    let replayed = replay_only(open(&scene.bytes()), View::default(), only, &mut collector).expect("replays");
    let timeline = Timeline::new(&replayed, collector, id)?;
    let (mut text, mut jsonl) = (Vec::new(), Vec::new());
    Writer::new(&timeline).text(&mut text).expect("writes");
    Writer::new(&timeline).jsonl(&mut jsonl).expect("writes");
    Ok((String::from_utf8(text).expect("text"), String::from_utf8(jsonl).expect("text")))
}

fn graph(scene: &Scene, by: flamegraph::By) -> flamegraph::Graph {
    let mut tally = flamegraph::Tally::new(by);
    let replayed = replay(open(&scene.bytes()), &mut tally).expect("replays");
    flamegraph::graph(&replayed, &tally, true).expect("a graph")
}

fn pprof_bytes(scene: &Scene, by: flamegraph::By) -> Vec<u8> {
    let mut out = Vec::new();
    pprof::write(&graph(scene, by), &mut out).expect("writes");
    out
}
