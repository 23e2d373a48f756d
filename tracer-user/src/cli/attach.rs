//! `lifetrace attach`: follow processes that run already, and those of their kind that start later.
//!
//! Probes first, then the memory: what lives is known from there on, and nothing is held, stopped or asked.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::Receiver,
    },
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
    progress::Progress,
    recorder::{Course, Over, Recorder},
    usdt,
};
use crate::{
    capture::{Capture, CaptureError, Written},
    golang,
    governor::Care,
    id::{ProcessKey, Tgid},
    kernel::{
        command::Identity,
        faults::Faults,
        session::Session,
        signals::{Inherited, Signals},
    },
    recording::{
        contract::{Meta, Tier},
        writer::Writer,
    },
    target::{Choose, Order, cgroup::Cgroup, executable::Executable, procfs},
    usdt::Table,
};

/// How often new members are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long records of many processes may lie in the ring when no wake-up comes: nobody waits for one.
const REST: Duration = Duration::from_millis(100);

/// Follows until the time is over, somebody interrupts, or the one process has ended.
pub fn attach(args: &AttachArgs, global: Global) -> Result<u8> {
    let following = Following::prepare(args, args.target.to_string())?;
    let identity = Identity::choose(None, false).map_err(Failure::usage)?;
    let inherited = Inherited::set_aside()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let create = |meta: &Meta| create(&args.output, meta, identity.as_ref());
    let mut progress = None;
    let begun = || {
        if !global.quiet {
            eprintln!("lifetrace: following {}{}", args.target, until(args.duration));
        }
        progress = Some(Progress::of_time(format!("following {}", args.target), args.duration, global));
    };
    let followed = runtime.block_on(following.record(create, begun));
    drop(progress);
    // What comes now may end us: nobody is followed any more.
    inherited.restore()?;
    let (written, recorded) = followed?;
    recorded.map_err(|error| {
        let kept = format!("recording stopped early; {} holds what was written before", args.output.display());
        Failure::environment(anyhow::Error::from(error).context(kept))
    })?;
    if !global.quiet {
        eprintln!("lifetrace: {written}; read it with `lifetrace report {}`", args.output.display());
    }
    Ok(0)
}

/// That it is to end, whoever of those who hold this says so.
#[derive(Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How a following ended, as its recording's last block says: its time was over.
pub const TIME_OVER: &str = "time_over";
/// SIGHUP ended it: they are to be chosen in another way.
pub const HUNG_UP: &str = "hung_up";
/// Another signal did.
pub const INTERRUPTED: &str = "interrupted";
/// Who reads it wanted its end.
pub const ASKED: &str = "asked";

/// What is to be followed, found: wrong names are refused before anything is loaded.
pub struct Following<'a> {
    args: &'a AttachArgs,
    /// What the recording calls it.
    name: String,
    target: Target,
    memory: MemoryWatch,
    table: Table,
    pub stop: Stop,
}

impl<'a> Following<'a> {
    pub fn prepare(args: &'a AttachArgs, name: String) -> Result<Self> {
        let target = Target::find(args)?;
        Self::prepare_for(args, name, target, MemoryWatch::new(&args.beside.with_pid)?)
    }

    /// The same for processes that are chosen one by one, whatever target the arguments name; their memory is not recorded.
    #[cfg(feature = "agent")]
    pub fn prepare_chosen(args: &'a AttachArgs, name: String, chosen: Chosen) -> Result<Self> {
        Self::prepare_for(args, name, Target::Chosen(chosen), MemoryWatch::off()?)
    }

    fn prepare_for(args: &'a AttachArgs, name: String, target: Target, memory: MemoryWatch) -> Result<Self> {
        args.detail.within_a_budget().check().map_err(Failure::usage)?;
        let table = usdt::table(&args.usdt)?;
        may_trace().map_err(Failure::environment)?;
        Ok(Self { args, name, target, memory, table, stop: Stop::default() })
    }

    /// Follows it, and has what is told written where `create` says; `begun` is called once it is followed.
    pub async fn record(
        self,
        create: impl FnOnce(&Meta) -> Result<Writer<File>>,
        begun: impl FnOnce(),
    ) -> Result<(Written, Result<(), CaptureError>)> {
        let Self { args, name, mut target, memory, table, stop } = self;
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
        let meta = Meta { target: Some(name), ..meta(&detail, traps) };
        let first = target.first(detail.tier())?;
        let writer = create(&meta)?;
        let care = Care { tier: detail.tier(), budget: detail.budget() };
        let how = How {
            care,
            most: target.most(care.tier),
            all: target.all(),
            many: matches!(target, Target::Chosen(_)),
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
                begun();
                let until = args.duration.map(|wanted| Instant::now() + wanted);
                let watch = Watch { target, until, looked: Instant::now(), over: None, stop };
                recorder.serve(watch, signals, None, logger).await
            }
            Err(error) => Err(error),
        };
        let over = Over { reason: reason.as_ref().unwrap_or(&"failed"), command: None };
        let over = if recorder.failed() { Over { reason: "write_error", ..over } } else { over };
        let finished = recorder.finish(&over);
        reason?;
        Ok(finished)
    }
}

