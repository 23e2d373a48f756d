// A parent that gives its worker some time, asks it to end, kills it, and starts it again with a growing pause.
//
//   node parent.js [STARTS]
//
// Each step is said as a line of JSON on stdout, with the time just before and just after it (ms).
'use strict';

const { spawn } = require('node:child_process');
const path = require('node:path');
const { performance } = require('node:perf_hooks');

const STARTS = Number(process.argv[2] ?? 4);
const WORK_MS = 100; // how long a worker may take
const GRACE_MS = 200; // between SIGTERM and SIGKILL
const BACK_OFF_MS = 100; // before the first restart; twice as long before each further one

function step(what, worker, act) {
  const before = performance.now();
  const result = act();
  console.log(JSON.stringify({ what, pid: worker?.pid ?? result?.pid, before, after: performance.now() }));
  return result;
}

function start(number) {
  const worker = step('spawn', null, () => spawn(process.execPath, [path.join(__dirname, 'worker.js')], { stdio: ['ignore', 'pipe', 'inherit'] }));
  let killing;
  worker.stdout.once('data', () => {
    setTimeout(() => {
      step('SIGTERM', worker, () => worker.kill('SIGTERM'));
      killing = setTimeout(() => step('SIGKILL', worker, () => worker.kill('SIGKILL')), GRACE_MS);
    }, WORK_MS);
  });
  worker.on('exit', (code, signal) => {
    clearTimeout(killing);
    step('exit', worker, () => undefined);
    if (number < STARTS) {
      setTimeout(() => start(number + 1), BACK_OFF_MS * 2 ** (number - 1));
    } else {
      console.log(JSON.stringify({ what: 'done', pid: process.pid, starts: STARTS, code, signal }));
    }
  });
}

start(1);
