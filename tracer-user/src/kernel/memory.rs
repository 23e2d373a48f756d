//! What of the kernel's memory the BPF side's tables take, as the kernel counts it.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd},
};

use aya::EbpfLoader;
use serde::Serialize;

use super::{
    KernelError,
    multi::fd_of,
    rings::{self, Cpus},
    session::{OBJECT, Sizes},
};

/// Bytes, on this machine: tables with a copy for each CPU grow with their number.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct KernelMemory {
    /// The rings that records are taken out of, and how many.
    pub rings: u32,
    pub ring_bytes: u64,
    /// Every other table.
    pub tables_bytes: u64,
    /// What `--min-block` takes besides.
    pub summing_bytes: u64,
}

/// Makes the tables, asks what they take, and throws them away. Loads no program.
pub fn measure(summing: Sizes) -> Result<KernelMemory, KernelError> {
    let cpus = Cpus::count()?;
    let ebpf = EbpfLoader::new()
        .map_max_entries(rings::RINGS, cpus.possible)
        .map_max_entries("FOLLOWED", summing.processes)
        .map_max_entries("KEPT", summing.kept.max(1))
        .map_max_entries("SUMS", summing.sums.max(1))
        .load(OBJECT)?;
    let ring_bytes = summing.ring_bytes.unwrap_or(cpus.usual_bytes());
    // Kernels before 6.4 say of a ring nothing.
    let of_rings = rings::make(cpus, ring_bytes)?.iter().filter_map(|ring| locked_bytes(ring.fd().as_fd().as_raw_fd())).sum();
    let ring_bytes = cpus.bytes_of_all(ring_bytes).max(of_rings);
    let mut memory = KernelMemory { rings: cpus.online, ring_bytes, tables_bytes: 0, summing_bytes: 0 };
    for (name, map) in ebpf.maps() {
        let locked = fd_of(map).and_then(|fd| locked_bytes(fd.as_raw_fd())).unwrap_or(0);
        match name {
            "KEPT" | "SUMS" => memory.summing_bytes += locked,
            _ => memory.tables_bytes += locked,
        }
    }
    Ok(memory)
}

/// `memlock` of a map's `/proc/self/fdinfo` (`kernel/bpf/syscall.c`, `bpf_map_show_fdinfo`).
fn locked_bytes(fd: i32) -> Option<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    info.lines().find_map(|line| line.strip_prefix("memlock:"))?.trim().parse().ok()
}
