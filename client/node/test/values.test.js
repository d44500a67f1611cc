'use strict';

// Whatever an agent passes is sent as something sensible, bounded, and never throws.

const assert = require('node:assert/strict');
const { test } = require('node:test');
const vm = require('node:vm');
const wire = require('../lib/wire.js');
const { unpack } = require('./recorder.js');

const ID = Buffer.alloc(16, 'r');
const WHEN = { unix: 1n, mono: 1n };
const KIB64 = 64 * 1024;

function sent(input) {
  const frame = wire.start(ID, WHEN, { input });
  assert.ok(frame.length <= (1 << 20) + 4);
  return unpack(frame)[4].input;
}

class Point {
  constructor(x, y) {
    this.x = x;
    this.y = y;
  }
}

class Client {
  constructor() {
    this.apiKey = 'secret';
  }

  call() {}
}

class Money {
  toJSON() {
    return { amount: 1, currency: 'EUR' };
  }
}

class Message {
  constructor(type, content, more) {
    Object.assign(this, { content, ...more });
    this.type = type;
  }

  getType() {
    return this.type;
  }
}

const SENSIBLE = [
  ['nothing in a list', [undefined, null], [null, null]],
  ['nothing in a map', { a: undefined, b: null, c: () => 1 }, { b: null }],
  ['a function', [function named() {}], ['<function>']],
  ['a symbol', [Symbol('word')], ['word']],
  ['a sparse list', [, 1], [null, 1]], // eslint-disable-line no-sparse-arrays
  ['numbers', [0, -0, 1.5, 2 ** 53, -(2 ** 40)], [0, 0, 1.5, 2 ** 53, -(2n ** 40n)]],
  ['no number', [NaN, Infinity, -Infinity], [NaN, Infinity, -Infinity]],
  ['a bigint', [2n ** 63n, -5n], [2n ** 63n, -5]],
  ['a bigint past 64 bits', [2n ** 64n, -(2n ** 64n)], [String(2n ** 64n), String(-(2n ** 64n))]],
  ['a huge bigint', [1n << 100_000n], ['<bigint of 100004 bits>']],
  ['a date', [new Date(0), new Date(NaN)], ['1970-01-01T00:00:00.000Z', 'Invalid Date']],
  ['a map', new Map([['a', 1], [2, 'b']]), { a: 1, 2: 'b' }],
  ['a set', new Set([1, 'b']), [1, 'b']],
  ['an error', [new TypeError('no')], ['TypeError: no']],
  ['boxed values', [Object('x'), Object(1), Object(true)], ['x', 1, true]],
  ['a pattern and a URL', [/a+/g, new URL('http://h/p')], ['/a+/g', 'http://h/p']],
  ['numbers of an embedding', [new Float64Array([0.5, 1])], [[0.5, 1]]],
  ['many numbers', [new Float32Array(1536)], ['<Float32Array of 6144 bytes>']],
  ['a view', [new DataView(new ArrayBuffer(3))], ['<DataView of 3 bytes>']],
  ['a record', [new Point(1, 2)], [{ x: 1, y: 2 }]],
  ['an object with methods is only named', [new Client()], ['<Client>']],
  ['what knows its JSON', [new Money()], [{ amount: 1, currency: 'EUR' }]],
  ['promises and weak things', [Promise.resolve(1), new WeakMap()], ['<Promise>', '<WeakMap>']],
  ['an object without a prototype', Object.assign(Object.create(null), { a: 1 }), { a: 1 }],
  ['an object of another realm', vm.runInNewContext('({a: [1, new Map([["b", 2]])]})'), { a: [1, { b: 2 }] }],
  ['lone surrogates', ['a\ud800b', { '\udfff': 1 }], ['a\ufffdb', { '\ufffd': 1 }]],
  [
    'a message of LangChain',
    [new Message('ai', 'hi', { name: 'bot', tool_calls: [{ id: '1', name: 'f', args: { a: 1 }, type: 'tool_call' }] })],
    [{ role: 'assistant', content: 'hi', name: 'bot', tool_calls: [{ id: '1', name: 'f', args: { a: 1 } }] }],
  ],
];

for (const [name, given, expected] of SENSIBLE) {
  test(name, () => assert.deepEqual(sent(given), expected));
}

test('bytes', () => {
  assert.deepEqual(Buffer.from(sent(Buffer.from('abc'))), Buffer.from('abc'));
  assert.deepEqual(Buffer.from(sent(new Uint8Array([1, 2]).buffer)), Buffer.from([1, 2]));
});

