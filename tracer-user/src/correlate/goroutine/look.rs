//! What looks at a process say of a goroutine, held against its events.
//!
//! A look is no instant: what it says was so at some time between its beginning and its end. So an event in that time or later is
//! newer, one look alone is never believed against events, and two in a row are, if no event came between them.
//!
//! Where there are no events (T0; for states T1 as well) each look is believed, and between two that say different things nothing is known.

use std::num::NonZeroU32;

use super::{Goroutine, ImageId, Open, Origin, Park, Repair, Span, SpanState, State, Who};
use crate::{clock::KtimeNs, recording::contract::Tier};

/// A look at a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Tells it from others at the same process.
    pub number: u32,
    pub from: KtimeNs,
    pub to: KtimeNs,
    /// What the probes told when it was taken.
    pub tier: Tier,
    /// Since the look before there was a time without probes.
    pub gap: bool,
    /// Short waits and lives are summed: of them no event tells.
    pub summing: bool,
}

impl Look {
    /// No event tells of parks and wakes.
    pub fn is_alone_on_states(&self) -> bool {
        self.tier < Tier::T2
    }

    /// No event tells of births and exits, or some time none did.
    pub fn is_alone_on_lives(&self) -> bool {
        self.tier == Tier::T0 || self.gap
    }
}

/// What a look told of a goroutine besides its state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookedAt {
    stack_kib: Option<NonZeroU32>,
    /// Go's collector had proven that nobody can wake it.
    pub leaked: bool,
}

impl LookedAt {
    /// `stack_bytes`: memory set aside for its stack; `None`: unknown.
    pub fn new(stack_bytes: Option<u64>, leaked: bool) -> Self {
        Self { stack_kib: stack_bytes.and_then(|bytes| NonZeroU32::new(u32::try_from(bytes >> 10).ok()?)), leaked }
    }

    /// Stacks are whole KiB (`runtime/stack.go`).
    pub fn stack_bytes(&self) -> Option<u64> {
        self.stack_kib.map(|kib| u64::from(kib.get()) << 10)
    }
}

/// What a goroutine did when it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Blocked(Park),
    /// Not [`SpanState::Blocked`].
    Open(SpanState),
}

impl Seen {
    /// `by_look`: in place of what events told.
    fn state(&self, since: KtimeNs, by_look: bool) -> State {
        match *self {
            Self::Blocked(park) => State::Blocked { since, park, before: None, by_look },
            Self::Open(state) => State::Open(Open { state, since, stack: None, by_look }),
        }
    }

    /// Whether two looks, or a look and what events told, say the same. What is not known contradicts nothing.
    fn agrees(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Blocked(one), Self::Blocked(other)) => {
                one.reason == other.reason || one.reason.is_none() || other.reason.is_none()
            }
            (Self::Open(one), Self::Open(other)) => one == other || [one, other].contains(&&SpanState::Unknown),
            (Self::Open(state), _) | (_, Self::Open(state)) => *state == SpanState::Unknown,
        }
    }
}

/// When a state was read of which no event told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    from: KtimeNs,
    until: KtimeNs,
    /// From when on nothing was known of it before that.
    unknown_since: KtimeNs,
    /// No event ever told of it.
    only: bool,
}

/// What looks said since the newest event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Looks {
    /// The newest look that found it.
    found: Option<Look>,
    /// Looks in a row that did not.
    missed: u32,
    /// Another state than events told, and when. Rare, and there are many goroutines.
    doubt: Option<Box<(KtimeNs, Seen)>>,
    pub last: LookedAt,
}

impl Looks {
    /// An event came: what looks said before is older.
    pub fn outdated(&mut self) {
        (self.missed, self.doubt) = (0, None);
        self.last.leaked = false;
    }

    /// When it was seen last, where looks are all that tells of its state.
    pub fn seen_alone(&self) -> Option<KtimeNs> {
        self.found.filter(Look::is_alone_on_states).map(|look| look.from)
    }

    /// Other probes tell from here on: what looks said is over.
    pub fn forget(&mut self) {
        self.outdated();
        self.found = None;
    }
}

