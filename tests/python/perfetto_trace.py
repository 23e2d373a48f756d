"""Reads a Perfetto trace with the schema that Perfetto publishes (PyPI's package `perfetto`), and says what is in it.

Usage: perfetto_trace.py TRACE. What a trace must be is checked here: times ascend, every track's parent is there, slices nest, numbers
of interned texts are known where they are used, flows begin before they end, and no field is unknown to the schema. Prints one object:
`tracks` by uuid (name, parent, process, thread, counter), `slices`, `instants`, `values`, `flows`.
"""

import json
import sys

from google.protobuf import unknown_fields
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as schema

BEGIN, END, INSTANT, COUNTER = 1, 2, 3, 4
CLEARED, NEEDED = 1, 2


def known(message):
    """Every field of a message, and of those within, is in the schema."""
    unknown = unknown_fields.UnknownFieldSet(message)
    assert len(unknown) == 0, f"unknown field {unknown[0].field_number} in {message.DESCRIPTOR.name}"
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for one in value if field.is_repeated else [value]:
            known(one)


class Interned:
    """Texts by number, as the packets so far told them."""

    KINDS = {
        "categories": ("event_categories", "name"),
        "names": ("event_names", "name"),
        "annotations": ("debug_annotation_names", "name"),
        "values": ("debug_annotation_string_values", "str"),
    }

    def __init__(self):
        self.texts = {kind: {} for kind in self.KINDS}

    def learn(self, data):
        for kind, (field, text) in self.KINDS.items():
            for entry in getattr(data, field):
                assert entry.iid != 0 and entry.iid not in self.texts[kind], f"{kind} {entry.iid} is told twice, or 0"
                value = getattr(entry, text)
                self.texts[kind][entry.iid] = value.decode() if isinstance(value, bytes) else value

    def text(self, kind, number):
        return self.texts[kind][number]


def said(interned, event):
    """The annotations of an event, by name."""
    out = {}
    for one in event.debug_annotations:
        name = interned.text("annotations", one.name_iid)
        which = one.WhichOneof("value")
        value = interned.text("values", one.string_value_iid) if which == "string_value_iid" else getattr(one, which)
        out[name] = value
    return out


def main(path):
    trace = schema.Trace()
    with open(path, "rb") as file:
        trace.ParseFromString(file.read())
    known(trace)
    first = trace.packet[0]
    assert first.sequence_flags & CLEARED, "nothing says that state begins anew"
    clocks = {clock.clock_id: clock.timestamp for clock in first.clock_snapshot.clocks}
    own = first.trace_packet_defaults.timestamp_clock_id
    assert own in clocks and first.clock_snapshot.primary_trace_clock == own, "the clock of the times is not told"

    interned, tracks, open_slices, started = Interned(), {}, {}, {}
    slices, instants, values, flows = [], [], [], []
    last = 0
    for packet in trace.packet:
        assert packet.trusted_packet_sequence_id == 1
        interned.learn(packet.interned_data)
        if packet.HasField("track_descriptor"):
            of = packet.track_descriptor
            assert of.uuid not in tracks and of.uuid != 0, f"track {of.uuid} is told twice, or 0"
            assert not of.HasField("parent_uuid") or of.parent_uuid in tracks, f"{of.name}: its parent is not there"
            tracks[of.uuid] = {
                "name": of.name,
                "parent": of.parent_uuid or None,
                "pid": of.process.pid if of.HasField("process") else None,
                "tid": of.thread.tid if of.HasField("thread") else None,
                "counter": of.HasField("counter"),
                "events": 0,
            }
        if not packet.HasField("track_event"):
            continue
        event, at = packet.track_event, packet.timestamp
        assert packet.sequence_flags & NEEDED
        assert at >= last, f"{at} comes after {last}"
        last = at
        track = tracks[event.track_uuid]
        track["events"] += 1
        assert track["counter"] == (event.type == COUNTER), track
        if event.type == COUNTER:
            values.append({"track": event.track_uuid, "at": at, "value": event.counter_value})
            continue
        for flow in event.flow_ids:
            assert flow not in started, f"flow {flow} begins twice"
            started[flow] = event.track_uuid
        for flow in event.terminating_flow_ids:
            flows.append({"from": started.pop(flow), "to": event.track_uuid, "at": at})
        stack = open_slices.setdefault(event.track_uuid, [])
        if event.type == END:
            slice = stack.pop()
            slice["end"] = at
            slices.append(slice)
            continue
        what = {
            "track": event.track_uuid,
            "name": interned.text("names", event.name_iid),
            "category": [interned.text("categories", number) for number in event.category_iids],
            "start": at,
            "says": said(interned, event),
        }
        if event.type == BEGIN:
            stack.append(what)
        else:
            assert event.type == INSTANT, event.type
            instants.append(what)
    assert not any(open_slices.values()), "slices without an end"
    assert not started, "flows without an end"
    print(json.dumps({"zero": clocks[own], "tracks": tracks, "slices": slices, "instants": instants, "values": values, "flows": flows}))


main(sys.argv[1])