test('a cycle ends', () => {
  const cycle = { name: 'a', list: [] };
  cycle.self = cycle;
  cycle.list.push(cycle);
  assert.equal(sent(cycle).self.self.name, 'a');
});

test('a toJSON that never ends does', () => {
  const endless = { [Symbol.toStringTag]: 'x' };
  class Endless {
    toJSON() {
      return new Endless();
    }
  }
  assert.deepEqual(sent([new Endless(), endless]), ['<Endless>', {}]);
});

test('what throws is left out, and nothing else', () => {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  const refuses = new Proxy({ a: 1 }, { get: () => { throw new Error('get'); } });
  const hides = new Proxy({}, { ownKeys: () => { throw new Error('keys'); } });
  const given = {
    good: 1,
    get bad() {
      throw new Error('getter');
    },
    proxy,
    refuses,
    hides,
    json: new (class Json { toJSON() { throw new Error('json'); } })(),
    last: 2,
  };
  assert.deepEqual(sent(given), {
    good: 1,
    bad: '<unreadable>',
    proxy: '<unreadable>',
    refuses: { a: '<unreadable>' },
    hides: '<unreadable>',
    json: '<unreadable>',
    last: 2,
  });
});

test('a getter that reports does not disturb the message around it', () => {
  const given = {
    get a() {
      wire.start(ID, WHEN, { input: 'x'.repeat(1000) });
      return 'fine';
    },
  };
  assert.deepEqual(sent([given, 'after']), [{ a: 'fine' }, 'after']);
});

test('depth is bounded', () => {
  let deep = 'bottom';
  for (let i = 0; i < 10_000; i++) deep = [deep];
  assert.deepEqual(JSON.stringify(sent(deep)), '[[[[[[[["<list of 1>"]]]]]]]]');
});

test('elements are bounded', () => {
  const list = sent(Array.from({ length: 100_000 }, (_, i) => i % 7));
  assert.equal(list.length, 20_000); // with what tells of the rest
  assert.match(list.at(-1), /^… \d+ more$/);
  const map = sent(Object.fromEntries(Array.from({ length: 30_000 }, (_, i) => [`k${i}`, 1])));
  assert.match(map['…'], /^\d+ more$/);
});

test('a text past 64 KiB is cut at a character, and its length kept', () => {
  const given = { input: 'ü'.repeat(KIB64), attrs: { a: 'x'.repeat(KIB64 + 1), b: 1 } };
  const fields = unpack(wire.start(ID, WHEN, given))[4];
  assert.equal(Buffer.byteLength(fields.input), KIB64);
  assert.deepEqual(fields.attrs['sidelight.cut'], { input: 2 * KIB64, a: KIB64 + 1 });
  assert.equal(fields.attrs.b, 1);
  const whole = unpack(wire.start(ID, WHEN, { input: 'x'.repeat(KIB64) }))[4];
  assert.equal(whole.attrs, undefined);
});

test('the cuts stand with 14, 15, 16 and 17 other attributes', () => {
  for (let count = 14; count <= 17; count++) {
    const attrs = Object.fromEntries(Array.from({ length: count }, (_, i) => [`k${i}`, i]));
    const fields = unpack(wire.start(ID, WHEN, { input: 'x'.repeat(KIB64 + 5), attrs }))[4];
    assert.deepEqual(fields.attrs, { ...attrs, 'sidelight.cut': { input: KIB64 + 5 } });
  }
});

test('keys that would become the same stay one', () => {
  const attrs = { ['k'.repeat(300) + 'a']: 1, ['k'.repeat(300) + 'b']: 2, '\ud800': 3, '\ud801': 4, 'sidelight.cut': 5 };
  const got = unpack(wire.start(ID, WHEN, { attrs }))[4].attrs;
  assert.deepEqual(got, { ['k'.repeat(256)]: 2, '\ufffd': 4 });
});

test('a message never passes 1 MiB', () => {
  const big = { texts: Array.from({ length: 15_000 }, (_, i) => `${i}${'y'.repeat(5000)}`) };
  const frame = wire.end(ID, WHEN, { output: big, attrs: big });
  assert.ok(frame.length <= (1 << 20) + 4, String(frame.length));
  assert.equal(unpack(frame)[4].output.texts[0].length, 512);
});

test('an odd field costs only itself', () => {
  const bad = { toString() { throw new Error('no'); } };
  assert.deepEqual(unpack(wire.start(ID, WHEN, { name: bad, kind: 5, input: 1 }))[4], { kind: '5', name: '<object>', input: 1 });
});
