//! What was told so far, by program, for who keeps it for longer than one recording.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{
    model::{Model, sum},
    names::SiteName,
    rows::end_of,
};
use crate::{
    clock::KtimeNs,
    correlate::{
        ReasonId,
        goroutine::SiteKey,
        loss::Losses,
        process::{Image, ImageId, Process, ProcessId},
        replaying::Replaying,
    },
    id::{BinaryId, Tgid},
    recording::contract::End,
    timeline::human::plain,
};

/// What the probes of a program cost it so far, and what it used.
pub struct Paid {
    pub program: Arc<str>,
    pub cost_ns: u64,
    pub cpu_ns: u64,
}

/// A process that has ended.
pub struct Ended {
    pub process: ProcessId,
    pub tgid: Tgid,
    pub program: Arc<str>,
    /// It ran a Go program that was followed.
    pub is_go: bool,
    /// `exit 1`, `SIGKILL`; `ended` where nothing told how.
    pub how: String,
}

/// Letters at either end of a name that is too long to be told again and again.
const ENDS: usize = 120;

/// A name that a stranger chose, with its middle left out where it is long.
pub fn short(name: &str) -> Arc<str> {
    let letters = name.chars().count();
    if letters <= 2 * ENDS + 1 {
        return name.into();
    }
    let begin = name.chars().take(ENDS);
    begin.chain(['…']).chain(name.chars().skip(letters - ENDS)).collect::<String>().into()
}

impl Model {
    /// Finds the names of creation sites, as far as they have come.
    pub fn learn(&mut self, keys: impl Iterator<Item = SiteKey>) {
        self.names.learn(keys, &self.replaying);
    }

    /// Its name, if it was looked up.
    pub fn site(&self, key: &SiteKey) -> Option<&SiteName> {
        self.names.id(key).and_then(|id| self.names.name(id))
    }

    /// What an image runs: a path, as its own mount namespace has it.
    pub fn program(&self, image: ImageId) -> Arc<str> {
        self.program_of(self.replaying.engine().processes().image(image))
    }

    fn program_of(&self, image: &Image) -> Arc<str> {
        let path = self.replaying.binary(image).map_or(&image.exe, |binary| &binary.path);
        if path.is_empty() { "?".into() } else { short(&plain(path)) }
    }

    /// What a process runs now, if that is known.
    pub fn program_of_process(&self, tgid: Tgid) -> Option<Arc<str>> {
        let processes = self.replaying.engine().processes();
        let lives =
            |image: &&Image| image.until.is_none() && processes.process(image.process).key.is_some_and(|key| key.tgid == tgid);
        let (_, image) = processes.images().find(|(_, image)| lives(image))?;
        Some(self.program_of(image))
    }

    /// The files that a program is, as far as somebody runs it.
    pub fn binaries_of(&self, program: &str) -> Vec<BinaryId> {
        let images = self.replaying.engine().processes().images().filter(|(_, image)| image.until.is_none());
        let of = images.filter(|(_, image)| &*self.program_of(image) == program);
        let mut binaries: Vec<BinaryId> = of.filter_map(|(_, image)| image.binary).collect();
        binaries.sort_unstable();
        binaries.dedup();
        binaries
    }

    /// Up to when everything is told.
    pub fn now(&self) -> KtimeNs {
        self.replaying.now()
    }

    pub fn process_of(&self, image: ImageId) -> &Process {
        self.replaying.engine().processes().of_image(image)
    }

    pub fn process(&self, id: ProcessId) -> &Process {
        self.replaying.engine().processes().process(id)
    }

    /// The cgroups that a process is in, or was in last, as far as they have names.
    pub fn cgroups_of(&self, process: &Process) -> impl Iterator<Item = &str> {
        self.replaying.cgroups().place(process, KtimeNs::MAX).paths()
    }

    pub fn reason(&self, id: ReasonId) -> Arc<str> {
        plain(self.replaying.engine().reason(id)).into()
    }

    pub fn paid(&self) -> Vec<Paid> {
        let all = self.replaying.counters().map_or(&[][..], |counters| &counters.paid);
        let named = all.iter().filter_map(|paid| Some((paid, self.replaying.binary_of(paid.binary)?)));
        named
            .map(|(paid, binary)| Paid { program: short(&plain(&binary.path)), cost_ns: sum(paid.cost_ns), cpu_ns: paid.cpu_ns })
            .collect()
    }

    /// Everybody who has ended, those that ended long ago as well.
    pub fn ended_processes(&self) -> impl Iterator<Item = Ended> {
        let processes = self.replaying.engine().processes();
        processes.processes().filter(|(_, process)| process.ended.is_some()).map(move |(id, process)| {
            let image = process.images.last().map(|image| processes.image(*image));
            let program = image.map_or_else(|| "?".into(), |image| self.program_of(image));
            let is_go = image.is_some_and(|image| image.binary.is_some());
            Ended { process: id, tgid: process.tgid, program, is_go, how: end_of(process) }
        })
    }

    /// Processes that have ended, and files that were followed and that nobody runs any more: how much is known of what is not.
    pub fn past(&self) -> (usize, usize) {
        let processes = self.replaying.engine().processes();
        let ended = processes.processes().filter(|(_, process)| process.ended.is_some()).count();
        let followed = processes.images().filter_map(|(_, image)| Some((image.binary?, image.until.is_none())));
        let mut runs: FxHashMap<BinaryId, bool> = FxHashMap::default();
        for (binary, lives) in followed {
            *runs.entry(binary).or_default() |= lives;
        }
        (ended, runs.values().filter(|runs| !**runs).count())
    }

    /// Whether all that was so at that time is known: every event up to then, and every look that began before. Of a recording without
    /// marks: the newest that came.
    pub fn knows(&self, at: KtimeNs) -> bool {
        self.replaying.now() >= at
    }

    /// All that is known, for who asks what no picture shows.
    pub fn replaying(&self) -> &Replaying {
        &self.replaying
    }

    pub fn losses(&self) -> Losses {
        self.replaying.losses()
    }

    /// The recording's last block, if it has come.
    pub fn end(&self) -> Option<&End> {
        self.replaying.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that long names lose their middle, by letters, and others nothing.
    #[test]
    fn long_names() {
        assert_eq!(&*short("/usr/bin/app"), "/usr/bin/app");
        let cut = short(&format!("/{}{}z", "a".repeat(5000), "é".repeat(200)));
        assert_eq!(cut.chars().count(), 2 * ENDS + 1);
        assert!(cut.starts_with("/aaa") && cut.contains("a…é") && cut.ends_with("éz"), "{cut}");
    }
}
