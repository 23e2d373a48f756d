//! Why Go stops the world, by the number that `runtime.stopTheWorldWithSema` is given.
//!
//! Source: `runtime/proc.go` (`stwReason`, `stwReasonStrings`) of go1.21.13, 1.22.10, 1.23.9, 1.24.11, 1.25.5, 1.26.6 and 1.27.3,
//! which agree ("avoid reusing reasons and add new ones instead"). A version that nobody read has no entry, and a number
//! beyond the table stays a number. Go before 1.21 gives no reason at all.

/// The names of the reasons of Go 1.`minor` by number; empty for a version nobody read.
pub fn stw_reasons(minor: u32) -> &'static [&'static str] {
    match minor {
        21..=27 => SINCE_1_21,
        _ => &[],
    }
}

const SINCE_1_21: &[&str] = &[
    "unknown",
    "GC mark termination",
    "GC sweep termination",
    "write heap dump",
    "goroutine profile",
    "goroutine profile cleanup",
    "all goroutines stack trace",
    "read mem stats",
    "AllThreadsSyscall",
    "GOMAXPROCS",
    "start trace",
    "stop trace",
    "CountPagesInUse (test)",
    "ReadMetricsSlow (test)",
    "ReadMemStatsSlow (test)",
    "PageCachePagesLeaked (test)",
    "ResetDebugLog (test)",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Check the two reasons of the collector, on which cycles depend, in each version, and that unread versions have none.
    #[test]
    fn reasons_of_the_collector() {
        for minor in 21..=27 {
            assert_eq!(stw_reasons(minor)[1..3], ["GC mark termination", "GC sweep termination"], "1.{minor}");
        }
        for minor in [0, 19, 20, 28, u32::MAX] {
            assert!(stw_reasons(minor).is_empty(), "1.{minor}");
        }
    }
}
