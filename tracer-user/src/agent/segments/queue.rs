//! The spool: recordings that wait to become segments, bounded. What waits longest goes first, and is dropped first where there are too many.
//!
//! A file's ending says how far it has come, so that whoever finds it after a crash knows: `running` is being recorded, `waiting` is whole,
//! `first` and `second` are being read for the first and the second time. One at which the agent ended twice is not read again.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::super::{
    folder::Folder,
    spool::{Copied, Cut},
};

/// Letters of a segment's name.
const MAX_NAME: usize = 80;

/// How often a recording has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tries {
    None,
    One,
}

/// A recording that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// What its segment is called.
    pub name: String,
    pub bytes: u64,
    pub tries: Tries,
}

impl Waiting {
    /// Of a file that an agent has left.
    fn left(file: &str, bytes: u64) -> Option<Self> {
        let (name, ending) = file.rsplit_once('.')?;
        let known = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
        if name.is_empty() || name.len() > MAX_NAME || !known {
            return None;
        }
        let tries = match ending {
            "running" | "waiting" => Tries::None,
            "first" | "second" => Tries::One,
            _ => return None,
        };
        Some(Self { name: name.to_owned(), bytes, tries })
    }

    fn file(&self) -> String {
        running_or(&self.name, "waiting")
    }

    /// What it is called while it is read.
    pub fn being_read(&self) -> String {
        running_or(&self.name, if self.tries == Tries::None { "first" } else { "second" })
    }
}

fn running_or(name: &str, ending: &str) -> String {
    format!("{name}.{ending}")
}

/// What became of recordings, and what waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Segments that were made, that arrived, that were dropped because there were too many, and that could not be made.
    pub written: u64,
    pub uploaded: u64,
    pub dropped: u64,
    pub failed: u64,
    /// Bytes that arrived.
    pub uploaded_bytes: u64,
    /// Times that the store did not take something.
    pub refused: u64,
    /// Recordings of which the spool has only the beginning, by why.
    pub cut: BTreeMap<Cut, u64>,
    /// In the spool, the one in work with them.
    pub waiting: u64,
    pub waiting_bytes: u64,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    in_work: Option<Waiting>,
    /// Recordings that are being copied.
    running: usize,
    /// The program ends: until when is there time.
    ending: Option<Instant>,
    counts: Counts,
    said: BTreeMap<Cut, bool>,
}

/// Shared by who copies, who exports, and who asks. Nobody does anything slow while holding it.
pub struct Queue {
    pub folder: Folder,
    /// Bytes of all that wait.
    most: u64,
    state: Mutex<State>,
    changed: Condvar,
}

