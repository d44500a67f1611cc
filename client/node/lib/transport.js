'use strict';

// The way to the collector: one connection a thread, which never holds the agent up.
//
// A frame goes into an outbox, and what has gathered when the event loop comes round is written at
// once. The socket doesn't block. What it refuses waits there, `limit` bytes at most;
// then the newest events are dropped and counted, and the collector is told how many.
//
// net.Socket connects and reads, but doesn't write: what it has in flight can neither be counted
// nor finished once the process exits. write(2) on its descriptor does both. The descriptor is
// asked for before each write, since a number that was closed may be somebody's file by then.

const { AsyncResource } = require('node:async_hooks');
const fs = require('node:fs');
const net = require('node:net');
const timers = require('node:timers');
const clock = require('./clock.js');
const { guarded } = require('./guarded.js');
const { Outbox } = require('./outbox.js');
const wire = require('./wire.js');

const { setImmediate, setTimeout, clearTimeout } = timers; // a test's fake ones would not run
const BACKOFF_MIN_MS = 50;
const BACKOFF_MAX_MS = 2000;
const RETRY_MIN_MS = 1; // when the socket's buffer is full
const RETRY_MAX_MS = 16;
const TURN_BUDGET = 16; // chunks that are written in one turn of the event loop
const EXIT_MS = 100;
const MAX_HEARD = 64 * 1024;
const AGAIN = new Set(['EAGAIN', 'EWOULDBLOCK', 'ENOBUFS', 'EINTR']);

class Transport {
  constructor(hello, limit = 4 << 20) {
    this.limit = limit;
    this.path = undefined; // where the collector is, if somebody said so
    this.errors = 0; // frames in which the collector complained
    this.hello = hello;
    // Sockets and timers outlive the request that caused them: they must not keep its context.
    this.outside = new AsyncResource('SIDELIGHT');
    this.turn = guarded(() => {
      this.scheduled = false;
      if (this.timer === undefined) this.pump(TURN_BUDGET);
    });
    this.again = guarded(() => {
      this.timer = undefined;
      this.pump(TURN_BUDGET);
    });
    this.reset();
  }

  reset() {
    this.outbox = new Outbox();
    this.dropped = 0;
    this.full = false;
    this.scheduled = false;
    this.leaving = false;
    this.timer = undefined;
    this.retryMs = RETRY_MIN_MS;
    this.socket = undefined;
    this.settled = false; // libuv knows that it is connected
    this.connectedTo = undefined;
    this.since = 0; // when this connection began
    this.backoffMs = 0;
    this.retryAt = 0;
    this.heard = Buffer.alloc(0);
    this.token = 0;
    this.asked = new Map(); // token: {at, resolve} of a flush that waits for its answer
    this.durable = 0; // bytes of the outbox that the collector has on its disk
    this.unsure = false; // some were written to a connection that is lost
  }

  /** Says whether an event is worth packing; counts it as dropped if it isn't. */
  wants() {
    if (this.full) {
      this.dropped++;
      this.schedule();
    } else if (this.dropped > 0) this.reportDropped();
    return !this.full;
  }

  emit(frame) {
    if (this.fits(frame)) this.outbox.add(frame);
    this.schedule();
  }

  fits({ length }) {
    if (this.outbox.bytes + length <= this.limit) return true;
    this.full = true;
    this.dropped++;
    return false;
  }

  /** Where a frame may be packed in place; undefined if it can't now. */
  lend() {
    return this.outbox.lend();
  }

  /** Takes what was packed: in that chunk, or elsewhere if it didn't fit or there was none. */
  take(packer, chunk) {
    if (packer.buf !== chunk?.buf || chunk !== this.outbox.lent) {
      this.release(chunk);
      return this.emit(packer.frame());
    }
    this.outbox.giveBack(this.fits(packer) ? packer.length : 0);
    return this.schedule();
  }

  /** Takes back a chunk in which nothing came to be. */
  release(chunk) {
    if (chunk !== undefined && chunk === this.outbox.lent) this.outbox.giveBack(0);
  }

