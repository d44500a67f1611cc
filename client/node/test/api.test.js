'use strict';

// Spans and wrapped functions: the tree, the results, and that nothing reaches the host.

const assert = require('node:assert/strict');
const { after, before, beforeEach, test } = require('node:test');
const { setTimeout: sleep } = require('node:timers/promises');
const sidelight = require('..');
const { spanIdOf } = require('../lib/ids.js');
const { Recorder, onlyRuns } = require('./recorder.js');

let recorder;

before(async () => {
  recorder = await Recorder.start();
  sidelight.configure({ socket: recorder.path, service: 'test' });
});

beforeEach(() => {
  for (const connection of recorder.connections) connection.length = 0;
});

after(() => recorder.close());

const hex = (id) => id && Buffer.from(id).toString('hex');

/** The runs as {name: {parent's name, start, end, events}}. */
async function reported() {
  assert.equal(await sidelight.flush(5000), true);
  const byId = new Map();
  for (const [type, id, , , ...rest] of onlyRuns(recorder.messages)) {
    const run = byId.get(hex(id)) ?? { events: [], ends: 0, id: Buffer.from(id) };
    byId.set(hex(id), run);
    if (type === 1) [run.start] = rest;
    else if (type === 2) {
      [run.end] = rest;
      run.ends++;
    } else run.events.push(rest);
  }
  const runs = {};
  for (const run of byId.values()) {
    assert.equal(runs[run.start.name], undefined, `two runs are called ${run.start.name}`);
    runs[run.start.name] = run;
    run.parent = run.start.parent && byId.get(hex(run.start.parent)).start.name;
  }
  return runs;
}

test('a span holds what was set, and returns what its function returned', async () => {
  const result = sidelight.span('plan', { kind: 'chain', input: 'q', session: 's', topic: 'x' }, (run) => {
    run.set({ output: 'a', model: 'm', usage: { input_tokens: 1 }, finish: 'stop', extra: 2 });
    run.event('cache_hit', { key: 'k' });
    sidelight.event('current', {});
    return 42;
  });
  assert.equal(result, 42);
  const { plan } = await reported();
  assert.deepEqual(plan.start, { kind: 'chain', name: 'plan', session: 's', input: 'q', attrs: { topic: 'x' } });
  assert.deepEqual(plan.end, { output: 'a', usage: { input_tokens: 1 }, model: 'm', finish: 'stop', attrs: { extra: 2 } });
  assert.deepEqual(plan.events, [['cache_hit', { key: 'k' }], ['current', {}]]);
});

test('parents are right over promises, timers and parallel work', async () => {
  const leaf = sidelight.tool(async (name) => {
    await sleep(Math.random() * 5);
    return sidelight.span(`${name} leaf`, async () => sleep(1));
  });
  const branch = (name) =>
    sidelight.span(name, async () => {
      await new Promise((resolve) => {
        setTimeout(resolve, 2);
      });
      await sidelight.span(`${name} twig`, () => sleep(1));
    });
  await sidelight.span('root', () => Promise.all(['a', 'b', 'c'].map(branch)));
  await leaf('solo').catch(assert.fail);
  const runs = await reported();
  for (const name of ['a', 'b', 'c']) {
    assert.equal(runs[name].parent, 'root');
    assert.equal(runs[`${name} twig`].parent, name);
  }
  assert.equal(runs['solo leaf'].parent, 'tool');
  assert.equal(runs.root.parent, undefined);
});

test('200 concurrent requests do not mix', async () => {
  const request = (n) =>
    sidelight.span(`r${n}`, { kind: 'agent' }, async (run) => {
      for (let i = 0; i < 3; i++) await sidelight.span(`r${n} s${i}`, () => sleep(Math.random() * 10));
      run.output = n;
    });
  await Promise.all(Array.from({ length: 200 }, (_, n) => request(n)));
  const runs = await reported();
  assert.equal(Object.keys(runs).length, 800);
  for (let n = 0; n < 200; n++) {
    for (let i = 0; i < 3; i++) assert.equal(runs[`r${n} s${i}`].parent, `r${n}`);
    assert.equal(runs[`r${n}`].ends, 1);
  }
});

test('what is thrown is told and thrown on, the very same', async () => {
  const error = new TypeError('broken');
  assert.throws(() => sidelight.span('sync', () => { throw error; }), (thrown) => thrown === error);
  await assert.rejects(sidelight.span('async', async () => { throw error; }), (thrown) => thrown === error);
  const abort = new AbortController();
  abort.abort();
  await assert.rejects(sidelight.span('aborted', () => sleep(100, 0, { signal: abort.signal })));
  assert.throws(() => sidelight.span('text', () => { throw 'only text'; })); // eslint-disable-line no-throw-literal
  const runs = await reported();
  for (const name of ['sync', 'async']) {
    assert.equal(runs[name].end.error.type, 'TypeError');
    assert.equal(runs[name].end.error.message, 'broken');
    assert.match(runs[name].end.error.stack, /api\.test\.js/);
  }
  assert.equal(runs.aborted.end.error.type, 'CancelledError');
  assert.deepEqual(runs.text.end.error, { type: 'Error', message: 'only text' });
});

