//! The spans of a goroutine, as they close.

use super::{Goroutine, Open, Park, Repair, Span, SpanState, State, Who};
use crate::{clock::KtimeNs, correlate::WokenBy, id::Tid};

impl Goroutine {
    /// Ends what it did, given that an event `at` says that until then it did `expected`. Where that is not what was known of it,
    /// an event was lost, and the span is unknown.
    pub(super) fn close(
        &self,
        at: KtimeNs,
        expected: SpanState,
        by: Option<WokenBy>,
        tid: Option<Tid>,
        sink: &mut impl FnMut(&Who, Span),
    ) -> Option<Repair> {
        match self.state {
            State::Open(open) if open.state == expected || open.state == SpanState::Unknown => {
                self.emit(open, at, tid, sink);
                None
            }
            State::Open(open) => {
                self.emit(Open { state: SpanState::Unknown, ..open }, at, tid, sink);
                Some(Repair::Transition)
            }
            State::Blocked { since, park, before, by_look } => {
                if let Some(before) = before {
                    self.emit(before, since, park.tid, sink);
                }
                let span = Span { by_look, ..self.blocked_span(since, at, &park) };
                if expected == SpanState::Blocked {
                    sink(&self.who, Span { woken_by: by, ..span });
                    return None;
                }
                sink(&self.who, Span { state: SpanState::Unknown, ..span });
                Some(Repair::Wake)
            }
        }
    }

    /// A span without a park. One of no length says nothing and is left out.
    pub(super) fn emit(&self, open: Open, end: KtimeNs, tid: Option<Tid>, sink: &mut impl FnMut(&Who, Span)) {
        let Open { state, since: start, stack, by_look } = open;
        if start < end {
            let stack = stack.filter(|_| state != SpanState::Unknown);
            // What waits for a CPU is on no thread.
            let tid = tid.filter(|_| state != SpanState::Runnable);
            let span = Span { state, start, end, reason: None, stack, object: None, woken_by: None, tid, by_look };
            sink(&self.who, span);
        }
    }

    fn blocked_span(&self, start: KtimeNs, end: KtimeNs, park: &Park) -> Span {
        Span {
            state: SpanState::Blocked,
            start,
            end,
            reason: park.reason,
            stack: park.stack,
            object: park.object,
            woken_by: None,
            tid: park.tid,
            by_look: false,
        }
    }
}
