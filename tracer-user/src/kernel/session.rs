//! One loaded set of BPF programs, its attachments and its maps.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    thread::JoinHandle,
};

use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray},
    programs::{
        UProbe,
        uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeScope},
    },
};
use aya_log::EbpfLogger;
use rustc_hash::FxHashMap;
use tracer_common::{
    config::{
        Adoption, ClassicLayout, Cookie, Followed, GoLayout, KernelLayout, MAX_BINARIES, THREADS_AUTO, THREADS_ON, pt_regs_offset,
    },
    counters as table,
    usdt::{MAX_SPECS, UsdtCookie, UsdtSpec},
};

use super::{
    KernelError, counters,
    facts::{self, Group, Offers, Told},
    left_out,
    links::{Link, Links, close},
    multi::{MultiPrograms, Point},
    program_info,
    ring::Ring,
    rings::{self, Cpus, Rings},
    sampling::{SamplingClock, Ticks},
    summing::Tables,
    synthetic::Producer,
    usdt::{self, Specs, UsdtTarget},
    watermark::Reading,
};
use crate::{
    clock::{KtimeNs, ktime_now},
    event::Transition,
    golang::{Hook, HookSite},
    id::{BinaryId, SiteId, Tgid, Tid},
    recording::contract::{Counters, Threads, Tier},
};

/// The committed object (`cargo xtask build-ebpf`).
pub(super) static OBJECT: &[u8] = include_bytes_aligned!("../../../tracer-ebpf/prebuilt/lifetrace.bpf.o");

const PROBES: [&str; 15] = [
    "go_newproc1",
    "go_gopark",
    "go_gopark_inlined",
    "go_park_m",
    "go_ready",
    "go_gdestroy",
    "go_execute",
    "go_entersyscall",
    "go_gosched",
    "go_stop_world",
    "go_start_world",
    "go_gc_cycle",
    "go_test_run",
    usdt::PROGRAM,
    "empty",
];
/// `BPF_NOEXIST` of `linux/bpf.h`: only if there is no such entry.
const BPF_NOEXIST: u64 = 1;

/// Sizes that may be changed before loading.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Bytes of all rings together; `None`: as many as this machine's CPUs want.
    pub ring_bytes: Option<u32>,
    /// Processes followed at once.
    pub processes: u32,
    /// Goroutines kept and sums counted, where short waits and lives are summed; 0: they are not.
    pub kept: u32,
    pub sums: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { ring_bytes: None, processes: 65_536, kept: 0, sums: 0 }
    }
}

/// A binary to be probed.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub id: BinaryId,
    /// Opened by the kernel when a probe is set: `/proc/self/fd/N` names exactly the file that was analysed.
    pub path: &'a Path,
    pub layout: GoLayout,
    /// Sites with their ids.
    pub sites: &'a [(SiteId, HookSite)],
    /// Probes that do nothing: the floor of a benchmark.
    pub empty: bool,
    /// Which processes are followed from their first hit on: `ADOPT_…` of [`tracer_common::config`].
    pub adopt: u8,
}

/// Loaded programs. Dropping it detaches everything; [`Session::detach`] does it side by side.
pub struct Session {
    ebpf: Ebpf,
    /// `None` on kernels before 6.6, where every probe has a link of its own.
    multi: Option<MultiPrograms>,
    links: FxHashMap<BinaryId, Links>,
    /// Probes that are being taken away.
    closing: Vec<(BinaryId, JoinHandle<()>)>,
    /// Under which number the table of what threads run is kept ([`GoLayout::scheduling`]): never 0.
    scheduling: u16,
    hits: PerCpuArray<MapData, u64>,
    /// `None`: CPUs are not sampled.
    clock: Option<SamplingClock>,
    counters: PerCpuArray<MapData, u64>,
    layouts: Array<MapData, Pod<GoLayout>>,
    kernel: Array<MapData, Pod<KernelLayout>>,
    followed: HashMap<MapData, u32, Pod<Followed>>,
    followed_fd: OwnedFd,
    adoption: Array<MapData, Pod<Adoption>>,
    usdt_specs: Array<MapData, Pod<UsdtSpec>>,
    specs: Specs,
    classic: Array<MapData, Pod<ClassicLayout>>,
    kernel_layout: KernelLayout,
    offers: Offers,
    told: Vec<Told>,
    summing: Tables,
    /// What the BPF side has been told of each binary's runtime, and from when on its lives are summed.
    known_layouts: FxHashMap<BinaryId, GoLayout>,
    summing_since: FxHashMap<BinaryId, KtimeNs>,
}

