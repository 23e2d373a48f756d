//! Where things are in each Go version's runtime structures, and what its wait reasons are called.
//!
//! Amd64, read from the DWARF of the toolchain named above each entry: `runtime/runtime2.go` (`type g`, `type m`, `type gobuf`,
//! `waitReasonStrings`) and `runtime/chan.go` (`type hchan`). Patch releases of a minor version share them. Neither the
//! offsets nor the numbers of the reasons move monotonically, so a version that is not listed is not guessed.

use tracer_common::config::GoLayout;

/// What is known of one minor version of Go 1.
#[derive(Debug)]
pub struct Runtime {
    pub minor: u32,
    pub layout: GoLayout,
    pub g_atomicstatus: u32,
    pub hchan_lock: u64,
    pub wait_reasons: &'static [&'static str],
}

/// The entry of Go 1.`minor`.
pub fn runtime(minor: u32) -> Option<&'static Runtime> {
    RUNTIMES.iter().find(|runtime| runtime.minor == minor)
}

const fn layout(goid: u32, parent_goid: u32, gopc: u32, startpc: u32, m: u32, curg: u32) -> GoLayout {
    // The BPF side reads these four words at once.
    assert!(startpc == gopc + 16 && (parent_goid == 0 || parent_goid == gopc - 8));
    GoLayout {
        valid: 1,
        g_goid: goid,
        has_parent_goid: (parent_goid != 0) as u32,
        g_gopc: gopc,
        g_m: m,
        m_curg: curg,
        // A matter of the build, not of the version: the binary's code tells.
        g_tls: 0,
        _pad: 0,
    }
}

/// Go 1.18, 1.20 and development versions are left out: nobody measured them.
static RUNTIMES: &[Runtime] = &[
    // go1.19.8
    Runtime {
        minor: 19,
        layout: layout(152, 0, 296, 312, 48, 192),
        g_atomicstatus: 144,
        hchan_lock: 88,
        wait_reasons: WAIT_REASONS_1_19,
    },
    // go1.21.13
    Runtime {
        minor: 21,
        layout: layout(152, 272, 280, 296, 48, 192),
        g_atomicstatus: 144,
        hchan_lock: 88,
        wait_reasons: WAIT_REASONS_1_21,
    },
    // go1.22.10
    Runtime {
        minor: 22,
        layout: layout(152, 272, 280, 296, 48, 192),
        g_atomicstatus: 144,
        hchan_lock: 88,
        wait_reasons: WAIT_REASONS_1_22,
    },
    // go1.23.9
    Runtime {
        minor: 23,
        layout: layout(160, 280, 288, 304, 48, 192),
        g_atomicstatus: 152,
        hchan_lock: 96,
        wait_reasons: WAIT_REASONS_1_23,
    },
    // go1.24.11
    Runtime {
        minor: 24,
        layout: layout(160, 280, 288, 304, 48, 192),
        g_atomicstatus: 152,
        hchan_lock: 96,
        wait_reasons: WAIT_REASONS_1_24,
    },
    // go1.25.5
    Runtime {
        minor: 25,
        layout: layout(152, 272, 280, 296, 48, 184),
        g_atomicstatus: 144,
        hchan_lock: 104,
        wait_reasons: WAIT_REASONS_1_25,
    },
    // go1.26.6
    Runtime {
        minor: 26,
        layout: layout(152, 280, 288, 304, 48, 184),
        g_atomicstatus: 144,
        hchan_lock: 104,
        wait_reasons: WAIT_REASONS_1_26,
    },
    // go1.27.3
    Runtime {
        minor: 27,
        layout: layout(152, 280, 288, 304, 48, 184),
        g_atomicstatus: 144,
        hchan_lock: 104,
        wait_reasons: WAIT_REASONS_1_26,
    },
];

const WAIT_REASONS_1_19: &[&str] = &[
    "",
    "GC assist marking",
    "IO wait",
    "chan receive (nil chan)",
    "chan send (nil chan)",
    "dumping heap",
    "garbage collection",
    "garbage collection scan",
    "panicwait",
    "select",
    "select (no cases)",
    "GC assist wait",
    "GC sweep wait",
    "GC scavenge wait",
    "chan receive",
    "chan send",
    "finalizer wait",
    "force gc (idle)",
    "semacquire",
    "sleep",
    "sync.Cond.Wait",
    "timer goroutine (idle)",
    "trace reader (blocked)",
    "wait for GC cycle",
    "GC worker (idle)",
    "preempted",
    "debug call",
];