fn until(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "; Ctrl-C ends it".to_owned(), |wanted| format!(" for {}", humantime::format_duration(wanted)))
}

/// What is attached to.
enum Target {
    Process(ProcessKey),
    Executable(PathBuf),
    Cgroup(Cgroup),
    /// One by one.
    #[cfg_attr(not(feature = "agent"), expect(dead_code, reason = "only the agent chooses"))]
    Chosen(Chosen),
}

/// Processes that are chosen one by one.
pub struct Chosen {
    pub who: Box<dyn Choose>,
    /// The most that may ever be wanted of any.
    pub most: Tier,
    /// What all may pay together, as a number of CPUs; `None`: no matter.
    pub all: Option<f64>,
    pub orders: Receiver<Order>,
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
            Self::Cgroup(_) | Self::Chosen(_) => return Ok(None),
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
            Self::Process(_) | Self::Executable(_) | Self::Chosen(_) => ADOPT_NOBODY,
            Self::Cgroup(_) => ADOPT_IN_CGROUP,
        }
    }

    /// Who is followed that runs the file of the target itself.
    fn adopt_own(&self) -> u8 {
        if matches!(self, Self::Executable(_)) { ADOPT_ANYBODY } else { self.adopt_others() }
    }

    /// Sets the first probes and joins who is there now. The one process must be joined; of several, one that cannot be is noted.
    fn join(&mut self, first: Option<(File, Analysed)>, follower: &mut Follower) -> Result<()> {
        if let Some((file, analysed)) = first {
            follower.probe(&file, analysed, self.adopt_own(), follower.care()).map_err(Failure::environment)?;
        }
        if let Self::Process(key) = self {
            follower.join(key.tgid, ADOPT_NOBODY).map_err(Failure::environment)?;
        }
        self.look_again(follower);
        Ok(())
    }

    /// The most that may ever be wanted of any program.
    fn most(&self, tier: Tier) -> Tier {
        if let Self::Chosen(chosen) = self { tier.max(chosen.most) } else { tier }
    }

    /// What all programs may pay together, as a number of CPUs.
    fn all(&self) -> Option<f64> {
        if let Self::Chosen(chosen) = self { chosen.all } else { None }
    }

    /// Joins those of its kind that are not followed yet.
    fn look_again(&mut self, follower: &mut Follower) {
        let alike = |tgid| (tgid, None);
        let members: Vec<(Tgid, Option<Care>)> = match self {
            Self::Process(_) => return,
            Self::Executable(path) => {
                Executable::at(path).and_then(|file| file.processes()).unwrap_or_default().into_iter().map(alike).collect()
            }
            Self::Cgroup(cgroup) => cgroup.processes().into_iter().map(alike).collect(),
            Self::Chosen(chosen) => chosen.who.newcomers().into_iter().map(|(tgid, care)| (tgid, Some(care))).collect(),
        };
        for (tgid, care) in members.into_iter().filter(|(tgid, _)| tgid.0 != std::process::id()) {
            follower.join_if_new(tgid, self.adopt_own(), care);
        }
    }

    /// Does what was ordered meanwhile.
    fn obey(&self, follower: &mut Follower) {
        if let Self::Chosen(chosen) = self {
            chosen.orders.try_iter().for_each(|order| follower.meanwhile(order.binary, order.care));
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
    stop: Stop,
}

impl Course for Watch {
    type End = &'static str;

    fn take_signals(&mut self, signals: &mut Signals) -> Result<()> {
        while let Some(info) = signals.read()? {
            match Signal::try_from(info.ssi_signo as i32).ok() {
                Some(Signal::SIGHUP) if matches!(self.target, Target::Chosen(_)) => self.over = self.over.or(Some(HUNG_UP)),
                Some(Signal::SIGINT | Signal::SIGTERM | Signal::SIGHUP | Signal::SIGQUIT) => {
                    self.over = Some(INTERRUPTED);
                    self.stop.ask();
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn rests(&self) -> Duration {
        if matches!(self.target, Target::Chosen(_)) { REST } else { Duration::ZERO }
    }

    fn looks_every(&self) -> Duration {
        // Of many nobody waits for one.
        if matches!(self.target, Target::Chosen(_)) { LOOK_EVERY } else { Duration::ZERO }
    }

    fn look_around(&mut self, follower: &mut Follower) {
        follower.look_at_cpu(false);
        self.target.obey(follower);
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
        let stopped = self.stop.asked().then_some(ASKED);
        Ok(self.over.or(stopped).or(time_over.then_some(TIME_OVER)))
    }
}
