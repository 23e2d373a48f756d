//! Watching a command and its descendants, where probes are not allowed.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{Course, How, Watcher, family::descendants};
use crate::{
    capture::{Capture, CaptureError, Message},
    cli::{
        Failure,
        begin::{bare_meta, create, kept},
        memory::MemoryWatch,
        recorder::{self, Over},
        relay::{Ended, Relay, Starting},
        run::{Asked, command_error},
    },
    clock::ktime_now,
    id::ProcessKey,
    kernel::{
        command::{Identity, Launch, Launcher, resolve},
        signals::{Inherited, Signals},
    },
    recording::contract::{Meta, Note},
};

/// Between two looks: test binaries do not live long.
const EVERY: Duration = Duration::from_millis(100);

/// Runs a command to its end and watches it into a recording; `why` there are no probes.
pub fn recorded(asked: Asked<'_>, why: &str) -> Result<(Ended, Result<(), CaptureError>)> {
    let Asked { how: args, command, output, spare_toolchain, stdout } = asked;
    let name = command.first().context("no command")?.clone();
    let program = resolve(&name, std::env::var_os("PATH").as_deref()).map_err(command_error)?;
    let identity = Identity::choose(args.user.as_deref(), args.as_root).map_err(command_error)?;
    let memory = MemoryWatch::new(&args.beside.with_pid)?;
    let inherited = Inherited::set_aside()?;
    let mut signals = Signals::open()?;
    let words: Vec<String> = command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let writer = create(output, &Meta { command: kept(words), ..bare_meta() }, identity.as_ref())?;
    let launch = Launch { program, name, args: command[1..].to_vec(), identity, inherited, stdout };
    let capture = Capture::start(writer)?;
    let text = format!("no probes ({why}): goroutines are only seen where they are when their process is looked at");
    tracing::warn!("{text}");
    capture.send(Message::Note(Note::Warning { at: ktime_now(), text }));
    let launcher = Launcher::prepare(launch)?;
    if let Some(signal) = signals.deadly_now()? {
        return Err(
            Failure { code: 128 + signal as u8, error: anyhow::anyhow!("{signal} before the command was started") }.into()
        );
    }
    let mut watcher = Watcher::start(capture, memory, &How { every: EVERY, spare_toolchain })?;
    let mut course = Command { relay: Relay::new(Starting::new(launcher.go())) };
    let ended = watcher.serve(&mut course, &mut signals);
    let (_, outcome) = watcher.finish(&Over { reason: "exited", command: ended.as_ref().ok() });
    Ok((ended?, outcome))
}

/// A command as its parent sees it.
struct Command {
    relay: Relay,
}

impl Course for Command {
    type End = Ended;

    fn take_signals(&mut self, signals: &mut Signals) -> Result<()> {
        recorder::Course::take_signals(&mut self.relay, signals)
    }

    fn members(&mut self, watched: &[ProcessKey]) -> Vec<ProcessKey> {
        self.relay.pid().map_or_else(Vec::new, |tgid| descendants(tgid, watched))
    }

    fn ended(&mut self) -> Result<Option<Ended>> {
        recorder::Course::ended(&mut self.relay)
    }
}
