'use strict';

// The collector away, slow, stopped or gone: what was reported arrives, or is counted.

const assert = require('node:assert/strict');
const path = require('node:path');
const { afterEach, beforeEach, test } = require('node:test');
const { setTimeout: sleep } = require('node:timers/promises');
const { Transport } = require('../lib/transport.js');
const wire = require('../lib/wire.js');
const { Recorder, onlyRuns, temporary } = require('./recorder.js');

const WHEN = { unix: 1n, mono: 1n };

let transport;
let recorder;
let socket;

beforeEach(() => {
  socket = path.join(temporary(), 's.sock');
  transport = new Transport(() => wire.hello({ service: 'test' }));
  transport.path = socket;
});

afterEach(async () => {
  transport.close();
  await recorder?.close();
  recorder = undefined;
});

function report(name, attrs = {}) {
  if (transport.wants()) wire.event('run', WHEN, name, attrs, transport);
}

const names = (messages) => onlyRuns(messages).map((message) => message[4]);
const droppedOf = (messages) => messages.filter(([type]) => type === 6).map(([, fields]) => fields);

test('says hello, then what was reported, in order', async () => {
  recorder = await Recorder.start(socket);
  for (let i = 0; i < 1000; i++) report(`e${i}`);
  const messages = await recorder.wait((all) => onlyRuns(all).length === 1000);
  assert.deepEqual(messages[0], [0, { v: 1, service: 'test' }]);
  assert.deepEqual(names(messages), Array.from({ length: 1000 }, (_, i) => `e${i}`));
});

test('frames of any size are whole and in order, wherever they are packed', async () => {
  recorder = await Recorder.start(socket);
  const lengths = Array.from({ length: 300 }, (_, i) => (i * i * 37) % (i % 3 === 0 ? 66_000 : 9_000));
  for (const [i, length] of lengths.entries()) {
    report(`e${i}`, { text: 'x'.repeat(length), last: i });
    if (i % 7 === 0) transport.emit(wire.event('run', WHEN, `copied${i}`, {}));
    if (i % 50 === 0) await sleep(1);
  }
  const messages = await recorder.runs(343);
  const packed = onlyRuns(messages).filter(([, , , , name]) => name.startsWith('e'));
  assert.deepEqual(packed.map(([, , , , name]) => name), lengths.map((_, i) => `e${i}`));
  for (const [i, [, , , , , { text, last }]] of packed.entries()) {
    assert.equal(text.length, Math.min(lengths[i], 65_536));
    assert.equal(last, i);
  }
  assert.deepEqual(names(messages).filter((name) => name.startsWith('copied')).length, 43);
});

test('one turn of the event loop is one write', async () => {
  recorder = await Recorder.start(socket);
  report('first');
  await recorder.runs(1);
  let writes = 0;
  const { outbox } = transport;
  const { writeTo } = outbox;
  outbox.writeTo = (fd) => {
    writes++;
    return writeTo.call(outbox, fd);
  };
  for (let i = 0; i < 100; i++) report('more');
  await recorder.runs(101);
  assert.equal(writes, 1);
});

test('a collector that comes later gets what was kept, by itself', async () => {
  report('early');
  await sleep(120);
  recorder = await Recorder.start(socket);
  assert.deepEqual(names(await recorder.runs(1)), ['early']);
});

test('what is over the limit is dropped, and told where it is missing', async () => {
  transport.limit = 1000;
  for (let i = 0; i < 500; i++) report(`e${i}`);
  assert.ok(transport.outbox.bytes <= 1100);
  const kept = 500 - transport.dropped;
  recorder = await Recorder.start(socket);
  transport.greet(socket);
  const messages = await recorder.wait((all) => droppedOf(all).length > 0);
  assert.equal(onlyRuns(messages).length, kept);
  assert.equal(droppedOf(messages)[0].count, 500 - kept);
  report('after');
  await recorder.wait((all) => names(all).includes('after'));
});

