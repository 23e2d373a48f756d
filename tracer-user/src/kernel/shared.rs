//! Whether a file carries a probe already, though it is known by another name.
//!
//! Two overlay mounts of one lower file show two devices, and yet the kernel's probes sit on the one file below: set through both, each
//! would fire for the processes of both. Nothing that stat(2) says proves that two files are one, so the kernel is asked: it writes the
//! breakpoints of a file into every new private mapping that could be executed, ours included (`uprobe_mmap`,
//! kernel/events/uprobes.c).

use std::{
    fs::File,
    io::{self, ErrorKind},
    num::NonZeroUsize,
    os::unix::fs::FileExt,
};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// What the kernel writes over a probed instruction: `int3`.
const BREAKPOINT: u8 = 0xcc;
const PAGE: u64 = 4096;

/// Whether a probe that every process takes is set at this offset of the file, through whatever mount.
pub fn carries_probe(file: &File, offset: u64) -> io::Result<bool> {
    let mut original = [0];
    file.read_exact_at(&mut original, offset)?;
    let mapped = mapped_byte(file, offset)?;
    Ok(mapped == BREAKPOINT && original[0] != BREAKPOINT)
}

/// The byte as a new mapping has it. Read through the kernel: a file that was truncated meanwhile is an error then, and no SIGBUS.
fn mapped_byte(file: &File, offset: u64) -> io::Result<u8> {
    let page = i64::try_from(offset - offset % PAGE).map_err(|_| ErrorKind::InvalidInput)?;
    let length = NonZeroUsize::MIN.saturating_add(PAGE as usize - 1);
    // SAFETY: a mapping at an address of the kernel's choice, which nothing else refers to.
    let mapping = unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE, file, page)? };
    let mut byte = [0];
    let address = mapping.as_ptr() as u64 + offset % PAGE;
    let read = File::open("/proc/self/mem").and_then(|memory| memory.read_exact_at(&mut byte, address));
    // SAFETY: the mapping made above, to which no reference was ever made.
    unsafe { munmap(mapping, length.get())? };
    read.map(|()| byte[0])
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Check that a file without probes has none, that a breakpoint of its own does not count, and that a place beyond its end is an
    /// error.
    #[test]
    fn without_probes() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[0x55, BREAKPOINT, 0x90]).unwrap();
        assert!(!carries_probe(&file, 0).unwrap());
        assert!(!carries_probe(&file, 1).unwrap());
        assert!(carries_probe(&file, 3).is_err());
        assert!(carries_probe(&file, u64::MAX).is_err());
        file.set_len(0).unwrap();
        assert!(mapped_byte(&file, 0).is_err(), "a page that is no longer in the file");
    }
}
