//! When marks are made: up to when everything is in the recording (docs/order.md).

use crate::{
    capture::{Capture, Message},
    clock::{KtimeNs, ktime_now},
    kernel::{ring::Ring, session::Session},
    recording::contract::Drained,
};

/// How often a mark is begun at most.
const BEGIN_EVERY_NS: u64 = 50_000_000;
/// After this long with an empty ring, a mark that was not reached is given up for a new one: a record may have been on its way to being
/// counted as lost when it was begun, and such a one never arrives.
const PATIENCE_NS: u64 = 200_000_000;
/// How often a mark is written at least, even if there are no records.
const WRITE_EVERY_NS: u64 = 1_000_000_000;
/// How often a last mark is tried.
const LAST_TRIES: usize = 3;

/// The marks of a recording.
#[derive(Default)]
pub struct Marks {
    begun: KtimeNs,
    /// Reached, and not written yet.
    ready: Option<Drained>,
    written: Option<Drained>,
    /// The counters cannot be read.
    failed: bool,
}

impl Marks {
    /// Says, before the first record, that marks will come: a reader then releases nothing without one.
    pub fn announce(capture: &Capture) {
        capture.send(Message::Drained(Drained { at: KtimeNs(0), next_seq: Vec::new() }));
    }

    /// Before a round: begins a mark, if it is time.
    pub fn begin(&mut self, session: &Session, ring: &mut Ring, was_empty: bool) {
        let age = ktime_now().since(self.begun);
        let given_up = was_empty && age >= PATIENCE_NS;
        if age >= BEGIN_EVERY_NS && (!ring.mark_pending() || given_up) {
            self.begin_now(session, ring);
        }
    }

    fn begin_now(&mut self, session: &Session, ring: &mut Ring) {
        match session.numbers() {
            Ok(reading) => {
                self.begun = reading.at;
                ring.begin_mark(reading);
            }
            Err(error) if !self.failed => {
                self.failed = true;
                tracing::warn!(%error, "the sequence numbers cannot be read");
            }
            Err(_) => {}
        }
    }

    /// After a round.
    pub fn look(&mut self, ring: &mut Ring) {
        self.ready = ring.mark_reached().or(self.ready.take());
    }

    /// Writes the newest mark, if it says anything new. Every record taken so far must have been handed on before.
    pub fn write(&mut self, capture: &Capture) {
        let Some(mark) = self.ready.take() else { return };
        let old = self
            .written
            .as_ref()
            .is_some_and(|written| written.next_seq == mark.next_seq && mark.at.since(written.at) < WRITE_EVERY_NS);
        if old {
            return;
        }
        match capture.try_send(Message::Drained(mark.clone())) {
            Ok(()) => self.written = Some(mark),
            // As true later as it is now.
            Err(_) => self.ready = Some(mark),
        }
    }

    /// The last mark, when nothing makes records any more: `empty` takes everything out of the ring and hands it on.
    pub fn finish(mut self, session: &Session, ring: &mut Ring, mut empty: impl FnMut(&mut Ring)) -> Option<Drained> {
        for _ in 0..LAST_TRIES {
            self.begin_now(session, ring);
            empty(ring);
            if let Some(mark) = ring.mark_reached() {
                return Some(mark);
            }
        }
        self.ready
    }
}
