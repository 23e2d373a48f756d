//! `lifetrace run`: start a command under trace from its first instruction, its children included.

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::unix::{fs::lchown, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, ExitStatus},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::time::MissedTickBehavior;

use super::{
    args::{Global, RunArgs},
    exit::{CliError, Exit},
    follow::Follower,
    relay::{Relay, Signals},
};
use crate::{
    capture::{Capture, Message, Written},
    clock::{ClockTie, ktime_now},
    golang,
    kernel::{
        calibrate,
        command::{CommandError, Identity, Launch, Launcher, resolve},
        features,
        gate::{FileKey, Gate},
        readiness::{self, Readiness},
        ring::Ring,
        session::{Session, Sizes},
    },
    recording::{
        contract::{End, Meta},
        writer::{WriteError, Writer},
    },
};

/// How long records may lie in the ring when no wake-up comes.
const TICK: Duration = Duration::from_millis(10);
/// How long records may lie in memory before they are written.
const FLUSH_EVERY: Duration = Duration::from_millis(250);
/// Bytes of records in one block.
const BLOCK_BYTES: usize = 1 << 20;

/// Runs the command to its end and returns its exit status, or ours.
pub fn run(args: &RunArgs, global: &Global) -> Result<Exit> {
    let name = args.command.first().context("no command")?.clone();
    let program = resolve(&name, std::env::var_os("PATH").as_deref()).map_err(command_error)?;
    let identity = Identity::choose(args.user.as_deref(), args.as_root).map_err(command_error)?;
    if let Some(missing) = features::missing_privilege() {
        return Err(CliError::ours(missing).into());
    }
    // Before any thread exists, so that every thread inherits it.
    let mask = Signals::block()?;
    let output = args.output.clone().unwrap_or_else(|| default_output(&name));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let launch = Launch { program, name, args: args.command[1..].to_vec(), identity, mask };
    runtime.block_on(record(args, global, launch, &output))
}

fn command_error(error: CommandError) -> CliError {
    let code = match error {
        CommandError::NotFound(_) => Exit::NOT_FOUND,
        CommandError::NotExecutable { .. } => Exit::NOT_EXECUTABLE,
        CommandError::NoUser(_) | CommandError::User { .. } => Exit::OURS,
    };
    CliError::new(code, error)
}

fn default_output(name: &OsString) -> PathBuf {
    let base = Path::new(name).file_name().unwrap_or(name).to_string_lossy().into_owned();
    PathBuf::from(format!("{base}.{}.lifetrace", std::process::id()))
}

fn sizes(args: &RunArgs) -> Sizes {
    let default = Sizes::default();
    Sizes {
        ring_bytes: args.knob("ring-bytes").unwrap_or(default.ring_bytes),
        processes: args.knob("max-processes").unwrap_or(default.processes),
    }
}

/// Everything from the first probe to the last block.
async fn record(args: &RunArgs, global: &Global, launch: Launch, output: &Path) -> Result<Exit> {
    let (mut session, ring, logger) = Session::load(sizes(args)).map_err(|error| CliError::ours_from(error.into()))?;
    let hit_cost_ns = calibrate::hit_cost_ns(&mut session)
        .inspect_err(|error| tracing::warn!(%error, "the cost of a hit could not be measured"))
        .ok();
    let meta = Meta {
        lifetrace: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: features::hostname(),
        kernel: features::kernel_release(),
        cpus: std::thread::available_parallelism().map_or(0, |cpus| cpus.get() as u32),
        clock: ClockTie::now(),
        tier: args.tier,
        command: args.command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
        hit_cost_ns,
    };
    let file = File::open(&launch.program).with_context(|| format!("cannot read {}", launch.program.display()));
    let writer = Writer::create(output, &meta).map_err(|error| CliError::ours_from(error.into()))?;
    if let Some(identity) = &launch.identity {
        lchown(output, Some(identity.uid.as_raw()), Some(identity.gid.as_raw()))
            .with_context(|| format!("cannot give {} to {}", output.display(), identity.name))?;
    }
    let capture = Capture::start(writer)?;
    let gate = match Gate::start(session.followed_fd()) {
        Ok(gate) => Some(gate),
        Err(error) => {
            tracing::warn!(%error, "no exec gate: the first goroutines of child programs may be missed");
            None
        }
    };
    let mut follower = Follower::new(session, capture, args.tier, args.empty_probes);
    let what = match file {
        Ok(file) => probe_command(&mut follower, gate.as_ref(), &file, &launch.program)?,
        Err(error) => format!("unreadable ({error:#})"),
    };
    let mut recorder = Recorder { follower, ring, block: Vec::with_capacity(BLOCK_BYTES + 4096) };
    let ended = recorder.follow_command(launch, gate, logger).await;
    let reason = if recorder.follower.capture().failed() { "write_error" } else { "exited" };
    let (written, recorded) = recorder.finish(reason, ended.as_ref().ok());
    let ended = ended?;
    conclude(args, global, output, &ended, written, recorded, &what)
}

/// Probes the command's own file before it starts. Returns what it is, for a complaint at the end.
fn probe_command(follower: &mut Follower, gate: Option<&Gate>, file: &File, path: &Path) -> Result<String> {
    let what = golang::what_is_file(file).unwrap_or_else(|error| format!("unreadable ({error})"));
    if golang::looks_like_go(file).unwrap_or(false) {
        follower
            .probe(file)
            .map_err(|error| CliError::ours_from(error.context(format!("{} cannot be traced", path.display()))))?;
        if let (Some(gate), Ok(key)) = (gate, FileKey::of(file)) {
            gate.know(key)?;
        }
    } else {
        tracing::info!("{} is {what}; following the Go programs that it starts", path.display());
    }
    Ok(what)
}

