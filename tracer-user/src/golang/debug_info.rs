//! What debug information and the symbol table say of the runtime: where the members of its structures are.
//!
//! Owns the way through `.debug_info` (DWARF 4 and 5, compressed or not) to a few structures of package runtime, and one look
//! into `.symtab`. Sources: the DWARF standard; `cmd/link/internal/ld/dwarf.go`, which puts every type into units called
//! `runtime`. The file may lie: sections are read up to a bound, entries up to another, and what is odd yields nothing.

use std::{borrow::Cow, io::Read};

use flate2::read::ZlibDecoder;
use gimli::{AttributeValue, DebugAbbrev, DebugInfo, EndianSlice, Section, UnitHeader, constants as dw};
use object::{
    LittleEndian, SectionIndex,
    elf::{self, CompressionHeader64, FileHeader64},
    pod,
    read::elf::{FileHeader, SectionHeader},
};

use super::elf::{read_u32, read_u64};

const LE: LittleEndian = LittleEndian;

/// The longest `.debug_info` (unpacked) that is read; that of a program of 100 MB has 40 MB.
const MAX_INFO: u64 = 256 << 20;
/// The same of `.debug_abbrev` and `.debug_str`.
const MAX_OTHER: u64 = 32 << 20;
/// Attributes that are looked at, over all units: the unit that holds a large program's types has some millions.
const MAX_ATTRIBUTES: usize = 40_000_000;
const MAX_UNITS: usize = 1 << 20;
/// Members of one structure; `runtime.m` has about a hundred.
const MAX_MEMBERS: usize = 1000;
const MAX_NAME: usize = 200;
const MAX_SECTIONS: usize = 10_000;
/// Size of an `Elf64_Sym`.
const SYMBOL: usize = 24;

type Slice<'a> = EndianSlice<'a, gimli::LittleEndian>;

/// A structure of the runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Structure {
    pub name: &'static str,
    pub size: u64,
    /// Offset by name.
    pub members: Vec<(String, u64)>,
}

impl Structure {
    pub fn member(&self, name: &str) -> Option<u64> {
        self.members.iter().find(|(known, _)| known == name).map(|(_, offset)| *offset)
    }
}

/// Those of `wanted` (`runtime.g`) that the debug information in this ELF file describes.
pub fn structures(file: &[u8], wanted: &[&'static str]) -> Vec<Structure> {
    let section = |name, max| section(file, name, max).unwrap_or_default();
    let info = section(".debug_info", MAX_INFO);
    if info.is_empty() {
        return Vec::new();
    }
    let (abbrev, strings) = (section(".debug_abbrev", MAX_OTHER), section(".debug_str", MAX_OTHER));
    let mut search = Search {
        abbrev: DebugAbbrev::new(&abbrev, gimli::LittleEndian),
        strings: &strings,
        wanted,
        attributes: 0,
        found: Vec::new(),
    };
    // What was found before something odd is as good as the rest of the file.
    let _ = search.units(&DebugInfo::new(&info, gimli::LittleEndian));
    search.found
}

struct Search<'a> {
    abbrev: DebugAbbrev<Slice<'a>>,
    strings: &'a [u8],
    wanted: &'a [&'static str],
    attributes: usize,
    found: Vec<Structure>,
}

