//! The container: segments, sections and base relocations of an ELF executable for x86-64.
//!
//! Owns the file's bytes and the way from a link-time address to them. Knows nothing of Go. Every number in the file is
//! taken as a claim: all reads are checked, and a lie yields `None` or [`GolangError::Malformed`].

use object::{
    LittleEndian,
    elf::{self, FileHeader64},
    read::elf::{FileHeader, ProgramHeader, SectionHeader},
};

use super::GolangError;

const LE: LittleEndian = LittleEndian;

/// Size of an `Elf64_Rela`.
const RELA: usize = 24;
/// Size of an `Elf64_Dyn`.
const DYN: usize = 16;
/// More program headers than this no kernel loads (`load_elf_phdrs` in fs/binfmt_elf.c: 64 KiB of them).
const MAX_SEGMENTS: usize = 1170;
/// More sections, longer names, or a longer table of names than this are not looked at.
const MAX_SECTIONS: usize = 4096;
const MAX_SECTION_NAME: usize = 256;
const MAX_SECTION_NAMES: u64 = 1 << 20;
/// Places and bytes searched for notes.
const MAX_NOTES: usize = 32;
const MAX_NOTE_BYTES: usize = 64 << 10;
/// More base relocations than this are not looked at: a linked program of 2 GiB has fewer.
const MAX_RELOCATIONS: usize = 16 << 20;

/// A `PT_LOAD` or `PT_NOTE` entry, its file part only.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    pub address: u64,
    pub offset: u64,
    pub file_size: u64,
    pub writable: bool,
}

#[derive(Clone, Debug)]
struct Section {
    name: String,
    address: u64,
    offset: u64,
    size: u64,
}

/// An executable taken apart.
pub struct Elf {
    bytes: Vec<u8>,
    loads: Vec<Segment>,
    notes: Vec<Segment>,
    sections: Vec<Section>,
    /// File range of `DT_RELA`.
    relocations: std::ops::Range<usize>,
    position_independent: bool,
}

impl Elf {
    /// Takes apart an x86-64 ELF file. What is no such file is named by [`super::identify::what_is`], not here.
    pub fn parse(mut bytes: Vec<u8>) -> Result<Self, GolangError> {
        let malformed = |reason: &str| GolangError::Malformed(reason.to_owned());
        let data = bytes.as_slice();
        let header = FileHeader64::<LittleEndian>::parse(data).map_err(|_| malformed("the ELF header is cut short"))?;
        let endian = header.endian().map_err(|_| malformed("the ELF header names no byte order"))?;
        let programs = header.program_headers(endian, data).map_err(|_| malformed("the program headers lie outside the file"))?;
        if programs.len() > MAX_SEGMENTS {
            return Err(malformed("it has more program headers than a kernel loads"));
        }
        let (mut loads, mut notes, mut dynamic) = (Vec::new(), Vec::new(), None);
        for program in programs {
            let segment = Segment {
                address: program.p_vaddr(LE),
                offset: program.p_offset(LE),
                file_size: program.p_filesz(LE),
                writable: program.p_flags(LE).0 & elf::PF_W.0 != 0,
            };
            match program.p_type(LE) {
                elf::PT_LOAD => loads.push(segment),
                elf::PT_NOTE => notes.push(segment),
                elf::PT_DYNAMIC => dynamic = Some(segment),
                _ => {}
            }
        }
        // Every segment may be searched, so that their sum must be no more than the file: they do not overlap in a linked program.
        let inside =
            |segment: &&Segment| segment.offset.checked_add(segment.file_size).is_some_and(|end| end <= data.len() as u64);
        if loads.iter().filter(inside).map(|segment| segment.file_size).sum::<u64>() > 2 * data.len() as u64 {
            return Err(malformed("its segments overlap in the file"));
        }
        let sections = sections(header, data);
        let position_independent = header.e_type(LE) == elf::ET_DYN;
        // What follows the last loaded byte (DWARF, mostly) is of no use here, and is half of many files.
        let loaded = loads
            .iter()
            .chain(&notes)
            .filter_map(|s| s.offset.checked_add(s.file_size))
            .max()
            .and_then(|end| usize::try_from(end).ok())
            .ok_or_else(|| malformed("no segment is loaded"))?;
        bytes.truncate(loaded);
        bytes.shrink_to_fit();
        let mut this = Self { bytes, loads, notes, sections, relocations: 0..0, position_independent };
        if let Some(dynamic) = dynamic {
            this.relocations = this.relocation_table(&dynamic).unwrap_or(0..0);
        }
        Ok(this)
    }

    /// The same without the file's bytes.
    pub fn emptied(&self) -> Self {
        self.filled(Vec::new())
    }

