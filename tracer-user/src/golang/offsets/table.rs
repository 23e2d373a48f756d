//! The table that `cargo xtask offsets` generates out of Go's toolchains: `table.json`, part of the program.

use std::sync::LazyLock;

use serde::Deserialize;

use super::Offsets;

/// What releases of one minor version have in common.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "'de: 'static"))]
pub struct Entry {
    pub minor: u32,
    /// `1.26.6`, oldest first.
    pub releases: Vec<&'static str>,
    pub offsets: Offsets,
    /// By number.
    pub wait_reasons: Vec<&'static str>,
}

/// Oldest first. A table of another shape, as there is between adding an offset and generating it anew, is as good as none: the
/// generator needs none, and a test sees to it that none is released.
pub static ENTRIES: LazyLock<Vec<Entry>> = LazyLock::new(|| serde_json::from_str(include_str!("table.json")).unwrap_or_default());

/// The entry of exactly this release, `1.26.6`.
pub fn exact(release: &str) -> Option<(&'static Entry, &'static str)> {
    let of = |entry: &'static Entry| Some((entry, *entry.releases.iter().find(|known| **known == release)?));
    ENTRIES.iter().find_map(of)
}

/// The newest entry of Go 1.`minor`.
pub fn of_minor(minor: u32) -> Option<&'static Entry> {
    ENTRIES.iter().rfind(|entry| entry.minor == minor)
}

/// The minor versions of Go 1 that are known, ascending.
pub fn minors() -> Vec<u32> {
    let mut minors: Vec<u32> = ENTRIES.iter().map(|entry| entry.minor).collect();
    minors.dedup();
    minors
}
