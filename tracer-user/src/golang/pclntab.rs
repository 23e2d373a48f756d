//! The table of functions and lines that every Go binary carries, stripped or not.
//!
//! Owns finding and reading `runtime.pclntab`: functions by address, names, files, and the pc-value tables. Inline trees are
//! [`super::inline`]'s. Sources: `runtime/symtab.go`, `internal/abi/symtab.go`, `cmd/link/internal/ld/pcln.go`,
//! `debug/gosym/pclntab.go`.

use std::borrow::Cow;

use super::{
    GolangError,
    elf::{Elf, find, read_u32, read_u64, read_uvarint},
};

/// How many steps through pc-value tables one question may take. Only a generated function of several megabytes has more changes of
/// line; the end of such a one has no lines.
pub const MAX_STEPS: u32 = 1 << 18;
/// How many steps may leave the pc where it is.
const MAX_STANDING: u32 = 16;
const MAX_NAME: usize = 1 << 16;
/// More functions or files than this is a lie (Kubernetes has 100,000).
const MAX_COUNT: u64 = 5_000_000;
const HEADER: usize = 72;
const NONE: u32 = u32::MAX;

/// The two layouts of today. `_func` and the inline tree differ, the header does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Go 1.18 and 1.19: magic 0xfffffff0.
    Go118,
    /// Go 1.20 and later: magic 0xfffffff1; `_func` has a start line.
    Go120,
}

impl Format {
    fn of(magic: u32) -> Option<Self> {
        match magic {
            0xffff_fff0 => Some(Self::Go118),
            0xffff_fff1 => Some(Self::Go120),
            _ => None,
        }
    }

    /// Size of `_func` without its variable tail.
    fn func_size(self) -> usize {
        match self {
            Self::Go118 => 40,
            Self::Go120 => 44,
        }
    }
}

/// `runtime.pcHeader`, checked.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// Of the table itself.
    pub address: u64,
    pub format: Format,
    pub functions: u32,
    /// Start of the text the entry offsets count from; 0 from Go 1.26 on (the module data has it then).
    pub text_start: u64,
    /// Offsets of the sub-tables: function names, compilation units, files, pc-values, functions.
    pub names: u64,
    pub units: u64,
    pub files: u64,
    pub values: u64,
    pub table: u64,
}

impl Header {
    /// Finds the table by its section, or by its magic where the section was merged away (external-link PIE up to 1.25).
    pub fn find(elf: &Elf) -> Result<Self, GolangError> {
        for name in [".gopclntab", ".data.rel.ro.gopclntab"] {
            if let Some((address, bytes)) = elf.section(name) {
                if let Some(magic @ (0xffff_fffa | 0xffff_fffb)) = read_u32(bytes, 0) {
                    let version = if magic == 0xffff_fffa { "go1.16 or go1.17" } else { "go1.15 or older" };
                    return Err(super::unsupported(version.to_owned()));
                }
                if let Some(header) = Self::parse(address, bytes) {
                    return Ok(header);
                }
            }
        }
        for magic in [0xffff_fff1u32, 0xffff_fff0] {
            let mut pattern = magic.to_le_bytes().to_vec();
            pattern.extend([0, 0, 1, 8]);
            for segment in elf.loads() {
                let bytes = elf.contents(segment);
                let mut from = 0;
                while let Some(at) = find(bytes, &pattern, from) {
                    from = at + 1;
                    let address = segment.address.checked_add(at as u64);
                    if let Some(header) = address.and_then(|address| Self::parse(address, bytes.get(at..)?)) {
                        return Ok(header);
                    }
                }
            }
        }
        Err(GolangError::Malformed("it has no table of functions (pclntab) that can be read".to_owned()))
    }

