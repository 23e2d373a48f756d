use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
};

use proptest::prelude::*;

use super::*;

const ROOM: u64 = 1 << 20;

fn open(path: &Path, stats: &Stats) -> Queue {
    Queue::open(Some(path), ROOM, stats)
}

fn push(queue: &mut Queue, stats: &Stats, text: &str) -> u64 {
    let mut told = 0;
    let request = |number| {
        told = number;
        text.as_bytes().to_vec()
    };
    queue.push(Signal::Logs, request, stats);
    told
}

fn drain(queue: &mut Queue, stats: &Stats) -> Vec<(u64, String)> {
    let mut all = Vec::new();
    while let Some(batch) = queue.front(stats) {
        queue.done(batch.number, stats);
        all.push((batch.number, String::from_utf8(batch.request).unwrap()));
    }
    all
}

/// Check that batches come out in order, that those that nobody took are there for the next agent, that numbers go on where none is left,
/// and that two agents do not share a folder.
#[test]
fn order_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/queue");
    let stats = Stats::default();
    let mut queue = open(&path, &stats);
    for text in ["a", "b", "c"] {
        push(&mut queue, &stats, text);
    }
    let first = queue.front(&stats).unwrap();
    queue.done(first.number, &stats);
    let mut second = open(&path, &Stats::default());
    assert!(second.folder.is_none() && second.is_empty(), "it is held");
    assert_eq!(push(&mut second, &Stats::default(), "in memory"), 1);
    drop(queue);
    let mut queue = open(&path, &stats);
    assert_eq!(push(&mut queue, &stats, "d"), 4);
    assert_eq!(drain(&mut queue, &stats), [(2, "b".into()), (3, "c".into()), (4, "d".into())]);
    drop(queue);
    let mut queue = open(&path, &stats);
    assert!(queue.is_empty());
    assert_eq!(push(&mut queue, &stats, "e"), 5, "numbers go on");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
}

/// Check that what is torn, changed or not ours is left out and counted, and that what is behind it comes.
#[test]
fn damaged_files() {
    let dir = tempfile::tempdir().unwrap();
    let stats = Stats::default();
    let mut queue = open(dir.path(), &stats);
    for number in 1..=6 {
        push(&mut queue, &stats, &"x".repeat(number));
    }
    drop(queue);
    let place = |number| dir.path().join(file::name(number, Signal::Logs));
    let whole = fs::read(place(1)).unwrap();
    fs::write(place(1), &whole[..whole.len() - 1]).unwrap();
    fs::write(place(2), "").unwrap();
    fs::rename(place(3), place(7)).unwrap();
    fs::remove_file(place(4)).unwrap();
    symlink(place(5), place(4)).unwrap();
    fs::write(dir.path().join("new"), "half").unwrap();
    fs::write(dir.path().join("notes.txt"), "somebody's").unwrap();
    fs::create_dir(place(9)).unwrap();
    let mut queue = open(dir.path(), &stats);
    assert_eq!(drain(&mut queue, &stats), [(5, "x".repeat(5)), (6, "x".repeat(6))]);
    assert_eq!(stats.of(Signal::Logs, Fate::Damaged), 3, "two torn ones, and one under another number");
    assert!(!dir.path().join("new").exists() && dir.path().join("notes.txt").exists());
    assert_eq!(push(&mut queue, &stats, "on"), 8);
}

/// Check that the oldest go when there is no room, but never the one that is being sent.
#[test]
fn full() {
    let dir = tempfile::tempdir().unwrap();
    let stats = Stats::default();
    let mut queue = open(dir.path(), &stats);
    let large = "x".repeat(400 << 10);
    push(&mut queue, &stats, &large);
    assert_eq!(queue.front(&stats).unwrap().number, 1);
    for _ in 0..3 {
        push(&mut queue, &stats, &large);
    }
    assert_eq!(stats.of(Signal::Logs, Fate::Full), 2);
    queue.done(1, &stats);
    assert_eq!(drain(&mut queue, &stats).into_iter().map(|(number, _)| number).collect::<Vec<_>>(), [4]);
    assert!(fs::read_dir(dir.path()).unwrap().count() == 1, "only the next number is left");
}

/// Check that a folder that others may write to, or that cannot be made, is not used, that memory takes what it can, and that the folder is
/// used once it can be.
#[test]
fn without_a_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("queue");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    let stats = Stats::default();
    let mut queue = Queue::open(Some(&path), 64 << 20, &stats);
    let large = "x".repeat(3 << 20);
    for _ in 0..4 {
        push(&mut queue, &stats, &large);
    }
    assert_eq!((stats.of(Signal::Logs, Fate::Full), queue.memory_bytes), (2, 6 << 20));
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    push(&mut queue, &stats, "on disk");
    assert_eq!((queue.kept.len(), queue.memory.len()), (1, 2));
    let order: Vec<u64> = drain(&mut queue, &stats).into_iter().map(|(number, _)| number).collect();
    assert_eq!(order, [3, 4, 5]);
    let mut nowhere = Queue::open(Some(Path::new("/proc/none/queue")), ROOM, &stats);
    push(&mut nowhere, &stats, "kept all the same");
    assert_eq!(drain(&mut nowhere, &stats).len(), 1);
}

#[derive(Clone, Debug)]
enum Act {
    Push(u16),
    Send,
    Restart,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![4 => (0u16..2000).prop_map(Act::Push), 3 => Just(Act::Send), 1 => Just(Act::Restart)];
    prop::collection::vec(act, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Check, for any order of coming, going and restarting: each batch comes once, in order, as it was, or was counted as too many.
    #[test]
    fn nothing_is_lost_uncounted(acts in acts(), max in 3000u64..20_000) {
        let dir = tempfile::tempdir().unwrap();
        let stats = Stats::default();
        let mut queue = Queue::open(Some(dir.path()), max, &stats);
        let (mut pushed, mut got) = (BTreeMap::new(), Vec::new());
        for act in acts {
            match act {
                Act::Push(length) => {
                    let text = "y".repeat(usize::from(length));
                    pushed.insert(push(&mut queue, &stats, &text), text);
                }
                Act::Send => if let Some(batch) = queue.front(&stats) {
                    queue.done(batch.number, &stats);
                    got.push((batch.number, String::from_utf8(batch.request).unwrap()));
                }
                Act::Restart => {
                    drop(queue);
                    queue = Queue::open(Some(dir.path()), max, &stats);
                }
            }
            prop_assert!(queue.kept_bytes <= max);
        }
        got.extend(drain(&mut queue, &stats));
        prop_assert!(got.is_sorted_by(|one, other| one.0 < other.0));
        for (number, text) in &got {
            prop_assert_eq!(pushed.get(number), Some(text));
        }
        prop_assert_eq!(pushed.len() as u64, got.len() as u64 + stats.of(Signal::Logs, Fate::Full));
        prop_assert_eq!(stats.of(Signal::Logs, Fate::Damaged), 0);
    }
}
