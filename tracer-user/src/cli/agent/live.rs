//! The agent at work: an attach that records into a pipe, what comes out of it added up, and whoever asks answered.

use std::{
    fs::File,
    net::TcpListener,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};

use super::super::{
    Failure,
    args::{
        AgentArgs, AttachArgs, BesideArgs, DetailArgs, Every, Global, Knobs, PprofArgs, Share, TargetArg, ThreadsArg, TierArg,
        UsdtTableArg,
    },
    attach::{ASKED, Chosen, Following, HUNG_UP, INTERRUPTED, Stop, TIME_OVER},
    begin::may_trace,
    piped::{self, Live},
};
#[cfg(feature = "segments")]
use crate::agent::segments::Segments;
use crate::{
    agent::{
        census::Census,
        config::Config,
        discovery::Discovery,
        doors::{self, Hall, Question, Wished},
        exports::{self, Exports},
        kubernetes::Awareness,
        ledger::{Fresh, Ledger, Limits},
        metrics::{self, Own},
        record::Windows,
    },
    clock::{KtimeNs, ktime_now},
    correlate::{
        Both,
        feed::{Step, Steps, feed},
    },
    id::Tgid,
    kernel::{features, heap, privileges, signals::Inherited},
    recording::{Block, contract::Tier},
    target::{Order, memory::Meter, procfs},
    top::model::Model,
};

/// How long questions may wait, and steps.
const BEAT: Duration = Duration::from_millis(50);
/// How often what was heard is added up, asked or not: names are known best soon.
const TAKE_EVERY: Duration = Duration::from_secs(10);
/// How long what is on its way has when the agent ends.
#[cfg(feature = "segments")]
const LAST_WORDS: Duration = Duration::from_secs(10);
/// All rings together: within a budget little is told, and what they hold is memory of ours.
const RING_BYTES: u32 = 8 << 20;
/// A recording in which more processes have ended, or more files are followed that nobody runs any more, is full: these are kept.
const MAX_ENDED: usize = 4096;
const MAX_FILES: usize = 32;
/// It lasts so long all the same.
const SHORTEST: Duration = Duration::from_secs(60);

/// Follows until it is ended.
pub fn serve(args: &AgentArgs, config: Config, global: Global) -> Result<(), Failure> {
    may_trace().map_err(Failure::environment)?;
    let mut agent = Agent::begin(config);
    let listener = TcpListener::bind(agent.config.listen)
        .with_context(|| format!("nobody can listen on {}", agent.config.listen))
        .map_err(Failure::environment)?;
    // Before there are threads: rights are each thread's own, and signals come to who records.
    heap::give_back_what_is_large();
    let given_up = privileges::give_up();
    Inherited::set_aside().map_err(Failure::environment)?;
    agent.send()?;
    let hall = doors::open(listener, agent.config.token.as_deref(), agent.config.tls.as_ref()).map_err(Failure::environment)?;
    agent.exports = Exports::start(&agent.config, &agent.ledger.places).map_err(Failure::environment)?;
    privileges::missing().into_iter().for_each(|missing| tracing::warn!("{missing}"));
    match given_up.map_err(|error| anyhow::Error::from(error).context("rights that are not needed could not be given up")) {
        Err(error) if !agent.config.listen.ip().is_loopback() => return Err(Failure::environment(error)),
        Err(error) => tracing::warn!("{error:#}"),
        Ok(true) => tracing::warn!(
            "CAP_SYS_ADMIN is kept: without it this kernel sets no probes, unless kernel.perf_event_paranoid is set to 2"
        ),
        Ok(false) => {}
    }
    agent.kubernetes.want(agent.config.kubernetes.clone());
    if !global.quiet {
        let scheme = if agent.config.tls.is_some() { "https" } else { "http" };
        eprintln!("lifetrace: metrics at {scheme}://{}/metrics; following {}", hall.address, agent.config.policy);
    }
    loop {
        match agent.follow(&hall)? {
            Over::Ended => {
                agent.end();
                return Ok(());
            }
            Over::Renewed => {}
            Over::HungUp => agent.reload(args, &hall),
        }
    }
}

/// Why a recording was over.
enum Over {
    Ended,
    Renewed,
    /// SIGHUP.
    HungUp,
}

struct Agent {
    config: Config,
    ledger: Ledger,
    census: Census,
    windows: Windows,
    exports: Exports,
    reloads: [u64; 2],
    /// Who is in which pod.
    kubernetes: Awareness,
    #[cfg(feature = "segments")]
    segments: Option<Segments>,
}

/// Who listens to a recording.
type Heard = Both<Fresh, exports::Heard>;

impl Agent {
    fn begin(config: Config) -> Self {
        let kubernetes = Awareness::none();
        let mut ledger = Ledger::new(limits(&config));
        ledger.places = kubernetes.places.clone();
        let windows = Windows::new(config.record.clone(), config.node.clone());
        Self {
            ledger,
            census: Census::default(),
            windows,
            config,
            reloads: [0; 2],
            kubernetes,
            exports: Exports::default(),
            #[cfg(feature = "segments")]
            segments: None,
        }
    }

