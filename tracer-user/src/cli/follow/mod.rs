//! Which binaries are probed, and what is told to the recording about them.

use std::{
    fs::{self, File},
    os::fd::AsRawFd,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustc_hash::{FxHashMap, FxHashSet};
use tracer_common::config::{GoLayout, MAX_OFFSET};

use super::{
    asker::Asker,
    join::Dumper,
    marks::Marks,
    trial::{Trials, Verdict},
};
use crate::{
    capture::{Capture, Message},
    clock::{KtimeNs, ktime_now, slept_ns},
    golang::{self, GoBinary, HookSite, Plan},
    governor::Care,
    id::{Address, BinaryId, ProcessKey, SiteId, Tgid},
    kernel::{calibrate::Traps, cgroups::Names, gate::FileKey, ring::Ring, sampling::Ticks, session::Session, shared},
    recording::contract::{Binary, Counters, Note, Site, Threads, Tier},
    target::{load::Accounts, procfs},
    usdt::Table,
};

mod attachment;
mod budget;
mod checks;
mod guard;
mod kin;
mod processes;
mod summing;
mod usdt;

use attachment::Attachment;
use budget::Prices;
use checks::Checks;
use guard::Guard;
use kin::Family;
use processes::Used;
use summing::Summing;
use usdt::Usdt;

/// What two looks at the clocks differ by is no sleep if it is less.
const SHORTEST_SLEEP_NS: u64 = 10_000_000;

/// A binary that was read and can be probed.
pub struct Analysed {
    key: FileKey,
    code: GoBinary,
    tier: Tier,
    plan: Plan,
    layout: GoLayout,
    path: PathBuf,
}

impl Analysed {
    /// Whether it is a part of the Go toolchain itself.
    pub fn is_toolchain(&self) -> bool {
        self.code.is_toolchain()
    }
}

/// Reads a Go binary and chooses the best tier, up to `asked`, whose hooks are all there.
pub fn analyse(file: &File, asked: Tier) -> Result<Analysed> {
    let key = FileKey::of(file)?;
    let code = GoBinary::open_to_keep(file)?;
    let layout = code.layout()?;
    let mut tier = asked;
    let mut plan = code.plan(tier);
    for lower in [Tier::T2, Tier::T1].into_iter().filter(|lower| *lower < asked) {
        if plan.complete() {
            break;
        }
        tracing::warn!("{}: {lower:?} instead of {tier:?}: {}", path_of(file).display(), missing(&plan));
        tier = lower;
        plan = code.plan(tier);
    }
    if !plan.complete() {
        bail!("{} lacks hooks that even T1 needs: {}", code.version(), missing(&plan));
    }
    Ok(Analysed { key, code, tier, plan, layout, path: path_of(file) })
}

/// A binary that carries probes.
#[derive(Clone)]
struct Probed {
    id: BinaryId,
    code: Arc<GoBinary>,
    /// From here on nothing of it is missed; `None`: it is followed at a budget, with gaps.
    since: Option<KtimeNs>,
    /// What the probes depend on: the same file with the same plan keeps them.
    sites: Vec<(u64, u64)>,
    layout: GoLayout,
}

/// How binaries are probed.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// What may be followed of a program of which nobody wants anything else, and what that may cost it.
    pub care: Care,
    /// The most that may ever be wanted of any: what its probes are looked for.
    pub most: Tier,
    /// What all programs may pay together, as a number of CPUs, of those that have a budget; `None`: no matter.
    pub all: Option<f64>,
    /// With programs that do nothing: the floor of a benchmark.
    pub empty_probes: bool,
    /// With offsets that fit no runtime: what the BPF side says of it is tested.
    pub bad_layout: bool,
    /// Processes of the Go toolchain itself run without probes.
    pub spare_toolchain: bool,
    /// Which processes are followed from their first hit on in files that are met on the way: `ADOPT_…` of
    /// [`tracer_common::config`].
    pub adopt: u8,
    /// There may be very many of them, and whoever is new is told of.
    pub many: bool,
    /// Through each mount of one file, as if they were different files.
    pub each_mount: bool,
    /// Waits and lives that are shorter are summed and not told; `None`: each is told.
    pub min_block: Option<Duration>,
    /// How often the goroutines of each followed process are read out of its memory, besides at the end; `None`: never.
    pub snapshot_every: Option<Duration>,
}

