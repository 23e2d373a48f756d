// Glue that runs a hook for each push, as the first process of a container. The hook leaves a job behind in the background, whose
// parent ends before it: the job's new parent is the first process. Node waits for the children that it started itself, and for no
// other; so each of these jobs stays, dead, for as long as Node lives.
//
//   unshare --pid --fork node glue.js [-n HOOKS] [-rate HOOKS_A_SECOND] [-healthy]
//
// The last line on stdout is its own truth, as /proc has it: the zombies whose parent it is.
'use strict';

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const options = parse(process.argv.slice(2));

function parse(args) {
  const options = { n: 20, rate: 10, healthy: false };
  while (args.length > 0) {
    const name = args.shift().replace(/^--?/, '');
    if (name === 'healthy') {
      options.healthy = true;
    } else if ((name === 'n' || name === 'rate') && Number(args[0]) > 0) {
      options[name] = Number(args.shift());
    } else {
      console.error('usage: node glue.js [-n HOOKS] [-rate HOOKS_A_SECOND] [-healthy]');
      process.exit(2);
    }
  }
  return options;
}

// runHook resolves when the hook has ended: Node has waited for it, and knows nothing of what it started.
function runHook(number) {
  const how = options.healthy ? 'wait' : 'leave';
  const hook = spawn('sh', [path.join(__dirname, 'hook.sh'), how], { stdio: ['ignore', 'inherit', 'inherit'] });
  return new Promise((resolve, reject) => {
    hook.on('error', reject);
    hook.on('exit', (code) => (code === 0 ? resolve() : reject(new Error(`hook ${number} ended with ${code}`))));
  });
}

// children are our own, by /proc. Without a /proc of the container its numbers are those of the host, so our own is read there too.
function children() {
  const self = fs.readlinkSync('/proc/self');
  const found = [];
  for (const pid of fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    let stat;
    try {
      stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
    } catch {
      continue; // it ended meanwhile
    }
    const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    if (parent === self) {
      found.push({ pid: Number(pid), comm: stat.slice(stat.indexOf('(') + 1, stat.lastIndexOf(')')), state });
    }
  }
  return { self: Number(self), found };
}

// settle waits until every job has ended, one way or the other.
async function settle() {
  for (let tries = 0; tries < 500 && children().found.some((child) => child.state !== 'Z'); tries++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

async function main() {
  if (process.pid !== 1) {
    console.error('glue: not the first process of its container, so orphans are not mine: unshare --pid --fork node glue.js');
  }
  const hooks = [];
  for (let number = 1; number <= options.n; number++) {
    hooks.push(runHook(number));
    await new Promise((resolve) => setTimeout(resolve, 1000 / options.rate));
  }
  await Promise.all(hooks);
  await settle();
  const { self, found } = children();
  const zombies = found.filter((child) => child.state === 'Z').map(({ pid, comm }) => ({ pid, comm }));
  console.log(JSON.stringify({ pid: self, first: process.pid === 1, hooks: options.n, zombies: zombies.length, leaked: zombies }));
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
