//! The words for what a goroutine waits for, out of the binary itself (`runtime/runtime2.go`, `waitReasonStrings`).

use std::sync::Mutex;

use super::{
    super::elf::{Elf, read_u64},
    table,
};

/// An array of strings, by number.
pub const SYMBOL: &str = "runtime.waitReasonStrings";

/// Size of a string's header.
const HEADER: usize = 16;
const MAX_REASONS: usize = 256;
const MAX_LENGTH: u64 = 64;
/// Different lists that are kept besides those of the table; more are not looked at.
const MAX_LISTS: usize = 64;

/// Lists that no release of the table has. They live as long as we do, like those of the table; each once.
static OTHERS: Mutex<Vec<&'static [&'static str]>> = Mutex::new(Vec::new());

/// The list of `bytes` bytes at `address`; `None` if it is no such list.
pub fn read(elf: &Elf, address: u64, bytes: u64) -> Option<&'static [&'static str]> {
    let bytes = usize::try_from(bytes).ok().filter(|bytes| bytes.is_multiple_of(HEADER) && *bytes <= MAX_REASONS * HEADER)?;
    let headers = elf.read_relocated(address, bytes)?;
    let text = |header: &[u8]| {
        let len = read_u64(header, 8).filter(|len| *len <= MAX_LENGTH)?;
        // An empty string may point to nothing.
        let bytes = if len == 0 { Some(&[][..]) } else { elf.read(read_u64(header, 0)?, len as usize) };
        std::str::from_utf8(bytes?).ok().filter(|text| !text.contains(|c: char| c.is_control()))
    };
    let list: Vec<&str> = headers.chunks_exact(HEADER).map(text).collect::<Option<_>>()?;
    if list.first() != Some(&"") || !list.contains(&"chan receive") {
        return None;
    }
    keep(&list)
}

fn keep(list: &[&str]) -> Option<&'static [&'static str]> {
    if let Some(entry) = table::ENTRIES.iter().find(|entry| entry.wait_reasons == list) {
        return Some(&entry.wait_reasons);
    }
    let mut others = OTHERS.lock().ok()?;
    if let Some(known) = others.iter().find(|known| **known == list) {
        return Some(known);
    }
    if others.len() >= MAX_LISTS {
        return None;
    }
    let kept: Vec<&'static str> = list.iter().map(|text| &*Box::leak(Box::<str>::from(*text))).collect();
    let kept: &'static [&'static str] = Vec::leak(kept);
    others.push(kept);
    Some(kept)
}