impl Goroutine {
    /// Seen by a look, and known by nothing else; of what was before nothing is known.
    pub fn found(who: Who, look: Look, seen: Seen, looked_at: LookedAt) -> Self {
        let mut found = Self::new(who, look.from, seen.state(look.from, false), look.tier);
        found.found = Some(Found { from: look.from, until: look.to, unknown_since: who.since, only: true });
        found.looks.found = Some(look);
        found.looks.last = looked_at;
        found
    }

    /// Its birth is told although it is known.
    pub fn born_late(&mut self, at: KtimeNs, origin: Origin, depth: u32) {
        if self.who.born_at.is_some() {
            return;
        }
        if let Some(found) = &mut self.found {
            found.unknown_since = found.unknown_since.max(at);
        }
        let since = self.who.since.max(at);
        let running = self.running();
        if let State::Open(open) = &mut self.state
            && open.state == SpanState::Unknown
            && self.found.is_none()
        {
            // It was met by an event that said no more than that it lives.
            (open.state, open.since) = (running, open.since.max(since));
        }
        self.who = Who { born_at: Some(since), born_by: None, origin: Some(origin), unseen: false, since, depth, ..self.who };
    }

    /// Whether nothing but looks tells of it.
    pub fn is_only_found(&self) -> bool {
        self.found.is_some_and(|found| found.only)
    }

    /// When it was last known to live.
    pub fn last_known(&self) -> KtimeNs {
        self.looks.found.map_or(self.last, |look| look.from.max(self.last))
    }

    /// The first event, `at`, of one that was found decides what the look said of it: that was read somewhen between two times.
    /// If the event says that until then it did something else, and came before the reading ended, it was read afterwards.
    pub(super) fn settle(&mut self, at: KtimeNs, did: Option<SpanState>, sink: &mut impl FnMut(&Who, Span)) {
        let Some(Found { from, until, unknown_since, .. }) = self.found.take() else { return };
        self.emit(Open::unknown(unknown_since), from, None, sink);
        let Some(did) = did.filter(|_| at <= until) else { return };
        let read = match self.state {
            State::Blocked { .. } => SpanState::Blocked,
            State::Open(open) => open.state,
        };
        if read != did {
            // Why it had blocked is not known.
            let did = if did == SpanState::Blocked { SpanState::Unknown } else { did };
            self.begin(did, from, None);
        }
    }

    /// A look found it. Confirms what is known, supplies what is not, and repairs what the look before contradicted as well.
    pub fn look(&mut self, look: Look, seen: Seen, looked_at: LookedAt, sink: &mut impl FnMut(&Who, Span)) -> Option<Repair> {
        let before = self.looks.found.replace(look);
        self.looks.missed = 0;
        self.looks.last = looked_at;
        if look.is_alone_on_states() {
            self.look_alone(before, look, seen, sink);
            return None;
        }
        let told = match &mut self.state {
            &mut State::Open(Open { state: SpanState::Unknown, since, .. }) => {
                if seen != Seen::Open(SpanState::Unknown) {
                    let only = self.is_only_found();
                    let unknown_since = self.found.map_or(since, |found| found.unknown_since);
                    self.found = Some(Found { from: look.from, until: look.to, unknown_since, only });
                    self.state = seen.state(look.from, false);
                }
                return None;
            }
            State::Open(open) => Seen::Open(open.state),
            State::Blocked { park, .. } => {
                if let Seen::Blocked(seen) = seen
                    && park.reason == seen.reason
                {
                    park.object = park.object.or(seen.object);
                }
                Seen::Blocked(*park)
            }
        };
        // A short wait is not told, and a long one by what the BPF side keeps.
        let short = look.summing && matches!((told, seen), (Seen::Open(_), Seen::Blocked(_)));
        if short || told.agrees(&seen) {
            self.looks.doubt = None;
            return None;
        }
        match self.looks.doubt.take().map(|doubt| *doubt) {
            Some((at, earlier)) if earlier.agrees(&seen) => {
                self.settle(look.from, None, sink);
                self.last = self.last.max(at);
                self.close(self.last, SpanState::Unknown, None, None, sink);
                self.state = seen.state(self.last, true);
                Some(Repair::State)
            }
            _ => {
                self.looks.doubt = Some(Box::new((look.from, seen)));
                None
            }
        }
    }

