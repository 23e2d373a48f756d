//! What kind of file this is, in words and within milliseconds.
//!
//! Reads headers only. Whether a file that looks like Go can be traced is for [`super::GoBinary::open`] to say.

use std::{fs::File, io, os::unix::fs::FileExt};

use object::elf;

use super::elf::{find, read_u16, read_u32, read_u64};

const ELF_HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const SECTION_HEADER: usize = 64;
/// Longest table of section headers, section names or dynamic entries that is read.
const MAX_TABLE: u64 = 1 << 20;
/// How much of a segment, and of a file without sections, is searched for the build info: somebody's exec waits for it.
const MAX_SCAN: u64 = 4 << 20;
const MAX_SCANNED: u64 = 16 << 20;
const MAX_SEGMENTS: u16 = 256;

const GO_SECTIONS: [&[u8]; 4] = [b".go.buildinfo", b".gopclntab", b".data.rel.ro.gopclntab", b".note.go.buildid"];

/// Whether the file is an x86-64 ELF that carries Go's sections, Go's note, or the mark of its build info.
pub fn looks_like_go(file: &File) -> io::Result<bool> {
    let head = read_up_to(file, 0, ELF_HEADER as u64)?;
    if !is_x86_64(&head) {
        return Ok(false);
    }
    if let Some(names) = section_names(file, &head)? {
        return Ok(names.split(|&b| b == 0).any(|name| GO_SECTIONS.contains(&name)));
    }
    let programs = program_headers(file, &head)?;
    let mut left = MAX_SCANNED;
    for program in programs.chunks_exact(PROGRAM_HEADER) {
        let (kind, flags) = (read_u32(program, 0), read_u32(program, 4).unwrap_or(0));
        let (offset, size) = (read_u64(program, 8).unwrap_or(0), read_u64(program, 32).unwrap_or(0));
        let note = kind == Some(elf::PT_NOTE.0);
        if !note && (kind != Some(elf::PT_LOAD.0) || flags & elf::PF_W.0 == 0) {
            continue;
        }
        let bytes = read_up_to(file, offset, size.min(MAX_SCAN).min(left))?;
        left = left.saturating_sub(bytes.len() as u64);
        let mark: &[u8] = if note { b"\x04\0\0\0Go\0\0" } else { b"\xff Go buildinf:" };
        if find(&bytes, mark, 0).is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What the file is, for a person: "a shell script run by /bin/sh", "an ELF executable for aarch64".
pub fn what_is(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "an empty file".to_owned();
    }
    if let Some(line) = bytes.strip_prefix(b"#!") {
        return script(line);
    }
    if bytes.starts_with(&elf::ELFMAG) {
        return elf_in_words(bytes);
    }
    let known: [(&[u8], &str); 9] = [
        (b"MZ", "a Windows executable"),
        (b"\xcf\xfa\xed\xfe", "a macOS executable"),
        (b"\xca\xfe\xba\xbe", "a macOS universal binary or a Java class"),
        (b"\0asm", "a WebAssembly module"),
        (b"\x1f\x8b", "gzip-compressed data"),
        (b"PK\x03\x04", "a zip archive"),
        (b"!<arch>\n", "a static library"),
        (b"\x28\xb5\x2f\xfd", "zstd-compressed data"),
        (b"\xfd7zXZ\0", "xz-compressed data"),
    ];
    if let Some((_, what)) = known.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return (*what).to_owned();
    }
    let sample = bytes.get(..1024).unwrap_or(bytes);
    let text = sample.iter().all(|&b| b >= 0x20 || matches!(b, b'\n' | b'\r' | b'\t'));
    if text { "a text file without an interpreter line".to_owned() } else { "data that is no executable".to_owned() }
}

/// The same for a file, reading no more than it needs.
pub fn what_is_file(file: &File) -> io::Result<String> {
    Ok(what_is(&read_up_to(file, 0, 64 << 10)?))
}

