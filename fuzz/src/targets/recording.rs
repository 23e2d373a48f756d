//! Recordings and the records in them.

use std::path::Path;

use tracer_user::{
    correlate::{
        Both,
        replay::{View, replay, replay_only},
    },
    decode::{decode, encode},
    event::What,
    export::{
        self,
        flamegraph::{self, By},
        html, profile_flame,
        report::report,
        report_text,
        tally::Tally,
    },
    id::Goid,
    index::Only,
    leak::{
        gate::Gate,
        ignore::IgnoreList,
        tally::LeakTally,
        verdict::{Judged, leaking, leaks},
    },
    recording::{reader::Recording, records as framed},
    timeline::{Collector, Id, Timeline, perfetto, write::Writer},
};

const FILE_HEADER: usize = 16;
const BLOCK_HEADER: usize = 20;

/// Framed records, as they come out of the ring.
pub fn records(input: &[u8]) {
    for record in framed(input) {
        if let Ok(event) = decode(record) {
            // What was understood is understood the same way once more, but for arguments that were no text.
            let again = encode(&event);
            let has_text = matches!(event.what, What::ProcessExec(_) | What::ProcessMet(_) | What::UsdtHit { text: Some(_), .. });
            assert!(has_text || decode(&again).as_ref() == Ok(&event), "{event:?}");
        }
    }
}

/// A recording's file, through everything that is made of one.
pub fn whole(input: &[u8]) {
    let mut bytes = input.to_vec();
    repair(&mut bytes);
    for by in [None, Some(By::Blocked), Some(By::Runnable), Some(By::OnCpu)] {
        outputs(&bytes, by);
    }
}

fn outputs(bytes: &[u8], by: Option<By>) {
    let path = Path::new("fuzz.lifetrace");
    let Ok(recording) = Recording::from_reader(bytes, path) else { return };
    if let Some(by) = by {
        let mut tally = flamegraph::Tally::new(by);
        if let Ok(replayed) = replay(recording, &mut tally)
            && let Ok(graph) = flamegraph::graph(&replayed, &tally, true)
        {
            let _ = graph.write_folded(&mut std::io::sink());
        }
        return;
    }
    let mut tally = Tally::default();
    if let Ok(replayed) = replay(recording, &mut tally) {
        let report = report(&replayed, &tally);
        let _ = report_text::write(&report, false, &mut std::io::sink());
        if let Ok(flame) = profile_flame::growth(&replayed, profile_flame::By::InuseSpace, None) {
            let _ = (flame.write_folded(&mut std::io::sink()), flame.write_pprof(&mut std::io::sink()));
        }
    }
    let Ok(recording) = Recording::from_reader(bytes, path) else { return };
    let mut tally = LeakTally::default();
    if let Ok(replayed) = replay(recording, &mut tally) {
        let gate = Gate::new(None, IgnoreList::default(), None);
        let told = export::leaks::leaks(&replayed, &leaks(&replayed, &tally, Judged::All), &gate);
        let _ = export::leaks::text::write(&told, false, &mut std::io::sink());
    }
    let Ok(recording) = Recording::from_reader(bytes, path) else { return };
    let only = Only { goid: Goid(1), tgid: None };
    let mut collector = Collector::new(Some(Id::Goroutine(only.goid, only.tgid)));
    let _ = replay_only(recording, View::default(), Some(only), &mut collector);
    let Ok(recording) = Recording::from_reader(bytes, path) else { return };
    let mut collector = Collector::new(None);
    if let Ok(replayed) = replay(recording, &mut collector)
        && let Ok(timeline) = Timeline::new(&replayed, collector, None)
    {
        let mut writer = Writer::new(&timeline);
        let _ = (writer.jsonl(&mut std::io::sink()), writer.text(&mut std::io::sink()));
        let _ = perfetto::write(&timeline, &Default::default(), &mut std::io::sink());
    }
    page(bytes, path);
}

fn page(bytes: &[u8], path: &Path) {
    let Ok(recording) = Recording::from_reader(bytes, path) else { return };
    let mut gathered = html::Gathered::default();
    let Ok(replayed) = replay(recording, &mut gathered) else { return };
    let Both(Both(tally, of_leaks), Both(collector, flames)) = gathered;
    let Ok(timeline) = Timeline::new(&replayed, collector, None) else { return };
    let found = leaks(&replayed, &of_leaks, Judged::All);
    let told = export::leaks::leaks(&replayed, &found, &Gate::new(None, IgnoreList::default(), None));
    let page = html::Page {
        replayed: &replayed,
        report: &report(&replayed, &tally),
        leaks: &told,
        timeline: &timeline,
        flames: &flames,
        leaking: &leaking(&found),
        first: html::First::Report,
    };
    let _ = html::write(&page, &mut std::io::sink());
}

/// Puts the right checksum on every block whose length fits: no fuzzer finds one by chance.
fn repair(bytes: &mut [u8]) {
    let mut at = FILE_HEADER;
    while let Some(header) = bytes.get(at..at.saturating_add(BLOCK_HEADER)) {
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let end = at.saturating_add(BLOCK_HEADER).saturating_add(word(8) as usize);
        let Some(payload) = bytes.get(at + BLOCK_HEADER..end) else { return };
        let mut sum = crc32fast::Hasher::new();
        sum.update(&header[..16]);
        sum.update(payload);
        let sum = sum.finalize().to_le_bytes();
        bytes[at + 16..at + BLOCK_HEADER].copy_from_slice(&sum);
        at = end;
    }
}
