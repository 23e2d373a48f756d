//! The terminal while it is ours, and as it was before, however we end.

use std::{
    fs::File,
    io::{self, IsTerminal, Read, Seek, Write},
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::{dup, dup2_stderr},
};
use ratatui::DefaultTerminal;

/// Messages that are kept of what was said meanwhile.
const MAX_SAID: u64 = 64 << 10;

/// Raw mode and the alternate screen, until it is dropped; a panic gives them back before it is told of.
pub struct Screen {
    pub terminal: DefaultTerminal,
    stderr: Option<Stderr>,
}

impl Screen {
    pub fn open() -> io::Result<Self> {
        let stderr = if io::stderr().is_terminal() { Some(Stderr::hold()?) } else { None };
        match ratatui::try_init() {
            Ok(terminal) => Ok(Self { terminal, stderr }),
            Err(error) => {
                ratatui::restore();
                Err(error)
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Its own drop shows the cursor again, too late for what is written next.
        let _ = self.terminal.show_cursor();
        ratatui::restore();
        if let Some(stderr) = self.stderr.take() {
            stderr.release();
        }
    }
}

/// What came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    Nothing,
    Keys,
    /// A signal that ends us, or the terminal's own end.
    End,
}

/// Where keys come from, and what ends the view besides them. The library that reads keys knows neither signals nor that a terminal can be
/// gone: it would ask one that is for ever.
pub struct Waits {
    keys: OwnedFd,
    signals: SignalFd,
}

impl Waits {
    /// From here on signals that would end this thread, and those it starts, are read in place of that.
    pub fn begin() -> io::Result<Self> {
        let deadly: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT].into_iter().collect();
        deadly.thread_block()?;
        let signals = SignalFd::with_flags(&deadly, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let stdin = io::stdin();
        let keys = if stdin.is_terminal() { stdin.as_fd().try_clone_to_owned()? } else { File::open("/dev/tty")?.into() };
        Ok(Self { keys, signals })
    }

    /// What comes within that time.
    pub fn within(&self, wait: Duration) -> io::Result<Came> {
        let mut ready = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN), PollFd::new(self.keys.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let came = |of: &PollFd<'_>| of.revents().unwrap_or(PollFlags::empty());
        let [signal, keys] = [came(&ready[0]), came(&ready[1])];
        if !signal.is_empty() || keys.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL) {
            return Ok(Came::End);
        }
        Ok(if keys.is_empty() { Came::Nothing } else { Came::Keys })
    }
}

/// What is said on stderr would be written over the screen: it is kept, and said afterwards.
struct Stderr {
    terminal: OwnedFd,
    said: File,
}

impl Stderr {
    fn hold() -> io::Result<Self> {
        let (terminal, said) = (dup(io::stderr())?, tempfile::tempfile()?);
        dup2_stderr(&said)?;
        Ok(Self { terminal, said })
    }

    fn release(mut self) {
        let _ = dup2_stderr(&self.terminal);
        let mut text = Vec::new();
        let read = self.said.rewind().and_then(|()| self.said.take(MAX_SAID).read_to_end(&mut text));
        if read.is_ok() {
            let _ = io::stderr().write_all(&text);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{process::Command, thread};

    use nix::{
        pty::{OpenptyResult, openpty},
        sys::termios::tcgetattr,
    };

    use super::*;

    /// What becomes of a view with a bug: the other test has this one run in a terminal of its own.
    #[test]
    #[ignore = "it panics with the terminal in its hands"]
    fn panics() {
        let mut screen = Screen::open().unwrap();
        screen.terminal.draw(|frame| frame.render_widget("drawn", frame.area())).unwrap();
        panic!("a bug of the view's");
    }

    /// Check that a panic while the terminal is ours leaves the alternate screen at once, shows the cursor, ends raw mode,
    /// and is told of then.
    #[test]
    fn given_back_after_a_panic() {
        let size = nix::pty::Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(&size, None).unwrap();
        let before = tcgetattr(&slave).unwrap();
        let line = || slave.try_clone().unwrap();
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "top::terminal::tests::panics", "--ignored", "--nocapture"]);
        again.stdin(line()).stdout(line()).stderr(line()).env("TERM", "xterm-256color");
        let output = thread::spawn(move || {
            let mut all = Vec::new();
            // A terminal without anybody at its other side ends with an error.
            let _ = File::from(master).read_to_end(&mut all);
            String::from_utf8_lossy(&all).into_owned()
        });
        let status = again.status().unwrap();
        let after = tcgetattr(&slave).unwrap();
        drop((again, slave));
        let output = output.join().unwrap();
        assert_eq!(status.code(), Some(101), "{output:?}");
        assert!(before == after, "raw mode goes on: {after:?}");
        let last = |text: &str| output.rfind(text).unwrap_or_else(|| panic!("no {text:?} in {output:?}"));
        let (entered, hidden, drawn) = (last("\x1b[?1049h"), last("\x1b[?25l"), last("drawn"));
        let (left, shown, told) = (last("\x1b[?1049l"), last("\x1b[?25h"), last("a bug of the view's"));
        assert!(entered < left && hidden < shown && drawn < left && left < told, "{output:?}");
        // The drop shows the cursor and leaves once more: whoever left before is the hook, which needs no unwinding.
        assert!(output.find("\x1b[?1049l") < Some(shown), "{output:?}");
    }
}
