//! The names of cgroups that records give by id.

use std::{fs, os::unix::fs::MetadataExt};

use rustc_hash::FxHashSet;
use tracer_common::process::Cgroup;

use crate::{
    id::Tgid,
    recording::contract::CgroupNamed,
    target::hierarchies::{self, Hierarchy},
};

/// Cgroups that are named in one session.
const MAX_NAMES: usize = 100_000;

/// Finds names, each once.
pub struct Names {
    hierarchies: Vec<Hierarchy>,
    asked: FxHashSet<(u32, u64)>,
}

impl Names {
    /// Learns what hierarchies there are.
    pub fn new() -> Self {
        Self { hierarchies: Hierarchy::all(), asked: FxHashSet::default() }
    }

    /// What is not named yet of where a process is.
    pub fn of(&mut self, cgroup: Cgroup) -> Vec<CgroupNamed> {
        let memory = self.memory().map(|memory| (memory, cgroup.memory));
        [Some((0, cgroup.unified)), memory].into_iter().flatten().filter_map(|(number, id)| self.name(number, id)).collect()
    }

    /// The name of one cgroup; `None` if it was asked for before, or if nobody knows.
    pub fn name(&mut self, number: u32, id: u64) -> Option<CgroupNamed> {
        if id == 0 || self.asked.len() >= MAX_NAMES || !self.asked.insert((number, id)) {
            return None;
        }
        let hierarchy = self.hierarchies.iter().find(|one| one.number == number)?;
        let path = hierarchy.path_of(id)?;
        Some(CgroupNamed { id, hierarchy: number, controllers: hierarchy.controllers.clone(), path })
    }

    /// The cgroups that a process is in, by /proc.
    pub fn of_process(&self, tgid: Tgid) -> Cgroup {
        let lines = hierarchies::text(&format!("/proc/{tgid}/cgroup"));
        let id = |number: u32| {
            let hierarchy = self.hierarchies.iter().find(|one| one.number == number)?;
            let below = hierarchy.below(hierarchy.shown(&lines)?)?;
            fs::metadata(hierarchy.mount().join(below)).ok().map(|metadata| metadata.ino())
        };
        let unified = id(0).unwrap_or(0);
        Cgroup { unified, memory: self.memory().map_or(unified, |memory| id(memory).unwrap_or(0)) }
    }

    /// The hierarchy of version 1 that has the memory controller.
    fn memory(&self) -> Option<u32> {
        self.hierarchies.iter().find(|one| one.has("memory")).map(|one| one.number)
    }
}

impl Default for Names {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that our own cgroups are named as /proc names them, each once, if we may open handles.
    #[test]
    fn own_names() {
        let mut names = Names::new();
        let cgroup = names.of_process(Tgid(std::process::id()));
        let named = names.of(cgroup);
        if !super::super::features::may_open_every_file() || cgroup == Cgroup::default() {
            println!("skipped: no cgroups, or not allowed to open handles");
            return;
        }
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        assert!(!named.is_empty());
        for CgroupNamed { hierarchy, path, .. } in named {
            assert!(
                names
                    .hierarchies
                    .iter()
                    .any(|one| one.number == hierarchy && one.shown(&own).map(|shown| one.whole(shown)) == Some(path.clone())),
                "{path} in {own}"
            );
        }
        assert_eq!(names.of(cgroup), []);
        assert_eq!(names.name(0, u64::MAX), None);
    }
}
