//! When processes are asked by HTTP, and what of it is due.
//!
//! Each process has a thread of its own that does the asking ([`questioner`]): a slow server keeps nobody else waiting, and a thread
//! that has gone into another network namespace stays there. The recorder's thread says when, because it alone may announce a dump of
//! goroutines: what is announced stands in the recording before the events that are held against it.

mod questioner;
mod trouble;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
        mpsc::{self, Sender, SyncSender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;

use self::questioner::Questioner;
use super::args::{PprofArgs, PprofServer};
use crate::{
    capture::{Capture, Message},
    clock::{KtimeNs, ktime_now},
    golang::GoBinary,
    id::{BinaryId, ProcessKey, Tgid},
    kernel::gate::FileKey,
    pprof::client::Client,
    recording::contract::{Note, ProfileKind, Tier},
};

/// Processes that are asked.
const MAX_ASKED: usize = 32;
/// How long the end of a recording waits for answers.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// What is asked, and how often.
#[derive(Clone, Debug)]
pub struct How {
    pub server: PprofServer,
    /// Heap profiles and numbers are wanted, so often.
    pub heap_every: Option<Duration>,
    /// Besides them.
    pub profiles: Vec<ProfileKind>,
}

/// A process that can be asked.
#[derive(Clone)]
pub struct Subject {
    pub key: ProcessKey,
    pub program: FileKey,
    pub binary: BinaryId,
    pub code: Arc<GoBinary>,
    /// Detail at which it is followed.
    pub tier: Tier,
}

/// Which of the rounds of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    First,
    Later,
    Last,
}

/// What a questioner is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Look whether a dump of goroutines can be asked for.
    Prepare,
    /// Ask for one, which is announced as of this time.
    Goroutines(KtimeNs),
    Profiles(Round),
}

/// What a questioner does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// It looks for the server.
    Searching,
    Idle,
    Busy,
    /// It would ask for goroutines, once that is announced.
    Prepared,
    /// It asks no more.
    Over,
}

/// A [`State`] that two threads see.
#[derive(Clone, Default)]
pub struct Shared(Arc<AtomicU8>);

impl Shared {
    pub fn set(&self, state: State) {
        self.0.store(state as u8, Ordering::SeqCst);
    }

    fn get(&self) -> State {
        let states = [State::Searching, State::Idle, State::Busy, State::Prepared, State::Over];
        states.into_iter().find(|state| *state as u8 == self.0.load(Ordering::SeqCst)).unwrap_or(State::Over)
    }
}

/// Who asks.
pub struct Asker {
    how: Arc<How>,
    /// How often goroutines are asked for, besides at the start and before the end.
    every: Option<Duration>,
    sender: SyncSender<Message>,
    asked: FxHashMap<ProcessKey, Asked>,
    /// There was one to ask; and there were too many.
    began: bool,
    refused: bool,
    /// Since when the end is waited for.
    ending: Option<Instant>,
}

/// One process that is asked.
struct Asked {
    tgid: Tgid,
    jobs: Sender<Job>,
    state: Shared,
    client: Client,
    proven: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    /// When what is due next; profiles come after the first goroutines, which show whether the answers are the process's own.
    goroutines: Option<Instant>,
    profiles: Option<(Instant, Round)>,
    wants_profiles: bool,
}

impl Asker {
    /// `None`: nobody is to be asked.
    pub fn new(args: &PprofArgs, every: Option<Duration>, capture: &Capture) -> Option<Self> {
        let how = How {
            server: args.pprof.clone()?,
            heap_every: args.heap_every,
            profiles: args.profile.iter().map(|kind| (*kind).into()).collect(),
        };
        let sender = capture.sender()?;
        Some(Self { how: Arc::new(how), every, sender, asked: FxHashMap::default(), began: false, refused: false, ending: None })
    }

    /// A Go process has come to be followed. It is asked from now on, once, whatever program it runs later.
    pub fn meet(&mut self, subject: &Subject, capture: &Capture) {
        if self.ending.is_some() || self.asked.contains_key(&subject.key) {
            return;
        }
        let tgid = subject.key.tgid;
        let active = self.asked.values().filter(|asked| asked.state.get() != State::Over).count();
        if active >= MAX_ASKED {
            if !std::mem::replace(&mut self.refused, true) {
                let text = format!("process {tgid} and those after it are not asked for profiles: {MAX_ASKED} are asked already");
                tracing::warn!("{text}");
                capture.send(Message::Note(Note::Warning { at: ktime_now(), text }));
            }
            return;
        }
        match self.start(subject.clone()) {
            Ok(asked) => drop(self.asked.insert(subject.key, asked)),
            Err(error) => tracing::warn!(%error, "process {tgid} cannot be asked for profiles"),
        }
    }

