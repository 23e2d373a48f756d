//! One emulated machine: started, listened to, and ended at a deadline.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::outcome::{Outcome, Said};

/// How much slower than this machine one that is emulated may be.
pub const SLOWNESS: u32 = 5;

/// What the kernel is told, besides its console. An emulated machine is slow at what guards against the faults of real processors (`pti` alone is half of
/// the time of each probe), at clocks that are devices, and at waiting for grace periods, which every probe that is taken away does.
const OPTIONS: &str =
    "quiet panic=-1 mitigations=off pti=off tsc=reliable nmi_watchdog=0 rcupdate.rcu_expedited=1 audit=0 apparmor=0";

/// One thread for both CPUs. With one each, qemu 7.2 may run an instruction that the kernel has patched away meanwhile: a breakpoint at a tracepoint's branch
/// whose patching was over stopped 7.3 with "Oops: int3" in try_to_wake_up.
const ACCELERATOR: &str = "tcg,thread=single";

/// All that qemu can emulate, less pages of five levels (a longer walk at each miss), and less cmpxchg16b: with it, qemu 7.2 makes the slab allocator of
/// kernels from 6.4 on lose its free list at boot.
const CPU: &str = "max,la57=off,-cx16";

/// A machine to be started.
pub struct Machine<'a> {
    /// Begins each line that is printed: another machine may run beside it.
    pub name: &'a str,
    pub image: &'a Path,
    pub initramfs: &'a Path,
    /// What the kernel and the tests say on the console. Beside it, ending in `monitor`, is the socket of qemu's own console, which tells where
    /// a machine stands that says nothing.
    pub console: PathBuf,
    /// After this it is ended, whatever it does.
    pub deadline: Duration,
}

impl Machine<'_> {
    /// The command that starts it. KVM is not asked for: where these tests run it is often not there, and a machine that is emulated is the same everywhere.
    fn command(&self) -> Command {
        let mut qemu = Command::new("timeout");
        qemu.args(["--kill-after=5", &self.deadline.as_secs().to_string(), "qemu-system-x86_64"]);
        qemu.args(["-accel", ACCELERATOR, "-cpu", CPU, "-smp", "2", "-m", "3072", "-no-reboot", "-nodefaults"]);
        qemu.args(["-monitor", &format!("unix:{},server,nowait", self.console.with_extension("monitor").display())]);
        qemu.args(["-display", "none", "-serial", &format!("file:{}", self.console.display()), "-serial", "stdio"]);
        qemu.arg("-kernel").arg(self.image).arg("-initrd").arg(self.initramfs);
        qemu.args(["-append", &format!("console=ttyS0 {OPTIONS}")]);
        qemu
    }

    /// Runs it to its end; what it says is printed in short.
    pub fn run(&self) -> Result<Outcome> {
        let mut qemu = self.command();
        let mut running =
            qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start qemu-system-x86_64 by timeout")?;
        let outcome = listen(self.name, BufReader::new(running.stdout.take().context("qemu has no output")?));
        let status = running.wait()?;
        let (outcome, over) = outcome?;
        if !over {
            let why = if status.code() == Some(124) { "the deadline was over" } else { "it ended early" };
            println!("{}: {why} ({status}); its console: {}", self.name, self.console.display());
            if outcome.release.is_empty() {
                bail!("the machine never came up ({why}); its console: {}", self.console.display());
            }
        }
        Ok(outcome)
    }
}

/// Reads all lines, and whether the last one was said.
fn listen(name: &str, mut lines: impl BufRead) -> Result<(Outcome, bool)> {
    let (mut outcome, mut current, mut over) = (Outcome::default(), None, false);
    let mut of_program: Vec<String> = Vec::new();
    let (mut bytes, mut began, mut test_began) = (Vec::new(), Instant::now(), Instant::now());
    while lines.read_until(b'\n', &mut bytes)? > 0 {
        let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        match outcome.take(&text, &mut current) {
            Said::Begin => {
                (began, test_began) = (Instant::now(), Instant::now());
                of_program.clear();
            }
            Said::End(program, code) => {
                let [passed, failed, skipped] = Outcome::counts(outcome.programs.get(program).into_iter());
                let took = began.elapsed().as_secs();
                println!("{name}: {program}: {passed} passed, {failed} failed, {skipped} skipped ({took} s)");
                if code != 0 {
                    of_program.iter().for_each(|line| println!("{name}: | {line}"));
                }
            }
            Said::Test => {
                println!("{name}:   {text} ({} s)", test_began.elapsed().as_secs());
                test_began = Instant::now();
            }
            Said::Over => over = true,
            Said::Other => of_program.push(text.clone()),
        }
        bytes.clear();
    }
    Ok((outcome, over))
}
