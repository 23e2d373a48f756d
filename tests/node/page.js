// Opens a page of lifetrace in headless Chromium, and says what is in it and what it does when it is used.
//
// Usage: PACKAGES=DIR node page.js PAGE.html [FOLDER]. DIR holds `playwright-core` and `axe-core`. What any page must be is checked here: it
// asks for nothing else, says nothing on the console, draws something, answers to mouse and keyboard, and axe has no serious objection in
// light or dark. Prints one object. With FOLDER, pictures are left there.

const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const { chromium } = require(path.join(process.env.PACKAGES, "playwright-core"));

const [file, folder] = process.argv.slice(2);
const TIMEOUT = 60_000;
/** Panned for the measure of speed. */
const FRAMES = 60;

/** How many colours a canvas shows below its axis and beside its names. */
const coloursOf = (canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const seen = new Set();
  for (let y = 30; y < canvas.height; y += 2) {
    for (let x = 320; x < canvas.width; x += 3) {
      const at = 4 * (y * canvas.width + x);
      seen.add((data[at] << 16) | (data[at + 1] << 8) | data[at + 2]);
    }
  }
  return seen.size;
};

async function open(browser, colorScheme) {
  const page = await browser.newPage({ colorScheme, viewport: { width: 1280, height: 900 } });
  const wrong = [];
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && wrong.push(message.text()));
  page.on("pageerror", (error) => wrong.push(error.message));
  page.on("dialog", (dialog) => (wrong.push(`dialog: ${dialog.message()}`), dialog.dismiss()));
  page.on("request", (request) => /^(file|data|blob):/.test(request.url()) || wrong.push(`request: ${request.url()}`));
  page.setDefaultTimeout(TIMEOUT);
  await page.goto(`file://${path.resolve(file)}`);
  await page.waitForSelector("body[data-ready=yes]");
  return { page, wrong };
}

/** Findings of axe that are serious or worse. */
async function serious(page) {
  // The page's policy lets no other script in; evaluating it is not held back, as with a browser's extension.
  await page.evaluate(fs.readFileSync(path.join(process.env.PACKAGES, "axe-core/axe.min.js"), "utf8"));
  const { violations, passes } = await page.evaluate(() => window.axe.run());
  assert.ok(passes.length > 10, "axe looked at nothing");
  const bad = violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
  return bad.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 120)).join(" | ")}`);
}

/** Waits until what is asked for is on the canvas. */
const drawn = (page) => page.waitForFunction(() => !lifetrace.timeline.pending && lifetrace.timeline.height > 0);

const view = (page) => page.evaluate(() => [lifetrace.timeline.from, lifetrace.timeline.to]);
const note = (page) => page.textContent("#timeline-note");

/** The canvas, by keyboard and mouse. */
async function useTimeline(page) {
  const lanes = page.locator("#lanes");
  await lanes.focus();
  const [from, to] = await view(page);
  await page.keyboard.press("+");
  await page.keyboard.press("+");
  const [zoomedFrom, zoomedTo] = await view(page);
  assert.ok(zoomedTo - zoomedFrom < (to - from) / 2, "+ zooms in");
  await page.keyboard.press("ArrowRight");
  assert.ok((await view(page))[0] > zoomedFrom, "→ moves on");
  await page.keyboard.press("0");
  assert.deepEqual(await view(page), [from, to], "0 fits all");
  const box = await lanes.boundingBox();
  const middle = { x: box.x + 300 + (box.width - 300) / 2, y: box.y + 200 };
  await page.mouse.move(middle.x, middle.y);
  await page.keyboard.down("Control");
  await page.mouse.wheel(0, -600);
  await page.keyboard.up("Control");
  await page.waitForFunction((length) => lifetrace.timeline.to - lifetrace.timeline.from < length, to - from);
  const before = await view(page);
  await page.mouse.down();
  await page.mouse.move(middle.x + 100, middle.y, { steps: 4 });
  await page.mouse.up();
  assert.ok((await view(page))[0] < before[0], "dragging to the right shows what was before");
  await page.click("#fit");
  assert.deepEqual(await view(page), [from, to], "Fit fits all");
  // The cursor is somewhere, whatever is closed around it.
  await page.click("#expand");
  await lanes.focus();
  await page.keyboard.press("End");
  await page.click("#collapse");
  await lanes.focus();
  for (const key of ["ArrowUp", "ArrowDown", "Enter", "Enter", "Home"]) await page.keyboard.press(key);
  assert.deepEqual(await page.evaluate(() => lifetrace.timeline.cursor), { block: 0, place: 0 });
}

/** Opens a group and tells of one of its goroutines; what the page says of it. */
async function tellOfOne(page) {
  await page.click("#collapse");
  await page.locator("#lanes").focus();
  await page.keyboard.press("Home");
  const group = await page.evaluate(() => lifetrace.timeline.blocks.findIndex((block) => {
    return block.kind === "group" && lifetrace.data.groups[block.group].of === "go";
  }));
  if (group < 0) return null;
  for (let row = 0; row < group; row++) await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  const first = await page.textContent("#told");
  // It may be the first that was pointed at, or the last.
  const beside = page.locator("#told button:not([disabled])").first();
  const name = await beside.textContent();
  await beside.focus();
  await page.keyboard.press("Enter");
  const focused = await page.evaluate(() => document.activeElement.textContent);
  const more = await page.locator(`#told button:not([disabled]):text-is("${name}")`).count();
  assert.ok(more === 0 || focused === name, `the keyboard is at ${focused}, and was at ${name}`);
  return { title: await page.textContent("#told h3"), first, beside: await page.textContent("#told") };
}

