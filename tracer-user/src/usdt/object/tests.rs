//! Notes in files made by hand.

use super::*;

/// A file of one segment at 0x1000 that holds it whole, a note section with these contents, and `.stapsdt.base` at an address.
pub fn file(contents: &[Vec<u8>], base: u64) -> Vec<u8> {
    const NAMES: &[u8] = b"\0.note.stapsdt\0.stapsdt.base\0.shstrtab\0";
    let mut notes = Vec::new();
    for content in contents {
        for word in [8u32, content.len() as u32, 3] {
            notes.extend_from_slice(&word.to_le_bytes());
        }
        notes.extend_from_slice(b"stapsdt\0");
        notes.extend_from_slice(content);
        notes.resize(notes.len().next_multiple_of(4), 0);
    }
    let (notes_at, names_at) = (0x200usize, 0x200 + notes.len());
    let sections_at = (names_at + NAMES.len()).next_multiple_of(8);
    let mut bytes = vec![0u8; sections_at + 4 * 64];
    let size = bytes.len() as u64;
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &[0x7f, b'E', b'L', b'F', 2, 1, 1]);
    put(16, &[3, 0, 62, 0, 1, 0, 0, 0]);
    put(32, &64u64.to_le_bytes());
    put(40, &(sections_at as u64).to_le_bytes());
    put(52, &[64, 0, 56, 0, 1, 0, 64, 0, 4, 0, 3, 0]);
    put(64, &1u32.to_le_bytes());
    put(68, &7u32.to_le_bytes());
    for (i, word) in [0, 0x1000, 0x1000, size, size, 8].into_iter().enumerate() {
        put(72 + i * 8, &word.to_le_bytes());
    }
    put(notes_at, &notes);
    put(names_at, NAMES);
    let mut section = |index: usize, name: u32, kind: u32, address: u64, offset: usize, size: usize| {
        let at = sections_at + index * 64;
        put(at, &name.to_le_bytes());
        put(at + 4, &kind.to_le_bytes());
        for (i, word) in [0, address, offset as u64, size as u64, 0, 4].into_iter().enumerate() {
            put(at + 8 + i * 8, &u64::to_le_bytes(word));
        }
    };
    section(1, 1, 7, 0, notes_at, notes.len());
    section(2, 15, 1, base, 0, 1);
    section(3, 29, 3, 0, names_at, NAMES.len());
    bytes
}

/// What a note holds.
pub fn content(words: [u64; 3], provider: &str, name: &str, arguments: &str) -> Vec<u8> {
    let mut content: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
    for text in [provider, name, arguments] {
        content.extend_from_slice(text.as_bytes());
        content.push(0);
    }
    content
}

/// Check that notes are read, and that their addresses follow `.stapsdt.base`.
#[test]
fn notes() {
    let contents =
        [content([0x1010, 0x8000, 0x1020], "go", "sched_block", "8@%rdi 8@%rsi"), content([0x1011, 0x8000, 0], "go", "x", "")];
    for (base, moved) in [(0x8000, 0), (0x8100, 0x100), (0x7ff0, -16i64)] {
        let object = UsdtObject::read(file(&contents, base).as_slice()).unwrap();
        assert_eq!(object.probes.len(), 2);
        let first = &object.probes[0];
        assert_eq!((first.provider.as_str(), first.name.as_str(), first.arguments.len()), ("go", "sched_block", 2));
        assert_eq!(first.address, 0x1010u64.wrapping_add_signed(moved));
        assert_eq!(first.file_offset, 0x10u64.wrapping_add_signed(moved));
        let semaphore = first.semaphore.unwrap();
        assert_eq!(semaphore.address, 0x1020u64.wrapping_add_signed(moved));
        assert_eq!(semaphore.file_offset, 0x20u64.wrapping_add_signed(moved));
        assert_eq!((object.probes[1].semaphore, object.probes[1].arguments.len()), (None, 0));
    }
}

/// Check that probes and semaphores outside the file are left out, and so are other notes.
#[test]
fn nowhere() {
    let outside = [content([0x9999_0000, 0, 0], "a", "b", ""), content([0x1010, 0, 0x9999_0000], "a", "b", ""), vec![1; 23]];
    assert!(UsdtObject::read(file(&outside, 0).as_slice()).unwrap().probes.is_empty());
    assert_eq!(UsdtObject::read(&b"#!/bin/sh"[..]).unwrap_err(), UsdtError::NotElf);
}

/// Check that a segment that claims more than the file has lends nobody a place beyond its end.
#[test]
fn beyond_the_file() {
    let mut bytes = file(&[content([0x1010, 0, 0], "a", "b", ""), content([0x9000, 0, 0], "a", "c", "")], 0);
    bytes[96..104].copy_from_slice(&u64::MAX.to_le_bytes());
    let object = UsdtObject::read(bytes.as_slice()).unwrap();
    assert_eq!(object.probes.iter().map(|probe| probe.name.as_str()).collect::<Vec<_>>(), ["b"]);
}

/// Check that the file cut at any length, or with any byte set to 0xff, is read without a panic.
#[test]
fn damage_is_survived() {
    let whole = file(&[content([0x1010, 0x8000, 0x1020], "go", "sched_block", "8@%rdi")], 0x8000);
    for len in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[len] = 0xff;
        for bytes in [whole[..len].to_vec(), damaged] {
            let _ = UsdtObject::read(bytes.as_slice());
        }
    }
}
