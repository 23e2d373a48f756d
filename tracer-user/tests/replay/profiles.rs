//! Flamegraphs of profiles that a real program gave (`profiles/main.go`).

use std::{fs, process::Command};

use pprof::protos::{Label, Message, Profile, Sample, ValueType};
use proptest::prelude::*;
use tracer_user::{
    correlate::replay::{Replayed, replay},
    export::{
        profile_flame::{self, By, Flame, Unanswerable, parser::parse},
        tally::Tally,
    },
    recording::contract::ProfileKind,
};

use crate::{open, scene::Scene};

const FIRST: &[u8] = include_bytes!("profiles/heap-first.pb.gz");
const LAST: &[u8] = include_bytes!("profiles/heap-last.pb.gz");
const MUTEX: &[u8] = include_bytes!("profiles/mutex.pb.gz");
const BLOCK: &[u8] = include_bytes!("profiles/block.pb.gz");
const LEAK: &[u8] = include_bytes!("profiles/goroutineleak.pb.gz");

fn replayed(scene: &Scene) -> Replayed {
    replay(open(&scene.bytes()), &mut Tally::default()).expect("replays")
}

/// A shop whose heap grew between two profiles.
fn shop() -> Scene {
    let mut scene = Scene::default();
    scene.shop(1000).profile(3_000, 1000, ProfileKind::Heap, FIRST).profile(8_000, 1000, ProfileKind::Heap, LAST);
    scene
}

/// The lines of the program's own functions.
fn own(flame: &Flame) -> Vec<String> {
    let mut lines = flame.folded().expect("folds");
    lines.retain(|line| ["main.takeOrder", "main.openSession"].iter().any(|function| line.contains(function)));
    lines
}

