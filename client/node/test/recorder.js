'use strict';

// A collector for tests: it keeps the messages of each connection, and answers flushes.

const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { decode, encode } = require('@msgpack/msgpack');

const made = [];

/** A directory that goes with this process. */
function temporary() {
  made.push(fs.mkdtempSync(path.join(os.tmpdir(), 'sidelight-node-')));
  return made.at(-1);
}

process.on('exit', () => made.forEach((directory) => fs.rmSync(directory, { recursive: true, force: true })));

function unpack(frame) {
  return decode(frame.subarray(4), { useBigInt64: true });
}

class Recorder {
  constructor(socket = path.join(temporary(), 's.sock')) {
    this.path = socket;
    this.connections = []; // of each: its messages
    this.raw = [];
    this.leftOver = []; // bytes of a frame that was not complete at the end
    this.waiting = [];
    this.sockets = new Set();
    this.server = net.createServer((socket) => this.accept(socket));
  }

  static async start(socket) {
    const recorder = new Recorder(socket);
    await new Promise((resolve, reject) => {
      recorder.server.on('error', reject).listen(recorder.path, resolve);
    });
    return recorder;
  }

  get messages() {
    return this.connections.flat();
  }

  accept(socket) {
    const messages = [];
    let rest = Buffer.alloc(0);
    this.connections.push(messages);
    this.sockets.add(socket);
    socket.on('data', (data) => {
      rest = Buffer.concat([rest, data]);
      while (rest.length >= 4 && rest.length >= 4 + rest.readUInt32BE(0)) {
        const end = 4 + rest.readUInt32BE(0);
        this.understand(socket, messages, rest.subarray(0, end));
        rest = rest.subarray(end);
      }
      this.changed();
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      this.leftOver.push(rest);
      this.sockets.delete(socket);
      messages.push('EOF');
      this.changed();
    });
  }

  understand(socket, messages, frame) {
    this.raw.push(frame);
    const message = unpack(frame);
    messages.push(message);
    if (message[0] === 4) {
      const body = encode([5, message[1]]);
      const head = Buffer.alloc(4);
      head.writeUInt32BE(body.length);
      socket.write(Buffer.concat([head, body]));
    }
  }

  changed() {
    for (const look of [...this.waiting]) look();
  }

  /** Waits until enough(messages) holds, and returns them. */
  wait(enough, timeoutMs = 10_000) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        done();
        reject(new Error(`not in time: ${JSON.stringify(this.messages, (_, v) => (typeof v === 'bigint' ? Number(v) : v))}`));
      }, timeoutMs);
      const look = () => {
        if (!enough(this.messages)) return;
        done();
        resolve(this.messages);
      };
      const done = () => {
        clearTimeout(timer);
        this.waiting.splice(this.waiting.indexOf(look), 1);
      };
      this.waiting.push(look);
      look();
    });
  }

  /** Waits for that many starts, ends and events, and returns them. */
  async runs(count) {
    return onlyRuns(await this.wait((all) => onlyRuns(all).length >= count));
  }

  async close() {
    for (const socket of this.sockets) socket.destroy();
    await new Promise((resolve) => this.server.close(resolve));
    fs.rmSync(this.path, { force: true });
  }
}

function onlyRuns(messages) {
  return messages.filter((message) => [1, 2, 3].includes(message[0]));
}

module.exports = { Recorder, onlyRuns, temporary, unpack };
