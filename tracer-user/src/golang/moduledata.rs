//! `runtime.firstmoduledata`: where the text begins and what inline trees are counted from.
//!
//! Source: `runtime/symtab.go`, `type moduledata`; offsets measured from DWARF on Go 1.19 to 1.27. Not owned: modules of
//! plugins (only the first one is looked for).

use super::{
    elf::{Elf, read_u64},
    pclntab::{Format, Header},
};

const TEXT: usize = 176;
const ETEXT: usize = 184;
const SIZE_READ: usize = 352;
const MAX_CANDIDATES: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleData {
    pub address: u64,
    pub text: u64,
}

impl ModuleData {
    /// By its section (Go 1.26 and later), else by the one place that points to the table and to its five parts.
    pub fn find(elf: &Elf, header: &Header) -> Option<Self> {
        let section = elf.section(".go.module").map(|(address, _)| address);
        if let Some(found) = section.and_then(|address| Self::at(elf, header, address)) {
            return Some(found);
        }
        elf.pointers_to(header.address, MAX_CANDIDATES).into_iter().find_map(|address| Self::at(elf, header, address))
    }

    fn at(elf: &Elf, header: &Header, address: u64) -> Option<Self> {
        let module = elf.read_relocated(address, SIZE_READ)?;
        let parts = [(8, header.names), (32, header.units), (56, header.files), (80, header.values), (104, header.table)];
        let points = |at, offset: u64| read_u64(&module, at) == header.address.checked_add(offset);
        let valid = read_u64(&module, 0)? == header.address && parts.iter().all(|&(at, offset)| points(at, offset));
        let (text, etext) = (read_u64(&module, TEXT)?, read_u64(&module, ETEXT)?);
        (valid && text < etext).then_some(Self { address, text })
    }

    /// What FUNCDATA offsets count from (`go:func.*`). Its place moved in 1.20 and in 1.27.
    pub fn gofunc(&self, elf: &Elf, format: Format, minor: u32) -> Option<u64> {
        let offset = match format {
            Format::Go118 => 304,
            Format::Go120 if minor < 27 => 320,
            Format::Go120 => 344,
        };
        elf.u64_at(self.address.checked_add(offset)?)
    }
}
