//! Where a snapshot finds things in the runtime's goroutines, by Go version.
//!
//! Amd64, read from the DWARF of the toolchain named above each entry: `runtime/runtime2.go` (`type g`, `type gobuf`,
//! `type stack`). [`super::offsets`] holds what probes need, and says which versions are left out; the two agree by test.

/// Offsets into `runtime.g`, in bytes.
#[derive(Debug)]
pub struct SnapshotLayout {
    minor: u32,
    /// Size of the whole structure.
    pub g_size: u32,
    /// Lowest address of the stack, and the one behind its highest.
    pub stack_lo: u32,
    pub stack_hi: u32,
    /// Where it goes on when it runs again; stale while it runs.
    pub sched: Saved,
    /// Where it entered its system call; 0 outside of one.
    pub syscall: Saved,
    /// `u32`.
    pub atomicstatus: u32,
    pub goid: u32,
    /// `nanotime` (CLOCK_MONOTONIC) since when it waits; 0 until a garbage collection has looked at it.
    pub waitsince: u32,
    /// `u8`.
    pub waitreason: u32,
    /// The thread it is locked to, 0 for none.
    pub lockedm: u32,
    /// From Go 1.21 on.
    pub parent_goid: Option<u32>,
    /// Return address of the go statement that made it.
    pub gopc: u32,
    /// Entry of its function.
    pub startpc: u32,
    /// Where its labels are (`runtime/pprof/label.go`, `labelMap`), 0 for none.
    pub labels: u32,
}

/// Offsets of saved registers.
#[derive(Clone, Copy, Debug)]
pub struct Saved {
    pub sp: u32,
    pub pc: u32,
    /// `None`: this Go version does not save the frame pointer here (`syscallbp` came with Go 1.23).
    pub bp: Option<u32>,
}

#[cfg(test)]
impl SnapshotLayout {
    /// A small one that no Go version has.
    pub fn for_test(g_size: u32, sched: Saved, syscall: Saved) -> Self {
        Self {
            minor: 0,
            g_size,
            stack_lo: 0,
            stack_hi: 8,
            sched,
            syscall,
            atomicstatus: 40,
            goid: 48,
            waitsince: 56,
            waitreason: 64,
            lockedm: 72,
            parent_goid: None,
            gopc: 80,
            startpc: 88,
            labels: 96,
        }
    }
}

/// The entry of Go 1.`minor`.
pub fn snapshot_layout(minor: u32) -> Option<&'static SnapshotLayout> {
    LAYOUTS.iter().find(|layout| layout.minor == minor)
}