    fn parse(address: u64, bytes: &[u8]) -> Option<Self> {
        let format = Format::of(read_u32(bytes, 0)?)?;
        // Two zero bytes, then the instruction quantum (1 on x86) and the pointer size.
        if bytes.get(4..8)? != [0, 0, 1, 8] {
            return None;
        }
        let word = |i: usize| read_u64(bytes, 8 + i * 8);
        let (functions, files) = (word(0)?, word(1)?);
        let offsets = [word(3)?, word(4)?, word(5)?, word(6)?, word(7)?];
        let ordered = offsets[0] >= HEADER as u64 && offsets.is_sorted();
        let fits = |offset: u64| usize::try_from(offset).is_ok_and(|offset| offset <= bytes.len());
        if !ordered || !fits(offsets[4]) || functions == 0 || functions > MAX_COUNT || files > MAX_COUNT {
            return None;
        }
        let [names, units, files, values, table] = offsets;
        let functions = u32::try_from(functions).ok()?;
        Some(Self { address, format, functions, text_start: word(2)?, names, units, files, values, table })
    }
}

/// The table at work: a header, its bytes, and the text address the module data gave.
#[derive(Clone, Copy)]
pub struct Pclntab<'a> {
    pub header: &'a Header,
    /// From the header's first byte to the end of the segment.
    pub bytes: &'a [u8],
    pub text: u64,
}

/// A function's place in the table. Addresses are link-time; `end` is the next function's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    pub start: u64,
    pub end: u64,
    /// Of its `_func`, from the start of the table.
    record: usize,
}