/** What is left when a goroutine is looked for by its name, a process and a state are chosen. */
async function filters(page, title) {
  const left = async () => Number((await note(page)).replaceAll(",", "").match(/^(\d+) of/)[1]);
  const all = await left();
  const name = title.split(" ")[0];
  const search = async (text) => {
    await page.fill("#search", text);
    // What is typed counts when the typing pauses; a list that is chosen from, at once.
    await page.selectOption("#process", "");
  };
  await search(name);
  const found = await left();
  const names = await page.evaluate(() => lifetrace.timeline.shown.flatMap((lanes) => [...lanes].map((lane) => laneName(lifetrace.data, lane))));
  assert.ok(names.length === found && names.every((one) => one.split(" ")[0] === name), `${name} finds ${names}`);
  await search("");
  assert.equal(await left(), all);
  const by = {};
  for (const id of ["process", "site", "state", "label"]) {
    by[id] = {};
    const choices = await page.$$eval(`#${id} option`, (options) => options.map(({ value, textContent }) => [value, textContent]));
    for (const [value, text] of choices.slice(1, 12)) {
      await page.selectOption(`#${id}`, value);
      by[id][text] = await left();
    }
    await page.selectOption(`#${id}`, "");
  }
  assert.equal(await left(), all);
  return { all, found, by };
}

/** Has the first leaks shown in the timeline; how many lanes that leaves of each. */
async function showLeaks(page) {
  const left = [];
  const buttons = (await page.$$("button[data-show]")).slice(0, 3);
  for (const button of buttons) {
    await button.focus();
    await page.keyboard.press("Enter");
    assert.equal(await page.inputValue("#search"), await button.getAttribute("data-show"));
    assert.equal(await page.evaluate(() => document.activeElement.id), "lanes");
    left.push(Number((await note(page)).replaceAll(",", "").match(/^(\d+) of/)[1]));
  }
  if (buttons.length) {
    await page.fill("#search", "");
    await page.selectOption("#process", "");
  }
  return left;
}

/** Clicks a frame wide, and back. */
async function useFlames(page) {
  const titles = await page.$$eval("#flame-by option", (options) => options.map((option) => option.textContent));
  const roots = await page.evaluate(() => lifetrace.data.flames.map((flame) => flame.root[1]));
  const frames = page.locator("#flame .frame");
  const count = await frames.count();
  if (count < 2) return { titles, roots };
  const narrow = await page.$$eval("#flame .frame", (all) => {
    const widths = all.map((frame) => frame.offsetWidth);
    return widths.findIndex((width, index) => index > 0 && width < widths[0] - 10 && width > 8);
  });
  if (narrow > 0) {
    const before = await page.textContent("#flame-note");
    await frames.nth(narrow).click();
    const wide = await page.$eval("#flame .frame:focus", (frame) => [frame.offsetWidth, frame.parentElement.clientWidth]);
    assert.ok(Math.abs(wide[0] - wide[1]) <= 2, `${wide} is as wide as can be`);
    assert.notEqual(await page.textContent("#flame-note"), before);
    await page.keyboard.press("Escape");
    assert.equal(await page.textContent("#flame-note"), before);
  }
  await page.locator("#flame .frame[tabindex='0']").focus();
  await page.keyboard.press("ArrowDown");
  assert.equal(await page.evaluate(() => document.activeElement.depth), 1, "↓ goes to what stands on it");
  return { titles, roots, focused: await page.evaluate(() => document.activeElement.getAttribute("aria-label")) };
}

