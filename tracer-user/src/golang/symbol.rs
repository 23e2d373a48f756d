//! From a code address to the frames a person reads: inlined calls innermost, the function that holds the code last.
//!
//! Source: `runtime/symtabinl.go` (`inlineUnwinder`).

use super::{
    elf::Elf,
    inline::{CallSite, InlineTree, MAX_DEPTH, PCDATA_TREE_INDEX},
    pclntab::{Function, MAX_STEPS, Pclntab},
};
use crate::recording::contract::Frame;

/// More inlined calls than this are not searched: the runtime's largest function has some hundreds.
const MAX_CALLS: i32 = 10_000;

/// Frames of the instruction at `address`; empty where no function holds it.
pub fn frames(elf: &Elf, table: Pclntab<'_>, gofunc: Option<u64>, address: u64) -> Vec<Frame> {
    let Some(function) = table.lookup(address) else { return Vec::new() };
    let Ok(mut offset) = u32::try_from(address - function.start) else { return Vec::new() };
    let tree = gofunc.and_then(|gofunc| InlineTree::of(elf, table, gofunc, function));
    let mut left = MAX_STEPS;
    let tree_index = |offset, left: &mut u32| table.pcdata(function, PCDATA_TREE_INDEX, offset, left).unwrap_or(-1);
    let mut frames = Vec::new();
    let (mut file, mut line) = table.position(function, offset, &mut left);
    let mut index = tree_index(offset, &mut left);
    while let Some(call) = tree.and_then(|tree| tree.call(index))
        && frames.len() < MAX_DEPTH
    {
        frames.push(Frame { function: table.name_at(call.name).into_owned(), file, line });
        match call.site {
            CallSite::Code(parent) => {
                offset = parent;
                (file, line) = table.position(function, offset, &mut left);
                index = tree_index(offset, &mut left);
            }
            CallSite::Position { file: number, line: at, parent } => {
                file = table.file(function, number).unwrap_or_default().into_owned();
                line = u32::try_from(at).unwrap_or(0);
                index = parent;
            }
        }
    }
    frames.push(Frame { function: table.name(function).into_owned(), file, line });
    frames
}

/// Which of these functions the compiler folded a call of into `function`. Takes what it looks at from `left`; none where nothing is left.
pub fn inlines<const N: usize>(
    elf: &Elf,
    table: Pclntab<'_>,
    gofunc: Option<u64>,
    function: Function,
    names: [&str; N],
    left: &mut u32,
) -> [bool; N] {
    let mut found = [false; N];
    let Some(tree) = gofunc.and_then(|gofunc| InlineTree::of(elf, table, gofunc, function)) else { return found };
    let last = table.pcdata_max(function, PCDATA_TREE_INDEX, left).unwrap_or(-1);
    for call in (0..=last.min(MAX_CALLS)).filter_map(|index| tree.call(index)) {
        *left = left.saturating_sub(1);
        if *left == 0 {
            break;
        }
        for (name, found) in names.iter().zip(&mut found) {
            *found |= table.name_is(call.name, name);
        }
    }
    found
}
