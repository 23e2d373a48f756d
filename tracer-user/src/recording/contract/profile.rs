//! Profiles that a target gave when it was asked by HTTP.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{clock::KtimeNs, id::Tgid};

/// One profile. In its block it is one line of JSON, and behind that `data` as it is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// When it was asked for.
    pub at: KtimeNs,
    /// How long the answer took, ns.
    pub took_ns: u64,
    pub tgid: Tgid,
    pub kind: ProfileKind,
    /// Who was asked.
    pub url: String,
    /// A gzipped `profile.proto`.
    #[serde(skip)]
    pub data: Vec<u8>,
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Profile {{ {:?} of {} at {}, {} bytes }}", self.kind, self.tgid, self.at.0, self.data.len())
    }
}

/// The profiles that `net/http/pprof` serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProfileKind {
    Goroutine,
    GoroutineLeak,
    Heap,
    Allocs,
    Mutex,
    Block,
    Cpu,
}
