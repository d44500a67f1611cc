'use strict';

// The two times of an event: [seconds, nanoseconds] each, for no double holds 2^61.

const { performance } = require('node:perf_hooks');

const SECOND = 1_000_000_000;
const MILLISECOND = 1_000_000;
const hrtime = process.hrtime; // a test's fake clock is no clock for us
const wallClock = Date.now;

// What lies between CLOCK_MONOTONIC and the time since 1970: known to the microsecond from the
// process's start, and anew when the wall clock was set.
let offset = from(performance.timeOrigin + performance.now(), hrtime());
let asked = [0, 0]; // when the wall clock was, which takes as long as all the rest

function from(unixMs, mono) {
  const seconds = Math.floor(unixMs / 1000);
  const ns = Math.round((unixMs - seconds * 1000) * 1e6);
  return normal(seconds - mono[0], ns - mono[1]);
}

function normal(seconds, ns) {
  if (ns < 0) return [seconds - 1, ns + SECOND];
  return ns >= SECOND ? [seconds + 1, ns - SECOND] : [seconds, ns];
}

function now() {
  const mono = hrtime();
  const unix = normal(mono[0] + offset[0], mono[1] + offset[1]);
  if (mono[0] === asked[0] && mono[1] - asked[1] < MILLISECOND) return { unix, mono };
  asked = mono;
  const wallMs = wallClock();
  const away = wallMs - (unix[0] * 1000 + unix[1] / 1e6);
  if (away > 1 || away < -2) {
    offset = from(wallMs + 0.5, mono);
    return { unix: normal(mono[0] + offset[0], mono[1] + offset[1]), mono };
  }
  return { unix, mono };
}

/** Milliseconds that only ever go forward, whatever becomes of the wall clock. */
function ms() {
  const [seconds, ns] = hrtime();
  return seconds * 1000 + ns / 1e6;
}

module.exports = { ms, now };
