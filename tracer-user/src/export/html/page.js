// Begins everything, and ties the controls to what they control.

/** A list has no more; Search finds the others. */
const MOST_CHOICES = 500;

/** Lanes that the controls ask for; `null`: all. */
function wantedLanes(data, { search, state, label }) {
  if (!search && !state && !label) return null;
  const [stateName, word] = state.split("|");
  const holds = (text) => text.toLowerCase().includes(search);
  // What spans say is judged once for all that say the same.
  const inState = data.details.map(([number, word_]) => data.states[number] === stateName && (word === undefined || String(word_) === word));
  const frames = search ? data.frames.map((frame) => holds(frame.function)) : [];
  const stacks = search ? data.stacks.map((stack) => stack.some((frame) => frames[frame])) : [];
  const words = search ? data.words.map(holds) : [];
  const found = data.details.map(([, word_, stack]) => words[word_] || stacks[stack] || false);
  const groups = data.groups.map((group) => search !== "" && holds(group.title));
  const sites = data.sites.map((site) => search !== "" && site.some(holds));
  const labels = data.labels.map((set) => ({
    found: search !== "" && set.some(([key, value]) => holds(`${key}=${value}`)),
    chosen: set.some(([key, value]) => `${key}=${value}` === label),
  }));
  const says = (lane, details) => {
    for (let span = data.first[lane]; span < data.first[lane + 1]; span++) if (details[data.detail[span]]) return true;
    return false;
  };
  return (lane) => {
    const set = labels[data.labelsOf[lane] - 1];
    if (label && !set?.chosen) return false;
    if (state && !says(lane, inState)) return false;
    if (!search) return true;
    // An id is that one, not all whose numbers begin alike, nor a line of a file.
    if (/^(go|tid):\d+$/.test(search)) return laneName(data, lane).split(" ")[0] === search;
    return holds(laneName(data, lane)) || groups[data.groupOf[lane]] || sites[data.siteOf[lane] - 1] || set?.found || says(lane, found);
  };
}

/** What there is to choose from. */
function fillChoices(data, by) {
  const add = (select, value, text) => select.append(element("option", { value }, text));
  data.processes.forEach((process, index) => add(by.process, index, `${process.tgid} ${process.command}`.slice(0, 60)));
  data.groups.forEach((group, index) => {
    if (group.kind === "goroutines" && by.site.length <= MOST_CHOICES) add(by.site, index, `${group.title} (${thousands(group.count)})`.slice(0, 80));
  });
  const states = new Map();
  for (const [state, word] of data.details) {
    const name = data.states[state];
    if (["gap", "event", "tier", "cycle", "pause"].includes(name)) continue;
    states.set(name, name);
    if (name === "blocked" && word !== null) states.set(`${name}|${word}`, `${name}: ${data.words[word]}`);
  }
  for (const [value, text] of [...states].sort(([, one], [, other]) => one.localeCompare(other)).slice(0, MOST_CHOICES)) add(by.state, value, text);
  const labels = new Set(data.labels.flatMap((set) => set.map(([key, value]) => `${key}=${value}`)));
  for (const label of [...labels].sort().slice(0, MOST_CHOICES)) add(by.label, label, label.slice(0, 80));
}

function legend(data, list) {
  const shown = data.states.filter((state) => !["gap", "event", "tier", "cycle", "pause"].includes(state));
  const item = (state, text) => element("li", {}, element("span", { className: `swatch state-${state}` }), text);
  list.replaceChildren(...shown.map((state) => item(state, state === "many" ? "many short spans" : state)));
  if (data.lost.length) list.append(item("lost", "events are missing"));
}

async function begin() {
  const at = (id) => document.getElementById(id);
  const data = await unpack(at("packed").textContent);
  const timeline = new Timeline(data, at("lanes"), at("told"));
  const by = Object.fromEntries(["search", "process", "site", "state", "label"].map((id) => [id, at(id)]));
  fillChoices(data, by);
  legend(data, at("legend"));
  const filter = () => {
    const wanted = { search: by.search.value.trim().toLowerCase(), state: by.state.value, label: by.label.value };
    const of = (group, index) =>
      (by.process.value === "" || group.process === Number(by.process.value)) && (by.site.value === "" || index === Number(by.site.value));
    const left = timeline.filter(wantedLanes(data, wanted), of);
    const parts = [`${thousands(left)} of ${thousands(data.lanes)} lanes`];
    const { goroutines, others, stacks, words } = data.left_out;
    if (goroutines) parts.push(`${thousands(goroutines)} goroutines have none: they lived and waited least`);
    if (others) parts.push(`${thousands(others)} processes, threads and other units have none`);
    if (stacks || words) parts.push("some stacks and reasons are not told: there are too many");
    if (data.merged_below_ns) {
      parts.push(`runs of spans under ${duration(data.merged_below_ns)} are drawn as one, and State and Search do not see into these`);
    }
    at("timeline-note").textContent = parts.join("; ");
  };
  let later = 0;
  by.search.addEventListener("input", () => {
    clearTimeout(later);
    later = setTimeout(filter, 150);
  });
  for (const id of ["process", "site", "state", "label"]) by[id].addEventListener("change", filter);
  at("controls").addEventListener("submit", (event) => event.preventDefault());
  at("zoom-in").onclick = () => timeline.zoom(1 / 2);
  at("zoom-out").onclick = () => timeline.zoom(2);
  at("fit").onclick = () => timeline.fit();
  at("expand").onclick = () => timeline.openAll(true);
  at("collapse").onclick = () => timeline.openAll(false);
  filter();

  const flames = new Flames(data, at("flame"), at("flame-note"));
  data.flames.forEach((flame, index) => at("flame-by").append(element("option", { value: index }, flame.title)));
  at("flame-by").addEventListener("change", () => flames.choose(Number(at("flame-by").value)));
  at("flame-search").addEventListener("input", () => flames.highlight(at("flame-search").value.trim()));
  at("flame-reset").onclick = () => flames.reset();
  at("flame-controls").addEventListener("submit", (event) => event.preventDefault());

  for (const table of document.querySelectorAll("table.sortable")) sortable(table);
  for (const button of document.querySelectorAll("button[data-show]")) {
    button.onclick = () => {
      by.search.value = button.dataset.show;
      filter();
      at("timeline").scrollIntoView();
      at("lanes").focus({ preventScroll: true });
    };
  }
  // For those who look into the page with its own tools.
  window.lifetrace = { data, timeline, flames };
  document.body.dataset.ready = "yes";
}

begin().catch((error) => {
  document.getElementById("timeline-note").textContent = `The timeline cannot be drawn: ${error.message}`;
  throw error;
});
