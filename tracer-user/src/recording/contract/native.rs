//! What a recording holds of threads, besides their records: which were there, and the names of code that is not Go's.

use serde::{Deserialize, Serialize};

use super::{CodeUse, Frame};
use crate::{
    clock::KtimeNs,
    id::{Address, Tgid, Tid},
};

/// Whose threads are followed on and off their CPUs. Births and ends are told of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Threads {
    #[default]
    Off,
    /// Of processes of which no probe was hit since their exec.
    Auto,
    /// Of every followed process.
    On,
}

/// The threads that a process had when it came to be followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadsMet {
    /// It was followed by then; what is told was read a little later.
    pub at: KtimeNs,
    pub tgid: Tgid,
    pub threads: Vec<ThreadMet>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadMet {
    pub tid: Tid,
    /// `/proc/PID/task/TID/comm`.
    pub name: String,
}

/// The file of the kernel's frames.
pub const IN_KERNEL: &str = "[kernel]";

/// Names of code addresses of one process that is not known to be Go's, or of the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NativeCode {
    /// When they were looked up.
    pub at: KtimeNs,
    /// `None`: the kernel's.
    pub tgid: Option<Tgid>,
    /// By runtime address. One without a name is not among them.
    pub entries: Vec<NativeEntry>,
}

/// One address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NativeEntry {
    pub address: Address,
    pub use_as: CodeUse,
    /// Function: its symbol, or `FILE+0xOFFSET` where the file has none for it. File: the mapped one, or `[kernel]`. No line.
    pub frame: Frame,
}
