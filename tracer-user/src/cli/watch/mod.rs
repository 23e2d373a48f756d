//! Recordings out of looks alone: no probe, no pause, no privilege but that of reading one's own processes (T0).
//!
//! Owns who is watched and when each is looked at. A recording that is made so says what was there at each look, and nothing of what came
//! and went in between.

mod command;
mod family;
mod process;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::{fd::AsFd, unix::process::ExitStatusExt},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustc_hash::FxHashMap;

use self::family::Children;
use super::{
    asker::{Asker, Subject},
    follow::describe,
    join::{Dumper, Job},
    memory::{MemoryWatch, Round},
    recorder::Over,
};
use crate::{
    capture::{Capture, CaptureError, Message, Written},
    clock::{ClockTie, KtimeNs, ktime_now},
    golang::{self, GoBinary},
    id::{BinaryId, ProcessKey, Tgid},
    kernel::{gate::FileKey, signals::Signals},
    recording::contract::{ChildrenSeen, Drained, DumpBegins, DumpSource, End, Found, Joined, Note, Tier},
    snapshot::{dump::gone, process::Process},
    target::procfs,
};

pub use command::recorded as command;
pub use process::recorded as process;

/// How long nothing may be done at all.
const IDLE: Duration = Duration::from_millis(20);
/// Between two looks there is at least so many times what the last one took.
const LOOKS_SHARE: u64 = 3;
/// Between two searches for processes there is at least this, and so many times what the last one took.
const SEARCH_EVERY_NS: u64 = 20_000_000;
const SEARCH_SHARE: u64 = 30;
/// How long the last looks may take.
const LAST_LOOKS: Duration = Duration::from_secs(10);

/// Who is to be watched, and until when.
trait Course {
    type End;
    fn take_signals(&mut self, signals: &mut Signals) -> Result<()>;
    /// The processes that are to be watched as far as they run Go programs; comes every now and then.
    fn members(&mut self, watched: &[ProcessKey]) -> Vec<ProcessKey>;
    fn ended(&mut self) -> Result<Option<Self::End>>;
}

/// A Go process that is watched.
struct Watched {
    program: FileKey,
    binary: BinaryId,
    code: Arc<GoBinary>,
    /// When it is to be looked at next.
    due: KtimeNs,
    /// Looks that were begun, and whether the last one is under way.
    looks: u32,
    under_way: bool,
}

/// Watches processes, and writes down what it sees.
struct Watcher {
    capture: Capture,
    dumper: Dumper,
    asker: Option<Asker>,
    memory: MemoryWatch,
    /// What the files are that were met; `None`: nothing that can be looked into.
    known: FxHashMap<FileKey, Option<(BinaryId, Arc<GoBinary>)>>,
    watched: BTreeMap<ProcessKey, Watched>,
    /// A process that is watched whatever it runs, for its children and descriptors, too.
    target: Option<Target>,
    every_ns: u64,
    spare_toolchain: bool,
    /// When looks that are under way began.
    looking: Option<KtimeNs>,
    search_due: KtimeNs,
}

/// How it is watched.
struct How {
    every: Duration,
    /// Processes of the Go toolchain itself are not looked at.
    spare_toolchain: bool,
}

impl Watcher {
    fn start(capture: Capture, memory: MemoryWatch, how: &How) -> std::io::Result<Self> {
        // Without any mark it would not be known that the recording has marks.
        capture.send(Message::Drained(Drained { at: KtimeNs(0), next_seq: Vec::new() }));
        Ok(Self {
            dumper: Dumper::start(&capture)?,
            capture,
            asker: None,
            memory,
            known: FxHashMap::default(),
            watched: BTreeMap::new(),
            target: None,
            every_ns: u64::try_from(how.every.as_nanos()).unwrap_or(u64::MAX),
            spare_toolchain: how.spare_toolchain,
            looking: None,
            search_due: KtimeNs(0),
        })
    }

