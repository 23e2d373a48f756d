//! The flight recorder: what was recorded of late, kept in memory, from which a recording of its own can be cut at any time.
//!
//! Blocks are kept as they are in the recording, packed. Between two marks of the recording ([`Drained`]) they are a *leg*: everything that
//! happened by the second mark is in it or in one before, and some of what happened later. A leg that is too old goes, and what later ones
//! still speak of goes to the [`Past`]: names, stacks, who lives, and those records that are not that old.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    clock::{ClockTie, KtimeNs, WallTime},
    recording::{
        Block, Kind,
        contract::{Cut, Drained, End, Meta},
        reader::{Stored, Tap, Unpacker},
    },
};

mod past;
mod window;

use past::Past;
pub use window::{Fate, Kept, PART, Place, Window};

/// How a recording ends that was cut: its window was over.
pub const WINDOW_OVER: &str = "window_over";

/// What is kept at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub before: Duration,
    /// Of packed blocks; where there is more to keep, it reaches back less far.
    pub bytes: usize,
}

/// The flight recorder of one recording. Shared: one thread reads the recording, another cuts.
#[derive(Clone)]
pub struct Flight(Arc<Mutex<Inner>>);

struct Inner {
    limits: Limits,
    meta: Meta,
    unpacker: Unpacker,
    past: Past,
    legs: VecDeque<Leg>,
    bytes: usize,
    /// Up to when everything is here.
    now: KtimeNs,
    window: Option<Window>,
}

/// What came between two marks.
#[derive(Default)]
struct Leg {
    /// The mark before it; `None`: the recording's beginning.
    begun: Option<Drained>,
    blocks: Vec<Arc<Stored>>,
    bytes: usize,
}

impl Flight {
    pub fn new(meta: Meta, limits: Limits) -> Self {
        let unpacker = Unpacker::new(Path::new("the flight recorder").to_owned());
        let now = meta.clock.ktime_ns;
        let legs = VecDeque::from([Leg::default()]);
        Self(Arc::new(Mutex::new(Inner { limits, meta, unpacker, past: Past::default(), legs, bytes: 0, now, window: None })))
    }

    /// Who sees the recording's blocks.
    pub fn tap(&self) -> Tap {
        let flight = self.clone();
        Box::new(move |stored| flight.inner().take(stored))
    }

    /// Cuts what there is, and what comes within so long, and has it written. The calendar's time of its beginning is what `clock`, that of
    /// now, makes of it: the recording may have begun before somebody set the clock, or before the machine slept. One window at a time:
    /// `None` while there is one.
    pub fn cut(&self, place: Place, lasting: Duration, clock: ClockTie) -> Option<Kept> {
        self.inner().cut(place, lasting, clock)
    }

    /// Whether a window goes on: nothing more belongs to one that is being written still.
    pub fn goes_on(&self) -> bool {
        self.inner().window.as_ref().is_some_and(Window::goes_on)
    }

    /// What has become of the newest window, once it is over.
    pub fn over(&self) -> Option<Fate> {
        let mut inner = self.inner();
        let fate = inner.window.as_mut()?.fate()?;
        inner.window = None;
        Some(fate)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Whoever panicked left blocks, each of them whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn take(&mut self, stored: &Arc<Stored>) {
        if let Some(window) = &mut self.window {
            window.block(stored);
        }
        let bytes: usize = stored.bytes().iter().map(|part| part.len()).sum();
        let mark = if stored.kind() == Some(Kind::Drained) { self.unpacker.unpack(stored).ok() } else { None };
        if let Some(leg) = self.legs.back_mut() {
            leg.blocks.push(Arc::clone(stored));
            leg.bytes += bytes;
        }
        self.bytes += bytes;
        // The first one says that there will be others.
        if let Some(Block::Drained(mark)) = mark
            && mark.at > KtimeNs(0)
        {
            self.mark(mark);
        }
    }

    fn mark(&mut self, mark: Drained) {
        self.now = self.now.max(mark.at);
        if let Some(window) = &mut self.window {
            window.mark(mark.at);
        }
        self.legs.push_back(Leg { begun: Some(mark), ..Leg::default() });
        let oldest = self.now - u64::try_from(self.limits.before.as_nanos()).unwrap_or(u64::MAX);
        while self.legs.len() > 1 && (self.bytes > self.limits.bytes || self.begins(1) <= oldest) {
            let Some(leg) = self.legs.pop_front() else { break };
            self.bytes -= leg.bytes;
            if let Some(begun) = self.legs.front().and_then(|leg| leg.begun.as_ref()) {
                self.past.begin(&begun.next_seq);
            }
            for stored in leg.blocks {
                self.past.take(&stored, &mut self.unpacker);
            }
        }
    }

    /// When a leg begins.
    fn begins(&self, leg: usize) -> KtimeNs {
        let begun = self.legs.get(leg).and_then(|leg| leg.begun.as_ref());
        begun.map_or(self.meta.clock.ktime_ns, |mark| mark.at)
    }

    fn cut(&mut self, place: Place, lasting: Duration, clock: ClockTie) -> Option<Kept> {
        if self.window.is_some() {
            return None;
        }
        let meta = self.cut_meta(clock);
        let from = meta.clock.ktime_ns;
        let until = KtimeNs(self.now.0.saturating_add(u64::try_from(lasting.as_nanos()).unwrap_or(u64::MAX)));
        let blocks = self.legs.iter().flat_map(|leg| leg.blocks.iter().map(Arc::clone)).collect();
        let before = meta.cut.as_ref().map(|_| self.past.told(from));
        self.window = Some(Window::begin(place, meta, before, blocks, until)?);
        Some(Kept { before: Duration::from_nanos(self.now.since(from)) })
    }

    /// The first block of what is cut now: its zero is where it begins.
    fn cut_meta(&self, now: ClockTie) -> Meta {
        let ktime_ns = self.begins(0);
        let wall_ns = WallTime(now.wall_ns.0.saturating_sub(now.ktime_ns.since(ktime_ns)));
        let clock = ClockTie { ktime_ns, wall_ns, error_ns: now.error_ns };
        let begun = self.legs.front().and_then(|leg| leg.begun.as_ref());
        let cut = begun.map(|begun| Cut { begun: self.meta.clock.ktime_ns, next_seq: begun.next_seq.clone() });
        Meta { clock, cut, ..self.meta.clone() }
    }
}

/// The last block of a window that is over while its recording goes on.
fn end(at: KtimeNs, reason: &str) -> End {
    End { at, reason: reason.to_owned(), detach_ns: None, clock: Some(ClockTie::now()), wait_status: None, target_cpu_ns: None }
}

#[cfg(test)]
mod tests;
