'use strict';

// The oldest Node that we run on: our own tests, and an older major of each library. What they need
// is in the folder older.

const assert = require('node:assert/strict');
const { spawn } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { after, before, describe, test } = require('node:test');
const { PACKAGE, daemonTest, get, startDaemon } = require('./helpers.js');
const { startServer } = require('./scripted.js');

const OLDER = path.join(__dirname, 'older');
const NODE = path.join(OLDER, 'node_modules', `node-linux-${process.arch}`, 'bin', 'node');
const skip = fs.existsSync(NODE) ? false : 'there is no Node 18: npm ci --prefix test/older';

let daemon;
let server;

before(async () => {
  daemon = await startDaemon();
  server = await startServer();
});

after(async () => {
  await server.close();
  await daemon?.stop();
});

/** Runs a file in Node 18; resolves to what it printed once it ended well. */
function run(file, args, cwd) {
  const { NODE_TEST_CONTEXT, NODE_OPTIONS, ...env } = process.env;
  const child = spawn(NODE, [file, ...args], { cwd, env: { ...env, SIDELIGHT_SOCKET: daemon?.socket ?? '' } });
  let out = '';
  let err = '';
  child.stdout.on('data', (data) => (out += data));
  child.stderr.on('data', (data) => (err += data));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => (code === 0 ? resolve(out) : reject(new Error(`${code}: ${out.slice(-5000)}${err.slice(-5000)}`))));
  });
}

test('it is Node 18', { skip }, async () => {
  assert.match(await run('--version', []), /^v18\./);
});

// The longest first; it mostly waits.
describe('on Node 18', { concurrency: 2 }, () => {
  for (const name of ['processes', 'openai', 'api', 'transport', 'values', 'wire']) {
    test(name, { skip }, async () => {
      const said = await run(path.join(__dirname, `${name}.test.js`), [], PACKAGE);
      assert.match(said, /^# pass [1-9]\d*$/m);
      assert.match(said, /^# fail 0$/m);
    });
  }
});

/** The spans of each piece of work of the program, with their parent's name as `above`. */
async function traces() {
  const said = await run('program.mjs', [server.baseURL], OLDER);
  const found = {};
  for (const [name, id] of Object.entries(JSON.parse(said))) {
    const { spans } = await get(daemon.api, `/api/traces/${id}`);
    const bare = (span) => span?.name.replace(/^(invoke_agent|execute_tool) /, '');
    const above = (span) => bare(spans.find(({ span_id: other }) => other === span.parent_span_id));
    found[name] = spans.map((span) => ({ ...span, name: bare(span), above: above(span) }));
  }
  return found;
}

const of = (spans, kind) => spans.filter((span) => span.kind === kind);
const codes = (spans) => spans.map(({ status }) => status.code);
const tokens = ({ attributes }) => [attributes['gen_ai.usage.input_tokens'], attributes['gen_ai.usage.output_tokens']];

daemonTest('on Node 18, LangChain 0.3, LangGraph 0.2 and the OpenAI client 4', { skip }, async () => {
  const found = await traces();
  for (const name of ['invoke', 'stream', 'failing tool']) {
    const spans = found[name];
    assert.deepEqual(spans.filter(({ above }) => above === undefined).map((span) => span.name), ['test'], name);
    assert.deepEqual(of(spans, 'agent').map(({ above }) => above), ['test']);
    assert.deepEqual(of(spans, 'llm').map((span) => [span.above, ...tokens(span)]), Array(2).fill(['RunnableSequence', 1034, 118]));
    assert.deepEqual(of(spans, 'tool').map((span) => [span.name, span.above]), [['weather', 'tools'], ['days_until', 'tools']]);
    assert.equal(spans.find((span) => span.name === 'count').above, 'days_until');
    assert.deepEqual(codes(of(spans, 'tool')), name === 'failing tool' ? ['error', 'ok'] : ['ok', 'ok']);
  }
  for (const { attributes } of of(found.stream, 'llm')) assert.ok(attributes['sidelight.chunks'] > 3);
  assert.equal(of(found.invoke, 'agent')[0].attributes['gen_ai.conversation.id'], 't1');
  assert.deepEqual(codes([...of(found.outage, 'agent'), ...of(found.outage, 'llm')]), ['error', 'error']);
  const plain = { 'plain call': 'ok', 'plain stream': 'ok', 'left stream': 'cancelled', 'plain failure': 'error' };
  for (const [name, code] of Object.entries(plain)) {
    assert.deepEqual(found[name].map((span) => [span.name, span.above, span.status.code]), [['test', undefined, 'ok'], ['chat m', 'test', code]]);
  }
  assert.equal(found['left stream'][1].attributes['gen_ai.usage.output_tokens'], 3);
  assert.deepEqual(found['more than a promise'].map(({ name, above }) => [name, above]), [['test', undefined], ['inner', 'test'], ['chat m', 'inner']]);
});
