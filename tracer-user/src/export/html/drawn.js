// How a timeline is drawn.

/** States in the order in which a band stacks them. */
const STACKED = ["running", "awake", "alive", "syscall", "runnable", "blocked", "stopped", "zombie", "many", "unknown"];
const HATCH = 6;

/** Draws a view on its canvas. */
class Drawn extends View {
  resize() {
    const scale = window.devicePixelRatio || 1;
    this.width = this.canvas.clientWidth;
    this.height = this.canvas.clientHeight;
    this.canvas.width = Math.round(this.width * scale);
    this.canvas.height = Math.round(this.height * scale);
    this.context.setTransform(scale, 0, 0, scale, 0, 0);
    this.moveTo(this.from, this.to);
  }

  draw() {
    const { context, width, height, ink } = this;
    context.fillStyle = ink.paper;
    context.fillRect(0, 0, width, height);
    context.save();
    context.beginPath();
    context.rect(0, AXIS, width, height - AXIS);
    context.clip();
    context.textBaseline = "middle";
    for (const block of this.blocks) {
      const y = block.y - this.scroll + AXIS;
      if (y + block.height < AXIS || y > height) continue;
      if (block.kind === "process") this.drawProcess(block, y);
      else if (block.kind === "group") this.drawGroup(block, y);
      else this.drawLanes(block, y);
    }
    this.drawLosses();
    this.drawCursor();
    context.restore();
    this.drawAxis();
    if (this.range) {
      context.fillStyle = ink.accent;
      context.globalAlpha = 0.2;
      const [from, to] = this.range.map((time) => this.x(time));
      context.fillRect(Math.min(from, to), AXIS, Math.abs(to - from), height - AXIS);
      context.globalAlpha = 1;
    }
  }

  drawProcess(block, y) {
    this.context.fillStyle = this.ink.raised;
    this.context.fillRect(0, y, this.width, block.height);
    this.write(block.text, 8, y + block.height / 2, this.width - 16, "600 13px system-ui, sans-serif");
  }

  drawGroup(block, y) {
    const { context, data } = this;
    const group = data.groups[block.group];
    const mark = this.open[block.group] ? "▾" : "▸";
    const some = block.lanes.length === group.count ? "" : `${thousands(block.lanes.length)} of `;
    const text = `${mark} ${group.title} (${some}${thousands(group.count)})`;
    context.fillStyle = this.ink.line;
    context.fillRect(0, y, this.width, 1);
    if (this.open[block.group]) {
      const by = group.by ? `  by ${group.by}` : "";
      this.write(text + by, 14, y + HEAD / 2, this.width - 20, "13px system-ui, sans-serif");
      return;
    }
    this.write(text, 14, y + HEAD / 2 + 4, GUTTER - 20, "13px system-ui, sans-serif");
    if (group.by) this.write(`by ${group.by}`, 26, y + HEAD + 10, GUTTER - 32, "12px system-ui, sans-serif", this.ink.quiet);
    this.drawBand(block, y + 6, block.height - 10);
  }

  /** How many lanes are in which state, stacked. */
  drawBand(block, y, height) {
    const { context } = this;
    let band = this.bands.get(block.group);
    if (!band) {
      band = { states: occupancies(this.data, block.lanes, STACKED), peak: 1 };
      this.stack(band, 0, this.duration, 512).forEach(([, tops]) => tops.forEach((top) => (band.peak = Math.max(band.peak, top))));
      this.bands.set(block.group, band);
    }
    const columns = Math.max(Math.floor(this.plot / 2), 1);
    const stacked = this.stack(band, this.from, this.to, columns);
    for (const [, tops] of stacked) for (const top of tops) band.peak = Math.max(band.peak, top);
    const step = this.plot / columns;
    const at = (top) => y + height - (top / band.peak) * height;
    // The highest stack first: lower ones cover its lower part.
    for (const [state, tops] of stacked.reverse()) {
      context.fillStyle = this.colours[state];
      context.beginPath();
      context.moveTo(GUTTER, y + height);
      tops.forEach((top, column) => {
        context.lineTo(GUTTER + column * step, at(top));
        context.lineTo(GUTTER + (column + 1) * step, at(top));
      });
      context.lineTo(GUTTER + this.plot, y + height);
      context.fill();
    }
    this.write(`${thousands(band.peak)}`, GUTTER + 4, y + 6, 100, "11px system-ui, sans-serif", this.ink.quiet);
  }

  /** For each state, how high the stack is with it, in each column. */
  stack(band, from, to, columns) {
    const sum = new Float64Array(columns);
    const step = (to - from) / columns;
    return band.states.map(([state, occupancy]) => {
      let before = occupancy.upTo(from);
      for (let column = 0; column < columns; column++) {
        const now = occupancy.upTo(from + (column + 1) * step);
        sum[column] += Math.max((now - before) / step, 0);
        before = now;
      }
      return [state, sum.slice()];
    });
  }

