'use strict';

// The client's frames are those of the protocol's vectors, byte for byte.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { test } = require('node:test');
const wire = require('../lib/wire.js');
const { unpack } = require('./recorder.js');

const VECTORS = path.join(__dirname, '..', '..', '..', 'proto', 'vectors', 'good.json');
// Frames that a client may send, but this one has no way to say.
const UNSAID = new Set([
  'hello-empty', // we always say which version we speak
  'hello-owner', // a process tells of its own runs
  'start-gather', // and leaves it to the tool to run a command
  'end-input', // an input is known when a run starts
  'start-nil-fields',
  'start-empty-texts', // an empty parent is left out
  'start-other-order',
  'start-unknown-fields',
  'keys-64',
  'dropped-empty',
  'bye-later',
  'child-nil',
  'child-later',
  'value-nil',
  'value-str-32', // cut at 64 KiB
  'value-map-keys', // keys are text
  'value-deepest', // we stop at 8 containers
  'value-float-whole', // 3.0 is 3
  'attrs-many', // and at 1000 attributes
]);

function value(shown) {
  if (Array.isArray(shown)) return shown.map(value);
  if (typeof shown !== 'object' || shown === null) return shown;
  const [[key, inner], ...more] = [...Object.entries(shown), []];
  if (more.length === 1) {
    if (key === '$int') return BigInt(inner);
    if (key === '$float') return Number({ inf: 'Infinity', '-inf': '-Infinity' }[inner] ?? inner);
    if (key === '$bin') return Buffer.from(inner, 'hex');
    if (key === '$map') return new Map(inner.map(([k, v]) => [value(k), value(v)]));
  }
  return Object.fromEntries(Object.entries(shown).map(([k, v]) => [k, value(v)]));
}

// A string of JavaScript has no bytes that are not UTF-8, and we send no ext types.
const vectors = JSON.parse(fs.readFileSync(VECTORS, 'utf8')).filter(
  ({ from, shortest, message }) => from === 'client' && shortest && !/"\$(text|ext)"/.test(JSON.stringify(message)),
);

function build({ type, run_id: id, unix_ns: unix, mono_ns: mono, name, token, fields: shown = {} }) {
  const fields = value(shown);
  const when = { unix: BigInt(value(unix) ?? 0), mono: BigInt(value(mono) ?? 0) };
  const backwards = Object.fromEntries(Object.entries(fields).reverse()); // the order is the builder's own
  const { pid, ...ending } = fields;
  const builders = {
    flush: () => wire.flush(value(token)),
    bye: () => wire.bye(),
    dropped: () => wire.dropped(fields.count, fields.reason),
    hello: () => wire.hello(fields),
    child: () => wire.child(pid, ending),
    event: () => wire.event(value(id), when, name, fields),
    start: () => wire.start(value(id), when, backwards),
    end: () => wire.end(value(id), when, backwards),
  };
  return builders[type]();
}

for (const { name, message, frame } of vectors.filter(({ name: n }) => !UNSAID.has(n))) {
  test(`vector ${name}`, () => {
    assert.equal(build(message).toString('hex'), frame);
  });
}

test('every message that a client sends has a vector', () => {
  const types = new Set(vectors.map(({ message }) => message.type));
  assert.deepEqual(types, new Set(['hello', 'start', 'end', 'event', 'flush', 'dropped', 'bye', 'child']));
  const names = new Set(vectors.map(({ name }) => name));
  assert.deepEqual([...UNSAID].filter((name) => !names.has(name)), []);
});

const ID = Buffer.alloc(16, 'r');
const WHEN = { unix: [1_790_000_000, 123_456_789], mono: [5, 1] };
const fieldsOf = (frame) => unpack(frame).at(-1);

test('times are exact to the nanosecond', () => {
  const [, , unix, mono] = unpack(wire.start(ID, WHEN, {}));
  assert.equal(BigInt(unix), 1_790_000_000_123_456_789n);
  assert.equal(BigInt(mono), 5_000_000_001n);
  for (const [s, ns] of [[0, 0], [0, 999_999_999], [4, 294_967_295], [4, 294_967_296], [9_007_199, 254_740_993], [9_223_372_036, 854_775_807]]) {
    const [, , got] = unpack(wire.start(ID, { unix: [s, ns], mono: [0, 0] }, {}));
    assert.equal(BigInt(got), BigInt(s) * 1_000_000_000n + BigInt(ns));
  }
});

for (const usage of [5, 'many', [1], Symbol('x'), {}, () => 1]) {
  test(`a usage that is no map does not spoil the end: ${String(usage)}`, () => {
    const fields = fieldsOf(wire.end(ID, WHEN, { usage, output: 'x' }));
    assert.deepEqual(fields, { output: 'x' });
  });
}

test('tags are a list of texts', () => {
  const tags = (given) => fieldsOf(wire.start(ID, WHEN, { tags: given })).tags;
  assert.deepEqual(tags('one'), ['one']);
  assert.deepEqual(tags(['a', 2]), ['a', '2']);
  assert.deepEqual(tags(new Set(['a'])), ['a']);
  assert.equal(tags([]), undefined);
});

test('no more attributes than the collector takes', () => {
  const many = Object.fromEntries(Array.from({ length: 5000 }, (_, i) => [`k${i}`, i]));
  for (const frame of [wire.start(ID, WHEN, { attrs: many }), wire.end(ID, WHEN, { attrs: many })]) {
    assert.equal(Object.keys(fieldsOf(frame).attrs).length, 1001);
  }
  assert.equal(Object.keys(fieldsOf(wire.event(ID, WHEN, 'e', many))).length, 1001);
});

test('a parent is 16 bytes or a text', () => {
  const parent = (given) => fieldsOf(wire.start(ID, WHEN, { parent: given })).parent;
  assert.deepEqual(Buffer.from(parent(ID)), ID);
  assert.equal(parent('run-1'), 'run-1');
  for (const nonsense of [Buffer.from('short'), Buffer.alloc(16), '', 'x'.repeat(1025), 5, {}]) {
    assert.equal(parent(nonsense), undefined);
  }
});

test("an event's name is cut at a character", () => {
  const name = (given) => unpack(wire.event(ID, WHEN, given, {}))[4];
  assert.equal(name('ü'.repeat(1000)), 'ü'.repeat(512));
  assert.equal(name(''), 'event');
});

test('reads what the collector flushed', () => {
  const flushed = (hex) => wire.flushed(Buffer.from(hex, 'hex'));
  assert.equal(flushed('92057f'), 127);
  assert.equal(flushed('9205cc80'), 128);
  assert.equal(flushed('9205cd0100'), 256);
  assert.equal(flushed('9205ce00010000'), 65536);
  for (const other of ['', '92', '9205', '920880', '9205cd01', '9205a131', '93050101']) assert.equal(flushed(other), -1);
});
