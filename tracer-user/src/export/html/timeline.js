// The timeline: a drawn view that is moved and zoomed by mouse and keyboard, and tells of what is pointed at.

class Timeline extends Drawn {
  constructor(data, canvas, told) {
    super(data, canvas);
    this.told = told;
    this.listen();
    new ResizeObserver(() => this.resize()).observe(canvas.parentElement);
    this.resize();
  }

  // Who is pointed at.

  blockAt(y) {
    const at = y - AXIS + this.scroll;
    return this.blocks.findIndex((block) => at >= block.y && at < block.y + block.height);
  }

  click(x, y) {
    const index = this.blockAt(y);
    const block = this.blocks[index];
    if (!block || y < AXIS) return;
    const place = block.kind === "lanes" ? Math.floor((y - AXIS + this.scroll - block.y) / LANE) : 0;
    this.cursor = { block: index, place };
    if (block.kind === "group") this.toggle(block.group);
    else if (block.kind === "lanes") this.select(block.lanes[place], Math.max(this.time(x), 0));
    this.redraw();
  }

  /** Tells of what a lane did at a time. */
  select(lane, time) {
    const { first } = this.data;
    const last = Math.max(first[lane + 1] - 1, first[lane]);
    this.selectSpan(lane, Math.min(this.spanAt(lane, time), last));
  }

  selectSpan(lane, span) {
    const { first } = this.data;
    if (span < first[lane] || span >= first[lane + 1]) return;
    this.selected = { lane, span };
    this.tell();
    this.redraw();
  }

  /** Brings a lane into sight, even if a filter hides it, and tells of it. */
  show(lane, time) {
    const group = this.data.groupOf[lane];
    if (!this.shown[group].includes(lane)) this.shown[group] = Uint32Array.from([...this.shown[group], lane]).sort();
    this.open[group] = true;
    this.bands.delete(group);
    this.arrange();
    const block = this.blocks.findIndex((one) => one.kind === "lanes" && one.group === group);
    const place = this.blocks[block].lanes.indexOf(lane);
    this.cursor = { block, place };
    this.reveal();
    this.canvas.focus({ preventScroll: true });
    if (time < this.from || time > this.to) this.moveTo(time - (this.to - this.from) / 2, time + (this.to - this.from) / 2);
    this.select(lane, time);
  }

  /** The newest lane of a goroutine that had begun by then; else its first. */
  laneOf(process, goid, time) {
    const { data } = this;
    let found = -1;
    const better = (lane) => {
      if (found < 0) return true;
      const [one, other] = [data.since[lane], data.since[found]];
      return one <= time ? other > time || one > other : other > time && one < other;
    };
    data.groups.forEach((group) => {
      if (group.of !== "go" || group.process !== process) return;
      for (let lane = group.firstLane; lane < group.firstLane + group.lanes; lane++) {
        if (data.id[lane] === goid && better(lane)) found = lane;
      }
    });
    return found;
  }

  /** What is known of the selected span, beside the canvas. */
  tell() {
    const { data } = this;
    const { lane, span } = this.selected;
    const group = data.groups[data.groupOf[lane]];
    const [state, , stack] = data.details[data.detail[span]];
    const [start, end] = [data.start[span], data.end[span]];
    const facts = [];
    const fact = (name, ...what) => facts.push(element("div", {}, element("dt", {}, name), element("dd", {}, ...what)));
    const says = {
      many: `${thousands(data.more[span])} short spans, each under ${duration(data.merged_below_ns)}`,
      gap: "nothing is told of this time",
    };
    fact("state", [says[data.states[state]] ?? data.states[state], this.word(span)].filter(Boolean).join(", "));
    fact("from", `${duration(start)} after the beginning, for ${duration(end - start)}`);
    const waker = wokenBy(data, lane, span);
    if (waker) fact("woken by", waker.name ?? this.link(group.process, waker.goid, end));
    if (group.of === "go") {
      const [runs, by] = data.sites[data.siteOf[lane] - 1];
      fact("runs", runs, by ? `, created by ${by}` : "");
      if (data.parent[lane]) fact("made by", this.link(group.process, data.parent[lane], data.since[lane]));
      const birth = data.flags[lane] & 1 ? "" : "; its birth was not seen";
      fact("its end", ENDS[(data.flags[lane] >> 2) & 3] + birth);
    }
    const labels = data.labelsOf[lane];
    if (labels) fact("labels", data.labels[labels - 1].map(([key, value]) => `${key}=${value}`).join("  "));
    if (stack !== null) fact("stack", stackOf(data, stack));
    const step = (name, by) => {
      const disabled = span + by < data.first[lane] || span + by >= data.first[lane + 1];
      return element("button", { type: "button", disabled, onclick: () => this.selectSpan(lane, span + by) }, name);
    };
    const title = element("h3", {}, `${laneName(data, lane)} of pid ${data.processes[group.process].tgid}`);
    // Who pressed a button goes on pressing it.
    const pressed = this.told.contains(document.activeElement) ? document.activeElement.textContent : null;
    this.told.replaceChildren(
      title,
      element("p", {}, step("Span before", -1), " ", step("Next span", 1)),
      element("dl", { className: "facts" }, ...facts),
    );
    if (pressed) [...this.told.querySelectorAll("button")].find((button) => button.textContent === pressed && !button.disabled)?.focus();
  }

