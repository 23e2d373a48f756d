//! Code that is not Go's: symbols of ELF files, with names that compilers have mangled, and what a process has mapped.

use std::{
    fs::File,
    io::Write,
    os::fd::{FromRawFd, OwnedFd},
};

use tracer_user::native::{self, Maps};

/// Bytes of a name that is shown.
const MAX_NAME: usize = 512 * 4;

pub fn symbols(input: &[u8]) {
    let Some(file) = in_memory(input) else { return };
    let step = (input.len() as u64 / 64).max(1);
    let offsets: Vec<u64> = (0..=64).map(|index| index * step).chain([0, u64::MAX]).collect();
    assert!(native::symbols_of(file, &offsets).iter().all(|name| name.len() <= MAX_NAME));
}

pub fn maps(input: &[u8]) {
    let _ = Maps::parse(&String::from_utf8_lossy(input)).is_empty();
}

/// A file that no disk holds.
fn in_memory(bytes: &[u8]) -> Option<File> {
    // SAFETY: a name that ends in zero; the descriptor is ours alone.
    let file = unsafe {
        let descriptor = libc::memfd_create(c"input".as_ptr(), 0);
        (descriptor >= 0).then(|| File::from(OwnedFd::from_raw_fd(descriptor)))
    };
    let mut file = file?;
    file.write_all(bytes).ok()?;
    Some(file)
}
