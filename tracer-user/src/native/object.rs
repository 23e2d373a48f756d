//! The symbols of one mapped file.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
};

use object::{Object as _, ObjectSegment, ObjectSymbol, SymbolKind};

use crate::target::blocks::Parts;

/// Symbols that are kept of one file. A browser engine has some hundred thousand.
const MAX_SYMBOLS: usize = 4 << 20;
/// Bytes of names that are kept of one file.
const MAX_NAMES: usize = 256 << 20;
/// Bytes of a name that people see.
const MAX_NAME: usize = 512;
/// Segments of one file.
const MAX_SEGMENTS: usize = 64;
/// The longest call instruction (`ff /2` with a SIB byte and 32 bits of displacement).
const MAX_CALL: usize = 7;

/// A file's code symbols.
pub(super) struct Object {
    /// Loaded segments: offset in the file, size there, link-time address.
    segments: Vec<(u64, u64, u64)>,
    /// By address: address, size (0: not known), and where the name is.
    symbols: Vec<(u64, u64, u32, u32)>,
    names: String,
    file: Option<File>,
}

impl Object {
    /// `None`: it is no object file.
    pub fn read(file: File) -> Option<Self> {
        let again = file.try_clone().ok();
        let parts = Parts::of(file);
        let parsed = object::File::parse(&parts).ok()?;
        let segments = parsed.segments().take(MAX_SEGMENTS).map(|segment| {
            let (offset, size) = segment.file_range();
            (offset, size, segment.address())
        });
        let mut own = Self { segments: segments.collect(), symbols: Vec::new(), names: String::new(), file: again };
        // What the linker left is more than what the loader needs; a stripped file has that alone.
        for symbol in parsed.symbols().chain(parsed.dynamic_symbols()) {
            if symbol.kind() != SymbolKind::Text || !symbol.is_definition() {
                continue;
            }
            let Some(name) = symbol.name().ok().filter(|name| !name.is_empty()) else { continue };
            if own.symbols.len() >= MAX_SYMBOLS || own.names.len() + name.len() > MAX_NAMES {
                break;
            }
            let at = own.names.len() as u32;
            own.names.push_str(name);
            own.symbols.push((symbol.address(), symbol.size(), at, name.len() as u32));
        }
        own.symbols.sort_by_key(|(address, size, ..)| (*address, *size));
        Some(own)
    }

    /// The function at an offset of the file.
    pub fn name(&self, offset: u64) -> Option<String> {
        let (start, _, address) =
            self.segments.iter().find(|(start, size, _)| offset.checked_sub(*start).is_some_and(|at| at < *size))?;
        let address = (offset - start).checked_add(*address)?;
        let before = self.symbols.partition_point(|(start, ..)| *start <= address);
        let (start, size, at, len) = *self.symbols[..before].last()?;
        if size != 0 && address - start >= size {
            return None;
        }
        let name = self.names.get(at as usize..)?.get(..len as usize)?;
        Some(demangled(name))
    }

    /// Whether a call instruction ends at an offset of the file.
    pub fn is_behind_call(&self, offset: u64) -> bool {
        let mut code = [0; MAX_CALL];
        let (Some(file), Some(from)) = (&self.file, offset.checked_sub(MAX_CALL as u64)) else { return false };
        let mut file = file;
        let read = file.seek(SeekFrom::Start(from)).and_then(|_| file.read_exact(&mut code));
        read.is_ok() && ends_with_call(&code)
    }
}

/// `call rel32`, or `call r/m64` in one of its lengths.
fn ends_with_call(code: &[u8; MAX_CALL]) -> bool {
    // The ModRM byte of `ff /2`, and how many bytes follow the opcode.
    let indirect = |len: usize| {
        let [opcode, modrm, ..] = code[MAX_CALL - len..] else { return false };
        if opcode != 0xff || modrm >> 3 & 7 != 2 {
            return false;
        }
        let (mode, register) = (modrm >> 6, modrm & 7);
        let sib = usize::from(mode != 3 && register == 4);
        let displacement = match mode {
            0 if register == 5 => 4,
            0 | 3 => 0,
            1 => 1,
            _ => 4,
        };
        len == 2 + sib + displacement
    };
    code[MAX_CALL - 5] == 0xe8 || (2..=MAX_CALL).any(indirect)
}

/// As people write it.
fn demangled(name: &str) -> String {
    let mut name = match rustc_demangle::try_demangle(name) {
        Ok(rust) => format!("{rust:#}"),
        Err(_) => cpp(name).unwrap_or_else(|| name.to_owned()),
    };
    if let Some((cut, _)) = name.char_indices().nth(MAX_NAME) {
        name.truncate(cut);
    }
    name
}

fn cpp(name: &str) -> Option<String> {
    let options = cpp_demangle::DemangleOptions::new().no_params().no_return_type();
    cpp_demangle::Symbol::new(name).ok()?.demangle_with_options(&options).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A function that has a symbol in every build: how much is inlined elsewhere goes with the codegen units.
    #[inline(never)]
    extern "C" fn never_inlined(of: u64) -> u64 {
        std::hint::black_box(of).rotate_left(7) ^ std::hint::black_box(0x5bd1)
    }

    /// Check that our own functions are found in our own file, and that nonsense is no object.
    #[test]
    fn own_symbols() {
        assert_ne!(std::hint::black_box(never_inlined as extern "C" fn(u64) -> u64)(1), 0);
        let object = Object::read(File::open("/proc/self/exe").unwrap()).unwrap();
        assert!(object.symbols.len() > 100);
        let named = |at: u32, len: u32| object.names[at as usize..][..len as usize].contains("never_inlined");
        let (address, size, ..) = *object.symbols.iter().find(|(_, size, at, len)| *size > 1 && named(*at, *len)).unwrap();
        let (start, _, base) = *object.segments.iter().find(|(_, size, base)| (*base..*base + *size).contains(&address)).unwrap();
        let name = object.name(address - base + start + size / 2).unwrap();
        assert!(name.contains("never_inlined"), "{name}");
        assert!(Object::read(File::open("/proc/self/maps").unwrap()).is_none());
    }

    /// Check the forms of a call.
    #[test]
    fn calls() {
        let ends = |bytes: &[u8]| {
            let mut code = [0x90; MAX_CALL];
            code[MAX_CALL - bytes.len()..].copy_from_slice(bytes);
            ends_with_call(&code)
        };
        for (bytes, call) in [
            (&[0xe8, 1, 2, 3, 4][..], true),
            (&[0xff, 0xd0], true),
            (&[0x41, 0xff, 0xd4], true),
            (&[0xff, 0x15, 1, 2, 3, 4], true),
            (&[0xff, 0x50, 0x18], true),
            (&[0xff, 0x54, 0x24, 0x08], true),
            (&[0xff, 0x94, 0x24, 1, 2, 3, 4], true),
            (&[0xff, 0xe0], false),
            (&[0xe9, 1, 2, 3, 4], false),
            (&[0xc3], false),
        ] {
            assert_eq!(ends(bytes), call, "{bytes:x?}");
        }
    }
}
