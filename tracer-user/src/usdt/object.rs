//! The USDT probes of an ELF file, and the libraries that it needs.
//!
//! A note's addresses are those of the linker that made it. A tool that moved the file's parts since (prelink) has moved
//! `.stapsdt.base` with them, so that what is missing to its address now is to be added to them. Every number in the file is taken as
//! a claim: all reads are checked, and bounded.

use object::{
    LittleEndian, ReadRef,
    elf::{self, FileHeader64},
    read::elf::{Dyn, FileHeader, ProgramHeader, SectionHeader, SectionTable, Sym},
};
use rustc_hash::FxHashMap;

use super::{
    argument::{Argument, Memory, Operand, parse},
    registers::Machine,
    spec,
};

const LE: LittleEndian = LittleEndian;

/// Name and type of the notes (`sys/sdt.h`).
const NOTE_OWNER: &[u8] = b"stapsdt";
const NOTE_TYPE: u32 = 3;
const NOTE_SECTION: &[u8] = b".note.stapsdt";
const BASE_SECTION: &[u8] = b".stapsdt.base";
/// More program headers than this no kernel loads (`load_elf_phdrs` in fs/binfmt_elf.c: 64 KiB of them).
const MAX_SEGMENTS: usize = 1170;
/// What is looked at beyond that: sections, bytes of notes, probes, length of a name, libraries, symbols.
const MAX_SECTIONS: usize = 4096;
const MAX_NOTE_BYTES: u64 = 16 << 20;
const MAX_PROBES: usize = 16_384;
const MAX_NAME: usize = 128;
const MAX_ARGUMENT_TEXT: usize = 1024;
const MAX_DYNAMIC: usize = 4096;
const MAX_NEEDED: usize = 256;
const MAX_PATH: usize = 4096;
const MAX_SYMBOLS: usize = 4 << 20;

/// Why a file has no probes to tell of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsdtError {
    #[error("no ELF file of 64 bits")]
    NotElf,
    #[error("malformed ELF file: {0}")]
    Malformed(&'static str),
}

/// An executable or a library, as far as USDT is concerned.
#[derive(Clone, Debug)]
pub struct UsdtObject {
    pub machine: Machine,
    /// In the order of the notes.
    pub probes: Vec<Probe>,
    /// Libraries that the loader is to load with it, by the names that it is given.
    pub needed: Vec<String>,
    /// Where it is to look for them first (`DT_RUNPATH`, else `DT_RPATH`), with `$ORIGIN` as it stands.
    pub search: Vec<String>,
    /// Link addresses of the symbols that arguments name.
    symbols: FxHashMap<String, u64>,
}

/// One place that is a probe. Several can have one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    pub provider: String,
    pub name: String,
    /// Link-time address.
    pub address: u64,
    pub file_offset: u64,
    /// The counter that says whether anybody listens: the program makes the arguments only then.
    pub semaphore: Option<Semaphore>,
    pub arguments: Vec<Argument>,
}

/// A counter of 16 bits in the program's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Semaphore {
    pub address: u64,
    pub file_offset: u64,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    address: u64,
    offset: u64,
    file_size: u64,
}

impl UsdtObject {
    /// Reads the notes of a file: of its bytes, or of a file through a cache, so that of a large one little is read.
    pub fn read<'data, R: ReadRef<'data>>(data: R) -> Result<Self, UsdtError> {
        let header = FileHeader64::<LittleEndian>::parse(data).map_err(|_| UsdtError::NotElf)?;
        if !header.is_little_endian() {
            return Err(UsdtError::NotElf);
        }
        let machine = match header.e_machine(LE) {
            elf::EM_X86_64 => Machine::X86_64,
            elf::EM_AARCH64 => Machine::Aarch64,
            _ => Machine::Other,
        };
        let programs = header.program_headers(LE, data).map_err(|_| UsdtError::Malformed("program headers outside the file"))?;
        if programs.len() > MAX_SEGMENTS {
            return Err(UsdtError::Malformed("more program headers than a kernel loads"));
        }
        let end = data.len().unwrap_or(0);
        // What lies beyond the file is nowhere.
        let segment = |program: &elf::ProgramHeader64<LittleEndian>| Segment {
            address: program.p_vaddr(LE),
            offset: program.p_offset(LE),
            file_size: program.p_filesz(LE).min(end.saturating_sub(program.p_offset(LE))),
        };
        let loads: Vec<Segment> = programs.iter().filter(|program| program.p_type(LE) == elf::PT_LOAD).map(segment).collect();
        let dynamic = programs.iter().find_map(|program| program.dynamic(LE, data).ok().flatten()).unwrap_or_default();
        let (needed, search) = libraries(dynamic, &loads, data);
        let mut this = Self { machine, probes: Vec::new(), needed, search, symbols: FxHashMap::default() };
        let Ok(sections) = header.sections(LE, data) else { return Ok(this) };
        if sections.len() <= MAX_SECTIONS {
            this.read_notes(&sections, &loads, data);
            this.find_symbols(&sections, data);
        }
        Ok(this)
    }

    /// The link address of a symbol that an argument names.
    pub fn symbol(&self, name: &str) -> Option<u64> {
        self.symbols.get(name).copied()
    }

    /// Whether an argument of one of its probes can be fetched on this machine.
    pub fn is_fetchable(&self, argument: &Argument) -> bool {
        self.machine == Machine::X86_64 && spec::is_fetchable(argument, &|name| self.symbol(name))
    }

