//! Processes that are followed from their middle on, and the CPU time of all.

use std::{
    fs::{self, File},
    sync::Arc,
};

use super::{Follower, Probed, analyse};
use crate::{
    capture::Message,
    cli::join::{Job, JoinError},
    clock::{KtimeNs, ktime_now, slept_ns},
    golang,
    governor::Care,
    id::{BinaryId, ProcessKey, Tgid},
    kernel::gate::FileKey,
    native::Maps,
    recording::contract::{Joined, Note, ThreadsMet},
    snapshot::process::Process,
    target::procfs::{self, NS_PER_TICK, Stat},
};

/// Looks at CPU time take one part in so many of the time.
const CPU_SHARE: u64 = 1000;

/// CPU time of a joined process: when it was joined, and when it was last looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    first_ns: u64,
    last_ns: u64,
}

impl Used {
    /// It was followed from its start on.
    pub(super) fn is_from_start(&self) -> bool {
        self.first_ns == 0
    }
}

impl Follower {
    /// Follows a process that runs already: its probes first, then its goroutines out of its memory, so that none is missed in
    /// between. Once for each process. `adopt` says who else is followed that runs the same file.
    pub fn join(&mut self, tgid: Tgid, adopt: u8) -> Result<(), JoinError> {
        self.join_with(tgid, adopt, self.how.care)
    }

    /// The same, with what may be followed of its program.
    fn join_with(&mut self, tgid: Tgid, adopt: u8, care: Care) -> Result<(), JoinError> {
        let of = |source: std::io::Error| JoinError::of(tgid, source);
        let stat = procfs::stat(tgid).map_err(of)?;
        if stat.zombie {
            return Err(JoinError::Gone { tgid });
        }
        if self.joined.contains(&stat.key) {
            return Ok(());
        }
        // Probes first, so that nothing is missed once it is followed.
        self.probe_usdt_of_process(tgid, adopt);
        let file = File::open(format!("/proc/{tgid}/exe")).map_err(of)?;
        if !golang::looks_like_go(&file).map_err(of)? {
            return self.join_other(stat);
        }
        let key = FileKey::of(&file).map_err(of)?;
        if !self.knows(key) {
            let probed = analyse(&file, self.how.most).and_then(|analysed| self.probe(&file, analysed, adopt, care));
            probed.map_err(|source| JoinError::Unprobed { tgid, source })?;
        }
        let Some(Some(Probed { id, code, .. })) = self.known.get(&key) else {
            return Err(JoinError::Refused { tgid });
        };
        let (id, code) = (*id, Arc::clone(code));
        self.want(id, care);
        let tier = self.tier_of(id);
        self.tell_every_life(id);
        self.session.follow(tgid).map_err(|source| JoinError::Unprobed { tgid, source: source.into() })?;
        // The number may have passed to another process, and the process to another program.
        let same =
            procfs::stat(tgid).is_ok_and(|now| now.key == stat.key) && FileKey::of_process(tgid).is_ok_and(|now| now == key);
        if !same {
            self.session.forget(tgid);
            return Err(JoinError::Gone { tgid });
        }
        let process = Process::running(tgid, code).inspect_err(|_| self.session.forget(tgid))?;
        self.joined.insert(stat.key);
        self.scan_soon();
        self.tell_found(&stat);
        self.metered.insert(stat.key, Used { first_ns: stat.cpu_ns, last_ns: stat.cpu_ns });
        self.capture.send(Message::Joined(Joined {
            at: ktime_now(),
            tgid,
            start_ticks: stat.key.start_ticks,
            parent: Some(stat.parent).filter(|parent| parent.0 != 0),
            args: procfs::args(tgid),
            binary: id,
            load_bias: process.bias,
            dump_follows: true,
        }));
        self.meet_threads(tgid);
        self.dumper.dump(Job { key: stat.key, process, binary: id, tier, check: false });
        Ok(())
    }

    /// Follows a process that runs no Go program.
    fn join_other(&mut self, stat: Stat) -> Result<(), JoinError> {
        let tgid = stat.key.tgid;
        self.session.follow(tgid).map_err(|source| JoinError::Unprobed { tgid, source: source.into() })?;
        if !procfs::stat(tgid).is_ok_and(|now| now.key == stat.key) {
            self.session.forget(tgid);
            return Err(JoinError::Gone { tgid });
        }
        self.joined.insert(stat.key);
        self.scan_soon();
        self.tell_found(&stat);
        self.metered.insert(stat.key, Used { first_ns: stat.cpu_ns, last_ns: stat.cpu_ns });
        self.capture.send(Message::Joined(Joined {
            at: ktime_now(),
            tgid,
            start_ticks: stat.key.start_ticks,
            parent: Some(stat.parent).filter(|parent| parent.0 != 0),
            args: procfs::args(tgid),
            binary: BinaryId(0),
            load_bias: 0,
            dump_follows: false,
        }));
        self.meet_threads(tgid);
        Ok(())
    }

