//! What cgroups had to bear between two looks at them.

use super::{process::Process, replay::Replayed};
use crate::{
    clock::KtimeNs,
    recording::contract::{CgroupLoad, LoadAt, MemoryEvents, Throttling},
};

/// A cgroup stood still for a while between two looks, because its CPU quota was used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttled<'a> {
    pub from: KtimeNs,
    pub to: KtimeNs,
    pub cgroup: &'a str,
    /// Summed over CPUs: it may be more than the time between the looks.
    pub throttled_ns: u64,
    pub periods: u64,
}

/// What a cgroup had to bear while anybody looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Burden<'a> {
    pub load: &'a CgroupLoad,
    /// Since the first look; limits as of the newest.
    pub cpu: Option<Throttling>,
    pub memory: Option<MemoryEvents>,
}

impl Replayed {
    /// When the cgroup of a process was throttled while the process lived, in order of time.
    pub fn throttled(&self, process: &Process) -> Vec<Throttled<'_>> {
        let mut found = Vec::new();
        let mut before: Option<(KtimeNs, &str, Throttling)> = None;
        let end = process.ended.map_or(KtimeNs::MAX, |(at, _)| at);
        for look in self.load.iter().filter(|look| look.at >= process.first_seen) {
            let of = look.cgroups.iter().find(|cgroup| cgroup.tgids.contains(&process.tgid));
            let Some((path, cpu)) = of.and_then(|of| Some((of.cpu_path.as_deref()?, of.cpu?))) else { continue };
            if let Some((from, last, old)) = before
                && last == path
                && from < end
            {
                let throttled_ns = cpu.throttled_ns.saturating_sub(old.throttled_ns);
                let periods = cpu.throttled_periods.saturating_sub(old.throttled_periods);
                if throttled_ns > 0 {
                    found.push(Throttled { from, to: look.at.min(end), cgroup: path, throttled_ns, periods });
                }
            }
            before = Some((look.at, path, cpu));
        }
        found
    }

    /// For how long in all; `None` where nobody looked twice while it lived.
    pub fn throttled_ns(&self, process: &Process) -> Option<u64> {
        let of = |look: &&LoadAt| look.cgroups.iter().any(|cgroup| cgroup.cpu.is_some() && cgroup.tgids.contains(&process.tgid));
        let looks = self.load.iter().filter(|look| look.at >= process.first_seen).filter(of).take(2).count();
        (looks == 2).then(|| self.throttled(process).iter().map(|one| one.throttled_ns).sum())
    }

    /// What each cgroup had to bear, by path.
    pub fn burdens(&self) -> Vec<Burden<'_>> {
        type Key<'a> = (Option<&'a str>, Option<&'a str>);
        let mut all: std::collections::BTreeMap<Key<'_>, (&CgroupLoad, &CgroupLoad)> = Default::default();
        for load in self.load.iter().flat_map(|look| &look.cgroups) {
            let key = (load.cpu_path.as_deref(), load.memory_path.as_deref());
            all.entry(key).or_insert((load, load)).1 = load;
        }
        let burden = |(first, last): (&CgroupLoad, &'_ CgroupLoad)| {
            let cpu = last.cpu.zip(first.cpu).map(|(last, first)| Throttling {
                periods: last.periods.saturating_sub(first.periods),
                throttled_periods: last.throttled_periods.saturating_sub(first.throttled_periods),
                throttled_ns: last.throttled_ns.saturating_sub(first.throttled_ns),
                ..last
            });
            let since = |last: Option<u64>, first: Option<u64>| last.zip(first).map(|(last, first)| last.saturating_sub(first));
            let memory = last.memory.zip(first.memory).map(|(last, first)| MemoryEvents {
                limit_bytes: last.limit_bytes,
                max: last.max.saturating_sub(first.max),
                oom: since(last.oom, first.oom),
                oom_kill: since(last.oom_kill, first.oom_kill),
            });
            (cpu, memory)
        };
        all.into_values()
            .map(|(first, last)| {
                let (cpu, memory) = burden((first, last));
                Burden { load: last, cpu, memory }
            })
            .collect()
    }
}