test('a span without a function is ended by hand, once', async () => {
  const run = sidelight.span('by hand', { kind: 'llm' });
  run.end({ output: 'x' });
  run.end({ output: 'y' });
  const child = sidelight.span('child', { parent: run });
  child.end();
  const runs = await reported();
  assert.equal(runs['by hand'].ends, 1);
  assert.equal(runs['by hand'].end.output, 'x');
  assert.equal(runs.child.parent, 'by hand');
});

test('wrapped functions keep their name, this, arguments and result', async () => {
  const owner = {
    factor: 3,
    times: sidelight.tool(function times(a, b) {
      return this.factor * a * b;
    }),
  };
  assert.equal(owner.times(2, 5), 30);
  assert.equal(owner.times.name, 'times');
  assert.equal(owner.times.length, 2);
  const answer = sidelight.agent(async (question) => `${question}!`, { name: 'answer', session: '7' });
  assert.equal(await answer('why'), 'why!');
  const runs = await reported();
  assert.deepEqual(runs.times.start, { kind: 'tool', name: 'times', input: [2, 5] });
  assert.equal(runs.times.end.output, 30);
  assert.deepEqual(runs.answer.start, { kind: 'agent', name: 'answer', session: '7', input: 'why' });
  assert.equal(runs.answer.end.output, 'why!');
});

test('a function that is a constructor stays one', () => {
  class Point {}
  const Wrapped = sidelight.tool(Point);
  assert.ok(new Wrapped() instanceof Point);
});

test('what was put on a function is on the wrapped one', () => {
  const schema = { type: 'object' };
  const wrapped = sidelight.tool(Object.assign(() => 1, { schema }));
  assert.equal(wrapped.schema, schema);
  const { proxy, revoke } = Proxy.revocable(() => 1, {});
  revoke();
  assert.equal(typeof sidelight.tool(proxy), 'function');
});

test('a result that is only like a promise is awaited like one', async () => {
  const late = { then: (use) => void setTimeout(use, 1, 'late') };
  assert.equal(await sidelight.span('late', () => late), 'late');
  const broken = {
    get then() {
      throw new Error('then');
    },
  };
  assert.equal(sidelight.span('broken', () => broken), broken);
  const { late: run } = await reported();
  assert.equal(run.ends, 1);
});

test('the bytes of a run id are a parent, and what is none is left out', async () => {
  const bytes = new Uint8Array(16).fill(0xab);
  assert.equal(sidelight.span('child', { parent: bytes }).traceId, 'ab'.repeat(16));
  for (const parent of [{}, '', 7, 'x'.repeat(5000)]) {
    const run = sidelight.span('root', { parent });
    assert.equal(run.traceId, hex(run.id));
  }
});

test('a text and a list of bytes have no fields', async () => {
  const many = 'x'.repeat(2e6);
  const before = process.cpuUsage();
  for (const odd of [many, Buffer.from(many), [1, 2]]) {
    sidelight.configure({ resource: odd });
    sidelight.span(`odd ${odd.constructor.name}`, odd).set(odd).event('e', odd);
    sidelight.tool(() => 1, odd)();
  }
  const { user, system } = process.cpuUsage(before);
  assert.ok(user + system < 1e6, `${user + system} µs`);
  assert.equal(await sidelight.flush(5000), true);
  const odd = onlyRuns(recorder.messages).filter(([, , , , fields]) => fields.name?.startsWith?.('odd'));
  assert.deepEqual(odd.map(([, , , , { attrs }]) => attrs), [undefined, undefined, undefined]);
});

test('a generator is a run from its first step to its end, and its body is inside of it', async () => {
  const numbers = sidelight.chain(function* numbers(count) {
    for (let i = 0; i < count; i++) {
      sidelight.span(`n${i}`, () => i);
      yield i;
    }
    return 'done';
  });
  const unused = numbers(3);
  assert.deepEqual([...numbers(3)], [0, 1, 2]);
  unused.return();
  const runs = await reported();
  assert.equal(runs.numbers.end.output, 'done');
  assert.deepEqual(runs.numbers.events, [['first_token', {}]]);
  assert.equal(runs.numbers.end.attrs['sidelight.chunks'], 3);
  assert.equal(runs.n2.parent, 'numbers');
});