    /// Begins to send what is to be sent; it needs few rights, and starts threads.
    fn send(&mut self) -> Result<(), Failure> {
        #[cfg(feature = "segments")]
        {
            self.segments = Segments::open(&self.config).map_err(Failure::environment)?;
        }
        Ok(())
    }

    /// Gives what is on its way a moment to arrive.
    fn end(self) {
        #[cfg(feature = "segments")]
        if let Some(segments) = self.segments {
            segments.end(LAST_WORDS);
        }
    }

    /// What the next recording passes through on its way here.
    fn passing(&mut self) -> Box<dyn FnOnce(File) -> piped::Passed> {
        #[cfg(feature = "segments")]
        if let Some(segments) = &mut self.segments {
            return Box::new(segments.copying());
        }
        Box::new(|pipe| Box::new(pipe))
    }

    /// Whether there is no more room for this recording.
    fn has_no_room(&self) -> bool {
        #[cfg(feature = "segments")]
        if let Some(segments) = &self.segments {
            return segments.is_full();
        }
        false
    }

    /// Takes the file as it is now, if it makes sense.
    fn reload(&mut self, args: &AgentArgs, hall: &Hall) {
        let read = Config::read(&args.config).map_err(anyhow::Error::from).map(|config| {
            if config.node != self.config.node {
                tracing::warn!("node is {} as before: another one takes a restart", self.config.node);
            }
            Config { node: self.config.node.clone(), ..config }
        });
        match read.and_then(|config| self.exports.reload(&config, &self.ledger.places).map(|()| config)) {
            Ok(config) => {
                let renewed = hall.renew(config.tls.as_ref());
                if !renewed || config.listen != self.config.listen || config.token != self.config.token {
                    tracing::warn!("listen, token_file and whether there is [tls] are as they were: they take a restart");
                }
                #[cfg(feature = "segments")]
                if config.segments != self.config.segments {
                    tracing::warn!("segments are as they were, but for how long each lasts: they take a restart");
                }
                self.ledger.limit(limits(&config));
                self.windows.reload(config.record.clone(), config.node.clone());
                self.kubernetes.want(config.kubernetes.clone());
                self.ledger.places.residents.meet_anew(Instant::now());
                self.config = config;
                self.reloads[0] += 1;
                tracing::info!("{} was read again: following {}", args.config.display(), self.config.policy);
            }
            Err(error) => {
                self.reloads[1] += 1;
                tracing::warn!("the file is not taken, what was read before stays: {error:#}");
            }
        }
    }

    /// Follows for as long as one recording lasts.
    fn follow(&mut self, hall: &Hall) -> Result<Over, Failure> {
        let attach = as_attach(&self.config);
        let wishes = self.config.kubernetes.as_ref().is_some_and(|(settings, _)| settings.annotations);
        let (orders, taken) = channel();
        let chosen = Chosen {
            who: Box::new(Discovery::new(self.config.policy.clone(), self.ledger.places.clone(), wishes)),
            most: self.config.most(),
            all: self.config.node_budget.map(|share| share * f64::from(features::online_cpus())),
            orders: taken,
        };
        let following = Following::prepare_chosen(&attach, "agent".to_owned(), chosen).map_err(piped::coded)?;
        self.ledger.begin();
        let joined_at = AtomicU64::new(u64::MAX);
        let joined = || joined_at.store(ktime_now().0, Ordering::Relaxed);
        let passing = self.passing();
        piped::follow(following, passing, joined, |recording, stop| self.take(recording, hall, stop, &joined_at, &orders))
    }