/// Owns the session and the recording while a command is followed.
pub struct Follower {
    session: Session,
    capture: Capture,
    how: How,
    /// Files that are probed; `None`: that could not be.
    known: FxHashMap<FileKey, Option<Probed>>,
    next_binary: u16,
    last_counters: Option<Counters>,
    dumper: Dumper,
    /// `None`: nobody is asked by HTTP.
    asker: Option<Asker>,
    trials: Trials,
    prices: Prices,
    /// `None`: the target is not asked how it fares.
    guard: Option<Guard>,
    /// Processes whose CPU time is counted, and those that were joined.
    metered: FxHashMap<ProcessKey, Used>,
    joined: FxHashSet<ProcessKey>,
    /// Processes, and what they ran, that [`Self::join_if_new`] has looked at.
    tried: FxHashSet<(ProcessKey, Option<FileKey>)>,
    checks: Checks,
    usdt: Usdt,
    family: Family,
    names: Names,
    accounts: Accounts,
    /// When cgroups, and CPU times, are to be looked at next.
    load_due: KtimeNs,
    cpu_due: KtimeNs,
    /// `None`: everything is told.
    summing: Option<Summing>,
    /// How long the machine had slept when that was last looked at.
    slept_ns: u64,
}

impl Follower {
    /// `table` says which USDT probes are followed, `traps` what a probe costs.
    pub fn new(session: Session, capture: Capture, how: How, table: Table, traps: Option<Traps>) -> std::io::Result<Self> {
        Marks::announce(&capture);
        Ok(Self {
            prices: Prices::new(traps),
            dumper: Dumper::start(&capture)?,
            asker: None,
            guard: None,
            session,
            capture,
            checks: Checks::new(how.snapshot_every),
            how,
            known: FxHashMap::default(),
            next_binary: 1,
            last_counters: None,
            metered: FxHashMap::default(),
            joined: FxHashSet::default(),
            tried: FxHashSet::default(),
            trials: Trials::default(),
            usdt: Usdt::new(table),
            family: Family::default(),
            names: Names::new(),
            accounts: Accounts::new(),
            load_due: KtimeNs(0),
            cpu_due: KtimeNs(0),
            summing: how.min_block.map(Summing::new),
            slept_ns: slept_ns(),
        })
    }

    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    pub fn capture(&self) -> &Capture {
        &self.capture
    }

    /// Says it in the log, and in the recording.
    fn warn(&self, text: String) {
        tracing::warn!("{text}");
        self.capture.send(Message::Note(Note::Warning { at: ktime_now(), text }));
    }

    /// Follows threads on and off their CPUs. That it cannot be had is noted, and nothing else lost.
    pub fn follow_threads(&mut self, threads: Threads) {
        if let Err(error) = self.session.follow_threads(threads) {
            let text = format!("threads are not followed in detail: {:#}", anyhow::Error::from(error));
            self.warn(text);
        }
    }

    /// Samples what the CPUs do, so often a second; 0 for not at all. That it cannot be had is noted, and nothing else lost.
    pub fn sample_cpus(&mut self, hz: u32) {
        if hz == 0 {
            return;
        }
        let at = ktime_now();
        match self.session.sample_cpus(hz) {
            Ok(Ticks { hz, cpus }) => self.capture.send(Message::Note(Note::Sampling { at, hz, cpus })),
            Err(error) => self.warn(format!("no CPU samples: {:#}", anyhow::Error::from(error))),
        }
    }

