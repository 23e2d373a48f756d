//! `lifetrace run`: start a command under trace from its first instruction, its children included.

use std::{
    fs::File,
    io,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, ExitStatus},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::unistd::{getegid, geteuid, setfsgid, setfsuid};
use tokio::time::MissedTickBehavior;

use super::{
    Failure, NOT_EXECUTABLE, NOT_FOUND, OURS,
    args::{Global, RunArgs},
    follow::{Analysed, Follower, How, analyse},
    relay::{self, Relay},
};
use crate::{
    capture::{Capture, CaptureError, Message, Written},
    clock::{ClockTie, ktime_now},
    golang,
    kernel::{
        calibrate,
        command::{CommandError, Identity, Launch, Launcher, resolve},
        features,
        gate::{FileKey, Gate, server},
        readiness::{self, Readiness},
        ring::Ring,
        session::{Session, Sizes},
        signals::{Inherited, Signals},
    },
    recording::{
        contract::{End, Meta, Note, Tier},
        writer::Writer,
    },
};

/// How long records may lie in the ring when no wake-up comes.
const TICK: Duration = Duration::from_millis(10);
/// How long records may lie in memory before they are written.
const FLUSH_EVERY: Duration = Duration::from_millis(250);
/// Bytes of records in one block.
const BLOCK_BYTES: usize = 1 << 20;
/// Blocks taken out of the ring after the probes are gone: more than it holds.
const LAST_ROUNDS: usize = 256;

/// Runs the command to its end and returns its exit status, or ours.
pub fn run(args: &RunArgs, global: Global) -> Result<u8> {
    let name = args.command.first().context("no command")?.clone();
    let program = resolve(&name, std::env::var_os("PATH").as_deref()).map_err(command_error)?;
    let identity = Identity::choose(args.user.as_deref(), args.as_root).map_err(command_error)?;
    if let Some(missing) = features::missing_privilege() {
        return Err(Failure::ours(anyhow::Error::msg(missing)).into());
    }
    if !features::in_initial_pid_namespace() {
        let what = "lifetrace must see the initial pid namespace: run it on the host, or in a container with the host's";
        return Err(Failure::ours(anyhow::Error::msg(what)).into());
    }
    // Before any thread exists, so that every thread inherits it.
    let inherited = Inherited::set_aside()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let launch = Launch { program, name, args: args.command[1..].to_vec(), identity, inherited };
    runtime.block_on(record(args, global, launch, &args.output))
}

fn command_error(error: CommandError) -> Failure {
    let code = match error {
        CommandError::NotFound(_) => NOT_FOUND,
        CommandError::NotExecutable { .. } => NOT_EXECUTABLE,
        CommandError::NoUser(_) | CommandError::User { .. } => OURS,
    };
    Failure { code, error: error.into() }
}

fn sizes(args: &RunArgs) -> Sizes {
    let default = Sizes::default();
    Sizes {
        ring_bytes: args.knob("ring-bytes").unwrap_or(default.ring_bytes),
        processes: args.knob("max-processes").unwrap_or(default.processes),
    }
}

/// Everything from the first probe to the last block.
async fn record(args: &RunArgs, global: Global, launch: Launch, output: &Path) -> Result<u8> {
    let (mut session, ring, logger) = Session::load(sizes(args)).map_err(Failure::ours)?;
    let hit_cost_ns = calibrate::hit_cost_ns(&mut session)
        .inspect_err(|error| tracing::warn!(%error, "the cost of a hit could not be measured"))
        .ok();
    let meta = Meta {
        lifetrace: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: features::hostname(),
        kernel: features::kernel_release(),
        cpus: std::thread::available_parallelism().map_or(0, |cpus| cpus.get() as u32),
        clock: ClockTie::now(),
        tier: args.tier.into(),
        command: args.command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
        hit_cost_ns,
    };
    // Everything that can be refused is refused before an older recording of that name is overwritten.
    let own = Own::look_at(&launch.program, args.tier.into())?;
    let writer = create(output, &meta, launch.identity.as_ref())?;
    let gate = match Gate::start(session.followed_fd()) {
        Ok(gate) => Some(gate),
        Err(error) => {
            tracing::warn!(%error, "no exec gate: the first goroutines of child programs may be missed");
            None
        }
    };
    let how = How { tier: args.tier.into(), empty_probes: args.empty_probes, bad_layout: args.knob("bad-layout").is_some() };
    let mut follower = Follower::new(session, Capture::start(writer)?, how);
    let what = own.probe(&mut follower, gate.as_ref(), &launch.program)?;
    let mut recorder = Recorder { follower, ring, block: Vec::with_capacity(BLOCK_BYTES + 4096) };
    let ended = recorder.follow_command(launch, gate, logger).await;
    let reason = if recorder.follower.capture().failed() { "write_error" } else { "exited" };
    let (written, recorded) = recorder.finish(reason, ended.as_ref().ok());
    conclude(args, global, output, &ended?, written, recorded, &what)
}