/// Hits of a binary's probes, whoever ran into them, by their tier: USDT, T1, T2, T3.
pub type Hits = [u64; 4];

/// What the kernel measured of the programs behind probes: how long they ran altogether, ns, and how often.
pub type RunTimes = FxHashMap<&'static str, (u64, u64)>;

/// Lets aya copy our `#[repr(C)]` structures into maps.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Pod<T: Copy + 'static>(T);

// SAFETY: only instantiated with the structures of tracer_common::config, which are plain integers without padding.
unsafe impl<T: Copy + 'static> aya::Pod for Pod<T> {}

impl Session {
    /// Loads every program, attaches the process tracepoints, and hands out the reader's end of the ring and the log of rare
    /// conditions.
    pub fn load(sizes: Sizes, offers: Offers) -> Result<(Self, Ring, EbpfLogger<&'static dyn log::Log>), KernelError> {
        let (kernel_layout, classic_layout) = offers.layouts()?;
        let cpus = Cpus::count()?;
        let mut ebpf = EbpfLoader::new()
            .btf(offers.btf())
            .map_max_entries(rings::RINGS, cpus.possible)
            .map_max_entries("FOLLOWED", sizes.processes)
            .map_max_entries("KEPT", sizes.kept.max(1))
            .map_max_entries("SUMS", sizes.sums.max(1))
            .load(OBJECT)?;
        // Before any map is taken out: the programs are bound to all of them.
        let multi = if offers.many { MultiPrograms::load(OBJECT, &ebpf, &PROBES)? } else { None };
        let logger = EbpfLogger::init(&mut ebpf).map_err(|_| KernelError::Missing("AYA_LOGS"))?;
        let rings = Rings::set_up(&mut ebpf, cpus, sizes.ring_bytes.unwrap_or(cpus.usual_bytes()))?;
        let followed = take(&mut ebpf, "FOLLOWED")?;
        let followed_fd = duplicate(&followed)?;
        let mut session = Self {
            counters: PerCpuArray::try_from(take(&mut ebpf, "COUNTERS")?).map_err(KernelError::map("COUNTERS"))?,
            layouts: Array::try_from(take(&mut ebpf, "LAYOUTS")?).map_err(KernelError::map("LAYOUTS"))?,
            kernel: Array::try_from(take(&mut ebpf, "KERNEL")?).map_err(KernelError::map("KERNEL"))?,
            followed: HashMap::try_from(followed).map_err(KernelError::map("FOLLOWED"))?,
            followed_fd,
            adoption: Array::try_from(take(&mut ebpf, "ADOPTION")?).map_err(KernelError::map("ADOPTION"))?,
            usdt_specs: Array::try_from(take(&mut ebpf, "USDT_SPECS")?).map_err(KernelError::map("USDT_SPECS"))?,
            specs: Specs::default(),
            classic: Array::try_from(take(&mut ebpf, "CLASSIC")?).map_err(KernelError::map("CLASSIC"))?,
            links: FxHashMap::default(),
            closing: Vec::new(),
            scheduling: 0,
            hits: PerCpuArray::try_from(take(&mut ebpf, "HITS")?).map_err(KernelError::map("HITS"))?,
            clock: None,
            kernel_layout,
            offers,
            told: Vec::new(),
            summing: Tables::of(&ebpf)?,
            known_layouts: FxHashMap::default(),
            summing_since: FxHashMap::default(),
            multi,
            ebpf,
        };
        session.set_spawner(None)?;
        session.classic.set(0, Pod(classic_layout), 0).map_err(KernelError::map("CLASSIC"))?;
        session.told = facts::attach(&mut session.ebpf, &session.offers, Group::Lives)?;
        if session.multi.is_none() {
            for name in PROBES {
                session.probe(name)?.load().map_err(KernelError::program(name, "loaded"))?;
            }
        }
        Ok((session, Ring::new(rings), logger))
    }