impl<'a> Search<'a> {
    fn units(&mut self, info: &DebugInfo<Slice<'a>>) -> gimli::Result<()> {
        let mut units = info.units();
        let mut known = None;
        for _ in 0..MAX_UNITS {
            let Some(unit) = units.next()? else { return Ok(()) };
            // Go's units share one table.
            let offset = unit.debug_abbrev_offset();
            let table = match known.take().filter(|(at, _)| *at == offset) {
                Some((_, table)) => table,
                None => {
                    self.attributes += self.abbrev.reader().slice().len() / 2;
                    unit.abbreviations(&self.abbrev)?
                }
            };
            self.unit(&unit, &table)?;
            known = Some((offset, table));
            if self.found.len() == self.wanted.len() || self.attributes > MAX_ATTRIBUTES {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Goes through one unit if it is called `runtime`.
    fn unit(&mut self, unit: &UnitHeader<Slice<'a>>, table: &gimli::Abbreviations) -> gimli::Result<()> {
        let mut entries = unit.entries_raw(table, None)?;
        let mut first = true;
        // The structure whose members come next, and how deep they lie.
        let mut open: Option<(Structure, isize)> = None;
        while !entries.is_empty() && self.attributes <= MAX_ATTRIBUTES {
            let depth = entries.next_depth();
            if let Some((structure, _)) = open.take_if(|(_, inside)| depth < *inside) {
                self.found.push(structure);
            }
            let Some(entry) = entries.read_abbreviation()? else { continue };
            self.attributes += entry.attributes().len() + 1;
            let member = open.as_ref().is_some_and(|(_, inside)| depth == *inside) && entry.tag() == dw::DW_TAG_member;
            if !first && !member && entry.tag() != dw::DW_TAG_structure_type {
                entries.skip_attributes(entry.attributes())?;
                continue;
            }
            let (mut name, mut number) = (None, None);
            for specification in entry.attributes() {
                let attribute = entries.read_attribute(*specification)?;
                match attribute.name() {
                    dw::DW_AT_name => name = self.text(&attribute.value()),
                    dw::DW_AT_byte_size | dw::DW_AT_data_member_location => number = attribute.udata_value(),
                    _ => {}
                }
            }
            if first {
                if name != Some(b"runtime") {
                    return Ok(());
                }
                first = false;
            } else if let (Some(name), Some(number)) = (name, number) {
                match &mut open {
                    Some((structure, _)) if member && structure.members.len() < MAX_MEMBERS => {
                        structure.members.push((String::from_utf8_lossy(name).into_owned(), number));
                    }
                    None if entry.has_children() => {
                        open = self.wanted(name).map(|name| (Structure { name, size: number, members: Vec::new() }, depth + 1));
                    }
                    _ => {}
                }
            }
        }
        self.found.extend(open.map(|(structure, _)| structure));
        Ok(())
    }

    /// The name as we have it, if it is wanted and new.
    fn wanted(&self, name: &[u8]) -> Option<&'static str> {
        let name = self.wanted.iter().copied().find(|wanted| wanted.as_bytes() == name)?;
        self.found.iter().all(|found| found.name != name).then_some(name)
    }

    fn text(&self, value: &AttributeValue<Slice<'a>>) -> Option<&'a [u8]> {
        let text = match value {
            AttributeValue::String(text) => text.slice(),
            AttributeValue::DebugStrRef(offset) => {
                let rest = self.strings.get(offset.0..)?;
                let rest = rest.get(..MAX_NAME).unwrap_or(rest);
                rest.split(|byte| *byte == 0).next()?
            }
            _ => return None,
        };
        (text.len() < MAX_NAME).then_some(text)
    }
}

/// The section of this name, unpacked; `None` if there is none or it has more than `max` bytes.
fn section<'a>(file: &'a [u8], name: &str, max: u64) -> Option<Cow<'a, [u8]>> {
    let header = FileHeader64::<LittleEndian>::parse(file).ok()?;
    let sections = header.sections(LE, file).ok()?;
    let names = sections.section(SectionIndex(header.shstrndx(LE, file).ok()? as usize)).ok()?.data(LE, file).ok()?;
    let mut named = sections.iter().take(MAX_SECTIONS).filter(|section| is_named(names, section.sh_name.get(LE), name));
    let section = named.next()?;
    let bytes = section.data(LE, file).ok()?;
    if section.sh_flags(LE).0 & elf::SHF_COMPRESSED.0 == 0 {
        return (bytes.len() as u64 <= max).then_some(Cow::Borrowed(bytes));
    }
    let (header, packed) = pod::from_bytes::<CompressionHeader64<LittleEndian>>(bytes).ok()?;
    let size = header.ch_size.get(LE);
    if header.ch_type.get(LE) != elf::ELFCOMPRESS_ZLIB || size > max {
        return None;
    }
    let mut unpacked = Vec::new();
    ZlibDecoder::new(packed).take(size).read_to_end(&mut unpacked).ok()?;
    Some(Cow::Owned(unpacked))
}

/// Address and size of a symbol, as `.symtab` has them.
pub fn symbol(file: &[u8], name: &str) -> Option<(u64, u64)> {
    let header = FileHeader64::<LittleEndian>::parse(file).ok()?;
    let sections = header.sections(LE, file).ok()?;
    let table = sections.iter().take(MAX_SECTIONS).find(|section| section.sh_type(LE) == elf::SHT_SYMTAB)?;
    let strings = sections.section(SectionIndex(table.sh_link(LE) as usize)).ok()?.data(LE, file).ok()?;
    let mut named = table
        .data(LE, file)
        .ok()?
        .chunks_exact(SYMBOL)
        .filter(|symbol| read_u32(symbol, 0).is_some_and(|at| is_named(strings, at, name)));
    let symbol = named.next()?;
    Some((read_u64(symbol, 8)?, read_u64(symbol, 16)?))
}

/// Whether `name` stands at this offset of a table of names.
fn is_named(names: &[u8], at: u32, name: &str) -> bool {
    let text = names.get(at as usize..).and_then(|text| text.strip_prefix(name.as_bytes()));
    text.is_some_and(|rest| rest.first() == Some(&0))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::ZlibEncoder};

