//! Names for addresses of code that is not of a probed Go binary: the kernel's, and that of whatever a process has mapped.
//!
//! Everything is read when it is first needed, from files that the traced side chose: sizes and counts are bounded, and what cannot be
//! read has no name. A process that has ended takes its map along.

use std::{fs::File, os::unix::fs::MetadataExt, sync::Arc};

use rustc_hash::FxHashMap;

use crate::{
    clock::{KtimeNs, ktime_now},
    id::{Address, Tgid},
    recording::contract::{CodeUse, Frame, IN_KERNEL, NativeEntry},
};

mod kallsyms;
mod maps;
mod object;

use kallsyms::Kallsyms;
use maps::Mapping;
pub use maps::Maps;
use object::Object;

/// Files whose symbols are kept.
const MAX_FILES: usize = 1024;
/// Processes whose maps are kept; then those of all are forgotten.
const MAX_PROCESSES: usize = 4096;
/// Times that the map of one process is read again because an address was not in it.
const MAX_READS: u32 = 16;

/// Looks names up, and keeps what it read.
#[derive(Default)]
pub struct Names {
    kernel: Option<Kallsyms>,
    processes: FxHashMap<Tgid, Known>,
    /// By device and inode; `None`: nothing can be read there.
    files: FxHashMap<(u64, u64), Option<Arc<Object>>>,
}

/// A process's map.
struct Known {
    maps: Maps,
    at: KtimeNs,
    reads: u32,
}

/// Every question that is asked of a file's symbols, at some offsets.
#[cfg(feature = "fuzz")]
pub fn symbols_of(file: File, offsets: &[u64]) -> Vec<String> {
    let Some(object) = Object::read(file) else { return Vec::new() };
    offsets.iter().filter_map(|offset| object.name(*offset).filter(|_| !object.is_behind_call(*offset))).collect()
}

impl Names {
    /// The name of an address of the kernel.
    pub fn kernel(&mut self, address: u64) -> Option<Frame> {
        let kernel = self.kernel.get_or_insert_with(Kallsyms::read);
        let function = kernel.name(address.wrapping_sub(1))?;
        Some(Frame { function: function.to_owned(), file: IN_KERNEL.to_owned(), line: 0 })
    }

    /// A process executed another program at that time: what it had mapped before is no more.
    pub fn forget_before(&mut self, tgid: Tgid, at: KtimeNs) {
        if self.knows_before(tgid, at) {
            self.processes.remove(&tgid);
        }
    }

    /// What a process had mapped at that time.
    pub fn see(&mut self, tgid: Tgid, at: KtimeNs, maps: Maps) {
        self.make_room();
        self.processes.insert(tgid, Known { maps, at, reads: 1 });
    }

    fn make_room(&mut self) {
        if self.processes.len() >= MAX_PROCESSES {
            self.processes.clear();
        }
    }

    /// A child has mapped what its parent has, until it executes another program.
    pub fn inherit(&mut self, parent: Tgid, child: Tgid) {
        if let Some(Known { maps, at, reads }) = self.processes.get(&parent) {
            let known = Known { maps: maps.clone(), at: *at, reads: *reads };
            self.make_room();
            self.processes.insert(child, known);
        }
    }

    /// Whether what a process had mapped before that time was read then.
    pub fn knows_before(&self, tgid: Tgid, at: KtimeNs) -> bool {
        self.processes.get(&tgid).is_some_and(|known| known.at < at)
    }

    /// Reads what a process has mapped, if that was not done.
    fn meet(&mut self, tgid: Tgid) {
        if !self.processes.contains_key(&tgid) {
            self.see(tgid, ktime_now(), Maps::of(tgid));
        }
    }

    /// The name of an address of a process. `word`: it may be anything, and has a name only if it lies behind a call.
    pub fn process(&mut self, tgid: Tgid, address: u64, use_as: CodeUse, word: bool) -> Option<Frame> {
        self.meet(tgid);
        let known = self.processes.get_mut(&tgid)?;
        if known.maps.find(address).is_none() {
            // What it has mapped since. A word that is no address would make us look again and again.
            if word || known.reads >= MAX_READS {
                return None;
            }
            known.reads += 1;
            let fresh = Maps::of(tgid);
            // An ended process has an empty one.
            if !fresh.is_empty() {
                (known.maps, known.at) = (fresh, ktime_now());
            }
        }
        let mapping = known.maps.find(address)?.clone();
        if !mapping.executable {
            return None;
        }
        let offset = mapping.file_offset(address);
        let Some(object) = self.object(tgid, &mapping) else {
            return (!word).then(|| frame(unnamed(&mapping, offset), &mapping.path));
        };
        if word && !object.is_behind_call(offset) {
            return None;
        }
        let inside = if use_as == CodeUse::Return { offset.saturating_sub(1) } else { offset };
        Some(frame(object.name(inside).unwrap_or_else(|| unnamed(&mapping, offset)), &mapping.path))
    }

    /// The same, as the recording holds it.
    pub fn entry(&mut self, tgid: Tgid, address: u64, use_as: CodeUse, word: bool) -> Option<NativeEntry> {
        let frame = self.process(tgid, address, use_as, word)?;
        Some(NativeEntry { address: Address(address), use_as, frame })
    }

    fn object(&mut self, tgid: Tgid, mapping: &Mapping) -> Option<Arc<Object>> {
        if mapping.inode == 0 {
            return None;
        }
        let key = (mapping.device, mapping.inode);
        if !self.files.contains_key(&key) {
            if self.files.len() >= MAX_FILES {
                self.files.clear();
            }
            // As the process sees it: its root may be another one, and the file may have lost its name.
            let named = || File::open(format!("/proc/{tgid}/root{}", mapping.path));
            let file = File::open(format!("/proc/{tgid}/map_files/{:x}-{:x}", mapping.start, mapping.end)).or_else(|_| named());
            // One that has ended has no files of its own; what lies under the name for us is the same, if its number is.
            let file = file.or_else(|_| File::open(&mapping.path)).ok();
            let file = file.filter(|file| file.metadata().is_ok_and(|found| found.is_file() && found.ino() == mapping.inode));
            let object = file.and_then(Object::read).map(Arc::new);
            self.files.insert(key, object);
        }
        self.files.get(&key)?.clone()
    }
}

fn frame(function: String, path: &str) -> Frame {
    Frame { function, file: path.to_owned(), line: 0 }
}

fn unnamed(mapping: &Mapping, offset: u64) -> String {
    match mapping.path.rsplit('/').next() {
        None | Some("") => "[anon]".to_owned(),
        // `[vdso]` and the like, whose offsets mean nothing.
        Some(name) if name.starts_with('[') => name.to_owned(),
        Some(name) => format!("{name}+{offset:#x}"),
    }
}
