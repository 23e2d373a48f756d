//! Go versions as binaries state them.

use std::fmt;

use iced_x86::{Decoder, DecoderOptions, Mnemonic};

use super::{buildinfo::go_string, elf::Elf, pclntab::Function};

/// Comparisons with memory looked at in `schedinit`, which has about ten.
const MAX_TRIED: u32 = 32;

/// The Go version a binary was built with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoVersion {
    raw: String,
    major: u32,
    minor: u32,
}

impl GoVersion {
    /// Reads `go1.26.8`, `go1.27rc1`, `go1.26.8 X:jsonv2` or `devel go1.28-0123abc Mon …`. `None` if no release is named.
    pub fn parse(raw: &str) -> Option<Self> {
        let raw = raw.trim();
        let word = raw.split_whitespace().find(|word| word.starts_with("go"))?;
        let mut numbers = word.strip_prefix("go")?.splitn(2, '.');
        let major = numbers.next()?.parse().ok()?;
        let rest = numbers.next()?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        Some(Self { raw: raw.to_owned(), major, minor: rest.get(..digits)?.parse().ok()? })
    }

    /// Major and minor number, for comparing: (1, 26).
    pub fn release(&self) -> (u32, u32) {
        (self.major, self.minor)
    }

    /// The string as the binary has it, experiments included.
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// `1.26.8` of a release as Go's makers publish it; `None` with experiments, a vendor's suffix, or before the release.
    pub(super) fn plain_release(&self) -> Option<&str> {
        let release = self.raw.strip_prefix("go")?;
        release.bytes().all(|b| b.is_ascii_digit() || b == b'.').then_some(release)
    }

    /// Whether it was built from an unreleased state of Go: offsets of a release need not hold.
    pub fn is_development(&self) -> bool {
        self.raw.starts_with("devel")
    }
}

impl fmt::Display for GoVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_development() {
            return f.write_str(&self.raw);
        }
        f.write_str(self.raw.split_whitespace().next().unwrap_or(&self.raw))
    }
}

/// The version of a binary without build info: `runtime.schedinit` compares the length of `runtime.buildVersion` with 0
/// (`runtime/proc.go`), so one of its operands leads to that string.
pub fn from_schedinit(elf: &Elf, schedinit: Function) -> Option<GoVersion> {
    let code = elf.read(schedinit.start, usize::try_from(schedinit.end - schedinit.start).ok()?.min(1 << 16))?;
    let mut tried = 0;
    for instruction in &mut Decoder::with_ip(64, code, schedinit.start, DecoderOptions::NONE) {
        if instruction.mnemonic() != Mnemonic::Cmp || !instruction.is_ip_rel_memory_operand() || tried == MAX_TRIED {
            continue;
        }
        tried += 1;
        let operand = instruction.ip_rel_memory_address();
        for header in [operand.wrapping_sub(8), operand] {
            let text = go_string(elf, header, 128).and_then(|bytes| std::str::from_utf8(bytes).ok());
            if let Some(text) = text.filter(|text| text.starts_with("go1.") || text.starts_with("devel ")) {
                return GoVersion::parse(text);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that release, pre-release, experiment and development strings give their release and print as people know them.
    #[test]
    fn version_strings() {
        for (raw, release, shown) in [
            ("go1.26.8", (1, 26), "go1.26.8"),
            ("go1.21", (1, 21), "go1.21"),
            ("go1.27rc1", (1, 27), "go1.27rc1"),
            ("go1.26.8 X:jsonv2", (1, 26), "go1.26.8"),
            ("go1.24.4-custom X:boringcrypto", (1, 24), "go1.24.4-custom"),
            ("devel go1.28-0123abc Mon Jan 1", (1, 28), "devel go1.28-0123abc Mon Jan 1"),
        ] {
            let version = GoVersion::parse(raw).unwrap();
            assert_eq!((version.release(), version.to_string().as_str(), version.raw()), (release, shown, raw));
        }
    }

    /// Check that only a release exactly as published counts as one.
    #[test]
    fn plain_releases() {
        for (raw, plain) in [
            ("go1.26.8", Some("1.26.8")),
            ("go1.21", Some("1.21")),
            ("go1.27rc1", None),
            ("go1.26.8 X:jsonv2", None),
            ("go1.24.4-custom", None),
            ("devel go1.28-0123abc", None),
        ] {
            assert_eq!(GoVersion::parse(raw).unwrap().plain_release(), plain, "{raw}");
        }
    }

    /// Check that text that names no release is refused.
    #[test]
    fn no_version() {
        for raw in ["", "go", "go1", "go1.", "unknown", "gopher1.2", "go99999999999.1"] {
            assert_eq!(GoVersion::parse(raw), None, "{raw:?}");
        }
    }
}
