'use strict';

// How processes end, and what of theirs the real collector has then.

const assert = require('node:assert/strict');
const { spawnSync } = require('node:child_process');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { setTimeout: sleep } = require('node:timers/promises');
const { PACKAGE, daemonTest, get, runProgram, startDaemon } = require('./helpers.js');
const { temporary } = require('./recorder.js');

let daemon;

before(async () => {
  daemon = await startDaemon();
});

after(() => daemon?.stop());

/** The spans of a trace, once `enough` holds for them. */
async function spansOf(id, enough, timeoutMs = 15_000) {
  const deadline = Date.now() + timeoutMs;
  let spans = [];
  while (Date.now() < deadline) {
    spans = (await get(daemon.api, `/api/traces/${id}`)).spans ?? [];
    if (enough(spans)) return spans;
    await sleep(50);
  }
  throw new Error(`not in time: ${JSON.stringify(spans.map(({ name, status }) => [name, status]))}`);
}

const closed = (count) => (spans) => spans.length === count && spans.every(({ status }) => status.code !== 'running');
const nameOf = ({ name }) => name.replace(/^(invoke_agent|execute_tool) /, '');
const statusOf = (spans) => Object.fromEntries(spans.map((span) => [nameOf(span), span.status.code]));

/** Runs a program that prints its trace's id first. */
async function traced(source, options = {}) {
  const ended = await runProgram(source, { socket: daemon.socket, ...options });
  const [id] = ended.out.split('\n');
  assert.match(id, /^[0-9a-f]{32}$/, ended.err);
  return { ...ended, id };
}

const OPEN = `
  const fs = require('node:fs');
  const run = sidelight.span('root', { kind: 'agent' });
  fs.writeSync(1, run.traceId + '\\n');
  const child = () => sidelight.span('child', { parent: run }, () => {});`;

const ENDS = [
  ['the loop runs dry', 'child(); run.end();', 0],
  ['process.exit() right after the last event', 'child(); run.end(); process.exit(0);', 0],
  ['process.exit() with a code', 'child(); run.end(); process.exit(7);', 7],
  ['an exit listener reports', "run.end(); process.on('exit', child);", 0],
  ['an exception that nobody catches', "child(); run.end(); throw new Error('crash');", 1],
  ['a rejection that nobody handles', "child(); run.end(); Promise.reject(new Error('crash'));", 1],
  ['process.exit() in the middle of a message', "child(); run.end(); sidelight.span('cut', { get input() { process.exit(0); } });", 0],
  ['process.exit() in the middle of one in a list', "child(); run.end(); sidelight.span('cut', { input: [{ get a() { process.exit(0); } }] });", 0],
  ['process.exit() in the middle of much', "for (let i = 0; i < 80; i++) run.event('e', { i, text: 'x'.repeat(3000) }); child(); run.end(); process.exit(0);", 0],
];

for (const [name, source, code] of ENDS) {
  daemonTest(`nothing is lost when ${name}`, async () => {
    const ended = await traced(OPEN + source);
    assert.equal(ended.code, code, ended.err);
    assert.deepEqual(statusOf(await spansOf(ended.id, closed(2))), { root: 'ok', child: 'ok' });
    if (code === 0 || code === 7) assert.equal(ended.err, '');
  });
}

daemonTest('a process that leaves with a run open cancels it; one that crashes loses it', async () => {
  const left = await traced(`${OPEN} child(); process.exit(0);`);
  assert.deepEqual(statusOf(await spansOf(left.id, closed(2))), { root: 'cancelled', child: 'ok' });
  const crashed = await traced(`${OPEN} child(); throw new Error('crash');`);
  assert.deepEqual(statusOf(await spansOf(crashed.id, closed(2))), { root: 'error', child: 'ok' });
});

daemonTest('SIGKILL one turn of the event loop after the last event: 10 of 10', async () => {
  const source = `${OPEN} child(); setImmediate(() => setImmediate(() => process.kill(process.pid, 'SIGKILL')));`;
  for (let i = 0; i < 10; i++) {
    const ended = await traced(source);
    assert.equal(ended.signal, 'SIGKILL');
    const spans = await spansOf(ended.id, closed(2));
    assert.deepEqual(statusOf(spans), { root: 'error', child: 'ok' });
  }
});

daemonTest('every worker thread has a connection, and their spans arrive', async () => {
  const source = `
    const { Worker } = require('node:worker_threads');
    const run = sidelight.span('root');
    console.log(run.traceId);
    const body = \`
      const sidelight = require(${JSON.stringify(PACKAGE)});
      const { workerData } = require('node:worker_threads');
      sidelight.span('worker ' + workerData.n, { traceparent: workerData.traceparent }, () => {});
      if (workerData.n % 2) process.exit();\`;
    const traceparent = run.traceparent();
    const workers = Array.from({ length: 6 }, (_, n) => new Worker(body, { eval: true, workerData: { n, traceparent } }));
    Promise.all(workers.map((worker) => new Promise((resolve) => worker.on('exit', resolve)))).then(() => run.end());`;
  const { id, err } = await traced(source);
  assert.equal(err, '');
  const spans = await spansOf(id, closed(7));
  assert.deepEqual(spans.map(nameOf).sort(), ['root', ...Array.from({ length: 6 }, (_, n) => `worker ${n}`)]);
});

