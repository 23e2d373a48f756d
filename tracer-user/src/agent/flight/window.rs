//! A recording that is cut out of the one under way, written on a thread of its own: the disk is never waited for.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    },
    thread,
    time::Duration,
};

use super::{WINDOW_OVER, end, past::Told};
use crate::{
    clock::KtimeNs,
    recording::{
        Kind,
        contract::Meta,
        reader::Stored,
        writer::{WriteError, Writer},
    },
};

/// Blocks that may wait for the disk.
const QUEUE: usize = 256;

/// What a window is called at its end while it is being written.
pub const PART: &str = "part";

/// Where a window goes.
pub struct Place {
    /// Where it will be, once it is whole.
    pub path: PathBuf,
    /// It is not much larger.
    pub most_bytes: u64,
    /// What is to be done first, where the disk may be waited for.
    pub first: Box<dyn FnOnce() + Send>,
}

/// A window that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// How far it reaches back.
    pub before: Duration,
}

/// What became of a window.
#[derive(Debug)]
pub struct Fate {
    pub path: PathBuf,
    /// Its bytes.
    pub written: Result<u64, WriteError>,
    /// Nothing of it is missing at its end.
    pub whole: bool,
}

/// A window under way.
pub struct Window {
    /// `None`: nothing more belongs to it.
    pieces: Option<SyncSender<Piece>>,
    until: KtimeNs,
    fate: Receiver<Fate>,
}

enum Piece {
    Block(Arc<Stored>),
    /// It is over while the recording goes on.
    Over(KtimeNs),
}

impl Window {
    /// Begins to write what there is. `None`: there is no thread to be had for it.
    pub(super) fn begin(
        place: Place,
        meta: Meta,
        before: Option<Told>,
        blocks: Vec<Arc<Stored>>,
        until: KtimeNs,
    ) -> Option<Self> {
        let (pieces, waiting) = sync_channel(QUEUE);
        let (told, fate) = sync_channel(1);
        let work = move || {
            let Place { path, most_bytes, first } = place;
            first();
            let (written, whole) = write((&path, most_bytes), &meta, before, blocks, &waiting);
            // Who wanted to know may be gone.
            let _ = told.send(Fate { path, written, whole });
        };
        thread::Builder::new().name("window".into()).spawn(work).ok()?;
        Some(Self { pieces: Some(pieces), until, fate })
    }

    /// The next block of the recording. What the disk is too slow for ends the window.
    pub(super) fn block(&mut self, stored: &Arc<Stored>) {
        let Some(pieces) = &self.pieces else { return };
        let ends = stored.kind() == Some(Kind::End);
        if pieces.try_send(Piece::Block(Arc::clone(stored))).is_err() || ends {
            self.pieces = None;
        }
    }

    pub(super) fn goes_on(&self) -> bool {
        self.pieces.is_some()
    }

    /// Everything that happened by then is in it.
    pub(super) fn mark(&mut self, at: KtimeNs) {
        if at >= self.until
            && let Some(pieces) = self.pieces.take()
        {
            let _ = pieces.try_send(Piece::Over(at));
        }
    }

    pub(super) fn fate(&mut self) -> Option<Fate> {
        match self.fate.try_recv() {
            Ok(fate) => Some(fate),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                Some(Fate { path: PathBuf::new(), written: Err(WriteError::Broken { path: PathBuf::new() }), whole: false })
            }
        }
    }
}

fn write(
    (path, most_bytes): (&Path, u64),
    meta: &Meta,
    before: Option<Told>,
    blocks: Vec<Arc<Stored>>,
    waiting: &Receiver<Piece>,
) -> (Result<u64, WriteError>, bool) {
    let part = path.with_extension(PART);
    let mut whole = false;
    let written = Writer::create(&part, meta).and_then(|mut writer| {
        before.map_or(Ok(()), |before| before.write(&mut writer))?;
        for stored in blocks {
            writer.stored(&stored)?;
        }
        for piece in waiting {
            if writer.written() > most_bytes {
                break;
            }
            match piece {
                Piece::Block(stored) => {
                    writer.stored(&stored)?;
                    whole = stored.kind() == Some(Kind::End);
                }
                Piece::Over(at) => {
                    writer.end(&end(at, WINDOW_OVER))?;
                    whole = true;
                }
            }
        }
        let create = |source: io::Error| WriteError::Create { path: path.to_owned(), source };
        fs::rename(&part, path).map_err(create)?;
        Ok(writer.written())
    });
    if written.is_err() {
        // A part of a recording that nobody was told of is of no use.
        let _ = fs::remove_file(&part);
    }
    (written, whole)
}
