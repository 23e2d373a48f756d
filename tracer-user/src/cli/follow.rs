//! Which binaries are probed, and what is told to the recording about them.

use std::{
    fs::{self, File},
    os::fd::AsRawFd,
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use rustc_hash::FxHashMap;

use crate::{
    capture::{Capture, Message},
    clock::ktime_now,
    golang::{GoBinary, HookSite},
    id::{Address, BinaryId, SiteId, Tgid},
    kernel::{
        gate::FileKey,
        ring::Ring,
        session::{Session, Target},
    },
    recording::contract::{Binary, Counters, Note, Site, Tier},
};

/// Owns the session and the recording while a command is followed.
pub struct Follower {
    session: Session,
    capture: Capture,
    tier: Tier,
    empty: bool,
    /// Files that are probed, or known not to be probed.
    known: FxHashMap<FileKey, Option<BinaryId>>,
    next_binary: u16,
    last_counters: Option<Counters>,
}

impl Follower {
    pub fn new(session: Session, capture: Capture, tier: Tier, empty: bool) -> Self {
        Self { session, capture, tier, empty, known: FxHashMap::default(), next_binary: 1, last_counters: None }
    }

    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    pub fn capture(&self) -> &Capture {
        &self.capture
    }

    pub fn into_capture(self) -> Capture {
        self.capture
    }

    /// Probes a Go binary, once. A file that was rewritten in place loses its old probes first.
    pub fn probe(&mut self, file: &File) -> Result<()> {
        let key = FileKey::of(file)?;
        if self.known.contains_key(&key) {
            return Ok(());
        }
        self.forget_older(key);
        self.known.insert(key, None);
        let id = self.attach(file)?;
        self.known.insert(key, Some(id));
        Ok(())
    }

    /// Probes the file of a held exec; a failure is noted, never the target's problem.
    pub fn probe_held(&mut self, file: &File, tgid: Tgid) {
        if let Err(error) = self.probe(file) {
            let exe = path_of(file).display().to_string();
            tracing::warn!("{exe} (process {tgid}) runs unprobed: {error:#}");
            let reason = format!("{error:#}");
            self.capture.send(Message::Note(Note::Unprobed { at: ktime_now(), tgid, exe, reason }));
        }
    }

    fn forget_older(&mut self, key: FileKey) {
        let stale: Vec<FileKey> =
            self.known.keys().filter(|old| old.device == key.device && old.inode == key.inode).copied().collect();
        for old in stale {
            if let Some(Some(id)) = self.known.remove(&old) {
                self.session.detach_binary(id);
            }
        }
    }

    fn attach(&mut self, file: &File) -> Result<BinaryId> {
        let path = path_of(file);
        let code = GoBinary::open(file)?;
        let tier = best_tier(&code, self.tier)?;
        if tier < self.tier {
            let text = format!("{}: {:?} instead of {:?}: {}", path.display(), tier, self.tier, missing(&code, self.tier));
            tracing::warn!("{text}");
            self.capture.send(Message::Note(Note::Warning { at: ktime_now(), text }));
        }
        let layout = code.layout()?;
        let id = BinaryId(self.next_binary);
        let sites: Vec<(SiteId, HookSite)> =
            code.plan(tier).sites.into_iter().zip(1u16..).map(|(site, number)| (SiteId(number), site)).collect();
        // Told first: the recording must know the binary before its first record.
        self.capture.send(Message::Binary(Box::new((describe(id, &path, &code, &sites), Arc::new(code)))));
        self.next_binary = self.next_binary.checked_add(1).context("too many binaries")?;
        let by_descriptor = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        self.session.attach(&Target { id, path: &by_descriptor, layout, sites: &sites, empty: self.empty })?;
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

/// The tier asked for, or the best one below it whose hooks are all there.
fn best_tier(code: &GoBinary, asked: Tier) -> Result<Tier> {
    for tier in [Tier::T3, Tier::T2, Tier::T1] {
        if tier <= asked && code.plan(tier).complete() {
            return Ok(tier);
        }
    }
    bail!("{} lacks hooks that even T1 needs: {}", code.version(), missing(code, Tier::T1));
}

fn missing(code: &GoBinary, tier: Tier) -> String {
    let missing: Vec<String> =
        code.plan(tier).missing.iter().map(|missing| format!("{}: {}", missing.hook.name(), missing.reason)).collect();
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
    }
}

/// The path under which the kernel knows an open file.
fn path_of(file: &File) -> PathBuf {
    fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_else(|_| PathBuf::from("?"))
}
