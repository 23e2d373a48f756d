//! Who ended a wait, as far as the wake tells: a goroutine, or the part of the runtime whose code was hit.

use std::fmt;

use crate::id::Goid;

/// Who woke a goroutine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WokenBy {
    Goroutine(Goid),
    Netpoll,
    Timer,
    Gc,
    Scheduler,
    Unknown,
}

impl fmt::Display for WokenBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Goroutine(goid) => write!(f, "go:{goid}"),
            Self::Netpoll => f.write_str("netpoll"),
            Self::Timer => f.write_str("timer"),
            Self::Gc => f.write_str("gc"),
            Self::Scheduler => f.write_str("scheduler"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// The runtime function whose site was hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waker {
    /// `runtime.ready`, on behalf of whoever calls it.
    Ready,
    /// `runtime.injectglist` or `runtime.findRunnable`: a list that netpoll returned.
    List,
    /// The scheduler starts a mark worker.
    GcWorker,
    Other,
}

impl Waker {
    pub fn of_site(function: &str) -> Self {
        match function {
            "runtime.ready" => Self::Ready,
            name if name.contains("GCWorker") => Self::GcWorker,
            "runtime.injectglist" | "runtime.findRunnable" | "runtime.findrunnable" => Self::List,
            _ => Self::Other,
        }
    }
}

/// What a goroutine was parked for, as far as that says who ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Nothing but its timer ends it.
    Sleep,
    /// Something is received, perhaps from a timer.
    Receive,
    Io,
    /// Anything else, and what is not known.
    Other,
}

impl Wait {
    pub fn of(reason: &str) -> Self {
        match reason {
            "sleep" => Self::Sleep,
            "select" | "chan receive" => Self::Receive,
            "IO wait" => Self::Io,
            _ => Self::Other,
        }
    }
}

/// Says who woke a goroutine.
pub fn attribute(waker: Option<Goid>, site: Option<Waker>, wait: Wait) -> WokenBy {
    match (waker, site) {
        (Some(goid), _) => WokenBy::Goroutine(goid),
        (None, _) if wait == Wait::Sleep => WokenBy::Timer,
        (None, Some(Waker::List)) => WokenBy::Netpoll,
        (None, Some(Waker::GcWorker)) => WokenBy::Gc,
        // No goroutine ran: the scheduler itself did, which runs timers (they send on channels) and deadlines of I/O.
        (None, Some(Waker::Ready)) => match wait {
            Wait::Receive => WokenBy::Timer,
            Wait::Io => WokenBy::Netpoll,
            Wait::Sleep | Wait::Other => WokenBy::Scheduler,
        },
        (None, Some(Waker::Other)) => WokenBy::Scheduler,
        (None, None) => WokenBy::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check each rule of attribution.
    #[test]
    fn rules() {
        use WokenBy::*;
        let cases = [
            (Some(3), Some("runtime.ready"), "chan receive", Goroutine(Goid(3))),
            (None, Some("runtime.ready"), "sleep", Timer),
            (None, None, "sleep", Timer),
            (None, Some("runtime.ready"), "select", Timer),
            (None, Some("runtime.ready"), "chan receive", Timer),
            (None, Some("runtime.ready"), "IO wait", Netpoll),
            (None, Some("runtime.ready"), "semacquire", Scheduler),
            (None, Some("runtime.injectglist"), "IO wait", Netpoll),
            (None, Some("runtime.findRunnable"), "", Netpoll),
            (None, Some("runtime.(*gcControllerState).findRunnableGCWorker"), "GC worker (idle)", Gc),
            (None, Some("runtime.park_m"), "", Scheduler),
            (None, None, "select", Unknown),
        ];
        for (waker, site, reason, by) in cases {
            assert_eq!(attribute(waker.map(Goid), site.map(Waker::of_site), Wait::of(reason)), by, "{site:?} {reason}");
        }
    }
}
