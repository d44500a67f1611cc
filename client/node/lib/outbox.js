'use strict';

// Whole frames, one after the other, that wait to be written: in chunks, so that a frame costs no
// allocation and many of them one call to the kernel.

const fs = require('node:fs');

const CHUNK = 64 * 1024;
const ROOM = 16 * 1024; // that a frame finds at the end of a chunk
const SPARE = 4; // chunks that are kept for use again

class Outbox {
  constructor() {
    this.chunks = []; // {buf, end}; a frame lies in one of them
    this.spare = [];
    this.lent = undefined; // the last chunk, while a frame is packed at its end
    this.late = []; // frames that came meanwhile
    this.bytes = 0; // that wait
    this.sent = 0; // of the first chunk
    this.written = 0; // of all frames ever
  }

  /** Takes a copy. Returns the count of bytes that will have been written once it is. */
  add(frame) {
    if (this.lent === undefined) this.append(frame);
    else this.late.push(Buffer.from(frame));
    this.bytes += frame.length;
    return this.written + this.bytes;
  }

  append(frame) {
    const last = this.lastWith(frame.length);
    last.buf.set(frame, last.end);
    last.end += frame.length;
  }

  /** The last chunk, with that much room at its end. */
  lastWith(length) {
    let last = this.chunks.at(-1);
    if (last === undefined || last.end + length > last.buf.length) {
      last = this.chunkFor(length);
      this.chunks.push(last);
    }
    return last;
  }

  /** A chunk at whose end a frame may be packed; undefined while another one is, since a getter of
   * what an agent passes may report, too. Until it is given back, nothing is written. */
  lend() {
    if (this.lent !== undefined) return undefined;
    this.lent = this.lastWith(ROOM);
    return this.lent;
  }

  /** Gives it back, that many bytes longer. */
  giveBack(length) {
    if (this.lent !== undefined) this.lent.end += length;
    this.bytes += length;
    this.lent = undefined;
    if (this.late.length > 0) for (const frame of this.late.splice(0)) this.append(frame);
  }

  chunkFor(length) {
    if (length > CHUNK) return { buf: Buffer.allocUnsafeSlow(length), end: 0 };
    return this.spare.pop() ?? { buf: Buffer.allocUnsafeSlow(CHUNK), end: 0 };
  }

  /** Writes a chunk as far as that goes. Returns whether all of it went; throws what write(2) says. */
  writeTo(fd) {
    const [chunk] = this.chunks;
    const count = fs.writeSync(fd, chunk.buf, this.sent, chunk.end - this.sent);
    this.sent += count;
    this.bytes -= count;
    this.written += count;
    if (this.sent < chunk.end) return false;
    this.chunks.shift();
    this.sent = 0;
    chunk.end = 0;
    if (this.spare.length < SPARE && chunk.buf.length === CHUNK) this.spare.push(chunk);
    return true;
  }

  /** Back to the beginning of the frame that is only partly written: the next reader needs all of it. */
  rewind() {
    let at = 0;
    if (this.sent > 0) {
      const { buf } = this.chunks[0];
      for (let end = 0; end <= this.sent; end += 4 + buf.readUInt32BE(at)) {
        at = end;
        if (end === this.sent) break;
      }
    }
    this.bytes += this.sent - at;
    this.written -= this.sent - at;
    this.sent = at;
  }
}

module.exports = { Outbox };