/// How the command ended.
pub struct Ended {
    pub status: ExitStatus,
    /// User and system time of the command and of the descendants it waited for.
    pub cpu_ns: u64,
}

struct Recorder {
    follower: Follower,
    ring: Ring,
    block: Vec<u8>,
}

impl Recorder {
    /// Starts the command and serves ring, gate, signals and log until it has ended.
    async fn follow_command(
        &mut self,
        launch: Launch,
        gate: Option<Gate>,
        mut logger: aya_log::EbpfLogger<&'static dyn log::Log>,
    ) -> Result<Ended> {
        let mut signals = Signals::open()?;
        let sources = Sources {
            signals: Readiness::of(&signals)?,
            gate: gate.as_ref().map(Readiness::of).transpose()?,
            log: Readiness::of(&logger)?,
            ring: Readiness::of(&self.ring)?,
        };
        let launcher = Launcher::prepare(launch)?;
        self.follower.session().set_spawner(Some(launcher.tid))?;
        let mut relay = Relay::new(Starting(Some(launcher.go())));
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut flush = tokio::time::interval(FLUSH_EVERY);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut more = false;
        loop {
            tokio::select! {
                biased;
                ready = sources.signals.ready() => {
                    ready?;
                    relay.take_signals(&mut signals)?;
                }
                ready = readiness::ready(sources.gate.as_ref()) => {
                    ready?;
                    gate.iter().for_each(|gate| self.answer_gate(gate));
                }
                ready = sources.log.ready() => {
                    ready?;
                    logger.flush();
                }
                _ = flush.tick() => {
                    self.flush();
                    self.follower.note_counters(&self.ring)?;
                }
                ready = sources.ring.ready() => {
                    ready?;
                    more = !self.drain();
                }
                _ = tick.tick() => more = !self.drain(),
                () = tokio::task::yield_now(), if more => more = !self.drain(),
            }
            if let Some(ended) = relay.ended()? {
                self.follower.session().set_spawner(None)?;
                logger.flush();
                return Ok(ended);
            }
        }
    }

    /// One bounded round; true when the ring is empty.
    fn drain(&mut self) -> bool {
        let empty = self.ring.drain(&mut self.block, BLOCK_BYTES);
        if self.block.len() >= BLOCK_BYTES {
            self.flush();
        }
        empty
    }

    fn flush(&mut self) {
        if !self.block.is_empty() {
            let full = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK_BYTES + 4096));
            self.follower.capture().send(Message::Records(full));
        }
    }

    fn answer_gate(&mut self, gate: &Gate) {
        loop {
            match gate.next() {
                Ok(Some(held)) => {
                    let key = FileKey::of(&held.file);
                    self.follower.probe_held(&held.file, held.tgid);
                    if let Err(error) = key.and_then(|key| gate.release(held.id, key)) {
                        tracing::warn!(%error, "an exec could not be released; its deadline will");
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "the exec gate is closed");
                    return;
                }
            }
        }
    }

    /// Takes the probes away, empties the ring, ends the recording.
    fn finish(mut self, reason: &str, ended: Option<&Ended>) -> (Written, Result<(), WriteError>) {
        while !self.drain() {}
        self.follower.session().detach_probes();
        while !self.drain() {}
        self.flush();
        if let Err(error) = self.follower.note_counters(&self.ring) {
            tracing::warn!(%error, "the last counters are missing");
        }
        let capture = self.follower.into_capture();
        capture.send(Message::End(End {
            at: ktime_now(),
            reason: reason.to_owned(),
            wait_status: ended.map(|ended| ended.status.into_raw()),
            target_cpu_ns: ended.map(|ended| ended.cpu_ns),
        }));
        capture.finish()
    }
}

/// What the daemon waits for.
struct Sources {
    signals: Readiness,
    gate: Option<Readiness>,
    log: Readiness,
    ring: Readiness,
}

/// The command while it is being started.
pub struct Starting(Option<JoinHandle<io::Result<Child>>>);

impl Starting {
    /// The command's process once its exec has succeeded; the error if it failed.
    pub fn poll(&mut self) -> Option<io::Result<Child>> {
        if !self.0.as_ref()?.is_finished() {
            return None;
        }
        Some(self.0.take()?.join().unwrap_or_else(|_| Err(io::Error::other("the launching thread panicked"))))
    }
}

/// What is said at the end, and with which exit code.
fn conclude(
    args: &RunArgs,
    global: &Global,
    output: &Path,
    ended: &Ended,
    written: Written,
    recorded: Result<(), WriteError>,
    what: &str,
) -> Result<Exit> {
    let command = Exit::of_status(ended.status);
    let ours = |error: anyhow::Error| -> Result<Exit> {
        if command == Exit::FINE {
            return Err(CliError::ours_from(error).into());
        }
        tracing::error!("{error:#}");
        Ok(command)
    };
    if let Err(error) = recorded {
        let path = output.display();
        return ours(
            anyhow::Error::from(error).context(format!("recording stopped early; {path} holds what was written before")),
        );
    }
    if written.go_processes == 0 && !args.empty_probes {
        let name = args.command.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        return ours(anyhow::anyhow!(
            "nothing was traced: {name} is {what}, and it started no Go program; give the Go program itself as the command"
        ));
    }
    if !global.quiet {
        eprintln!(
            "lifetrace: {} records, {} goroutines born in {} Go process(es); read it with `lifetrace report {}`",
            written.records,
            written.goroutines_born,
            written.go_processes,
            output.display()
        );
    }
    Ok(command)
}