    /// Forgets processes that are no longer followed, once nothing is to come from them.
    pub fn keep(&mut self, followed: impl Fn(&ProcessKey) -> bool) {
        self.asked.retain(|key, asked| asked.state.get() != State::Over || followed(key));
    }

    fn start(&mut self, subject: Subject) -> io::Result<Asked> {
        let tgid = subject.key.tgid;
        let (jobs, waiting) = mpsc::channel();
        let (state, client) = (Shared::default(), Client::default());
        let first = !std::mem::replace(&mut self.began, true);
        let proven = Arc::new(AtomicBool::new(false));
        let shared = (client.clone(), state.clone(), Arc::clone(&proven));
        let questioner = Questioner::new(subject, Arc::clone(&self.how), shared, self.sender.clone(), first);
        let thread = thread::Builder::new().name("asker".into()).spawn(move || questioner.serve(&waiting))?;
        let now = Instant::now();
        let wants_profiles = self.how.heap_every.is_some() || !self.how.profiles.is_empty();
        let profiles = wants_profiles.then_some((now, Round::First));
        Ok(Asked { tgid, jobs, state, client, proven, thread, goroutines: Some(now), profiles, wants_profiles })
    }

    /// Hands out what is due. Comes a few times a second. `announce` says in the recording that goroutines are about to be asked for.
    pub fn look_around(&mut self, announce: impl Fn(Tgid) -> KtimeNs) {
        let now = Instant::now();
        for asked in self.asked.values_mut() {
            asked.look_around(now, self.every, self.how.heap_every, &announce);
        }
    }

    /// The processes whose collector has just proven which goroutines are leaked: a look at their memory finds them in that state, if it
    /// comes before the next collection.
    pub fn take_proven(&self) -> Vec<Tgid> {
        let asked = self.asked.values().filter(|asked| asked.proven.swap(false, Ordering::AcqRel));
        asked.map(|asked| asked.tgid).collect()
    }

    /// The same at the end: what has been asked is waited for, and with `whole` each process is asked once more. False when it is over.
    pub fn at_last(&mut self, whole: bool, announce: impl Fn(Tgid) -> KtimeNs) -> bool {
        let now = Instant::now();
        let since = *self.ending.get_or_insert_with(|| {
            self.asked.values_mut().for_each(|asked| asked.at_last(now, whole));
            now
        });
        let mut open = false;
        for asked in self.asked.values_mut() {
            asked.look_around(now, None, None, &announce);
            open |= match asked.state.get() {
                State::Busy | State::Prepared => true,
                State::Idle => asked.is_due(),
                State::Searching | State::Over => false,
            };
        }
        open && since.elapsed() < LAST_PATIENCE
    }

    /// Breaks off what is still open, and waits until everything is handed over.
    pub fn finish(self) {
        let threads: Vec<_> = self
            .asked
            .into_values()
            .map(|asked| {
                asked.client.stop();
                asked.thread
            })
            .collect();
        for thread in threads {
            let _ = thread.join();
        }
    }
}

impl Asked {
    fn is_due(&self) -> bool {
        self.goroutines.is_some() || self.profiles.is_some()
    }

    fn look_around(
        &mut self,
        now: Instant,
        goroutines_every: Option<Duration>,
        heap_every: Option<Duration>,
        announce: &impl Fn(Tgid) -> KtimeNs,
    ) {
        match self.state.get() {
            State::Searching | State::Busy | State::Over => {}
            State::Prepared => {
                // Said before anything is asked, so that readers keep back what happens from here on.
                let at = announce(self.tgid);
                self.give(Job::Goroutines(at));
            }
            State::Idle => {
                if self.goroutines.is_some_and(|due| due <= now) {
                    self.goroutines = goroutines_every.map(|every| now + every);
                    self.give(Job::Prepare);
                } else if let Some((due, round)) = self.profiles.filter(|(due, _)| *due <= now) {
                    self.profiles = heap_every.map(|every| ((due + every).max(now), Round::Later));
                    self.give(Job::Profiles(round));
                }
            }
        }
    }

    fn at_last(&mut self, now: Instant, whole: bool) {
        self.goroutines = whole.then_some(now);
        self.profiles = (whole && self.wants_profiles).then_some((now, Round::Last));
    }

    fn give(&self, job: Job) {
        self.state.set(State::Busy);
        // A thread that has ended says so in its state.
        let _ = self.jobs.send(job);
    }
}
