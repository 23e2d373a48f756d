//! The thread that asks one process: it finds the server, holds what that says against the process's memory, and hands it on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender},
    },
    time::{Duration, Instant},
};

use rustc_hash::FxHashSet;

use super::{
    How, Job, Round, Shared, State, Subject,
    trouble::{Chain, Trouble},
};
use crate::{
    capture::Message,
    cli::args::PprofServer,
    clock::{KtimeNs, ktime_now},
    id::Tgid,
    kernel::gate::FileKey,
    pprof::{
        CPU_SECONDS, MAX_ANSWER, MAX_TEXT_GOROUTINES,
        base::Base,
        client::{BRIEF, Client, ClientError, MAX_INDEX, PATIENCE},
        discover::{self, DiscoverError, Search},
        index, mem_stats, path_of, profile,
        resolve::{Names, claims, resolve, sight},
        text,
        verdict::{self, Sight},
    },
    recording::contract::{GoroutineDump, MemoryAt, Note, ProcessMemory, Profile, ProfileKind},
    snapshot::{
        Detail, Goroutines,
        dump::{Of, failed},
        process::{Process, ProcessError},
    },
    target::procfs,
};

/// Between two looks for a server: at first, and at most.
const SEARCH_FIRST: Duration = Duration::from_millis(100);
const SEARCH_LAST: Duration = Duration::from_secs(5);
/// How long a process may take until it listens, before a warning says that it does not.
const SEARCH_QUIET: Duration = Duration::from_secs(5);

/// Asks one process.
pub struct Questioner {
    subject: Subject,
    how: Arc<How>,
    client: Client,
    state: Shared,
    sender: SyncSender<Message>,
    /// It is the first: a URL that leads to no process's own socket is taken for its server.
    first: bool,
    warned: FxHashSet<String>,
    server: Option<Server>,
    /// Its memory; `Err` where that cannot be read.
    process: Option<Result<Process, ProcessError>>,
    before: Option<Goroutines>,
    noted_requests: u64,
    /// It has just proven which goroutines are leaked.
    proven: Arc<AtomicBool>,
}

struct Server {
    base: Base,
    /// It answers on a socket of the process's own.
    own: bool,
    trust: Trust,
}

/// What the goroutines showed that a server told of last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// They were not asked for yet, or could not be held against anything.
    Unknown,
    /// They are those of the process.
    Borne,
    /// They are those of another.
    Lies,
}

impl Questioner {
    pub fn new(
        subject: Subject,
        how: Arc<How>,
        shared: (Client, Shared, Arc<AtomicBool>),
        sender: SyncSender<Message>,
        first: bool,
    ) -> Self {
        let (warned, server, process, before) = (FxHashSet::default(), None, None, None);
        let (client, state, proven) = shared;
        Self { subject, how, client, state, sender, first, warned, server, process, before, noted_requests: 0, proven }
    }

    /// Works until nobody hands out jobs any more, or nothing can be asked.
    pub fn serve(mut self, jobs: &Receiver<Job>) {
        if self.search(jobs) {
            self.state.set(State::Idle);
            for job in jobs {
                let next = self.work(job);
                self.note_cost();
                self.state.set(next);
                if next == State::Over {
                    break;
                }
            }
        }
        self.note_cost();
        self.state.set(State::Over);
    }