    /// Watches until the course is over.
    fn serve<C: Course>(&mut self, course: &mut C, signals: &mut Signals) -> Result<C::End> {
        loop {
            course.take_signals(signals)?;
            if let Some(end) = course.ended()? {
                return Ok(end);
            }
            let now = ktime_now();
            if now >= self.search_due {
                self.search(course, now);
            }
            self.look_around(now);
            let mut ready = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut ready, PollTimeout::try_from(IDLE).unwrap_or(PollTimeout::ZERO));
        }
    }

    /// Finds who is new, who has ended, and who runs another program by now.
    fn search<C: Course>(&mut self, course: &mut C, now: KtimeNs) {
        let watched: Vec<ProcessKey> = self.watched.keys().copied().collect();
        for key in course.members(&watched) {
            self.meet(key);
        }
        self.bury();
        let took = ktime_now().since(now);
        self.search_due = KtimeNs(ktime_now().0.saturating_add(SEARCH_EVERY_NS.max(took.saturating_mul(SEARCH_SHARE))));
    }

    /// A process is to be watched: it is if it runs a Go program, from when on it does.
    fn meet(&mut self, key: ProcessKey) {
        let tgid = key.tgid;
        let Ok(program) = FileKey::of_process(tgid) else { return };
        if self.watched.get(&key).is_some_and(|watched| watched.program == program) {
            return;
        }
        let Some((binary, code)) = self.identify(tgid, program) else { return };
        let Ok(process) = Process::running(tgid, Arc::clone(&code)) else { return };
        let at = ktime_now();
        self.tell_found(key, at);
        self.capture.send(Message::Joined(Joined {
            at,
            tgid,
            start_ticks: key.start_ticks,
            parent: procfs::stat(tgid).ok().map(|stat| stat.parent).filter(|parent| parent.0 != 0),
            args: procfs::args(tgid),
            binary,
            load_bias: process.bias,
            dump_follows: true,
        }));
        self.watched.insert(key, Watched { program, binary, code, due: at, looks: 0, under_way: false });
    }

    /// Watches a process whatever it runs.
    fn aim(&mut self, key: ProcessKey) {
        self.tell_found(key, ktime_now());
        self.target = Some(Target { key, children: Children::of(key.tgid) });
    }

    fn tell_found(&self, key: ProcessKey, at: KtimeNs) {
        let tgid = key.tgid;
        self.capture.send(Message::Found(Found {
            at,
            tgid,
            start_ticks: key.start_ticks,
            parent: procfs::stat(tgid).ok().map(|stat| stat.parent).filter(|parent| parent.0 != 0),
            exe: fs::read_link(format!("/proc/{tgid}/exe")).map_or_else(|_| String::new(), |path| path.display().to_string()),
            args: procfs::args(tgid),
            unified: 0,
            memory: 0,
        }));
    }

    /// What a process runs, if that can be looked into.
    fn identify(&mut self, tgid: Tgid, program: FileKey) -> Option<(BinaryId, Arc<GoBinary>)> {
        if let Some(known) = self.known.get(&program) {
            return known.clone();
        }
        let id = BinaryId(u16::try_from(self.known.len() + 1).ok()?);
        let read = read_program(tgid, self.spare_toolchain);
        if let Err(error) = &read {
            let exe = fs::read_link(format!("/proc/{tgid}/exe")).unwrap_or_default().display().to_string();
            let note = Note::Unprobed { at: ktime_now(), tgid, exe, reason: format!("{error:#}") };
            self.capture.send(Message::Note(note));
        }
        let known = read.ok().flatten().map(|(path, code)| {
            let code = Arc::new(code);
            let described = describe(id, &path, &code, Tier::T0, &[]);
            self.capture.send(Message::Binary(Box::new((described, Arc::clone(&code)))));
            self.capture.send(Message::Note(Note::Coverage {
                at: ktime_now(),
                binary: id,
                tier: Tier::T0,
                why: None,
                share_ppm: None,
            }));
            (id, code)
        });
        self.known.insert(program, known.clone());
        known
    }

    /// Those that are not there any more.
    fn bury(&mut self) {
        let lives = |key: &ProcessKey| procfs::stat(key.tgid).is_ok_and(|stat| stat.key == *key && !stat.zombie);
        let target = self.target.as_ref().map(|target| target.key);
        let ended: Vec<ProcessKey> = self.watched.keys().copied().chain(target).filter(|key| !lives(key)).collect();
        for key in ended {
            self.capture.send(Message::Dump(Box::new(gone(key, ktime_now()))));
            self.watched.remove(&key);
            self.target.take_if(|target| target.key == key);
        }
    }

    /// Looks at those whose time has come.
    fn look_around(&mut self, now: KtimeNs) {
        self.settle_looks(now);
        if self.looking.is_none() {
            self.look_at_due(now);
        }
        if let Some(seen) = self.target.as_mut().and_then(|target| target.children.look(now)) {
            self.capture.send(Message::ChildrenSeen(seen));
        }
        let keys = self.keys();
        let round = self.memory.look(now, keys.iter().copied(), keys.iter().copied());
        self.keep(round);
        self.ask_around();
    }

    fn keys(&self) -> Vec<ProcessKey> {
        let target = self.target.as_ref().map(|target| target.key).filter(|key| !self.watched.contains_key(key));
        self.watched.keys().copied().chain(target).collect()
    }

    fn keep(&self, round: Round) {
        let messages = round.memory.map(Message::Memory).into_iter().chain(round.note.map(Message::Note));
        messages.for_each(|message| self.capture.send(message));
    }

    /// Where looks have come to an end: when they are due again, and that nothing older will come.
    fn settle_looks(&mut self, now: KtimeNs) {
        if self.looking.is_none() || !self.dumper.is_idle() {
            return;
        }
        let took = self.looking.take().map_or(0, |began| now.since(began));
        let pause = self.every_ns.saturating_sub(took).max(took.saturating_mul(LOOKS_SHARE));
        for watched in self.watched.values_mut().filter(|watched| watched.under_way) {
            (watched.due, watched.under_way) = (KtimeNs(now.0.saturating_add(pause)), false);
        }
        self.capture.send(Message::Drained(Drained { at: now, next_seq: Vec::new() }));
    }

    fn look_at_due(&mut self, now: KtimeNs) {
        for (key, watched) in self.watched.iter_mut().filter(|(_, watched)| watched.due <= now) {
            let Ok(process) = Process::running(key.tgid, Arc::clone(&watched.code)) else { continue };
            // The first look belongs to the process's being joined, each later one is announced.
            let check = watched.looks > 0;
            if check {
                let begins = DumpBegins { at: ktime_now(), tgid: key.tgid, source: DumpSource::Memory };
                self.capture.send(Message::DumpBegins(begins));
            }
            watched.looks += 1;
            watched.under_way = true;
            self.dumper.dump(Job { key: *key, process, binary: watched.binary, tier: Tier::T0, check });
            self.looking.get_or_insert(now);
        }
    }

    /// Puts the questions that are due.
    fn ask_around(&mut self) {
        let Some(mut asker) = self.asker.take() else { return };
        for (key, Watched { program, binary, code, .. }) in &self.watched {
            let subject = Subject { key: *key, program: *program, binary: *binary, code: Arc::clone(code), tier: Tier::T0 };
            asker.meet(&subject, &self.capture);
        }
        asker.keep(|key| self.watched.contains_key(key));
        asker.look_around(|tgid| self.announce(tgid));
        for tgid in asker.take_proven() {
            // What Go's collector proved stands in their states, until it collects again.
            let proven = self.watched.iter_mut().filter(|(key, watched)| key.tgid == tgid && !watched.under_way);
            proven.for_each(|(_, watched)| watched.due = KtimeNs(0));
        }
        self.asker = Some(asker);
    }

    /// Puts the last questions, and waits for the answers: the last looks find what they have proven.
    fn ask_at_last(&mut self) {
        let Some(mut asker) = self.asker.take() else { return };
        while asker.at_last(true, |tgid| self.announce(tgid)) {
            self.settle_looks(ktime_now());
            std::thread::sleep(Duration::from_millis(1));
        }
        asker.finish();
    }

    fn announce(&self, tgid: Tgid) -> KtimeNs {
        let at = ktime_now();
        self.capture.send(Message::DumpBegins(DumpBegins { at, tgid, source: DumpSource::Pprof }));
        at
    }

    /// Looks at everybody once more who is still there, and ends the recording.
    fn finish(mut self, over: &Over<'_>) -> (Written, Result<(), CaptureError>) {
        let began = Instant::now();
        self.bury();
        self.ask_at_last();
        self.watched.values_mut().for_each(|watched| watched.due = KtimeNs(0));
        let mut asked_twice = false;
        while began.elapsed() < LAST_LOOKS && !self.capture.failed() {
            self.settle_looks(ktime_now());
            if self.looking.is_none() {
                if std::mem::replace(&mut asked_twice, true) {
                    break;
                }
                self.look_at_due(ktime_now());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.dumper.give_up_checks();
        let now = ktime_now();
        if let Some(seen) = self.target.as_mut().and_then(|target| target.children.look(KtimeNs::MAX)) {
            self.capture.send(Message::ChildrenSeen(ChildrenSeen { at: now, ..seen }));
        }
        let keys = self.keys();
        let round = self.memory.last(now, keys.into_iter(), std::iter::empty());
        self.keep(round);
        self.dumper.finish();
        self.capture.send(Message::End(End {
            at: ktime_now(),
            reason: over.reason.to_owned(),
            detach_ns: None,
            clock: Some(ClockTie::now()),
            wait_status: over.command.map(|ended| ended.status.into_raw()),
            target_cpu_ns: over.command.map(|ended| ended.cpu_ns),
        }));
        self.capture.finish()
    }
}

/// A process that is watched whatever it runs.
struct Target {
    key: ProcessKey,
    children: Children,
}

/// The Go program that a process runs; `None`: no Go program, or one that is left alone.
fn read_program(tgid: Tgid, spare_toolchain: bool) -> Result<Option<(PathBuf, GoBinary)>> {
    let file = File::open(format!("/proc/{tgid}/exe"))?;
    if !golang::looks_like_go(&file)? {
        return Ok(None);
    }
    let code = GoBinary::open(&file)?;
    code.snapshot_layout()?;
    let path = fs::read_link(format!("/proc/{tgid}/exe"))?;
    Ok((!spare_toolchain || !code.is_toolchain()).then_some((path, code)))
}
