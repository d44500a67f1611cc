'use strict';

// Builds the frames of docs/protocol.md: a 4-byte big-endian length, then a msgpack array.
//
// Keys come in the order of the protocol's tables, absent fields are left out, and a frame is
// never longer than MAX_FRAME. It goes into a sink, in place where that has room; without a sink it
// is returned, borrowed: the next one may overwrite it.

const { MAX_FRAME, MAX_NODES, MAX_TEXT, OVER, Packer, clip, hasFields, text } = require('./pack.js');

const VERSION = 1;
const MAX_NAME = 1024; // bytes of an event's name and of a run id in text

// What a frame is cut down to: bytes of a string, elements. The last always fits MAX_FRAME:
// an element has a key of 256 bytes, a text of 512, and maybe its key once more among the cut.
const LIMITS = [
  [MAX_TEXT, MAX_NODES],
  [8192, 5000],
  [512, 500],
];

// Each writes the fields of one message, and says how many there were; spelled out, since a loop
// over a table takes longer.

function startFields(packer, given) {
  return (
    label(packer, 'kind', given.kind) +
    label(packer, 'name', given.name) +
    id(packer, 'parent', given.parent) +
    label(packer, 'traceparent', given.traceparent) +
    label(packer, 'session', given.session) +
    label(packer, 'user', given.user) +
    label(packer, 'model', given.model) +
    label(packer, 'provider', given.provider) +
    value(packer, 'input', given.input) +
    texts(packer, 'tags', given.tags) +
    attrs(packer, given.attrs)
  );
}

function endFields(packer, given) {
  return (
    value(packer, 'output', given.output) +
    map(packer, 'usage', given.usage) +
    label(packer, 'model', given.model) +
    labels(packer, 'finish', given.finish) +
    errorMap(packer, 'error', given.error) +
    attrs(packer, given.attrs)
  );
}

function helloFields(packer, given) {
  return (
    value(packer, 'v', VERSION) +
    label(packer, 'service', given.service) +
    map(packer, 'resource', given.resource) +
    label(packer, 'sdk', given.sdk) +
    value(packer, 'pid', given.pid)
  );
}

// A packer is used by one message at a time: a getter that reports in the middle of one takes
// another.
const idle = [];

function build(write, sink) {
  const packer = idle.pop() ?? new Packer();
  const chunk = sink?.lend();
  try {
    for (let i = 0; i < LIMITS.length; i++) {
      if (fits(packer, LIMITS[i], write, chunk)) return sink === undefined ? packer.frame() : sink.take(packer, chunk);
    }
    throw OVER;
  } finally {
    sink?.release(chunk);
    if (idle.length < 4) idle.push(packer);
  }
}

function fits(packer, limits, write, chunk) {
  packer.begin(limits[0], limits[1], chunk);
  try {
    write(packer);
  } catch (error) {
    if (error === OVER) return false;
    throw error;
  }
  packer.seal();
  return packer.length <= MAX_FRAME;
}

/** The map that a message ends with. */
function fields(packer, write, given) {
  const at = packer.pos;
  packer.byte(0x80);
  const count = write(packer, given);
  packer.buf[at] = 0x80 | count; // no message has 16 fields
}

// Each writes one field, and returns 1; 0 if there is nothing to write.

function value(packer, name, field) {
  if (field === undefined || field === null) return 0;
  packer.field = name;
  packer.text(name);
  packer.value(field, 0);
  return 1;
}

function label(packer, name, field) {
  if (field === undefined || field === null) return 0;
  packer.field = name;
  packer.text(name);
  packer.text(text(field));
  return 1;
}

function labels(packer, name, field) {
  return Array.isArray(field) ? texts(packer, name, field) : label(packer, name, field);
}

function texts(packer, name, field) {
  if (field === undefined || field === null) return 0;
  const list = Array.isArray(field) || field instanceof Set ? Array.from(field, text) : [text(field)];
  return list.length > 0 ? value(packer, name, list) : 0;
}

/** A field that is refused with all the others if it is no map. */
function map(packer, name, field) {
  const { pos } = packer;
  if (value(packer, name, field) === 0) return 0;
  const head = packer.buf[pos + 1 + name.length];
  const isMap = (head >= 0x81 && head <= 0x8f) || head === 0xde || head === 0xdf;
  if (!isMap) packer.pos = pos;
  return isMap ? 1 : 0;
}

function attrs(packer, given) {
  if (packer.cut === null && !(hasFields(given) && Object.keys(given).length > 0)) return 0;
  packer.text('attrs');
  packer.attrs(given);
  return 1;
}

function errorMap(packer, name, field) {
  if (field === undefined || field === null) return 0;
  const error = {};
  for (const key of ['type', 'message', 'stack']) {
    if (field[key] !== undefined) error[key] = text(field[key]);
  }
  return value(packer, name, error);
}

function id(packer, name, field) {
  const usable = runId(field);
  return value(packer, name, usable);
}

/** 16 bytes or a text; anything else is none. */
function runId(given) {
  if (typeof given === 'string') {
    return given.length > 0 && given.length <= MAX_NAME && Buffer.byteLength(given) <= MAX_NAME ? given : undefined;
  }
  const good = given instanceof Uint8Array && given.length === 16 && given.some((byte) => byte !== 0);
  return good ? given : undefined;
}

function hello(given) {
  return build((packer) => {
    packer.arrayHead(2);
    packer.number(0);
    fields(packer, helloFields, given);
  });
}

function runOf(packer, run) {
  if (run instanceof Uint8Array) packer.bytes(run);
  else packer.value(run, 0);
}

function message(type, run, when, write, given, sink) {
  return build((packer) => {
    packer.arrayHead(5);
    packer.number(type);
    runOf(packer, run);
    packer.time(when.unix);
    packer.time(when.mono);
    fields(packer, write, given);
  }, sink);
}

const start = (run, when, given, sink) => message(1, run, when, startFields, given, sink);
const end = (run, when, given, sink) => message(2, run, when, endFields, given, sink);

function event(run, when, name, attributes, sink) {
  return build((packer) => {
    packer.arrayHead(6);
    packer.number(3);
    runOf(packer, run);
    packer.time(when.unix);
    packer.time(when.mono);
    packer.text(clip(text(name), MAX_NAME) || 'event');
    packer.attrs(attributes);
  }, sink);
}

function plain(type, body) {
  return build((packer) => {
    packer.arrayHead(2);
    packer.number(type);
    packer.value(body, 0);
  });
}

const flush = (token) => plain(4, token);
const dropped = (count, reason) => plain(6, { count, reason });
const bye = () => plain(7, {});
/** A child of ours: only watched, or how it ended, by exactly one of the two. */
const child = (pid, ending) => plain(9, { pid, ...ending });

/** What the collector says: the token it flushed, or -1 for any other word. */
function flushed(body) {
  if (body.length < 3 || body[0] !== 0x92 || body[1] !== 5) return -1;
  const first = body[2];
  if (first < 0x80) return first;
  const width = { 0xcc: 1, 0xcd: 2, 0xce: 4 }[first];
  return width !== undefined && body.length === 3 + width ? body.readUIntBE(3, width) : -1;
}

module.exports = { bye, child, dropped, end, event, flush, flushed, hello, runId, start };