    /// How the facts of the kernel are told that are attached by now.
    pub fn told(&self) -> &[Told] {
        &self.told
    }

    /// Of a binary's goroutines, the short lives of those are summed that are born from then on. (`KtimeNs::MAX`: of none.)
    pub fn sum_lives_since(&mut self, id: BinaryId, since: KtimeNs) -> Result<(), KernelError> {
        self.summing_since.insert(id, since);
        self.known_layouts.get(&id).copied().map_or(Ok(()), |layout| self.set_layout(id, layout))
    }

    /// What is summed instead of told.
    pub fn summing(&self) -> &Tables {
        &self.summing
    }

    fn probe(&mut self, name: &'static str) -> Result<&mut UProbe, KernelError> {
        let program = self.ebpf.program_mut(name).ok_or(KernelError::Missing(name))?;
        program.try_into().map_err(KernelError::program(name, "used"))
    }

    /// The next process forked by this thread of ours is followed; `None` ends that.
    pub fn set_spawner(&mut self, tid: Option<Tid>) -> Result<(), KernelError> {
        let layout = KernelLayout { spawner_tid: tid.map_or(0, |tid| tid.0), ..self.kernel_layout };
        self.kernel.set(0, Pod(layout), 0).map_err(KernelError::map("KERNEL"))
    }

    /// Follows threads in detail, from now on. Until this is called nothing of ours is on the scheduler's path.
    pub fn follow_threads(&mut self, threads: Threads) -> Result<(), KernelError> {
        self.kernel_layout.threads = match threads {
            Threads::Off => return Ok(()),
            Threads::Auto => THREADS_AUTO,
            Threads::On => THREADS_ON,
        };
        self.set_spawner(None)?;
        let told = facts::attach(&mut self.ebpf, &self.offers, Group::Scheduling)?;
        self.told.extend(told);
        Ok(())
    }

    /// Follows a process that runs already: its hits count from here on.
    pub fn follow(&mut self, tgid: Tgid) -> Result<(), KernelError> {
        match self.followed.insert(tgid.0, Pod(Followed::default()), BPF_NOEXIST) {
            // The BPF side was first.
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            other => other.map_err(KernelError::map("FOLLOWED")),
        }
    }

    /// Follows a process no more.
    pub fn forget(&mut self, tgid: Tgid) {
        // ENOENT: it has ended.
        let _ = self.followed.remove(&tgid.0);
    }

    /// Whether a process is followed, by us or because the BPF side adopted it.
    pub fn follows(&self, tgid: Tgid) -> bool {
        self.followed.get(&tgid.0, 0).is_ok()
    }

