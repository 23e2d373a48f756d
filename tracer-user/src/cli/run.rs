//! `lifetrace run`: start a command under trace from its first instruction, its children included.

use std::{
    ffi::OsString,
    fs::{self, File},
    os::fd::OwnedFd,
    path::Path,
};

use anyhow::{Context, Result};
use tracer_common::config::ADOPT_NOBODY;

use super::{
    Failure, NOT_EXECUTABLE, NOT_FOUND, OURS,
    args::{Global, LaunchArgs, RunArgs},
    asker::Asker,
    begin::{calibrated, create, kept, may_trace, meta, offers, sizes},
    follow::{Analysed, Follower, How, analyse},
    memory::MemoryWatch,
    recorder::{Over, Recorder},
    relay::{self, Ended},
    usdt,
};
use crate::{
    capture::{Capture, CaptureError, Written},
    golang,
    governor::Care,
    kernel::{
        command::{CommandError, Identity, Launch, resolve},
        faults::Faults,
        gate::{FileKey, Gate},
        session::Session,
        signals::Inherited,
    },
    recording::contract::{Meta, Tier},
    target::libraries::Root,
    usdt::Table,
};

/// Runs the command to its end and returns its exit status, or ours.
pub fn run(args: &RunArgs, global: Global) -> Result<u8> {
    let asked = Asked { how: &args.how, command: &args.command, output: &args.output, spare_toolchain: false, stdout: None };
    let recorded = recorded(asked)?;
    if !global.quiet && recorded.outcome.is_ok() {
        eprintln!("lifetrace: {}; read it with `lifetrace report {}`", recorded.written, args.output.display());
    }
    recorded.whole(&args.output)
}

/// A recording of a command that has ended.
pub struct Recorded {
    ended: Ended,
    written: Written,
    outcome: Result<(), CaptureError>,
}

/// What to run and record.
pub struct Asked<'a> {
    pub how: &'a LaunchArgs,
    pub command: &'a [OsString],
    /// The recording.
    pub output: &'a Path,
    /// No probes in the Go toolchain itself.
    pub spare_toolchain: bool,
    /// The command's stdout, where that is not ours.
    pub stdout: Option<OwnedFd>,
}

/// Runs a command to its end, and records it.
pub fn recorded(asked: Asked<'_>) -> Result<Recorded> {
    let Asked { how: args, command, output, spare_toolchain, stdout } = asked;
    args.detail.check().map_err(Failure::ours)?;
    let name = command.first().context("no command")?.clone();
    let program = resolve(&name, std::env::var_os("PATH").as_deref()).map_err(command_error)?;
    let identity = Identity::choose(args.user.as_deref(), args.as_root).map_err(command_error)?;
    let memory = MemoryWatch::new(&args.beside.with_pid)?;
    let table = usdt::table(&args.usdt)?;
    may_trace().map_err(Failure::ours)?;
    // Before any thread exists, so that every thread inherits it.
    let inherited = Inherited::set_aside()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let launch = Launch { program, name, args: command[1..].to_vec(), identity, inherited, stdout };
    let command = command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    runtime.block_on(record(args, launch, (command, output), spare_toolchain, (memory, table)))
}

/// What a shell would exit with where there is no command to start.
pub fn command_error(error: CommandError) -> Failure {
    let code = match error {
        CommandError::NotFound(_) => NOT_FOUND,
        CommandError::NotExecutable { .. } => NOT_EXECUTABLE,
        CommandError::NoUser(_) | CommandError::User { .. } => OURS,
    };
    Failure { code, error: error.into() }
}