/// Creates the recording with the rights of the user it is to belong to.
fn create(output: &Path, meta: &Meta, identity: Option<&Identity>) -> Result<Writer<File>> {
    if let Some(identity) = identity {
        setfsgid(identity.gid);
        setfsuid(identity.uid);
    }
    let writer = Writer::create(output, meta).map_err(Failure::ours);
    setfsuid(geteuid());
    setfsgid(getegid());
    Ok(writer?)
}

/// The command's own file, before it starts.
struct Own {
    what: String,
    go: Option<(File, Analysed)>,
}

impl Own {
    fn look_at(program: &Path, tier: Tier) -> Result<Self> {
        let file = match File::open(program) {
            Ok(file) => file,
            Err(error) => return Ok(Self { what: format!("unreadable ({error})"), go: None }),
        };
        let what = golang::what_is_file(&file).unwrap_or_else(|error| format!("unreadable ({error})"));
        if !golang::looks_like_go(&file).unwrap_or(false) {
            tracing::info!("{} is {what}; following the Go programs that it starts", program.display());
            return Ok(Self { what, go: None });
        }
        let analysed = analyse(&file, tier).map_err(|error| cannot_be_traced(program, error))?;
        Ok(Self { what, go: Some((file, analysed)) })
    }

    /// Sets the probes. Returns what the file is, for a complaint at the end.
    fn probe(self, follower: &mut Follower, gate: Option<&Gate>, program: &Path) -> Result<String> {
        if let Some((file, analysed)) = self.go {
            follower.probe(&file, analysed).map_err(|error| cannot_be_traced(program, error))?;
            if let Some(gate) = gate {
                gate.know(FileKey::of(&file)?)?;
            }
        }
        Ok(self.what)
    }
}

