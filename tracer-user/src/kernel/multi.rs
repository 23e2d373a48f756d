//! Many uprobes on one link (`uprobe_multi`, Linux 6.6 and later): set by one call, and taken away by one.
//!
//! The kernel waits for a grace period when it removes a probe: some 70 ms for each link, one after the other. A link that holds
//! all sites of a program waits once. aya 0.14 loads no program for such a link (it cannot set the expected attach type), so the
//! programs are loaded here, out of the same object and on the maps that aya has made.
//!
//! Source: `include/uapi/linux/bpf.h` (`union bpf_attr`), `kernel/trace/bpf_trace.c` (`bpf_uprobe_multi_link_attach`).

use std::{
    collections::HashSet,
    ffi::{CStr, CString, c_int},
    io,
    mem::size_of,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use aya::{Ebpf, maps::Map};
use aya_obj::{Object, generated::bpf_insn};
use rustc_hash::FxHashMap;

use super::KernelError;

const BPF_PROG_LOAD: c_int = 5;
pub(super) const BPF_LINK_CREATE: c_int = 28;
const BPF_PROG_TYPE_KPROBE: u32 = 2;
const BPF_TRACE_UPROBE_MULTI: u32 = 48;
/// Room for what the verifier says of a program that it refuses.
const LOG_BYTES: usize = 1 << 20;

/// One place to probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    pub file_offset: u64,
    /// What `bpf_get_attach_cookie` returns there.
    pub cookie: u64,
    /// Where in the file the counter is that is raised as long as the probe is set; 0 for none.
    pub ref_counter: u64,
}

/// The uprobe programs, loaded for links of many points.
pub struct MultiPrograms(FxHashMap<&'static str, OwnedFd>);

impl MultiPrograms {
    /// Loads the programs of these names out of `object` onto the maps of `ebpf`. `None` where the kernel knows no such links.
    pub fn load(object: &[u8], ebpf: &Ebpf, names: &[&'static str]) -> Result<Option<Self>, KernelError> {
        let object = relocated(object, ebpf).map_err(KernelError::io("the BPF object"))?;
        let mut this = Self(FxHashMap::default());
        // The smallest first: where the kernel knows no such links, the verifier is asked about nothing else here.
        let size = |name: &str| {
            object.functions.get(&object.programs.get(name)?.function_key()).map(|function| function.instructions.len())
        };
        let mut in_order = names.to_vec();
        in_order.sort_by_key(|name| size(name));
        for name in in_order {
            let program = object.programs.get(name).ok_or(KernelError::Missing(name))?;
            let function = object.functions.get(&program.function_key()).ok_or(KernelError::Missing(name))?;
            match load(name, &function.instructions, &program.license) {
                Ok(fd) => drop(this.0.insert(name, fd)),
                // An attach type that is checked and not known is refused before the program is looked at.
                Err(Refusal { error, log }) if log.is_empty() && error.raw_os_error() == Some(libc::EINVAL) => return Ok(None),
                Err(Refusal { error, log }) => {
                    tracing::debug!("{log}");
                    return Err(KernelError::Refused {
                        program: name,
                        verdict: super::verdict(&log).unwrap_or(error.to_string()),
                    });
                }
            }
            if this.0.len() == 1 && !this.kernel_knows_links(name) {
                return Ok(None);
            }
        }
        Ok(Some(this))
    }

    /// Kernels before 6.6 load the programs all the same, for they do not look at the attach type; but they have no such links. Those
    /// that have refuse a folder as such.
    fn kernel_knows_links(&self, program: &'static str) -> bool {
        let nowhere = [Point { file_offset: 0, cookie: 0, ref_counter: 0 }];
        let refused = self.attach(program, Path::new("/"), &nowhere, None);
        matches!(refused, Err(error) if error.raw_os_error() == Some(libc::EBADF))
    }

    /// The loaded program of a name.
    pub fn program(&self, name: &str) -> Option<BorrowedFd<'_>> {
        self.0.get(name).map(AsFd::as_fd)
    }

    /// Sets probes at all points of a file, for all processes, or for one. They are there until the link is closed.
    pub fn attach(&self, program: &'static str, path: &Path, points: &[Point], tgid: Option<u32>) -> io::Result<OwnedFd> {
        let program = self.0.get(program).ok_or(io::ErrorKind::NotFound)?;
        let path = CString::new(path.as_os_str().as_bytes())?;
        let offsets: Vec<u64> = points.iter().map(|point| point.file_offset).collect();
        let cookies: Vec<u64> = points.iter().map(|point| point.cookie).collect();
        let ref_counters: Vec<u64> = points.iter().map(|point| point.ref_counter).collect();
        let counted = ref_counters.iter().any(|counter| *counter != 0);
        let attr = LinkCreate {
            prog_fd: program.as_raw_fd().cast_unsigned(),
            target_fd: 0,
            attach_type: BPF_TRACE_UPROBE_MULTI,
            flags: 0,
            path: path.as_ptr() as u64,
            offsets: offsets.as_ptr() as u64,
            ref_counters: if counted { ref_counters.as_ptr() as u64 } else { 0 },
            cookies: cookies.as_ptr() as u64,
            count: u32::try_from(points.len()).map_err(io::Error::other)?,
            multi_flags: 0,
            pid: tgid.unwrap_or(0),
            _pad: 0,
        };
        // SAFETY: every pointer in `attr` is to a local that outlives the call, with as many elements as `count` says.
        unsafe { bpf_fd(BPF_LINK_CREATE, &attr) }
    }
}

/// `BPF_PROG_LOAD`'s part of `union bpf_attr`, as far as it is used.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// `BPF_LINK_CREATE`'s part for `uprobe_multi`.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    path: u64,
    offsets: u64,
    ref_counters: u64,
    cookies: u64,
    count: u32,
    multi_flags: u32,
    pid: u32,
    _pad: u32,
}

