//! Setting USDT probes: how their arguments are fetched goes into a map, and the kernel raises their semaphores.
//!
//! A semaphore is a counter in the program's data that says whether anybody listens. The kernel counts it up in every process that maps
//! the file, now or later, and down again when the probe goes, also when we are killed: it is told where in the file the counter is
//! (`ref_ctr_offset`). Nothing is ever written into a process by us.
//!
//! Source: `kernel/events/uprobes.c` (`update_ref_ctr`), `kernel/trace/bpf_trace.c` (`bpf_uprobe_multi_link_attach`, 6.6 and later), and
//! before that `kernel/events/core.c` (`perf_uprobe_event_init`, 4.20 and later) with a BPF link on the event (5.15 and later).

use std::{
    ffi::{CString, c_int, c_ulong},
    fs, io,
    mem::size_of,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use rustc_hash::FxHashMap;
use tracer_common::usdt::{MAX_SPECS, UsdtSpec};

use super::multi::{self, Point};
use crate::id::{BinaryId, SiteId};

/// The program that serves every USDT probe.
pub const PROGRAM: &str = "usdt";

const BPF_PERF_EVENT: u32 = 41;
pub(super) const PERF_FLAG_FD_CLOEXEC: c_ulong = 1 << 3;
/// `PERF_UPROBE_REF_CTR_OFFSET_SHIFT` (kernel/events/core.c): bits of `config` that hold the counter's place in the file.
const REF_CTR_SHIFT: u32 = 32;
const PMU_TYPE: &str = "/sys/bus/event_source/devices/uprobe/type";

/// A file whose probes are to be set.
pub struct UsdtTarget<'a> {
    pub id: BinaryId,
    /// Opened by the kernel when a probe is set.
    pub path: &'a Path,
    /// Which processes are followed from their first hit on: `ADOPT_…` of [`tracer_common::config`].
    pub adopt: u8,
    pub probes: &'a [UsdtPoint],
}

/// A probe to be set.
#[derive(Clone, Debug)]
pub struct UsdtPoint {
    pub site: SiteId,
    pub file_offset: u64,
    /// Where its semaphore is in the file.
    pub semaphore: Option<u64>,
    pub spec: UsdtSpec,
}

/// Which ways to fetch arguments the BPF side knows, by index.
#[derive(Default)]
pub struct Specs(FxHashMap<UsdtSpec, u16>);

impl Specs {
    /// The index of a way, and whether it is new. `None`: there is no room for another.
    pub fn index_of(&mut self, spec: &UsdtSpec) -> Option<(u16, bool)> {
        if let Some(known) = self.0.get(spec) {
            return Some((*known, false));
        }
        let index = u16::try_from(self.0.len()).ok().filter(|index| u32::from(*index) < MAX_SPECS)?;
        self.0.insert(*spec, index);
        Some((index, true))
    }
}

/// `struct perf_event_attr` as far as `PERF_ATTR_SIZE_VER1` (linux/perf_event.h).
#[repr(C)]
#[derive(Default)]
struct PerfEventAttr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    /// The path.
    config1: u64,
    /// The place in the file.
    config2: u64,
}

/// `BPF_LINK_CREATE`'s part of `union bpf_attr` for a perf event.
#[repr(C)]
struct PerfLinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    cookie: u64,
}

/// Sets one probe for every process, as kernels before 6.6 do it. It is there until the link is closed.
pub fn attach_one(program: BorrowedFd<'_>, path: &Path, point: Point) -> io::Result<OwnedFd> {
    let kind = fs::read_to_string(PMU_TYPE)?;
    let kind = kind.trim().parse().map_err(io::Error::other)?;
    if point.ref_counter >> (64 - REF_CTR_SHIFT) != 0 {
        return Err(io::Error::other("its semaphore lies beyond the first 4 GiB of the file"));
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attr = PerfEventAttr {
        kind,
        size: size_of::<PerfEventAttr>() as u32,
        config: point.ref_counter << REF_CTR_SHIFT,
        config1: path.as_ptr() as u64,
        config2: point.file_offset,
        ..PerfEventAttr::default()
    };
    let (any_process, some_cpu, no_group): (c_int, c_int, c_int) = (-1, 0, -1);
    // SAFETY: `attr` and the path that it points to outlive the call, and its size is the one it says.
    let fd = unsafe {
        libc::syscall(libc::SYS_perf_event_open, &raw const attr, any_process, some_cpu, no_group, PERF_FLAG_FD_CLOEXEC)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it for us.
    let event = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
    let link = PerfLinkCreate {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        target_fd: event.as_raw_fd().cast_unsigned(),
        attach_type: BPF_PERF_EVENT,
        flags: 0,
        cookie: point.cookie,
    };
    // SAFETY: the structure is what the command reads, and it has no pointers. The link keeps the event.
    unsafe { multi::bpf_fd(multi::BPF_LINK_CREATE, &link) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that like ways share an index, and that their number is bounded.
    #[test]
    fn specs() {
        let mut specs = Specs::default();
        let spec = |text| UsdtSpec { text, ..UsdtSpec::NONE };
        assert_eq!(
            [spec(0), spec(1), spec(0)].map(|spec| specs.index_of(&spec)),
            [Some((0, true)), Some((1, true)), Some((0, false))]
        );
        let many = (0..MAX_SPECS + 10).map(|n| {
            let mut spec = UsdtSpec::NONE;
            spec.args[0].offset = i64::from(n) + 1;
            spec
        });
        assert_eq!(many.filter_map(|spec| specs.index_of(&spec)).count(), MAX_SPECS as usize - 2);
    }
}