    /// Keeps what a process has mapped while it is there: it may have ended when its addresses are to be named.
    pub fn look_at_maps(&mut self, tgid: Tgid) {
        let (at, maps) = (ktime_now(), Maps::of(tgid));
        if !maps.is_empty() {
            self.capture.send(Message::Maps { tgid, at, maps });
        }
    }

    /// Writes down which threads a process has that has been followed for less than that.
    pub fn meet_threads(&mut self, tgid: Tgid) {
        let at = ktime_now();
        let threads = procfs::threads(tgid);
        self.capture.send(Message::ThreadsMet(ThreadsMet { at, tgid, threads }));
    }

    /// Joins one of several processes, if it was not tried before. `care`: what may be followed of its program, if that is said.
    pub fn join_if_new(&mut self, tgid: Tgid, adopt: u8, care: Option<Care>) {
        let Some(key) = procfs::stat(tgid).ok().filter(|stat| !stat.zombie).map(|stat| stat.key) else {
            return;
        };
        let program = FileKey::of_process(tgid).ok();
        // What is followed from its start needs no joining; another program may be one that can be followed.
        if self.metered.contains_key(&key) || !self.tried.insert((key, program)) {
            return;
        }
        if let Err(error) = self.join_with(tgid, adopt, care.unwrap_or(self.how.care)) {
            self.note_unjoined(tgid, &error);
        }
    }

    /// A process that the BPF side adopted: one that began before its file was probed has to be joined.
    pub fn adopted(&mut self, tgid: Tgid) {
        let Ok(stat) = procfs::stat(tgid) else {
            return; // it has ended already
        };
        let file = FileKey::of_process(tgid);
        let probed_since = file.ok().and_then(|key| self.known.get(&key)?.as_ref()?.since);
        // A process's start is told in boot time, which runs on while the machine sleeps: as if it had begun before any sleep, so never late.
        let began = KtimeNs(stat.key.start_ticks.saturating_mul(NS_PER_TICK).saturating_sub(slept_ns()));
        if probed_since.is_some_and(|since| began > since) {
            return self.meter(tgid);
        }
        if let Err(error) = self.join(tgid, self.how.adopt) {
            self.note_unjoined(tgid, &error);
        }
    }

    /// Counts the CPU time of a process that is followed from its start.
    pub fn meter(&mut self, tgid: Tgid) {
        if let Ok(stat) = procfs::stat(tgid) {
            self.scan_soon();
            self.metered.entry(stat.key).or_insert(Used { first_ns: 0, last_ns: stat.cpu_ns });
        }
    }

    /// Says that a process could not be joined, unless it just ended.
    pub fn note_unjoined(&mut self, tgid: Tgid, error: &JoinError) {
        if matches!(error, JoinError::Gone { .. }) {
            return;
        }
        let reason = format!("{:#}", anyhow::Error::msg(error.to_string()));
        crate::cli::seldom::warn(&format!("process {tgid} is not followed: {reason}"));
        let exe = fs::read_link(format!("/proc/{tgid}/exe")).map_or_else(|_| "?".to_owned(), |path| path.display().to_string());
        self.capture.send(Message::Note(Note::Unprobed { at: ktime_now(), tgid, exe, reason }));
    }

    /// Looks at the CPU time of the processes, as often as that is cheap; `last`: now.
    pub fn look_at_cpu(&mut self, last: bool) {
        let began = ktime_now();
        if !last && began < self.cpu_due {
            return;
        }
        for (key, used) in &mut self.metered {
            if let Some(stat) = procfs::stat(key.tgid).ok().filter(|stat| stat.key == *key) {
                used.last_ns = stat.cpu_ns;
            }
        }
        let ended = ktime_now();
        self.cpu_due = KtimeNs(ended.0.saturating_add(ended.since(began).saturating_mul(CPU_SHARE)));
    }

    /// The processes that were met so far, whatever they run.
    pub fn metered(&self) -> impl Iterator<Item = ProcessKey> {
        self.metered.keys().copied()
    }

    /// The Go processes that are followed.
    pub fn go_keys(&self) -> impl Iterator<Item = ProcessKey> {
        self.go_processes().map(|process| process.key)
    }

    /// CPU time that the processes used while they were followed, as far as it was seen.
    pub fn cpu_ns(&self) -> Option<u64> {
        (!self.metered.is_empty()).then(|| self.metered.values().map(|used| used.last_ns.saturating_sub(used.first_ns)).sum())
    }
}