struct Refusal {
    error: io::Error,
    log: String,
}

fn load(name: &str, instructions: &[bpf_insn], license: &CStr) -> Result<OwnedFd, Refusal> {
    let mut prog_name = [0; 16];
    for (to, from) in prog_name.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    let mut attr = ProgLoad {
        prog_type: BPF_PROG_TYPE_KPROBE,
        insn_cnt: instructions.len() as u32,
        insns: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name,
        prog_ifindex: 0,
        expected_attach_type: BPF_TRACE_UPROBE_MULTI,
    };
    // SAFETY: the instructions and the licence outlive the call, and their lengths are those given.
    let error = match unsafe { bpf_fd(BPF_PROG_LOAD, &attr) } {
        Ok(fd) => return Ok(fd),
        Err(error) => error,
    };
    let mut log = vec![0u8; LOG_BYTES];
    (attr.log_level, attr.log_size, attr.log_buf) = (1, LOG_BYTES as u32, log.as_mut_ptr() as u64);
    // SAFETY: as above, and the log is as long as it says.
    let _ = unsafe { bpf_fd(BPF_PROG_LOAD, &attr) };
    let log = CStr::from_bytes_until_nul(&log).map_or_else(|_| String::new(), |log| log.to_string_lossy().into_owned());
    Err(Refusal { error, log })
}

/// The bpf(2) system call, for commands that answer with a descriptor.
///
/// # Safety
/// `attr` must be what `command` reads, and every pointer in it valid for as much as it says.
pub(super) unsafe fn bpf_fd<T>(command: c_int, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: the caller vouches for `attr`.
    let fd = unsafe { bpf(command, attr) }?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The bpf(2) system call.
///
/// # Safety
/// As of [`bpf_fd`].
pub(super) unsafe fn bpf<T>(command: c_int, attr: &T) -> io::Result<RawFd> {
    // SAFETY: the caller vouches for `attr`; its size is its own.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer as RawFd) }
}

/// The same, for commands that write into `attr`.
///
/// # Safety
/// As of [`bpf_fd`].
pub(super) unsafe fn bpf_mut<T>(command: c_int, attr: &mut T) -> io::Result<RawFd> {
    // SAFETY: as above.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer as RawFd) }
}

/// The object, its programs bound to the maps that aya has made of it.
fn relocated(object: &[u8], ebpf: &Ebpf) -> io::Result<Object> {
    let mut object = Object::parse(object).map_err(io::Error::other)?;
    let maps = std::mem::take(&mut object.maps);
    let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    let mut bound = Vec::with_capacity(maps.len());
    for (name, map) in &maps {
        // One that is missing would make aya-obj panic.
        let made = ebpf.map(name).and_then(fd_of).ok_or_else(|| io::Error::other(format!("map {name} was not made")))?;
        bound.push((name.as_str(), made.as_raw_fd(), map));
    }
    object.relocate_maps(bound.into_iter(), &sections).map_err(io::Error::other)?;
    object.relocate_calls(&sections).map_err(io::Error::other)?;
    Ok(object)
}

/// The descriptor of a map of one of the kinds that the object has.
pub(super) fn fd_of(map: &Map) -> Option<BorrowedFd<'_>> {
    match map {
        Map::Array(data)
        | Map::ArrayOfMaps(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerfEventArray(data)
        | Map::ProgramArray(data)
        | Map::RingBuf(data) => Some(data.fd().as_fd()),
        _ => None,
    }
}
