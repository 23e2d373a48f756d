// Gives a file to speedscope in headless Chromium, and prints what it made of it: its name, and the table of functions by weight.
//
// Usage: PACKAGES=DIR SPEEDSCOPE=DIR node speedscope.js FILE. The first DIR holds `playwright-core`, the other one `speedscope`.

const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const { chromium } = require(path.join(process.env.PACKAGES, "playwright-core"));

const [file] = process.argv.slice(2);

async function main() {
  const args = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args });
  try {
    const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
    const wrong = [];
    page.on("pageerror", (error) => wrong.push(error.message));
    await page.goto(`file://${path.resolve(process.env.SPEEDSCOPE, "speedscope/dist/release/index.html")}#localProfilePath=none`);
    await page.waitForFunction(() => window.speedscope);
    const name = path.basename(file);
    const given = { name, base64: fs.readFileSync(file).toString("base64") };
    await page.evaluate(({ name, base64 }) => window.speedscope.loadFileFromBase64(name, base64), given);
    await page.waitForFunction((name) => document.title.includes(name), name);
    // Its table by function.
    await page.keyboard.press("3");
    await page.waitForFunction(() => document.querySelectorAll("tr").length > 1);
    const rows = await page.$$eval("tr", (rows) => rows.map((row) => [...row.cells].map((cell) => cell.textContent.trim())));
    assert.deepEqual(wrong, []);
    console.log(JSON.stringify({ title: await page.title(), rows }));
  } finally {
    await browser.close();
  }
}

main();