fn script(line: &[u8]) -> String {
    let line = line.split(|&b| b == b'\n').next().unwrap_or_default();
    let line: String = String::from_utf8_lossy(line).chars().filter(|c| !c.is_control()).take(200).collect();
    let interpreter = line.trim();
    let program = interpreter.split_whitespace().next().unwrap_or_default();
    let (run_by, shells) = (interpreter.split_whitespace(), ["sh", "bash", "dash", "ash", "zsh", "ksh"]);
    let mut names = run_by.map(|word| word.rsplit('/').next().unwrap_or(word));
    let first = names.next().unwrap_or_default();
    let name = if first == "env" { names.find(|n| !n.starts_with('-')).unwrap_or(first) } else { first };
    if program.is_empty() {
        return "a script whose interpreter line is empty".to_owned();
    }
    let kind = if shells.contains(&name) { "a shell script" } else { "a script" };
    let run_by = if first == "env" { interpreter } else { program };
    format!("{kind} run by {run_by}")
}

fn elf_in_words(bytes: &[u8]) -> String {
    if bytes.len() < ELF_HEADER {
        return "an ELF file cut short".to_owned();
    }
    let class = bytes.get(4).copied();
    if bytes.get(5).copied() == Some(2) {
        return "an ELF file for a big-endian machine".to_owned();
    }
    let machine = read_u16(bytes, 18).unwrap_or(0);
    let machine = match (elf::Machine(machine), class) {
        (elf::EM_X86_64, Some(2)) => "x86-64".to_owned(),
        (elf::EM_X86_64, _) => "x32 (32-bit pointers on x86-64)".to_owned(),
        (elf::EM_386, _) => "32-bit x86".to_owned(),
        (elf::EM_AARCH64, _) => "aarch64".to_owned(),
        (elf::EM_ARM, _) => "32-bit ARM".to_owned(),
        (elf::EM_RISCV, _) => "RISC-V".to_owned(),
        (elf::EM_PPC64, _) => "POWER".to_owned(),
        (elf::EM_S390, _) => "s390x".to_owned(),
        (elf::EM_MIPS, _) => "MIPS".to_owned(),
        _ => format!("machine {machine}"),
    };
    let dynamic = interpreter_in(bytes);
    // Only on our own machine was it looked for.
    let verdict = if machine == "x86-64" { ", not built by Go" } else { "" };
    let kind = match elf::FileType(read_u16(bytes, 16).unwrap_or(0)) {
        elf::ET_REL => "ELF object file",
        elf::ET_CORE => "ELF core dump",
        elf::ET_DYN if !dynamic => "ELF shared library or static PIE executable",
        elf::ET_EXEC | elf::ET_DYN => {
            let article = if dynamic { "a dynamically linked" } else { "a statically linked" };
            return format!("{article} ELF executable for {machine}{verdict}");
        }
        _ => "ELF file",
    };
    format!("an {kind} for {machine}{verdict}")
}

/// Whether a `PT_INTERP` is among the program headers within these bytes.
fn interpreter_in(bytes: &[u8]) -> bool {
    let (class, size) = (bytes.get(4).copied(), read_u16(bytes, if bytes.get(4) == Some(&1) { 42 } else { 54 }));
    let offset = if class == Some(1) { read_u32(bytes, 28).map(u64::from) } else { read_u64(bytes, 32) };
    let count = read_u16(bytes, if class == Some(1) { 44 } else { 56 }).unwrap_or(0).min(MAX_SEGMENTS);
    let (Some(size), Some(offset)) = (size, offset.and_then(|offset| usize::try_from(offset).ok())) else { return false };
    (0..usize::from(count)).any(|i| {
        let at = offset.checked_add(i * usize::from(size));
        at.and_then(|at| read_u32(bytes, at)) == Some(elf::PT_INTERP.0)
    })
}

