//! The kernel's symbols (`/proc/kallsyms`).

use std::{
    fs::File,
    io::{BufRead, BufReader},
};

/// Code symbols that are kept; a kernel has about a hundred thousand.
const MAX_SYMBOLS: usize = 1 << 20;

/// Code symbols, by address. Empty where addresses are hidden.
#[derive(Debug, Default)]
pub(super) struct Kallsyms {
    symbols: Vec<(u64, Box<str>)>,
}

impl Kallsyms {
    pub fn read() -> Self {
        File::open("/proc/kallsyms").map_or_else(|_| Self::default(), |file| Self::parse(BufReader::new(file)))
    }

    /// `address type name [module]` a line.
    fn parse(lines: impl BufRead) -> Self {
        let symbol = |line: String| {
            let mut fields = line.split_ascii_whitespace();
            let address = u64::from_str_radix(fields.next()?, 16).ok().filter(|address| *address != 0)?;
            let is_code = matches!(fields.next()?, "t" | "T" | "w" | "W");
            let name = fields.next()?;
            is_code.then(|| (address, name.into()))
        };
        let mut symbols: Vec<(u64, Box<str>)> =
            lines.lines().map_while(Result::ok).filter_map(symbol).take(MAX_SYMBOLS).collect();
        symbols.sort_by_key(|(address, _)| *address);
        Self { symbols }
    }

    /// The symbol that an address lies behind.
    pub fn name(&self, address: u64) -> Option<&str> {
        let before = self.symbols.partition_point(|(start, _)| *start <= address);
        self.symbols[..before].last().map(|(_, name)| &**name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check what is code, and that hidden addresses give no names.
    #[test]
    fn names() {
        let text = "ffff0010 T schedule\nffff0000 t do_futex\nffff0008 d data\nffff0100 t nf_hook\t[nf_tables]\nbad\n";
        let symbols = Kallsyms::parse(text.as_bytes());
        assert_eq!(symbols.name(0xffff_0009), Some("do_futex"));
        assert_eq!(symbols.name(0xffff_0010), Some("schedule"));
        assert_eq!(symbols.name(0xffff_0200), Some("nf_hook"));
        assert_eq!(symbols.name(1), None);
        assert_eq!(Kallsyms::parse(&b"0000000000000000 T schedule\n"[..]).name(5), None);
    }
}