test('an async generator: whole, left early, and failed', async () => {
  const talk = sidelight.llm(async function* talk(name, words, fail) {
    await sleep(1);
    for (const word of words) {
      await sidelight.span(`${name} ${word}`, () => sleep(1));
      yield word;
    }
    if (fail) throw new RangeError('fell silent');
  });
  const whole = sidelight.llm(talk, { name: 'plain function that returns a generator' });
  let text = '';
  for await (const word of whole('whole', ['a', 'b'])) text += word;
  assert.equal(text, 'ab');
  const left = sidelight.llm(async function* left() { yield 'half'; yield 'never'; });
  for await (const word of left()) if (word === 'half') break;
  const failed = sidelight.llm(async function* failed() { yield 'x'; throw new RangeError('fell silent'); });
  await assert.rejects(async () => { for await (const word of failed()) assert.equal(word, 'x'); }, RangeError);
  const runs = await reported();
  assert.equal(runs.talk.end.output, 'ab');
  assert.equal(runs['whole b'].parent, 'talk');
  assert.equal(runs.left.end.error.type, 'GeneratorExit');
  assert.equal(runs.left.end.output, 'half');
  assert.equal(runs.failed.end.error.type, 'RangeError');
  assert.equal(runs.failed.end.output, 'x');
});

/** A thenable that does its work when somebody waits, like a query; it counts how often. */
class Query {
  constructor(work) {
    this.work = work;
    this.count = 0;
  }

  then(good, bad) {
    this.count++;
    return new Promise((resolve) => resolve(this.work())).then(good, bad);
  }
}

test('what can be waited for stays what it is, and its work is done once', async () => {
  const query = new Query(() => 7);
  const wrapped = sidelight.tool(() => query, { name: 'query' });
  assert.equal(wrapped(), query);
  assert.equal(query.count, 0);
  assert.equal(await query, 7);
  assert.equal(query.count, 1);
  class Own extends Promise {}
  const promise = Own.resolve(8);
  assert.equal(sidelight.span('own', () => promise), promise);
  assert.equal(await promise.then().finally(() => {}), 8);
  const failing = new Query(() => { throw new RangeError('no'); });
  assert.equal(sidelight.span('failing', () => failing), failing);
  await assert.rejects(async () => failing, RangeError);
  await failing.then(() => {}).then(() => assert.fail(), () => {});
  const frozen = Object.freeze({ then: (good) => good(9) });
  assert.equal(await sidelight.span('frozen', () => frozen), 9);
  const runs = await reported();
  assert.equal(runs.query.end.output, 7);
  for (const name of ['own', 'frozen']) assert.equal(runs[name].end.error, undefined);
  assert.equal(runs.failing.end.error.type, 'RangeError');
});

test("a promise's own methods are on the one that is returned", async () => {
  const canceled = [];
  const runtimes = Symbol('such as the one that holds the async context');
  const make = () => Object.assign(Promise.resolve(1), { cancel: () => canceled.push(1), [runtimes]: 1 });
  const promise = sidelight.span('cancellable', make);
  promise.cancel();
  assert.equal(await promise, 1);
  assert.deepEqual(canceled, [1]);
  assert.equal(promise[runtimes], undefined);
  assert.equal((await reported()).cancellable.ends, 1);
});

test('one that many runs return tells them all, and keeps none of them', async () => {
  const query = new Query(() => 1);
  for (let i = 0; i < 1500; i++) sidelight.span(`many ${i}`, () => query);
  assert.equal(await query, 1);
  for (let i = 0; i < 20_000; i++) {
    assert.equal(sidelight.span('again', () => query), query);
    query.then(() => {});
    if (i % 100 === 0) await query;
  }
  await sidelight.flush(5000);
  const all = onlyRuns(recorder.messages);
  assert.equal(all.filter(([type]) => type === 1).length, 21_500);
  assert.equal(all.filter(([type]) => type === 2).length, 21_500);
});

test('a getter that reports without end is bounded, and one that moves to another collector spoils nothing', async () => {
  const other = await Recorder.start();
  const { transport } = require('../lib/core.js');
  const many = {
    get many() {
      for (let i = 0; i < 1500; i++) sidelight.span('s', { input: 'x'.repeat(3000) });
      return transport.outbox.bytes;
    },
  };
  sidelight.span('many', { input: many });
  assert.ok(transport.outbox.bytes <= (4 << 20) + 100, String(transport.outbox.bytes));
  await sidelight.flush(5000);
  const moves = {
    get moves() {
      sidelight.configure({ socket: other.path });
      sidelight.span('while moving', { input: 'y'.repeat(3000) });
      return 'fine';
    },
  };
  sidelight.span('before', {});
  sidelight.span('moving', { input: moves, text: 'z'.repeat(3000) });
  await sidelight.flush(5000);
  const starts = onlyRuns([...recorder.messages, ...other.messages]).map(([, , , , fields]) => fields);
  assert.deepEqual(starts.find(({ name }) => name === 'moving'), { kind: 'other', name: 'moving', input: { moves: 'fine' }, attrs: { text: 'z'.repeat(3000) } });
  for (const name of ['before', 'while moving']) assert.equal(starts.filter((start) => start.name === name).length, 1);
  sidelight.configure({ socket: recorder.path });
  await other.close();
});

