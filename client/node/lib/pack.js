'use strict';

// Writes values as msgpack, each number and length in its shortest form, and bounds them on the
// way: what an agent passes around may be cyclic, endless, hostile or a megabyte long. One pass
// and no copy, since cleaning first and packing then would cost twice as much.

const { types } = require('node:util');
const { message, isMessage } = require('./messages.js');

const MAX_TEXT = 64 * 1024; // bytes of one string
const MAX_DEPTH = 8; // containers in one another, below a message's field
const MAX_ATTRS = 1000; // the collector refuses more than 1024
const MAX_NODES = 20_000; // elements of all containers of one message
const MAX_FRAME = 1 << 20;
const MAX_KEY = 256; // bytes
const MAX_NUMBERS = 1000; // of a typed array

const KEPT = 128 * 1024; // bytes of buffer that a packer keeps
const CUT = 'sidelight.cut';
const OVER = new Error('the frame is too long'); // never leaves this client
const UNREADABLE = Symbol('<unreadable>');

/** A text of which only the beginning is here. */
class Beginning {
  constructor(text, bytes) {
    this.text = text;
    this.bytes = bytes; // the length it had
  }
}

/** One message at a time; `cut` names the fields of which text is missing, with its bytes. */
class Packer {
  constructor() {
    this.own = Buffer.allocUnsafeSlow(KEPT);
    this.begin(MAX_TEXT, MAX_NODES);
  }

  /** A message, if possible at the end of a chunk that has room. */
  begin(maxText, maxNodes, chunk) {
    this.buf = chunk?.buf ?? this.own;
    this.at = chunk?.end ?? 0;
    this.pos = this.at + 4; // after the length
    this.maxText = maxText;
    this.nodes = maxNodes;
    this.cut = null;
    this.field = '';
  }

  get length() {
    return this.pos - this.at;
  }

  /** Writes the length, which makes it a frame. */
  seal() {
    put32(this.buf, this.at, this.length - 4);
  }

  /** The frame: borrowed, until the next message begins. */
  frame() {
    return this.buf.subarray(this.at, this.pos);
  }

  room(bytes) {
    if (this.pos + bytes > this.buf.length) this.grow(bytes);
  }

  /** Goes on in a bigger buffer, at the same place: those who wrote a head remember it. */
  grow(bytes) {
    if (this.length > MAX_FRAME) throw OVER;
    const needed = this.pos + bytes;
    const { own, buf } = this;
    this.buf = needed <= own.length ? own : Buffer.allocUnsafeSlow(Math.max(2 * buf.length, needed));
    buf.copy(this.buf, this.at, this.at, this.pos);
  }

  byte(value) {
    this.room(1);
    this.buf[this.pos++] = value;
  }

  // Numbers

  number(value) {
    if (value >>> 0 === value) return this.uint(0, value);
    if (!Number.isSafeInteger(value)) return this.double(value);
    if (value >= 0) return this.uint(Math.floor(value / 2 ** 32), value >>> 0);
    return this.negative(value);
  }

  double(value) {
    this.room(9);
    this.buf[this.pos] = 0xcb;
    this.pos = this.buf.writeDoubleBE(value, this.pos + 1);
  }

  uint(high, low) {
    this.room(9);
    const { buf } = this;
    let { pos } = this;
    if (high !== 0) {
      buf[pos++] = 0xcf;
      pos = put32(buf, put32(buf, pos, high), low);
    } else if (low < 0x80) {
      buf[pos++] = low;
    } else if (low < 0x100) {
      buf[pos++] = 0xcc;
      buf[pos++] = low;
    } else if (low < 0x10000) {
      buf[pos++] = 0xcd;
      pos = put16(buf, pos, low);
    } else {
      buf[pos++] = 0xce;
      pos = put32(buf, pos, low);
    }
    this.pos = pos;
  }

  negative(value) {
    this.room(9);
    const { buf } = this;
    if (value >= -0x20) buf[this.pos++] = value & 0xff;
    else if (value >= -0x80) {
      buf[this.pos] = 0xd0;
      this.pos = buf.writeInt8(value, this.pos + 1);
    } else if (value >= -0x8000) {
      buf[this.pos] = 0xd1;
      this.pos = buf.writeInt16BE(value, this.pos + 1);
    } else if (value >= -0x80000000) {
      buf[this.pos] = 0xd2;
      this.pos = buf.writeInt32BE(value, this.pos + 1);
    } else {
      buf[this.pos] = 0xd3;
      this.pos = buf.writeBigInt64BE(BigInt(value), this.pos + 1);
    }
  }