impl<'a> Pclntab<'a> {
    pub fn functions(self) -> impl Iterator<Item = Function> + 'a {
        (0..self.header.functions).map_while(move |i| self.function(i))
    }

    /// The function that holds `address`.
    pub fn lookup(self, address: u64) -> Option<Function> {
        let offset = u32::try_from(address.checked_sub(self.text)?).ok()?;
        let (mut low, mut high) = (0, self.header.functions);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.entry(middle)?.0 <= offset { low = middle + 1 } else { high = middle }
        }
        let function = self.function(low.checked_sub(1)?)?;
        (function.start..function.end).contains(&address).then_some(function)
    }

    pub fn name(self, function: Function) -> Cow<'a, str> {
        let offset = read_u32(self.bytes, function.record.saturating_add(4));
        offset.map_or(Cow::Borrowed(""), |offset| self.name_at(offset))
    }

    /// The first bytes of its name: what that costs is known.
    pub fn name_start(self, function: Function) -> &'a [u8] {
        let name = read_u32(self.bytes, function.record.saturating_add(4)).and_then(|offset| self.name_bytes(offset));
        let start = name.unwrap_or_default();
        let start = start.get(..32).unwrap_or(start);
        start.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// Whether the function's name begins with `prefix`, at the cost of comparing it.
    pub fn has_prefix(self, function: Function, prefix: &str) -> bool {
        let offset = read_u32(self.bytes, function.record.saturating_add(4));
        offset.is_some_and(|offset| self.name_bytes(offset).is_some_and(|rest| rest.starts_with(prefix.as_bytes())))
    }

    /// Whether the name at `offset` is `name`, at the cost of comparing it.
    pub fn name_is(self, offset: u32, name: &str) -> bool {
        let rest = self.name_bytes(offset).and_then(|rest| rest.strip_prefix(name.as_bytes()));
        rest.is_some_and(|rest| rest.first() == Some(&0))
    }

    pub fn is_named(self, function: Function, name: &str) -> bool {
        read_u32(self.bytes, function.record.saturating_add(4)).is_some_and(|offset| self.name_is(offset, name))
    }

    fn name_bytes(self, offset: u32) -> Option<&'a [u8]> {
        self.bytes.get(usize::try_from(self.header.names).ok()?.checked_add(offset as usize)?..)
    }

    /// A string of the name table, "" if it is not there.
    pub fn name_at(self, offset: u32) -> Cow<'a, str> {
        self.string(self.header.names, offset).unwrap_or_default()
    }

    /// Name of file number `file` of the function's compilation unit.
    pub fn file(self, function: Function, file: i32) -> Option<Cow<'a, str>> {
        let unit = self.field(function, 32)?;
        let index = unit.checked_add(u32::try_from(file).ok()?)?;
        let at = usize::try_from(self.header.units).ok()?.checked_add((index as usize).checked_mul(4)?)?;
        let offset = read_u32(self.bytes, at).filter(|&offset| offset != NONE)?;
        self.string(self.header.files, offset)
    }

    /// File and line of the code at `offset` from the function's entry. Line 0 and an empty name for unknown. Takes the steps from
    /// `left`, as the other questions do.
    pub fn position(self, function: Function, offset: u32, left: &mut u32) -> (String, u32) {
        let mut value = |field| self.field(function, field).and_then(|table| self.value(table, offset, left));
        let file = value(20).and_then(|file| self.file(function, file)).unwrap_or_default();
        let line = value(24).and_then(|line| u32::try_from(line).ok()).unwrap_or(0);
        (file.into_owned(), line)
    }

    /// Distance of the return address from the stack pointer at `offset` from the function's entry (`funcspdelta`).
    pub fn frame_bytes(self, function: Function, offset: u32) -> Option<i32> {
        self.value(self.field(function, 16)?, offset, &mut { MAX_STEPS })
    }

    /// Value of the function's PCDATA table `index` at `offset`; -1 is the usual "none".
    pub fn pcdata(self, function: Function, index: u32, offset: u32, left: &mut u32) -> Option<i32> {
        self.value(self.pcdata_table(function, index)?, offset, left)
    }

    /// The largest value in the function's PCDATA table `index`.
    pub fn pcdata_max(self, function: Function, index: u32, left: &mut u32) -> Option<i32> {
        let table = self.pcdata_table(function, index)?;
        let mut largest = -1;
        self.walk(table, left, |_, value| {
            largest = largest.max(value);
            false
        });
        Some(largest)
    }

    /// Offset of the function's FUNCDATA `index` from `gofunc`.
    pub fn funcdata(self, function: Function, index: u8) -> Option<u32> {
        let pcdata = self.field(function, 28)? as usize;
        let count = *self.bytes.get(self.tail(function)?.checked_sub(1)?)?;
        let at = self.tail(function)?.checked_add(pcdata.checked_add(index as usize)?.checked_mul(4)?)?;
        (index < count).then(|| read_u32(self.bytes, at))?.filter(|&offset| offset != NONE)
    }

    fn function(self, index: u32) -> Option<Function> {
        let (start, record) = self.entry(index)?;
        // The slot after the last function holds the end of the text, and no record.
        let end = read_u32(self.bytes, self.slot(index.checked_add(1)?)?)?;
        let record = usize::try_from(self.header.table).ok()?.checked_add(record as usize)?;
        Some(Function { start: self.text.checked_add(start.into())?, end: self.text.checked_add(end.max(start).into())?, record })
    }

    /// Entry offset and record offset of function `index`.
    fn entry(self, index: u32) -> Option<(u32, u32)> {
        let at = self.slot(index)?;
        Some((read_u32(self.bytes, at)?, read_u32(self.bytes, at.checked_add(4)?)?))
    }

    fn slot(self, index: u32) -> Option<usize> {
        usize::try_from(self.header.table).ok()?.checked_add((index as usize).checked_mul(8)?)
    }

    fn field(self, function: Function, offset: usize) -> Option<u32> {
        read_u32(self.bytes, function.record.checked_add(offset)?)
    }

    /// Where the variable part of `_func` begins.
    fn tail(self, function: Function) -> Option<usize> {
        function.record.checked_add(self.header.format.func_size())
    }

    fn pcdata_table(self, function: Function, index: u32) -> Option<u32> {
        let count = self.field(function, 28)?;
        let at = self.tail(function)?.checked_add((index as usize).checked_mul(4)?)?;
        (index < count).then(|| read_u32(self.bytes, at))?.filter(|&table| table != 0)
    }

    fn value(self, table: u32, offset: u32, left: &mut u32) -> Option<i32> {
        self.walk(table, left, |pc, _| u64::from(offset) < pc)
    }

    /// Walks pc-value table `table`, pairs of zig-zag value change and pc advance, until `stop(end of range, value)`.
    fn walk(self, table: u32, left: &mut u32, mut stop: impl FnMut(u64, i32) -> bool) -> Option<i32> {
        let mut at = usize::try_from(self.header.values).ok()?.checked_add(table as usize)?;
        let (mut value, mut pc, mut standing) = (-1i32, 0u64, 0);
        let first = at;
        while *left > 0 {
            *left -= 1;
            let begins = at == first;
            let change = u32::try_from(read_uvarint(self.bytes, &mut at)?).ok()?;
            if change == 0 && !begins {
                return None;
            }
            let change = (change >> 1) as i32 ^ -((change & 1) as i32);
            value = value.wrapping_add(change);
            let advance = read_uvarint(self.bytes, &mut at)?;
            pc = pc.checked_add(advance)?;
            // A sound table moves on with each step and ends with its function.
            standing += u32::from(advance == 0);
            if standing > MAX_STANDING || pc > u64::from(u32::MAX) {
                return None;
            }
            if stop(pc, value) {
                return Some(value);
            }
        }
        None
    }

    fn string(self, table: u64, offset: u32) -> Option<Cow<'a, str>> {
        let start = usize::try_from(table).ok()?.checked_add(offset as usize)?;
        let rest = self.bytes.get(start..)?;
        let end = rest.iter().take(MAX_NAME).position(|&b| b == 0)?;
        rest.get(..end).map(String::from_utf8_lossy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of one function at text+0x10..0x40, named `main.f`, file `f.go`, lines 7 then 9.
    fn table(format: Format) -> Vec<u8> {
        let magic: u32 = if format == Format::Go118 { 0xffff_fff0 } else { 0xffff_fff1 };
        let mut bytes = magic.to_le_bytes().to_vec();
        bytes.extend([0, 0, 1, 8]);
        // Counts and text start, then the sub-tables: names 72, units 80, files 84, values 92, functions 104.
        for word in [1u64, 1, 0x1000, 72, 80, 84, 92, 104] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(b"\0main.f\0");
        bytes.extend(0u32.to_le_bytes());
        bytes.extend(b"f.go\0\0\0\0");
        // Value table at 1 (file 0): +1 over 0x30. At 4 (lines): -1+8=7 over 0x20, +2 over 0x10.
        bytes.extend([0, 2, 0x30, 0, 16, 0x20, 4, 0x10, 0, 0, 0, 0]);
        for word in [0x10u32, 16, 0x40] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend([0; 4]);
        let func = [0x10u32, 1, 0, 0, 0, 1, 4, 0, 0];
        bytes.extend(func.iter().flat_map(|w| w.to_le_bytes()));
        bytes.resize(bytes.len() + format.func_size() - 36, 0);
        bytes
    }

    /// Check that name, bounds, file and line of a function come out of a hand-made table in both formats.
    #[test]
    fn one_function() {
        for format in [Format::Go118, Format::Go120] {
            let bytes = table(format);
            let header = Header::parse(0x5000, &bytes).unwrap();
            let tab = Pclntab { header: &header, bytes: &bytes, text: header.text_start };
            let function = tab.lookup(0x1010).unwrap();
            assert_eq!((function.start, function.end), (0x1010, 0x1040));
            assert_eq!(tab.name(function), "main.f");
            assert_eq!(tab.position(function, 0, &mut 9), ("f.go".to_owned(), 7));
            assert_eq!(tab.position(function, 0x1f, &mut 9), ("f.go".to_owned(), 7));
            assert_eq!(tab.position(function, 0x20, &mut 9), ("f.go".to_owned(), 9));
            assert_eq!(tab.position(function, 0x30, &mut 9), (String::new(), 0));
            assert_eq!(tab.position(function, 0x20, &mut 2), ("f.go".to_owned(), 0), "the second table takes two steps more");
            for outside in [0, 0xfff, 0x100f, 0x1040, u64::MAX] {
                assert_eq!(tab.lookup(outside), None, "{outside:#x}");
            }
        }
    }

    /// Check that a table cut at any length, or with any byte set to 0xff, is read without a panic.
    #[test]
    fn damage_is_survived() {
        let whole = table(Format::Go120);
        let read = |bytes: &[u8]| {
            let Some(header) = Header::parse(0, bytes) else { return };
            let tab = Pclntab { header: &header, bytes, text: header.text_start };
            for function in tab.functions().take(100) {
                let _ = (
                    tab.name(function),
                    tab.position(function, 3, &mut 99),
                    tab.pcdata(function, 2, 0, &mut 99),
                    tab.funcdata(function, 3),
                );
            }
            let _ = tab.lookup(0x1010);
        };
        for len in 0..whole.len() {
            read(&whole[..len]);
            let mut damaged = whole.clone();
            damaged[len] = 0xff;
            read(&damaged);
        }
    }
}
