//! From what is on the tracks to packets, in the order of time.

use std::io::{self, Write};

use prost::Message;

use super::{
    Event, Says, Trace,
    proto::{self, Clock, ClockSnapshot, DebugAnnotation, EventType, TracePacket, TracePacketDefaults, TrackEvent},
};
use crate::{
    correlate::{Span, process::ImageId, thread::ThreadSpan},
    id::StackId,
    recording::contract::Frame,
    symbolize::label,
    timeline::{GoroutineLine, State, thread},
};

/// All packets are of one writer.
const SEQUENCE: u32 = 1;

impl<'a> Trace<'a> {
    pub fn write(mut self, out: &mut impl Write) -> io::Result<()> {
        let tie = self.replayed.meta.clock;
        let clock = |id, at| Clock { clock_id: Some(id), timestamp: Some(at) };
        let clocks = vec![clock(proto::CLOCK_MONOTONIC, tie.ktime_ns.0), clock(proto::CLOCK_REALTIME, tie.wall_ns.0)];
        let mut packets = Packets(out);
        packets.put(TracePacket {
            clock_snapshot: Some(ClockSnapshot { clocks, primary_trace_clock: Some(proto::CLOCK_MONOTONIC) }),
            trace_packet_defaults: Some(TracePacketDefaults { timestamp_clock_id: Some(proto::CLOCK_MONOTONIC) }),
            sequence_flags: Some(proto::SEQ_INCREMENTAL_STATE_CLEARED),
            ..TracePacket::default()
        })?;
        for descriptor in std::mem::take(&mut self.tracks) {
            packets.put(TracePacket { track_descriptor: Some(descriptor), ..TracePacket::default() })?;
        }
        let mut events = std::mem::take(&mut self.events);
        // Those of one track were put in by time, and what begins and ends at one time stays in that order.
        events.sort_by_key(|event| event.at);
        for event in &events {
            let said = self.say(event);
            packets.put(TracePacket {
                timestamp: Some(event.at.0),
                track_event: Some(TrackEvent { track_uuid: Some(event.track), ..said }),
                interned_data: self.interned.take(),
                sequence_flags: Some(proto::SEQ_NEEDS_INCREMENTAL_STATE),
                ..TracePacket::default()
            })?;
        }
        Ok(())
    }