daemonTest('cluster workers, of which one is killed by SIGKILL in its task', async () => {
  const source = `
    const cluster = require('node:cluster');
    if (cluster.isPrimary) {
      cluster.setupPrimary({ exec: __filename, execArgv: [] });
      const run = sidelight.span('root');
      console.log(run.traceId);
      let left = 4;
      for (let n = 0; n < 4; n++) {
        const worker = cluster.fork({ TASK: String(n), TRACEPARENT: run.traceparent() });
        sidelight.watch(worker.process);
        worker.on('exit', () => --left === 0 && run.end());
      }
    } else {
      const n = Number(process.env.TASK);
      const task = sidelight.span('task ' + n, { kind: 'agent' });
      if (n === 3) setTimeout(() => setImmediate(() => process.kill(process.pid, 'SIGKILL')), 50); // a turn has passed, however slow the machine
      else setTimeout(() => { task.end(); process.exit(0); }, 5);
    }`;
  const { file, remove } = programFile(source);
  const { id, err } = await traced(`require(${JSON.stringify(file)})(sidelight)`);
  remove();
  assert.equal(err, '');
  const spans = await spansOf(id, closed(5));
  assert.deepEqual(statusOf(spans), { root: 'ok', 'task 0': 'ok', 'task 1': 'ok', 'task 2': 'ok', 'task 3': 'error' });
  assert.match(JSON.stringify(spans.find((span) => nameOf(span) === 'task 3')), /SIGKILL|signal 9/);
});

/** cluster.fork() runs the main file again: it must be one. */
function programFile(source) {
  const fs = require('node:fs');
  const file = path.join(temporary(), 'program.js');
  fs.writeFileSync(file, `module.exports = (sidelight) => {${source}};
    if (require.main === module || process.env.TASK) module.exports(require(${JSON.stringify(PACKAGE)}));`);
  return { file, remove: () => fs.rmSync(path.dirname(file), { recursive: true }) };
}

daemonTest('a child process takes TRACEPARENT from its environment', async () => {
  const source = `
    const { execFileSync } = require('node:child_process');
    const program = ${JSON.stringify(`require(${JSON.stringify(PACKAGE)}).span('grandchild', () => {})`)};
    sidelight.span('root', (run) => {
      console.log(run.traceId);
      execFileSync(process.execPath, ['-e', program], { env: { ...process.env, TRACEPARENT: sidelight.traceparent() } });
    });`;
  const { id } = await traced(source);
  const spans = await spansOf(id, closed(2));
  const [root, grandchild] = ['root', 'grandchild'].map((name) => spans.find((span) => nameOf(span) === name));
  assert.equal(grandchild.parent_span_id, root.span_id);
});

daemonTest('both ways to load it share one connection, and register installs', async () => {
  const source = `
    import { createRequire } from 'node:module';
    const required = createRequire(${JSON.stringify(path.join(PACKAGE, 'index.js'))})('./index.js');
    await sidelight.span('root', async (run) => {
      console.log(run.traceId);
      required.span('required', () => {});
      await import(${JSON.stringify(path.join(PACKAGE, 'register.mjs'))});
    });`;
  const { id, err } = await traced(source, { module: true });
  assert.equal(err, '');
  const spans = await spansOf(id, closed(2));
  assert.ok(spans.find((span) => nameOf(span) === 'required').parent_span_id);
});

const WORK = `
  const begin = Date.now();
  for (let i = 0; i < 2000; i++) sidelight.span('work', { input: 'x'.repeat(2000) }, () => {});
  process.on('exit', () => require('node:fs').writeSync(1, String(Date.now() - begin)));`;

test('without a collector nothing waits, prints or keeps the process', async () => {
  const socket = path.join(temporary(), 'none.sock');
  const { code, out, err } = await runProgram(`${WORK} setTimeout(() => {}, 20);`, { socket });
  assert.equal(code, 0);
  assert.equal(err, '');
  assert.ok(Number(out) < 2000, out);
});

for (const [clock, fake] of [['the real clock', ''], ['a fake clock that stands still', 'Date.now = () => 1e12;']]) {
  daemonTest(`a stopped collector costs at most 100 ms at exit, by ${clock}`, async () => {
    const stopped = await startDaemon();
    process.kill(stopped.pid, 'SIGSTOP');
    try {
      const source = `
        ${fake}
        for (let i = 0; i < 2000; i++) sidelight.span('work', { input: 'x'.repeat(2000) }, () => {});
        let begin;
        process.prependListener('exit', () => { begin = performance.now(); });
        process.on('exit', () => require('node:fs').writeSync(1, String(performance.now() - begin)));`;
      const onStart = (child) => setTimeout(() => child.kill('SIGKILL'), 10_000).unref();
      const { code, out, err } = await runProgram(source, { socket: stopped.socket, onStart });
      assert.equal(code, 0);
      assert.equal(err, '');
      assert.ok(Number(out) >= 90 && Number(out) < 1000, out);
    } finally {
      process.kill(stopped.pid, 'SIGCONT');
      await stopped.stop();
    }
  });
}

test('loading it adds two listeners to the process, and nothing else', async () => {
  const source = `
    const names = ['exit', 'uncaughtExceptionMonitor', 'warning', 'unhandledRejection', 'uncaughtException', 'SIGTERM', 'beforeExit'];
    const look = () => [...names.map((name) => process.listenerCount(name)), process.getActiveResourcesInfo().length];
    const before = look();
    const globals = Object.keys(globalThis).length;
    require(${JSON.stringify(PACKAGE)}).span('x', () => {});
    console.log(JSON.stringify(look().map((count, i) => count - before[i])), Object.keys(globalThis).length - globals);`;
  const { stdout } = spawnSync(process.execPath, ['-e', source], { encoding: 'utf8', env: { ...process.env, SIDELIGHT_SOCKET: '/nonexistent' } });
  // The last one is the turn of the event loop in which the span is written.
  assert.equal(stdout, '[1,1,0,0,0,0,0,1] 0\n');
});
