//! Looks at the goroutines of followed processes: at the start, every now and then, and before the probes go.
//!
//! Owns who is looked at and when; the reading is [`crate::cli::join`]'s. Each look is announced by the thread that drains the ring, so
//! that in the recording no event of its time lies before the announcement's end (docs/recording.md).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{Follower, Probed};
use crate::{
    capture::Message,
    cli::{
        asker::{Asker, Subject},
        join::Job,
    },
    clock::{KtimeNs, ktime_now},
    golang::GoBinary,
    id::{BinaryId, ProcessKey, Tgid},
    kernel::gate::FileKey,
    recording::contract::{DumpBegins, DumpSource},
    snapshot::process::Process,
    target::procfs,
};

/// Between two looks at who is followed.
const SCAN_EVERY_NS: u64 = 1_000_000_000;
/// The same where whoever is new is told of: of many nobody waits for one.
const SELDOM_NS: u64 = 5_000_000_000;
/// Processes that are looked at; more are followed without checks.
const MAX_PROCESSES: usize = 4096;

/// A followed process that runs a probed Go program.
#[derive(Clone)]
pub struct GoProcess {
    pub key: ProcessKey,
    pub binary: BinaryId,
    pub code: Arc<GoBinary>,
    program: FileKey,
    /// When it is to be looked at next.
    due: KtimeNs,
}

/// Who is to be looked at when.
pub struct Checks {
    every_ns: Option<u64>,
    scanned: KtimeNs,
    /// Others are followed than at the last scan, as far as is known.
    stale: bool,
    processes: BTreeMap<ProcessKey, GoProcess>,
}

impl Checks {
    pub fn new(every: Option<Duration>) -> Self {
        let every_ns = every.map(|every| u64::try_from(every.as_nanos()).unwrap_or(u64::MAX));
        Self { every_ns, scanned: KtimeNs(0), stale: true, processes: BTreeMap::new() }
    }
}

impl Follower {
    /// Finds out which Go programs are followed, and looks at those whose time has come. Comes a few times a second.
    pub fn look_at_processes(&mut self) {
        let now = ktime_now();
        let often = SCAN_EVERY_NS.min(self.checks.every_ns.unwrap_or(SCAN_EVERY_NS));
        let every_ns = if self.how.many { SELDOM_NS } else { often };
        if self.checks.stale || now.since(self.checks.scanned) >= every_ns {
            (self.checks.scanned, self.checks.stale) = (now, false);
            self.scan(now);
            let followed: Vec<Tgid> = self.session.followed().map(|(tgid, _)| tgid).take(MAX_PROCESSES).collect();
            self.look_at_mappings(&followed);
        }
        // While looks are under way, readers of the recording keep everything back that came since: no more of them then.
        if let Some(every_ns) = self.checks.every_ns
            && self.dumper.is_idle()
        {
            let due = self.checks.processes.values_mut().filter(|process| process.due <= now);
            let due: Vec<GoProcess> = due
                .map(|process| {
                    process.due = KtimeNs(now.0.saturating_add(every_ns));
                    process.clone()
                })
                .collect();
            due.iter().for_each(|process| self.check(process));
        }
    }

    /// The last look at everybody who is still there. They are done when [`Self::looks_are_done`].
    pub fn look_a_last_time(&mut self) {
        if self.checks.every_ns.is_none() {
            return;
        }
        self.scan(ktime_now());
        let all: Vec<GoProcess> = self.checks.processes.values().cloned().collect();
        all.iter().for_each(|process| self.check(process));
    }

    /// Looks that have not begun are not taken any more.
    pub fn give_up_looks(&self) {
        self.dumper.give_up_checks();
    }

    /// Whether no look is under way.
    pub fn looks_are_done(&self) -> bool {
        self.dumper.is_idle()
    }

    /// Whether a look is due that has not begun.
    pub(super) fn looks_are_due(&self, now: KtimeNs) -> bool {
        self.checks.every_ns.is_some() && self.checks.processes.values().any(|process| process.due <= now)
    }

    /// The Go processes that are followed, as of the last scan.
    pub fn go_processes(&self) -> impl Iterator<Item = &GoProcess> {
        self.checks.processes.values()
    }

