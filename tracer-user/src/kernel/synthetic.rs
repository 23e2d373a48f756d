//! Records that stand for nothing, made as fast as the kernel can: what the reader is measured with (`cargo xtask bench`).
//!
//! Source: `include/uapi/linux/bpf.h` (`BPF_PROG_TEST_RUN`), `net/bpf/test_run.c` (`bpf_prog_test_run_skb`).

use std::{
    ffi::c_int,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use aya::{Ebpf, programs::SocketFilter};

use super::{KernelError, multi::bpf};

const PROGRAM: &str = "synthetic_records";
const BPF_PROG_TEST_RUN: c_int = 10;
/// The kernel wants a packet to run it on: the least that it takes, of an unknown protocol.
const PACKET: [u8; 64] = [0; 64];

/// `BPF_PROG_TEST_RUN`'s part of `union bpf_attr`.
#[repr(C)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    _pad: u32,
}

/// Makes records.
pub struct Producer(OwnedFd);

impl Producer {
    pub(super) fn load(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let program = ebpf.program_mut(PROGRAM).ok_or(KernelError::Missing(PROGRAM))?;
        let program: &mut SocketFilter = program.try_into().map_err(KernelError::program(PROGRAM, "used"))?;
        program.load().map_err(KernelError::program(PROGRAM, "loaded"))?;
        let fd = program.fd().map_err(KernelError::program(PROGRAM, "used"))?;
        fd.as_fd().try_clone_to_owned().map(Self).map_err(KernelError::io("the synthetic program"))
    }

    /// Makes so many, on the calling thread's CPU.
    pub fn make(&self, records: u32) -> io::Result<()> {
        let fd: BorrowedFd<'_> = self.0.as_fd();
        let attr = TestRun {
            prog_fd: fd.as_raw_fd().cast_unsigned(),
            retval: 0,
            data_size_in: PACKET.len() as u32,
            data_size_out: 0,
            data_in: PACKET.as_ptr() as u64,
            data_out: 0,
            repeat: records,
            duration: 0,
            ctx_size_in: 0,
            ctx_size_out: 0,
            ctx_in: 0,
            ctx_out: 0,
            flags: 0,
            cpu: 0,
            batch_size: 0,
            _pad: 0,
        };
        // SAFETY: the packet outlives the call and is as long as it says; the kernel writes its answer into `attr`, which nobody else has.
        unsafe { bpf(BPF_PROG_TEST_RUN, &attr) }.map(drop)
    }
}