    use super::*;

    const WANTED: &[&str] = &["runtime.g", "runtime.m"];

    /// An ELF file of nothing but these sections.
    fn file(sections: &[(&str, u64, Vec<u8>)]) -> Vec<u8> {
        let mut names = b"\0.shstrtab\0".to_vec();
        let mut body = vec![0; 64];
        let mut headers = vec![vec![0u8; 64]];
        let mut header = |name: u32, kind: u32, flags: u64, at: usize, len: usize| {
            let mut bytes = vec![0u8; 64];
            bytes[0..4].copy_from_slice(&name.to_le_bytes());
            bytes[4..8].copy_from_slice(&kind.to_le_bytes());
            for (place, value) in [(8, flags), (24, at as u64), (32, len as u64)] {
                bytes[place..place + 8].copy_from_slice(&value.to_le_bytes());
            }
            headers.push(bytes);
        };
        for (name, flags, bytes) in sections {
            header(names.len() as u32, 1, *flags, body.len(), bytes.len());
            names.extend(name.as_bytes());
            names.push(0);
            body.extend(bytes);
        }
        header(1, 3, 0, body.len(), names.len());
        body.extend(&names);
        let at = body.len() as u64;
        let count = headers.len() as u16;
        body.extend(headers.concat());
        body[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
        body[18] = 62;
        body[40..48].copy_from_slice(&at.to_le_bytes());
        for (place, value) in [(52, 64u16), (58, 64), (60, count), (62, count - 1)] {
            body[place..place + 2].copy_from_slice(&value.to_le_bytes());
        }
        body
    }

    /// 1 a unit, 2 a structure, 3 a member, 4 a typedef, 5 a variable without name.
    fn abbreviations() -> Vec<u8> {
        let entries: [&[u8]; 5] = [
            &[1, 0x11, 1, 0x03, 0x08, 0, 0],
            &[2, 0x13, 1, 0x03, 0x08, 0x0b, 0x0f, 0, 0],
            &[3, 0x0d, 0, 0x03, 0x08, 0x38, 0x0f, 0, 0],
            &[4, 0x16, 0, 0x03, 0x08, 0, 0],
            &[5, 0x34, 0, 0, 0],
        ];
        let mut bytes = entries.concat();
        bytes.push(0);
        bytes
    }

    /// A DWARF 4 unit of this name with these entries.
    fn unit(name: &str, entries: &[u8]) -> Vec<u8> {
        // Version, offset of the abbreviations, size of an address; then the unit's own entry.
        let mut bytes = vec![4, 0, 0, 0, 0, 0, 8, 1];
        bytes.extend(name.as_bytes());
        bytes.push(0);
        bytes.extend(entries);
        bytes.push(0);
        [&(bytes.len() as u32).to_le_bytes()[..], &bytes].concat()
    }

    fn entry(code: u8, name: &str, number: Option<u8>) -> Vec<u8> {
        let mut bytes = vec![code];
        bytes.extend(name.as_bytes());
        bytes.push(0);
        bytes.extend(number);
        bytes
    }

    fn runtime() -> Vec<u8> {
        let g = [entry(2, "runtime.g", Some(96)), entry(3, "goid", Some(40)), entry(3, "m", Some(48)), vec![0]].concat();
        let other = [entry(2, "runtime.x", Some(8)), entry(3, "goid", Some(0)), vec![0]].concat();
        let m = [entry(2, "runtime.m", Some(80)), entry(3, "curg", Some(64)), vec![0]].concat();
        [other, entry(4, "runtime.g", None), g, vec![5], m].concat()
    }

    fn found(info: Vec<u8>) -> Vec<Structure> {
        structures(&file(&[(".debug_info", 0, info), (".debug_abbrev", 0, abbreviations())]), WANTED)
    }

    fn expected() -> Vec<Structure> {
        let of = |members: &[(&str, u64)]| members.iter().map(|(name, at)| ((*name).to_owned(), *at)).collect();
        vec![
            Structure { name: "runtime.g", size: 96, members: of(&[("goid", 40), ("m", 48)]) },
            Structure { name: "runtime.m", size: 80, members: of(&[("curg", 64)]) },
        ]
    }

    /// Check that the wanted structures of the runtime's units are found with their members, and those of others are not.
    #[test]
    fn structures_of_the_runtime() {
        let lie = [entry(2, "runtime.g", Some(1)), vec![0]].concat();
        let whole = [unit("main", &lie), unit("runtime", &runtime())].concat();
        assert_eq!(found(whole), expected());
        assert_eq!(found(unit("main", &runtime())), []);
        assert_eq!(found(vec![]), []);
    }

    /// Check that packed sections are unpacked, and that one that claims to be huge, or is packed otherwise, is not.
    #[test]
    fn packed_sections() {
        let info = unit("runtime", &runtime());
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&info).unwrap();
        let packed = encoder.finish().unwrap();
        for (kind, size, whole) in [(1u32, info.len() as u64, true), (1, MAX_INFO + 1, false), (2, info.len() as u64, false)] {
            let mut bytes = kind.to_le_bytes().to_vec();
            bytes.extend([0; 4]);
            bytes.extend(size.to_le_bytes());
            bytes.extend(1u64.to_le_bytes());
            bytes.extend(&packed);
            let file = file(&[(".debug_info", 1 << 11, bytes), (".debug_abbrev", 0, abbreviations())]);
            assert_eq!(structures(&file, WANTED) == expected(), whole, "{kind} {size}");
        }
    }

    /// Check that a file cut at any length, or with any byte set to 0xff, is read without a panic.
    #[test]
    fn damage_is_survived() {
        let whole = file(&[(".debug_info", 0, unit("runtime", &runtime())), (".debug_abbrev", 0, abbreviations())]);
        for len in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[len] = 0xff;
            for bytes in [&whole[..len], &damaged] {
                let found = structures(bytes, WANTED);
                assert!(found.len() <= WANTED.len());
                let _ = symbol(bytes, "runtime.waitReasonStrings");
            }
        }
    }
}
