//! Which binaries are probed, and what is told to the recording about them.

use std::{
    fs::{self, File},
    os::fd::AsRawFd,
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use rustc_hash::FxHashMap;
use tracer_common::config::{GoLayout, MAX_OFFSET};

use crate::{
    capture::{Capture, Message},
    clock::ktime_now,
    golang::{GoBinary, HookSite, Plan},
    id::{Address, BinaryId, SiteId, Tgid},
    kernel::{
        gate::FileKey,
        ring::Ring,
        session::{Session, Target},
    },
    recording::contract::{Binary, Counters, Note, Site, Tier},
};

/// A binary that was read and can be probed.
pub struct Analysed {
    key: FileKey,
    code: GoBinary,
    tier: Tier,
    plan: Plan,
    layout: GoLayout,
    path: PathBuf,
}

/// Reads a Go binary and chooses the best tier, up to `asked`, whose hooks are all there.
pub fn analyse(file: &File, asked: Tier) -> Result<Analysed> {
    let key = FileKey::of(file)?;
    let code = GoBinary::open(file)?;
    let layout = code.layout()?;
    let mut tier = asked;
    let mut plan = code.plan(tier);
    if !plan.complete() && asked > Tier::T1 {
        let path = path_of(file);
        tracing::warn!("{}: T1 instead of {asked:?}: {}", path.display(), missing(&plan));
        tier = Tier::T1;
        plan = code.plan(tier);
    }
    if !plan.complete() {
        bail!("{} lacks hooks that even T1 needs: {}", code.version(), missing(&plan));
    }
    Ok(Analysed { key, code, tier, plan, layout, path: path_of(file) })
}

/// A binary that carries probes.
struct Probed {
    id: BinaryId,
    /// What the probes depend on: the same file with the same plan keeps them.
    sites: Vec<(u64, u64)>,
    layout: GoLayout,
}

/// How binaries are probed.
#[derive(Clone, Copy, Debug)]
pub struct How {
    pub tier: Tier,
    /// With programs that do nothing: the floor of a benchmark.
    pub empty_probes: bool,
    /// With offsets that fit no runtime: what the BPF side says of it is tested.
    pub bad_layout: bool,
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
}

impl Follower {
    pub fn new(session: Session, capture: Capture, how: How) -> Self {
        Self { session, capture, how, known: FxHashMap::default(), next_binary: 1, last_counters: None }
    }

    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    pub fn capture(&self) -> &Capture {
        &self.capture
    }

    /// Samples what the CPUs do, so often a second; 0 for not at all. That it cannot be had is noted, and nothing else lost.
    pub fn sample_cpus(&mut self, hz: u32) {
        if hz == 0 {
            return;
        }
        let at = ktime_now();
        let note = match self.session.sample_cpus(hz) {
            Ok(cpus) => Note::Sampling { at, hz, cpus },
            Err(error) => {
                let text = format!("no CPU samples: {:#}", anyhow::Error::from(error));
                tracing::warn!("{text}");
                Note::Warning { at, text }
            }
        };
        self.capture.send(Message::Note(note));
    }

    /// Takes the probes and the sampling clock away.
    pub fn detach(&mut self) {
        if let Some(cpus) = self.session.stop_sampling() {
            self.capture.send(Message::Note(Note::Sampling { at: ktime_now(), hz: 0, cpus }));
        }
        self.session.detach_probes();
    }

    /// Gives up session and capture, probes and all.
    pub fn into_parts(self) -> (Session, Capture) {
        (self.session, self.capture)
    }

    /// Whether it was tried to probe a file.
    pub fn knows(&self, key: FileKey) -> bool {
        self.known.contains_key(&key)
    }

    /// Whether a file carries probes.
    pub fn is_probed(&self, key: FileKey) -> bool {
        matches!(self.known.get(&key), Some(Some(_)))
    }

    /// Probes the file that a followed process executes; a failure is noted, never the target's problem.
    pub fn probe_for(&mut self, file: &File, tgid: Tgid) {
        if FileKey::of(file).is_ok_and(|key| self.knows(key)) {
            return;
        }
        if let Err(error) = analyse(file, self.how.tier).and_then(|analysed| self.probe(file, analysed)) {
            let exe = path_of(file).display().to_string();
            tracing::warn!("{exe} (process {tgid}) runs unprobed: {error:#}");
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
        tracing::warn!("{text}");
        self.capture.send(Message::Note(Note::Warning { at: ktime_now(), text }));
    }

    /// Sets the probes of a binary. One that was rewritten in place loses its old probes first, unless they are the same.
    pub fn probe(&mut self, file: &File, mut analysed: Analysed) -> Result<()> {
        let key = analysed.key;
        let sites = analysed.plan.sites.iter().map(|site| (site.file_offset, site.address)).collect();
        for old in self.older(key) {
            let Some(Some(probed)) = self.known.remove(&old) else {
                continue;
            };
            if probed.sites == sites && probed.layout == analysed.layout {
                // Only touched: what runs under these probes goes on under them.
                self.known.insert(key, Some(probed));
                return Ok(());
            }
            self.session.detach_binary(probed.id);
        }
        self.known.insert(key, None);
        let layout = analysed.layout;
        if self.how.bad_layout {
            analysed.layout.m_curg = MAX_OFFSET + 1;
        }
        let id = self.attach(file, analysed)?;
        self.known.insert(key, Some(Probed { id, sites, layout }));
        Ok(())
    }

    /// What is known of the same inode with other contents.
    fn older(&self, key: FileKey) -> Vec<FileKey> {
        self.known.keys().filter(|old| old.device == key.device && old.inode == key.inode && **old != key).copied().collect()
    }

    fn attach(&mut self, file: &File, analysed: Analysed) -> Result<BinaryId> {
        let Analysed { code, tier, plan, layout, path, .. } = analysed;
        let id = BinaryId(self.next_binary);
        let without_gc = plan.without_gc().map(str::to_owned);
        let sites: Vec<(SiteId, HookSite)> =
            plan.sites.into_iter().zip(1u16..).map(|(site, number)| (SiteId(number), site)).collect();
        // Told first: the recording must know the binary before its first record.
        self.capture.send(Message::Binary(Box::new((describe(id, &path, &code, &sites), Arc::new(code)))));
        self.next_binary = self.next_binary.checked_add(1).context("too many binaries")?;
        if let Some(reason) = without_gc {
            let text = format!("{}: no track of the garbage collector: {reason}", path.display());
            tracing::warn!("{text}");
            self.capture.send(Message::Note(Note::Warning { at: ktime_now(), text }));
        }
        let by_descriptor = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        self.session.attach(&Target { id, path: &by_descriptor, layout, sites: &sites, empty: self.how.empty_probes })?;
        self.capture.send(Message::Note(Note::Coverage { at: ktime_now(), binary: id, tier }));
        Ok(id)
    }

    /// Writes the kernel side's counters if they changed.
    pub fn note_counters(&mut self, ring: &Ring) -> Result<()> {
        let counters = self.session.counters(ring)?;
        let same = self.last_counters.as_ref().is_some_and(|last| Counters { at: counters.at, ..last.clone() } == counters);
        if !same {
            self.capture.send(Message::Counters(counters.clone()));
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

fn describe(id: BinaryId, path: &std::path::Path, code: &GoBinary, sites: &[(SiteId, HookSite)]) -> Binary {
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
        stw_reasons: code.stw_reasons().iter().map(|reason| (*reason).to_owned()).collect(),
    }
}

/// The path under which the kernel knows an open file.
fn path_of(file: &File) -> PathBuf {
    fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_else(|_| PathBuf::from("?"))
}
