//! What the kernel tells of a loaded program.
//!
//! Source: `include/uapi/linux/bpf.h` (`struct bpf_prog_info`).

use std::{
    ffi::c_int,
    io,
    mem::{size_of, zeroed},
    os::fd::{AsRawFd, BorrowedFd},
};

use aya_obj::generated::{bpf_attr__bindgen_ty_9 as ObjectInfo, bpf_prog_info};

use super::multi::bpf;

/// `BPF_OBJ_GET_INFO_BY_FD` of `linux/bpf.h`.
const BPF_OBJ_GET_INFO_BY_FD: c_int = 15;

/// What an older kernel does not know is zero.
pub fn of(program: BorrowedFd<'_>) -> io::Result<bpf_prog_info> {
    // SAFETY: a structure of integers.
    let mut info: bpf_prog_info = unsafe { zeroed() };
    let info_len = size_of::<bpf_prog_info>() as u32;
    let attr = ObjectInfo { bpf_fd: program.as_raw_fd().cast_unsigned(), info_len, info: std::ptr::from_mut(&mut info) as u64 };
    // SAFETY: `info` outlives the call and is as long as it says.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &attr) }?;
    Ok(info)
}
