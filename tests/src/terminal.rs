//! A terminal that nobody sits at: a program in it, what its screen shows, keys.

use std::{
    fs::File,
    io::{Read, Write},
    num::NonZeroU16,
    os::fd::{AsRawFd, OwnedFd},
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use anyhow::{Context, Result, ensure};
use nix::{
    libc,
    pty::{OpenptyResult, Winsize, openpty},
    sys::{
        signal::{Signal, kill},
        termios::{Termios, tcgetattr},
    },
};

use crate::{
    deadline::{PATIENCE, wait_for},
    process::pid,
};

nix::ioctl_write_ptr_bad!(set_size, libc::TIOCSWINSZ, Winsize);
// `TIOCVHANGUP` of asm-generic/ioctls.h.
nix::ioctl_none_bad!(hang_up, 0x5437);

/// A terminal with a program in it, which is killed when it is dropped.
pub struct Terminal {
    child: Child,
    keyboard: File,
    /// The side of the program: open, so that its modes can be looked at when that has ended.
    line: OwnedFd,
    emulator: Arc<Mutex<vt100::Parser>>,
    /// How it treated what is typed before anybody changed that.
    before: Termios,
}

/// So many columns and lines; none of them 0.
fn size(columns: u16, lines: u16) -> (NonZeroU16, NonZeroU16) {
    (NonZeroU16::new(lines).unwrap_or(NonZeroU16::MIN), NonZeroU16::new(columns).unwrap_or(NonZeroU16::MIN))
}

fn window(columns: u16, lines: u16) -> Winsize {
    Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

impl Terminal {
    /// Starts `command` in one of that size.
    pub fn start(mut command: Command, columns: u16, lines: u16) -> Result<Self> {
        let OpenptyResult { master, slave } = openpty(&window(columns, lines), None)?;
        let before = tcgetattr(&slave)?;
        let what = format!("{command:?}");
        command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave.try_clone()?).env("TERM", "xterm-256color");
        let child = command.spawn().with_context(|| format!("cannot start {what}"))?;
        let (rows, cols) = size(columns, lines);
        let emulator = Arc::new(Mutex::new(vt100::Parser::new(rows, cols, 1000)));
        let mut output = File::from(master.try_clone()?);
        let shown = Arc::clone(&emulator);
        thread::spawn(move || {
            let mut buf = [0; 1 << 14];
            while let Ok(n @ 1..) = output.read(&mut buf) {
                shown.lock().unwrap_or_else(PoisonError::into_inner).process(&buf[..n]);
            }
        });
        Ok(Self { child, keyboard: master.into(), line: slave, emulator, before })
    }

    fn emulator(&self) -> MutexGuard<'_, vt100::Parser> {
        self.emulator.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What its screen shows.
    #[must_use]
    pub fn screen(&self) -> String {
        self.emulator().screen().contents()
    }

    /// Whether it shows the screen that programs draw on, and not the one that shells write on.
    #[must_use]
    pub fn is_alternate(&self) -> bool {
        self.emulator().screen().alternate_screen()
    }

    #[must_use]
    pub fn is_cursor_hidden(&self) -> bool {
        self.emulator().screen().hide_cursor()
    }

    /// Waits until the screen shows what `found` looks for.
    pub fn until<T>(&self, what: &str, mut found: impl FnMut(&str) -> Option<T>) -> Result<T> {
        wait_for(what, PATIENCE, || Ok(found(&self.screen()))).with_context(|| format!("the screen:\n{}", self.screen()))
    }

    /// Waits until it shows all of these.
    pub fn shows(&self, texts: &[&str]) -> Result<String> {
        self.until(&texts.join(", "), |screen| texts.iter().all(|text| screen.contains(text)).then(|| screen.to_owned()))
    }

    /// Types.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        Ok(self.keyboard.write_all(keys.as_bytes())?)
    }

    pub fn resize(&self, columns: u16, lines: u16) -> Result<()> {
        let (rows, cols) = size(columns, lines);
        self.emulator().set_size(rows, cols);
        // SAFETY: the descriptor is a terminal's, and TIOCSWINSZ reads a winsize.
        unsafe { set_size(self.keyboard.as_raw_fd(), &window(columns, lines)) }?;
        Ok(())
    }

    /// Takes it away from whoever uses it, as a connection does that breaks off.
    pub fn hang_up(&self) -> Result<()> {
        // SAFETY: the descriptor is a terminal's, and TIOCVHANGUP takes no argument.
        unsafe { hang_up(self.line.as_raw_fd()) }?;
        Ok(())
    }

    /// Whether it is as it was before the program, as soon as all is read that that has written.
    pub fn expect_restored(&self) -> Result<()> {
        ensure!(self.modes()? == self.before, "it treats what is typed in another way than before");
        let shell = || !self.is_alternate() && !self.is_cursor_hidden();
        wait_for("the shell's screen and its cursor", PATIENCE, || Ok(shell().then_some(())))
    }

    /// Whether what is typed is treated as before the program.
    pub fn is_untouched(&self) -> Result<bool> {
        Ok(self.modes()? == self.before)
    }

    /// How it treats what is typed.
    fn modes(&self) -> Result<Termios> {
        Ok(tcgetattr(&self.line)?)
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(pid(self.child.id()), signal)?)
    }

    /// Waits until the program has ended.
    pub fn ended(&mut self) -> Result<ExitStatus> {
        let child = &mut self.child;
        let ended = wait_for("the exit", PATIENCE, || Ok(child.try_wait()?));
        ended.with_context(|| format!("the screen:\n{}", self.screen()))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