    /// A look, where no events tell of its state. It stays where it is if it is where it was `before`: that it went on and came back in between
    /// would leave no trace.
    fn look_alone(&mut self, before: Option<Look>, look: Look, seen: Seen, sink: &mut impl FnMut(&Who, Span)) {
        let told = match self.state {
            State::Open(open) => Seen::Open(open.state),
            State::Blocked { park, .. } => Seen::Blocked(park),
        };
        if told == seen {
            return;
        }
        let known_until = before.map_or(look.from, |before| before.from);
        self.settle(known_until, None, sink);
        self.part_unseen(known_until, look.from, sink);
        self.last = look.from;
        self.state = seen.state(look.from, false);
    }

    /// It did what it did until it was `seen` last, and until `at` no more is known than that it lived, if so much.
    pub(super) fn part_unseen(&self, seen: KtimeNs, at: KtimeNs, sink: &mut impl FnMut(&Who, Span)) {
        let since = match self.state {
            State::Open(open) => open.since,
            State::Blocked { since, .. } => since,
        };
        let seen = seen.max(since);
        match self.state {
            State::Open(open) => self.emit(open, seen, None, sink),
            // One of no length was seen at one moment, and nothing is known around it.
            State::Blocked { .. } if seen == since => {}
            State::Blocked { .. } => _ = self.close(seen, SpanState::Blocked, None, None, sink),
        }
        let unseen = if self.tier == Tier::T1 { SpanState::Awake } else { SpanState::Unknown };
        self.emit(Open { state: unseen, ..Open::unknown(seen) }, at, None, sink);
    }

    /// From here on its process is followed at another tier. What the probes go on to tell goes on.
    pub fn covered(&mut self, tier: Tier, at: KtimeNs, sink: &mut impl FnMut(&Who, Span)) {
        let from = self.tier;
        let waits = matches!(self.state, State::Blocked { .. });
        if from >= Tier::T2 && tier >= Tier::T2 && waits {
            (self.tier, self.echo) = (tier, None);
            return;
        }
        // A birth that is told while the look goes on is its own.
        let only = self.found.filter(|found| found.only && at <= found.until);
        self.settle(at, None, sink);
        let known_until = self.looks.seen_alone().filter(|_| from < Tier::T2).unwrap_or(at);
        self.part_unseen(known_until, at, sink);
        let was_awake = matches!(self.state, State::Open(open) if open.state != SpanState::Unknown);
        let state = match tier {
            Tier::T1 => SpanState::Awake,
            Tier::T2 if from == Tier::T3 && was_awake => SpanState::Awake,
            _ => SpanState::Unknown,
        };
        self.last = self.last_known();
        self.looks.forget();
        (self.tier, self.echo) = (tier, None);
        self.begin(state, at, None);
        self.found = only.map(|found| Found { from: at, unknown_since: at, ..found });
    }

    /// Whether a look that has found all goroutines did not find this one, and neither did the one before, if there are events.
    pub fn missed(&mut self, look: Look) -> bool {
        if self.last >= look.from || self.looks.found.is_some_and(|found| found.number == look.number) {
            return false;
        }
        self.looks.missed += 1;
        self.looks.missed >= if look.is_alone_on_lives() { 1 } else { 2 }
    }

    /// It belongs to a thread of C, which takes and leaves it as it calls into Go: it has no birth, and comes and goes with no event.
    pub fn is_of_foreign_thread(&self) -> bool {
        self.who.born_at.is_none() && self.who.origin.is_some_and(|origin| origin.gopc.0 == 0)
    }

    /// The image whose goroutine it is.
    pub fn image(&self) -> ImageId {
        self.who.image
    }
}
