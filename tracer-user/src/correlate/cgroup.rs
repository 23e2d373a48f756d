//! The names of cgroups, and in which of them a process was.

use rustc_hash::FxHashMap;

use super::process::{Process, life::CgroupMove};
use crate::{clock::KtimeNs, recording::contract::CgroupNamed};

/// Names that are kept: more are a recording's nonsense.
const MAX_NAMES: usize = 1_000_000;

/// The paths of cgroups by hierarchy and id.
#[derive(Clone, Debug, Default)]
pub struct Cgroups {
    paths: FxHashMap<(u32, u64), String>,
    /// The hierarchy of the memory controller, if it is not the unified one.
    memory: Option<u32>,
}

/// Where a process is accounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place<'a> {
    /// In the unified hierarchy.
    pub unified: Option<&'a str>,
    /// In that of the memory controller, where that is one of version 1.
    pub memory: Option<&'a str>,
}

impl<'a> Place<'a> {
    /// The one that tells most: where somebody put the process on purpose.
    pub fn path(&self) -> Option<&'a str> {
        self.memory.filter(|_| self.unified.is_none_or(|path| path == "/")).or(self.unified)
    }

    /// Both, without repetition.
    pub fn paths(self) -> impl Iterator<Item = &'a str> {
        [self.unified, self.memory].into_iter().flatten()
    }
}

impl Cgroups {
    pub fn name(&mut self, named: CgroupNamed) {
        if named.controllers.split(',').any(|controller| controller == "memory") {
            self.memory = Some(named.hierarchy);
        }
        if self.paths.len() < MAX_NAMES {
            self.paths.insert((named.hierarchy, named.id), named.path);
        }
    }

    /// The path of a cgroup.
    pub fn path(&self, hierarchy: u32, id: u64) -> Option<&str> {
        self.paths.get(&(hierarchy, id)).map(String::as_str)
    }

    /// Where a process was at a time, as far as it is known by name.
    pub fn place(&self, process: &Process, at: KtimeNs) -> Place<'_> {
        let life = &process.life;
        let (since, told) = life.cgroups.iter().rev().find(|(since, _)| *since <= at).copied().unwrap_or_default();
        let moved = |hierarchy: u32| {
            let of = |step: &&CgroupMove| step.hierarchy == hierarchy && step.at >= since && step.at <= at;
            life.moves.iter().rev().find(of).map(|step| step.cgroup)
        };
        Place {
            unified: self.path(0, moved(0).unwrap_or(told.unified)),
            memory: self.memory.and_then(|memory| self.path(memory, moved(memory).unwrap_or(told.memory))),
        }
    }
}

#[cfg(test)]
mod tests {
    use tracer_common::process::Cgroup;

    use super::*;
    use crate::{
        correlate::process::{ProcessId, Processes},
        id::Tgid,
    };

    fn named(hierarchy: u32, controllers: &str, id: u64, path: &str) -> CgroupNamed {
        CgroupNamed { id, hierarchy, controllers: controllers.to_owned(), path: path.to_owned() }
    }

    /// Check that ids are names within their hierarchy, and that the newest of record and move counts.
    #[test]
    fn places() {
        let mut all = Cgroups::default();
        all.name(named(0, "", 7, "/"));
        all.name(named(4, "memory", 7, "/docker/one"));
        all.name(named(4, "memory", 8, "/docker/two"));
        all.name(named(0, "", 9, "/app.slice"));
        let mut processes = Processes::default();
        processes.running(Tgid(1), KtimeNs(1)).unwrap();
        processes.in_cgroup(ProcessId(0), Cgroup { unified: 7, memory: 7 }, KtimeNs(1));
        let to = |at, hierarchy, cgroup| CgroupMove { at: KtimeNs(at), hierarchy, cgroup };
        processes.cgroup_moved(Tgid(1), to(5, 4, 8));
        processes.cgroup_moved(Tgid(1), to(6, 3, 9));
        processes.cgroup_moved(Tgid(1), to(9, 0, 9));
        let process = processes.process(ProcessId(0));
        let place = |at| all.place(process, KtimeNs(at));
        assert_eq!(place(0), Place::default());
        assert_eq!((place(1).memory, place(1).path()), (Some("/docker/one"), Some("/docker/one")));
        assert_eq!((place(6).unified, place(6).path()), (Some("/"), Some("/docker/two")));
        assert_eq!((place(9).path(), place(9).paths().count()), (Some("/app.slice"), 2));
    }
}