  bigint(value) {
    if (value >= 0n && value < 1n << 64n) {
      this.uint(Number(value >> 32n), Number(value & 0xffffffffn));
    } else if (value < 0n && value >= -(1n << 63n)) {
      if (value >= Number.MIN_SAFE_INTEGER) return this.negative(Number(value));
      this.room(9);
      this.buf[this.pos] = 0xd3;
      this.pos = this.buf.writeBigInt64BE(value, this.pos + 1);
    } else {
      // The digits, or only the size: printing takes quadratic time.
      const nibbles = value.toString(16).length;
      this.text(nibbles <= 1024 ? String(value) : `<bigint of ${4 * nibbles} bits>`);
    }
  }

  /** [seconds, nanoseconds] as nanoseconds. A double holds them to some hundreds, which is enough for
   * the upper half. */
  time(when) {
    if (typeof when === 'bigint') return this.bigint(when);
    const seconds = when[0];
    const ns = when[1];
    const low = (Math.imul(seconds, 1e9) + ns) >>> 0;
    this.uint(Math.round((seconds * 1e9 + ns - low) / 2 ** 32), low);
  }

  // Text and bytes

  /** A text of any length; lone surrogates become U+FFFD. */
  text(value) {
    const chars = value.length;
    if (chars * 3 > this.maxText) {
      const bytes = Buffer.byteLength(value);
      if (bytes > this.maxText) return this.beginning(value, this.maxText, bytes);
    }
    this.room(chars * 3 + 5);
    if (chars < 32 && this.ascii(value, chars)) return;
    const head = textHead(chars);
    this.textTail(head, this.buf.write(value, this.pos + head));
  }

  ascii(value, chars) {
    const { buf, pos } = this;
    for (let i = 0; i < chars; i++) {
      const code = value.charCodeAt(i);
      if (code >= 0x80) return false;
      buf[pos + 1 + i] = code;
    }
    buf[pos] = 0xa0 | chars;
    this.pos = pos + 1 + chars;
    return true;
  }

  /** The first `limit` bytes of a text, cut at a character. */
  start(value, limit) {
    this.room(limit + 5);
    const head = textHead(limit);
    const bytes = this.buf.write(value, this.pos + head, limit);
    this.textTail(head, bytes);
  }

  beginning(value, limit, bytes) {
    this.wasCut(bytes);
    this.start(value, limit);
  }

  wasCut(bytes) {
    this.cut ??= new Map();
    this.cut.set(this.field, (this.cut.get(this.field) ?? 0) + bytes);
  }

  /** Writes the head of a text whose bytes stand `head` bytes from here. */
  textTail(head, bytes) {
    const { buf, pos } = this;
    const needed = textHead(bytes);
    if (needed !== head) buf.copyWithin(pos + needed, pos + head, pos + head + bytes);
    if (needed === 1) buf[pos] = 0xa0 | bytes;
    else if (needed === 2) {
      buf[pos] = 0xd9;
      buf[pos + 1] = bytes;
    } else if (needed === 3) {
      buf[pos] = 0xda;
      put16(buf, pos + 1, bytes);
    } else {
      buf[pos] = 0xdb;
      put32(buf, pos + 1, bytes);
    }
    this.pos = pos + needed + bytes;
  }

  bytes(value) {
    const length = Math.min(value.length, this.maxText);
    if (length < value.length) this.wasCut(value.length);
    this.room(length + 5);
    const { buf } = this;
    if (length < 0x100) {
      buf[this.pos] = 0xc4;
      buf[this.pos + 1] = length;
      this.pos += 2;
    } else if (length < 0x10000) {
      buf[this.pos] = 0xc5;
      this.pos = put16(buf, this.pos + 1, length);
    } else {
      buf[this.pos] = 0xc6;
      this.pos = put32(buf, this.pos + 1, length);
    }
    if (length === 16) for (let i = 0; i < 16; i++) buf[this.pos + i] = value[i]; // an id
    else buf.set(length < value.length ? value.subarray(0, length) : value, this.pos);
    this.pos += length;
  }

  key(value) {
    if (value.length * 3 > MAX_KEY && Buffer.byteLength(value) > MAX_KEY) this.start(value, MAX_KEY);
    else this.text(value);
  }

  // Containers

  arrayHead(count) {
    this.head(count, 0x90, 0xdc);
  }

  mapHead(count) {
    this.head(count, 0x80, 0xde);
  }

  head(count, fix, wide) {
    this.room(5);
    const { buf } = this;
    if (count < 16) buf[this.pos++] = fix | count;
    else if (count < 0x10000) {
      buf[this.pos] = wide;
      this.pos = put16(buf, this.pos + 1, count);
    } else {
      buf[this.pos] = wide + 1;
      this.pos = put32(buf, this.pos + 1, count);
    }
  }

