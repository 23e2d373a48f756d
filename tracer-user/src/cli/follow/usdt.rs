//! USDT probes of followed processes: which files are looked at, and which of their probes are set.
//!
//! A program is looked at when it is executed, with the libraries that its loader will load; what a process maps later, when we come by.
//! Only probes that the table knows are set: no other costs anybody anything.

use std::{
    collections::BTreeMap,
    fs::File,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rustc_hash::{FxHashMap, FxHashSet};
use tracer_common::config::ADOPT_ANYBODY;

use super::{Follower, path_of};
use crate::{
    capture::Message,
    id::{Address, BinaryId, SiteId, Tgid},
    kernel::{
        gate::FileKey,
        shared,
        usdt::{UsdtPoint, UsdtTarget},
    },
    recording::contract::{UsdtFile, UsdtSite},
    target::{
        libraries::Root,
        mappings,
        usdt::{Place, of_program, read},
    },
    usdt::{Table, UsdtObject, spec},
};

/// Processes whose mappings are read in one look, those first that were not looked at for longest.
const LOOKS: usize = 32;
/// Files remembered by the numbers that mappings give them; forgotten all at once when there are more.
const MAX_SEEN: usize = 65_536;

/// What is known of files with USDT probes.
pub(super) struct Usdt {
    table: Table,
    /// Files that were looked at; `None`: none of their probes means anything.
    files: FxHashMap<FileKey, Option<Probed>>,
    /// Mapped files that were looked at, by device and inode as `/proc/PID/maps` has them.
    seen: FxHashSet<(String, u64)>,
    /// When the mappings of each process were read, in looks.
    looked: BTreeMap<Tgid, u64>,
    looks: u64,
}

#[derive(Clone, Copy)]
struct Probed {
    id: BinaryId,
    /// Where its first probe is in the file.
    first: u64,
}

impl Usdt {
    pub(super) fn new(table: Table) -> Self {
        let (files, seen) = (FxHashMap::default(), FxHashSet::default());
        Self { table, files, seen, looked: BTreeMap::new(), looks: 0 }
    }
}

impl Follower {
    /// Whether USDT probes of a file are set.
    pub fn has_usdt(&self, key: FileKey) -> bool {
        matches!(self.usdt.files.get(&key), Some(Some(_)))
    }

    /// Looks at a program that a process is about to execute, or has just executed, and at the libraries that it needs.
    pub fn probe_usdt_of_exec(&mut self, file: &File, tgid: Tgid) {
        let known = FileKey::of(file).is_ok_and(|key| self.usdt.files.contains_key(&key));
        if !known && let Ok(root) = Root::of_process(tgid) {
            self.probe_usdt_of_program(file, &path_of(file), &root, self.how.adopt);
        }
    }

    /// Looks at a program, and at the libraries that it needs. `adopt`: who is followed that runs over a probe of the program itself.
    pub fn probe_usdt_of_program(&mut self, file: &File, path: &Path, root: &Root, adopt: u8) {
        let Ok(program) = file.try_clone() else { return };
        for (index, place) in of_program(root, Place { file: program, path: path.to_owned() }).into_iter().enumerate() {
            self.probe_usdt(&place, self.adopt_at(adopt, index == 0));
        }
    }

    /// Looks at the files that a process has mapped.
    pub fn probe_usdt_of_process(&mut self, tgid: Tgid, adopt: u8) {
        let own = FileKey::of_process(tgid).ok();
        for mapped in mappings::of(tgid).unwrap_or_default() {
            let Ok(file) = mapped.open(tgid) else { continue };
            let key = FileKey::of(&file).ok();
            let place = Place { file, path: PathBuf::from(&mapped.path) };
            self.probe_usdt(&place, self.adopt_at(adopt, key.is_some() && key == own));
        }
    }

    /// A library is everybody's: who runs over its probes is not meant by the name of a program.
    fn adopt_at(&self, adopt: u8, program: bool) -> u8 {
        if adopt == ADOPT_ANYBODY && !program { self.how.adopt } else { adopt }
    }

    /// Looks at what followed processes have mapped since.
    pub(super) fn look_at_mappings(&mut self, followed: &[Tgid]) {
        let old = std::mem::take(&mut self.usdt.looked);
        self.usdt.looked = followed.iter().map(|tgid| (*tgid, old.get(tgid).copied().unwrap_or(0))).collect();
        self.usdt.looks += 1;
        let mut next: Vec<(u64, Tgid)> = self.usdt.looked.iter().map(|(tgid, look)| (*look, *tgid)).collect();
        next.sort_unstable();
        for (_, tgid) in next.into_iter().take(LOOKS) {
            self.usdt.looked.insert(tgid, self.usdt.looks);
            for mapped in mappings::of(tgid).unwrap_or_default() {
                if self.usdt.seen.contains(&(mapped.device.clone(), mapped.inode)) {
                    continue;
                }
                let Ok(file) = mapped.open(tgid) else { continue };
                if self.usdt.seen.len() >= MAX_SEEN {
                    self.usdt.seen.clear();
                }
                self.probe_usdt(&Place { file, path: PathBuf::from(&mapped.path) }, self.how.adopt);
                self.usdt.seen.insert((mapped.device, mapped.inode));
            }
        }
    }

    /// Sets the probes of a file, if any means something; a failure is noted, never the target's problem.
    fn probe_usdt(&mut self, place: &Place, adopt: u8) {
        let Ok(key) = FileKey::of(&place.file) else { return };
        if self.usdt.files.contains_key(&key) {
            return;
        }
        // The probes of what it was before would break what it is now.
        for old in self.older_usdt(key) {
            if let Some(Some(Probed { id, .. })) = self.usdt.files.remove(&old) {
                self.session.detach_binary(id);
            }
        }
        self.usdt.files.insert(key, None);
        let Ok(object) = read(&place.file) else { return };
        let sites = self.sites_of(&object, &place.path);
        let Some((_, first)) = sites.first() else { return };
        if let Some(twin) = self.usdt_twin(&place.file, key, first.file_offset) {
            self.usdt.files.insert(key, Some(twin));
            return;
        }
        let first = first.file_offset;
        match self.attach_usdt(place, sites, adopt) {
            Ok(id) => drop(self.usdt.files.insert(key, Some(Probed { id, first }))),
            Err(error) => self.warn(format!("no USDT probes in {}: {error:#}", place.path.display())),
        }
    }

    /// What is known of the same inode with other contents.
    fn older_usdt(&self, key: FileKey) -> Vec<FileKey> {
        let files = self.usdt.files.keys();
        files.filter(|old| old.device == key.device && old.inode == key.inode && **old != key).copied().collect()
    }

    /// The same file below another overlay mount, if that is probed: its probes fire for processes of this one too.
    fn usdt_twin(&self, file: &File, key: FileKey, first: u64) -> Option<Probed> {
        let like = |other: &FileKey| FileKey { device: key.device, ..*other } == key;
        let mut probed = self.usdt.files.iter().filter(|(other, _)| like(other)).filter_map(|(_, probed)| *probed);
        let twin = probed.find(|probed| probed.first == first)?;
        shared::carries_probe(file, first).unwrap_or(false).then_some(twin)
    }

    /// The probes that mean something, with what they mean.
    fn sites_of(&self, object: &UsdtObject, path: &Path) -> Vec<(UsdtSite, UsdtPoint)> {
        let mut sites = Vec::new();
        let mut complained = FxHashSet::default();
        for (probe, number) in object.probes.iter().zip(1u16..) {
            let meaning = match self.usdt.table.meaning(object, probe) {
                None => continue,
                Some(Ok(meaning)) => meaning,
                Some(Err(error)) => {
                    if complained.insert(&probe.name) {
                        let (provider, name) = (&probe.provider, &probe.name);
                        self.warn(format!("probe {provider}:{name} in {} is not followed: {error}", path.display()));
                    }
                    continue;
                }
            };
            let text = meaning.text.map(|at| (usize::from(at), meaning.text_len.map(usize::from)));
            let point = UsdtPoint {
                site: SiteId(number),
                file_offset: probe.file_offset,
                semaphore: probe.semaphore.map(|semaphore| semaphore.file_offset),
                spec: spec::spec(&probe.arguments, probe.address, &|name| object.symbol(name), text),
            };
            let (provider, name) = (probe.provider.clone(), probe.name.clone());
            sites.push((UsdtSite { id: SiteId(number), provider, name, address: Address(probe.address), meaning }, point));
        }
        sites
    }

    fn attach_usdt(&mut self, place: &Place, sites: Vec<(UsdtSite, UsdtPoint)>, adopt: u8) -> Result<BinaryId> {
        let id = BinaryId(self.next_binary);
        self.next_binary = self.next_binary.checked_add(1).context("too many files")?;
        let (probes, points): (Vec<_>, Vec<_>) = sites.into_iter().unzip();
        // Told first: the recording must know the probes before their first hit.
        let file = UsdtFile { id, path: place.path.display().to_string(), probes };
        self.capture.send(Message::Usdt(file));
        let path = PathBuf::from(format!("/proc/self/fd/{}", place.file.as_raw_fd()));
        self.session.attach_usdt(&UsdtTarget { id, path: &path, adopt, probes: &points })?;
        self.prices.open_usdt(id);
        tracing::debug!("{} USDT probes in {}", points.len(), place.path.display());
        Ok(id)
    }
}