  /** Resolves when all that was emitted is durable, or false when that isn't known in time. */
  flush(timeoutMs) {
    return new Promise((resolve) => {
      const token = ++this.token;
      const timer = setTimeout(() => this.answer(token, false), timeoutMs);
      this.asked.set(token, {
        at: this.outbox.add(wire.flush(token)),
        resolve: (sure) => {
          clearTimeout(timer);
          resolve(sure);
        },
      });
      this.pump(Infinity);
    });
  }

  /** Says hello again after a change of what it says or of where to say it. */
  greet(path) {
    const moved = path !== undefined && path !== this.path;
    if (moved && this.socket !== undefined) this.close();
    this.path = path ?? this.path;
    if (this.socket !== undefined) this.outbox.add(this.hello());
    clearTimeout(this.timer);
    this.timer = undefined;
    this.retryAt = 0;
    if (this.outbox.bytes > 0) this.pump(TURN_BUDGET);
  }

  /** Says bye to this collector. */
  close() {
    this.leaving = true;
    this.passOn(true);
    this.leaving = false;
    this.disconnect();
  }

  /** As the process exits: the kernel will close the connection. What other listeners still
   * report, after ours, is written at once. */
  leave(goodbye) {
    this.leaving = true;
    this.outbox.giveBack(0); // what was being packed as the process exits
    this.passOn(goodbye);
  }

  /** Passes on what is queued, as far as that goes in time. */
  passOn(goodbye) {
    const deadline = clock.ms() + EXIT_MS;
    if (this.socket === undefined && this.outbox.bytes === 0) return;
    if (this.outbox.lent !== undefined) return; // a getter asks, in the middle of a message
    this.retryAt = 0;
    this.pump(Infinity);
    while (this.outbox.bytes > 0 && this.socket !== undefined && clock.ms() < deadline) {
      pause(2);
      this.pump(Infinity);
    }
    if (goodbye && this.socket !== undefined && this.outbox.bytes === 0) {
      this.outbox.add(wire.bye());
      this.write(Infinity);
    }
  }

  schedule() {
    if (this.leaving) this.pump(Infinity);
    if (this.scheduled) return;
    this.scheduled = true;
    setImmediate(this.turn);
  }

  /** Puts the report where the gap is. */
  reportDropped() {
    const reason = this.socket === undefined ? 'away' : 'full';
    this.outbox.add(wire.dropped(this.dropped, reason));
    this.dropped = 0;
  }

  /** Writes what can be written now; what can't is tried again later. */
  pump(budget) {
    for (let i = 0; i < 2; i++) {
      // A connection that turns out to be lost is renewed at once, if there is something to say.
      if (this.socket === undefined && (this.outbox.bytes === 0 || !this.connect())) break;
      if (!this.settled && !this.leaving) return;
      if (this.write(budget)) break;
    }
    if (this.full && this.outbox.bytes <= this.limit / 2) this.full = false;
    if (this.dropped > 0 && this.outbox.bytes === 0) this.reportDropped();
    if (this.outbox.bytes > 0) this.tryLater();
  }

  tryLater() {
    if (this.timer !== undefined) return;
    const ms = this.socket === undefined ? Math.max(1, this.retryAt - clock.ms()) : this.retryMs;
    this.timer = this.outside.runInAsyncScope(setTimeout, null, this.again, ms);
    this.timer.unref();
  }

  /** Writes what waits. False: the connection is lost. */
  write(budget) {
    const { outbox } = this;
    if (outbox.lent !== undefined) return true;
    const before = outbox.written;
    try {
      for (let i = 0; i < budget && outbox.bytes > 0; i++) {
        if (!outbox.writeTo(descriptor(this.socket))) break;
      }
    } catch (error) {
      if (!AGAIN.has(error?.code)) {
        this.lose();
        return false;
      }
    }
    const stuck = outbox.written === before;
    this.retryMs = stuck ? Math.min(2 * this.retryMs, RETRY_MAX_MS) : RETRY_MIN_MS;
    return true;
  }

  connect() {
    const now = clock.ms();
    if (now < this.retryAt) return false;
    if (this.paths().some((path) => this.open(path))) {
      this.since = now;
      return true;
    }
    this.backOff(now);
    return false;
  }

