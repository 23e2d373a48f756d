//! Timelines for a fleet: each recording becomes a segment, Parquet tables in a folder or an object store (docs/fleet.md).
//!
//! ```text
//! pipe → spool::Tee → top::model          (nothing of this ever waits for a disk or a network)
//!            ↓
//!          queue (a file a recording) → exporter (tables, one recording at a time) → store
//! ```

use std::{
    hash::{BuildHasher, RandomState},
    io::{self, Read},
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

mod exporter;
pub mod queue;
pub mod retention;
pub mod settings;
pub mod store;

use super::{
    config::Config,
    folder::{Folder, FolderError},
    spool::{self, Copied, Cut, Gauge},
};
use exporter::Exporter;
use queue::{Counts, Queue};
use store::StoreError;

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub enum SegmentsError {
    #[error("the spool")]
    Folder(#[from] FolderError),
    #[error("the store")]
    Store(#[from] StoreError),
    #[error("the spool cannot be read")]
    Io(#[from] io::Error),
}

/// The agent's side.
pub struct Segments {
    queue: Arc<Queue>,
    recording_bytes: u64,
    /// Of this agent, so that no two segments are called alike.
    instance: u32,
    gauge: Gauge,
}

impl Segments {
    /// Takes the spool over, and begins to send what is there. `None`: nobody wants segments.
    pub fn open(config: &Config) -> Result<Option<Self>, SegmentsError> {
        let Some(settings) = &config.segments else { return Ok(None) };
        let folder = Folder::open(&settings.spool)?;
        folder.lock()?;
        let store = settings.place.open()?;
        let queue = Arc::new(Queue::open(folder, settings.spool_bytes)?);
        let (node, programs) = (config.node.clone(), config.programs);
        let exporter = Exporter { queue: Arc::clone(&queue), store, node, programs, keep: settings.keep, failing: false };
        thread::Builder::new().name("segments".into()).spawn(move || exporter.run())?;
        let instance = RandomState::new().hash_one(std::process::id()) as u32;
        Ok(Some(Self { queue, recording_bytes: settings.recording_bytes, instance, gauge: Gauge::default() }))
    }

    /// What has the next recording copied into the spool, on its way out of a pipe.
    pub fn copying<R: Read + Send + 'static>(&mut self) -> impl FnOnce(R) -> Box<dyn Read + Send> + use<R> {
        self.gauge = Gauge::default();
        let (queue, gauge, most, instance) = (Arc::clone(&self.queue), self.gauge.clone(), self.recording_bytes, self.instance);
        move |pipe| {
            let name = name(SystemTime::now(), instance);
            let file = queue.begin(&name);
            let (of_maker, of_done, of_segment) = (Arc::clone(&queue), Arc::clone(&queue), name.clone());
            let make = move || of_maker.folder.create(&file);
            let (tee, begun) = spool::tee(pipe, most, &gauge, make, move |copied| of_done.add(of_segment, &copied));
            if let Err(error) = begun {
                queue.add(name, &Copied { bytes: 0, cut: Some(Cut::Failed), error: Some(error) });
            }
            Box::new(tee)
        }
    }

    /// Whether the recording takes so much of the spool that another should begin.
    pub fn is_full(&self) -> bool {
        self.gauge.is_nearly_full()
    }

    pub fn counts(&self) -> Counts {
        self.queue.counts()
    }

    /// Gives what waits some time to arrive; the rest stays in the spool for the next agent.
    pub fn end(self, within: Duration) {
        self.queue.end(Instant::now() + within);
    }
}

/// A segment's name, which sorts by time: `20261129T201524.123Z-3f9a1c22`.
fn name(began: SystemTime, instance: u32) -> String {
    let time = humantime::format_rfc3339_millis(began).to_string().replace(['-', ':'], "");
    format!("{time}-{instance:08x}")
}

/// The day of a moment, in UTC.
fn date(at: SystemTime) -> String {
    let mut text = humantime::format_rfc3339_seconds(at).to_string();
    text.truncate("2026-11-29".len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that names sort by time, and hold what a file's name and a partition can.
    #[test]
    fn names() {
        assert_eq!(
            name(SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000_000_123), 0x3f),
            "20010909T014640.123Z-0000003f"
        );
        assert_eq!(date(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)), "2001-09-09");
    }
}
