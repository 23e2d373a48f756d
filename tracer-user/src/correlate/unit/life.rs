//! One unit of work: awake, blocked, or unknown.

use super::{UnitSpan, UnitWho};
use crate::{
    clock::KtimeNs,
    correlate::{ReasonId, SpanState},
    id::{Address, Tid},
};

/// What a block told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    pub reason: Option<ReasonId>,
    pub object: Option<Address>,
    pub tid: Tid,
    pub wakes_are_seen: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Nobody saw what it does; why it had blocked, if it had.
    Unknown(Option<ReasonId>),
    Awake(Tid),
    Blocked(Block),
}

/// A unit that lives.
#[derive(Debug)]
pub struct Unit {
    pub who: UnitWho,
    state: State,
    since: KtimeNs,
    /// The newest event: nothing of it may lie before that.
    last: KtimeNs,
}

/// Who is told of spans.
type Tell<'a> = &'a mut dyn FnMut(&UnitWho, UnitSpan);

impl Unit {
    /// Its start was seen.
    pub fn born(who: UnitWho, tid: Tid) -> Self {
        let since = who.since;
        Self { who, state: State::Awake(tid), since, last: since }
    }

    /// It was met by another event.
    pub fn met(who: UnitWho) -> Self {
        let since = who.since;
        Self { who, state: State::Unknown(None), since, last: since }
    }

    /// It blocks. Returns what that shows to be lost.
    pub fn block(&mut self, at: KtimeNs, block: Block, tell: Tell<'_>) -> Option<&'static str> {
        let lost = self.settle(at, tell);
        self.state = State::Blocked(block);
        lost
    }

    /// It goes on.
    pub fn wake(&mut self, at: KtimeNs, tid: Tid, tell: Tell<'_>) -> Option<&'static str> {
        let lost = match self.state {
            State::Awake(_) => {
                self.state = State::Unknown(None);
                Some("lost_unit_block")
            }
            _ => None,
        };
        self.close(at, tell);
        self.state = State::Awake(tid);
        lost
    }

    /// It does something that only who is awake does: if it had blocked, it was woken before.
    pub fn settle(&mut self, at: KtimeNs, tell: Tell<'_>) -> Option<&'static str> {
        let lost = match self.state {
            State::Blocked(Block { wakes_are_seen: true, reason, .. }) => {
                self.state = State::Unknown(reason);
                Some("lost_unit_wake")
            }
            _ => None,
        };
        self.close(at, tell);
        self.state = State::Unknown(None);
        lost
    }

    /// It was not seen to do what it did since its newest event.
    pub fn lose_sight(&mut self, at: KtimeNs, tell: Tell<'_>) {
        self.state = match self.state {
            State::Blocked(Block { reason, .. }) => State::Unknown(reason),
            _ => State::Unknown(None),
        };
        self.close(at, tell);
        self.state = State::Unknown(None);
    }

    /// Its life is over, as far as it is known; when it was last known to live.
    pub fn cut(mut self, at: KtimeNs, tell: Tell<'_>) -> (UnitWho, KtimeNs) {
        let last = self.last;
        self.close(at, tell);
        (self.who, last)
    }

    /// Ends the current span.
    fn close(&mut self, at: KtimeNs, tell: Tell<'_>) {
        let end = at.max(self.last);
        let span = |state| UnitSpan { state, start: self.since, end, reason: None, object: None, tid: None, at_most: false };
        let span = match self.state {
            State::Unknown(reason) => UnitSpan { reason, ..span(SpanState::Unknown) },
            State::Awake(tid) => UnitSpan { tid: Some(tid), ..span(SpanState::Awake) },
            State::Blocked(Block { reason, object, tid, wakes_are_seen }) => {
                UnitSpan { reason, object, tid: Some(tid), at_most: !wakes_are_seen, ..span(SpanState::Blocked) }
            }
        };
        if span.end > span.start {
            tell(&self.who, span);
        }
        (self.since, self.last) = (end, end);
    }
}
