//! What became of batches, counted: read by whoever asks for metrics, written by the threads of the export.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::batch::Signal;
use crate::agent::metrics::{More, MoreKind};

/// What may become of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The receiver has taken it, all of it or a part.
    Sent,
    /// The receiver does not want it, and will not want it later.
    Refused,
    /// It was the oldest when there was no room.
    Full,
    /// It came faster than the disk took it.
    Behind,
    /// What was read from disk is not what was written.
    Damaged,
}

impl Fate {
    const ALL: [Self; 5] = [Self::Sent, Self::Refused, Self::Full, Self::Behind, Self::Damaged];

    fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Refused => "refused",
            Self::Full => "full",
            Self::Behind => "behind",
            Self::Damaged => "damaged",
        }
    }
}

#[derive(Debug, Default)]
struct OfSignal {
    fates: [AtomicU64; Fate::ALL.len()],
    /// Points, records and spans that the receiver did not take of batches that it took.
    rejected: AtomicU64,
    /// What was there to tell and found no room in a batch.
    left_out: AtomicU64,
}

/// All counters.
#[derive(Debug, Default)]
pub struct Stats {
    signals: [OfSignal; Signal::ALL.len()],
    retries: AtomicU64,
    disk_errors: AtomicU64,
    waiting: AtomicU64,
    waiting_bytes: AtomicU64,
    on_disk: AtomicBool,
}

impl Stats {
    pub fn count(&self, signal: Signal, fate: Fate) {
        self.signals[signal as usize].fates[fate as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn reject(&self, signal: Signal, items: u64) {
        self.signals[signal as usize].rejected.fetch_add(items, Ordering::Relaxed);
    }

    pub fn leave_out(&self, signal: Signal, items: u64) {
        self.signals[signal as usize].left_out.fetch_add(items, Ordering::Relaxed);
    }

    pub fn retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    pub fn disk_error(&self) {
        self.disk_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// What waits now, and whether the disk takes it.
    pub fn waits(&self, batches: u64, bytes: u64, on_disk: bool) {
        self.waiting.store(batches, Ordering::Relaxed);
        self.waiting_bytes.store(bytes, Ordering::Relaxed);
        self.on_disk.store(on_disk, Ordering::Relaxed);
    }

    /// How many of a signal ended so.
    #[cfg(test)]
    pub fn of(&self, signal: Signal, fate: Fate) -> u64 {
        self.signals[signal as usize].fates[fate as usize].load(Ordering::Relaxed)
    }

    /// As the agent's metrics tell it.
    pub fn rows(&self) -> Vec<More> {
        let mut rows = Vec::new();
        let mut row = |name, help, kind, labels: Vec<(&'static str, String)>, count: &AtomicU64| {
            rows.push(More { name, help, kind, labels, value: count.load(Ordering::Relaxed) as f64 });
        };
        for (signal, counts) in Signal::ALL.into_iter().zip(&self.signals) {
            let labels = |more: Option<(&'static str, &'static str)>| {
                let all = [Some(("signal", signal.name())), more].into_iter().flatten();
                all.map(|(key, value)| (key, value.to_owned())).collect::<Vec<_>>()
            };
            for (fate, count) in Fate::ALL.into_iter().zip(&counts.fates) {
                let labels = labels(Some(("result", fate.name())));
                row("lifetrace_otlp_batches", "OTLP batches by what became of them", MoreKind::Count, labels, count);
            }
            let help = "Points, records and spans that the receiver did not take of batches that it took";
            row("lifetrace_otlp_rejected_items", help, MoreKind::Count, labels(None), &counts.rejected);
            let help = "Points, records and spans that found no room in a batch";
            row("lifetrace_otlp_left_out_items", help, MoreKind::Count, labels(None), &counts.left_out);
        }
        row("lifetrace_otlp_retries", "Attempts that failed and are made again", MoreKind::Count, Vec::new(), &self.retries);
        let help = "Times that a batch could not be kept on disk";
        row("lifetrace_otlp_disk_errors", help, MoreKind::Count, Vec::new(), &self.disk_errors);
        row("lifetrace_otlp_queue_batches", "OTLP batches that wait", MoreKind::Gauge, Vec::new(), &self.waiting);
        row("lifetrace_otlp_queue_bytes", "Bytes of OTLP batches that wait", MoreKind::Gauge, Vec::new(), &self.waiting_bytes);
        let on_disk = AtomicU64::new(u64::from(self.on_disk.load(Ordering::Relaxed)));
        row("lifetrace_otlp_queue_on_disk", "1: what waits is on disk; 0: in memory", MoreKind::Gauge, Vec::new(), &on_disk);
        rows
    }
}
