'use strict';

// What every part of the client reports through. No function here throws, blocks or prints:
// telemetry that fails is lost, and nothing else.

const { constants } = require('node:os');
const clock = require('./clock.js');
const { guarded } = require('./guarded.js');
const { hasFields, text } = require('./pack.js');
const { Transport } = require('./transport.js');
const wire = require('./wire.js');
const { version } = require('../package.json');

const MAX_MESSAGE = 16 * 1024; // characters of an error's message
const MAX_STACK = 16 * 1024;
const MAX_TIMEOUT_MS = 2 ** 31 - 1; // a timer's

const identity = { service: undefined, resource: {} };
const transport = new Transport(hello);
let crashed = false;

process.on('exit', guarded(() => transport.leave(!crashed)));
// Only watches: what happens then is as without it.
process.on('uncaughtExceptionMonitor', () => {
  crashed = true;
});

/** OTEL_RESOURCE_ATTRIBUTES, which OpenTelemetry writes as k=v,k=v with percent signs. */
function environmentResource() {
  const out = {};
  for (const pair of (process.env.OTEL_RESOURCE_ATTRIBUTES ?? '').split(',')) {
    const at = pair.indexOf('=');
    if (at > 0) out[pair.slice(0, at).trim()] = unescape(pair.slice(at + 1).trim());
  }
  return out;
}

function unescape(value) {
  try {
    return decodeURIComponent(value);
  } catch {
    return value;
  }
}

function hello() {
  const { 'service.name': named, ...resource } = { ...environmentResource(), ...identity.resource };
  return wire.hello({
    service: identity.service ?? (process.env.OTEL_SERVICE_NAME || named),
    resource,
    sdk: `node/${version}`,
    pid: process.pid,
  });
}

/** Says who this process is, where the collector is, and how many bytes may wait for it. */
const configure = guarded(({ service, resource, socket, buffer } = {}) => {
  if (service !== undefined) identity.service = text(service);
  if (hasFields(resource)) identity.resource = { ...resource };
  if (buffer >= 0) transport.limit = Number(buffer);
  transport.greet(socket === undefined ? undefined : text(socket));
});

/** Resolves to true once all that was reported is on the collector's disk. Never rejects. */
const flush = guarded((timeoutMs = 1000) => {
  const ms = Math.min(Math.max(Number(timeoutMs) || 0, 0), MAX_TIMEOUT_MS);
  return transport.flush(ms);
}, Promise.resolve(false));

/** Reports; if a field's value makes that impossible, what can't fail. */
function report(build, id, when, fields) {
  if (!transport.wants()) return;
  try {
    build(id, when, fields, transport);
  } catch {
    const plain = Object.entries(fields).filter(([, value]) => typeof value === 'string');
    build(id, when, Object.fromEntries(plain), transport);
  }
}

/** Reports a start. The fields are those of the protocol: kind, name, parent, input, … */
const startRun = guarded((id, fields, when = clock.now()) => {
  report(wire.start, id, when, fields);
});

/** Reports an end: output, usage, model, finish, error, attrs. */
const endRun = guarded((id, fields, when = clock.now()) => {
  report(wire.end, id, when, fields);
});

/** Reports that something happened during a run. */
const runEvent = guarded((id, name, attrs) => {
  const when = clock.now();
  if (transport.wants()) wire.event(id, when, name, attrs, transport);
});

/** For a parent: says how a child process ends, so that the runs it had open say it too. */
const watch = guarded((child) => {
  const { pid } = child;
  if (!Number.isInteger(pid) || pid <= 0) return;
  if (transport.wants()) transport.emit(wire.child(pid));
  child.once('exit', guarded((exit, name) => {
    const ending = name === null ? { exit } : { signal: constants.signals[name] };
    if (transport.wants()) transport.emit(wire.child(pid, ending));
  }));
});

// What a runtime or a library throws when somebody has cancelled the work.
const ABORTS = new Set(['AbortError', 'APIUserAbortError', 'ModelAbortError', 'CancelledError']);

function isAbort(error) {
  return (
    ABORTS.has(error.name) ||
    ABORTS.has(error.constructor?.name) ||
    error.code === 'ABORT_ERR' ||
    error.message === 'Aborted' ||
    error.message === 'Abort' // LangGraph's
  );
}

/** What was thrown, as the protocol words it; anything can be. */
function errorOf(error) {
  if (typeof error !== 'object' || error === null) return { type: 'Error', message: text(error).slice(0, MAX_MESSAGE) };
  try {
    const { message, stack } = error;
    const own = error.name !== 'Error' && error.name ? error.name : error.constructor?.name;
    return {
      type: isAbort(error) ? 'CancelledError' : text(error.type && !error.name ? error.type : (own ?? 'Error')),
      message: text(message ?? '').slice(0, MAX_MESSAGE),
      ...(typeof stack === 'string' && { stack: stack.slice(0, MAX_STACK) }),
    };
  } catch {
    return { type: 'Error', message: '' };
  }
}

module.exports = { clock, configure, endRun, errorOf, flush, guarded, runEvent, startRun, transport, watch };
