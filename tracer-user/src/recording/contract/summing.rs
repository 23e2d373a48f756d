//! What is summed instead of told (`--min-block`), and what is told late of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    clock::KtimeNs,
    id::{Address, BinaryId, Goid, StackId, Tgid, Tid},
};

/// The shortest and the longest time below which waits and lives may be summed.
pub const MIN_BLOCKS: [Duration; 2] = [Duration::from_micros(1), Duration::from_secs(1)];

/// Waits and lives that were not told, as they were added up since the block before of the same process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summed {
    pub at: KtimeNs,
    pub sums: Vec<SumOf>,
}

/// A sum, by process, creation site, wait reason and stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SumOf {
    pub tgid: Tgid,
    pub binary: BinaryId,
    /// Waits of this reason, an index into the binary's table; `None`: lives, from birth to exit.
    pub wait_reason: Option<u8>,
    /// Runtime addresses: return address of the `go` statement, and entry of the start function.
    pub gopc: Address,
    pub startpc: Address,
    /// The blocking stack; of lives, the creator's.
    pub stack: Option<StackId>,
    pub count: u64,
    pub total_ns: u64,
    /// How many fell into which bucket of `tracer_common::summing`.
    pub buckets: Vec<(u8, u32)>,
}

/// Goroutines of which no event told yet, as the BPF side has kept them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptAt {
    pub at: KtimeNs,
    pub goroutines: Vec<KeptGoroutine>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptGoroutine {
    pub tgid: Tgid,
    pub goid: Goid,
    pub binary: BinaryId,
    /// `None`: before its process was followed.
    pub born_at: Option<KtimeNs>,
    pub parent: Option<Goid>,
    pub gopc: Address,
    pub startpc: Address,
    /// The creator's.
    pub stack: Option<StackId>,
    /// It waits.
    pub waits: Option<KeptWait>,
}

/// Since when, why and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptWait {
    pub since: KtimeNs,
    pub wait_reason: u8,
    pub lock: Option<Address>,
    pub stack: Option<StackId>,
    pub tid: Tid,
}