    /// The same with these bytes of the file, from its beginning.
    pub fn filled(&self, bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            loads: self.loads.clone(),
            notes: self.notes.clone(),
            sections: self.sections.clone(),
            relocations: self.relocations.clone(),
            position_independent: self.position_independent,
        }
    }

    /// Bytes of the file that are kept.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_position_independent(&self) -> bool {
        self.position_independent
    }

    pub fn loads(&self) -> &[Segment] {
        &self.loads
    }

    /// Address and bytes of the first section of this name that has both.
    pub fn section(&self, name: &str) -> Option<(u64, &[u8])> {
        let section = self.sections.iter().find(|s| s.name == name && s.size != 0)?;
        Some((section.address, self.file(section.offset, section.size)?))
    }

    /// Bytes of the note segments, and of sections called `.note…` (some linkers write no `PT_NOTE`).
    pub fn notes(&self) -> impl Iterator<Item = &[u8]> {
        let segments = self.notes.iter().map(|s| (s.offset, s.file_size));
        let sections = self.sections.iter().filter(|s| s.name.starts_with(".note")).map(|s| (s.offset, s.size));
        let notes = segments.chain(sections).filter_map(|(offset, size)| self.file(offset, size)).take(MAX_NOTES);
        notes.map(|bytes| bytes.get(..MAX_NOTE_BYTES).unwrap_or(bytes))
    }

    /// The file part of a segment; empty if it is outside the file.
    pub fn contents(&self, segment: &Segment) -> &[u8] {
        self.file(segment.offset, segment.file_size).unwrap_or_default()
    }

    /// From `address` to the end of what its segment has in the file.
    pub fn from(&self, address: u64) -> Option<&[u8]> {
        let segment = self.segment(address)?;
        self.contents(segment).get(usize::try_from(address - segment.address).ok()?..)
    }

    pub fn read(&self, address: u64, len: usize) -> Option<&[u8]> {
        self.from(address)?.get(..len)
    }

    pub fn file_offset(&self, address: u64) -> Option<u64> {
        let segment = self.segment(address)?;
        segment.offset.checked_add(address - segment.address)
    }

    /// `len` bytes at `address` as they stand after a load at bias 0: with `R_X86_64_RELATIVE` applied.
    pub fn read_relocated(&self, address: u64, len: usize) -> Option<Vec<u8>> {
        let mut bytes = self.read(address, len)?.to_vec();
        for (place, value) in self.relative_relocations() {
            let Some(start) = place.checked_sub(address).and_then(|d| usize::try_from(d).ok()) else { continue };
            if let Some(word) = start.checked_add(8).and_then(|end| bytes.get_mut(start..end)) {
                word.copy_from_slice(&value.to_le_bytes());
            }
        }
        Some(bytes)
    }

    pub fn u64_at(&self, address: u64) -> Option<u64> {
        read_u64(&self.read_relocated(address, 8)?, 0)
    }

    /// Aligned places in writable segments that hold `value` once relocated, at most `limit` of them.
    pub fn pointers_to(&self, value: u64, limit: usize) -> Vec<u64> {
        let pattern = value.to_le_bytes();
        let mut found: Vec<u64> = self.relative_relocations().filter(|r| r.1 == value).map(|r| r.0).take(limit).collect();
        for segment in self.loads.iter().filter(|s| s.writable) {
            let skip = (segment.address.wrapping_neg() % 8) as usize;
            let words = self.contents(segment).get(skip..).unwrap_or_default().chunks_exact(8);
            let places = words.enumerate().filter(|(_, word)| **word == pattern);
            found.extend(places.filter_map(|(i, _)| segment.address.checked_add((skip + i * 8) as u64)).take(limit));
        }
        found.truncate(limit);
        found
    }

    fn segment(&self, address: u64) -> Option<&Segment> {
        self.loads.iter().find(|s| address.checked_sub(s.address).is_some_and(|offset| offset < s.file_size))
    }

    fn file(&self, offset: u64, size: u64) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        self.bytes.get(start..start.checked_add(usize::try_from(size).ok()?)?)
    }

    fn relative_relocations(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let table = self.bytes.get(self.relocations.clone()).unwrap_or_default();
        table.chunks_exact(RELA).take(MAX_RELOCATIONS).filter_map(|entry| {
            let kind = read_u32(entry, 8)?;
            (kind == elf::R_X86_64_RELATIVE.0).then_some((read_u64(entry, 0)?, read_u64(entry, 16)?))
        })
    }

    fn relocation_table(&self, dynamic: &Segment) -> Option<std::ops::Range<usize>> {
        let (mut address, mut size) = (None, None);
        for entry in self.contents(dynamic).chunks_exact(DYN) {
            let (tag, value) = (read_u64(entry, 0)?, read_u64(entry, 8)?);
            match i64::try_from(tag).ok()? {
                tag if tag == elf::DT_NULL.0 => break,
                tag if tag == elf::DT_RELA.0 => address = Some(value),
                tag if tag == elf::DT_RELASZ.0 => size = Some(value),
                _ => {}
            }
        }
        let start = usize::try_from(self.file_offset(address?)?).ok()?;
        Some(start..start.checked_add(usize::try_from(size?).ok()?)?)
    }
}