impl Queue {
    /// Takes a spool over, with what an agent before has left there.
    pub fn open(folder: Folder, most: u64) -> io::Result<Self> {
        let mut waiting: Vec<Waiting> = Vec::new();
        let mut counts = Counts::default();
        for (file, bytes) in folder.files()? {
            let Some(left) = Waiting::left(&file, bytes) else { continue };
            if file.ends_with(".second") {
                folder.remove(&file)?;
                counts.failed += 1;
                continue;
            }
            folder.rename(&file, &left.file())?;
            waiting.push(left);
        }
        // Names begin with the time.
        waiting.sort_by(|a, b| a.name.cmp(&b.name));
        let state = State { waiting: waiting.into(), counts, ..State::default() };
        let queue = Self { folder, most, state: Mutex::new(state), changed: Condvar::new() };
        queue.shed();
        Ok(queue)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn counts(&self) -> Counts {
        let state = self.state();
        let all = || state.waiting.iter().chain(&state.in_work);
        Counts { waiting: all().count() as u64, waiting_bytes: all().map(|waiting| waiting.bytes).sum(), ..state.counts.clone() }
    }

    pub fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.state().counts);
    }

    /// A recording begins to be copied into this file.
    pub fn begin(&self, name: &str) -> String {
        self.state().running += 1;
        running_or(name, "running")
    }

    /// It is over, and waits from now on.
    pub fn add(&self, name: String, copied: &Copied) {
        let waiting = Waiting { name, bytes: copied.bytes, tries: Tries::None };
        let running = running_or(&waiting.name, "running");
        let kept = if copied.bytes > 0 { self.folder.rename(&running, &waiting.file()) } else { self.folder.remove(&running) };
        if let Some(cut) = copied.cut {
            self.tell(cut, copied.error.as_ref());
        }
        let mut state = self.state();
        state.running -= 1;
        match kept {
            Ok(()) if copied.bytes > 0 => state.waiting.push_back(waiting),
            _ if copied.bytes > 0 || copied.cut.is_some() => state.counts.failed += 1,
            _ => {}
        }
        drop(state);
        self.shed();
        self.changed.notify_all();
    }

    /// Counts that a copy has ended early, and says it the first time.
    fn tell(&self, cut: Cut, error: Option<&io::Error>) {
        let first = {
            let mut state = self.state();
            *state.counts.cut.entry(cut).or_default() += 1;
            !std::mem::replace(state.said.entry(cut).or_default(), true)
        };
        if first {
            let why = error.map_or_else(|| cut.name().to_owned(), ToString::to_string);
            tracing::warn!("of a recording only the beginning is in the spool: {why}; from now on that is counted alone");
        }
    }

    /// Drops the oldest until all that wait are no more than they may be; neither what is in work nor the newest.
    fn shed(&self) {
        loop {
            let dropped = {
                let mut state = self.state();
                let bytes: u64 = state.waiting.iter().chain(&state.in_work).map(|waiting| waiting.bytes).sum();
                if bytes <= self.most || state.waiting.len() < 2 {
                    return;
                }
                state.counts.dropped += 1;
                state.waiting.pop_front()
            };
            if let Some(Err(error)) = dropped.map(|dropped| self.folder.remove(&dropped.file())) {
                tracing::debug!(%error, "a recording that was dropped is still in the spool");
            }
        }
    }

    /// Waits for the next one; `None`: there is no more to do, or no time for it.
    pub fn next(&self) -> Option<Waiting> {
        let mut state = self.state();
        loop {
            if state.ending.is_some_and(|until| Instant::now() >= until) {
                return None;
            }
            if let Some(next) = state.waiting.pop_front() {
                state.in_work = Some(next.clone());
                return Some(next);
            }
            if state.ending.is_some() && state.running == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// It is going to be read: whoever finds it afterwards knows that.
    pub fn mark(&self, waiting: &Waiting) -> io::Result<()> {
        self.folder.rename(&waiting.file(), &waiting.being_read())
    }

    /// It was read, and nobody ended of it.
    pub fn unmark(&self, waiting: &Waiting) -> io::Result<()> {
        self.folder.rename(&waiting.being_read(), &waiting.file())
    }

    /// The one in work is done with: its file goes.
    pub fn finish(&self, done: &Waiting, change: impl FnOnce(&mut Counts)) {
        for file in [done.file(), done.being_read()] {
            match self.folder.remove(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => tracing::warn!(%error, file, "it stays in the spool"),
                _ => {}
            }
        }
        let mut state = self.state();
        state.in_work = None;
        change(&mut state.counts);
        drop(state);
        self.changed.notify_all();
    }

    /// Waits, unless the program ends; whether there is still time.
    pub fn pause(&self, time: std::time::Duration) -> bool {
        let until = Instant::now() + time;
        let mut state = self.state();
        loop {
            let now = Instant::now();
            if state.ending.is_some_and(|ending| now >= ending) {
                return false;
            }
            let end = state.ending.map_or(until, |ending| ending.min(until));
            if now >= until {
                return true;
            }
            state =
                self.changed.wait_timeout(state, end.saturating_duration_since(now)).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until everything has arrived, or time is over. Nothing begins after that.
    pub fn end(&self, until: Instant) {
        let mut state = self.state();
        state.ending = Some(until);
        self.changed.notify_all();
        while state.running > 0 || !state.waiting.is_empty() || state.in_work.is_some() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // That it is not done is nobody's fault: it is to be read anew.
                if let Some(in_work) = &state.in_work {
                    let _ = self.unmark(in_work);
                }
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn queue(dir: &Path, most: u64) -> Queue {
        Queue::open(Folder::open(dir).unwrap(), most).unwrap()
    }

    fn record(queue: &Queue, name: &str, bytes: usize) {
        let file = queue.begin(name);
        fs::write(queue.folder.path(file), vec![0; bytes]).unwrap();
        queue.add(name.to_owned(), &Copied { bytes: bytes as u64, cut: None, error: None });
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Check that the oldest comes first, that too much has the oldest dropped, and that the one in work stays.
    #[test]
    fn bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spool");
        let queue = queue(&path, 250);
        record(&queue, "a", 100);
        let first = queue.next().unwrap();
        assert_eq!(first.name, "a");
        for name in ["b", "c", "d"] {
            record(&queue, name, 100);
        }
        let counts = queue.counts();
        assert_eq!((counts.dropped, counts.waiting, counts.waiting_bytes), (2, 2, 200));
        queue.finish(&first, |counts| counts.uploaded += 1);
        assert_eq!(names(&path), ["d.waiting"]);
        assert_eq!(queue.next().unwrap().name, "d");
        queue.end(Instant::now());
        assert_eq!(queue.next(), None);
    }

    /// Check what becomes of files that an agent has left: what was recorded or waited is taken, what it ended of twice is not, and what is
    /// none of ours stays as it is.
    #[test]
    fn left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spool");
        drop(Folder::open(&path).unwrap());
        for file in ["2.running", "1.waiting", "3.first", "4.second", "mine.txt", "a b.waiting"] {
            fs::write(path.join(file), "x").unwrap();
        }
        let queue = queue(&path, 100);
        assert_eq!(queue.counts().failed, 1);
        let found: Vec<_> = (0..3).map(|_| queue.next().unwrap()).map(|left| (left.name, left.tries)).collect();
        assert_eq!(found, [("1".to_owned(), Tries::None), ("2".to_owned(), Tries::None), ("3".to_owned(), Tries::One)]);
        assert_eq!(names(&path), ["1.waiting", "2.waiting", "3.waiting", "a b.waiting", "mine.txt"]);
    }

    /// Check that a copy without a byte leaves nothing, and that why is counted.
    #[test]
    fn nothing_copied() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spool");
        let queue = queue(&path, 100);
        let file = queue.begin("a");
        fs::write(queue.folder.path(file), "").unwrap();
        queue.add("a".into(), &Copied { bytes: 0, cut: Some(Cut::NoSpace), error: None });
        assert_eq!(queue.counts().cut, BTreeMap::from([(Cut::NoSpace, 1)]));
        assert!(names(&path).is_empty());
        queue.end(Instant::now() + std::time::Duration::from_secs(60));
        assert_eq!(queue.next(), None);
    }
}
