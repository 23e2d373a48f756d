//! `lifetrace attach`: follow processes that run already, and those of their kind that start later.
//!
//! Probes first, then the memory: what lives is known from there on, and nothing is held, stopped or asked.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Result;
use nix::sys::signal::Signal;
use tracer_common::config::{ADOPT_ANYBODY, ADOPT_IN_CGROUP, ADOPT_NOBODY};

use super::{
    Failure,
    args::{AttachArgs, Global},
    asker::Asker,
    begin::{calibrated, create, may_trace, meta, offers, sizes},
    follow::{Analysed, Follower, How, analyse},
    join::JoinError,
    memory::MemoryWatch,
    recorder::{Course, Over, Recorder},
    usdt,
};
use crate::{
    capture::Capture,
    golang,
    id::{ProcessKey, Tgid},
    kernel::{
        command::Identity,
        faults::Faults,
        session::Session,
        signals::{Inherited, Signals},
    },
    recording::contract::{Meta, Tier},
    target::{cgroup::Cgroup, executable::Executable, procfs},
    usdt::Table,
};

/// How often new members are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Follows until the time is over, somebody interrupts, or the one process has ended.
pub fn attach(args: &AttachArgs, global: Global) -> Result<u8> {
    args.detail.within_a_budget().check().map_err(Failure::usage)?;
    let target = Target::find(args)?;
    let memory = MemoryWatch::new(&args.beside.with_pid)?;
    let table = usdt::table(&args.usdt)?;
    may_trace().map_err(Failure::environment)?;
    let identity = Identity::choose(None, false).map_err(Failure::usage)?;
    Inherited::set_aside()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(record(args, global, (target, memory, table), identity.as_ref()))
}

async fn record(
    args: &AttachArgs,
    global: Global,
    (target, memory, table): (Target, MemoryWatch, Table),
    identity: Option<&Identity>,
) -> Result<u8> {
    let signals = Signals::open()?;
    let (mut session, mut ring, logger) =
        Session::load(sizes(&args.detail, |name| args.knobs.get(name)), offers(|name| args.knobs.get(name).is_some()))
            .map_err(Failure::environment)?;
    ring.inject(Faults::from_knobs(|name| args.knobs.get(name)));
    if let Target::Cgroup(cgroup) = &target {
        session.adopt_cgroup(cgroup.id, cgroup.level).map_err(Failure::environment)?;
    }
    let detail = args.detail.within_a_budget();
    let traps = calibrated(&mut session);
    let meta = Meta { target: Some(args.target.to_string()), ..meta(&detail, traps) };
    let first = target.first(detail.tier())?;
    let writer = create(&args.output, &meta, identity)?;
    let how = How {
        tier: detail.tier(),
        budget: detail.budget(),
        min_block: detail.min_block,
        empty_probes: false,
        bad_layout: false,
        each_mount: false,
        spare_toolchain: false,
        snapshot_every: detail.snapshot_every.0,
        adopt: target.adopt_others(),
    };
    let mut follower = Follower::new(session, Capture::start(writer)?, how, table, traps)?;
    follower.guard(detail.guard_url.as_deref())?;
    follower.follow_threads(detail.threads());
    follower.sample_cpus(detail.cpu_hz());
    follower.ask(Asker::new(&args.pprof, detail.snapshot_every.0, follower.capture()));
    let found = target.join(first, &mut follower);
    let mut recorder = Recorder::new(follower, ring, memory);
    let reason = match found {
        Ok(()) => {
            if !global.quiet {
                eprintln!("lifetrace: following {}{}", args.target, until(args.duration));
            }
            let watch =
                Watch { target, until: args.duration.map(|wanted| Instant::now() + wanted), looked: Instant::now(), over: None };
            recorder.serve(watch, signals, None, logger).await
        }
        Err(error) => Err(error),
    };
    let over = Over { reason: reason.as_ref().unwrap_or(&"failed"), command: None };
    let over = if recorder.failed() { Over { reason: "write_error", ..over } } else { over };
    let (written, recorded) = recorder.finish(&over);
    reason?;
    recorded.map_err(|error| {
        let kept = format!("recording stopped early; {} holds what was written before", args.output.display());
        Failure::environment(anyhow::Error::from(error).context(kept))
    })?;
    if !global.quiet {
        eprintln!("lifetrace: {written}; read it with `lifetrace report {}`", args.output.display());
    }
    Ok(0)
}

fn until(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "; Ctrl-C ends it".to_owned(), |wanted| format!(" for {}", humantime::format_duration(wanted)))
}

