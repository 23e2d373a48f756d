//! The memory of a running process.

use std::cell::Cell;

use tracer_user::{
    golang::GoBinary,
    id::Goid,
    snapshot::{
        Before, Detail,
        go_tests::{self, Candidate},
        memory::{Memory, MemoryError, Piece},
        take_again,
    },
};

/// The program whose goroutines the memory is said to hold.
static PROGRAM: &[u8] = include_bytes!("../../corpus/go_binary/go1.26");

/// Bits of the input's 17th byte.
const EVERYWHERE: u8 = 1;
const CHANGES: u8 = 2;
const BRIEF: u8 = 4;
const CHANNELS: u8 = 8;

/// A memory made of the input: its first two words are the number of goroutines and where their list is.
struct Lying<'a> {
    /// Where the program keeps these two words.
    len: u64,
    first: u64,
    input: &'a [u8],
    flags: u8,
    reads: Cell<u8>,
}

/// All goroutines of a process that presents whatever it likes.
pub fn read(input: &[u8]) {
    thread_local! {
        static BINARY: GoBinary = GoBinary::from_bytes(PROGRAM.to_vec()).expect("the seed is a Go binary");
    }
    BINARY.with(|binary| {
        let (Some(&flags), Ok(all)) = (input.get(16), binary.all_goroutines()) else { return };
        let detail = match flags & (BRIEF | CHANNELS) {
            0 => Detail::Whole,
            CHANNELS => Detail::WithChannels,
            _ => Detail::WithoutStacks,
        };
        let memory = Lying { len: all.len, first: all.first, input, flags, reads: Cell::new(0) };
        let mut before = Before::default();
        for found in [(); 2].iter().filter_map(|()| take_again(&memory, binary, 0, detail, &mut before).ok()) {
            for goroutine in &found.all {
                assert!(goroutine.state.is_some() || found.torn > 0);
            }
            assert!(found.stacks.iter().all(|stack| (1..=128).contains(&stack.pcs.len())));
        }
    });
}

/// The names of tests, out of the memory of a process that presents whatever it likes.
pub fn tests(input: &[u8]) {
    let (Some(stack_hi), Some(flags)) = (input.first_chunk::<8>(), input.get(16)) else { return };
    let memory = Lying { len: u64::MAX, first: u64::MAX, input, flags: *flags, reads: Cell::new(0) };
    let candidate = Candidate { goid: Goid(1), stack_hi: u64::from_le_bytes(*stack_hi) };
    if let Ok(names) = go_tests::names(&memory, &[candidate], &|pc| pc.is_multiple_of(2)) {
        assert!(names.values().flatten().all(|name| !name.is_empty() && name.len() <= 1024));
    }
}

impl Memory for Lying<'_> {
    fn read(&self, pieces: &[Piece], buffer: &mut [u8]) -> Result<Vec<usize>, MemoryError> {
        self.reads.set(self.reads.get().wrapping_add(1));
        let mut rest = buffer;
        let mut lens = Vec::new();
        for piece in pieces {
            let (into, behind) = std::mem::take(&mut rest).split_at_mut(piece.len);
            lens.push(self.fill(piece.address, into));
            rest = behind;
        }
        Ok(lens)
    }
}

impl Lying<'_> {
    /// Everywhere the same bytes over and over, or only as many as there are.
    fn fill(&self, address: u64, into: &mut [u8]) -> usize {
        let words = [(self.len, 0), (self.first, 8)];
        let start = words.iter().find_map(|(word, at)| (address == *word).then_some(*at));
        let start = start.or_else(|| {
            let mapped = if self.flags & EVERYWHERE != 0 { address < 1 << 47 } else { address < self.input.len() as u64 };
            mapped.then_some((address % self.input.len() as u64) as usize)
        });
        let Some(mut start) = start else { return 0 };
        let mut rest = &mut *into;
        while !rest.is_empty() {
            let piece = self.input.get(start..).unwrap_or_default();
            let (filled, left) = rest.split_at_mut(piece.len().min(rest.len()));
            filled.copy_from_slice(&piece[..filled.len()]);
            (rest, start) = (left, 0);
        }
        if self.flags & CHANGES != 0
            && let Some(byte) = into.get_mut(usize::from(self.reads.get()))
        {
            *byte ^= self.reads.get();
        }
        into.len()
    }
}
