//! Which goroutines run Go's tests, and what these are called, out of memory alone.
//!
//! `testing.(*T).Run` starts each test as `go tRunner(t, f)`. The wrapper of that statement is the first frame of its goroutine's stack; it calls
//! `testing.tRunner`, which keeps its first argument, the `*testing.T`, where the calling convention has a place for it: behind the
//! return address (`cmd/compile/abi-internal.md`, "spill area"). The test's name is a string in that structure (`src/testing/testing.go`,
//! `common.name`): where exactly differs, so all of its words are tried, and a string that is no test's name is not taken for one.

use rustc_hash::FxHashMap;

use super::memory::{Memory, MemoryError, Piece, Reading};
use crate::id::Goid;

/// The first frames of a stack, in bytes.
const ROOT: usize = 512;
/// `testing.T`, as far as its name may lie.
const TEST: usize = 512;
/// A longer name is none.
const MAX_NAME: u64 = 1024;
/// Tests of one look.
const MAX_TESTS: usize = 4096;
/// What the functions are called that `go test` runs in goroutines of their own.
const PREFIXES: [&str; 4] = ["Test", "Fuzz", "Example", "Benchmark"];

/// A goroutine that may run a test.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    pub goid: Goid,
    /// The end of its stack.
    pub stack_hi: u64,
}

/// The names of tests, by the goroutines that run them; `None`: it cannot be read. `calls` says whether a return address lies in the wrapper.
pub fn names(
    memory: &impl Memory,
    candidates: &[Candidate],
    calls: &dyn Fn(u64) -> bool,
) -> Result<FxHashMap<Goid, Option<String>>, MemoryError> {
    let mut reading = Reading::default();
    let mut names = FxHashMap::default();
    for candidate in candidates.iter().take(MAX_TESTS) {
        let name = match test_of(memory, &mut reading, candidate, calls)? {
            Some(test) => name_of(memory, &mut reading, test)?,
            None => None,
        };
        names.insert(candidate.goid, name);
    }
    Ok(names)
}

/// The `*testing.T` of a goroutine.
fn test_of(
    memory: &impl Memory,
    reading: &mut Reading,
    candidate: &Candidate,
    calls: &dyn Fn(u64) -> bool,
) -> Result<Option<u64>, MemoryError> {
    let Some(address) = candidate.stack_hi.checked_sub(ROOT as u64) else { return Ok(None) };
    reading.read(memory, [Piece { address, len: ROOT }])?;
    let words: Vec<u64> = words(reading.piece(0)).collect();
    let found = words.windows(2).rev().find(|pair| calls(pair[0])).map(|pair| pair[1]);
    Ok(found.filter(|test| *test != 0 && test.is_multiple_of(8)))
}

fn name_of(memory: &impl Memory, reading: &mut Reading, test: u64) -> Result<Option<String>, MemoryError> {
    reading.read(memory, [Piece { address: test, len: TEST }])?;
    let words: Vec<u64> = words(reading.piece(0)).collect();
    let strings = words.windows(2).filter(|pair| pair[0] != 0 && (1..=MAX_NAME).contains(&pair[1]));
    let pieces: Vec<Piece> = strings.map(|pair| Piece { address: pair[0], len: pair[1] as usize }).collect();
    reading.read(memory, pieces.iter().copied())?;
    let mut found: Option<&str> = None;
    for (index, piece) in pieces.iter().enumerate() {
        let text = std::str::from_utf8(reading.piece(index)).ok().filter(|text| text.len() == piece.len && is_name(text));
        match (found, text) {
            // Two names: neither is sure.
            (Some(before), Some(text)) if before != text => return Ok(None),
            (_, Some(text)) => found = Some(text),
            _ => {}
        }
    }
    Ok(found.map(str::to_owned))
}

fn is_name(text: &str) -> bool {
    let fits = |prefix: &&str| text.strip_prefix(*prefix).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_lowercase()));
    PREFIXES.iter().any(fits) && !text.contains(|c: char| c.is_control() || c.is_whitespace())
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::{super::memory::fake::Fake, *};

    const HI: u64 = 0x1_0000;
    const T: u64 = 0x5000;

    /// A goroutine whose stack begins with the wrapper, and a test with these strings.
    fn scene(strings: &[&str]) -> Fake {
        let memory = Fake::default();
        memory.block(HI - ROOT as u64, vec![0; ROOT]);
        memory.write_u64(HI - 96, 0xca11);
        memory.write_u64(HI - 88, T);
        memory.block(T, vec![0; TEST]);
        for (index, text) in strings.iter().enumerate() {
            let (at, text_at) = (T + 40 + 16 * index as u64, 0x9000 + 256 * index as u64);
            memory.block(text_at, text.as_bytes().to_vec());
            memory.write_u64(at, text_at);
            memory.write_u64(at + 8, text.len() as u64);
        }
        memory
    }

    fn name(memory: &Fake) -> Option<String> {
        let candidate = Candidate { goid: Goid(7), stack_hi: HI };
        names(memory, &[candidate], &|pc| pc == 0xca11).unwrap().remove(&Goid(7)).unwrap()
    }

    /// Check that the test's name is found among its strings, and that none is made up.
    #[test]
    fn found() {
        assert_eq!(name(&scene(&["testing.tRunner", "TestCart/full_of_it#01"])).as_deref(), Some("TestCart/full_of_it#01"));
        assert_eq!(name(&scene(&["TestCart", "TestCart"])).as_deref(), Some("TestCart"));
        for strings in [&["testing.tRunner"][..], &[], &["TestCart", "TestBasket"], &["Testify"], &["Test\u{1}"]] {
            assert_eq!(name(&scene(strings)), None, "{strings:?}");
        }
        let elsewhere = scene(&["TestCart"]);
        elsewhere.write_u64(HI - 88, 0xdead_0000);
        assert_eq!(name(&elsewhere), None);
        assert_eq!(name(&Fake::default()), None);
    }
}