test('a reader that does not read holds nobody up, and gets whole frames in the end', async () => {
  recorder = await Recorder.start(socket);
  report('first');
  await recorder.runs(1);
  const [reader] = recorder.sockets;
  reader.pause();
  transport.limit = 1 << 20;
  for (let round = 0; round < 20; round++) {
    const begin = process.hrtime.bigint();
    for (let i = 0; i < 200; i++) report('big', { text: 'x'.repeat(3000) });
    assert.ok(process.hrtime.bigint() - begin < 500_000_000n);
    await sleep(1);
  }
  assert.ok(transport.outbox.bytes <= (1 << 20) + 100);
  reader.resume();
  const counted = (all) => onlyRuns(all).length + droppedOf(all).reduce((sum, { count }) => sum + count, 0);
  const messages = await recorder.wait((all) => counted(all) === 4001);
  assert.ok(droppedOf(messages).length > 0);
  for (const message of onlyRuns(messages).slice(1)) assert.equal(message[5].text.length, 3000);
});

test('a frame that was cut by the end of a connection is sent again as a whole', async () => {
  recorder = await Recorder.start(socket);
  report('first');
  await recorder.runs(1);
  const [reader] = recorder.sockets;
  reader.pause();
  for (let i = 0; i < 300; i++) report(`e${i}`, { text: 'x'.repeat(5000) });
  await sleep(50);
  assert.ok(transport.outbox.sent > 0, 'the kernel took no part of a chunk');
  reader.destroy();
  const messages = await recorder.wait((all) => names(all).includes('e299'));
  const second = names(recorder.connections.at(-1));
  assert.equal(second.length, new Set(second).size);
  assert.deepEqual(second, Array.from({ length: second.length }, (_, i) => `e${300 - second.length + i}`));
  assert.equal(messages.filter(([type]) => type === 0).length, 2);
});

test('flush is answered once all is there, and false without a collector', async () => {
  assert.equal(await transport.flush(50), false);
  recorder = await Recorder.start(socket);
  report('e');
  assert.equal(await transport.flush(5000), true);
  assert.deepEqual(names(recorder.messages), ['e']);
  assert.equal(transport.asked.size, 0);
});

test('a flush over a lost connection is asked again, and not believed', async () => {
  recorder = await Recorder.start(socket);
  report('e');
  await recorder.runs(1);
  for (const reader of recorder.sockets) reader.destroy();
  assert.equal(await transport.flush(5000), false);
  report('f');
  assert.equal(await transport.flush(5000), true);
});

test('many flushes at once', async () => {
  recorder = await Recorder.start(socket);
  const all = await Promise.all(Array.from({ length: 50 }, () => transport.flush(5000)));
  assert.ok(all.every(Boolean));
});

test('close says bye', async () => {
  recorder = await Recorder.start(socket);
  report('e');
  transport.close();
  const messages = await recorder.wait((all) => all.includes('EOF'));
  assert.deepEqual(messages.map(([type]) => type), [0, 3, 7, 'E']);
  assert.deepEqual(recorder.leftOver.map(({ length }) => length), [0]);
});

test('without anything to say there is no new connection', async () => {
  recorder = await Recorder.start(socket);
  report('e');
  transport.close(); // before the turn in which it would have been written
  await recorder.wait((all) => all.includes('EOF'));
  await sleep(20);
  assert.equal(recorder.connections.length, 1);
});

test('another address is taken, and the old one gets what it was owed', async () => {
  recorder = await Recorder.start(socket);
  const other = await Recorder.start();
  report('first');
  await recorder.runs(1);
  report('old');
  transport.greet(other.path);
  report('new');
  assert.deepEqual(names(await other.runs(1)), ['new']);
  assert.deepEqual(names(await recorder.runs(2)), ['first', 'old']);
  transport.close();
  await other.close();
});

test('a path that can be none is only a collector that is away', async () => {
  for (const path of ['/', '/dev/null', 'x'.repeat(300), 'a\0b', '']) {
    transport.path = path;
    transport.retryAt = 0;
    report('e');
    transport.pump(1);
  }
  assert.equal(transport.socket, undefined);
});
