//! Inline trees: which calls the compiler folded into a function.
//!
//! An entry is 20 bytes with the call's position in Go 1.18 and 1.19, 16 bytes with a parent pc from 1.20 on. Sources:
//! `runtime/symtabinl.go`, `runtime/symtab.go` (`inlinedCall`), `cmd/link/internal/ld/pcln.go`.

use super::{
    elf::{Elf, read_u16, read_u32},
    pclntab::{Format, Function, Pclntab},
};

/// `internal/abi.PCDATA_InlTreeIndex` and `FUNCDATA_InlTree`.
pub const PCDATA_TREE_INDEX: u32 = 2;
pub const FUNCDATA_TREE: u8 = 3;
/// Calls nested deeper than this are not followed: the compiler's own budget ends far earlier.
pub const MAX_DEPTH: usize = 64;

/// One inlined call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InlinedCall {
    /// Offset of the callee's name in the table of names.
    pub name: u32,
    pub site: CallSite,
}

/// Where the call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallSite {
    /// Code offset of an instruction that belongs to the caller: its position is the call's.
    Code(u32),
    /// File number and line, and the caller's entry in the tree (-1 for the function itself).
    Position { file: i32, line: i32, parent: i32 },
}

/// The inline tree of one function.
#[derive(Clone, Copy)]
pub struct InlineTree<'a> {
    bytes: &'a [u8],
    format: Format,
}

impl<'a> InlineTree<'a> {
    /// `None`: nothing is inlined into the function, or the binary does not say.
    pub fn of(elf: &'a Elf, table: Pclntab<'_>, gofunc: u64, function: Function) -> Option<Self> {
        let offset = table.funcdata(function, FUNCDATA_TREE)?;
        Some(Self { bytes: elf.from(gofunc.checked_add(offset.into())?)?, format: table.header.format })
    }

    pub fn call(self, index: i32) -> Option<InlinedCall> {
        let index = usize::try_from(index).ok()?;
        match self.format {
            Format::Go118 => {
                let at = index.checked_mul(20)?;
                let word = |offset: usize| at.checked_add(offset).and_then(|at| read_u32(self.bytes, at));
                let parent = i32::from(read_u16(self.bytes, at)? as i16);
                let site = CallSite::Position { file: word(4)? as i32, line: word(8)? as i32, parent };
                Some(InlinedCall { name: word(12)?, site })
            }
            Format::Go120 => {
                let at = index.checked_mul(16)?;
                let word = |offset: usize| at.checked_add(offset).and_then(|at| read_u32(self.bytes, at));
                Some(InlinedCall { name: word(4)?, site: CallSite::Code(word(8)?) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that both entry layouts are read, and that an index outside the tree is refused.
    #[test]
    fn both_layouts() {
        let old: Vec<u8> = [&[0xff, 0xff, 0, 0][..], &[1, 0, 0, 0, 42, 0, 0, 0, 7, 0, 0, 0, 9, 0, 0, 0]].concat();
        let tree = InlineTree { bytes: &old, format: Format::Go118 };
        let site = CallSite::Position { file: 1, line: 42, parent: -1 };
        assert_eq!(tree.call(0), Some(InlinedCall { name: 7, site }));
        let new: Vec<u8> = [0u32, 7, 9, 40].iter().flat_map(|w| w.to_le_bytes()).collect();
        let tree = InlineTree { bytes: &new, format: Format::Go120 };
        assert_eq!(tree.call(0), Some(InlinedCall { name: 7, site: CallSite::Code(9) }));
        for index in [-1, 1, i32::MIN, i32::MAX] {
            assert_eq!(tree.call(index), None, "{index}");
        }
    }
}