    fn read_notes<'data, R: ReadRef<'data>>(
        &mut self,
        sections: &SectionTable<'data, FileHeader64<LittleEndian>, R>,
        loads: &[Segment],
        data: R,
    ) {
        let named = |name: &'static [u8]| {
            sections.iter().filter(move |section| sections.section_name(LE, section).is_ok_and(|found| found == name))
        };
        let base = named(BASE_SECTION).next().map(|section| section.sh_addr(LE));
        for section in named(NOTE_SECTION).filter(|section| section.sh_size(LE) <= MAX_NOTE_BYTES) {
            let Ok(Some(mut notes)) = section.notes(LE, data) else { continue };
            while let Ok(Some(note)) = notes.next() {
                if self.probes.len() >= MAX_PROBES {
                    return;
                }
                let ours = note.name() == NOTE_OWNER && note.n_type(LE).0 == NOTE_TYPE;
                let probe = ours.then(|| probe(note.desc(), base, self.machine, loads)).flatten();
                self.probes.extend(probe);
            }
        }
    }

    /// Looks for the symbols that arguments name. Mostly there are none.
    fn find_symbols<'data, R: ReadRef<'data>>(&mut self, sections: &SectionTable<'data, FileHeader64<LittleEndian>, R>, data: R) {
        let operands = self.probes.iter().flat_map(|probe| &probe.arguments).map(|argument| &argument.operand);
        let mut wanted: FxHashMap<&str, Option<u64>> = FxHashMap::default();
        for operand in operands {
            if let Operand::Memory(Memory { symbol: Some(name), .. }) = operand {
                wanted.insert(name, None);
            }
        }
        let tables: &[_] = if wanted.is_empty() { &[] } else { &[elf::SHT_SYMTAB, elf::SHT_DYNSYM] };
        for &kind in tables {
            let Ok(table) = sections.symbols(LE, data, kind) else { continue };
            for symbol in table.iter().take(MAX_SYMBOLS).filter(|symbol| symbol.st_shndx(LE) != elf::SHN_UNDEF) {
                let name = table.symbol_name(LE, symbol).ok().filter(|name| name.len() <= MAX_NAME);
                let Some(name) = name.and_then(|name| std::str::from_utf8(name).ok()) else { continue };
                if let Some(place) = wanted.get_mut(name) {
                    place.get_or_insert(symbol.st_value(LE));
                }
            }
        }
        self.symbols = wanted.into_iter().filter_map(|(name, address)| Some((name.to_owned(), address?))).collect();
    }
}

/// A note's content: the addresses of probe, base and semaphore, then provider, name and arguments, each with its NUL.
fn probe(content: &[u8], base: Option<u64>, machine: Machine, loads: &[Segment]) -> Option<Probe> {
    let (words, text) = content.split_at_checked(24)?;
    let mut words = words.chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_le_bytes));
    let (address, old_base, semaphore) = (words.next()?, words.next()?, words.next()?);
    let mut texts = text.split(|byte| *byte == 0);
    let mut word =
        |limit: usize| texts.next().map(|text| String::from_utf8_lossy(text.get(..limit).unwrap_or(text)).into_owned());
    let (provider, name, arguments) = (word(MAX_NAME)?, word(MAX_NAME)?, word(MAX_ARGUMENT_TEXT).unwrap_or_default());
    let moved = base.filter(|_| old_base != 0).map_or(0, |base| base.wrapping_sub(old_base));
    let address = address.wrapping_add(moved);
    let semaphore = Some(semaphore).filter(|address| *address != 0).map(|address| address.wrapping_add(moved));
    Some(Probe {
        provider,
        name,
        address,
        file_offset: file_offset(address, loads)?,
        // One that is nowhere in the file could not be raised, and nothing would fire.
        semaphore: match semaphore {
            None => None,
            Some(address) => Some(Semaphore { address, file_offset: file_offset(address, loads)? }),
        },
        arguments: parse(&arguments, machine),
    })
}

fn file_offset(address: u64, loads: &[Segment]) -> Option<u64> {
    let segment = loads.iter().find(|s| address.checked_sub(s.address).is_some_and(|offset| offset < s.file_size))?;
    segment.offset.checked_add(address - segment.address)
}

/// What the loader is to load with the file, and where it is to look first.
fn libraries<'data, R: ReadRef<'data>>(
    dynamic: &[elf::Dyn64<LittleEndian>],
    loads: &[Segment],
    data: R,
) -> (Vec<String>, Vec<String>) {
    let entries = || {
        dynamic
            .iter()
            .take(MAX_DYNAMIC)
            .map(|entry| (entry.d_tag(LE), entry.d_val(LE)))
            .take_while(|(tag, _)| *tag != elf::DT_NULL)
    };
    let value = |wanted| entries().find(|(tag, _)| *tag == wanted).map(|(_, value)| value);
    let table = value(elf::DT_STRTAB).and_then(|address| file_offset(address, loads)).zip(value(elf::DT_STRSZ));
    let Some((table, size)) = table else { return Default::default() };
    let text = |at: u64| {
        let (start, end) = (table.checked_add(at)?, table.checked_add(size)?);
        let text = data.read_bytes_at_until(start..end.min(start.checked_add(MAX_PATH as u64)?), 0).ok()?;
        std::str::from_utf8(text).ok().filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let needed = entries().filter(|(tag, _)| *tag == elf::DT_NEEDED).take(MAX_NEEDED).filter_map(|(_, at)| text(at)).collect();
    let search = value(elf::DT_RUNPATH).or(value(elf::DT_RPATH)).and_then(text).unwrap_or_default();
    (needed, search.split(':').filter(|path| !path.is_empty()).take(MAX_NEEDED).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests;
