//! The memory of a running process.

use std::cell::Cell;

use tracer_user::{
    golang::GoBinary,
    snapshot::{
        Detail,
        memory::{Memory, MemoryError, Piece},
        take,
    },
};

/// The program whose goroutines the memory is said to hold.
static PROGRAM: &[u8] = include_bytes!("../../corpus/go_binary/go1.26");

/// Bits of the input's 17th byte.
const EVERYWHERE: u8 = 1;
const CHANGES: u8 = 2;
const BRIEF: u8 = 4;

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
        let detail = if flags & BRIEF == 0 { Detail::Whole } else { Detail::WithoutStacks };
        let memory = Lying { len: all.len, first: all.first, input, flags, reads: Cell::new(0) };
        if let Ok(found) = take(&memory, binary, 0, detail) {
            for goroutine in &found.all {
                assert!(goroutine.state.is_some() || found.torn > 0);
            }
            assert!(found.stacks.iter().all(|stack| (1..=128).contains(&stack.pcs.len())));
        }
    });
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
