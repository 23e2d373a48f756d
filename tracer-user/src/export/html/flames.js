// Flamegraphs: a frame is a button, as wide as its share.

const FRAME = 20;
/** Frames that are narrower, in pixels, are not drawn. */
const NARROW = 1.5;

class Flames {
  constructor(data, box, note) {
    Object.assign(this, { data, box, note, number: 0, wanted: "" });
    // Its height follows from what is drawn.
    new ResizeObserver(() => this.width !== box.clientWidth && this.draw()).observe(box);
    box.addEventListener("keydown", (event) => this.key(event));
    if (data.flames.length) this.choose(0);
    else note.textContent = "There is nothing to draw: no goroutine and no thread was seen.";
  }

  choose(number) {
    this.number = number;
    this.path = [this.data.flames[number].root];
    this.draw();
  }

  reset() {
    if (this.data.flames.length) this.choose(this.number);
  }

  highlight(text) {
    this.wanted = text.toLowerCase();
    this.draw();
  }

  text(value) {
    return this.data.flames[this.number].time ? duration(value) : thousands(value);
  }

  name(node) {
    return this.data.frames[node[0]].function;
  }

  /** Those on the way to what is widest stand below it, as wide. */
  draw() {
    if (!this.path) return;
    const width = (this.width = this.box.clientWidth);
    const made = [];
    this.path.slice(0, -1).forEach((node, depth) => made.push(this.frame(node, depth, 0, width, this.path.slice(0, depth + 1))));
    const deepest = this.tree(this.path, 0, width, width / this.path.at(-1)[1], made);
    this.box.style.height = `${(deepest + 1) * FRAME}px`;
    const focused = made.find((frame) => frame.node === this.path.at(-1)) ?? made[0];
    focused.tabIndex = 0;
    // Who is at a frame stays at it, or goes to what is widest.
    const at = this.box.contains(document.activeElement) ? document.activeElement.node : null;
    this.box.replaceChildren(...made);
    if (at) (made.find((frame) => frame.node === at) ?? focused).focus();
    this.say();
  }

  tree(path, x, width, perUnit, made) {
    const node = path.at(-1);
    made.push(this.frame(node, path.length - 1, x, width, path));
    let deepest = path.length - 1;
    let at = x;
    for (const child of node[2]) {
      const wide = child[1] * perUnit;
      if (wide >= NARROW) deepest = Math.max(deepest, this.tree([...path, child], at, wide, perUnit, made));
      at += wide;
    }
    return deepest;
  }

  frame(node, depth, x, width, path) {
    const { file, line } = this.data.frames[node[0]];
    const share = ((100 * node[1]) / this.data.flames[this.number].root[1]).toPrecision(3);
    const says = `${this.name(node)}, ${this.text(node[1])}, ${share} %`;
    const frame = element("button", { type: "button", className: "frame", tabIndex: -1, title: line ? `${says}\n${file}:${line}` : says });
    frame.setAttribute("aria-label", says);
    Object.assign(frame.style, { left: `${x}px`, top: `${depth * FRAME}px`, width: `${Math.max(width - 1, 1)}px` });
    // A name has the same colour everywhere.
    let hash = 0;
    for (const letter of this.name(node)) hash = (hash * 31 + letter.codePointAt(0)) % 997;
    frame.classList.add(file ? `warm-${hash % 6}` : "ours");
    if (this.wanted && this.name(node).toLowerCase().includes(this.wanted)) frame.classList.add("wanted");
    if (width > 24) frame.textContent = this.name(node);
    Object.assign(frame, { node, depth, onclick: () => this.widen(path) });
    return frame;
  }

  /** Makes a frame as wide as can be. */
  widen(path) {
    this.path = path;
    this.draw();
    [...this.box.children].find((frame) => frame.node === path.at(-1))?.focus();
  }

  say() {
    const flame = this.data.flames[this.number];
    const node = this.path.at(-1);
    const cut = flame.cut_below ? `; frames under ${this.text(flame.cut_below)} are left out` : "";
    const wanted = this.wanted ? `; ${this.text(this.sum(node))} in frames with “${this.wanted}”` : "";
    this.note.textContent = `${this.name(node)}: ${this.text(node[1])} of ${this.text(flame.root[1])}${wanted}${cut}`;
  }

  /** What frames that are looked for take, each counted once. */
  sum(node) {
    if (this.name(node).toLowerCase().includes(this.wanted)) return node[1];
    return node[2].reduce((sum, child) => sum + this.sum(child), 0);
  }

  key(event) {
    const frames = [...this.box.children];
    const at = document.activeElement;
    if (!frames.includes(at)) return;
    const left = (frame) => parseFloat(frame.style.left);
    const on = (depth) => frames.filter((frame) => frame.depth === depth).sort((one, other) => left(one) - left(other));
    const beside = on(at.depth);
    const next = {
      ArrowLeft: () => beside[beside.indexOf(at) - 1],
      ArrowRight: () => beside[beside.indexOf(at) + 1],
      ArrowUp: () => on(at.depth - 1).findLast((frame) => left(frame) <= left(at) + 0.01),
      ArrowDown: () => on(at.depth + 1).find((frame) => left(frame) >= left(at) - 0.01),
    }[event.key]?.();
    if (event.key === "Escape") this.reset();
    else if (!next) return;
    next?.focus();
    event.preventDefault();
  }
}
