//! Reads and decodes a recording on a thread of its own, a few blocks ahead of who takes them.

use std::{
    io::Read,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{self, Scope},
};

use crate::{
    decode::decode,
    event::Event,
    recording::{Block, Completeness, RecordingError, reader::Recording, records},
};

/// Blocks that are read ahead: with a megabyte of records each, some ten megabytes of events.
const AHEAD: usize = 4;

/// A step of a recording.
pub enum Step {
    Events {
        events: Vec<Event>,
        /// Records that could not be decoded.
        undecodable: u64,
    },
    Block(Block),
    /// There is no more, or nothing more that can be read.
    End(Result<Completeness, RecordingError>),
}

/// Starts reading; the last step is [`Step::End`].
pub fn feed<'scope, R: Read + Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    recording: Recording<R>,
) -> Result<Receiver<Step>, RecordingError> {
    let (steps, taken) = sync_channel(AHEAD);
    let path = recording.path().to_owned();
    let thread = thread::Builder::new().name("reader".into()).spawn_scoped(scope, move || read(recording, &steps));
    thread.map(|_| taken).map_err(|source| RecordingError::Io { path, source })
}

fn read<R: Read>(mut recording: Recording<R>, steps: &SyncSender<Step>) {
    // Who takes them may have enough: then nobody wants the rest.
    for block in &mut recording {
        let step = match block {
            Ok(Block::Records(payload)) => decoded(&payload),
            Ok(block) => Step::Block(block),
            Err(error) => return drop(steps.send(Step::End(Err(error)))),
        };
        if steps.send(step).is_err() {
            return;
        }
    }
    let _ = steps.send(Step::End(Ok(recording.completeness().unwrap_or(Completeness::NotEnded))));
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
