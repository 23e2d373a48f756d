//! Serving a recording while the command runs: ring, exec gate, signals, log; then its end.

use std::{
    fs::File,
    os::unix::process::ExitStatusExt,
    time::{Duration, Instant},
};

use anyhow::Result;
use rustc_hash::FxHashSet;
use tokio::time::MissedTickBehavior;

use super::{
    Failure,
    follow::Follower,
    marks::Marks,
    memory::{MemoryWatch, Round},
    relay::{Ended, Relay, Starting},
};
use crate::{
    capture::{CaptureError, Message, Written},
    clock::{ClockTie, ktime_now},
    golang,
    id::Tgid,
    kernel::{
        command::{Launch, Launcher},
        gate::{FileKey, Gate, server},
        readiness::{self, Readiness},
        ring::{Appeared, Ring},
        signals::Signals,
    },
    recording::contract::{Drained, End, Note},
};

/// How long records may lie in the ring when no wake-up comes.
const TICK: Duration = Duration::from_millis(10);
/// How long records may lie in memory before they are written.
const FLUSH_EVERY: Duration = Duration::from_millis(250);
/// Bytes of records in one block.
const BLOCK_BYTES: usize = 1 << 20;
/// How long the last looks at the processes may take before their probes go all the same.
const LAST_LOOK_NS: u64 = 5_000_000_000;
/// How long the records of the last reapings may take: some grace periods of RCU.
const LAST_REAPING_NS: u64 = 2_000_000_000;
/// Processes whose maps are read in one round.
const MAPS_A_ROUND: usize = 16;
/// Execs that are remembered; beyond that all are forgotten.
const MAX_IN_TIME: usize = 4096;
/// Blocks taken out of the ring after the probes are gone: more than it holds.
const LAST_ROUNDS: usize = 256;

/// The log of rare conditions on the BPF side.
pub type Logger = aya_log::EbpfLogger<&'static dyn log::Log>;

/// What a recording is made along: a command's life, or a look at processes that run already.
pub trait Course {
    type End;
    /// Takes what signals have come to us.
    fn take_signals(&mut self, signals: &mut Signals) -> Result<()>;
    /// How long records may lie in the ring when no wake-up comes, and nothing is in a hurry; at least [`TICK`].
    fn rests(&self) -> Duration {
        Duration::ZERO
    }
    /// How long to wait between two looks at processes, at least; they come a few times a second at most.
    fn looks_every(&self) -> Duration {
        Duration::ZERO
    }
    /// Comes as often.
    fn look_around(&mut self, _follower: &mut Follower) {}
    /// How it ended, if it has.
    fn ended(&mut self) -> Result<Option<Self::End>>;
}

/// That a recording is over, and why.
pub struct Over<'a> {
    pub reason: &'static str,
    pub command: Option<&'a Ended>,
}

/// What records: the probes, the ring, and the block that is being filled.
pub struct Recorder {
    follower: Follower,
    ring: Ring,
    block: Vec<u8>,
    memory: MemoryWatch,
    marks: Marks,
    /// Whether the last round found the ring empty.
    empty: bool,
    /// Processes that were let go on with a file that was probed by then: an older exec of theirs may be read behind that.
    in_time: FxHashSet<(Tgid, FileKey)>,
}

impl Recorder {
    pub fn new(mut follower: Follower, ring: Ring, memory: MemoryWatch) -> Self {
        follower.tell_facts();
        let block = Vec::with_capacity(BLOCK_BYTES + 4096);
        Self { follower, ring, block, memory, marks: Marks::default(), empty: true, in_time: FxHashSet::default() }
    }

    /// Whether the recording cannot be written any more.
    pub fn failed(&self) -> bool {
        self.follower.capture().failed()
    }

    /// Starts the command and serves the recording until it has ended.
    pub async fn follow_command(&mut self, launch: Launch, gate: Option<Gate>, logger: Logger) -> Result<Ended> {
        let mut signals = Signals::open()?;
        let launcher = Launcher::prepare(launch)?;
        self.follower.session().set_spawner(Some(launcher.tid))?;
        if let Some(signal) = signals.deadly_now()? {
            return Err(
                Failure { code: 128 + signal as u8, error: anyhow::anyhow!("{signal} before the command was started") }.into()
            );
        }
        self.serve(Relay::new(Starting::new(launcher.go())), signals, gate, logger).await
    }