/// Check the newest profile: what is in use is what the program kept.
#[test]
fn in_use() {
    let replayed = replayed(&shop());
    let flame = profile_flame::at(&replayed, By::InuseSpace, None).unwrap();
    // 30 orders of 100,000 bytes, in the size class above.
    insta::assert_snapshot!(own(&flame).join("\n"), @"runtime.main;main.main;main.takeOrder 3194880");
    insta::assert_snapshot!(flame.notes.join("\n"), @r"
    as of 8 ms
    no event lost; coverage T2
    ");
    let earlier = profile_flame::at(&replayed, By::InuseObjects, Some(5_000_000)).unwrap();
    insta::assert_snapshot!(own(&earlier).join("\n"), @r"
    runtime.main;main.main;main.openSession 10
    runtime.main;main.main;main.takeOrder 10
    ");
}

/// Check the growth between the first and the newest profile of a recording: what was freed since has a value before and none after.
#[test]
fn growth() {
    let replayed = replayed(&shop());
    let flame = profile_flame::growth(&replayed, By::InuseSpace, None).unwrap();
    insta::assert_snapshot!(own(&flame).join("\n"), @r"
    runtime.main;main.main;main.openSession 81920 0
    runtime.main;main.main;main.takeOrder 1064960 3194880
    ");
    assert_eq!(flame.notes[0], "growth from 3 ms to 8 ms");
    assert!(flame.notes[1].ends_with("are gone from stacks that have none left: these have no width"), "{:?}", flame.notes);
    let allocated = profile_flame::growth(&replayed, By::AllocObjects, None).unwrap();
    insta::assert_snapshot!(own(&allocated).join("\n"), @r"
    runtime.main;main.main;main.openSession 10 10
    runtime.main;main.main;main.takeOrder 10 30
    ");
    let mut svg = Vec::new();
    flame.write_svg(&mut svg).unwrap();
    let svg = String::from_utf8(svg).unwrap();
    for text in ["Heap in use: growth: ./shop --workers 2", "main.takeOrder (", "bytes, ", "growth from 3 ms to 8 ms"] {
        assert!(svg.contains(text), "{text}");
    }
}

/// Check the growth from one recording to another.
#[test]
fn two_recordings() {
    let (mut old, mut new) = (Scene::default(), Scene::default());
    old.shop(1000).profile(3_000, 1000, ProfileKind::Heap, FIRST);
    new.shop(2000).profile(4_000, 2000, ProfileKind::Heap, LAST);
    let flame = profile_flame::growth_between(&replayed(&old), &replayed(&new), By::InuseObjects, None).unwrap();
    insta::assert_snapshot!(own(&flame).join("\n"), @r"
    runtime.main;main.main;main.openSession 10 0
    runtime.main;main.main;main.takeOrder 10 30
    ");
    assert_eq!(flame.notes[0], "growth from the first recording at 3 ms to the second at 4 ms");
}

/// Check that several processes stand beside one another, each by its newest profile.
#[test]
fn processes() {
    let mut scene = shop();
    scene.shop(1001).profile(9_000, 1001, ProfileKind::Allocs, FIRST);
    let replayed = replayed(&scene);
    let flame = profile_flame::at(&replayed, By::InuseObjects, None).unwrap();
    insta::assert_snapshot!(own(&flame).join("\n"), @r"
    shop (pid 1000);runtime.main;main.main;main.takeOrder 30
    shop (pid 1001);runtime.main;main.main;main.openSession 10
    shop (pid 1001);runtime.main;main.main;main.takeOrder 10
    ");
    let grown = profile_flame::growth(&replayed, By::InuseObjects, None).unwrap();
    assert!(grown.notes.contains(&"left out: 1 processes with one profile".into()), "{:?}", grown.notes);
}

/// Check the kinds besides heap, and that cumulative ones say so.
#[test]
fn other_kinds() {
    let mut scene = Scene::default();
    scene.shop(1000);
    for (kind, data) in [(ProfileKind::Mutex, MUTEX), (ProfileKind::Block, BLOCK), (ProfileKind::GoroutineLeak, LEAK)] {
        scene.profile(3_000, 1000, kind, data);
    }
    let replayed = replayed(&scene);
    for (by, line, since_start) in [
        (By::Mutex, "runtime.main;main.main;sync.(*Mutex).Unlock ", true),
        (By::Block, "main.main.func1;sync.(*Mutex).Lock ", true),
        (By::GoroutineLeak, "main.main.func2;runtime.chanrecv1;runtime.chanrecv;runtime.gopark 1", false),
    ] {
        let flame = profile_flame::at(&replayed, by, None).unwrap();
        let folded = flame.folded().unwrap();
        assert!(folded.iter().any(|found| found.starts_with(line)), "{by:?}: {folded:#?}");
        assert_eq!(flame.notes[0] == "counted since the program's start", since_start, "{by:?}");
    }
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, bytes).unwrap();
    gzip.finish().unwrap()
}

/// A CPU profile of one place, by its label `endpoint` and a number of bytes.
fn labelled(samples: &[(&str, i64, i64)]) -> Vec<u8> {
    let mut strings: Vec<String> = ["", "cpu", "nanoseconds", "endpoint", "size", "bytes"].map(String::from).into();
    strings.extend(samples.iter().map(|(endpoint, ..)| (*endpoint).to_owned()));
    let sample = |(at, (_, num, value)): (usize, &(&str, i64, i64))| {
        let endpoint = Label { key: 3, str: 6 + at as i64, ..Label::default() };
        let size = Label { key: 4, num: *num, num_unit: 5, ..Label::default() };
        Sample { location_id: Vec::new(), value: vec![*value], label: vec![endpoint, size] }
    };
    let profile = Profile {
        sample_type: vec![ValueType { ty: 1, unit: 2 }],
        sample: samples.iter().enumerate().map(sample).collect(),
        string_table: strings,
        ..Profile::default()
    };
    gzipped(&profile.encode_to_vec())
}

/// What a flame's profile says of [`labelled`] samples.
fn by_label(flame: &Flame) -> Vec<(String, i64, i64)> {
    let mut out = Vec::new();
    flame.write_pprof(&mut out).unwrap();
    let parsed = parse(&out, "cpu").unwrap();
    let row = |sample: &profile_flame::parser::Sampled| {
        let [endpoint, size] = &*parsed.labels[sample.labels as usize] else { panic!("{:?}", parsed.labels) };
        assert_eq!((&*endpoint.key, &*size.key, &*size.unit), ("endpoint", "size", "bytes"));
        (endpoint.text.to_string(), size.number, sample.value)
    };
    let mut rows: Vec<_> = parsed.samples.iter().map(row).collect();
    rows.sort_unstable();
    rows
}

/// Check that labels stay on the samples of a profile and of a growth, and part no stack that is drawn.
#[test]
fn labels() {
    let mut scene = Scene::default();
    let (first, last) = ([("/pay", 48, 10), ("/list", 48, 7)], [("/pay", 48, 30), ("/pay", 64, 2)]);
    scene.shop(1000);
    scene.profile(3_000, 1000, ProfileKind::Cpu, &labelled(&first)).profile(8_000, 1000, ProfileKind::Cpu, &labelled(&last));
    let replayed = replayed(&scene);
    let flame = profile_flame::at(&replayed, By::Cpu, None).unwrap();
    assert_eq!(by_label(&flame), [("/pay".into(), 48, 30), ("/pay".into(), 64, 2)]);
    assert_eq!(flame.folded().unwrap(), ["[no stack] 32"]);
    let growth = profile_flame::growth(&replayed, By::Cpu, None).unwrap();
    assert_eq!(by_label(&growth), [("/list".into(), 48, -7), ("/pay".into(), 48, 20), ("/pay".into(), 64, 2)]);
    assert_eq!(growth.folded().unwrap(), ["[no stack] 17 32"]);
    assert!(growth.notes.iter().all(|note| !note.contains("are gone")), "the stack is still there: {:?}", growth.notes);
}

/// Check that it is said that labels were left out.
#[test]
fn labels_left_out() {
    let mut scene = Scene::default();
    scene.shop(1000).profile(3_000, 1000, ProfileKind::Cpu, &labelled(&[(&"x".repeat(2000), 1, 1), ("/pay", 1, 1)]));
    let flame = profile_flame::at(&replayed(&scene), By::Cpu, None).unwrap();
    let note = "labels of 1 samples of process 1000 are too many or too long: left out";
    assert!(flame.notes.iter().any(|known| known == note), "{:?}", flame.notes);
}

/// Check what is said where the recording cannot answer.
#[test]
fn missing() {
    let says = |result: Result<Flame, Unanswerable>| format!("{:#}", anyhow::Error::from(result.err().expect("an error")));
    let mut scene = Scene::default();
    scene.shop(1000);
    let none = replayed(&scene);
    insta::assert_snapshot!(says(profile_flame::at(&none, By::InuseSpace, None)), @"the recording holds no heap profiles: record with --pprof auto --heap-every 30s");
    insta::assert_snapshot!(says(profile_flame::at(&none, By::Mutex, None)), @"the recording holds no mutex profiles: record with --pprof auto --profile mutex");
    scene.profile(3_000, 1000, ProfileKind::Heap, FIRST);
    let one = replayed(&scene);
    insta::assert_snapshot!(says(profile_flame::growth(&one, By::InuseSpace, None)), @"a difference needs two heap profiles of a process, and the recording holds one of each: record longer, or more often (--pprof auto --heap-every 30s), or name a second recording");
    insta::assert_snapshot!(says(profile_flame::at(&one, By::InuseSpace, Some(1_000_000))), @"the recording holds no heap profile of 1 ms or earlier: the first is of 3 ms");
    scene.profiles[0].data = MUTEX.to_vec();
    insta::assert_snapshot!(says(profile_flame::at(&replayed(&scene), By::InuseSpace, None)), @"the heap profile that process 1000 gave cannot be read: it has no inuse_space");
    scene.profiles[0].data = b"404 page not found".to_vec();
    insta::assert_snapshot!(says(profile_flame::at(&replayed(&scene), By::InuseSpace, None)), @"the heap profile that process 1000 gave cannot be read: it is no gzip");
    scene.profile(4_000, 1001, ProfileKind::Heap, FIRST);
    let flame = profile_flame::at(&replayed(&scene), By::InuseSpace, None).unwrap();
    assert!(flame.notes.contains(&"the profile of process 1000 cannot be read: it is no gzip".into()), "{:?}", flame.notes);
}

proptest! {
    /// Check that no damage to a profile makes more of it than an error or other numbers.
    #[test]
    fn damaged(at in 0usize..4096, byte: u8, cut in 0usize..4096) {
        let mut raw = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(FIRST), &mut raw).unwrap();
        let len = raw.len();
        raw[at % len] = byte;
        raw.truncate(len - cut % len);
        let _ = parse(&gzipped(&raw), "inuse_space");
    }
}

/// Check that an endless answer is cut off.
#[test]
fn bomb() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let block = vec![0; 1 << 20];
    (0..65).for_each(|_| std::io::Write::write_all(&mut gzip, &block).unwrap());
    let error = parse(&gzip.finish().unwrap(), "inuse_space").unwrap_err();
    assert_eq!(error.to_string(), "it is larger than 64 MiB");
}

/// Check that Go's own tool opens a growth, with negative values. Without a Go toolchain there is nothing to check it with.
#[test]
fn go_tool_pprof() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("growth.pb.gz");
    let mut out = Vec::new();
    profile_flame::growth(&replayed(&shop()), By::InuseSpace, None).unwrap().write_pprof(&mut out).unwrap();
    fs::write(&path, out).unwrap();
    let output = match Command::new("go").args(["tool", "pprof", "-raw"]).arg(&path).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: no Go toolchain to open the profile with");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let raw = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(raw.contains("inuse_space/bytes") && raw.contains("2129920:") && raw.contains("-81920:"), "{raw}");
}
