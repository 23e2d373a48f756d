//! The cut-down binaries that fuzzing begins with (`fuzz/corpus/go_binary`), and what a crafted one must not cost.

use std::time::{Duration, Instant};

use super::*;

/// One of which the runtime's offsets are believed as they are.
pub(super) fn seed() -> Vec<u8> {
    SEEDS[0].1.to_vec()
}

const SEEDS: [(&str, &[u8]); 3] = [
    ("1.19", include_bytes!("../../../fuzz/corpus/go_binary/go1.19")),
    ("1.26", include_bytes!("../../../fuzz/corpus/go_binary/go1.26")),
    ("1.26, profile-guided", include_bytes!("../../../fuzz/corpus/go_binary/go1.26-profile-guided")),
];
/// What takes milliseconds if it is bounded and hours if it is not.
const LONG: Duration = Duration::from_secs(20);

/// Check that each seed is a whole Go binary: version, plan, list of goroutines, and names with the calls inlined into them.
#[test]
fn seeds_are_whole() {
    for (name, seed) in SEEDS {
        let binary = GoBinary::from_bytes(seed.to_vec()).unwrap();
        assert!(name.starts_with(&format!("1.{}", binary.version().release().1)), "{name}: {}", binary.version());
        let plan = binary.plan(Tier::T2);
        assert!(plan.complete(), "{name}: {:?}", plan.missing);
        assert!(binary.all_goroutines().is_ok() && binary.layout().is_ok(), "{name}");
        let deepest = plan.sites.iter().map(|site| binary.symbolize(site.address, CodeUse::Entry).len()).max();
        assert!(deepest.is_some_and(|frames| frames > 1) || !name.contains("guided"), "{name}: {deepest:?}");
    }
}

/// Check that the walk of a stack begins at gopark's own frame where gopark has made it already: before Go 1.21 its first cheap
/// instruction lies behind that, and the word at the stack pointer is no return address.
#[test]
fn park_behind_the_prologue() {
    for (name, seed) in SEEDS {
        let plan = GoBinary::from_bytes(seed.to_vec()).unwrap().plan(Tier::T2);
        let parks: Vec<_> = plan.sites.iter().filter(|site| site.hook == Hook::Park).map(|site| site.framed).collect();
        assert_eq!(parks, [name == "1.19"], "{name}");
    }
}

/// A copy of the seed of Go 1.26 in which the table of functions has been changed.
fn with_table(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let seed = SEEDS[1].1;
    let binary = GoBinary::from_bytes(seed.to_vec()).unwrap();
    let at = usize::try_from(binary.shelf.outline().file_offset(binary.header.address).unwrap()).unwrap();
    let mut bytes = seed.to_vec();
    change(&mut bytes[at..]);
    bytes
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Check that a thousand segments that are all the same bytes are refused: each would be searched.
#[test]
fn segments_on_top_of_one_another() {
    const SEGMENTS: u16 = 1000;
    let mut file = SEEDS[1].1.to_vec();
    let size = file.len() as u64;
    file[32..40].copy_from_slice(&size.to_le_bytes());
    file[56..58].copy_from_slice(&SEGMENTS.to_le_bytes());
    for number in 0..u64::from(SEGMENTS) {
        for word in [1 | 6 << 32, 0, number << 32, 0, size, size, 1] {
            file.extend(word.to_le_bytes());
        }
    }
    assert!(matches!(GoBinary::from_bytes(file.clone()), Err(GolangError::Malformed(reason)) if reason.contains("overlap")));
    file[56..58].fill(0xff);
    assert!(GoBinary::from_bytes(file).is_err());
}

/// Check that entries that go up and down, so that functions lie on top of one another, are not searched again and again.
#[test]
fn functions_on_top_of_one_another() {
    let bytes = with_table(|table| {
        let functions = read_word(table, 64);
        let (entries, count) = (functions as usize, (table.len() - functions as usize) / 8 - 1);
        let (low, high) = (elf::read_u32(table, entries).unwrap(), elf::read_u32(table, entries + 8 * 20).unwrap());
        let record = elf::read_u32(table, entries + 4).unwrap();
        table[8..16].copy_from_slice(&(count.min(2000) as u64).to_le_bytes());
        for slot in 0..count.min(2000) {
            put(table, entries + slot * 8, if slot % 2 == 0 { low } else { high });
            put(table, entries + slot * 8 + 4, record);
        }
    });
    let began = Instant::now();
    if let Ok(binary) = GoBinary::from_bytes(bytes) {
        let _ = binary.plan(Tier::T2);
    }
    assert!(began.elapsed() < LONG);
}

fn read_word(bytes: &[u8], at: usize) -> u64 {
    elf::read_u64(bytes, at).unwrap()
}

/// Check that a table of values without an end is left after the steps that one question may take, however many calls are inlined.
#[test]
fn endless_tables() {
    const RECORD: usize = 64;
    // A record of zeroes, then up by one and on by one, over and over: a step of two bytes.
    let bytes: Vec<u8> = [0; RECORD].into_iter().chain([2, 1].into_iter().cycle().take(8 << 20)).collect();
    let header = Header {
        address: 0,
        format: pclntab::Format::Go120,
        functions: 1,
        text_start: 0,
        names: 0,
        units: 0,
        files: 0,
        values: RECORD as u64,
        table: 0,
    };
    let table = Pclntab { header: &header, bytes: &bytes, text: 0 };
    let function = table.functions().next().unwrap();
    let mut left = pclntab::MAX_STEPS;
    let began = Instant::now();
    for _ in 0..100_000 {
        let _ = table.position(function, u32::MAX, &mut left);
    }
    assert!(left == 0 && began.elapsed() < LONG, "{left} steps left after {:?}", began.elapsed());
}
