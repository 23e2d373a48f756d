//! Snapshots and groups by label, as the report says them to people.

use std::io::{self, Write};

use super::{labels::LabelsOut, report::SnapshotsOut};
use crate::timeline::human::{count, duration, plain};

/// Groups shown; the rest is counted.
const MAX_GROUPS: usize = 40;

/// What the snapshots were; nothing where there was none.
pub fn snapshots(snapshots: &SnapshotsOut) -> Option<String> {
    if snapshots.left_out {
        return Some("left out: this is what events alone tell".to_owned());
    }
    if snapshots.taken + snapshots.failed == 0 {
        return None;
    }
    let failed = if snapshots.failed > 0 { format!(", {} failed", count(snapshots.failed)) } else { String::new() };
    let newest = snapshots.newest_ns.map_or(String::new(), |at| format!("; the newest {} after the start", duration(at)));
    let told = if snapshots.by_pprof > 0 { format!(" ({} told by pprof)", count(snapshots.by_pprof)) } else { String::new() };
    Some(format!("{} taken{told} in {}{failed}{newest}", count(snapshots.taken), duration(snapshots.reading_ns)))
}

/// A line for each group.
pub fn write(labels: &LabelsOut, many: bool, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{:>10}  {:>11}  VALUE", "GOROUTINES", "BLOCKED")?;
    for group in labels.groups.iter().take(MAX_GROUPS) {
        let value = match (&group.value, group.other) {
            (Some(value), _) => plain(value),
            (None, true) => "(other values)".to_owned(),
            (None, false) => "(not seen with it)".to_owned(),
        };
        let process = if many { format!("  [pid {}]", group.tgid) } else { String::new() };
        let blocked = group.blocked_ns.map_or("-".to_owned(), duration);
        writeln!(out, "{:>10}  {blocked:>11}  {value}{process}", count(group.goroutines))?;
    }
    if let Some(left) = labels.groups.len().checked_sub(MAX_GROUPS).filter(|left| *left > 0) {
        writeln!(out, "… and {} more", count(left as u64))?;
    }
    Ok(())
}
