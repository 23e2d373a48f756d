//! How many descriptors a process has, by kind.
//!
//! Source: proc_pid_fd(5): what each link says. Looking takes a system call a descriptor: a process with very many is looked at less often.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use rustc_hash::FxHashMap;

use crate::{
    clock::{KtimeNs, ktime_now, thread_cpu_ns},
    id::ProcessKey,
};

/// More descriptors than this are not looked at: a tenth of a second.
const MAX_DESCRIPTORS: usize = 50_000;
/// Kinds of one process that are told apart.
const MAX_KINDS: usize = 32;
const MAX_NAME: usize = 32;
/// What looking costs is at most one part in so many of the time.
const SHARE: u64 = 200;

/// Counts descriptors, each process's as often as that is cheap.
#[derive(Debug, Default)]
pub struct Descriptors {
    /// When each is to be looked at next, if not at once.
    due: FxHashMap<ProcessKey, KtimeNs>,
}

impl Descriptors {
    /// By kind; `None`: it is not the time, there are too many, or they cannot be seen. `folder` is the process's own, held open.
    pub fn count(&mut self, key: ProcessKey, folder: &fs::File) -> Option<BTreeMap<String, u64>> {
        let now = ktime_now();
        if self.due.get(&key).is_some_and(|due| now < *due) {
            return None;
        }
        // What others did with the CPU meanwhile is no cost of this.
        let began = thread_cpu_ns();
        let counts = count(&PathBuf::from(format!("/proc/self/fd/{}/fd", folder.as_raw_fd())));
        let cost = thread_cpu_ns().saturating_sub(began);
        self.due.insert(key, KtimeNs(ktime_now().0.saturating_add(cost.saturating_mul(SHARE))));
        counts
    }

    /// Forgets one that has ended.
    pub fn forget(&mut self, key: ProcessKey) {
        self.due.remove(&key);
    }
}

fn count(folder: &Path) -> Option<BTreeMap<String, u64>> {
    let mut counts = BTreeMap::new();
    for (index, entry) in fs::read_dir(folder).ok()?.enumerate() {
        if index >= MAX_DESCRIPTORS {
            return None;
        }
        // One that was closed meanwhile is none.
        let Ok(link) = fs::read_link(entry.ok()?.path()) else { continue };
        let kind = kind(&link.to_string_lossy());
        let kind = if counts.len() < MAX_KINDS || counts.contains_key(&kind) { kind } else { OTHER.to_owned() };
        *counts.entry(kind).or_default() += 1;
    }
    Some(counts)
}

const OTHER: &str = "other";

/// What a link of `/proc/PID/fd` says.
fn kind(link: &str) -> String {
    if let Some(name) = link.strip_prefix("anon_inode:") {
        let name: String = name.trim_matches(['[', ']']).chars().filter(|c| c.is_ascii_graphic()).take(MAX_NAME).collect();
        return if name == "eventpoll" { "epoll".to_owned() } else { name };
    }
    let plain = match link.split_once(":[") {
        Some(("socket", _)) => "socket",
        Some(("pipe", _)) => "pipe",
        _ if link.starts_with("/memfd:") => "memfd",
        _ if link.starts_with("/dev/") => "device",
        _ if link.starts_with('/') => "file",
        _ => OTHER,
    };
    plain.to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::{id::Tgid, target::procfs};

    /// Check what links are called.
    #[test]
    fn kinds() {
        for (link, expected) in [
            ("socket:[1234]", "socket"),
            ("pipe:[1]", "pipe"),
            ("anon_inode:[eventpoll]", "epoll"),
            ("anon_inode:inotify", "inotify"),
            ("anon_inode:bpf-map\n\u{1b}", "bpf-map"),
            ("/memfd:x (deleted)", "memfd"),
            ("/dev/null", "device"),
            ("/tmp/a:[b]", "file"),
            ("net:[4026531840]", OTHER),
            ("", OTHER),
        ] {
            assert_eq!(kind(link), expected, "{link}");
        }
    }

    /// Check that files that are opened are counted, and that nobody is looked at again at once.
    #[test]
    fn own() {
        let key = procfs::stat(Tgid(std::process::id())).unwrap().key;
        let folder = File::open("/proc/self").unwrap();
        let files = |counts: Option<BTreeMap<String, u64>>| counts.and_then(|counts| counts.get("file").copied()).unwrap_or(0);
        let held: Vec<File> = (0..40).map(|_| File::open("/proc/self/exe").unwrap()).collect();
        let mut descriptors = Descriptors::default();
        assert!(files(descriptors.count(key, &folder)) >= held.len() as u64);
        assert_eq!(descriptors.count(key, &folder), None);
        descriptors.forget(key);
        assert!(descriptors.count(key, &folder).is_some());
    }
}
