//! The table of functions with only some of them. Sources: those of `tracer_user::golang::pclntab`.

use crate::binary::{Binary, Function, word};

/// Where the new table and the new inline trees are.
pub const ADDRESS: u64 = 0x1000_0000;
pub const INLINED: u64 = 0x1100_0000;

/// A table that was cut, and its inline trees.
pub struct Table {
    pub bytes: Vec<u8>,
    /// Offsets of its parts: names, units, files, values, functions.
    pub parts: [u64; 5],
    pub inlined: Vec<u8>,
}

const NONE: u32 = u32::MAX;

struct Cut<'a, 'b> {
    binary: &'b Binary<'a>,
    names: Vec<u8>,
    units: Vec<u8>,
    files: Vec<u8>,
    values: Vec<u8>,
    records: Vec<u8>,
    inlined: Vec<u8>,
}

/// The table of `kept`, and their inline trees.
pub fn cut(binary: &Binary<'_>, kept: &[Function]) -> Table {
    let mut cut = Cut {
        binary,
        names: b"\0gap\0".to_vec(),
        units: NONE.to_le_bytes().to_vec(),
        files: vec![0],
        values: vec![0],
        records: vec![0; binary.table.func_size],
        inlined: vec![0; 16],
    };
    cut.records[4] = 1;
    let mut entries: Vec<(u64, u32)> = Vec::new();
    for function in kept {
        if entries.last().is_some_and(|(start, _)| *start == function.start) {
            entries.pop();
        }
        entries.push((function.start, cut.records.len() as u32));
        entries.push((function.end, 0));
        cut.function(function);
    }
    let slots = entries.len() * 8;
    let mut functions = Vec::new();
    for (start, record) in &entries {
        functions.extend(((start - binary.text) as u32).to_le_bytes());
        functions.extend((slots as u32 + record).to_le_bytes());
    }
    functions.extend(&cut.records);
    let mut table = binary.table.bytes[..72].to_vec();
    // The last entry is the end of the text.
    table[8..16].copy_from_slice(&(entries.len() as u64 - 1).to_le_bytes());
    table[16..24].copy_from_slice(&1u64.to_le_bytes());
    let parts = [cut.names, cut.units, cut.files, cut.values, functions];
    let parts = parts.into_iter().enumerate().map(|(index, part)| {
        table.resize(table.len().next_multiple_of(8), 0);
        let at = table.len() as u64;
        table[32 + index * 8..40 + index * 8].copy_from_slice(&at.to_le_bytes());
        table.extend(part);
        at
    });
    let parts: Vec<_> = parts.collect();
    Table { parts: parts.try_into().unwrap_or_default(), bytes: table, inlined: cut.inlined }
}

impl Cut<'_, '_> {
    fn function(&mut self, function: &Function) {
        let (table, size) = (&self.binary.table, self.binary.table.func_size);
        let old = &table.bytes[function.record..];
        let mut record = old[..size].to_vec();
        let put = |record: &mut Vec<u8>, at: usize, value: u32| record[at..at + 4].copy_from_slice(&value.to_le_bytes());
        let name = self.name(word(old, 4));
        put(&mut record, 4, name);
        let mut last_file = -1;
        for at in [16, 20, 24] {
            let (offset, largest) = self.value(word(old, at));
            put(&mut record, at, offset);
            if at == 20 {
                last_file = largest;
            }
        }
        let tables = word(old, 28);
        let mut tree = None;
        for index in 0..tables {
            let (offset, largest) = match word(old, size + index as usize * 4) {
                0 => (0, -1),
                offset => self.value(offset),
            };
            record.extend(offset.to_le_bytes());
            if index == 2 {
                tree = Some(largest);
            }
        }
        let tail = size + tables as usize * 4;
        let trees = (old[size - 1] > 3).then(|| word(old, tail + 12)).filter(|offset| *offset != NONE).zip(tree);
        let calls = trees.map_or(NONE, |(offset, last)| self.calls(offset, last, &mut last_file));
        record.extend([NONE; 3].into_iter().chain([calls]).flat_map(u32::to_le_bytes));
        record[size - 1] = 4;
        let unit = self.unit(word(old, 32), last_file);
        put(&mut record, 32, unit);
        self.records.extend(record);
    }

    fn name(&mut self, offset: u32) -> u32 {
        let at = self.names.len() as u32;
        self.names.extend(self.binary.name(offset));
        self.names.push(0);
        at
    }

    /// Copies a table of values. Answers its new offset and its largest value.
    fn value(&mut self, offset: u32) -> (u32, i32) {
        let old = &self.binary.table.bytes[self.binary.part(3) as usize + offset as usize..];
        let (mut at, mut value, mut largest) = (0, -1i32, -1i32);
        let number = |at: &mut usize| {
            let mut number = 0u32;
            for shift in (0..35).step_by(7) {
                let byte = old[*at];
                *at += 1;
                number |= u32::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
            }
            number
        };
        loop {
            let first = at == 0;
            let change = number(&mut at);
            if change == 0 && !first {
                break;
            }
            value += (change >> 1) as i32 ^ -((change & 1) as i32);
            largest = largest.max(value);
            number(&mut at);
        }
        let new = self.values.len() as u32;
        self.values.extend(&old[..at]);
        (new, largest)
    }

    /// Copies an inline tree.
    fn calls(&mut self, offset: u32, last: i32, last_file: &mut i32) -> u32 {
        let (size, name) = self.binary.table.call;
        let len = size * usize::try_from(last + 1).unwrap_or(0);
        let Ok(mut tree) = self.binary.read_at(self.binary.gofunc + u64::from(offset), len as u64) else { return NONE };
        for call in tree.chunks_exact_mut(size) {
            let new = self.name(word(call, name));
            call[name..name + 4].copy_from_slice(&new.to_le_bytes());
            if size == 20 {
                *last_file = (*last_file).max(word(call, 4) as i32);
            }
        }
        let at = self.inlined.len() as u32;
        self.inlined.extend(tree);
        at
    }

    /// Copies the files of a compilation unit up to number `last`.
    fn unit(&mut self, unit: u32, last: i32) -> u32 {
        let new = self.units.len() as u32 / 4;
        let (units, files) = (self.binary.part(1) as usize, self.binary.part(2) as usize);
        for file in 0..=last.min(40) {
            let offset = word(self.binary.table.bytes, units + (unit as usize + file.unsigned_abs() as usize) * 4);
            // A sample of names is enough.
            let kept = offset != NONE && file % 16 == 0;
            let at = if kept { self.files.len() as u32 } else { NONE };
            if kept {
                self.files.extend(crate::binary::string(&self.binary.table.bytes[files + offset as usize..]));
                self.files.push(0);
            }
            self.units.extend(at.to_le_bytes());
        }
        new
    }
}
