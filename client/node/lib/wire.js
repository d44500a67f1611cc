'use strict';

// Builds the frames of docs/protocol.md: a 4-byte big-endian length, then a msgpack array.
//
// Keys come in the order of the protocol's tables, absent fields are left out, and a frame is
// never longer than MAX_FRAME. A frame is borrowed: the next one may overwrite it.

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

const START = {
  kind: label,
  name: label,
  parent: id,
  traceparent: label,
  session: label,
  user: label,
  model: label,
  provider: label,
  input: value,
  tags: texts,
};
const END = { output: value, usage: map, model: label, finish: labels, error: errorMap };
const HELLO = { v: value, service: label, resource: map, sdk: label, pid: value };

// A packer is used by one message at a time: a getter that reports in the middle of one takes
// another.
const idle = [];

function build(write) {
  const packer = idle.pop() ?? new Packer();
  try {
    for (const [maxText, maxNodes] of LIMITS) {
      packer.begin(maxText, maxNodes);
      try {
        write(packer);
      } catch (error) {
        if (error !== OVER) throw error;
        continue;
      }
      if (packer.pos <= MAX_FRAME) return packer.frame();
    }
    throw OVER;
  } finally {
    if (idle.length < 4) idle.push(packer);
  }
}

function fields(packer, table, given, withAttrs) {
  const at = packer.pos;
  let count = 0;
  packer.byte(0x80);
  for (const name in table) {
    const field = given[name];
    if (field !== undefined && field !== null && table[name](packer, name, field)) count++;
  }
  if (withAttrs && (packer.cut !== null || hasKeys(given.attrs))) {
    packer.text('attrs');
    packer.attrs(given.attrs);
    count++;
  }
  packer.buf[at] = 0x80 | count; // no table has 16 fields
}

function hasKeys(attrs) {
  return hasFields(attrs) && Object.keys(attrs).length > 0;
}

// Each writes one field, and says whether it did.

function value(packer, name, field) {
  packer.field = name;
  packer.text(name);
  packer.value(field, 0);
  return true;
}

function label(packer, name, field) {
  return value(packer, name, text(field));
}

function labels(packer, name, field) {
  return Array.isArray(field) ? texts(packer, name, field) : label(packer, name, field);
}

function texts(packer, name, field) {
  const list = Array.isArray(field) || field instanceof Set ? Array.from(field, text) : [text(field)];
  return list.length > 0 && value(packer, name, list);
}

/** A field that is refused with all the others if it is no map. */
function map(packer, name, field) {
  const { pos } = packer;
  value(packer, name, field);
  const head = packer.buf[pos + 1 + name.length];
  const isMap = (head >= 0x81 && head <= 0x8f) || head === 0xde || head === 0xdf;
  if (!isMap) packer.pos = pos;
  return isMap;
}

function errorMap(packer, name, field) {
  const error = {};
  for (const key of ['type', 'message', 'stack']) {
    if (field[key] !== undefined) error[key] = text(field[key]);
  }
  return value(packer, name, error);
}

function id(packer, name, field) {
  const usable = runId(field);
  return usable !== undefined && value(packer, name, usable);
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
    fields(packer, HELLO, { v: VERSION, ...given }, false);
  });
}

function message(type, run, when, table, given) {
  return build((packer) => {
    packer.arrayHead(5);
    packer.number(type);
    packer.value(run, 0);
    packer.time(when.unix);
    packer.time(when.mono);
    fields(packer, table, given, true);
  });
}

const start = (run, when, given) => message(1, run, when, START, given);
const end = (run, when, given) => message(2, run, when, END, given);

function event(run, when, name, attrs) {
  return build((packer) => {
    packer.arrayHead(6);
    packer.number(3);
    packer.value(run, 0);
    packer.time(when.unix);
    packer.time(when.mono);
    packer.text(clip(text(name), MAX_NAME) || 'event');
    packer.attrs(attrs);
  });
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