    /// Tells that the machine slept, if it did, and samples on where CPUs have come back without their clock.
    pub fn look_at_machine(&mut self) {
        let slept_ns = slept_ns();
        let more_ns = slept_ns.saturating_sub(self.slept_ns);
        let woken = more_ns >= SHORTEST_SLEEP_NS;
        let at = ktime_now();
        if woken {
            self.slept_ns = slept_ns;
            let slept = humantime::format_duration(Duration::from_millis(more_ns / 1_000_000));
            self.warn(format!("the machine slept for {slept}: no time passed here meanwhile"));
        }
        match self.session.sample_again(woken) {
            Ok(None) => {}
            Ok(Some(Ticks { hz, cpus })) => self.capture.send(Message::Note(Note::Sampling { at, hz, cpus })),
            Err(error) => {
                self.warn(format!("no CPU samples from here on: {:#}", anyhow::Error::from(error)));
                self.capture.send(Message::Note(Note::Sampling { at, hz: 0, cpus: 0 }));
            }
        }
    }

    /// Takes the probes and the sampling clock away.
    pub fn detach(&mut self) {
        if let Some(cpus) = self.session.stop_sampling() {
            self.capture.send(Message::Note(Note::Sampling { at: ktime_now(), hz: 0, cpus }));
        }
        self.session.detach_probes();
    }

    /// Gives up session and capture, probes and all, once every dump is on its way.
    pub fn into_parts(self) -> (Session, Capture) {
        if let Some(asker) = self.asker {
            asker.finish();
        }
        self.dumper.finish();
        (self.session, self.capture)
    }

    /// What may be followed of a program of which nobody wants anything else.
    pub fn care(&self) -> Care {
        self.how.care
    }

    /// Who is followed from its first hit on, in files that are met on the way.
    pub fn adopt(&self) -> u8 {
        self.how.adopt
    }

    /// Whether it was tried to probe a file.
    pub fn knows(&self, key: FileKey) -> bool {
        self.known.contains_key(&key)
    }

    /// Whether a file that was executed then had no probes yet, and may have some now: another process that runs it, too, may have been met
    /// while they were being set.
    pub fn may_probe_after(&self, key: FileKey, executed: KtimeNs) -> bool {
        match self.known.get(&key) {
            Some(probed) => probed.as_ref().and_then(|probed| probed.since).is_some_and(|since| since > executed),
            None => true,
        }
    }

    /// Whether a file carries probes.
    pub fn is_probed(&self, key: FileKey) -> bool {
        matches!(self.known.get(&key), Some(Some(_)))
    }

    /// Probes the Go program that a followed process executes; a failure is noted, never the target's problem.
    pub fn probe_for(&mut self, file: &File, tgid: Tgid) {
        if FileKey::of(file).is_ok_and(|key| self.knows(key)) || !golang::looks_like_go(file).unwrap_or(false) {
            return;
        }
        let probed =
            analyse(file, self.how.most).and_then(|analysed| match self.how.spare_toolchain && analysed.is_toolchain() {
                true => {
                    self.known.insert(analysed.key, None);
                    Ok(())
                }
                false => self.probe(file, analysed, self.how.adopt, self.how.care),
            });
        if let Err(error) = probed {
            let exe = path_of(file).display().to_string();
            crate::cli::seldom::warn(&format!("{exe} (process {tgid}) runs unprobed: {error:#}"));
            let reason = format!("{error:#}");
            self.capture.send(Message::Note(Note::Unprobed { at: ktime_now(), tgid, exe, reason }));
        }
    }

    /// A process was released before its file was probed, or executed it behind the gate's back.
    pub fn note_late(&self, file: &File, tgid: Tgid) {
        let text = format!(
            "{} (process {tgid}) was probed only after it had begun: its first goroutines may be missing",
            path_of(file).display()
        );
        self.warn(text);
    }