/// Everything from the first probe to the last block.
async fn record(
    args: &LaunchArgs,
    launch: Launch,
    (command, output): (Vec<String>, &Path),
    spare_toolchain: bool,
    (memory, table): (MemoryWatch, Table),
) -> Result<Recorded> {
    let (mut session, mut ring, logger) =
        Session::load(sizes(&args.detail, |name| args.knob(name)), offers(|name| args.knob(name).is_some()))
            .map_err(Failure::ours)?;
    ring.inject(Faults::from_knobs(|name| args.knob(name)));
    let traps = calibrated(&mut session);
    let tier = args.detail.tier();
    let meta = Meta { command: kept(command), ..meta(&args.detail, traps) };
    // Everything that can be refused is refused before an older recording of that name is overwritten.
    let own = Own::look_at(&launch.program, tier, spare_toolchain)?;
    let writer = create(output, &meta, launch.identity.as_ref())?;
    let gate = match Gate::start(session.followed_fd()) {
        Ok(gate) => Some(gate),
        Err(error) => {
            tracing::warn!(%error, "no exec gate: the first goroutines of child programs may be missed");
            None
        }
    };
    let how = How {
        care: Care { tier, budget: args.detail.budget() },
        most: tier,
        all: None,
        many: false,
        min_block: args.detail.min_block,
        empty_probes: args.empty_probes,
        bad_layout: args.knob("bad-layout").is_some(),
        each_mount: args.knob("probe-each-mount").is_some(),
        spare_toolchain,
        snapshot_every: args.detail.snapshot_every.0,
        adopt: ADOPT_NOBODY,
    };
    let mut follower = Follower::new(session, Capture::start(writer)?, how, table, traps)?;
    follower.guard(args.detail.guard_url.as_deref())?;
    own.probe(&mut follower, gate.as_ref(), &launch.program)?;
    follower.follow_threads(args.detail.threads());
    follower.sample_cpus(args.detail.cpu_hz());
    follower.ask(Asker::new(&args.pprof, args.detail.snapshot_every.0, follower.capture()));
    let mut recorder = Recorder::new(follower, ring, memory);
    let ended = recorder.follow_command(launch, gate, logger).await;
    let reason = if recorder.failed() { "write_error" } else { "exited" };
    let (written, outcome) = recorder.finish(&Over { reason, command: ended.as_ref().ok() });
    Ok(Recorded { ended: ended?, written, outcome })
}

/// The command's own file, before it starts.
struct Own(Option<(File, Analysed)>);

impl Own {
    fn look_at(program: &Path, tier: Tier, spare_toolchain: bool) -> Result<Self> {
        let file = match File::open(program) {
            Ok(file) => file,
            // Whoever may execute it need not be able to read it.
            Err(_) => return Ok(Self(None)),
        };
        let what = golang::what_is_file(&file).unwrap_or_else(|error| format!("unreadable ({error})"));
        if !golang::looks_like_go(&file).unwrap_or(false) {
            tracing::info!(
                "{} is {what}: its processes and threads are followed, and Go programs that it starts",
                program.display()
            );
            return Ok(Self(None));
        }
        let analysed = analyse(&file, tier).map_err(|error| cannot_be_traced(program, error))?;
        if spare_toolchain && analysed.is_toolchain() {
            return Ok(Self(None));
        }
        Ok(Self(Some((file, analysed))))
    }

    /// Sets the probes, if it is a Go program.
    fn probe(self, follower: &mut Follower, gate: Option<&Gate>, program: &Path) -> Result<()> {
        if let Some((file, analysed)) = self.0 {
            follower.probe(&file, analysed, ADOPT_NOBODY, follower.care()).map_err(|error| cannot_be_traced(program, error))?;
            if let Some(gate) = gate {
                gate.know(FileKey::of(&file)?)?;
            }
        }
        // Where nothing holds its exec, this is the time.
        let path = fs::canonicalize(program).unwrap_or_else(|_| program.to_owned());
        if let (Ok(file), Ok(root)) = (File::open(&path), Root::ours()) {
            follower.probe_usdt_of_program(&file, &path, &root, ADOPT_NOBODY);
        }
        Ok(())
    }
}

fn cannot_be_traced(program: &Path, error: anyhow::Error) -> Failure {
    Failure::ours(error.context(format!("{} cannot be traced", program.display())))
}

impl Recorded {
    /// The command's exit code. A recording that is not whole is a failure of ours, where the command itself succeeded.
    pub fn whole(self, output: &Path) -> Result<u8> {
        whole(&self.ended, self.outcome, output)
    }
}

/// The same of a recording however it was made.
pub fn whole(ended: &Ended, outcome: Result<(), CaptureError>, output: &Path) -> Result<u8> {
    let command = relay::exit_code(ended.status);
    let Err(error) = outcome else { return Ok(command) };
    let path = output.display();
    let error = anyhow::Error::from(error).context(format!("recording stopped early; {path} holds what was written before"));
    if command == 0 {
        return Err(Failure::ours(error).into());
    }
    tracing::error!("{error:#}");
    Ok(command)
}
