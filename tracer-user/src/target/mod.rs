//! Finding what is to be traced: processes, the file they run, the libraries it needs, the cgroup they are in.
//!
//! Reads /proc and the cgroup file system, as the initial pid namespace shows them. Attaches nothing, and keeps nothing open.

pub mod blocks;
pub mod cgroup;
pub mod descriptors;
pub mod executable;
pub mod libraries;
pub mod load;
pub mod mappings;
pub mod memory;
pub mod procfs;
pub mod usdt;
