//! What the BPF side keeps and sums instead of telling it ([`tracer_common::summing`]), read many entries at a time.

use std::{
    ffi::c_int,
    io,
    mem::{MaybeUninit, size_of},
    os::fd::{AsRawFd, OwnedFd},
};

use aya::Ebpf;
use tracer_common::summing::{Kept, Sum, SumKey};

use super::{
    KernelError,
    multi::{bpf, bpf_mut},
    session::map_fd,
};
use crate::id::{Goid, Tgid};

/// `BPF_MAP_DELETE_ELEM`, `BPF_MAP_LOOKUP_BATCH` of `linux/bpf.h`.
const BPF_MAP_DELETE_ELEM: c_int = 3;
const BPF_MAP_LOOKUP_BATCH: c_int = 24;
/// Entries read by one call: a bucket with more in it (the kernel makes as many buckets as entries) would be an attack on our hash.
const BATCH: usize = 4096;

/// `union bpf_attr`, as the batch commands read it.
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// The same, as commands about one element read it.
#[repr(C)]
struct Element {
    map_fd: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The tables.
pub struct Tables {
    kept: OwnedFd,
    sums: OwnedFd,
}

impl Tables {
    /// Of a loaded object.
    pub(super) fn of(ebpf: &Ebpf) -> Result<Self, KernelError> {
        Ok(Self { kept: map_fd(ebpf, "KEPT")?, sums: map_fd(ebpf, "SUMS")? })
    }

    /// Every goroutine that is kept. One that comes or goes meanwhile may be among them or not; an entry that is being written may be half
    /// of each.
    pub fn kept(&self, mut each: impl FnMut(Tgid, Goid, &Kept)) -> io::Result<()> {
        read(self.kept.as_raw_fd(), |[tgid, goid]: [u64; 2], kept: &Kept| each(Tgid(tgid as u32), Goid(goid), kept))
    }

    /// Every sum.
    pub fn sums(&self, mut each: impl FnMut(SumKey, &Sum)) -> io::Result<()> {
        read(self.sums.as_raw_fd(), |key: SumKey, sum: &Sum| each(key, sum))
    }

    /// A goroutine is kept no more.
    pub fn drop_kept(&self, tgid: Tgid, goid: Goid) {
        delete(self.kept.as_raw_fd(), &[u64::from(tgid.0), goid.0]);
    }

    /// A sum that nothing is added to any more is forgotten.
    pub fn drop_sum(&self, key: &SumKey) {
        delete(self.sums.as_raw_fd(), key);
    }
}

impl std::fmt::Debug for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tables").finish_non_exhaustive()
    }
}

/// Walks a hash map, bucket by bucket.
fn read<K: Copy, V: Copy>(map: c_int, mut each: impl FnMut(K, &V)) -> io::Result<()> {
    let mut keys: Vec<MaybeUninit<K>> = vec![MaybeUninit::uninit(); BATCH];
    let mut values: Vec<MaybeUninit<V>> = vec![MaybeUninit::uninit(); BATCH];
    // The kernel keeps a bucket's number in it.
    let (mut from, mut next) = (0u64, 0u64);
    let mut first = true;
    loop {
        let mut attr = Batch {
            in_batch: if first { 0 } else { std::ptr::from_ref(&from) as u64 },
            out_batch: std::ptr::from_mut(&mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: BATCH as u32,
            map_fd: map.cast_unsigned(),
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: every pointer is to a local that outlives the call; the arrays have as many elements as `count` says, of the sizes with
        // which the map was made.
        let answer = unsafe { bpf_mut(BPF_MAP_LOOKUP_BATCH, &mut attr) };
        let last = match answer {
            Ok(_) => false,
            // The map is at its end; what was read is read.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) => return Err(error),
        };
        for (key, value) in keys.iter().zip(&values).take(attr.count as usize) {
            // SAFETY: the kernel has written as many as it says; keys and values are integers without padding.
            unsafe { each(key.assume_init(), value.assume_init_ref()) };
        }
        if last {
            return Ok(());
        }
        (from, first) = (next, false);
    }
}

fn delete<K>(map: c_int, key: &K) {
    let attr = Element { map_fd: map.cast_unsigned(), _pad: 0, key: std::ptr::from_ref(key) as u64, value: 0, flags: 0 };
    const { assert!(size_of::<Element>() == 32) };
    // SAFETY: the key outlives the call and has the size with which the map was made.
    // ENOENT: it was gone.
    let _ = unsafe { bpf(BPF_MAP_DELETE_ELEM, &attr) };
}
