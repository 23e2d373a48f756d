//! The wire contract between the BPF programs and userspace.
//!
//! Everything here is a fixed-size `#[repr(C)]` structure of integers with explicit padding, and a `const` assertion of
//! its size. A record starts with a [`header::Header`]; its `kind` says which structure follows. Nothing here allocates,
//! and nothing here knows aya.
#![no_std]

pub mod config;
pub mod counters;
pub mod gc;
pub mod goroutine;
pub mod header;
pub mod process;
pub mod sample;
pub mod stack;
pub mod summing;
pub mod testing;
pub mod thread;
pub mod usdt;

/// Asserts at compile time that a record has the size the other side expects.
macro_rules! assert_size {
    ($ty:ty, $size:expr) => {
        const _: () = assert!(core::mem::size_of::<$ty>() == $size);
    };
}
pub(crate) use assert_size;
