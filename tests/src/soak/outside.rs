//! What the agent sends to and writes on in a soak: a collector and a disk that fail in turns, and what came of everything that was to
//! be sent and written.

use std::{
    collections::BTreeSet,
    fmt,
    fs::File,
    io::{ErrorKind, Write},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{
    agent::{Agent, Metrics},
    deadline::{PATIENCE, wait_for},
    disk::SmallDisk,
    otelcol::Collector,
    segments,
};

/// A turn, and how many there are at least.
const TURN: Duration = Duration::from_secs(60);
const TURNS: u32 = 8;
/// Enough for what a soak writes; what fills it is memory.
const DISK: &str = "512m";

/// What goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Well,
    /// Nobody listens where the collector was.
    CollectorGone,
    /// Whoever connects waits.
    CollectorSilent,
    DiskFull,
}

/// One after the other, and again.
const ORDER: [Turn; 6] = [Turn::Well, Turn::CollectorGone, Turn::Well, Turn::DiskFull, Turn::Well, Turn::CollectorSilent];

/// The collector and the disk.
pub struct Outside {
    disk: SmallDisk,
    collector: Collector,
    turn: Turn,
    lasting: Duration,
    /// Turns begun that were not [`Turn::Well`].
    troubles: u64,
    _dir: TempDir,
}

/// What came of what was to be sent and written.
#[derive(Debug, Default)]
pub struct Account {
    pub troubles: u64,
    /// Batches that came, and numbers of batches that did not.
    pub received: u64,
    pub missing: u64,
    /// Those that the agent says it dropped, for whatever reason.
    pub dropped: u64,
    pub retries: u64,
    pub disk_errors: u64,
    /// Segments in the store, what the agent says of that, recordings that it says did not become one, and those of which there is only the
    /// beginning.
    pub segments: u64,
    pub uploaded: u64,
    pub given_up: u64,
    pub cut: u64,
}

impl Outside {
    pub fn new(lasting: Duration) -> Result<Self> {
        let dir = TempDir::new()?;
        let mut collector = Collector::new(dir.path())?;
        collector.start()?;
        let disk = SmallDisk::mount(DISK)?;
        Ok(Self { disk, collector, turn: Turn::Well, lasting: TURN.min(lasting / TURNS), troubles: 0, _dir: dir })
    }

    /// The agent's sections for both.
    #[must_use]
    pub fn config(&self) -> String {
        let disk = self.disk.path().display();
        format!(
            "[otlp]\nendpoint = \"http://{}\"\ninterval = \"5s\"\ntimeout = \"2s\"\nspan_lived = \"10s\"\nqueue = \"{disk}/queue\"\n\
             [segments]\nstore = \"file://{disk}/store\"\nspool = \"{disk}/spool\"\n",
            self.collector.grpc
        )
    }

    fn filler(&self) -> PathBuf {
        self.disk.path().join("filler")
    }

    /// Has that happen whose turn it is.
    pub fn at(&mut self, elapsed: Duration) -> Result<()> {
        let turns = elapsed.as_nanos() / self.lasting.as_nanos().max(1);
        self.turn_to(ORDER[turns as usize % ORDER.len()])
    }

    /// From now on nothing fails.
    pub fn mend(&mut self) -> Result<()> {
        self.turn_to(Turn::Well)
    }

    fn turn_to(&mut self, next: Turn) -> Result<()> {
        if next == self.turn {
            return Ok(());
        }
        match self.turn {
            Turn::Well => {}
            Turn::CollectorGone => self.collector.start()?,
            Turn::CollectorSilent => self.collector.resume()?,
            Turn::DiskFull => std::fs::remove_file(self.filler())?,
        }
        match next {
            Turn::Well => {}
            Turn::CollectorGone => self.collector.stop()?,
            Turn::CollectorSilent => self.collector.suspend()?,
            Turn::DiskFull => fill(&self.filler())?,
        }
        self.turn = next;
        self.troubles += u64::from(next != Turn::Well);
        Ok(())
    }

    /// Waits until all that waits has arrived, ends the agent, and counts on both sides.
    pub fn settle(mut self, agent: Agent) -> Result<Account> {
        self.mend()?;
        let sum = |metrics: &Metrics, series: &str| metrics.sum(series, &[]).unwrap_or_default();
        wait_for("what waits to arrive", PATIENCE * 4, || {
            let metrics = agent.metrics()?;
            let waits = [sum(&metrics, "lifetrace_otlp_queue_batches"), sum(&metrics, "lifetrace_agent_spool_recordings")];
            Ok(waits.iter().all(|waits| *waits <= 1.0).then_some(()))
        })
        .with_context(|| agent.running.stderr())?;
        let metrics = agent.metrics()?;
        let of = |series: &str, result: &str| metrics.sum(series, &[&format!("result=\"{result}\"")]).unwrap_or_default() as u64;
        let batches = |result| of("lifetrace_otlp_batches_total", result);
        let segments = |result| of("lifetrace_agent_segments_total", result);
        let mut account = Account {
            troubles: self.troubles,
            dropped: ["refused", "full", "behind", "damaged"].map(batches).iter().sum(),
            retries: sum(&metrics, "lifetrace_otlp_retries_total") as u64,
            disk_errors: sum(&metrics, "lifetrace_otlp_disk_errors_total") as u64,
            uploaded: segments("uploaded"),
            given_up: segments("dropped") + segments("failed"),
            cut: sum(&metrics, "lifetrace_agent_spool_cut_total") as u64,
            ..Account::default()
        };
        agent.terminate()?;
        // What it says it took is in its files when it has ended.
        self.collector.stop()?;
        let mut numbers = BTreeSet::new();
        for signal in ["metrics", "logs", "traces"] {
            numbers.extend(self.collector.batches(signal)?);
        }
        account.received = numbers.len() as u64;
        account.missing = numbers.last().map_or(0, |last| last - account.received);
        account.segments = segments::whole(&self.disk.path().join("store"))? as u64;
        Ok(account)
    }
}

/// Takes what is left of a disk.
fn fill(file: &std::path::Path) -> Result<()> {
    let mut file = File::create(file)?;
    let zeroes = vec![0; 1 << 20];
    // What is left after the last whole piece goes in smaller ones.
    for size in [zeroes.len(), 4096] {
        loop {
            match file.write(&zeroes[..size]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

impl Account {
    /// That nothing is missing that the agent does not tell of.
    pub fn check(&self, recordings: u64) -> Result<()> {
        ensure!(self.troubles > 0 && self.received > 0 && self.segments > 0, "nothing was sent: {self}");
        ensure!(self.retries > 0, "the collector was never missed: {self}");
        // Some are dropped before they have a number.
        ensure!(self.missing <= self.dropped, "{self}");
        // The last one may have been whole after it was asked.
        ensure!((self.uploaded..=self.uploaded + 2).contains(&self.segments), "{self}");
        // One that is cut short is a segment all the same; the last two are on their way.
        ensure!(self.uploaded + self.given_up + 2 >= recordings, "{recordings} recordings: {self}");
        Ok(())
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "troubles     {} times the collector or the disk failed", self.troubles)?;
        writeln!(
            f,
            "otlp         {} batches received, {} missing, {} told as dropped; {} tries again, {} errors of the disk",
            self.received, self.missing, self.dropped, self.retries, self.disk_errors
        )?;
        write!(
            f,
            "segments     {} in the store, {} told as arrived, {} given up, {} cut short",
            self.segments, self.uploaded, self.given_up, self.cut
        )
    }
}
