//! What real servers answered: the fixture `served`, built by Go 1.21.13, 1.26.6 and 1.27.3 with `-trimpath`, and asked with curl.
//! `NAME.1` and `NAME.2` are the forms `debug=1` and `debug=2`; `leaked.2` was asked for after `goroutineleak`; the two with labels
//! ran with `GODEBUG=tracebacklabels=1`.

use std::collections::BTreeMap;

use super::{counted, index, mem_stats, profile, text};

macro_rules! sample {
    ($name:literal) => {
        include_bytes!(concat!("samples/", $name))
    };
}

fn words(sample: &'static [u8]) -> &'static str {
    std::str::from_utf8(sample).unwrap()
}

/// Check that dumps of all goroutines give each with its state, stack and creator, and labels and leaks where the version shows them.
#[test]
fn dumps() {
    let samples: [(&[u8], bool); 3] =
        [(sample!("go1.21.goroutine.2"), false), (sample!("go1.26.leaked.2"), true), (sample!("go1.27.leaked.2"), true)];
    for (sample, newer) in samples {
        let dump = text::parse(words(sample)).unwrap();
        assert!(!dump.cut);
        let count =
            |keep: &dyn Fn(&text::Goroutine<'_>) -> bool| dump.goroutines.iter().filter(|goroutine| keep(goroutine)).count();
        assert_eq!(count(&|goroutine| goroutine.goid == 1 && goroutine.state == "syscall" && goroutine.creator.is_none()), 1);
        // One that has not begun stands at the very entry of its wrapper.
        assert!(count(&|goroutine| goroutine.partial) <= 1, "{dump:#?}");
        let ours = |goroutine: &text::Goroutine<'_>| {
            goroutine
                .creator
                .is_some_and(|by| by.frame.function == "main.labelled" && by.goid == Some(1) && by.frame.offset.is_some())
        };
        assert_eq!(count(&ours), 4);
        assert_eq!(count(&|goroutine| goroutine.locked_to_thread), 1);
        assert_eq!(count(&|goroutine| goroutine.state == "select (no cases)"), 1);
        assert_eq!(count(&|goroutine| goroutine.leaked), if newer { 4 } else { 0 });
        let labels: BTreeMap<Vec<(String, String)>, usize> =
            dump.goroutines.iter().filter_map(|goroutine| goroutine.labels.clone()).fold(BTreeMap::new(), |mut all, labels| {
                *all.entry(labels).or_default() += 1;
                all
            });
        if newer {
            let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
            let odd = vec![label("empty", ""), label("who", "a \"b\", c: {d}]")];
            let orders = vec![label("endpoint", "/orders"), label("trace_id", "4bf92f3577b34da6")];
            assert_eq!(labels, BTreeMap::from([(odd, 1), (orders, 3)]));
        } else {
            assert!(labels.is_empty());
        }
    }
}

/// Check that profiles of counts as text say the same as those in protobuf.
#[test]
fn counts() {
    let samples: [(&[u8], &[u8], &str); 3] = [
        (sample!("go1.21.goroutine.1"), sample!("go1.21.goroutine"), "goroutine"),
        (sample!("go1.27.goroutine.1"), sample!("go1.27.goroutine"), "goroutine"),
        (sample!("go1.27.goroutineleak.1"), sample!("go1.27.goroutineleak"), "goroutineleak"),
    ];
    for (told, packed, name) in samples {
        let counted = counted::parse(words(told)).unwrap();
        let packed = profile::decode(packed).unwrap();
        assert_eq!(counted.name, name);
        let total: i64 = packed.sample.iter().map(|sample| sample.value[0]).sum();
        assert_eq!(counted.total, total as u64, "{name}");
        let in_text = counted.records.iter().filter(|record| !record.labels.is_empty()).count();
        assert_eq!(in_text, packed.sample.iter().filter(|sample| !sample.label.is_empty()).count(), "{name}");
        assert!(counted.records.iter().all(|record| !record.frames.is_empty() && record.pcs.len() >= 2), "{counted:#?}");
        assert!(counted.records.iter().any(|record| record.frames.iter().any(|frame| frame.function == "main.wait")));
    }
    assert_eq!(counted::parse(words(sample!("go1.26.goroutineleak.1"))).unwrap().total, 4);
}

/// Check that every profile that Go 1.27 serves in protobuf decodes, with the values of its kind.
#[test]
fn profiles() {
    let samples: [(&[u8], &[&str]); 4] = [
        (sample!("go1.27.heap"), &["alloc_objects", "alloc_space", "inuse_objects", "inuse_space"]),
        (sample!("go1.27.mutex"), &["contentions", "delay"]),
        (sample!("go1.27.block"), &["contentions", "delay"]),
        (sample!("go1.27.profile"), &["samples", "cpu"]),
    ];
    for (sample, expected) in samples {
        let profile = profile::decode(sample).unwrap();
        let names: Vec<&str> = profile.sample_type.iter().map(|ty| profile.string_table[ty.ty as usize].as_str()).collect();
        assert_eq!(names, expected);
    }
}

/// Check that the heap's numbers and the front page of the oldest and the newest version are read.
#[test]
fn pages() {
    for (heap, page) in [
        (&sample!("go1.21.heap.1")[..], &sample!("go1.21.index")[..]),
        (&sample!("go1.27.heap.1")[..], &sample!("go1.27.index")[..]),
    ] {
        let heap = mem_stats::parse(words(heap)).unwrap();
        assert!(
            heap.alloc_bytes >= 1 << 20 && heap.inuse_bytes >= heap.alloc_bytes && heap.sys_bytes > heap.inuse_bytes,
            "{heap:?}"
        );
        assert!(heap.goal_bytes >= 4 << 20 && heap.stack_bytes > 0, "{heap:?}");
        assert!(index::parse(words(page)).unwrap().goroutines.is_some_and(|count| count >= 12));
    }
}