fn cannot_be_traced(program: &Path, error: anyhow::Error) -> Failure {
    Failure::ours(error.context(format!("{} cannot be traced", program.display())))
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
        mut gate: Option<Gate>,
        mut logger: aya_log::EbpfLogger<&'static dyn log::Log>,
    ) -> Result<Ended> {
        let mut signals = Signals::open()?;
        let mut sources = Sources {
            signals: Readiness::of(&signals)?,
            gate: gate.as_ref().map(Readiness::of).transpose()?,
            log: Readiness::of(&logger)?,
            ring: Readiness::of(&self.ring)?,
        };
        let launcher = Launcher::prepare(launch)?;
        self.follower.session().set_spawner(Some(launcher.tid))?;
        if let Some(signal) = signals.deadly_now()? {
            return Err(
                Failure { code: 128 + signal as u8, error: anyhow::anyhow!("{signal} before the command was started") }.into()
            );
        }
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
                    if gate.as_ref().is_some_and(|gate| !self.answer_gate(gate)) {
                        sources.gate = None;
                        gate = None;
                    }
                }
                ready = sources.log.ready() => {
                    ready?;
                    logger.flush();
                }
                _ = flush.tick() => {
                    self.flush();
                    if let Err(error) = self.follower.note_counters(&self.ring) {
                        tracing::warn!(%error, "the counters cannot be read");
                    }
                    if self.follower.capture().failed() {
                        // The target must not go on paying for what nobody keeps.
                        self.follower.session().detach_probes();
                    }
                }
                ready = sources.ring.ready() => {
                    ready?;
                    more = !self.drain();
                }
                _ = tick.tick() => more = !self.drain(),
                () = tokio::task::yield_now(), if more => more = !self.drain(),
            }
            if let Some(ended) = relay.ended()? {
                logger.flush();
                return Ok(ended);
            }
        }
    }

    /// One bounded round; true when the ring is empty, or when the disk must first catch up.
    fn drain(&mut self) -> bool {
        if self.block.len() >= BLOCK_BYTES && !self.flush() {
            return true;
        }
        let empty = self.ring.drain(&mut self.block, BLOCK_BYTES);
        if self.block.len() >= BLOCK_BYTES {
            self.flush();
        }
        self.catch_up();
        empty
    }

    /// Hands the block on; false if there is no room for it yet.
    fn flush(&mut self) -> bool {
        if self.block.is_empty() {
            return true;
        }
        let full = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK_BYTES + 4096));
        match self.follower.capture().try_records(full) {
            Ok(()) => true,
            Err(full) => {
                self.block = full;
                false
            }
        }
    }

    /// Answers every held exec; false if the gate is gone.
    fn answer_gate(&mut self, gate: &Gate) -> bool {
        loop {
            let held = match gate.next() {
                Ok(Some(held)) => held,
                Ok(None) => return true,
                Err(error) => {
                    let text = format!("the exec gate is gone ({error}): the first goroutines of child programs may be missed");
                    tracing::warn!("{text}");
                    self.follower.capture().send(Message::Note(Note::Warning { at: ktime_now(), text }));
                    return false;
                }
            };
            let Ok(key) = FileKey::of(&held.file) else {
                continue; // its deadline lets it go
            };
            self.follower.probe_for(&held.file, held.tgid);
            let probed = self.follower.is_probed(key);
            if probed && u128::from(ktime_now().since(held.since)) >= server::DEADLINE.as_nanos() {
                self.follower.note_late(&held.file, held.tgid);
            }
            if let Err(error) = gate.release(held.id, key, probed) {
                tracing::debug!(%error, "an exec could not be released; its deadline will");
            }
        }
    }

    /// Probes what was executed behind the gate's back: without a gate, or from a file system that takes no mark.
    fn catch_up(&mut self) {
        for tgid in self.ring.take_executed() {
            let Ok(file) = File::open(format!("/proc/{tgid}/exe")) else {
                continue; // it has ended already
            };
            let unknown = FileKey::of(&file).is_ok_and(|key| !self.follower.knows(key));
            if unknown && golang::looks_like_go(&file).unwrap_or(false) {
                self.follower.probe_for(&file, tgid);
                self.follower.note_late(&file, tgid);
            }
        }
    }

    /// Takes the probes away, empties the ring, ends the recording.
    fn finish(mut self, reason: &str, ended: Option<&Ended>) -> (Written, Result<(), CaptureError>) {
        self.follower.session().detach_probes();
        // Nothing new comes but from processes that are still followed: their share is bounded by these rounds.
        for _ in 0..LAST_ROUNDS {
            let empty = self.ring.drain(&mut self.block, BLOCK_BYTES);
            let block = std::mem::take(&mut self.block);
            if !block.is_empty() {
                self.follower.capture().send(Message::Records(block));
            }
            if empty {
                break;
            }
        }
        if let Err(error) = self.follower.note_counters(&self.ring) {
            tracing::warn!(%error, "the last counters are missing");
        }
        let (session, capture) = self.follower.into_parts();
        capture.send(Message::End(End {
            at: ktime_now(),
            reason: reason.to_owned(),
            wait_status: ended.map(|ended| ended.status.into_raw()),
            target_cpu_ns: ended.map(|ended| ended.cpu_ns),
        }));
        drop(session);
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
    global: Global,
    output: &Path,
    ended: &Ended,
    written: Written,
    recorded: Result<(), CaptureError>,
    what: &str,
) -> Result<u8> {
    let command = relay::exit_code(ended.status);
    let ours = |error: anyhow::Error| -> Result<u8> {
        if command == 0 {
            return Err(Failure::ours(error).into());
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