    /// Adds up what is recorded, and answers whoever asks, until the recording is over. `joined_at`: when all who were there had been
    /// joined; before that is known, what was so in the last recording is told.
    fn take(
        &mut self,
        recording: Live,
        hall: &Hall,
        stop: &Stop,
        joined_at: &AtomicU64,
        orders: &Sender<Order>,
    ) -> Result<Over, Failure> {
        let mut model = Model::begin(recording.meta().clone());
        let flight = self.windows.flight(recording.meta());
        let recording = match &flight {
            Some(flight) => recording.tapped(flight.tap()),
            None => recording,
        };
        let (mut heard, mut waiting) = (Both(Fresh::default(), self.exports.listen()), Vec::new());
        let began = Instant::now();
        let mut taken: Option<Instant> = None;
        thread::scope(|scope| {
            let mut steps = feed(scope, recording, None).map_err(Failure::environment)?;
            while step(&mut model, &mut heard, &mut steps, &mut self.windows) {
                hall.pulse.beat();
                waiting.extend(hall.questions.try_iter());
                waiting.retain(Question::is_wanted);
                let knows = taken.is_some() || model.knows(KtimeNs(joined_at.load(Ordering::Relaxed)));
                let is_due = taken.is_none_or(|taken| taken.elapsed() >= TAKE_EVERY) || self.exports.is_due();
                if knows && (is_due || !waiting.is_empty()) {
                    self.ledger.take(&mut heard.0, &mut model, false);
                    self.ledger.settle(|tgid| procfs::stat(tgid).map_or(true, |stat| stat.zombie));
                    self.ledger.count_kin(&mut self.census);
                    taken = Some(Instant::now());
                    if let Some(flight) = &flight {
                        self.windows.look(flight, &self.ledger, &model, orders);
                    }
                    if self.exports.is_due() {
                        let own = self.own();
                        self.exports.gather(&mut heard.1, &self.ledger, &mut model, &own);
                    }
                    hall.ready.store(true, Ordering::Relaxed);
                    if began.elapsed() >= SHORTEST && (is_full(&model) || self.has_no_room()) {
                        stop.ask();
                    }
                }
                self.windows.tick(flight.as_ref(), orders);
                // Before, nobody runs anything as far as is known.
                if taken.is_some() {
                    for wish in hall.wishes.try_iter().filter(Wished::is_wanted) {
                        let path = self.windows.wish(wish.what.clone(), flight.as_ref(), &model, orders);
                        wish.answer(path);
                    }
                }
                if hall.ready.load(Ordering::Relaxed) && !waiting.is_empty() {
                    metrics::answer(waiting.drain(..), &self.ledger, &self.own());
                }
            }
            if let Some(flight) = &flight {
                self.windows.end(flight, orders);
            }
            // One that is over soon may be known as a whole before anybody looks.
            if taken.is_some() || model.end().is_some() && model.knows(KtimeNs(joined_at.load(Ordering::Relaxed))) {
                self.ledger.take(&mut heard.0, &mut model, true);
                let own = self.own();
                self.exports.gather(&mut heard.1, &self.ledger, &mut model, &own);
                self.exports.end(&model);
            }
            match model.end().map(|end| end.reason.as_str()) {
                Some(HUNG_UP) => Ok(Over::HungUp),
                Some(TIME_OVER | ASKED) => Ok(Over::Renewed),
                Some(INTERRUPTED) => Ok(Over::Ended),
                other => Err(Failure::environment(anyhow!("the recording broke off ({})", other.unwrap_or("without an end")))),
            }
        })
    }

    fn own(&self) -> Own {
        let stat = procfs::stat(Tgid(std::process::id())).ok();
        let memory = stat.and_then(|stat| Meter::new().read(stat.key));
        Own {
            budget: self.config.care.budget,
            reloads: self.reloads,
            windows: self.windows.counts().map(|(why, count)| (why.to_string(), count)).collect(),
            #[cfg(feature = "segments")]
            segments: self.segments.as_ref().map(Segments::counts),
            rss_bytes: memory.as_ref().and_then(|memory| memory.rss_bytes),
            cpu_ns: stat.map(|stat| stat.cpu_ns),
            descriptors: memory.and_then(|memory| Some(memory.descriptors?.values().sum())),
            pods: self.config.kubernetes.as_ref().map(|_| self.ledger.places.pods.status(Instant::now())),
            more: self.exports.rows(),
        }
    }
}

/// Whether so much is known of what is not any more that it is time to begin anew.
fn is_full(model: &Model) -> bool {
    let (ended, files) = model.past();
    ended > MAX_ENDED || files > MAX_FILES
}

/// Takes steps for a beat; false: there are no more.
fn step(model: &mut Model, heard: &mut Heard, steps: &mut Steps, windows: &mut Windows) -> bool {
    let end = Instant::now() + BEAT;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        match steps.within(left) {
            Ok(step) => {
                if let Step::Block(Block::Load(load)) = &step {
                    windows.bear(load);
                }
                if !model.step_with(step, heard) {
                    return false;
                }
            }
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}

fn limits(config: &Config) -> Limits {
    Limits { programs: config.programs, sites: config.sites }
}

fn as_attach(config: &Config) -> AttachArgs {
    AttachArgs {
        target: TargetArg { pid: None, exe: None, cgroup: None },
        output: piped::NAME.into(),
        duration: Some(config.renew),
        detail: DetailArgs {
            tier: Some(match config.care.tier {
                Tier::T0 | Tier::T1 => TierArg::T1,
                Tier::T2 => TierArg::T2,
                Tier::T3 => TierArg::T3,
            }),
            budget: config.care.budget.map(Share),
            guard_url: None,
            min_block: config.min_block,
            threads: Some(ThreadsArg::Off),
            cpu_hz: Some(0),
            snapshot_every: Every(config.snapshot_every),
        },
        knobs: Knobs { knob: vec![("ring-bytes".to_owned(), RING_BYTES)] },
        beside: BesideArgs { with_pid: Vec::new() },
        pprof: PprofArgs::default(),
        usdt: UsdtTableArg::default(),
    }
}