    /// Announces that goroutines of a process are about to be asked for: what comes of it is as of the time returned, or later.
    pub fn announce_dump(&self, tgid: Tgid, source: DumpSource) -> KtimeNs {
        let at = ktime_now();
        self.capture.send(Message::DumpBegins(DumpBegins { at, tgid, source }));
        at
    }

    /// From now on processes are asked by HTTP, too.
    pub fn ask(&mut self, asker: Option<Asker>) {
        self.asker = asker;
    }

    /// Puts the questions that are due.
    pub fn ask_around(&mut self) {
        let Some(mut asker) = self.asker.take() else { return };
        for GoProcess { key, binary, code, program, .. } in self.go_processes() {
            let (code, program, tier) = (Arc::clone(code), *program, self.tier_of(*binary));
            asker.meet(&Subject { key: *key, program, binary: *binary, code, tier }, &self.capture);
        }
        asker.keep(|key| self.checks.processes.contains_key(key));
        asker.look_around(|tgid| self.announce_dump(tgid, DumpSource::Pprof));
        for tgid in asker.take_proven() {
            self.look_soon(tgid);
        }
        self.asker = Some(asker);
    }

    /// Somebody is followed who was not, or runs another program.
    pub(super) fn scan_soon(&mut self) {
        self.checks.stale = true;
    }

    /// Probes of a program have just been set: what lives is looked at before long, if processes are looked at at all.
    pub(super) fn look_soon_at_all(&mut self, binary: BinaryId) {
        let processes = self.checks.processes.values_mut().filter(|process| process.binary == binary);
        processes.for_each(|process| process.due = KtimeNs(0));
    }

    /// What Go's collector proved stands in the states of the goroutines, until it collects again.
    fn look_soon(&mut self, tgid: Tgid) {
        let processes = self.checks.processes.iter_mut().filter(|(key, _)| key.tgid == tgid);
        processes.for_each(|(_, process)| process.due = KtimeNs(0));
    }

    /// Puts the last questions, and waits for what was asked; with `whole` each process is asked once more. False when it is over.
    pub fn ask_at_last(&mut self, whole: bool) -> bool {
        let Some(mut asker) = self.asker.take() else { return false };
        let open = asker.at_last(whole, |tgid| self.announce_dump(tgid, DumpSource::Pprof));
        self.asker = Some(asker);
        open
    }

    /// The BPF side knows who is followed even if the record that told us was lost.
    fn scan(&mut self, now: KtimeNs) {
        let mut before = std::mem::take(&mut self.checks.processes);
        // Not at once: the record of a process that was adopted may still be in the ring, and joins it first.
        let due = KtimeNs(now.0.saturating_add(SCAN_EVERY_NS.min(self.checks.every_ns.unwrap_or(0))));
        let governed = self.governed().next().is_some();
        for (tgid, hit) in self.session.followed().take(MAX_PROCESSES) {
            let Ok(stat) = procfs::stat(tgid) else { continue };
            // Between fork and exec a child has its parent's program, and its parent's goroutines in memory: they are not its own.
            // Where there may be no probes, that it has executed its program tells.
            let executed = governed && self.metered.contains_key(&stat.key);
            if !hit && !executed && !self.joined.contains(&stat.key) || self.checks.processes.contains_key(&stat.key) {
                continue;
            }
            let Ok(program) = FileKey::of_process(tgid) else { continue };
            let Some(Some(Probed { id, code, .. })) = self.known.get(&program) else { continue };
            let fresh = || GoProcess { key: stat.key, binary: *id, code: Arc::clone(code), program, due };
            let known = before.remove(&stat.key).filter(|process| process.program == program && process.binary == *id);
            self.checks.processes.insert(stat.key, known.unwrap_or_else(fresh));
        }
    }

    fn check(&self, of: &GoProcess) {
        let tgid = of.key.tgid;
        // One that has just ended or become another program: its events tell. One that is stopped may stand between a probe and what
        // the probed code does next, for as long as it likes.
        let Ok(process) = Process::running(tgid, Arc::clone(&of.code)) else { return };
        let same = procfs::stat(tgid).is_ok_and(|stat| stat.key == of.key && !stat.stopped);
        if !same || FileKey::of_process(tgid).ok() != Some(of.program) {
            return;
        }
        self.announce_dump(tgid, DumpSource::Memory);
        self.dumper.dump(Job { key: of.key, process, binary: of.binary, tier: self.tier_of(of.binary), check: true });
    }
}
