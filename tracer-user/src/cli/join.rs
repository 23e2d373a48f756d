//! Reading the goroutines of processes that run already, beside the recording.
//!
//! A dump may take as long as the ring takes to fill, so a thread of its own makes them, one after the other.

use std::{
    io::{self, ErrorKind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{self, Sender, SyncSender},
    },
    thread::{self, JoinHandle},
};

use rustc_hash::FxHashMap;

use crate::{
    capture::{Capture, Message},
    clock::ktime_now,
    id::{BinaryId, ProcessKey, Tgid},
    recording::contract::{Note, TestsSeen, Tier},
    snapshot::{
        Before, Detail,
        dump::{Of, failed, parts},
        process::{Process, ProcessError},
    },
    target::procfs,
};

/// Why a running process cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("there is no process {tgid}")]
    NoProcess { tgid: Tgid },
    #[error("process {tgid} ended, or became another program, while it was looked at")]
    Gone { tgid: Tgid },
    #[error("not allowed to look at process {tgid}: run as root")]
    Forbidden { tgid: Tgid },
    #[error("process {tgid} cannot be traced: {source:#}")]
    Unprobed { tgid: Tgid, source: anyhow::Error },
    #[error("the program of process {tgid} could not be probed before")]
    Refused { tgid: Tgid },
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("process {tgid} cannot be looked at: {source}")]
    Io { tgid: Tgid, source: io::Error },
}

impl JoinError {
    pub fn of(tgid: Tgid, source: io::Error) -> Self {
        match source.kind() {
            ErrorKind::NotFound => Self::NoProcess { tgid },
            ErrorKind::PermissionDenied => Self::Forbidden { tgid },
            _ if source.raw_os_error() == Some(libc::ESRCH) => Self::Gone { tgid },
            _ => Self::Io { tgid, source },
        }
    }
}

/// A process whose goroutines are to be read.
pub struct Job {
    pub key: ProcessKey,
    pub process: Process,
    pub binary: BinaryId,
    pub tier: Tier,
    /// What it tells is held against events; else the process is just being joined.
    pub check: bool,
}

/// Processes of which it is kept what the look before found.
const MAX_KEPT: usize = 64;

/// The thread that reads.
pub struct Dumper {
    jobs: Sender<Job>,
    /// Jobs that were given and are not done.
    outstanding: Arc<AtomicUsize>,
    /// Checks are not taken any more.
    given_up: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Dumper {
    pub fn start(capture: &Capture) -> io::Result<Self> {
        let (jobs, waiting) = mpsc::channel::<Job>();
        let sender = capture.sender();
        let outstanding = Arc::new(AtomicUsize::new(0));
        let done = Arc::clone(&outstanding);
        let given_up = Arc::new(AtomicBool::new(false));
        let too_late = Arc::clone(&given_up);
        let thread = thread::Builder::new().name("dumper".into()).spawn(move || {
            if let Some(sender) = sender {
                let mut before = FxHashMap::default();
                for job in waiting {
                    dump(&job, &sender, job.check && too_late.load(Ordering::Relaxed), &mut before);
                    done.fetch_sub(1, Ordering::Release);
                }
            }
        })?;
        Ok(Self { jobs, outstanding, given_up, thread })
    }

    pub fn dump(&self, job: Job) {
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        // It ends with us, not before.
        let _ = self.jobs.send(job);
    }

    /// Whether every dump is handed over.
    pub fn is_idle(&self) -> bool {
        self.outstanding.load(Ordering::Acquire) == 0
    }

    /// Takes no more checks: of those announced it is said that they were not taken.
    pub fn give_up_checks(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Waits until every dump is handed over.
    pub fn finish(self) {
        drop(self.jobs);
        let _ = self.thread.join();
    }
}

/// Reads and hands over. A process that cannot be read, or ended meanwhile, is one of which the memory told nothing.
fn dump(job: &Job, sender: &SyncSender<Message>, too_late: bool, before: &mut FxHashMap<ProcessKey, Before>) {
    let Job { key, process, binary, tier, check } = job;
    let tgid = key.tgid;
    let of = Of { process: *key, binary: &process.binary, binary_id: *binary, bias: process.bias, tier: *tier, check: *check };
    // The receiver is there until the capture is finished, which waits for us.
    let send = |message| drop(sender.send(message));
    if too_late {
        send(Message::Dump(Box::new(failed(of, ktime_now(), "the probes were about to go".to_owned(), false))));
        return;
    }
    let detail = match tier {
        // No event will ever tell.
        Tier::T0 => Detail::WithChannels,
        // Nothing keeps up what they wait for.
        Tier::T1 => Detail::WithoutStacks,
        Tier::T2 | Tier::T3 => Detail::Whole,
    };
    let mut passing = Before::default();
    let kept = match tier {
        Tier::T0 if before.len() < MAX_KEPT || before.contains_key(key) => before.entry(*key).or_default(),
        _ => &mut passing,
    };
    match process.snapshot_again(detail, kept) {
        Ok(snapshot) => {
            parts(&snapshot, of).for_each(|part| send(Message::Dump(Box::new(part))));
            let tests = if *tier == Tier::T0 { process.tests(&snapshot.found) } else { Vec::new() };
            if !tests.is_empty() {
                send(Message::TestsSeen(TestsSeen { at: snapshot.taken_at_ktime, tgid, tests }));
            }
        }
        // Its end, or that it became another program, is told by events; a look that comes too late says it for those that are lost.
        Err(ProcessError::Gone { .. } | ProcessError::NoProcess { .. }) if *check => {
            let lives = procfs::stat(tgid).is_ok_and(|stat| stat.key == *key && !stat.zombie);
            let text = format!("process {tgid} ended or became another program");
            send(Message::Dump(Box::new(failed(of, ktime_now(), text, !lives))));
        }
        Err(error) => {
            let what = if *check { "goroutines" } else { "goroutines that lived before" };
            let text = format!("{:#}", anyhow::Error::from(error).context(format!("process {tgid}: {what} unknown")));
            crate::cli::seldom::warn(&text);
            send(Message::Note(Note::Warning { at: ktime_now(), text: text.clone() }));
            send(Message::Dump(Box::new(failed(of, ktime_now(), text, false))));
        }
    }
}
