//! What the linker wrote down about the build: Go version, main module, build id.
//!
//! Sources: `debug/buildinfo/buildinfo.go` (both layouts of the blob), `cmd/link/internal/ld/elf.go` (the notes).

use super::elf::{Elf, find, read_u32, read_u64, read_uvarint};

/// Starts the blob; it stands on a 16-byte boundary (`buildInfoAlign`).
const MAGIC: &[u8] = b"\xff Go buildinf:";
const ALIGN: u64 = 16;
const HEADER: usize = 32;
/// Bit 1 of the flag byte: version and module text follow inline (Go 1.18 and later).
const FLAG_INLINE: u8 = 2;
/// Bit 0: the pointers are big-endian.
const FLAG_BIG_ENDIAN: u8 = 1;
/// Module text is wrapped in 16 bytes of marker on either side (`cmd/go/internal/modload/build.go`).
const MODULE_MARKER: usize = 16;
const MAX_VERSION: u64 = 512;
const MAX_MODULE: u64 = 16 << 20;
/// Candidates of the magic looked at; the real one is among the first.
const MAX_CANDIDATES: usize = 64;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildInfo {
    /// As written, e.g. `go1.26.8 X:jsonv2` or `devel go1.28-…`.
    pub version: String,
    /// Path of the main module, empty if there is none.
    pub module: String,
    /// Import path of the main package, empty if it is not said (before Go 1.18).
    pub package: String,
}

impl BuildInfo {
    /// `None` where the binary has no readable blob: some builds leave it out.
    pub fn read(elf: &Elf) -> Option<Self> {
        if let Some(info) = elf.section(".go.buildinfo").and_then(|(address, _)| Self::at(elf, address)) {
            return Some(info);
        }
        elf.loads().iter().filter(|s| s.writable).find_map(|segment| {
            let bytes = elf.contents(segment);
            let mut from = 0;
            for _ in 0..MAX_CANDIDATES {
                let at = find(bytes, MAGIC, from)?;
                from = at + 1;
                let Some(address) = segment.address.checked_add(at as u64) else { continue };
                if address % ALIGN == 0
                    && let Some(info) = Self::at(elf, address)
                {
                    return Some(info);
                }
            }
            None
        })
    }

    fn at(elf: &Elf, address: u64) -> Option<Self> {
        let blob = elf.from(address)?;
        if !blob.starts_with(MAGIC) {
            return None;
        }
        let flags = *blob.get(15)?;
        let (version, module) = if flags & FLAG_INLINE != 0 {
            let mut at = HEADER;
            (inline_string(blob, &mut at, MAX_VERSION)?, inline_string(blob, &mut at, MAX_MODULE).unwrap_or_default().to_vec())
        } else if flags & FLAG_BIG_ENDIAN == 0 && *blob.get(14)? == 8 {
            let header = elf.read_relocated(address, HEADER)?;
            let version = go_string(elf, read_u64(&header, 16)?, MAX_VERSION)?;
            (version, read_u64(&header, 24).and_then(|p| go_string(elf, p, MAX_MODULE)).unwrap_or_default().to_vec())
        } else {
            return None;
        };
        let version = std::str::from_utf8(version).ok()?.trim();
        (!version.is_empty() && is_plain(version)).then(|| Self {
            version: version.to_owned(),
            module: field(&module, "mod\t"),
            package: field(&module, "path\t"),
        })
    }
}

fn inline_string<'a>(blob: &'a [u8], at: &mut usize, max: u64) -> Option<&'a [u8]> {
    let len = read_uvarint(blob, at).filter(|&len| len <= max)?;
    let end = at.checked_add(usize::try_from(len).ok()?)?;
    let text = blob.get(*at..end)?;
    *at = end;
    Some(text)
}

/// The bytes of the Go string whose header (pointer, length) stands at `address`.
pub fn go_string(elf: &Elf, address: u64, max: u64) -> Option<&[u8]> {
    let header = elf.read_relocated(address, 16)?;
    let len = read_u64(&header, 8).filter(|&len| len <= max)?;
    elf.read(read_u64(&header, 0)?, usize::try_from(len).ok()?)
}

