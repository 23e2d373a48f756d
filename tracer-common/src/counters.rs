//! Per-CPU counters: losses, and hits that make no record. A hit that counts makes one record, delivered or lost.

use crate::{config::MAX_BINARIES, header::Kind};

/// Index of the per-CPU sequence number.
pub const SEQ: u32 = 0;
/// Hits of processes that are not followed: they pay for the probe and give nothing.
pub const FOREIGN_HITS: u32 = 1;
/// Hits that came through a second attachment to the same instruction.
pub const DUPLICATE_HITS: u32 = 2;
/// Reads of the target's memory that failed.
pub const FAULTS: u32 = 3;
/// Processes that could not be followed because the table was full.
pub const PROCESSES_REFUSED: u32 = 4;
/// Hits on a binary whose layout is missing or implausible.
pub const BAD_LAYOUT: u32 = 5;
/// Hits after a compare-and-swap that had failed: they mean nothing.
pub const FAILED_SWAPS: u32 = 6;
/// Stacks not walked because every scratch place of the CPU was taken.
pub const NO_SCRATCH: u32 = 7;
/// Ticks of the sampling clock, whatever ran.
pub const TICKS: u32 = 8;
/// Records that did not fit into the ring, of any kind. Never more than numbers taken from [`SEQ`] at the same time.
pub const LOST_RECORDS: u32 = 9;
/// Signals that were not told of, because their process had used up its budget ([`crate::process::SIGNALS_A_SECOND`]).
pub const SIGNALS_LEFT_OUT: u32 = 10;
/// Signals with which Go's runtime interrupted its own threads: they are counted, and never told of.
pub const PREEMPTION_SIGNALS: u32 = 11;
/// Goroutines that could not be kept because the table was full: all of them is told (`crate::summing`).
pub const UNKEPT: u32 = 12;
/// Waits and lives that were told because the table of sums was full.
pub const UNSUMMED: u32 = 13;
/// Records that did not fit into the ring, by kind: `LOST + kind`.
pub const LOST: u32 = 16;
/// Size of the table.
pub const LIMIT: u32 = LOST + Kind::LIMIT;

/// Hits of a binary's probes, whoever ran into them, in a table of their own: [`hits`] for the probes of each tier.
pub const HITS_LIMIT: u32 = MAX_BINARIES << HITS_SHIFT;
const HITS_SHIFT: u32 = 2;

/// Index of the hits of a binary's probes of a tier, 1 to 3; 0 for USDT probes.
#[inline(always)]
pub const fn hits(binary: u16, tier: u8) -> u32 {
    (binary as u32) << HITS_SHIFT | (tier & 3) as u32
}