const WAIT_REASONS_1_21: &[&str] = &[
    "",
    "GC assist marking",
    "IO wait",
    "chan receive (nil chan)",
    "chan send (nil chan)",
    "dumping heap",
    "garbage collection",
    "garbage collection scan",
    "panicwait",
    "select",
    "select (no cases)",
    "GC assist wait",
    "GC sweep wait",
    "GC scavenge wait",
    "chan receive",
    "chan send",
    "finalizer wait",
    "force gc (idle)",
    "semacquire",
    "sleep",
    "sync.Cond.Wait",
    "sync.Mutex.Lock",
    "sync.RWMutex.RLock",
    "sync.RWMutex.Lock",
    "trace reader (blocked)",
    "wait for GC cycle",
    "GC worker (idle)",
    "GC worker (active)",
    "preempted",
    "debug call",
    "GC mark termination",
    "stopping the world",
];

const WAIT_REASONS_1_22: &[&str] = &[
    "",
    "GC assist marking",
    "IO wait",
    "chan receive (nil chan)",
    "chan send (nil chan)",
    "dumping heap",
    "garbage collection",
    "garbage collection scan",
    "panicwait",
    "select",
    "select (no cases)",
    "GC assist wait",
    "GC sweep wait",
    "GC scavenge wait",
    "chan receive",
    "chan send",
    "finalizer wait",
    "force gc (idle)",
    "semacquire",
    "sleep",
    "sync.Cond.Wait",
    "sync.Mutex.Lock",
    "sync.RWMutex.RLock",
    "sync.RWMutex.Lock",
    "trace reader (blocked)",
    "wait for GC cycle",
    "GC worker (idle)",
    "GC worker (active)",
    "preempted",
    "debug call",
    "GC mark termination",
    "stopping the world",
    "flushing proc caches",
    "trace goroutine status",
    "trace proc status",
    "page trace flush",
    "coroutine",
];

const WAIT_REASONS_1_23: &[&str] = &[
    "",
    "GC assist marking",
    "IO wait",
    "chan receive (nil chan)",
    "chan send (nil chan)",
    "dumping heap",
    "garbage collection",
    "garbage collection scan",
    "panicwait",
    "select",
    "select (no cases)",
    "GC assist wait",
    "GC sweep wait",
    "GC scavenge wait",
    "chan receive",
    "chan send",
    "finalizer wait",
    "force gc (idle)",
    "semacquire",
    "sleep",
    "sync.Cond.Wait",
    "sync.Mutex.Lock",
    "sync.RWMutex.RLock",
    "sync.RWMutex.Lock",
    "trace reader (blocked)",
    "wait for GC cycle",
    "GC worker (idle)",
    "GC worker (active)",
    "preempted",
    "debug call",
    "GC mark termination",
    "stopping the world",
    "flushing proc caches",
    "trace goroutine status",
    "trace proc status",
    "page trace flush",
    "coroutine",
    "GC weak to strong wait",
];

const WAIT_REASONS_1_24: &[&str] = &[
    "",
    "GC assist marking",
    "IO wait",
    "chan receive (nil chan)",
    "chan send (nil chan)",
    "dumping heap",
    "garbage collection",
    "garbage collection scan",
    "panicwait",
    "select",
    "select (no cases)",
    "GC assist wait",
    "GC sweep wait",
    "GC scavenge wait",
    "chan receive",
    "chan send",
    "finalizer wait",
    "force gc (idle)",
    "semacquire",
    "sleep",
    "sync.Cond.Wait",
    "sync.Mutex.Lock",
    "sync.RWMutex.RLock",
    "sync.RWMutex.Lock",
    "sync.WaitGroup.Wait",
    "trace reader (blocked)",
    "wait for GC cycle",
    "GC worker (idle)",
    "GC worker (active)",
    "preempted",
    "debug call",
    "GC mark termination",
    "stopping the world",
    "flushing proc caches",
    "trace goroutine status",
    "trace proc status",
    "page trace flush",
    "coroutine",
    "GC weak to strong wait",
    "synctest.Run",
    "synctest.Wait",
    "chan receive (synctest)",
    "chan send (synctest)",
    "select (synctest)",
];