    /// Everybody who is followed now, and whether a probe of the program that it runs was hit. One may come twice.
    pub fn followed(&self) -> impl Iterator<Item = (Tgid, bool)> + '_ {
        self.followed.iter().filter_map(Result::ok).map(|(tgid, Pod(followed))| (Tgid(tgid), followed.binary != 0))
    }

    /// From here on, every process of this cgroup is followed that executes a program or hits a probe.
    pub fn adopt_cgroup(&mut self, cgroup: u64, level: u32) -> Result<(), KernelError> {
        let adoption = Adoption { cgroup, level, _pad: 0 };
        self.adoption.set(0, Pod(adoption), 0).map_err(KernelError::map("ADOPTION"))
    }

    /// Brings a binary to a tier: sets those of its probes up to it that are not set, and begins to take those above it away. On failure
    /// nothing has changed.
    pub fn probe_at(&mut self, target: &Target<'_>, tier: Tier) -> Result<(), KernelError> {
        let index = u32::from(target.id.0);
        if index == 0 || index >= MAX_BINARIES {
            return Err(KernelError::TooManyBinaries(MAX_BINARIES - 1));
        }
        let had = self.links.entry(target.id).or_default().tier();
        if tier > had {
            self.await_closing(target.id);
        }
        if tier >= Tier::T3 && had < Tier::T3 {
            // What was kept before a gap is not true any more.
            self.scheduling = self.scheduling.checked_add(1).unwrap_or(1);
        }
        let scheduling = if tier >= Tier::T3 { self.scheduling.max(1).into() } else { 0 };
        self.set_layout(target.id, GoLayout { scheduling, ..target.layout })?;
        if tier <= had {
            let above = self.links.entry(target.id).or_default().take_above(tier);
            self.closing.retain(|(_, closing)| !closing.is_finished());
            self.closing.extend(close(above).into_iter().map(|closing| (target.id, closing)));
            return Ok(());
        }
        let mut by_program: BTreeMap<(Tier, &'static str), Vec<Point>> = BTreeMap::new();
        for (site_id, site) in target.sites.iter().filter(|(_, site)| site.hook.tier() > had && site.hook.tier() <= tier) {
            let program = if target.empty { "empty" } else { program_of(site) };
            let cookie = cookie(target, *site_id, site).to_u64();
            let point = Point { file_offset: site.file_offset, cookie, ref_counter: 0 };
            by_program.entry((site.hook.tier(), program)).or_default().push(point);
        }
        let mut set = Vec::new();
        for ((of, program), points) in by_program {
            match self.attach_points(program, target.path, &points, UProbeScope::AllProcesses) {
                Ok(links) => set.push((of, links)),
                Err(error) => {
                    // It was not T3 before, or there would be nothing to set.
                    self.set_layout(target.id, GoLayout { scheduling: 0, ..target.layout })?;
                    return Err(error);
                }
            }
        }
        let links = self.links.entry(target.id).or_default();
        set.into_iter().for_each(|(of, more)| links.of(of).extend(more));
        Ok(())
    }

    fn set_layout(&mut self, id: BinaryId, layout: GoLayout) -> Result<(), KernelError> {
        self.known_layouts.insert(id, layout);
        let summing_since = self.summing_since.get(&id).map_or(0, |since| since.0);
        let (index, layout) = (u32::from(id.0), GoLayout { summing_since, ..layout });
        self.layouts.set(index, Pod(layout), 0).map_err(KernelError::map("LAYOUTS"))
    }

    /// Sets the probes of one program in one file.
    pub(super) fn attach_points(
        &mut self,
        program: &'static str,
        path: &Path,
        points: &[Point],
        scope: UProbeScope,
    ) -> Result<Vec<Link>, KernelError> {
        if let Some(multi) = &self.multi {
            let tgid = matches!(scope, UProbeScope::CallingProcess).then(std::process::id);
            let link = multi.attach(program, path, points, tgid);
            let link = link.map_err(|source| KernelError::AttachAll { path: path.into(), source })?;
            return Ok(vec![Link::of_many(link)]);
        }
        points.iter().map(|point| self.attach_one(program, path, *point, scope)).collect()
    }

    fn attach_one(
        &mut self,
        program: &'static str,
        path: &Path,
        Point { file_offset, cookie, .. }: Point,
        scope: UProbeScope,
    ) -> Result<Link, KernelError> {
        let probe = self.probe(program)?;
        let failed = |source| KernelError::Attach { file_offset, path: path.into(), source: Box::new(source) };
        let point = UProbeAttachPoint { location: UProbeAttachLocation::AbsoluteOffset(file_offset), cookie: Some(cookie) };
        let link = probe.attach(point, path, scope).map_err(failed)?;
        let link = probe.take_link(link).map_err(KernelError::program(program, "attached"))?;
        Ok(Link::of_one(link))
    }

    /// Sets USDT probes of a file. On failure those already set are taken back.
    pub fn attach_usdt(&mut self, target: &UsdtTarget<'_>) -> Result<(), KernelError> {
        let mut points = Vec::with_capacity(target.probes.len());
        for probe in target.probes {
            let (spec, fresh) = self.specs.index_of(&probe.spec).ok_or(KernelError::TooManySpecs(MAX_SPECS))?;
            if fresh {
                self.usdt_specs.set(spec.into(), Pod(probe.spec), 0).map_err(KernelError::map("USDT_SPECS"))?;
            }
            let cookie = UsdtCookie { object: target.id.0, site: probe.site.0, spec, adopt: target.adopt }.to_u64();
            points.push(Point { file_offset: probe.file_offset, cookie, ref_counter: probe.semaphore.unwrap_or(0) });
        }
        let failed = |source| KernelError::AttachAll { path: target.path.into(), source };
        let links = match &self.multi {
            Some(multi) => {
                vec![multi.attach(usdt::PROGRAM, target.path, &points, None).map_err(failed)?]
            }
            _ => {
                let program = self.probe(usdt::PROGRAM)?;
                let program = program.fd().map_err(KernelError::program(usdt::PROGRAM, "used"))?.as_fd();
                let links = points.iter().map(|point| usdt::attach_one(program, target.path, *point));
                links.collect::<Result<_, _>>().map_err(failed)?
            }
        };
        self.links.entry(target.id).or_default().of(Tier::T1).extend(links.into_iter().map(Link::of_many));
        Ok(())
    }

    /// Samples every CPU so often a second, by its software clock. Loads the sampler, so a kernel that refuses it loses nothing
    /// else.
    pub fn sample_cpus(&mut self, hz: u32) -> Result<Ticks, KernelError> {
        let clock = SamplingClock::start(&mut self.ebpf, hz)?;
        Ok(self.clock.insert(clock).ticks())
    }

    /// Samples the CPUs that are online now, if others were before, or if the machine was `woken` meanwhile. How the clock ticks
    /// from now on, if it was set anew; after an error it stands still.
    pub fn sample_again(&mut self, woken: bool) -> Result<Option<Ticks>, KernelError> {
        let Some(mut clock) = self.clock.take() else { return Ok(None) };
        let renewed = clock.renew(&mut self.ebpf, woken)?;
        let ticks = self.clock.insert(clock).ticks();
        Ok(renewed.then_some(ticks))
    }

    /// Loads what makes records that stand for nothing.
    pub fn producer(&mut self) -> Result<Producer, KernelError> {
        Producer::load(&mut self.ebpf)
    }

    /// Stops the sampling clock; on how many CPUs it ran, if it did.
    pub fn stop_sampling(&mut self) -> Option<u32> {
        self.clock.take().map(|clock| clock.ticks().cpus)
    }

    /// Every counter of the BPF side, now.
    pub fn counters(&self, ring: &Ring) -> Result<Counters, KernelError> {
        let counters = counters::read(&self.counters, ring.delivered(), ktime_now())?;
        Ok(Counters { left_out: left_out::runs(&self.ebpf), ..counters })
    }

    /// How far the records of each CPU are numbered, now.
    pub fn numbers(&self) -> Result<Reading, KernelError> {
        counters::numbers(&self.counters)
    }

    /// The table of followed processes, for the exec gate.
    pub fn followed_fd(&self) -> BorrowedFd<'_> {
        self.followed_fd.as_fd()
    }

    /// How often each probed binary's probes were hit so far.
    pub fn hits(&self) -> Result<Vec<(BinaryId, Hits)>, KernelError> {
        let sum = |index| self.hits.get(&index, 0).map(|counts| counts.iter().sum()).map_err(KernelError::map("HITS"));
        let of = |id: &BinaryId| {
            let mut hits = Hits::default();
            for (tier, hits) in (0..).zip(&mut hits) {
                *hits = sum(table::hits(id.0, tier))?;
            }
            Ok((*id, hits))
        };
        self.links.keys().filter(|id| u32::from(id.0) < MAX_BINARIES).map(of).collect()
    }

    /// Waits until those probes of a binary are gone that are being taken away: one that is not would tell everything twice.
    pub fn await_closing(&mut self, id: BinaryId) {
        let own = self.closing.extract_if(.., |(of, _)| *of == id);
        own.for_each(|(_, closing)| drop(closing.join()));
    }

    /// Whether probes are still being taken away.
    pub fn is_letting_go(&self) -> bool {
        self.closing.iter().any(|(_, closing)| !closing.is_finished())
    }

    /// How long the programs behind probes ran, as far as that was measured (`BPF_ENABLE_STATS`).
    pub fn run_times(&self) -> RunTimes {
        let fd = |name| match &self.multi {
            Some(multi) => multi.program(name),
            None => {
                let program: &UProbe = self.ebpf.program(name)?.try_into().ok()?;
                program.fd().ok().map(AsFd::as_fd)
            }
        };
        let of = |name: &'static str| program_info::of(fd(name)?).ok().map(|info| (name, (info.run_time_ns, info.run_cnt)));
        PROBES.into_iter().filter_map(of).collect()
    }

    /// Takes every probe away. The kernel needs up to a quarter of a second for each, so they go side by side.
    pub fn detach_probes(&mut self) {
        let closing = close(self.links.drain().flat_map(|(_, mut links)| links.take_above(Tier::T0)));
        self.closing.drain(..).map(|(_, closing)| closing).chain(closing).for_each(|closing| drop(closing.join()));
    }

    /// Takes the probes of one binary away.
    pub fn detach_binary(&mut self, id: BinaryId) {
        let links = self.links.remove(&id).unwrap_or_default().take_above(Tier::T0);
        close(links).into_iter().for_each(|closing| drop(closing.join()));
    }
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, KernelError> {
    ebpf.take_map(name).ok_or(KernelError::Missing(name))
}

