//! One loaded set of BPF programs, its attachments and its maps.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    thread,
};

use aya::{
    Btf, Ebpf, EbpfLoader, include_bytes_aligned,
    maps::{Array, Map, MapData, PerCpuArray, RingBuf},
    programs::{
        BtfTracePoint, UProbe,
        uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope},
    },
};
use aya_log::EbpfLogger;
use rustc_hash::FxHashMap;
use tracer_common::config::{Cookie, GoLayout, KernelLayout, MAX_BINARIES, pt_regs_offset};

use super::{KernelError, counters, offsets, ring::Ring};
use crate::{
    clock::ktime_now,
    golang::{Hook, HookSite},
    id::{BinaryId, SiteId, Tid},
    recording::contract::Counters,
};

/// The committed object (`cargo xtask build-ebpf`).
static OBJECT: &[u8] = include_bytes_aligned!("../../../tracer-ebpf/prebuilt/lifetrace.bpf.o");

const TRACEPOINTS: [&str; 3] = ["sched_process_fork", "sched_process_exec", "sched_process_exit"];
const PROBES: [&str; 7] = ["go_newproc1", "go_gopark", "go_gopark_inlined", "go_park_m", "go_ready", "go_gdestroy", "empty"];

/// Threads that close probes side by side.
const CLOSERS: usize = 16;

/// Sizes that may be changed before loading.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Bytes of the ring: a power of two, at least a page.
    pub ring_bytes: u32,
    /// Processes followed at once.
    pub processes: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { ring_bytes: 64 << 20, processes: 65_536 }
    }
}

/// A binary to be probed.
pub struct Target<'a> {
    pub id: BinaryId,
    /// Opened by the kernel when a probe is set: `/proc/self/fd/N` names exactly the file that was analysed.
    pub path: &'a Path,
    pub layout: GoLayout,
    /// Sites with their ids.
    pub sites: &'a [(SiteId, HookSite)],
    /// Probes that do nothing: the floor of a benchmark.
    pub empty: bool,
}

/// Loaded programs. Dropping it detaches everything; [`Session::detach`] does it side by side.
pub struct Session {
    ebpf: Ebpf,
    links: FxHashMap<BinaryId, Vec<UProbeLink>>,
    counters: PerCpuArray<MapData, u64>,
    layouts: Array<MapData, Pod<GoLayout>>,
    kernel: Array<MapData, Pod<KernelLayout>>,
    followed_fd: OwnedFd,
    kernel_layout: KernelLayout,
}

/// Lets aya copy our `#[repr(C)]` structures into maps.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Pod<T: Copy + 'static>(T);

// SAFETY: only instantiated with the structures of tracer_common::config, which are plain integers without padding.
unsafe impl<T: Copy + 'static> aya::Pod for Pod<T> {}

impl Session {
    /// Loads every program, attaches the process tracepoints, and hands out the reader's end of the ring and the log of rare
    /// conditions.
    pub fn load(sizes: Sizes) -> Result<(Self, Ring, EbpfLogger<&'static dyn log::Log>), KernelError> {
        let kernel_layout = offsets::kernel_layout()?;
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("EVENTS", sizes.ring_bytes)
            .map_max_entries("FOLLOWED", sizes.processes)
            .load(OBJECT)?;
        let logger = EbpfLogger::init(&mut ebpf).map_err(|_| KernelError::Missing("AYA_LOGS"))?;
        let ring = RingBuf::try_from(take(&mut ebpf, "EVENTS")?).map_err(KernelError::map("EVENTS"))?;
        let followed = take(&mut ebpf, "FOLLOWED")?;
        let followed_fd = duplicate(&followed)?;
        let mut session = Self {
            counters: PerCpuArray::try_from(take(&mut ebpf, "COUNTERS")?).map_err(KernelError::map("COUNTERS"))?,
            layouts: Array::try_from(take(&mut ebpf, "LAYOUTS")?).map_err(KernelError::map("LAYOUTS"))?,
            kernel: Array::try_from(take(&mut ebpf, "KERNEL")?).map_err(KernelError::map("KERNEL"))?,
            followed_fd,
            links: FxHashMap::default(),
            kernel_layout,
            ebpf,
        };
        session.set_spawner(None)?;
        session.attach_tracepoints()?;
        for name in PROBES {
            session.probe(name)?.load().map_err(KernelError::program(name, "loaded"))?;
        }
        Ok((session, Ring::new(ring), logger))
    }

