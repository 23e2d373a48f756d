//! Makes tables of recordings, one after the other, and has them arrive: a thread of its own that gives way to all others.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read, Seek},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use super::{
    date,
    queue::{Queue, Waiting},
    retention,
    settings::Keep,
    store::{Store, UploadError},
};
use crate::{
    correlate::replay::View,
    export::parquet::{
        ExportError, Learned,
        layout::{Segment, partition},
    },
    kernel::{heap, priority},
    recording::{RecordingError, reader::Recording},
};

/// Where tables are made, in the spool.
const TABLES: &str = "tables";
/// The table that arrives last: who has its row has all.
const LAST: &str = "meta";
/// Pauses after a failure: the first, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(60)];
/// How often tables are tried to be made where the disk does not take them.
const WRITES: u32 = 3;
/// How long one file may take to arrive; then it begins anew.
const FILE_WITHIN: Duration = Duration::from_secs(600);

/// What it works with.
pub struct Exporter {
    pub queue: Arc<Queue>,
    pub store: Store,
    pub node: String,
    /// Programs that have files of their own in a segment.
    pub programs: usize,
    pub keep: Keep,
    /// The store took nothing when it was last tried.
    pub failing: bool,
}

/// What becomes of a recording.
enum Fate {
    Arrived {
        bytes: u64,
    },
    /// Nobody will ever read it.
    Unreadable,
    /// It ended before it began.
    Empty,
    /// There is no more time: it stays.
    Kept,
}

impl Exporter {
    /// Works until there is no more to do.
    pub fn run(mut self) {
        if let Err(error) = priority::give_way() {
            tracing::debug!(%error, "segments are made at the usual priority");
        }
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build() else {
            tracing::error!("segments are not sent: no runtime");
            return;
        };
        self.clear();
        while let Some(next) = self.queue.next() {
            let fate = self.serve(&next, &runtime);
            self.clear();
            heap::give_back();
            match fate {
                Fate::Arrived { bytes } => self.queue.finish(&next, |counts| {
                    counts.uploaded += 1;
                    counts.uploaded_bytes += bytes;
                }),
                Fate::Unreadable => self.queue.finish(&next, |counts| counts.failed += 1),
                Fate::Empty => self.queue.finish(&next, |_| {}),
                Fate::Kept => return,
            }
            self.retain();
        }
    }

    fn serve(&mut self, next: &Waiting, runtime: &tokio::runtime::Runtime) -> Fate {
        let mut tries = 0;
        loop {
            match self.make(next) {
                Ok(()) => break,
                Err(ExportError::Recording(RecordingError::Empty { .. })) => return Fate::Empty,
                Err(ExportError::Write(error)) if tries < WRITES || is_full(&error) => {
                    tracing::warn!(%error, "tables cannot be written into the spool");
                    if !self.queue.pause(pause(tries)) {
                        return Fate::Kept;
                    }
                    tries += 1;
                }
                Err(error) => {
                    tracing::warn!("no segment of {}: {:#}", next.name, anyhow::Error::from(error));
                    return Fate::Unreadable;
                }
            }
        }
        self.queue.count(|counts| counts.written += 1);
        match self.send(runtime) {
            Ok(Some(bytes)) => Fate::Arrived { bytes },
            Ok(None) => Fate::Kept,
            Err(error) => {
                tracing::warn!(%error, "tables in the spool cannot be read");
                Fate::Unreadable
            }
        }
    }

    fn tables(&self) -> PathBuf {
        self.queue.folder.path(TABLES)
    }

    /// Removes what was made of one.
    fn clear(&self) {
        match fs::remove_dir_all(self.tables()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => tracing::warn!(%error, "tables stay in the spool"),
            _ => {}
        }
    }

    /// Makes tables of a recording. A panic is one of a thread of its own, and costs that recording alone.
    fn make(&self, next: &Waiting) -> Result<(), ExportError> {
        self.clear();
        self.queue.mark(next).map_err(ExportError::Write)?;
        let file = next.being_read();
        let made = thread::scope(|scope| {
            let maker = thread::Builder::new().name("tables".into()).spawn_scoped(scope, || self.make_of(&file, &next.name));
            maker.map(thread::ScopedJoinHandle::join)
        });
        self.queue.unmark(next).map_err(ExportError::Write)?;
        match made {
            Ok(Ok(made)) => made,
            // What it says is on stderr.
            Ok(Err(_panic)) => Err(ExportError::Changed),
            Err(error) => Err(ExportError::Write(error)),
        }
    }