  /** A goroutine as a button that leads to it; plain text where it has no lane. */
  link(process, goid, time) {
    const name = `go:${goid}`;
    const lane = this.laneOf(process, goid, time);
    if (lane < 0) return name;
    return element("button", { type: "button", className: "link", onclick: () => this.show(lane, time) }, name);
  }

  // Mouse and keyboard.

  listen() {
    const { canvas } = this;
    let drag = null;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      drag = { x: event.offsetX, y: event.offsetY, from: this.from, to: this.to, scroll: this.scroll, moved: false };
      if (event.shiftKey) this.range = [this.time(event.offsetX), this.time(event.offsetX)];
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!drag) return;
      const [dx, dy] = [event.offsetX - drag.x, event.offsetY - drag.y];
      drag.moved ||= Math.abs(dx) + Math.abs(dy) > 4;
      if (this.range) this.range[1] = this.time(event.offsetX);
      else if (drag.moved) {
        const by = (-dx / this.plot) * (drag.to - drag.from);
        this.moveTo(drag.from + by, drag.to + by, drag.scroll - dy);
      }
      this.redraw();
    });
    canvas.addEventListener("pointerup", (event) => {
      const range = this.range;
      this.range = null;
      if (drag && !drag.moved) this.click(event.offsetX, event.offsetY);
      else if (range) this.moveTo(Math.min(...range), Math.max(...range));
      drag = null;
    });
    canvas.addEventListener("pointercancel", () => (drag = this.range = null));
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this.key(event));
    for (const name of ["focus", "blur"]) canvas.addEventListener(name, () => this.redraw());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.takeColours());
    for (const name of ["beforeprint", "afterprint"]) window.addEventListener(name, () => (this.takeColours(), this.draw()));
  }

  wheel(event) {
    if (event.ctrlKey || event.metaKey) this.zoom(Math.exp(event.deltaY / 300), this.time(Math.max(event.offsetX, GUTTER)));
    else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) this.pan((event.deltaX || event.deltaY) / 1000);
    else {
      const before = this.scroll;
      this.moveTo(this.from, this.to, this.scroll + event.deltaY);
      // At its ends the page goes on.
      if (before === this.scroll) return;
    }
    event.preventDefault();
  }

  key(event) {
    const { selected } = this;
    const span = (by) => selected && this.selectSpan(selected.lane, selected.span + by);
    const keys = {
      ArrowLeft: () => this.pan(-0.1),
      ArrowRight: () => this.pan(0.1),
      ArrowUp: () => this.step(-1),
      ArrowDown: () => this.step(1),
      PageUp: () => this.step(-20),
      PageDown: () => this.step(20),
      Home: () => this.step(-Infinity),
      End: () => this.step(Infinity),
      "+": () => this.zoom(1 / 1.5),
      "=": () => this.zoom(1 / 1.5),
      "-": () => this.zoom(1.5),
      0: () => this.fit(),
      Enter: () => this.enter(),
      " ": () => this.enter(),
      n: () => span(1),
      p: () => span(-1),
    };
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    keys[event.key]();
    event.preventDefault();
  }

  /** Opens a group, or tells of a lane where the middle of what is shown is. */
  enter() {
    const block = this.blocks[this.cursor.block];
    if (block?.kind === "group") this.toggle(block.group);
    else if (block?.kind === "lanes") this.select(block.lanes[this.cursor.place], (this.from + this.to) / 2);
  }

  /** Moves the cursor by rows. */
  step(by) {
    let { block, place } = this.cursor;
    if (!this.blocks.length) return;
    place += by;
    while (place < 0 && block > 0) place += this.rowsOf(--block);
    while (place >= this.rowsOf(block) && block < this.blocks.length - 1) place -= this.rowsOf(block++);
    if (by === -Infinity) [block, place] = [0, 0];
    if (by === Infinity) block = this.blocks.length - 1;
    this.cursor = { block, place: Math.min(Math.max(place, 0), this.rowsOf(block) - 1) };
    this.reveal();
    this.redraw();
  }

  /** Scrolls to where the cursor is. */
  reveal() {
    const block = this.blocks[this.cursor.block];
    const y = block.y + (block.kind === "lanes" ? this.cursor.place * LANE : 0);
    const room = this.height - AXIS;
    if (y < this.scroll) this.moveTo(this.from, this.to, y);
    else if (y + LANE * 2 > this.scroll + room) this.moveTo(this.from, this.to, y + LANE * 2 - room);
  }
}

/** A stack as a list, innermost first. */
function stackOf(data, number) {
  const frames = data.stacks[number].map((frame) => {
    const { function: name, file, line } = data.frames[frame];
    return element("li", {}, name, line ? element("span", { className: "quiet" }, ` ${file}:${line}`) : null);
  });
  return element("ol", { className: "stack" }, ...frames);
}