    /// Sets the probes of a binary. One that was rewritten in place loses its old probes first, unless they are the same.
    pub fn probe(&mut self, file: &File, mut analysed: Analysed, adopt: u8, care: Care) -> Result<()> {
        let key = analysed.key;
        let sites: Vec<_> = analysed.plan.sites.iter().map(|site| (site.file_offset, site.address)).collect();
        for old in self.older(key) {
            let Some(Some(probed)) = self.known.remove(&old) else {
                continue;
            };
            if probed.sites == sites && probed.layout == analysed.layout {
                // Only touched: what runs under these probes goes on under them.
                probed.code.stays(&analysed.code);
                self.known.insert(key, Some(probed));
                return Ok(());
            }
            let shared = self.known.values().flatten().any(|other| other.id == probed.id);
            if !shared {
                self.prices.close(probed.id);
                self.session.detach_binary(probed.id);
                probed.code.let_go();
            }
        }
        if let Some(twin) = self.twin(file, key, &sites, &analysed.layout) {
            self.known.insert(key, Some(twin));
            return Ok(());
        }
        self.known.insert(key, None);
        let layout = analysed.layout;
        if self.how.bad_layout {
            analysed.layout.m_curg = MAX_OFFSET + 1;
        }
        let (id, code) = self.attach(file, analysed, adopt, care)?;
        let since = care.budget.is_none().then(ktime_now);
        self.known.insert(key, Some(Probed { id, code, since, sites, layout }));
        Ok(())
    }

    /// The same file below another overlay mount, if that is probed: its probes fire for processes of this one too.
    fn twin(&self, file: &File, key: FileKey, sites: &[(u64, u64)], layout: &GoLayout) -> Option<Probed> {
        let offset = sites.first().filter(|_| !self.how.each_mount)?.0;
        let like = |other: &FileKey| FileKey { device: key.device, ..*other } == key;
        let mut probed = self.known.iter().filter(|(other, _)| like(other)).filter_map(|(_, probed)| probed.as_ref());
        let twin = probed.find(|probed| probed.sites == sites && probed.layout == *layout)?;
        let carries = shared::carries_probe(file, offset).inspect_err(|error| tracing::debug!(%error, "no look at a twin"));
        carries.unwrap_or(false).then(|| twin.clone())
    }

    /// What is known of the same inode with other contents.
    fn older(&self, key: FileKey) -> Vec<FileKey> {
        self.known.keys().filter(|old| old.device == key.device && old.inode == key.inode && **old != key).copied().collect()
    }

    fn attach(&mut self, file: &File, analysed: Analysed, adopt: u8, care: Care) -> Result<(BinaryId, Arc<GoBinary>)> {
        let Analysed { code, tier, plan, layout, path, .. } = analysed;
        let min_block_ns = self.how.min_block.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        let layout = GoLayout { min_block_ns, ..layout };
        let id = BinaryId(self.next_binary);
        let without_gc = plan.without_gc().map(str::to_owned);
        let sites: Vec<(SiteId, HookSite)> =
            plan.sites.into_iter().zip(1u16..).map(|(site, number)| (SiteId(number), site)).collect();
        let code = Arc::new(code);
        // Told first: the recording must know the binary before its first record.
        self.trials.open(id, &code);
        self.capture.send(Message::Binary(Box::new((describe(id, &path, &code, tier, &sites), Arc::clone(&code)))));
        self.next_binary = self.next_binary.checked_add(1).context("too many binaries")?;
        if let Some(reason) = without_gc {
            let text = format!("{}: no track of the garbage collector: {reason}", path.display());
            self.warn(text);
        }
        let name = path.file_name().map_or_else(|| "?".to_owned(), |name| name.to_string_lossy().into_owned());
        let attachment =
            Attachment { id, name, file: file.try_clone()?, layout, sites, most: tier, empty: self.how.empty_probes, adopt };
        self.set_first(attachment, care)?;
        Ok((id, code))
    }

