//! Reading memory of the target and of the kernel.

use aya_ebpf::helpers::{bpf_probe_read_kernel, bpf_probe_read_user};
use tracer_common::counters;

use crate::maps::count;

/// Reads a value of the current process at `address`; counts a fault.
#[inline(always)]
pub fn read_user<T>(address: u64) -> Option<T> {
    // SAFETY: the helper checks the address and reports a fault; every T used here is plain integers.
    match unsafe { bpf_probe_read_user(address as *const T) } {
        Ok(value) => Some(value),
        Err(_) => {
            count(counters::FAULTS);
            None
        }
    }
}

/// Reads a field of a kernel structure.
#[inline(always)]
pub fn read_kernel<T>(base: *const u8, offset: u32) -> Option<T> {
    // SAFETY: the helper checks the address and reports a fault; every T used here is plain integers.
    unsafe { bpf_probe_read_kernel(base.wrapping_add(offset as usize).cast::<T>()) }.ok()
}
