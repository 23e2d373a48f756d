//! Reads a Go executable by its sections, trusting it.

use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSection, ObjectSegment};

const MODULE_DATA: u64 = 352;

pub struct Binary<'a> {
    file: object::File<'a>,
    pub table: Table<'a>,
    pub text: u64,
    /// What inline trees are counted from.
    pub gofunc: u64,
    module: u64,
}

/// The table of functions, as it is in the file.
pub struct Table<'a> {
    pub address: u64,
    pub bytes: &'a [u8],
    /// Size of `_func`.
    pub func_size: usize,
    /// Size of an entry of an inline tree, and where the name is in it.
    pub call: (usize, usize),
}

pub struct Function {
    pub name: String,
    pub start: u64,
    pub end: u64,
    /// Of its `_func`, from the table's start.
    pub record: usize,
}

pub fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}

/// The bytes before the first zero.
pub fn string(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

impl<'a> Binary<'a> {
    pub fn read(bytes: &'a [u8]) -> Result<Self> {
        let file = object::File::parse(bytes)?;
        let section = file.section_by_name(".gopclntab").context("no .gopclntab")?;
        let (address, bytes) = (section.address(), section.data()?);
        let old = word(bytes, 0) == 0xffff_fff0;
        ensure!(old || word(bytes, 0) == 0xffff_fff1, "a table of no known format");
        let (func_size, call) = if old { (40, (20, 12)) } else { (44, (16, 4)) };
        let table = Table { address, bytes, func_size, call };
        let mut this = Self { file, table, text: 0, gofunc: 0, module: 0 };
        this.module = this.find_module().context("no module data")?;
        this.text = long(&this.read_at(this.module + 176, 8)?, 0);
        // As in `golang::moduledata`: the place moved in 1.20 and in 1.27; what a table of 1.27 looks like is not asked for here.
        this.gofunc = long(&this.read_at(this.module + if old { 304 } else { 320 }, 8)?, 0);
        Ok(this)
    }

    fn find_module(&self) -> Option<u64> {
        let (address, functions) = (self.table.address, self.table.address + self.part(4));
        self.writable().find_map(|(start, bytes)| {
            let places = (0..bytes.len().saturating_sub(MODULE_DATA as usize)).step_by(8);
            let is_module = |at: &usize| long(bytes, *at) == address && long(bytes, at + 104) == functions;
            Some(start + places.into_iter().find(is_module)? as u64)
        })
    }

    fn writable(&self) -> impl Iterator<Item = (u64, &'a [u8])> {
        self.file.segments().filter_map(|segment| {
            let writable = matches!(segment.flags(), object::SegmentFlags::Elf { p_flags, .. } if p_flags.0 & 2 != 0);
            writable.then(|| Some((segment.address(), segment.data().ok()?)))?
        })
    }

    /// Offset of part `index` of the table: names, units, files, values, functions.
    pub fn part(&self, index: usize) -> u64 {
        long(self.table.bytes, 32 + index * 8)
    }

    pub fn functions(&self) -> impl Iterator<Item = Function> {
        let (table, functions) = (self.table.bytes, self.part(4) as usize);
        (0..long(table, 8) as usize).map(move |index| {
            let at = functions + index * 8;
            let record = functions + word(table, at + 4) as usize;
            Function {
                name: String::from_utf8_lossy(self.name(word(table, record + 4))).into_owned(),
                start: self.text + u64::from(word(table, at)),
                end: self.text + u64::from(word(table, at + 8)),
                record,
            }
        })
    }

    pub fn name(&self, offset: u32) -> &'a [u8] {
        string(&self.table.bytes[self.part(0) as usize + offset as usize..])
    }

    pub fn read_at(&self, address: u64, len: u64) -> Result<Vec<u8>> {
        let found = self.file.segments().find_map(|segment| segment.data_range(address, len).ok()?);
        Ok(found.with_context(|| format!("{len} bytes at {address:#x} are not in the file"))?.to_vec())
    }

    /// The module data, pointing to a table and to inline trees at new places.
    pub fn module_data(&self, table: u64, parts: [u64; 5], inlined: u64) -> Result<(u64, Vec<u8>)> {
        let mut module = self.read_at(self.module, MODULE_DATA)?;
        let mut put = |at: usize, value: u64| module[at..at + 8].copy_from_slice(&value.to_le_bytes());
        put(0, table);
        for (part, at) in parts.into_iter().zip([8, 32, 56, 80, 104]) {
            put(at, table + part);
        }
        put(if self.table.func_size == 40 { 304 } else { 320 }, inlined);
        Ok((self.module, module))
    }

    /// The build info up to the version, with an empty module text.
    pub fn build_info(&self) -> Result<(u64, Vec<u8>)> {
        let section = self.file.section_by_name(".go.buildinfo").context("no .go.buildinfo")?;
        let mut bytes = section.data()?.get(..128).context("a short .go.buildinfo")?.to_vec();
        let text = 33 + usize::from(bytes[32]);
        bytes[text..].fill(0);
        Ok((section.address(), bytes))
    }

    /// Headers of Go strings that hold the version, and these strings: what `runtime.buildVersion` is among.
    pub fn version_strings(&self) -> Vec<(u64, Vec<u8>)> {
        let mut found = Vec::new();
        for (start, bytes) in self.writable() {
            for at in (0..bytes.len().saturating_sub(16)).step_by(8) {
                let (pointer, len) = (long(bytes, at), long(bytes, at + 8));
                let text = (5..32).contains(&len).then(|| self.read_at(pointer, len).ok()).flatten();
                if let Some(text) = text.filter(|text| text.starts_with(b"go1.")) {
                    found.push((start + at as u64, bytes[at..at + 16].to_vec()));
                    found.push((pointer, text));
                }
            }
        }
        found
    }
}
