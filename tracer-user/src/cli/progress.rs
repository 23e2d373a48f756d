//! Says on stderr how far something has come: where it takes over a second, and a person looks on.

use std::{
    fs::File,
    io::{self, IsTerminal, Seek},
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::args::Global;
#[cfg(feature = "live")]
use crate::kernel::signals::aside;

/// What is quicker needs no word.
const PATIENCE: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_millis(100);

/// Shown until it is dropped, which leaves nothing behind.
pub struct Progress(Option<(Sender<()>, JoinHandle<()>)>);

impl Progress {
    /// Of a file that somebody reads from beginning to end.
    pub fn of_reading(file: &File, what: String, global: Global) -> Self {
        let size = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
        // It has the same place in the file as whoever reads.
        let place = file.try_clone().ok().filter(|_| size.is_some());
        Self::start(what, size, global, move || place.as_ref().and_then(|mut place| place.stream_position().ok()))
    }

    /// Of work of which nobody knows how much there is.
    pub fn of_work(what: String, global: Global) -> Self {
        Self::start(what, None, global, || None)
    }

    /// Of a time that is waited for.
    pub fn of_time(what: String, wanted: Option<Duration>, global: Global) -> Self {
        let began = Instant::now();
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self::start(what, wanted.map(ms), global, move || Some(ms(began.elapsed())))
    }

    fn start(what: String, of: Option<u64>, global: Global, at: impl Fn() -> Option<u64> + Send + 'static) -> Self {
        if global.quiet || !io::stderr().is_terminal() {
            return Self(None);
        }
        let (stop, stopped) = channel();
        let shown = move || {
            if stopped.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            let bar = bar(what, of);
            loop {
                match at() {
                    Some(at) if of.is_some() => bar.set_position(at),
                    _ => bar.tick(),
                }
                if stopped.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
                    return bar.finish_and_clear();
                }
            }
        };
        // Without a thread there is no word of it.
        let thread = aside(|| thread::Builder::new().name("progress".into()).spawn(shown));
        Self(thread.ok().map(|thread| (stop, thread)))
    }
}

/// Of one that takes no signals: who follows a process waits for them.
#[cfg(not(feature = "live"))]
fn aside<T>(work: impl FnOnce() -> T) -> T {
    work()
}

impl Drop for Progress {
    fn drop(&mut self) {
        let Some((stop, thread)) = self.0.take() else { return };
        drop(stop);
        let _ = thread.join();
    }
}

fn bar(what: String, of: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(of, ProgressDrawTarget::stderr()).with_message(what);
    let template = match of {
        Some(_) => "{msg} [{bar:30}] {percent} %, {elapsed}, {eta} left",
        None => "{spinner} {msg}, {elapsed}",
    };
    // A template of ours that is wrong would show the library's own.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style.progress_chars("=> ")).with_elapsed(PATIENCE)
}