const WAIT_REASONS_1_25: &[&str] = &[
    "",
    "GC assist marking",
    "IO wait",
    "chan receive (nil chan)",
    "chan send (nil chan)",
    "dumping heap",
    "garbage collection",
    "garbage collection scan",
    "panicwait",
    "select",
    "select (no cases)",
    "GC assist wait",
    "GC sweep wait",
    "GC scavenge wait",
    "chan receive",
    "chan send",
    "finalizer wait",
    "force gc (idle)",
    "GOMAXPROCS updater (idle)",
    "semacquire",
    "sleep",
    "sync.Cond.Wait",
    "sync.Mutex.Lock",
    "sync.RWMutex.RLock",
    "sync.RWMutex.Lock",
    "sync.WaitGroup.Wait",
    "trace reader (blocked)",
    "wait for GC cycle",
    "GC worker (idle)",
    "GC worker (active)",
    "preempted",
    "debug call",
    "GC mark termination",
    "stopping the world",
    "flushing proc caches",
    "trace goroutine status",
    "trace proc status",
    "page trace flush",
    "coroutine",
    "GC weak to strong wait",
    "synctest.Run",
    "synctest.Wait",
    "chan receive (durable)",
    "chan send (durable)",
    "select (durable)",
    "sync.WaitGroup.Wait (durable)",
    "cleanup wait",
];

const WAIT_REASONS_1_26: &[&str] = &[
    "",
    "GC assist marking",
    "IO wait",
    "dumping heap",
    "garbage collection",
    "garbage collection scan",
    "panicwait",
    "GC assist wait",
    "GC sweep wait",
    "GC scavenge wait",
    "finalizer wait",
    "force gc (idle)",
    "GOMAXPROCS updater (idle)",
    "semacquire",
    "sleep",
    "chan receive (nil chan)",
    "chan send (nil chan)",
    "select (no cases)",
    "select",
    "chan receive",
    "chan send",
    "sync.Cond.Wait",
    "sync.Mutex.Lock",
    "sync.RWMutex.RLock",
    "sync.RWMutex.Lock",
    "sync.WaitGroup.Wait",
    "trace reader (blocked)",
    "wait for GC cycle",
    "GC worker (idle)",
    "GC worker (active)",
    "preempted",
    "debug call",
    "GC mark termination",
    "stopping the world",
    "flushing proc caches",
    "trace goroutine status",
    "trace proc status",
    "page trace flush",
    "coroutine",
    "GC weak to strong wait",
    "synctest.Run",
    "synctest.Wait",
    "chan receive (durable)",
    "chan send (durable)",
    "select (durable)",
    "sync.WaitGroup.Wait (durable)",
    "cleanup wait",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the entries keep the runtime's own rules: goid follows the status, parentGoid came with Go 1.21.
    #[test]
    fn entries_are_consistent() {
        for runtime in RUNTIMES {
            let (layout, minor) = (&runtime.layout, runtime.minor);
            assert_eq!(layout.g_goid, runtime.g_atomicstatus + 8, "1.{minor}");
            assert_eq!(layout.has_parent_goid, u32::from(minor >= 21), "1.{minor}");
            let largest = [layout.g_gopc, layout.m_curg].into_iter().max();
            assert!(largest < Some(tracer_common::config::MAX_OFFSET), "1.{minor}");
            assert_eq!(runtime.wait_reasons[0], "", "1.{minor}");
            assert!(runtime.wait_reasons.contains(&"chan receive"), "1.{minor}");
        }
    }

    /// Check that versions nobody measured have no entry.
    #[test]
    fn unmeasured_versions_are_unknown() {
        for minor in [0, 17, 18, 20, 28, u32::MAX] {
            assert!(runtime(minor).is_none(), "1.{minor}");
        }
    }

    /// Check the numbers of the reasons that 1.26 moved.
    #[test]
    fn wait_reasons_move() {
        let number = |minor, reason| runtime(minor).unwrap().wait_reasons.iter().position(|r| *r == reason);
        assert_eq!(number(25, "chan receive"), Some(14));
        assert_eq!(number(26, "chan receive"), Some(19));
        assert_eq!(number(25, "select"), Some(9));
        assert_eq!(number(26, "select"), Some(18));
    }
}
