//! Recordings: one file of checksummed blocks.

pub mod contract;