    /// Serves ring, gate, signals and log until the course is over.
    pub async fn serve<C: Course>(
        &mut self,
        mut course: C,
        mut signals: Signals,
        mut gate: Option<Gate>,
        mut logger: Logger,
    ) -> Result<C::End> {
        let mut sources = Sources {
            signals: Readiness::of(&signals)?,
            gate: gate.as_ref().map(Readiness::of).transpose()?,
            log: Readiness::of(&logger)?,
            ring: Readiness::of(&self.ring)?,
        };
        let mut tick = std::pin::pin!(tokio::time::sleep(TICK));
        let mut flush = tokio::time::interval(FLUSH_EVERY);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut more = false;
        let mut looked = None;
        loop {
            tokio::select! {
                biased;
                ready = sources.signals.ready() => {
                    ready?;
                    course.take_signals(&mut signals)?;
                }
                ready = readiness::ready(sources.gate.as_ref()) => {
                    ready?;
                    if gate.as_ref().is_some_and(|gate| !self.answer_gate(gate)) {
                        sources.gate = None;
                        gate = None;
                    }
                }
                ready = sources.log.ready() => {
                    ready?;
                    logger.flush();
                }
                _ = flush.tick() => {
                    self.flush();
                    if looked.is_none_or(|looked: Instant| looked.elapsed() >= course.looks_every()) {
                        looked = Some(Instant::now());
                        course.look_around(&mut self.follower);
                        if !self.failed() {
                            self.look_around();
                        }
                        if let Err(error) = self.follower.note_counters(&self.ring) {
                            tracing::warn!(%error, "the counters cannot be read");
                        }
                    }
                    if self.follower.capture().failed() {
                        // The target must not go on paying for what nobody keeps.
                        self.follower.detach();
                    }
                }
                ready = sources.ring.ready() => {
                    ready?;
                    more = !self.drain();
                }
                () = &mut tick => {
                    let before = self.block.len();
                    more = !self.drain();
                    let quiet = !more && self.block.len() <= before;
                    if !self.failed() {
                        self.follower.keep_budget();
                    }
                    let rests = quiet && !self.follower.is_in_a_hurry();
                    let pause = if rests { course.rests().max(TICK) } else { TICK };
                    tick.as_mut().reset(tokio::time::Instant::now() + pause);
                }
                () = tokio::task::yield_now(), if more => more = !self.drain(),
            }
            if let Some(ended) = course.ended()? {
                logger.flush();
                return Ok(ended);
            }
        }
    }

    /// One bounded round; true when the ring is empty, or when the disk must first catch up.
    fn drain(&mut self) -> bool {
        if self.block.len() >= BLOCK_BYTES && !self.flush() {
            return true;
        }
        self.marks.begin(self.follower.session(), &mut self.ring, self.empty);
        self.empty = self.ring.drain(&mut self.block, BLOCK_BYTES);
        self.marks.look(&mut self.ring);
        self.follower.take_sums_of_ended(self.ring.take_ended());
        if self.block.len() >= BLOCK_BYTES {
            self.flush();
        }
        self.catch_up();
        self.empty
    }