    fn attach_tracepoints(&mut self) -> Result<(), KernelError> {
        let btf = Btf::from_sys_fs().map_err(|_| KernelError::Missing("kernel BTF"))?;
        for name in TRACEPOINTS {
            let program = self.ebpf.program_mut(name).ok_or(KernelError::Missing(name))?;
            let program: &mut BtfTracePoint = program.try_into().map_err(KernelError::program(name, "used"))?;
            program.load(name, &btf).map_err(KernelError::program(name, "loaded"))?;
            program.attach().map_err(KernelError::program(name, "attached"))?;
        }
        Ok(())
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

    /// Sets every probe of a plan. On failure those already set are taken back.
    pub fn attach(&mut self, target: &Target<'_>) -> Result<(), KernelError> {
        let index = u32::from(target.id.0);
        if index == 0 || index >= MAX_BINARIES {
            return Err(KernelError::TooManyBinaries(MAX_BINARIES - 1));
        }
        self.layouts.set(index, Pod(target.layout), 0).map_err(KernelError::map("LAYOUTS"))?;
        let mut links = Vec::with_capacity(target.sites.len());
        for (site_id, site) in target.sites {
            links.push(self.attach_site(target, *site_id, site)?);
        }
        self.links.insert(target.id, links);
        Ok(())
    }

    fn attach_site(&mut self, target: &Target<'_>, site_id: SiteId, site: &HookSite) -> Result<UProbeLink, KernelError> {
        let cookie = Cookie {
            binary: target.id.0,
            site: site_id.0,
            register: pt_regs_offset(site.register),
            zero_flag: match site.needs_zf {
                None => 0,
                Some(false) => 1,
                Some(true) => 2,
            },
        };
        let program = if target.empty { "empty" } else { program_of(site) };
        self.attach_one(program, target.path, site.file_offset, cookie.to_u64(), UProbeScope::AllProcesses).map_err(|source| {
            match source {
                KernelError::Program { source, .. } => KernelError::Attach {
                    function: site.function.clone(),
                    address: site.address,
                    path: target.path.into(),
                    source,
                },
                other => other,
            }
        })
    }

    /// Sets one probe and hands out its link, which detaches when it is dropped.
    pub(super) fn attach_one(
        &mut self,
        program: &'static str,
        path: &Path,
        file_offset: u64,
        cookie: u64,
        scope: UProbeScope,
    ) -> Result<UProbeLink, KernelError> {
        let probe = self.probe(program)?;
        let point = UProbeAttachPoint { location: UProbeAttachLocation::AbsoluteOffset(file_offset), cookie: Some(cookie) };
        let link = probe.attach(point, path, scope).map_err(KernelError::program(program, "attached"))?;
        probe.take_link(link).map_err(KernelError::program(program, "attached"))
    }

    /// Every counter of the BPF side, now.
    pub fn counters(&self, ring: &Ring) -> Result<Counters, KernelError> {
        counters::read(&self.counters, ring.delivered(), ktime_now())
    }

    /// The table of followed processes, for the exec gate.
    pub fn followed_fd(&self) -> BorrowedFd<'_> {
        self.followed_fd.as_fd()
    }

    /// Takes every probe away. The kernel needs up to a quarter of a second for each, so they go side by side.
    pub fn detach_probes(&mut self) {
        close(self.links.drain().flat_map(|(_, links)| links));
    }

    /// Takes the probes of one binary away.
    pub fn detach_binary(&mut self, id: BinaryId) {
        close(self.links.remove(&id).into_iter().flatten());
    }
}

fn close(links: impl Iterator<Item = UProbeLink>) {
    let mut shares: Vec<Vec<UProbeLink>> = Vec::new();
    shares.resize_with(CLOSERS, Vec::new);
    for (index, link) in links.enumerate() {
        shares[index % CLOSERS].push(link);
    }
    shares.retain(|share| !share.is_empty());
    // Where no thread is to be had, its share is closed here and now.
    let closers: Vec<_> = shares.into_iter().filter_map(|share| thread::Builder::new().spawn(move || drop(share)).ok()).collect();
    for closer in closers {
        let _ = closer.join();
    }
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, KernelError> {
    ebpf.take_map(name).ok_or(KernelError::Missing(name))
}

fn duplicate(map: &Map) -> Result<OwnedFd, KernelError> {
    match map {
        Map::HashMap(data) => data.fd().as_fd().try_clone_to_owned().map_err(KernelError::io("the table of followed processes")),
        _ => Err(KernelError::Missing("FOLLOWED")),
    }
}

/// The program that serves a site.
fn program_of(site: &HookSite) -> &'static str {
    match site.hook {
        Hook::Birth => "go_newproc1",
        Hook::Exit => "go_gdestroy",
        Hook::Park if site.stored => "go_gopark_inlined",
        Hook::Park => "go_gopark",
        Hook::ParkAbort => "go_park_m",
        Hook::Wake => "go_ready",
    }
}
