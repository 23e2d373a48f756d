//! Watching one process that runs already.

use std::{path::Path, time::Duration};

use anyhow::Result;
use nix::sys::signal::Signal;

use super::{Course, How, Watcher};
use crate::{
    capture::Capture,
    cli::{
        Failure,
        args::PprofArgs,
        asker::Asker,
        begin::{bare_meta, create},
        join::JoinError,
        memory::MemoryWatch,
        recorder::Over,
    },
    clock::{KtimeNs, ktime_now},
    golang,
    id::{ProcessKey, Tgid},
    kernel::{
        command::Identity,
        signals::{Inherited, Signals},
    },
    recording::contract::Meta,
    snapshot::process::{Process, ProcessError},
    target::procfs,
};

/// Looks at a process in that time.
const LOOKS: u32 = 30;
/// Two looks are at least so far apart, and at most.
const MIN_EVERY: Duration = Duration::from_millis(250);
const MAX_EVERY: Duration = Duration::from_secs(30);

/// Watches a process for so long, or until it has ended or somebody interrupts, into a recording at `output`.
pub fn recorded(tgid: Tgid, watch: Duration, pprof: &PprofArgs, output: &Path) -> Result<()> {
    let stat = procfs::stat(tgid).map_err(|error| Failure::usage(JoinError::of(tgid, error)))?;
    let go = may_be_read(tgid)?;
    let memory = MemoryWatch::new(&[])?;
    let identity = Identity::choose(None, false).map_err(Failure::usage)?;
    Inherited::set_aside()?;
    let mut signals = Signals::open()?;
    let meta = Meta { target: Some(format!("--pid {tgid}")), ..bare_meta() };
    let capture = Capture::start(create(output, &meta, identity.as_ref())?)?;
    let every = (watch / LOOKS).clamp(MIN_EVERY, MAX_EVERY);
    let asker = Asker::new(pprof, None, &capture);
    let mut watcher = Watcher::start(capture, memory, &How { every, spare_toolchain: false })?;
    watcher.asker = asker.filter(|_| go);
    watcher.aim(stat.key);
    let until = KtimeNs(ktime_now().0.saturating_add(u64::try_from(watch.as_nanos()).unwrap_or(u64::MAX)));
    let mut course = OneProcess { key: stat.key, until, over: None };
    let reason = watcher.serve(&mut course, &mut signals);
    let (_, outcome) = watcher.finish(&Over { reason: reason.as_ref().unwrap_or(&"failed"), command: None });
    reason?;
    outcome.map_err(|error| Failure::environment(anyhow::Error::from(error).context("what was seen could not be written")))?;
    Ok(())
}

/// Whether it is a Go process; one that nobody lets us read is refused before anything is written.
fn may_be_read(tgid: Tgid) -> Result<bool, Failure> {
    match Process::open(tgid) {
        Ok(process) => process.self_check().map(|_| true).map_err(Failure::environment),
        Err(ProcessError::NotGo { .. }) => Ok(false),
        Err(error @ ProcessError::NoProcess { .. }) => Err(Failure::usage(error)),
        // Its children and descriptors can be seen all the same.
        Err(ProcessError::Snapshot { .. }) if !is_go(tgid) => Ok(false),
        Err(error) => Err(Failure::environment(error)),
    }
}

fn is_go(tgid: Tgid) -> bool {
    std::fs::File::open(format!("/proc/{tgid}/exe")).is_ok_and(|file| golang::looks_like_go(&file).unwrap_or(false))
}

struct OneProcess {
    key: ProcessKey,
    until: KtimeNs,
    over: Option<&'static str>,
}

impl Course for OneProcess {
    type End = &'static str;

    fn take_signals(&mut self, signals: &mut Signals) -> Result<()> {
        while let Some(info) = signals.read()? {
            let signal = Signal::try_from(info.ssi_signo as i32).ok();
            if let Some(Signal::SIGINT | Signal::SIGTERM | Signal::SIGHUP | Signal::SIGQUIT) = signal {
                self.over = Some("interrupted");
            }
        }
        Ok(())
    }

    fn members(&mut self, _watched: &[ProcessKey]) -> Vec<ProcessKey> {
        vec![self.key]
    }

    fn ended(&mut self) -> Result<Option<&'static str>> {
        let lives = procfs::stat(self.key.tgid).is_ok_and(|stat| stat.key == self.key && !stat.zombie);
        let over = self.over.or((!lives).then_some("exited"));
        Ok(over.or((ktime_now() >= self.until).then_some("time_over")))
    }
}