    fn say(&mut self, event: &Event<'a>) -> TrackEvent {
        match &event.says {
            Says::End => TrackEvent { r#type: Some(EventType::SliceEnd as i32), ..TrackEvent::default() },
            Says::Value(value) => {
                TrackEvent { r#type: Some(EventType::Counter as i32), counter_value: Some(*value), ..TrackEvent::default() }
            }
            Says::Flow { name, flow, to } => TrackEvent {
                flow_ids: vec![*flow],
                debug_annotations: vec![self.text("goroutine", format!("go:{to}"))],
                ..self.named(EventType::Instant, "goroutine", name)
            },
            Says::Goroutine(line, span, state) => self.goroutine_span(line, span, *state),
            Says::Thread(span, state) => self.thread_span(span, *state),
            Says::Plain(plain, lasts) => {
                let kind = if *lasts { EventType::SliceBegin } else { EventType::Instant };
                let debug_annotations = plain.says.iter().map(|(name, value)| self.text(name, value.clone())).collect();
                TrackEvent { debug_annotations, ..self.named(kind, plain.category, &plain.name) }
            }
        }
    }

    fn named(&mut self, kind: EventType, category: &str, name: &str) -> TrackEvent {
        TrackEvent {
            r#type: Some(kind as i32),
            category_iids: vec![self.interned.category(category)],
            name_iid: Some(self.interned.name(name)),
            ..TrackEvent::default()
        }
    }

    fn goroutine_span(&mut self, line: &GoroutineLine, span: &Span, state: State) -> TrackEvent {
        let replayed = self.replayed;
        let mut says = Vec::new();
        let reason = span.reason.map(|reason| replayed.engine.reason(reason));
        if let Some(stack) = span.stack.and_then(|stack| self.stack(line.who.image, stack)) {
            says.push(DebugAnnotation { string_value_iid: Some(stack), ..self.annotation("stack") });
        }
        says.extend(span.woken_by.map(|by| self.text("woken by", by.to_string())));
        says.extend(span.tid.map(|tid| DebugAnnotation { uint_value: Some(tid.0.into()), ..self.annotation("tid") }));
        says.extend(span.object.map(|object| DebugAnnotation { pointer_value: Some(object.0), ..self.annotation("object") }));
        if span.by_look {
            says.push(self.text("repaired", "state_by_snapshot".to_owned()));
        }
        if std::ptr::eq(span, &line.spans[0]) {
            let parent = line.who.origin.and_then(|origin| origin.parent);
            says.extend(parent.map(|parent| self.text("created by", format!("go:{parent}"))));
            if let Some((_, labels)) = line.labels.last() {
                let set = replayed.engine.labels().get(*labels);
                says.extend(set.iter().map(|(key, value)| self.text(&format!("label {key}"), value.clone())));
            }
        }
        // What it waits for says more than that it does.
        let name = match (state, reason) {
            (State::Blocked, Some(reason)) => reason,
            _ => state.name(),
        };
        let terminating_flow_ids = self.ends.remove(&std::ptr::from_ref(span)).unwrap_or_default();
        TrackEvent { debug_annotations: says, terminating_flow_ids, ..self.named(EventType::SliceBegin, "goroutine", name) }
    }

    fn thread_span(&mut self, span: &ThreadSpan, state: State) -> TrackEvent {
        let reason = span.reason.map(|reason| self.replayed.engine.reason(reason));
        let mut says = Vec::new();
        if let Some(frames) = thread::frames(&self.symbols, span) {
            let stack = self.interned.value(&joined(&frames));
            says.push(DebugAnnotation { string_value_iid: Some(stack), ..self.annotation("stack") });
        }
        says.extend(span.object.map(|object| self.text("object", object.to_string())));
        says.extend(span.woken_by.map(|by| self.text("woken by", by.to_string())));
        let name = match (state, reason) {
            (State::Blocked, Some(reason)) => reason,
            _ => state.name(),
        };
        TrackEvent { debug_annotations: says, ..self.named(EventType::SliceBegin, "thread", name) }
    }

    /// A stack as one text, innermost first; `None` if it was lost.
    fn stack(&mut self, image: ImageId, stack: StackId) -> Option<u64> {
        if let Some(known) = self.stacks.get(&(image, stack)) {
            return *known;
        }
        let frames = self.symbols.stack(image, stack).map(|(ids, _)| ids.into_iter().map(|id| self.symbols.frame(id)).collect());
        let text = frames.map(|frames: Vec<Frame>| self.interned.value(&joined(&frames)));
        self.stacks.insert((image, stack), text);
        text
    }

    fn annotation(&mut self, name: &str) -> DebugAnnotation {
        DebugAnnotation { name_iid: Some(self.interned.annotation(name)), ..DebugAnnotation::default() }
    }

    fn text(&mut self, name: &str, value: String) -> DebugAnnotation {
        DebugAnnotation { string_value: Some(value), ..self.annotation(name) }
    }
}

/// Frames as lines of one text.
fn joined(frames: &[Frame]) -> String {
    let lines: Vec<String> = frames
        .iter()
        .map(|frame| if frame.line == 0 { label(frame) } else { format!("{} {}:{}", label(frame), frame.file, frame.line) })
        .collect();
    lines.join("\n")
}

/// A trace is nothing but its packets, each as a field of `Trace`.
struct Packets<'w, W: Write>(&'w mut W);

impl<W: Write> Packets<'_, W> {
    fn put(&mut self, packet: TracePacket) -> io::Result<()> {
        const PACKET_FIELD: u8 = 1 << 3 | 2;
        let packet = TracePacket { trusted_packet_sequence_id: Some(SEQUENCE), ..packet };
        let mut bytes = Vec::with_capacity(64);
        bytes.push(PACKET_FIELD);
        packet.encode_length_delimited(&mut bytes).map_err(io::Error::other)?;
        self.0.write_all(&bytes)
    }
}
