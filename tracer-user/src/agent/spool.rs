//! What passes on its way to somebody, copied into a file: bounded, and never in the way.
//!
//! [`Tee`] hands what is read on to a thread of its own, which alone knows the disk. Where that is full, fails or is too slow, the copy ends
//! and reading goes on: what was copied is the beginning of what passed, without a gap.

use std::{
    fs::File,
    io::{self, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

/// Bytes that wait for the disk.
const MAX_PENDING: usize = 8 << 20;

/// Why a copy ended before what it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cut {
    /// It is as large as it may become.
    Large,
    /// The disk did not keep up.
    Slow,
    /// The disk is full.
    NoSpace,
    /// The disk failed otherwise.
    Failed,
}

impl Cut {
    pub const ALL: [Self; 4] = [Self::Large, Self::Slow, Self::NoSpace, Self::Failed];

    /// As metrics call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Large => "large",
            Self::Slow => "slow",
            Self::NoSpace => "no space",
            Self::Failed => "failed",
        }
    }

    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            _ => Self::Failed,
        }
    }
}

/// What became of a copy.
#[derive(Debug)]
pub struct Copied {
    pub bytes: u64,
    pub cut: Option<Cut>,
    /// What the disk said.
    pub error: Option<io::Error>,
}

/// What both sides know.
#[derive(Debug, Default)]
struct Shared {
    pending: AtomicUsize,
    slow: AtomicBool,
    nearly_full: AtomicBool,
}

/// Tells when a copy is nearly as large as it may become: one for each copy.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<Shared>);

impl Gauge {
    pub fn is_nearly_full(&self) -> bool {
        self.0.nearly_full.load(Ordering::Relaxed)
    }
}

/// A reader whose bytes are copied.
pub struct Tee<R> {
    from: R,
    copy: Option<Sender<Vec<u8>>>,
    shared: Arc<Shared>,
}

/// Copies what is read of `from` into the file that `make` makes, up to `most` bytes; `done` is told what became of it. Both are called by
/// the thread that writes; where there can be none, nothing is copied and nobody is called.
pub fn tee<R: Read>(
    from: R,
    most: u64,
    gauge: &Gauge,
    make: impl FnOnce() -> io::Result<File> + Send + 'static,
    done: impl FnOnce(Copied) + Send + 'static,
) -> (Tee<R>, io::Result<()>) {
    let shared = Arc::clone(&gauge.0);
    let (copy, chunks) = channel();
    let of_writer = Arc::clone(&shared);
    let writer = thread::Builder::new().name("spool".into()).spawn(move || done(write(make, &chunks, most, &of_writer)));
    let copy = writer.is_ok().then_some(copy);
    (Tee { from, copy, shared }, writer.map(drop))
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(into)?;
        if count == 0 {
            self.copy = None;
        } else if let Some(copy) = &self.copy {
            let waits = self.shared.pending.fetch_add(count, Ordering::Relaxed) + count;
            if waits > MAX_PENDING {
                self.shared.slow.store(true, Ordering::Relaxed);
                self.copy = None;
            } else if copy.send(into[..count].to_vec()).is_err() {
                self.copy = None;
            }
        }
        Ok(count)
    }
}

fn write(make: impl FnOnce() -> io::Result<File>, chunks: &Receiver<Vec<u8>>, most: u64, shared: &Shared) -> Copied {
    let mut bytes = 0;
    let failed = |bytes, error: io::Error| Copied { bytes, cut: Some(Cut::of(&error)), error: Some(error) };
    let mut file = match make() {
        Ok(file) => file,
        Err(error) => return failed(0, error),
    };
    for chunk in chunks {
        let more = chunk.len() as u64;
        if bytes + more > most {
            return Copied { bytes, cut: Some(Cut::Large), error: None };
        }
        if let Err(error) = file.write_all(&chunk) {
            return failed(bytes, error);
        }
        bytes += more;
        shared.pending.fetch_sub(chunk.len(), Ordering::Relaxed);
        if bytes > most - most / 8 {
            shared.nearly_full.store(true, Ordering::Relaxed);
        }
    }
    Copied { bytes, cut: shared.slow.load(Ordering::Relaxed).then_some(Cut::Slow), error: None }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::mpsc, time::Duration};

    use super::*;

    /// Reads `len` bytes through a tee; what came through, what was copied, and what became of it.
    fn pass(
        len: usize,
        most: u64,
        make: impl FnOnce(&std::path::Path) -> io::Result<File> + Send + 'static,
    ) -> (Vec<u8>, Vec<u8>, Copied, bool) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("copy");
        let bytes: Vec<u8> = (0..len).map(|at| at as u8).collect();
        let (tell, told) = mpsc::channel();
        let of_thread = path.clone();
        let gauge = Gauge::default();
        let (mut tee, begun) = tee(&bytes[..], most, &gauge, move || make(&of_thread), move |copied| tell.send(copied).unwrap());
        begun.unwrap();
        let mut read = Vec::new();
        tee.read_to_end(&mut read).unwrap();
        let copied = told.recv_timeout(Duration::from_secs(10)).unwrap();
        (read, fs::read(&path).unwrap_or_default(), copied, gauge.is_nearly_full())
    }

    /// Check that what passes is what comes, and what is copied as well.
    #[test]
    fn whole() {
        let (read, copy, copied, full) = pass(1 << 20, 1 << 30, |path| File::create(path));
        assert!(read.len() == 1 << 20 && copy == read && !full);
        assert!(copied.cut.is_none() && copied.bytes == 1 << 20, "{copied:?}");
    }

    /// Check that a copy stays within its bound, tells that it comes near, and is a beginning; and that reading goes on.
    #[test]
    fn large() {
        let (read, copy, copied, full) = pass(1 << 20, 1 << 19, |path| File::create(path));
        assert_eq!(read.len(), 1 << 20);
        assert!(full && copied.cut == Some(Cut::Large) && copied.bytes == copy.len() as u64, "{copied:?}");
        assert!(copy.len() > 1 << 18 && copy.len() <= 1 << 19 && read.starts_with(&copy), "{}", copy.len());
    }

    /// Check that a disk that is full, or a file that cannot be made, is told of and nothing else suffers.
    #[test]
    fn failing() {
        let (read, _, copied, _) = pass(1 << 20, 1 << 30, |_| fs::OpenOptions::new().write(true).open("/dev/full"));
        assert_eq!((read.len(), copied.cut), (1 << 20, Some(Cut::NoSpace)));
        let (read, _, copied, _) = pass(1 << 20, 1 << 30, |_| File::open("/nowhere/at/all"));
        assert_eq!((read.len(), copied.cut), (1 << 20, Some(Cut::Failed)));
    }

    /// Check that a disk that stands still holds up nobody, and takes a bounded amount of memory.
    #[test]
    fn slow() {
        let (go, gone) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let make = move || {
            let _ = gone.recv();
            tempfile::tempfile()
        };
        let bytes = vec![0; 3 * MAX_PENDING];
        let (mut tee, _) = tee(&bytes[..], u64::MAX, &Gauge::default(), make, move |copied| tell.send(copied).unwrap());
        assert_eq!(io::copy(&mut tee, &mut io::sink()).unwrap(), bytes.len() as u64);
        go.send(()).unwrap();
        let copied = told.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(copied.cut == Some(Cut::Slow) && copied.bytes <= MAX_PENDING as u64, "{copied:?}");
    }
}