/// Section headers, if the file has readable ones; a stripped or crafted file may not.
fn sections(header: &FileHeader64<LittleEndian>, data: &[u8]) -> Vec<Section> {
    let Ok(table) = header.sections(LE, data) else { return Vec::new() };
    let names = header.shstrndx(LE, data).ok().and_then(|index| table.section(object::SectionIndex(index as usize)).ok());
    if table.len() > MAX_SECTIONS || names.is_none_or(|names| names.sh_size(LE) > MAX_SECTION_NAMES) {
        return Vec::new();
    }
    table
        .iter()
        .filter(|section| section.sh_type(LE) != elf::SHT_NOBITS)
        .filter_map(|section| {
            let name = table.section_name(LE, section).ok().filter(|name| name.len() <= MAX_SECTION_NAME)?;
            Some(Section {
                name: String::from_utf8_lossy(name).into_owned(),
                address: section.sh_addr(LE),
                offset: section.sh_offset(LE),
                size: section.sh_size(LE),
            })
        })
        .collect()
}

/// Little-endian numbers at an offset; `None` beyond the end.
pub fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

pub fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

pub fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// An unsigned LEB128 number (Go's `encoding/binary.Uvarint`) at `*at`, which moves behind it. At most ten bytes.
pub fn read_uvarint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Where `pattern` stands in `bytes` at or after `from`.
pub fn find(bytes: &[u8], pattern: &[u8], from: usize) -> Option<usize> {
    let (&first, _) = pattern.split_first()?;
    let mut at = from;
    loop {
        at += bytes.get(at..)?.iter().position(|&b| b == first)?;
        if bytes.get(at..)?.starts_with(pattern) {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that numbers beyond the end are `None`, with offsets up to the largest.
    #[test]
    fn numbers_are_bounded() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(read_u64(&bytes, 0), Some(0x0807060504030201));
        assert_eq!(read_u64(&bytes, 1), None);
        assert_eq!(read_u32(&bytes, usize::MAX), None);
        assert_eq!(read_u16(&bytes, 6), Some(0x0807));
    }

    /// Check that a varint is decoded, and that an endless or truncated one is refused.
    #[test]
    fn varints_end() {
        for (bytes, expected) in
            [(vec![0x05], Some(5)), (vec![0xac, 0x02], Some(300)), (vec![0x80], None), (vec![0xff; 64], None), (vec![], None)]
        {
            assert_eq!(read_uvarint(&bytes, &mut 0), expected, "{bytes:?}");
        }
    }

    /// Check that the search finds the first match at or after its start and ends at the end.
    #[test]
    fn find_is_exact() {
        assert_eq!(find(b"aab", b"ab", 0), Some(1));
        assert_eq!(find(b"abab", b"ab", 1), Some(2));
        assert_eq!(find(b"abab", b"ab", 3), None);
        assert_eq!(find(b"ab", b"ab", 9), None);
        assert_eq!(find(b"ab", b"", 0), None);
    }

    /// One writable segment at 0x1000 that holds its own headers, a dynamic section at 0xe8, its one relocation at 0x118 (of
    /// 0x1130 to 0x1234), and a pointer to 0x5678 at 0x1138.
    fn file() -> Vec<u8> {
        let mut bytes = vec![0u8; 0x140];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &[0x7f, b'E', b'L', b'F', 2, 1, 1]);
        put(16, &[3, 0, 62, 0, 1, 0, 0, 0]);
        put(32, &64u64.to_le_bytes());
        put(52, &[64, 0, 56, 0, 2, 0, 64, 0]);
        for (at, kind, offset, size) in [(64, 1u32, 0u64, 0x140u64), (120, 2, 0xe8, 0x30)] {
            put(at, &kind.to_le_bytes());
            put(at + 4, &6u32.to_le_bytes());
            for (i, word) in [offset, 0x1000 + offset, 0x1000 + offset, size, size, 8].into_iter().enumerate() {
                put(at + 8 + i * 8, &word.to_le_bytes());
            }
        }
        for (i, word) in [7u64, 0x1118, 8, 24, 0, 0, 0x1130, 8, 0x1234, 0].into_iter().enumerate() {
            put(0xe8 + i * 8, &word.to_le_bytes());
        }
        put(0x138, &0x5678u64.to_le_bytes());
        bytes
    }

    /// Check that addresses lead to bytes, and that base relocations are applied and found.
    #[test]
    fn a_small_file() {
        let elf = Elf::parse(file()).unwrap();
        assert!(elf.is_position_independent());
        assert_eq!(elf.file_offset(0x112f), Some(0x12f));
        assert_eq!(elf.file_offset(0x1140), None);
        assert_eq!(elf.u64_at(0x1130), Some(0x1234));
        assert_eq!(elf.u64_at(0x1139), None);
        assert_eq!(elf.pointers_to(0x1234, 9).first(), Some(&0x1130));
        assert_eq!(elf.pointers_to(0x5678, 9), [0x1138]);
    }

    /// Check that the file cut at any length, or with any byte set to 0xff, is read without a panic.
    #[test]
    fn damage_is_survived() {
        let whole = file();
        for len in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[len] = 0xff;
            for bytes in [whole[..len].to_vec(), damaged] {
                let Ok(elf) = Elf::parse(bytes) else { continue };
                let _ = (elf.u64_at(0x1130), elf.pointers_to(0x5678, 9), elf.notes().count(), elf.from(u64::MAX));
            }
        }
    }
}
