//! A recording that goes into a pipe and is understood at its other end, while it is made: for the terminal view and the agent.
//!
//! Where who reads is slow the pipe fills, the capture waits, the ring drops, and what was lost is counted and told: the target never waits.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::Path,
    thread,
};

use anyhow::{Context, Result, anyhow};
use nix::{fcntl::OFlag, unistd::pipe2};

use super::{
    Failure,
    attach::{Following, Stop},
};
use crate::recording::{reader::Recording, writer::Writer};

/// What errors call the recording.
pub const NAME: &str = "the live recording";

/// What comes out of the pipe.
pub type Live = Recording<BufReader<Passed>>;

/// The pipe, and what its bytes pass through on their way.
pub type Passed = Box<dyn Read + Send>;

/// Has `take` read what is recorded, through what `pass` makes of the pipe; when it returns, the following ends as well. `begun` is called
/// once those are followed who are there now. Signals must have been set aside.
pub fn follow<T>(
    following: Following<'_>,
    pass: impl FnOnce(File) -> Passed,
    begun: impl FnOnce() + Send,
    take: impl FnOnce(Live, &Stop) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let (ours, its) = pipe2(OFlag::O_CLOEXEC).map_err(Failure::environment)?;
    let stop = following.stop.clone();
    thread::scope(|scope| {
        // Whatever becomes of the reader, the recorder must not go on without it.
        let stopping = StopAtLast(&stop);
        let recorder =
            thread::Builder::new().name("recorder".into()).spawn_scoped(scope, move || record(following, its.into(), begun))?;
        let taken = match Recording::from_reader(BufReader::new(pass(ours.into())), Path::new(NAME)) {
            Ok(recording) => take(recording, &stop),
            // Who records knows better why there is none.
            Err(error) => Err(Failure::environment(error)),
        };
        drop(stopping);
        let recorded = recorder.join().map_err(|_| anyhow!("the recorder has panicked (a bug of lifetrace's)"))?;
        recorded?;
        Ok(taken?)
    })
    .map_err(coded)
}

/// The failure inside an error, or one of the environment.
pub fn coded(error: anyhow::Error) -> Failure {
    error.downcast::<Failure>().unwrap_or_else(Failure::environment)
}

/// The recorder's own thread. That its last blocks find no reader is no error: nobody wants to know more.
fn record(following: Following<'_>, pipe: File, begun: impl FnOnce()) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let create = |meta: &_| Writer::start(pipe, Path::new(NAME), meta).context("the live recording cannot begin");
    let (_, written) = runtime.block_on(following.record(create, begun))?;
    if let Err(error) = written {
        tracing::debug!(%error, "the recording has lost its reader");
    }
    Ok(())
}

struct StopAtLast<'a>(&'a Stop);

impl Drop for StopAtLast<'_> {
    fn drop(&mut self) {
        self.0.ask();
    }
}