  paths() {
    const path = this.path ?? process.env.SIDELIGHT_SOCKET;
    if (path) return [path];
    const paths = ['/run/sidelight/sidelight.sock'];
    const runtime = process.env.XDG_RUNTIME_DIR;
    if (runtime) paths.push(`${runtime}/sidelight/sidelight.sock`);
    const uid = process.getuid?.();
    if (isPrivate(`/tmp/sidelight-${uid}`, uid)) paths.push(`/tmp/sidelight-${uid}/sidelight.sock`);
    return paths;
  }

  /** Connects, which a Unix socket does at once; that the hello can be written proves it. */
  open(path) {
    return this.outside.runInAsyncScope(() => {
      let socket;
      try {
        socket = net.connect({ path });
        socket.unref();
        socket.on('error', () => {});
        const hello = this.hello();
        if (fs.writeSync(descriptor(socket), hello) !== hello.length) throw new Error('no room');
      } catch {
        socket?.destroy();
        return false;
      }
      // libuv learns of the connection from a socket that has room, and keeps the process until
      // then: what we write must not fill it before.
      const on = (event, work) => socket.on(event, guarded((data) => socket === this.socket && work(data)));
      on('connect', () => {
        this.settled = true;
        this.pump(TURN_BUDGET);
      });
      on('close', () => this.lose());
      on('data', (data) => this.receive(data));
      this.settled = false;
      this.socket = socket;
      this.connectedTo = path;
      this.heard = Buffer.alloc(0);
      return true;
    });
  }

  /** A frame that is not complete is sent again as a whole, to the next connection. */
  disconnect() {
    const { socket } = this;
    this.socket = undefined;
    this.outbox.rewind();
    socket?.destroy();
  }

  lose() {
    this.disconnect();
    const { outbox } = this;
    this.unsure ||= outbox.written > this.durable;
    for (const [token, flush] of this.asked) {
      if (flush.at <= outbox.written) flush.at = outbox.add(wire.flush(token)); // its answer is lost as well
    }
    const now = clock.ms();
    if (now - this.since > BACKOFF_MAX_MS) this.backoffMs = this.retryAt = 0;
    else this.backOff(now); // a collector that hangs up on us is left alone for a while
    this.durable = outbox.written;
    if (outbox.bytes > 0) this.tryLater();
  }

  backOff(now) {
    this.backoffMs = Math.min(Math.max(2 * this.backoffMs, BACKOFF_MIN_MS), BACKOFF_MAX_MS);
    this.retryAt = now + this.backoffMs;
  }

  /** Reads what the collector says: that it flushed, or that it complains. */
  receive(data) {
    let rest = this.heard.length > 0 ? Buffer.concat([this.heard, data]) : data;
    while (rest.length >= 4) {
      const end = 4 + rest.readUInt32BE(0);
      if (rest.length < end) break;
      this.understand(rest.subarray(4, end));
      rest = rest.subarray(end);
    }
    if (rest.length > MAX_HEARD) this.lose();
    else this.heard = Buffer.from(rest);
  }

  understand(body) {
    if (body[1] === 8) this.errors++;
    const flushed = wire.flushed(body);
    if (flushed < 0) return;
    const sure = !this.unsure;
    this.unsure = false;
    for (const token of [...this.asked.keys()]) {
      if (token > flushed) continue;
      this.durable = Math.max(this.durable, this.asked.get(token).at);
      this.answer(token, sure);
    }
  }

  answer(token, sure) {
    const flush = this.asked.get(token);
    this.asked.delete(token);
    flush?.resolve(sure);
  }
}

/** Of a socket that is open; throws if it isn't. */
function descriptor(socket) {
  const fd = socket._handle?.fd;
  if (!(fd >= 0)) throw new Error('not connected');
  return fd;
}

/** A directory in /tmp may be anybody's; prompts go only into our own. */
function isPrivate(directory, uid) {
  try {
    const st = fs.lstatSync(directory);
    return st.isDirectory() && st.uid === uid && (st.mode & 0o022) === 0;
  } catch {
    return false;
  }
}

function pause(ms) {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

module.exports = { Transport };