/// A descriptor of a map's own.
pub(super) fn map_fd(ebpf: &Ebpf, name: &'static str) -> Result<OwnedFd, KernelError> {
    duplicate(ebpf.map(name).ok_or(KernelError::Missing(name))?)
}

fn duplicate(map: &Map) -> Result<OwnedFd, KernelError> {
    match map {
        Map::HashMap(data) => data.fd().as_fd().try_clone_to_owned().map_err(KernelError::io("a BPF map")),
        _ => Err(KernelError::Missing("a hash map")),
    }
}

/// What the BPF side is told at a site.
fn cookie(target: &Target<'_>, site_id: SiteId, site: &HookSite) -> Cookie {
    let zero_flag = match site.needs_zf {
        None => 0,
        Some(false) => 1,
        Some(true) => 2,
    };
    let (from, to) = match site.hook {
        Hook::Transition(transition) => transition.states(),
        _ => (0, 0),
    };
    Cookie {
        binary: target.id.0,
        site: site_id.0,
        register: pt_regs_offset(site.register),
        adopt: target.adopt,
        zero_flag,
        framed: site.framed,
        from,
        to,
    }
}

/// The program that serves a site.
pub fn program_of(site: &HookSite) -> &'static str {
    use Transition::*;
    match site.hook {
        Hook::Birth => "go_newproc1",
        Hook::Exit => "go_gdestroy",
        Hook::Park if site.stored => "go_gopark_inlined",
        Hook::Park => "go_gopark",
        Hook::ParkAbort => "go_park_m",
        Hook::Wake => "go_ready",
        Hook::Transition(transition) => match transition {
            Run | SyscallExit | SyscallExitQueued | CoroutineRun | ThreadAttach | ThreadDetach => "go_execute",
            Syscall => "go_entersyscall",
            Yield | Preempt | CoroutineStop => "go_gosched",
        },
        Hook::StopTheWorld => "go_stop_world",
        Hook::StartTheWorld => "go_start_world",
        Hook::GcCycle => "go_gc_cycle",
        Hook::TestRun => "go_test_run",
    }
}