/// The path of a line of the module text (`runtime/debug.BuildInfo`): tab-separated kind, path, and for a module version and sum.
fn field(text: &[u8], kind: &str) -> String {
    let inner = text.len().checked_sub(MODULE_MARKER).and_then(|end| text.get(MODULE_MARKER..end)).unwrap_or_default();
    let text = String::from_utf8_lossy(inner);
    let line = text.lines().find_map(|line| line.strip_prefix(kind));
    line.and_then(|rest| rest.split('\t').next()).filter(|path| is_plain(path)).unwrap_or_default().to_owned()
}

/// Whether a terminal shows it as it is.
pub fn is_plain(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// Go's own build id (note `Go`, type 4), else the GNU one (note `GNU`, type 3) in hex.
pub fn build_id(elf: &Elf) -> Option<String> {
    let mut gnu = None;
    for note in elf.notes().flat_map(notes) {
        match note {
            (b"Go\0\0", 4, id) => return std::str::from_utf8(id).ok().filter(|id| is_plain(id)).map(str::to_owned),
            (b"GNU\0", 3, id) if id.len() <= 64 => gnu = Some(id.iter().map(|b| format!("{b:02x}")).collect()),
            _ => {}
        }
    }
    gnu
}

/// Name, type and content of each note (`Elf64_Nhdr`, 4-byte padding). Ends at the first that does not fit.
fn notes(mut bytes: &[u8]) -> impl Iterator<Item = (&[u8], u32, &[u8])> {
    std::iter::from_fn(move || {
        let (name_len, len) = (read_u32(bytes, 0)? as usize, read_u32(bytes, 4)? as usize);
        let kind = read_u32(bytes, 8)?;
        let name_end = 12usize.checked_add(name_len)?;
        let start = name_end.checked_next_multiple_of(4)?;
        let end = start.checked_add(len)?;
        let note = (bytes.get(12..name_end)?, kind, bytes.get(start..end)?);
        bytes = bytes.get(end.checked_next_multiple_of(4)?..).unwrap_or_default();
        Some(note)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the main module is read out of the text between the markers, and that odd text gives none.
    #[test]
    fn main_module_lines() {
        let marked = |text: &str| [&[7u8; 16][..], text.as_bytes(), &[9u8; 16][..]].concat();
        for (text, expected) in [
            (marked("path\texample.com/a/cmd\nmod\texample.com/a\t(devel)\t\ndep\tx\ty\n"), "example.com/a"),
            (marked("path\tcommand-line-arguments\n"), ""),
            (b"short".to_vec(), ""),
            (vec![], ""),
        ] {
            assert_eq!(field(&text, "mod\t"), expected);
        }
    }

    /// Check that notes are walked with their padding, and that a length beyond the end stops the walk.
    #[test]
    fn notes_are_bounded() {
        let mut bytes = Vec::new();
        for (name, kind, text) in [(&b"GNU\0"[..], 3u32, &b"abcde"[..]), (b"Go\0\0", 4, b"id/x")] {
            bytes.extend((name.len() as u32).to_le_bytes());
            bytes.extend((text.len() as u32).to_le_bytes());
            bytes.extend(kind.to_le_bytes());
            bytes.extend(name);
            bytes.extend(text);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        let found: Vec<_> = notes(&bytes).collect();
        assert_eq!(found, [(&b"GNU\0"[..], 3, &b"abcde"[..]), (b"Go\0\0", 4, b"id/x")]);
        assert_eq!(notes(&bytes[..20]).count(), 0);
        assert_eq!(notes(&[0xff; 40]).count(), 0);
    }

    /// Check that an inline string longer than its limit or than the blob is refused.
    #[test]
    fn inline_strings_are_bounded() {
        assert_eq!(inline_string(b"\x03abcd", &mut 0, 8), Some(&b"abc"[..]));
        assert_eq!(inline_string(b"\x03abcd", &mut 0, 2), None);
        assert_eq!(inline_string(b"\x09abcd", &mut 0, 99), None);
    }
}
