// What of a timeline is shown: groups and their lanes, and a stretch of time.

const GUTTER = 300;
const AXIS = 24;
const HEAD = 22;
const BAND = 44;
const LANE = 15;
/** No less than this is shown at once, ns. */
const LEAST_NS = 100;
/** Groups of so many lanes in all are open from the start. */
const FEW = 400;
/** Kinds of groups that are open from the start. */
const SMALL = ["process", "runtime"];

/** What is where; nothing is drawn here. */
class View {
  constructor(data, canvas) {
    Object.assign(this, { data, canvas });
    this.context = canvas.getContext("2d");
    this.duration = Math.max(data.duration_ns, LEAST_NS);
    this.from = 0;
    this.to = this.duration;
    this.scroll = 0;
    /** Where the keyboard is: a block and a lane within it. */
    this.cursor = { block: 0, place: 0 };
    this.selected = null;
    this.open = data.groups.map((group) => SMALL.includes(group.kind) || data.lanes <= FEW);
    this.shown = data.groups.map((group) => range(group));
    this.bands = new Map();
    this.pending = false;
    this.width = this.height = 0;
    this.takeColours();
    this.arrange();
  }

  takeColours() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    this.colours = this.data.states.map((state) => colour(`--state-${state}`) || colour("--state-unknown"));
    this.ink = Object.fromEntries(
      ["text", "quiet", "line", "paper", "raised", "accent", "lost", "on-state"].map((name) => [name, colour(`--${name}`)]),
    );
    this.redraw();
  }

  /** Lanes that are shown, group by group; what is closed has a band in their place. */
  arrange() {
    const { groups, processes } = this.data;
    this.blocks = [];
    let [y, process] = [0, -1];
    const add = (block, height) => {
      this.blocks.push({ ...block, y, height });
      y += height;
    };
    groups.forEach((group, index) => {
      const lanes = this.shown[index];
      if (lanes.length === 0) return;
      if (group.process !== process) {
        process = group.process;
        add({ kind: "process", text: `pid ${processes[process].tgid}  ${processes[process].command}` }, HEAD + 4);
      }
      add({ kind: "group", group: index, lanes }, this.open[index] ? HEAD : HEAD + BAND);
      if (this.open[index]) add({ kind: "lanes", group: index, lanes }, lanes.length * LANE);
    });
    this.total = y;
    const block = Math.min(this.cursor.block, Math.max(this.blocks.length - 1, 0));
    this.cursor = { block, place: Math.min(this.cursor.place, this.rowsOf(block) - 1) };
    this.moveTo(this.from, this.to, this.scroll);
  }

  /** Shows what a predicate on lanes keeps; `null`: all. */
  filter(keep, of = () => true) {
    this.shown = this.data.groups.map((group, index) => {
      if (!of(group, index)) return new Uint32Array(0);
      return keep ? range(group).filter(keep) : range(group);
    });
    const left = this.shown.reduce((sum, lanes) => sum + lanes.length, 0);
    if (keep && left <= FEW) this.open.fill(true);
    this.bands.clear();
    this.scroll = 0;
    this.arrange();
    return left;
  }

  openAll(open) {
    this.open.fill(open);
    this.arrange();
  }

  toggle(group) {
    this.open[group] = !this.open[group];
    this.arrange();
  }

  get plot() {
    return Math.max(this.width - GUTTER, 1);
  }

  x(time) {
    return GUTTER + ((time - this.from) / (this.to - this.from)) * this.plot;
  }

  time(x) {
    return this.from + ((x - GUTTER) / this.plot) * (this.to - this.from);
  }

  moveTo(from, to, scroll = this.scroll) {
    const length = Math.min(Math.max(to - from, LEAST_NS), this.duration);
    this.from = Math.min(Math.max(from, 0), this.duration - length);
    this.to = this.from + length;
    this.scroll = Math.min(Math.max(scroll, 0), Math.max(this.total - (this.height - AXIS), 0));
    this.redraw();
  }

  /** By a share of what is shown. */
  pan(share) {
    const by = share * (this.to - this.from);
    this.moveTo(this.from + by, this.to + by);
  }

  /** Around an instant. */
  zoom(factor, around = (this.from + this.to) / 2) {
    const length = Math.min(Math.max((this.to - this.from) * factor, LEAST_NS), this.duration);
    const share = (around - this.from) / (this.to - this.from);
    this.moveTo(around - share * length, around + (1 - share) * length);
  }

  fit() {
    this.moveTo(0, this.duration);
  }

  /** How many rows a block has. */
  rowsOf(block) {
    const lanes = this.blocks[block]?.kind === "lanes" ? this.blocks[block].lanes : null;
    return lanes ? lanes.length : 1;
  }

  /** The first span of a lane that is not over at a time. */
  spanAt(lane, time) {
    const { first, end } = this.data;
    let [low, high] = [first[lane], first[lane + 1]];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (end[middle] < time) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  word(span) {
    const { details, words } = this.data;
    const word = details[this.data.detail[span]][1];
    return word === null ? "" : words[word];
  }

  redraw() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      this.draw();
    });
  }
}

/** All lanes of a group. */
function range(group) {
  return Uint32Array.from({ length: group.lanes }, (_, place) => group.firstLane + place);
}