    /// Looks for the server until it is found; false if there will be none.
    fn search(&mut self, jobs: &Receiver<Job>) -> bool {
        let began = Instant::now();
        let mut pause = SEARCH_FIRST;
        let mut search = Search::default();
        if self.how.server == PprofServer::Auto
            && let Err(error) = discover::enter_network(self.tgid())
        {
            self.complain(&error);
            return false;
        }
        let mut last = None;
        loop {
            match self.look(&mut search) {
                Ok(Some(server)) => {
                    tracing::info!("process {} is asked for profiles at {}", self.tgid(), server.base);
                    self.server = Some(server);
                    return true;
                }
                Ok(None) if !self.runs_it() => break,
                Ok(None) => {}
                // What is said of a process that has gone is not what was wrong.
                Err(_) if !self.runs_it() => break,
                Err(error) => {
                    if began.elapsed() > SEARCH_QUIET {
                        self.complain(&error);
                    }
                    last = Some(error);
                }
            }
            // No job comes meanwhile: only the end.
            if jobs.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
                break;
            }
            pause = (pause * 3 / 2).min(SEARCH_LAST);
        }
        // Many a command starts programs that are over at once; only the first is missed.
        if let Some(error) = last.filter(|_| self.first) {
            self.complain(&error);
        }
        false
    }

    fn look(&self, search: &mut Search) -> Result<Option<Server>, DiscoverError> {
        let base = match &self.how.server {
            PprofServer::Auto => {
                let found = search.look(self.tgid(), &self.client)?;
                return Ok(Some(Server { base: found.base, own: true, trust: Trust::Unknown }));
            }
            PprofServer::At(base) => base.clone(),
        };
        let own = discover::owns(self.tgid(), &base);
        if !own && !self.first {
            return Ok(None);
        }
        // Whoever owns the socket may be in another namespace, or another machine.
        if !own {
            discover::reach(&base, &self.client)?;
        }
        Ok(Some(Server { base, own, trust: Trust::Unknown }))
    }

    fn work(&mut self, job: Job) -> State {
        match job {
            Job::Prepare => self.prepare(),
            Job::Goroutines(at) => self.goroutines(at),
            Job::Profiles(round) => self.profiles(round),
        }
    }

    /// Counts the goroutines, and keeps in mind who is there.
    fn prepare(&mut self) -> State {
        let Some(server) = &self.server else { return State::Over };
        let index = server.base.index();
        self.before = self.look_at_memory();
        let counted = match &self.before {
            Some(found) => Ok(found.all.len() as u64),
            // Where the page does not say how many there are, there may be any number.
            None => self
                .client
                .get(&index, MAX_INDEX, BRIEF)
                .map(|page| index::parse(&String::from_utf8_lossy(&page)).and_then(|index| index.goroutines).unwrap_or(u64::MAX)),
        };
        match counted {
            Ok(count) if count > MAX_TEXT_GOROUTINES => self.trouble("goroutines", &Trouble::TooMany(count)),
            Ok(_) => State::Prepared,
            Err(error) => self.trouble("goroutines", &error.into()),
        }
    }

    /// Asks for all goroutines, believes them if they are the process's, and hands them on. What was announced comes in any case.
    fn goroutines(&mut self, at: KtimeNs) -> State {
        let Some(server) = &self.server else { return State::Over };
        let url = server.base.profile("goroutine?debug=2");
        let told = self.client.get(&url, MAX_ANSWER, PATIENCE).map_err(Trouble::from);
        let told = told.and_then(|bytes| self.believe(&String::from_utf8_lossy(&bytes), at));
        let (dump, next) = match told {
            Ok(dump) => (dump, State::Idle),
            Err(trouble) => {
                // That it has gone is so as of now: its end is behind the announcement.
                let gone = !self.lives();
                let at = if gone { ktime_now() } else { at };
                (self.no_dump(at, &trouble, gone), self.trouble("goroutines", &trouble))
            }
        };
        self.send(Message::Dump(Box::new(dump)));
        next
    }

    fn believe(&mut self, told: &str, at: KtimeNs) -> Result<GoroutineDump, Trouble> {
        let to = ktime_now();
        let dump = text::parse(told)?;
        let after = self.look_at_memory();
        if !self.runs_it() {
            return Err(Trouble::Unverified(ProcessError::Gone { tgid: self.tgid() }));
        }
        let (code, bias) = (Arc::clone(&self.subject.code), self.bias());
        if let (Some(before), Some(after)) = (&self.before, &after) {
            let [before, after]: [Sight; 2] = [before, after].map(|found| sight(found, &code, bias));
            let judged = verdict::judge(&before, &after, &claims(&dump), dump.cut, processors());
            let trust = if judged.is_ok() { Trust::Borne } else { Trust::Lies };
            self.server.iter_mut().for_each(|server| server.trust = trust);
            judged?;
        } else if (!self.server.as_ref().is_some_and(|server| server.own) || code.is_pie())
            && let Some(Err(error)) = self.process.take()
        {
            return Err(Trouble::Unverified(error));
        }
        let mut names = Names::new(&code, bias);
        Ok(resolve(&dump, after.as_ref(), &mut names, self.of(), (at, to))?)
    }

    /// What stands in place of a dump that was announced.
    fn no_dump(&self, at: KtimeNs, trouble: &Trouble, gone: bool) -> GoroutineDump {
        let mut dump = failed(self.of(), at, Chain(trouble).to_string(), gone);
        dump.source = crate::recording::contract::DumpSource::Pprof;
        dump
    }

    fn profiles(&mut self, round: Round) -> State {
        if !self.lives() {
            return State::Over;
        }
        match &self.server {
            Some(Server { trust: Trust::Lies, .. }) | None => return State::Idle,
            Some(Server { own: false, trust: Trust::Unknown, base }) if self.warned.insert("unverified profiles".to_owned()) => {
                self.warn(format!("process {}, asked at {base}: whether the profiles are its own cannot be told", self.tgid()));
            }
            Some(_) => {}
        }
        let mut kinds = Vec::new();
        if self.how.heap_every.is_some() {
            kinds.push(ProfileKind::Heap);
        }
        kinds.extend(self.how.profiles.iter().copied().filter(|kind| *kind != ProfileKind::Cpu));
        let with_cpu = round == Round::First && self.how.profiles.contains(&ProfileKind::Cpu);
        kinds.extend(with_cpu.then_some(ProfileKind::Cpu));
        for kind in kinds {
            let told = self.profile(kind).and_then(|()| if kind == ProfileKind::Heap { self.heap() } else { Ok(()) });
            if let Err(trouble) = told {
                let next = self.trouble(&path_of(kind), &trouble);
                // A server that is in trouble is left alone until the next time.
                if next == State::Over || !matches!(trouble, Trouble::Client(ClientError::Status { .. }) | Trouble::Answer(_)) {
                    return next;
                }
            }
        }
        State::Idle
    }

    fn profile(&self, kind: ProfileKind) -> Result<(), Trouble> {
        let Some(server) = &self.server else { return Ok(()) };
        let url = server.base.profile(&path_of(kind));
        let patience = if kind == ProfileKind::Cpu { PATIENCE + Duration::from_secs(CPU_SECONDS) } else { PATIENCE };
        let at = ktime_now();
        let data = self.client.get(&url, MAX_ANSWER, patience)?;
        let took_ns = ktime_now().since(at);
        profile::decode(&data)?;
        if kind == ProfileKind::GoroutineLeak {
            self.proven.store(true, Ordering::Release);
        }
        self.send(Message::Profile(Box::new(Profile { at, took_ns, tgid: self.tgid(), kind, url, data })));
        Ok(())
    }

    /// The numbers of the heap, which stand below its profile as text.
    fn heap(&self) -> Result<(), Trouble> {
        let Some(server) = &self.server else { return Ok(()) };
        let at = ktime_now();
        let text = self.client.get(&server.base.profile("heap?debug=1"), MAX_ANSWER, PATIENCE)?;
        let heap = Some(mem_stats::parse(&String::from_utf8_lossy(&text))?);
        let process = ProcessMemory { tgid: self.tgid(), beside: None, rss_bytes: None, cgroup: None, heap, descriptors: None };
        self.send(Message::Memory(MemoryAt { at, processes: vec![process] }));
        Ok(())
    }

    /// Says what is wrong, once for each kind of it, and how to go on. A process that has ended is no trouble.
    fn trouble(&mut self, what: &str, trouble: &Trouble) -> State {
        if matches!(trouble, Trouble::Client(ClientError::Stopped)) || !self.runs_it() {
            return State::Over;
        }
        if self.warned.insert(trouble.kind(what)) {
            let at = self.server.as_ref().map_or_else(String::new, |server| format!(", asked at {}", server.base));
            self.warn(format!("process {}{at} ({what}): {}", self.tgid(), Chain(trouble)));
        }
        State::Idle
    }

    fn complain(&mut self, error: &DiscoverError) {
        if self.warned.insert(format!("{:?}", std::mem::discriminant(error))) {
            self.warn(format!("{}; goroutines are followed by events and memory alone", Chain(error)));
        }
    }

    fn warn(&self, text: String) {
        tracing::warn!("{text}");
        self.send(Message::Note(Note::Warning { at: ktime_now(), text }));
    }

    /// Who is there now; `None` if the memory cannot be read.
    fn look_at_memory(&mut self) -> Option<Goroutines> {
        let Subject { key, code, .. } = &self.subject;
        let process = self.process.get_or_insert_with(|| Process::running(key.tgid, Arc::clone(code)));
        let found = match process {
            Ok(process) => process.snapshot_of(Detail::WithoutStacks).map(|snapshot| snapshot.found),
            Err(_) => return None,
        };
        found.map_err(|error| self.process = Some(Err(error))).ok()
    }

    fn bias(&self) -> u64 {
        self.process.iter().flatten().map(|process| process.bias).next().unwrap_or_default()
    }

    fn of(&self) -> Of<'_> {
        let Subject { key, binary, code, tier, .. } = &self.subject;
        Of { process: *key, binary: code, binary_id: *binary, bias: self.bias(), tier: *tier, check: true }
    }

    /// Tells what was asked so far, if it is more than was told.
    fn note_cost(&mut self) {
        let spent = self.client.spent();
        let requests = spent.requests.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.noted_requests, requests) != requests {
            let url = self.server.as_ref().map_or_else(|| "auto".to_owned(), |server| server.base.to_string());
            let (bytes, took_ns) = (spent.bytes.load(Ordering::Relaxed), spent.took_ns.load(Ordering::Relaxed));
            self.send(Message::Note(Note::Asked { at: ktime_now(), tgid: self.tgid(), url, requests, bytes, took_ns }));
        }
    }

    fn send(&self, message: Message) {
        // The receiver is there until the capture is finished, which waits for us.
        drop(self.sender.send(message));
    }

    fn tgid(&self) -> Tgid {
        self.subject.key.tgid
    }

    /// Whether it is still the program that is known.
    fn runs_it(&self) -> bool {
        self.lives() && FileKey::of_process(self.tgid()).is_ok_and(|program| program == self.subject.program)
    }

    fn lives(&self) -> bool {
        procfs::stat(self.tgid()).is_ok_and(|stat| stat.key == self.subject.key && !stat.zombie)
    }
}

/// As many as the process has, or more: `GOMAXPROCS` is the number of CPUs unless somebody says otherwise.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}