    /// Hands the block on, and the mark that speaks of it; false if there is no room for it yet.
    fn flush(&mut self) -> bool {
        if !self.block.is_empty() {
            let full = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK_BYTES + 4096));
            if let Err(Message::Records(full)) = self.follower.capture().try_send(Message::Records(full)) {
                self.block = full;
                return false;
            }
        }
        self.marks.write(self.follower.capture());
        true
    }

    /// Writes what was seen of memory.
    fn keep(&self, round: Round) {
        let Round { memory, note } = round;
        let messages = memory.map(Message::Memory).into_iter().chain(note.map(Message::Note));
        messages.for_each(|message| self.follower.capture().send(message));
    }

    /// Answers every held exec; false if the gate is gone.
    fn answer_gate(&mut self, gate: &Gate) -> bool {
        loop {
            let held = match gate.next() {
                Ok(Some(held)) => held,
                Ok(None) => return true,
                Err(error) => {
                    let text = format!("the exec gate is gone ({error}): the first goroutines of child programs may be missed");
                    tracing::warn!("{text}");
                    self.follower.capture().send(Message::Note(Note::Warning { at: ktime_now(), text }));
                    return false;
                }
            };
            let Ok(key) = FileKey::of(&held.file) else {
                continue; // its deadline lets it go
            };
            self.follower.probe_for(&held.file, held.tgid);
            self.follower.probe_usdt_of_exec(&held.file, held.tgid);
            let probed = self.follower.is_probed(key) || self.follower.has_usdt(key);
            if probed && u128::from(ktime_now().since(held.since)) >= server::DEADLINE.as_nanos() {
                self.follower.note_late(&held.file, held.tgid);
            } else if probed {
                if self.in_time.len() >= MAX_IN_TIME {
                    self.in_time.clear();
                }
                self.in_time.insert((held.tgid, key));
            }
            if let Err(error) = gate.release(held.id, key, probed) {
                tracing::debug!(%error, "an exec could not be released; its deadline will");
            }
        }
    }

    /// Probes what was executed behind the gate's back (without a gate, or from a file system that takes no mark), and joins it.
    fn catch_up(&mut self) {
        for (tgid, binary) in self.ring.take_images() {
            self.follower.first_hit(tgid, binary);
        }
        for tgid in self.ring.take_natives().into_iter().take(MAPS_A_ROUND) {
            self.follower.look_at_maps(tgid);
        }
        self.follower.judge_trials();
        self.follower.kin(self.ring.take_kin());
        self.follower.name_cgroups(self.ring.take_places());
        let all = self.ring.take_appeared();
        for (index, appeared) in all.iter().copied().enumerate() {
            let (tgid, at) = match appeared {
                Appeared::Executed(tgid, at) => (tgid, at),
                Appeared::Met(tgid) => {
                    self.follower.adopted(tgid);
                    continue;
                }
            };
            let Ok(file) = File::open(format!("/proc/{tgid}/exe")) else {
                continue; // it has ended already
            };
            self.follower.meter(tgid);
            self.follower.probe_usdt_of_exec(&file, tgid);
            // What it runs by now may be what it executed later.
            let is_newest = !all[index + 1..].iter().any(|later| matches!(later, Appeared::Executed(of, _) if *of == tgid));
            let late = is_newest
                && FileKey::of(&file)
                    .is_ok_and(|key| !self.in_time.remove(&(tgid, key)) && self.follower.may_probe_after(key, at));
            if late && golang::looks_like_go(&file).unwrap_or(false) {
                self.follower.note_late(&file, tgid);
                if let Err(error) = self.follower.join(tgid, self.follower.adopt()) {
                    self.follower.note_unjoined(tgid, &error);
                }
            }
        }
    }

    /// Goroutines, memory and profiles of those who are followed, as far as their time has come. Nobody is looked at for a recording that
    /// cannot be written.
    fn look_around(&mut self) {
        self.follower.look_at_processes();
        self.follower.look_at_sums();
        self.follower.look_at_orphans(false);
        self.follower.look_at_load(false);
        let round = self.memory.look(ktime_now(), self.follower.go_keys(), self.follower.metered());
        self.keep(round);
        self.follower.ask_around();
        self.follower.look_at_machine();
        self.follower.tidy();
    }

    /// Looks at those who are still there, under the probes' eyes: what happens meanwhile is recorded.
    fn look_a_last_time(&mut self) {
        self.follower.look_a_last_time();
        let began = ktime_now();
        while !self.follower.looks_are_done() && ktime_now().since(began) < LAST_LOOK_NS {
            self.drain();
            self.follower.keep_budget();
            std::thread::sleep(Duration::from_millis(1));
        }
        self.follower.give_up_looks();
    }

    /// Lets the records come of those that were reaped just now: where reaping is told late, they would seem to be zombies.
    fn await_reapings(&mut self) {
        let began = ktime_now();
        while ktime_now().since(began) < LAST_REAPING_NS {
            self.drain();
            if !self.follower.awaits_reapings() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets the last questions be answered, as long as that may take; `whole`: those that are asked before the end, too.
    fn ask_at_last(&mut self, whole: bool) {
        while self.follower.ask_at_last(whole) {
            self.drain();
            self.follower.keep_budget();
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Writes everything that is left in the ring. Nothing new comes but from processes that are still followed: their share is bounded by
    /// the rounds.
    fn empty_ring(&mut self) -> Option<Drained> {
        let sender = self.follower.capture().sender();
        let mut block = std::mem::take(&mut self.block);
        std::mem::take(&mut self.marks).finish(self.follower.session(), &mut self.ring, |ring| {
            for _ in 0..LAST_ROUNDS {
                let empty = ring.drain(&mut block, BLOCK_BYTES);
                let full = std::mem::take(&mut block);
                if !full.is_empty()
                    && let Some(sender) = &sender
                {
                    // One that cannot be written is told of when the capture is finished.
                    let _ = sender.send(Message::Records(full));
                }
                if empty {
                    break;
                }
            }
        })
    }

    /// Takes the probes away, empties the ring, ends the recording.
    pub fn finish(mut self, over: &Over<'_>) -> (Written, Result<(), CaptureError>) {
        self.follower.look_at_cpu(true);
        if !self.failed() {
            self.ask_at_last(over.command.is_none());
            self.look_a_last_time();
            self.await_reapings();
            self.follower.look_at_orphans(true);
            self.follower.look_at_load(true);
            let round = self.memory.last(ktime_now(), self.follower.go_keys(), self.follower.metered());
            self.keep(round);
        }
        self.follower.tell_everything();
        let at = ktime_now();
        self.follower.take_all_sums(at);
        if let Err(error) = self.follower.book(at) {
            tracing::warn!(%error, "the last of the price is missing");
        }
        self.follower.capture().send(Message::Note(Note::Detaching { at }));
        self.follower.detach();
        let detach_ns = Some(ktime_now().since(at));
        let last_mark = self.empty_ring();
        self.follower.take_sums_of_ended(self.ring.take_ended());
        if let Some(mark) = last_mark {
            self.follower.capture().send(Message::Drained(mark));
        }
        if let Err(error) = self.follower.note_counters(&self.ring) {
            tracing::warn!(%error, "the last counters are missing");
        }
        let joined_cpu_ns = self.follower.cpu_ns();
        let (session, capture) = self.follower.into_parts();
        capture.send(Message::End(End {
            at,
            reason: over.reason.to_owned(),
            detach_ns,
            clock: Some(ClockTie::now()),
            wait_status: over.command.map(|ended| ended.status.into_raw()),
            target_cpu_ns: over.command.map(|ended| ended.cpu_ns).or(joined_cpu_ns),
        }));
        drop(session);
        capture.finish()
    }
}

/// What the daemon waits for.
struct Sources {
    signals: Readiness,
    gate: Option<Readiness>,
    log: Readiness,
    ring: Readiness,
}