  /** Takes up to `count` elements from the budget. Returns how many there were. */
  elements(count) {
    const taken = Math.min(count, Math.max(this.nodes, 0));
    this.nodes -= taken;
    return taken;
  }

  value(value, depth) {
    switch (typeof value) {
      case 'string':
        return this.text(value);
      case 'number':
        return this.number(value);
      case 'boolean':
        return this.byte(value ? 0xc3 : 0xc2);
      case 'bigint':
        return this.bigint(value);
      case 'undefined':
        return this.byte(0xc0);
      case 'object':
        return value === null ? this.byte(0xc0) : this.guarded(value, depth);
      default:
        return this.text(typeof value === 'function' ? '<function>' : (value.description ?? '<symbol>'));
    }
  }

  /** An object; if it can't be read, that it is one. */
  guarded(value, depth) {
    if (--this.nodes < 0) return this.text('…');
    const { pos } = this;
    try {
      this.object(value, depth);
    } catch (error) {
      if (error === OVER) throw error;
      this.pos = pos;
      this.text('<unreadable>');
    }
  }

  object(value, depth) {
    if (Array.isArray(value)) return this.list(value, value.length, depth);
    const proto = Object.getPrototypeOf(value);
    // Also the Object of another realm.
    if (proto === null || proto === Object.prototype || Object.getPrototypeOf(proto) === null) {
      return this.map(value, depth);
    }
    return this.instance(value, proto, depth);
  }

  list(values, count, depth) {
    if (depth >= MAX_DEPTH) return this.text(`<list of ${count}>`);
    const taken = this.elements(count);
    this.arrayHead(taken < count ? taken + 1 : count);
    for (let i = 0; i < taken; i++) this.value(read(values, i), depth + 1);
    if (taken < count) this.text(`… ${count - taken} more`);
  }

  map(value, depth) {
    const keys = Object.keys(value);
    if (depth >= MAX_DEPTH) return this.text(`<map of ${keys.length}>`);
    if (keys.length < 16 && keys.length <= this.nodes) this.few(value, keys, depth + 1);
    else this.entries(value, said(value, keys), depth + 1);
  }

  /** Entries whose count fits in the first byte: it is known when they are written. */
  few(value, keys, depth) {
    const at = this.pos;
    let count = 0;
    this.byte(0x80);
    this.nodes -= keys.length;
    for (let i = 0; i < keys.length; i++) {
      const item = read(value, keys[i]);
      if (item === undefined || typeof item === 'function') continue;
      this.key(keys[i]);
      this.value(item, depth);
      count++;
    }
    this.buf[at] = 0x80 | count;
  }

  entries(value, keys, depth) {
    const taken = this.elements(keys.length);
    this.mapHead(taken < keys.length ? taken + 1 : taken);
    for (let i = 0; i < taken; i++) {
      this.key(keys[i]);
      this.value(read(value, keys[i]), depth);
    }
    if (taken < keys.length) this.more(keys.length - taken);
  }

  more(count) {
    this.text('…');
    this.text(`${count} more`);
  }

  instance(value, proto, depth) {
    if (ArrayBuffer.isView(value)) return this.view(value, proto, depth);
    if (types.isAnyArrayBuffer(value)) return this.bytes(new Uint8Array(value));
    if (value instanceof Beginning) return this.beginningOf(value);
    if (types.isDate(value)) return this.text(Number.isNaN(+value) ? 'Invalid Date' : value.toISOString());
    if (types.isNativeError(value)) return this.text(`${value.name}: ${value.message}`);
    if (types.isMap(value)) return this.mapObject(value, depth);
    if (types.isSet(value)) return this.list([...first(value, this.nodes + 1)], value.size, depth);
    if (types.isBoxedPrimitive(value)) return this.value(value.valueOf(), depth);
    if (types.isRegExp(value)) return this.text(String(value));
    if (depth >= MAX_DEPTH) return this.text(nameOf(proto));
    if (isMessage(value)) return this.map(message(value), depth);
    if (typeof value.toJSON === 'function') return this.value(value.toJSON(), depth + 1);
    // An object with methods is a client, a session, a database: only named.
    if (isRecord(proto)) return this.map(value, depth);
    return this.text(nameOf(proto));
  }

  beginningOf({ text, bytes }) {
    this.beginning(text, this.maxText, bytes);
  }

  view(value, proto, depth) {
    if (types.isUint8Array(value)) return this.bytes(value);
    if (types.isDataView(value) || value.length > MAX_NUMBERS) {
      return this.text(`<${proto.constructor.name} of ${value.byteLength} bytes>`);
    }
    return this.list(value, value.length, depth);
  }

