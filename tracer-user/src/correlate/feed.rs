//! Reads a recording ahead of who takes it: one thread reads blocks, others unpack and decode them side by side, and they are taken in the
//! order of the file. What waits is bounded, whatever the recording's size.

use std::{
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{self, Scope, available_parallelism},
    time::Duration,
};

use crate::{
    decode::decode,
    event::Event,
    index::Only,
    recording::{
        Block, Completeness, RecordingError,
        contract::Index,
        reader::{Recording, Source, Stored, Unpacker},
        records,
    },
};

/// Blocks that are read ahead of those that are being unpacked: with a megabyte of records each, two or three of events.
const AHEAD: usize = 2;
/// More threads than this have nothing to do: who takes the events is slower.
const MAX_UNPACKERS: usize = 4;

/// A step of a recording.
pub enum Step {
    Events {
        events: Vec<Event>,
        /// Records that could not be decoded.
        undecodable: u64,
    },
    Block(Block),
    /// Records that nobody wants were passed over.
    Passed(Index),
    /// There is no more, or nothing more that can be read.
    End(Result<Completeness, RecordingError>),
}

/// Steps in the order of the file; the last one is [`Step::End`].
pub struct Steps {
    places: Receiver<Receiver<Step>>,
    /// The first place, if it was looked at and its step was not there.
    place: Option<Receiver<Step>>,
}

impl Steps {
    /// The next step if it comes within so long; `Err`: it did not, or there is no more. What was waited for is not lost.
    pub fn within(&mut self, time: Duration) -> Result<Step, RecvTimeoutError> {
        let place = match self.place.take() {
            Some(place) => place,
            None => self.places.recv_timeout(time)?,
        };
        let step = place.recv_timeout(time);
        if step.as_ref().is_err_and(|error| *error == RecvTimeoutError::Timeout) {
            self.place = Some(place);
        }
        step
    }
}

impl Iterator for Steps {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        // A thread that has panicked sends nothing; the scope passes that on.
        self.place.take().map_or_else(|| self.places.recv(), Ok).ok()?.recv().ok()
    }
}

/// A block, and where what it says goes.
struct Job {
    stored: Arc<Stored>,
    done: SyncSender<Step>,
}

/// Starts reading; with `only`, blocks of records that say nothing of that goroutine are left out where the recording has an index.
pub fn feed<'scope, R: Source + Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    recording: Recording<R>,
    only: Option<Only>,
) -> Result<Steps, RecordingError> {
    let path = recording.path().to_owned();
    let started = |result: std::io::Result<thread::ScopedJoinHandle<'_, ()>>| {
        result.map(drop).map_err(|source| RecordingError::Io { path: path.clone(), source })
    };
    // Two are busy reading and taking.
    let unpackers = available_parallelism().map_or(1, |cpus| cpus.get().saturating_sub(1)).clamp(1, MAX_UNPACKERS);
    let (jobs, waiting) = sync_channel::<Job>(unpackers);
    let waiting = Arc::new(Mutex::new(waiting));
    for _ in 0..unpackers {
        let (waiting, unpacker) = (Arc::clone(&waiting), Unpacker::new(path.clone()));
        started(thread::Builder::new().name("unpacker".into()).spawn_scoped(scope, move || unpack(&waiting, unpacker)))?;
    }
    let (steps, taken) = sync_channel(unpackers + AHEAD);
    started(thread::Builder::new().name("reader".into()).spawn_scoped(scope, move || read(recording, only, &jobs, &steps)))?;
    Ok(Steps { places: taken, place: None })
}

/// Each block gets its place in the order before it gets a thread.
fn read<R: Source>(mut recording: Recording<R>, only: Option<Only>, jobs: &SyncSender<Job>, steps: &SyncSender<Receiver<Step>>) {
    let mut indexes = Unpacker::new(recording.path().to_owned());
    loop {
        let stored = match recording.next_stored() {
            Ok(Some(stored)) if stored.is_index() => match passed(&mut recording, only, &stored, &mut indexes) {
                Ok(None) => continue,
                Ok(Some(index)) => {
                    let (done, step) = sync_channel(1);
                    if steps.send(step).is_err() || done.send(Step::Passed(index)).is_err() {
                        return;
                    }
                    continue;
                }
                Err(error) => Err(error),
            },
            other => other,
        };
        let (done, step) = sync_channel(1);
        // Who takes them may have enough: then nobody wants the rest.
        if steps.send(step).is_err() {
            return;
        }
        let end = match stored {
            Ok(Some(stored)) => match jobs.send(Job { stored, done }) {
                Ok(()) => continue,
                Err(_) => return,
            },
            Ok(None) => Ok(recording.completeness().unwrap_or(Completeness::NotEnded)),
            Err(error) => Err(error),
        };
        return drop(done.send(Step::End(end)));
    }
}

/// The index of records that are of no interest, once they have been passed over.
fn passed<R: Source>(
    recording: &mut Recording<R>,
    only: Option<Only>,
    stored: &Stored,
    indexes: &mut Unpacker,
) -> Result<Option<Index>, RecordingError> {
    let Some(only) = only else { return Ok(None) };
    match indexes.unpack(stored)? {
        Block::Index(index) if !only.wants(&index) => Ok(recording.pass_records(&index)?.then_some(index)),
        _ => Ok(None),
    }
}

fn unpack(waiting: &Mutex<Receiver<Job>>, mut unpacker: Unpacker) {
    loop {
        let job = waiting.lock().map(|jobs| jobs.recv());
        let Ok(Ok(Job { stored, done })) = job else { return };
        let step = match unpacker.unpack(&stored) {
            Ok(Block::Records(payload)) => decoded(&payload),
            Ok(block) => Step::Block(block),
            Err(error) => Step::End(Err(error)),
        };
        // Nobody may want it.
        let _ = done.send(step);
    }
}

fn decoded(payload: &[u8]) -> Step {
    // Records are some sixty bytes long.
    let (mut events, mut undecodable) = (Vec::with_capacity(payload.len() / 56), 0);
    for record in records(payload) {
        match decode(record) {
            Ok(event) => events.push(event),
            Err(_) => undecodable += 1,
        }
    }
    Step::Events { events, undecodable }
}
