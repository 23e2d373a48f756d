// What the page holds, unpacked: `columns.rs` and `drawing.rs` say how it was packed.

/** Parts of the runtime that end waits, by number. */
const PARTS = ["", "netpoll", "timer", "gc", "scheduler", "unknown"];
const ENDS = ["alive at the end", "exited", "ended with its process", "gone by then; its exit was lost"];

/** Inflates base64 of gzip. */
async function inflate(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let at = 0; at < binary.length; at++) bytes[at] = binary.charCodeAt(at);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Reads whole numbers of one column. */
class Varints {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
    this.last = 0;
  }

  /** Numbers may be larger than 32 bits, which shifts of JavaScript would cut. */
  next() {
    const bytes = this.bytes;
    let byte = bytes[this.at++];
    if (byte < 0x80) return byte;
    let value = byte & 0x7f;
    let scale = 128;
    do {
      byte = bytes[this.at++];
      value += (byte & 0x7f) * scale;
      scale *= 128;
    } while (byte >= 0x80);
    return value;
  }

  nextSigned() {
    const value = this.next();
    return value % 2 ? -(value + 1) / 2 : value / 2;
  }

  nextDifference() {
    this.last += this.nextSigned();
    return this.last;
  }
}

/** A time that was cut to eleven bits. */
function long(code) {
  if (code < 2048) return code;
  const shift = (code >> 10) - 1;
  return (code - shift * 1024) * 2 ** shift;
}

/**
 * Everything that is drawn. Lanes are numbered in the order of their groups; the spans of lane `l` are those from `first[l]` to before
 * `first[l + 1]`, by time. Times are nanoseconds since the recording's zero.
 */
async function unpack(text) {
  const bytes = await inflate(text);
  const size = new DataView(bytes.buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + size)));
  const columns = {};
  let at = 4 + size;
  for (const [name, length] of head.columns) {
    columns[name] = bytes.subarray(at, at + length);
    at += length;
  }
  const lanes = columns.flags.length;
  const spans = columns.lastedHigh.length;
  const data = {
    ...head,
    lanes,
    id: new Float64Array(lanes),
    since: new Float64Array(lanes),
    flags: columns.flags,
    parent: new Float64Array(lanes),
    labelsOf: new Uint32Array(lanes),
    siteOf: new Uint32Array(lanes),
    groupOf: new Uint32Array(lanes),
    first: new Uint32Array(lanes + 1),
    start: new Float64Array(spans),
    end: new Float64Array(spans),
    detail: new Uint32Array(spans),
    more: new Float64Array(spans),
  };
  const of = (name) => new Varints(columns[name]);
  const [id, since, count, parent, labels, site] = ["id", "since", "spans", "parent", "labels", "site"].map(of);
  const [detail, more] = ["detail", "more"].map(of);
  let lane = 0;
  let span = 0;
  head.groups.forEach((group, index) => {
    group.firstLane = lane;
    for (const last = lane + group.lanes; lane < last; lane++) {
      data.id[lane] = id.nextDifference();
      let now = (data.since[lane] = since.nextDifference());
      data.parent[lane] = parent.next();
      data.labelsOf[lane] = labels.next();
      data.siteOf[lane] = site.next();
      data.groupOf[lane] = index;
      data.first[lane] = span;
      for (const last = span + count.next(); span < last; span++) {
        data.start[span] = now;
        now += long((columns.lastedHigh[span] << 8) | columns.lastedLow[span]);
        data.end[span] = now;
        data.detail[span] = detail.next();
        data.more[span] = more.next();
      }
    }
  });
  data.first[lane] = span;
  data.stateOf = Uint8Array.from(data.details, ([state]) => state);
  return data;
}

/** What a lane is called. */
function laneName(data, lane) {
  const group = data.groups[data.groupOf[lane]];
  return group.of ? `${group.of}:${data.id[lane]}` : group.names[lane - group.firstLane];
}

/** Who ended a span: `{ name }` of a part of the runtime, `{ goid }`, or nothing. */
function wokenBy(data, lane, span) {
  const more = data.more[span];
  if (!more || data.states[data.stateOf[data.detail[span]]] === "many") return null;
  if (more < PARTS.length) return { name: PARTS[more] };
  const zigzag = more - PARTS.length;
  return { goid: data.id[lane] + (zigzag % 2 ? -(zigzag + 1) / 2 : zigzag / 2) };
}

/** A duration with three significant digits, as `human.rs` writes it. */
function duration(ns) {
  const seconds = Math.floor(ns / 1e9);
  if (seconds >= 3600) return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds / 60) % 60} min`;
  if (seconds >= 120) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  const [unit, name] = [[1e9, "s"], [1e6, "ms"], [1e3, "µs"]].find(([unit]) => ns >= unit) ?? [1, "ns"];
  const value = ns / unit;
  return `${value.toFixed(value >= 100 || unit === 1 ? 0 : value >= 10 ? 1 : 2)} ${name}`;
}

/** A count with its thousands apart. */
function thousands(value) {
  return Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, ",");
}

/** An element with its text and what it holds. */
function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children.filter((child) => child != null));
  return made;
}
