//! Finding what is to be traced: processes, the file they run, the libraries it needs, the cgroup they are in.
//!
//! Reads /proc and the cgroup file system, as the initial pid namespace shows them. Attaches nothing, and keeps nothing open.

pub mod blocks;
pub mod cgroup;
pub mod descriptors;
pub mod executable;
pub mod hierarchies;
pub mod libraries;
pub mod load;
pub mod mappings;
pub mod memory;
pub mod procfs;
pub mod usdt;

use crate::{
    governor::Care,
    id::{BinaryId, Tgid},
};

/// Who chooses, among all processes, those that are followed.
pub trait Choose: Send {
    /// Those that are to be followed, as far as it is not known that they are; asked once a second.
    fn newcomers(&mut self) -> Vec<(Tgid, Care)>;
}

/// So much may be followed of a program from here on; `None`: as much as is wanted of it otherwise.
pub struct Order {
    pub binary: BinaryId,
    pub care: Option<Care>,
}
