//! Batches that wait for the receiver, in order: on disk, and in memory where the disk does not take them. Bounded: the oldest one goes.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
};

use super::{
    batch::{Batch, Signal},
    stats::{Fate, Stats},
};

mod file;
mod folder;

use file::MAX_REQUEST;
use folder::{Folder, Found, Kept};

/// Bytes that wait in memory at most.
const MEMORY_BYTES: u64 = 8 << 20;
/// Files that wait at most.
const MAX_KEPT: usize = 100_000;

/// All that waits.
pub struct Queue {
    path: Option<PathBuf>,
    /// `None`: there is none to be, or it could not be opened.
    folder: Option<Folder>,
    kept: VecDeque<Kept>,
    kept_bytes: u64,
    max_bytes: u64,
    memory: VecDeque<Batch>,
    memory_bytes: u64,
    /// The number of the next one.
    next: u64,
    /// The one that is being sent: it does not make room for others.
    in_flight: Option<u64>,
    /// What waits is another's to tell.
    is_closed: bool,
}

impl Queue {
    /// With what an agent before this one left.
    pub fn open(path: Option<&Path>, max_bytes: u64, stats: &Stats) -> Self {
        let mut queue = Self {
            path: path.map(Path::to_owned),
            folder: None,
            kept: VecDeque::new(),
            kept_bytes: 0,
            max_bytes,
            memory: VecDeque::new(),
            memory_bytes: 0,
            next: 1,
            in_flight: None,
            is_closed: false,
        };
        queue.open_folder(stats);
        queue.make_room(0, stats);
        queue.tell(stats);
        queue
    }

    /// Once more, if it could not be opened; a batch that has come meanwhile has a number, so numbers only go on.
    fn open_folder(&mut self, stats: &Stats) {
        let Some(path) = self.path.as_deref().filter(|_| self.folder.is_none()) else { return };
        match Folder::open(path) {
            Ok(Found { folder, kept, next }) => {
                self.kept_bytes = kept.iter().map(|kept| kept.bytes).sum();
                self.kept = kept.into();
                self.next = self.next.max(next);
                self.folder = Some(folder);
            }
            Err(error) => {
                stats.disk_error();
                tracing::debug!(path = %path.display(), %error, "the queue's folder cannot be used");
            }
        }
    }

    /// Puts one behind the others. `request` is told its number.
    pub fn push(&mut self, signal: Signal, request: impl FnOnce(u64) -> Vec<u8>, stats: &Stats) {
        self.open_folder(stats);
        let batch = Batch { number: self.next, signal, request: request(self.next) };
        let bytes = file::size(&batch.request);
        if batch.request.len() > MAX_REQUEST || bytes > self.max_bytes {
            stats.count(signal, Fate::Full);
            return;
        }
        self.next += 1;
        self.make_room(bytes, stats);
        let written = self.folder.as_ref().map(|folder| folder.write(&batch));
        match written {
            Some(Ok(kept)) => {
                self.kept_bytes += kept.bytes;
                self.kept.push_back(kept);
            }
            failed => {
                if failed.is_some() {
                    stats.disk_error();
                }
                self.memory_bytes += batch.request.len() as u64;
                self.memory.push_back(batch);
                self.make_room_in_memory(stats);
            }
        }
        self.tell(stats);
    }

    fn make_room(&mut self, bytes: u64, stats: &Stats) {
        while !self.kept.is_empty() && (self.kept_bytes + bytes > self.max_bytes || self.kept.len() >= MAX_KEPT) {
            let oldest = usize::from(self.in_flight.is_some() && self.in_flight == self.kept.front().map(|kept| kept.number));
            let Some(kept) = self.kept.get(oldest).copied() else { return };
            stats.count(kept.signal, Fate::Full);
            self.forget(oldest, stats);
        }
    }

    fn make_room_in_memory(&mut self, stats: &Stats) {
        while self.memory_bytes > MEMORY_BYTES && self.memory.len() > 1 {
            let oldest = usize::from(self.in_flight.is_some() && self.in_flight == self.memory.front().map(|batch| batch.number));
            let Some(batch) = self.memory.remove(oldest) else { return };
            self.memory_bytes -= batch.request.len() as u64;
            stats.count(batch.signal, Fate::Full);
        }
    }

    /// The oldest one.
    pub fn front(&mut self, stats: &Stats) -> Option<Batch> {
        loop {
            let on_disk = self.kept.front().copied();
            let in_memory = self.memory.front();
            let kept = match (on_disk, in_memory) {
                (Some(kept), in_memory) if in_memory.is_none_or(|batch| kept.number < batch.number) => kept,
                (_, in_memory) => {
                    self.in_flight = in_memory.map(|batch| batch.number);
                    return in_memory.cloned();
                }
            };
            match self.folder.as_ref().map(|folder| folder.read(&kept)) {
                Some(Ok(Some(batch))) => {
                    self.in_flight = Some(batch.number);
                    return Some(batch);
                }
                // Out of descriptors or memory, for one: that passes, and what is there stays.
                Some(Err(error)) if error.raw_os_error().is_some() && error.kind() != std::io::ErrorKind::NotFound => {
                    stats.disk_error();
                    self.in_flight = None;
                    return None;
                }
                _ => {}
            }
            stats.count(kept.signal, Fate::Damaged);
            self.forget(0, stats);
            self.tell(stats);
        }
    }

    /// What became of the one that was sent is known.
    pub fn done(&mut self, number: u64, stats: &Stats) {
        self.in_flight = None;
        if self.kept.front().is_some_and(|kept| kept.number == number) {
            self.forget(0, stats);
        } else if self.memory.front().is_some_and(|batch| batch.number == number) {
            let sent = self.memory.pop_front();
            self.memory_bytes -= sent.map_or(0, |batch| batch.request.len() as u64);
        }
        self.tell(stats);
    }

    fn forget(&mut self, index: usize, stats: &Stats) {
        let Some(kept) = self.kept.remove(index) else { return };
        self.kept_bytes -= kept.bytes;
        let Some(folder) = &self.folder else { return };
        let noted = if self.kept.is_empty() { folder.write_next(self.next) } else { Ok(()) };
        // What cannot be removed is sent again by the next agent: better twice than never.
        if noted.and(folder.remove(&kept)).is_err() {
            stats.disk_error();
        }
    }

    /// Lets go of the folder: whoever opens it next has what waits in it. Nothing more is sent from here.
    pub fn close(&mut self) {
        (self.path, self.folder, self.is_closed) = (None, None, true);
        self.kept.clear();
        self.kept_bytes = 0;
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.memory.is_empty()
    }

    fn tell(&self, stats: &Stats) {
        if self.is_closed {
            return;
        }
        let batches = (self.kept.len() + self.memory.len()) as u64;
        stats.waits(batches, self.kept_bytes + self.memory_bytes, self.folder.is_some());
    }
}

#[cfg(test)]
mod tests;