  mapObject(value, depth) {
    if (depth >= MAX_DEPTH) return this.text(`<map of ${value.size}>`);
    const taken = this.elements(value.size);
    this.mapHead(taken < value.size ? taken + 1 : taken);
    for (const [key, item] of first(value, taken)) {
      this.key(text(key));
      this.value(item, depth + 1);
    }
    if (taken < value.size) this.more(value.size - taken);
  }

  /** A message's attributes, with what was cut from all its fields at their end. */
  attrs(given) {
    const attrs = hasFields(given) ? given : {};
    let keys = said(attrs, Object.keys(attrs));
    let from = attrs;
    if (keys.some(isOdd)) {
      from = distinct(attrs, keys);
      keys = Object.keys(from);
    }
    const taken = Math.min(this.elements(keys.length), MAX_ATTRS);
    const at = this.pos;
    const count = taken < keys.length ? taken + 1 : taken;
    this.mapHead(count);
    for (let i = 0; i < taken; i++) {
      this.field = keys[i];
      this.key(keys[i]);
      this.value(read(from, keys[i]), 1);
    }
    if (taken < keys.length) this.more(keys.length - taken);
    if (this.cut !== null) this.addCut(at, count);
  }

  /** Adds the list of cuts as one more attribute to those that begin at `at`. */
  addCut(at, count) {
    this.text(CUT);
    this.mapHead(this.cut.size);
    for (const [field, bytes] of this.cut) {
      this.key(field);
      this.number(bytes);
    }
    const end = this.pos;
    const wider = (count + 1 < 16 ? 1 : 3) - (count < 16 ? 1 : 3);
    this.room(wider);
    if (wider > 0) this.buf.copyWithin(at + wider, at, end);
    this.pos = at;
    this.mapHead(count + 1);
    this.pos = end + wider;
  }
}

// Buffer's own check what we know, which takes longer than the writing.

function put16(buf, pos, value) {
  buf[pos] = value >>> 8;
  buf[pos + 1] = value;
  return pos + 2;
}

function put32(buf, pos, value) {
  buf[pos] = value >>> 24;
  buf[pos + 1] = value >>> 16;
  buf[pos + 2] = value >>> 8;
  buf[pos + 3] = value;
  return pos + 4;
}

function textHead(length) {
  return length < 32 ? 1 : length < 0x100 ? 2 : length < 0x10000 ? 3 : 5;
}

/** A property; a getter that throws and a Proxy that refuses are no reason to lose the rest. */
function read(value, key) {
  try {
    return value[key];
  } catch {
    return UNREADABLE;
  }
}

/** The keys with a value; like JSON, we don't speak of functions. */
function said(value, keys) {
  for (let i = 0; i < keys.length; i++) {
    if (!isSaid(read(value, keys[i]))) return keys.filter((key) => isSaid(read(value, key)));
  }
  return keys;
}

function isSaid(value) {
  return value !== undefined && typeof value !== 'function';
}

/** Says whether a key may become another one's twin when it is cut or made valid UTF-8. */
function isOdd(key) {
  return key.length * 3 > MAX_KEY || key === CUT || /[\ud800-\udfff]/.test(key);
}

function distinct(attrs, keys) {
  const out = Object.create(null);
  for (const key of keys) if (key !== CUT) out[clip(key, MAX_KEY)] = read(attrs, key);
  return out;
}

/** A text's first bytes, as valid UTF-8 and cut at a character. */
function clip(value, limit) {
  const raw = Buffer.allocUnsafe(limit);
  return raw.toString('utf8', 0, raw.write(value, 0, limit));
}

function* first(values, count) {
  let left = count;
  for (const value of values) {
    if (left-- <= 0) return;
    yield value;
  }
}

/** Whether instances only hold fields: no class above theirs, and no methods. */
function isRecord(proto) {
  return (
    Object.getPrototypeOf(proto) === Object.prototype && Object.getOwnPropertyNames(proto).length <= 1
  );
}

function nameOf(proto) {
  const name = proto.constructor?.name;
  return `<${typeof name === 'string' && name ? name.slice(0, 100) : 'object'}>`;
}

/** Whether it has fields by name; those of a list, a text or an array of bytes are its items. */
function hasFields(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !ArrayBuffer.isView(value);
}

/** The value as a string, whatever it is. */
function text(value) {
  if (typeof value === 'string') return value;
  try {
    return String(value);
  } catch {
    return `<${typeof value}>`;
  }
}

module.exports = { Beginning, MAX_FRAME, MAX_NODES, MAX_TEXT, OVER, Packer, clip, hasFields, text };