test('what a getter reports in the middle of a message arrives beside it', async () => {
  let flushed;
  const input = {
    before: 'x'.repeat(3000),
    get odd() {
      for (const length of [10, 30_000]) sidelight.span(`inner ${length}`, { input: 'y'.repeat(length) }, () => {});
      flushed ??= sidelight.flush(5000);
      return 'fine';
    },
    after: 'z'.repeat(30_000),
  };
  sidelight.span('around', { input }, () => {});
  sidelight.span('next', () => {});
  assert.equal(await flushed, true);
  const runs = await reported();
  assert.deepEqual(runs.around.start.input, { before: 'x'.repeat(3000), odd: 'fine', after: 'z'.repeat(30_000) });
  assert.equal(runs['inner 30000'].start.input.length, 30_000);
  for (const name of ['around', 'inner 10', 'inner 30000', 'next']) assert.equal(runs[name].ends, 1);
});

test('trace context is given on, and taken', async () => {
  assert.equal(sidelight.traceparent(), undefined);
  const given = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
  let inner;
  sidelight.span('far', { traceparent: given }, (run) => {
    assert.equal(run.traceId, '0af7651916cd43dd8448eb211c80319c');
    sidelight.span('near', () => (inner = sidelight.traceparent()));
  });
  let own;
  sidelight.span('own root', () => (own = sidelight.traceparent()));
  const runs = await reported();
  assert.equal(runs.far.start.traceparent, given);
  assert.equal(runs.near.start.traceparent, undefined);
  assert.equal(inner, `00-0af7651916cd43dd8448eb211c80319c-${spanIdOf(runs.near.id)}-01`);
  assert.equal(own, `00-${hex(runs['own root'].id)}-${spanIdOf(runs['own root'].id)}-01`);
});

const NONSENSE = [
  undefined, null, 0, NaN, '', 'x', '\ud800', Symbol('s'), 10n ** 400n, () => {}, [], {}, new Date(NaN), Object.create(null),
  new Proxy({}, { get: () => { throw new Error('get'); }, ownKeys: () => { throw new Error('keys'); } }),
  { toString: () => { throw new Error('no'); } }, 'y'.repeat(1 << 21), Array(1e5).fill('tag'), Buffer.alloc(17), new Map([[{}, 1]]),
];

test('no argument whatsoever makes a call throw or a promise reject', async () => {
  for (const odd of NONSENSE) {
    const options = { kind: odd, input: odd, parent: odd, traceparent: odd, tags: odd, session: odd, attrs: odd, other: odd };
    for (const name of [odd, 'name']) {
      const run = sidelight.span(name, typeof odd === 'function' ? options : odd);
      run.set(odd);
      run.set({ output: odd, usage: odd, error: odd, finish: odd, model: odd, attr: odd });
      run.event(odd, odd);
      run.end(odd);
      sidelight.event(odd, odd);
      assert.equal(sidelight.span(name, options, () => 5), 5);
    }
    sidelight.configure(typeof odd === 'object' && odd !== null ? { resource: odd } : undefined);
    sidelight.watch(odd);
    sidelight.wrapOpenAI(odd);
    assert.equal(typeof sidelight.tool(odd, odd), typeof odd);
    assert.equal(sidelight.tool(() => 6, odd)(odd), 6);
    assert.equal(typeof (await sidelight.flush(odd)), 'boolean');
    await sidelight.install({ only: ['nothing'], odd });
    await sidelight.install(typeof odd === 'object' ? odd : undefined).catch(assert.fail);
  }
  sidelight.configure({ resource: {} });
  assert.equal(await sidelight.flush(5000), true);
  assert.equal(await sidelight.trace('../nonsense', 200), null);
});

test('times are those of the clocks', async () => {
  const before = [BigInt(Date.now()) * 1_000_000n, process.hrtime.bigint()];
  sidelight.span('timed', () => {});
  const now = [BigInt(Date.now()) * 1_000_000n, process.hrtime.bigint()];
  await sidelight.flush(5000);
  const [, , unix, mono] = recorder.messages.find(([type, , , , fields]) => type === 1 && fields.name === 'timed');
  assert.ok(BigInt(unix) >= before[0] - 2_000_000n && BigInt(unix) <= now[0] + 3_000_000n);
  assert.ok(BigInt(mono) >= before[1] && BigInt(mono) <= now[1]);
});