/// Whether these bytes begin a little-endian, 64-bit ELF file for x86-64.
pub fn is_x86_64(head: &[u8]) -> bool {
    head.starts_with(&elf::ELFMAG) && head.get(4..6) == Some(&[2, 1]) && read_u16(head, 18) == Some(elf::EM_X86_64.0)
}

/// The section name table; `None` where the file has no section headers.
fn section_names(file: &File, head: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let (Some(offset), Some(index)) = (read_u64(head, 40), read_u16(head, 62)) else { return Ok(None) };
    if offset == 0 || index == 0 || read_u16(head, 58) != Some(SECTION_HEADER as u16) {
        return Ok(None);
    }
    let Some(at) = offset.checked_add(u64::from(index) * SECTION_HEADER as u64) else { return Ok(None) };
    let section = read_up_to(file, at, SECTION_HEADER as u64)?;
    let (Some(offset), Some(size)) = (read_u64(&section, 24), read_u64(&section, 32)) else { return Ok(None) };
    read_up_to(file, offset, size.min(MAX_TABLE)).map(Some)
}

fn program_headers(file: &File, head: &[u8]) -> io::Result<Vec<u8>> {
    let (Some(offset), Some(count)) = (read_u64(head, 32), read_u16(head, 56)) else { return Ok(Vec::new()) };
    if read_u16(head, 54) != Some(PROGRAM_HEADER as u16) {
        return Ok(Vec::new());
    }
    read_up_to(file, offset, u64::from(count.min(MAX_SEGMENTS)) * PROGRAM_HEADER as u64)
}

/// Up to `len` bytes at `offset`; fewer where the file ends, none for an offset no file has.
fn read_up_to(file: &File, offset: u64, len: u64) -> io::Result<Vec<u8>> {
    if i64::try_from(offset.saturating_add(len)).is_err() {
        return Ok(Vec::new());
    }
    let available = file.metadata()?.len().saturating_sub(offset).min(len);
    let mut bytes = vec![0; usize::try_from(available).map_err(io::Error::other)?];
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn elf(class: u8, machine: u16, kind: u16) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, 1]);
        bytes[16..18].copy_from_slice(&kind.to_le_bytes());
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes
    }

    /// Check the words for files that are not Go executables.
    #[test]
    fn words() {
        for (bytes, expected) in [
            (vec![], "an empty file"),
            (b"#!/bin/sh\necho".to_vec(), "a shell script run by /bin/sh"),
            (b"#! /bin/bash -e\n".to_vec(), "a shell script run by /bin/bash"),
            (b"#!/usr/bin/env python3\n".to_vec(), "a script run by /usr/bin/env python3"),
            (b"#!".to_vec(), "a script whose interpreter line is empty"),
            (b"hello\n".to_vec(), "a text file without an interpreter line"),
            (b"MZ\x90".to_vec(), "a Windows executable"),
            (vec![0, 1, 2], "data that is no executable"),
            (elf(2, 183, 2), "a statically linked ELF executable for aarch64"),
            (elf(1, 3, 2), "a statically linked ELF executable for 32-bit x86"),
            (elf(2, 62, 1), "an ELF object file for x86-64, not built by Go"),
            (elf(2, 62, 3), "an ELF shared library or static PIE executable for x86-64, not built by Go"),
            (b"\x7fELF".to_vec(), "an ELF file cut short"),
        ] {
            assert_eq!(what_is(&bytes), expected);
        }
    }

    /// Check that short, foreign and lying files do not look like Go.
    #[test]
    fn not_go() {
        let mut lying = elf(2, 62, 2);
        lying[32..48].fill(0xff);
        lying[54..64].fill(0xff);
        for bytes in [vec![], b"#!/bin/sh\n".to_vec(), elf(2, 62, 2), elf(2, 183, 2), lying] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            assert!(!looks_like_go(&file).unwrap(), "{bytes:?}");
        }
    }
}
