'use strict';

// The ids of docs/protocol.md, and W3C trace context.

const { randomFillSync } = require('node:crypto');

const MASK = (1n << 64n) - 1n;
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
const TRACEPARENT = /^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-|$)/;

let pool = new Uint8Array(0);
let used = 0;

/** A part of a pool that is never written again. */
function newRunId() {
  if (used === pool.length) {
    pool = randomFillSync(new Uint8Array(4096));
    used = 0;
  }
  used += 16;
  return pool.subarray(used - 16, used);
}

function hash64(seed, bytes) {
  let h = 14695981039346656037n ^ seed;
  for (const byte of bytes) h = ((h ^ BigInt(byte)) * 1099511628211n) & MASK;
  h ^= h >> 33n;
  h = (h * 0xff51afd7ed558ccdn) & MASK;
  h ^= h >> 33n;
  h = (h * 0xc4ceb9fe1a85ec53n) & MASK;
  h ^= h >> 33n;
  return h === 0n ? 1n : h;
}

function hex64(h) {
  return h.toString(16).padStart(16, '0');
}

/** A run id's 16 bytes, as the collector takes them. */
function bytesOf(runId) {
  if (typeof runId !== 'string') return Buffer.from(runId);
  if (UUID.test(runId)) return Buffer.from(runId.replaceAll('-', ''), 'hex');
  const text = Buffer.from(runId);
  return Buffer.from(hex64(hash64(1n, text)) + hex64(hash64(2n, text)), 'hex');
}

/** In hex: the trace that begins with this run. */
function traceIdOf(rootId) {
  return bytesOf(rootId).toString('hex');
}

/** In hex. */
function spanIdOf(runId) {
  return hex64(hash64(0n, bytesOf(runId)));
}

/** The trace id of a traceparent; undefined if it is none. */
function traceIdIn(traceparent) {
  return typeof traceparent === 'string' ? TRACEPARENT.exec(traceparent)?.[1] : undefined;
}

module.exports = { newRunId, spanIdOf, traceIdIn, traceIdOf };