  drawLanes(block, y) {
    const first = Math.max(Math.floor((AXIS - y) / LANE), 0);
    const last = Math.min(Math.ceil((this.height - y) / LANE), block.lanes.length);
    for (let place = first; place < last; place++) this.drawLane(block.lanes[place], y + place * LANE);
  }

  drawLane(lane, y) {
    const { context, data } = this;
    const leaking = data.flags[lane] & 2;
    const name = laneName(data, lane) + (leaking ? "  leaking" : "");
    this.write(name, 26, y + LANE / 2, GUTTER - 32, "12px system-ui, sans-serif", leaking ? this.ink.lost : this.ink.quiet);
    const perPixel = (this.to - this.from) / this.plot;
    const last = data.first[lane + 1];
    let span = this.spanAt(lane, this.from);
    while (span < last && data.start[span] <= this.to) {
      const state = data.stateOf[data.detail[span]];
      const left = Math.max(this.x(data.start[span]), GUTTER);
      const right = Math.min(this.x(data.end[span]), this.width);
      const kind = data.states[state];
      if (kind !== "gap") {
        const wide = Math.max(right - left, kind === "event" ? 3 : 1);
        context.fillStyle = this.colours[state];
        context.fillRect(left, y + 1, wide, LANE - 2);
        if (wide > 50) this.write(this.word(span) || kind, left + 4, y + LANE / 2, wide - 8, "11px system-ui, sans-serif", this.ink["on-state"]);
      }
      // What else is in that pixel cannot be seen.
      span = right - left < 1 ? Math.max(this.spanAt(lane, data.start[span] + perPixel), span + 1) : span + 1;
    }
  }

  /** Where events are missing. */
  drawLosses() {
    const { context } = this;
    context.strokeStyle = this.ink.lost;
    context.lineWidth = 1;
    for (const [from, to] of this.data.lost) {
      const left = Math.max(this.x(from), GUTTER);
      const right = Math.min(Math.max(this.x(to), left + 2), this.width);
      if (right <= GUTTER || left >= this.width) continue;
      context.save();
      context.beginPath();
      context.rect(left, AXIS, right - left, this.height);
      context.clip();
      context.beginPath();
      for (let x = left - this.height; x < right; x += HATCH) {
        context.moveTo(x, this.height);
        context.lineTo(x + this.height, 0);
      }
      context.stroke();
      context.restore();
    }
  }

  drawCursor() {
    const { context, cursor } = this;
    const block = this.blocks[cursor.block];
    if (!block || document.activeElement !== this.canvas) return;
    const lane = block.kind === "lanes";
    const y = block.y - this.scroll + AXIS + (lane ? cursor.place * LANE : 0);
    context.strokeStyle = this.ink.accent;
    context.lineWidth = 2;
    context.strokeRect(1, y + 1, this.width - 2, (lane ? LANE : block.height) - 2);
    if (this.selected) {
      const { span } = this.selected;
      const [left, right] = [this.x(this.data.start[span]), this.x(this.data.end[span])];
      if (lane && block.lanes[cursor.place] === this.selected.lane) context.strokeRect(left, y, Math.max(right - left, 2), LANE);
    }
  }

  drawAxis() {
    const { context, ink } = this;
    context.fillStyle = ink.raised;
    context.fillRect(0, 0, this.width, AXIS);
    const step = niceStep(((this.to - this.from) / this.plot) * 120);
    context.textBaseline = "middle";
    for (let tick = Math.ceil(this.from / step); tick * step <= this.to; tick++) {
      const x = this.x(tick * step);
      context.fillStyle = ink.line;
      context.fillRect(x, AXIS - 6, 1, 6);
      this.write(atText(tick * step, step), x + 3, AXIS / 2, 110, "11px system-ui, sans-serif", ink.text);
    }
    this.write(`${duration(this.to - this.from)} of ${duration(this.duration)}`, 8, AXIS / 2, GUTTER - 16, "11px system-ui, sans-serif");
  }

  /** Text that is cut where there is no more room. */
  write(text, x, y, room, font, colour = this.ink.text) {
    const { context } = this;
    if (room < 8) return;
    context.font = font;
    context.fillStyle = colour;
    let cut = text;
    if (context.measureText(cut).width > room) {
      const share = room / context.measureText(text).width;
      cut = `${text.slice(0, Math.max(Math.floor(text.length * share) - 1, 0))}…`;
    }
    context.fillText(cut, x, y);
  }
}

/** A round step that is not shorter. */
function niceStep(ns) {
  const power = 10 ** Math.floor(Math.log10(ns));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= ns);
}

/** An instant, with as many digits as a step needs. */
function atText(time, step) {
  const [unit, name] = step >= 1e9 ? [1e9, "s"] : step >= 1e6 ? [1e6, "ms"] : step >= 1e3 ? [1e3, "µs"] : [1, "ns"];
  return `${(time / unit).toLocaleString("en", { maximumFractionDigits: 0 })} ${name}`;
}