    fn make_of(&self, file: &str, name: &str) -> Result<(), ExportError> {
        let path = self.queue.folder.path(file);
        let unreadable = |source| ExportError::Recording(RecordingError::Io { path: path.clone(), source });
        let input = self.queue.folder.read(file).map_err(unreadable)?;
        let recording = || recording(&input, &path);
        let first = recording()?;
        let began = SystemTime::UNIX_EPOCH + Duration::from_nanos(first.meta().clock.wall_ns.0);
        let learned = Learned::from(first, View::default())?;
        let within = format!("date={}/node={}", date(began), partition(&self.node));
        let segment = Segment { name, within: &within, programs: self.programs };
        fs::create_dir(self.tables()).map_err(ExportError::Write)?;
        learned.write_segment(recording()?, &self.tables(), segment)
    }

    /// Has all tables arrive, however often that takes; how many bytes, or `None`: there is no more time.
    fn send(&mut self, runtime: &tokio::runtime::Runtime) -> io::Result<Option<u64>> {
        let mut bytes = 0;
        for (file, name) in self.files()? {
            let mut tries = 0;
            loop {
                let sent = runtime.block_on(async {
                    tokio::time::timeout(FILE_WITHIN, self.store.upload(&file, &name))
                        .await
                        .unwrap_or_else(|_| Err(too_late(&file)))
                });
                match sent {
                    Ok(sent) => {
                        bytes += sent;
                        self.failing = false;
                        break;
                    }
                    Err(error) => self.tell(error),
                }
                if !self.queue.pause(pause(tries)) {
                    return Ok(None);
                }
                tries += 1;
            }
        }
        Ok(Some(bytes))
    }

    /// The files that were made and what they are called in the store; those of the last table at the end.
    fn files(&self) -> io::Result<Vec<(PathBuf, String)>> {
        let mut files = Vec::new();
        gather(&self.tables(), "", &mut files)?;
        let is_last = |name: &str| name.split('/').next() == Some(LAST);
        files.sort_by(|(_, a), (_, b)| (is_last(a), a).cmp(&(is_last(b), b)));
        Ok(files)
    }

    /// Counts a failure, and says the first of several.
    fn tell(&mut self, error: UploadError) {
        self.queue.count(|counts| counts.refused += 1);
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!("segments wait in the spool, for the store takes none: {:#}", anyhow::Error::from(error));
        }
    }

    fn retain(&self) {
        let Some(folder) = self.store.folder() else { return };
        if let Err(error) = retention::apply(&folder.path(""), &partition(&self.node), self.keep) {
            tracing::warn!(%error, "old segments cannot be removed");
        }
    }
}

fn too_late(file: &Path) -> UploadError {
    UploadError::Io { path: file.into(), source: io::ErrorKind::TimedOut.into() }
}

fn pause(tries: u32) -> Duration {
    let [first, longest] = PAUSES;
    first.saturating_mul(1 << tries.min(16)).min(longest)
}

/// The recording from its beginning.
fn recording(mut input: &File, path: &Path) -> Result<Recording<BufReader<io::Take<File>>>, ExportError> {
    let io = |source| ExportError::Recording(RecordingError::Io { path: path.into(), source });
    let len = input.metadata().map_err(io)?.len();
    input.rewind().map_err(io)?;
    let file = input.try_clone().map_err(io)?;
    Ok(Recording::from_reader(BufReader::with_capacity(1 << 20, file.take(len)), path)?)
}

/// The disk has no room now: the recording is as good as it was.
fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
}

/// All files below a folder, with their paths from there on.
fn gather(folder: &Path, below: &str, into: &mut Vec<(PathBuf, String)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().into_string().map_err(|name| io::Error::other(format!("{} is not text", name.display())))?;
        let name = if below.is_empty() { name } else { format!("{below}/{name}") };
        if entry.file_type()?.is_dir() {
            gather(&entry.path(), &name, into)?;
        } else {
            into.push((entry.path(), name));
        }
    }
    Ok(())
}