/** Orders a table by its first column, both ways. */
async function useTables(page) {
  const column = () => page.$$eval("table.sortable tbody tr", (rows) => rows.map((row) => Number(row.cells[0].dataset.value)));
  await page.click("table.sortable th:first-child button");
  const down = await column();
  assert.deepEqual(down, [...down].sort((one, other) => other - one));
  await page.click("table.sortable th:first-child button");
  assert.deepEqual(await column(), [...down].sort((one, other) => one - other));
}

/** Milliseconds for frames that each show another stretch. */
const panned = (page) =>
  page.evaluate(async (frames) => {
    const { timeline } = lifetrace;
    timeline.fit();
    timeline.zoom(0.5);
    timeline.moveTo(0, timeline.to - timeline.from);
    const began = performance.now();
    for (let frame = 0; frame < frames; frame++) {
      timeline.pan(0.5 / frames);
      await new Promise(requestAnimationFrame);
    }
    const took = performance.now() - began;
    timeline.fit();
    return took;
  }, FRAMES);

async function main() {
  const args = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args, timeout: 2 * TIMEOUT });
  try {
    const { page, wrong } = await open(browser, "light");
    await drawn(page);
    const colours = await page.$eval("#lanes", coloursOf);
    const said = await page.evaluate(() => ({
      title: document.title,
      sections: [...document.querySelectorAll("main > section")].map((section) => section.id),
      tiles: Object.fromEntries([...document.querySelectorAll(".tiles li")].map((tile) => [tile.children[1].textContent, tile.children[0].textContent])),
      lanes: lifetrace.data.lanes,
      spans: lifetrace.data.start.length,
      // By goroutine: spans that are no gaps, their sum, and how it ended.
      goroutines: lifetrace.data.lanes > 5000 ? null : lifetrace.data.groups.flatMap((group) => {
        const { data } = lifetrace;
        if (group.of !== "go") return [];
        return Array.from({ length: group.lanes }, (_, place) => {
          const lane = group.firstLane + place;
          const spans = [];
          for (let span = data.first[lane]; span < data.first[lane + 1]; span++) {
            const [state, word] = data.details[data.detail[span]];
            if (data.states[state] === "gap") continue;
            const by = wokenBy(data, lane, span);
            const reason = word === null ? null : data.words[word];
            spans.push({ state: data.states[state], start: data.start[span], end: data.end[span], reason, by: by ? by.name ?? `go:${by.goid}` : null });
          }
          return { tgid: data.processes[group.process].tgid, id: `go:${data.id[lane]}`, spans };
        });
      }),
    }));
    if (folder) await page.screenshot({ path: path.join(folder, "light.png"), fullPage: true });
    await useTimeline(page);
    const one = await tellOfOne(page);
    const filtered = one && (await filters(page, one.title));
    const leaks = await showLeaks(page);
    const flames = await useFlames(page);
    if (await page.$("table.sortable tbody tr")) await useTables(page);
    const times = [];
    // A machine that has no time for it says nothing of the page.
    while (times.length < 3 || (Math.min(...times) > 3000 && times.length < 10)) times.push(await panned(page));
    const light = await serious(page);
    assert.deepEqual(wrong, [], "the console is silent, and nothing is asked for");
    await page.close();
    const dark = await open(browser, "dark");
    await drawn(dark.page);
    if (folder) await dark.page.screenshot({ path: path.join(folder, "dark.png"), fullPage: true });
    const darkColours = await dark.page.$eval("#lanes", coloursOf);
    const background = await dark.page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const darkSerious = await serious(dark.page);
    assert.deepEqual(dark.wrong, []);
    await dark.page.emulateMedia({ media: "print" });
    const pdf = (await dark.page.pdf()).length;
    const axe = [...light, ...darkSerious];
    console.log(JSON.stringify({ ...said, colours, darkColours, background, one, filtered, leaks, flames, pan_ms: Math.min(...times), pdf, axe }));
  } finally {
    await browser.close();
  }
}

main().catch((error) => {
  console.error(error.stack);
  process.exit(1);
});
