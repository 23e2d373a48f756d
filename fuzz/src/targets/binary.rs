//! Executables.

use std::{
    fs::File,
    io::{Seek, Write},
    os::fd::FromRawFd,
};

use tracer_user::{
    golang::{self, GoBinary, looks_like_go, what_is_file},
    recording::contract::{CodeUse, Tier},
};

/// Names that are looked for in live binaries.
const NAMES: [&str; 4] = ["main.main", "runtime.gopark", "runtime.allgadd", "runtime.schedinit"];
/// Code addresses asked about beside those of the plan.
const ADDRESSES: u64 = 64;

/// A file as `run`, `doctor` and `snapshot` use it.
pub fn whole(input: &[u8]) {
    let Ok(binary) = GoBinary::from_bytes(input.to_vec()) else { return };
    let _ = (binary.version().to_string(), binary.module(), binary.build_id(), binary.wait_reasons(), binary.hchan_lock());
    let _ = (binary.layout().is_ok(), binary.snapshot_layout().is_ok(), binary.all_goroutines().is_ok());
    let _ = binary.load_bias(0x7f00_0000_0000, 0);
    let mut addresses: Vec<u64> = NAMES.iter().filter_map(|name| binary.function(name)).collect();
    for tier in [Tier::T2, Tier::T1] {
        for site in binary.plan(tier).sites {
            assert!(site.register < 16 && site.file_offset < input.len() as u64, "{site:?}");
            addresses.push(site.address);
        }
    }
    let first = addresses.first().copied().unwrap_or(0x40_1000);
    addresses.extend((0..ADDRESSES).map(|i| first.wrapping_add(i * i * 7)));
    for address in addresses.into_iter().take(4 * ADDRESSES as usize) {
        let _ = (binary.is_entry(address), binary.frame_bytes(address));
        for use_as in [CodeUse::Entry, CodeUse::Return] {
            let frames = binary.symbolize(address, use_as);
            assert!(frames.len() <= 65, "{} frames", frames.len());
        }
    }
}

/// What is asked of every file that anybody executes.
pub fn what_is(input: &[u8]) {
    let Some(file) = in_memory(input) else { return };
    let _ = (looks_like_go(&file).is_ok(), GoBinary::open(&file).is_ok());
    let words = what_is_file(&file).unwrap_or_default();
    assert!(words.len() < 1024 && !words.chars().any(char::is_control), "{words:?}");
    assert_eq!(golang::what_is(input.get(..64 << 10).unwrap_or(input)), words);
}

pub fn build_info(input: &[u8]) {
    let _ = golang::build_info(input.to_vec());
}

fn in_memory(bytes: &[u8]) -> Option<File> {
    // SAFETY: the name is a constant with its zero; the kernel makes a descriptor or says -1.
    let fd = unsafe { libc::memfd_create(c"fuzz".as_ptr(), libc::MFD_CLOEXEC) };
    // SAFETY: the descriptor is new, and nobody else knows it.
    let mut file = (fd >= 0).then(|| unsafe { File::from_raw_fd(fd) })?;
    file.write_all(bytes).and_then(|()| file.rewind()).ok()?;
    Some(file)
}
