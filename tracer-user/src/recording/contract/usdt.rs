//! Probes of programs that are no Go programs, and what they mean.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{Address, BinaryId, SiteId};

/// A file with USDT probes, written when they are set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsdtFile {
    /// Numbered like the Go binaries: no two have one number.
    pub id: BinaryId,
    pub path: String,
    pub probes: Vec<UsdtSite>,
}

/// One probe that is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsdtSite {
    pub id: SiteId,
    pub provider: String,
    pub name: String,
    /// Link-time address.
    pub address: Address,
    pub meaning: UsdtMeaning,
}

/// What a hit of a probe says of a unit of work. Arguments are counted from 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsdtMeaning {
    /// Whose unit of work: the prefix of its ids.
    pub runtime: String,
    pub event: UnitEvent,
    pub id: UnitId,
    /// Which argument is text: the name of one that starts, the reason of one that blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<u8>,
    /// Which one is its length; `None`: it ends with a NUL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_len: Option<u8>,
    /// Why it blocks, where that is always the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Which argument is what it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<u8>,
    /// A probe of the same file tells when one that has blocked goes on.
    #[serde(default)]
    pub wakes_are_seen: bool,
}

/// Of whom a probe speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitId {
    /// Its id is an argument.
    Argument(u8),
    /// It is the one of the thread that ran over the probe.
    Thread,
}

/// What happens to a unit of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitEvent {
    Start,
    Block,
    Wake,
    Exit,
}

impl fmt::Display for UnitEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Block => "block",
            Self::Wake => "wake",
            Self::Exit => "exit",
        })
    }
}