static LAYOUTS: &[SnapshotLayout] = &[
    // go1.19.8
    SnapshotLayout {
        minor: 19,
        g_size: 392,
        stack_lo: 0,
        stack_hi: 8,
        sched: Saved { sp: 56, pc: 64, bp: Some(104) },
        syscall: Saved { sp: 112, pc: 120, bp: None },
        atomicstatus: 144,
        goid: 152,
        waitsince: 168,
        waitreason: 176,
        lockedm: 232,
        parent_goid: None,
        gopc: 296,
        startpc: 312,
        labels: 360,
    },
    // go1.21.13
    SnapshotLayout {
        minor: 21,
        g_size: 408,
        stack_lo: 0,
        stack_hi: 8,
        sched: Saved { sp: 56, pc: 64, bp: Some(104) },
        syscall: Saved { sp: 112, pc: 120, bp: None },
        atomicstatus: 144,
        goid: 152,
        waitsince: 168,
        waitreason: 176,
        lockedm: 208,
        parent_goid: Some(272),
        gopc: 280,
        startpc: 296,
        labels: 344,
    },
    // go1.22.10
    SnapshotLayout {
        minor: 22,
        g_size: 424,
        stack_lo: 0,
        stack_hi: 8,
        sched: Saved { sp: 56, pc: 64, bp: Some(104) },
        syscall: Saved { sp: 112, pc: 120, bp: None },
        atomicstatus: 144,
        goid: 152,
        waitsince: 168,
        waitreason: 176,
        lockedm: 208,
        parent_goid: Some(272),
        gopc: 280,
        startpc: 296,
        labels: 344,
    },
    // go1.23.9
    SnapshotLayout {
        minor: 23,
        g_size: 432,
        stack_lo: 0,
        stack_hi: 8,
        sched: Saved { sp: 56, pc: 64, bp: Some(104) },
        syscall: Saved { sp: 112, pc: 120, bp: Some(128) },
        atomicstatus: 152,
        goid: 160,
        waitsince: 176,
        waitreason: 184,
        lockedm: 216,
        parent_goid: Some(280),
        gopc: 288,
        startpc: 304,
        labels: 352,
    },
    // go1.24.11
    SnapshotLayout {
        minor: 24,
        g_size: 440,
        stack_lo: 0,
        stack_hi: 8,
        sched: Saved { sp: 56, pc: 64, bp: Some(104) },
        syscall: Saved { sp: 112, pc: 120, bp: Some(128) },
        atomicstatus: 152,
        goid: 160,
        waitsince: 176,
        waitreason: 184,
        lockedm: 216,
        parent_goid: Some(280),
        gopc: 288,
        startpc: 304,
        labels: 352,
    },
    // go1.25.5
    SnapshotLayout {
        minor: 25,
        g_size: 440,
        stack_lo: 0,
        stack_hi: 8,
        sched: Saved { sp: 56, pc: 64, bp: Some(96) },
        syscall: Saved { sp: 104, pc: 112, bp: Some(120) },
        atomicstatus: 144,
        goid: 152,
        waitsince: 168,
        waitreason: 176,
        lockedm: 208,
        parent_goid: Some(272),
        gopc: 280,
        startpc: 296,
        labels: 344,
    },
    // go1.26.6
    SnapshotLayout {
        minor: 26,
        g_size: 456,
        stack_lo: 0,
        stack_hi: 8,
        sched: Saved { sp: 56, pc: 64, bp: Some(96) },
        syscall: Saved { sp: 104, pc: 112, bp: Some(120) },
        atomicstatus: 144,
        goid: 152,
        waitsince: 168,
        waitreason: 176,
        lockedm: 208,
        parent_goid: Some(280),
        gopc: 288,
        startpc: 304,
        labels: 352,
    },
    // go1.27.3
    SnapshotLayout {
        minor: 27,
        g_size: 456,
        stack_lo: 0,
        stack_hi: 8,
        sched: Saved { sp: 56, pc: 64, bp: Some(96) },
        syscall: Saved { sp: 104, pc: 112, bp: Some(120) },
        atomicstatus: 144,
        goid: 152,
        waitsince: 168,
        waitreason: 176,
        lockedm: 208,
        parent_goid: Some(280),
        gopc: 288,
        startpc: 304,
        labels: 352,
    },
];

#[cfg(test)]
mod tests {
    use super::{super::offsets::runtime, *};

    /// Check that each version has an entry here exactly if it has one among the offsets of the probes, and that the two agree.
    #[test]
    fn agrees_with_the_probes() {
        for minor in 0..40 {
            let (snapshot, probes) = (snapshot_layout(minor), runtime(minor));
            assert_eq!(snapshot.is_some(), probes.is_some(), "1.{minor}");
            let (Some(snapshot), Some(probes)) = (snapshot, probes) else { continue };
            assert_eq!(snapshot.atomicstatus, probes.g_atomicstatus, "1.{minor}");
            assert_eq!(snapshot.goid, probes.layout.g_goid, "1.{minor}");
            assert_eq!(snapshot.gopc, probes.layout.g_gopc, "1.{minor}");
            assert_eq!(snapshot.startpc, snapshot.gopc + 16, "1.{minor}");
            assert_eq!(snapshot.parent_goid, (probes.layout.has_parent_goid == 1).then(|| snapshot.gopc - 8), "1.{minor}");
        }
    }

    /// Check that every field lies inside of the structure.
    #[test]
    fn fields_lie_inside() {
        for layout in LAYOUTS {
            let words =
                [layout.waitsince, layout.lockedm, layout.startpc, layout.labels, layout.syscall.pc, layout.sched.bp.unwrap()];
            assert!(words.iter().all(|offset| offset + 8 <= layout.g_size), "1.{}", layout.minor);
            assert!(layout.waitreason < layout.g_size, "1.{}", layout.minor);
        }
    }
}