    /// A process hit a probe for the first time: if it is to bear out offsets, it is looked at from now on.
    pub fn first_hit(&mut self, tgid: Tgid, binary: BinaryId) {
        self.scan_soon();
        self.trials.first_hit(tgid, binary);
    }

    /// Looks at the processes that are to bear out offsets, and takes the probes away from binaries whose are wrong.
    pub fn judge_trials(&mut self) {
        for verdict in self.trials.judge(ktime_now()) {
            let text = match verdict {
                Verdict::Borne { tgid, by } => {
                    tracing::info!("process {tgid} bears out the offsets of its Go runtime: {} goroutines", by.goroutines);
                    continue;
                }
                Verdict::Refused { binary, tgid, error } => {
                    self.disown(binary);
                    let error = format!("{:#}", anyhow::Error::from(error));
                    let exe = fs::read_link(format!("/proc/{tgid}/exe")).unwrap_or_default().display().to_string();
                    self.capture.send(Message::Note(Note::Unprobed { at: ktime_now(), tgid, exe, reason: error.clone() }));
                    format!(
                        "{error}; its probes were taken away, and what was recorded of its goroutines before is not to be trusted"
                    )
                }
                Verdict::Open { tgid } => format!(
                    "process {tgid} ended before it could bear out the offsets of its Go runtime: what was recorded of its goroutines may be wrong"
                ),
            };
            self.warn(text);
        }
    }

    /// Takes the probes of a binary away for good.
    fn disown(&mut self, binary: BinaryId) {
        // Said first: taking probes away takes a while.
        self.capture.send(Message::Note(Note::Coverage { at: ktime_now(), binary, tier: Tier::T0, why: None, share_ppm: None }));
        self.prices.close(binary);
        self.session.detach_binary(binary);
        for probed in self.known.values_mut() {
            if let Some(gone) = probed.take_if(|probed| probed.id == binary) {
                gone.code.let_go();
            }
        }
    }

    /// Puts away what nobody has asked for a while.
    pub fn tidy(&self) {
        let now = Instant::now();
        self.known.values().flatten().for_each(|probed| probed.code.tidy(now));
    }

    /// Writes the kernel side's counters if they changed.
    pub fn note_counters(&mut self, ring: &Ring) -> Result<()> {
        let counters = Counters { paid: self.prices.paid(), ..self.session.counters(ring)? };
        let same = self.last_counters.as_ref().is_some_and(|last| Counters { at: counters.at, ..last.clone() } == counters);
        if !same {
            self.capture.send(Message::Counters(Box::new(counters.clone())));
            self.last_counters = Some(counters);
        }
        Ok(())
    }
}

fn missing(plan: &Plan) -> String {
    let missing: Vec<String> =
        plan.missing.iter().map(|missing| format!("{}: {}", missing.hook.name(), missing.reason)).collect();
    missing.join("; ")
}

/// A binary as the recording has it.
pub fn describe(id: BinaryId, path: &std::path::Path, code: &GoBinary, tier: Tier, sites: &[(SiteId, HookSite)]) -> Binary {
    Binary {
        id,
        path: path.display().to_string(),
        go_version: code.version().to_string(),
        module: code.module().to_owned(),
        sites: sites
            .iter()
            .map(|(id, site)| Site {
                id: *id,
                function: site.function.clone(),
                address: Address(site.address),
                instruction: site.instruction.clone(),
            })
            .collect(),
        wait_reasons: code.wait_reasons().iter().map(|reason| (*reason).to_owned()).collect(),
        hchan_lock: code.hchan_lock(),
        semaphores: code.tells_semaphores(),
        offsets: code.offsets_source().ok().cloned(),
        scheduling: tier >= Tier::T3,
        stw_reasons: code.stw_reasons().iter().map(|reason| (*reason).to_owned()).collect(),
    }
}

/// The path under which the kernel knows an open file.
fn path_of(file: &File) -> PathBuf {
    let link = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    link.map_or_else(|_| PathBuf::from("?"), procfs::without_mark)
}