/// What is attached to.
enum Target {
    Process(ProcessKey),
    Executable(PathBuf),
    Cgroup(Cgroup),
}

impl Target {
    /// Wrong names are refused before anything is loaded.
    fn find(args: &AttachArgs) -> Result<Self, Failure> {
        if let Some(pid) = args.target.pid {
            let tgid = Tgid(pid);
            let stat = procfs::stat(tgid).map_err(|error| Failure::usage(JoinError::of(tgid, error)))?;
            return Ok(Self::Process(stat.key));
        }
        if let Some(path) = &args.target.cgroup {
            return Cgroup::open(path).map(Self::Cgroup).map_err(Failure::usage);
        }
        let path = args.target.exe.clone().unwrap_or_default();
        let what = |error| Failure::usage(anyhow::Error::from(error).context(format!("{} cannot be looked at", path.display())));
        Executable::at(&path).map_err(what)?;
        Ok(Self::Executable(path))
    }

    /// The file that is to be probed first. One that cannot be traced is refused before an older recording is overwritten.
    fn first(&self, tier: Tier) -> Result<Option<(File, Analysed)>, Failure> {
        let path = match self {
            Self::Process(key) => PathBuf::from(format!("/proc/{}/exe", key.tgid)),
            Self::Executable(path) => path.clone(),
            Self::Cgroup(_) => return Ok(None),
        };
        let go = File::open(&path).and_then(|file| golang::looks_like_go(&file)).unwrap_or(false);
        // What is no Go program is followed by its processes and threads, and by its USDT probes.
        if !go && is_program(&path) {
            return Ok(None);
        }
        let analysed =
            File::open(&path).map_err(anyhow::Error::from).and_then(|file| analyse(&file, tier).map(|analysed| (file, analysed)));
        let cannot = |error: anyhow::Error| Failure::environment(error.context(format!("{} cannot be traced", path.display())));
        analysed.map(Some).map_err(cannot)
    }

    /// Who else is followed that runs a file met on the way.
    fn adopt_others(&self) -> u8 {
        match self {
            Self::Process(_) | Self::Executable(_) => ADOPT_NOBODY,
            Self::Cgroup(_) => ADOPT_IN_CGROUP,
        }
    }

    /// Who is followed that runs the file of the target itself.
    fn adopt_own(&self) -> u8 {
        if matches!(self, Self::Executable(_)) { ADOPT_ANYBODY } else { self.adopt_others() }
    }

    /// Sets the first probes and joins who is there now. The one process must be joined; of several, one that cannot be is noted.
    fn join(&self, first: Option<(File, Analysed)>, follower: &mut Follower) -> Result<()> {
        if let Some((file, analysed)) = first {
            follower.probe(&file, analysed, self.adopt_own()).map_err(Failure::environment)?;
        }
        if let Self::Process(key) = self {
            follower.join(key.tgid, ADOPT_NOBODY).map_err(Failure::environment)?;
        }
        self.look_again(follower);
        Ok(())
    }

    /// Joins those of its kind that are not followed yet.
    fn look_again(&self, follower: &mut Follower) {
        let members = match self {
            Self::Process(_) => return,
            Self::Executable(path) => Executable::at(path).and_then(|file| file.processes()).unwrap_or_default(),
            Self::Cgroup(cgroup) => cgroup.processes(),
        };
        for tgid in members.into_iter().filter(|tgid| tgid.0 != std::process::id()) {
            follower.join_if_new(tgid, self.adopt_own());
        }
    }
}

/// Whether a file is one that processes run: an ELF file.
fn is_program(path: &Path) -> bool {
    let mut magic = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok_and(|()| magic == *b"\x7fELF")
}

/// Looking on, until it is over.
struct Watch {
    target: Target,
    until: Option<Instant>,
    looked: Instant,
    over: Option<&'static str>,
}

impl Course for Watch {
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

    fn look_around(&mut self, follower: &mut Follower) {
        follower.look_at_cpu();
        if self.looked.elapsed() >= LOOK_EVERY {
            self.looked = Instant::now();
            self.target.look_again(follower);
        }
        if let Target::Process(key) = self.target {
            let lives = procfs::stat(key.tgid).is_ok_and(|stat| stat.key == key && !stat.zombie);
            self.over = self.over.or((!lives).then_some("exited"));
        }
    }

    fn ended(&mut self) -> Result<Option<&'static str>> {
        let time_over = self.until.is_some_and(|until| Instant::now() >= until);
        Ok(self.over.or(time_over.then_some("time_over")))
    }
}
