'use strict';

// Runs as an agent's own code reports them, and which one is around a piece of code.

const { AsyncLocalStorage } = require('node:async_hooks');
const { newRunId, spanIdOf, traceIdIn, traceIdOf } = require('./ids.js');
const { endRun, errorOf, guarded, runEvent, startRun } = require('./core.js');
const { hasFields } = require('./pack.js');
const { isThenable, watch } = require('./waiting.js');
const { runId } = require('./wire.js');

const FIELDS = new Set(['kind', 'model', 'provider', 'session', 'user', 'input', 'tags', 'parent', 'traceparent']);
const RESULTS = new Set(['output', 'usage', 'model', 'finish', 'error']);
// How a stream that its reader left ends, in the protocol's words.
const LEFT = { type: 'GeneratorExit', message: 'the stream was left before its end' };

// What LangChain keeps in the context of the code that it runs, whichever copy of it runs it.
const LANGCHAIN_CONTEXT = Symbol.for('ls:tracing_async_local_storage');
const LANGCHAIN_CONFIG = Symbol.for('lc:child_config');

const current = new AsyncLocalStorage();
// The LangChain runs that are reported here, by id: {parent, trace}. See langchain.js.
const known = new Map();
// The process that started this one may have told of its own run.
const inherited = traceIdIn(process.env.TRACEPARENT) ? process.env.TRACEPARENT : undefined;

/** The LangChain run that this code is in, if it is one that we report. */
function langchainRun() {
  if (known.size === 0) return undefined;
  try {
    const id = globalThis[LANGCHAIN_CONTEXT]?.getStore()?.extra?.[LANGCHAIN_CONFIG]?.callbacks?._parentRunId;
    return id === undefined ? undefined : reported(id);
  } catch {
    return undefined;
  }
}

/** The run's id, or, if it is not shown itself, of what is shown above it. */
function reported(id) {
  const run = known.get(id);
  if (run === undefined) return undefined;
  return run.shownAs === undefined ? { id, trace: run.trace ?? traceIdOf(id) } : run.shownAs;
}

/** The innermost of the current span and the LangChain run that is around here.
 *
 * A span knows the LangChain run it began in. If that is still the one around us, the span is the
 * inner one; if not, LangChain has gone deeper since. */
function parentWithin(langchain) {
  const run = current.getStore();
  return run !== undefined && run.outer === langchain?.id ? run : langchain;
}

/** Where a new run stands: its parent, or else what it has to say of who asked for it. Without a
 * trace it begins one of its own. */
function place(parent, traceparent) {
  if (parent !== undefined) return { parent: parent.id, traceparent: undefined, trace: parent.trace };
  const from = traceparent ?? inherited;
  return { parent: undefined, traceparent: from, trace: from === undefined ? undefined : traceIdIn(from) };
}

/** A run. `output`, `usage`, `model`, `finish` and `error` may be set until it ends. */
class Run {
  constructor(name, options) {
    this.id = newRunId();
    this.ended = false;
    this.results = { output: undefined, usage: undefined, model: undefined, finish: undefined, error: undefined, attrs: {} };
    const langchain = langchainRun();
    this.outer = langchain?.id;
    const fields = split(options);
    const around = parentOf(fields.parent) ?? parentWithin(langchain);
    const { parent, traceparent, trace } = place(around, fields.traceparent);
    this.given = trace;
    fields.name = name;
    fields.parent = parent;
    fields.traceparent = traceparent;
    startRun(this.id, fields);
  }

  get trace() {
    return (this.given ??= traceIdOf(this.id));
  }

  get traceId() {
    return this.trace;
  }

  /** Sets output, usage, model, finish or error; every other name is an attribute. */
  set(fields) {
    try {
      const { results } = this;
      for (const name of hasFields(fields) ? Object.keys(fields) : []) {
        (RESULTS.has(name) ? results : results.attrs)[name] = fields[name];
      }
    } catch {
      // an object that can't be read
    }
    return this;
  }

  /** Adds something that happened just now. */
  event(name, attrs = {}) {
    runEvent(this.id, name, attrs);
  }

  end(fields) {
    if (this.ended) return;
    this.ended = true;
    if (fields !== undefined) this.set(fields);
    const { results } = this;
    if (results.error !== undefined && results.error !== null) results.error = errorOf(results.error);
    endRun(this.id, results);
  }

  traceparent() {
    return `00-${this.trace}-${spanIdOf(this.id)}-01`;
  }
}

/** What a caller names as the parent: a run, or the id of one. */
const parentOf = guarded((given) => {
  if (given === undefined) return undefined;
  if (given instanceof Run) return given;
  const id = runId(given);
  return id === undefined ? undefined : { id, trace: traceIdOf(id) };
});

/** The options as fields of a start: those that the protocol doesn't know are attributes. */
function split(options) {
  const fields = {
    kind: 'other',
    name: undefined,
    parent: undefined,
    traceparent: undefined,
    session: undefined,
    user: undefined,
    model: undefined,
    provider: undefined,
    input: undefined,
    tags: undefined,
    attrs: {},
  };
  try {
    for (const name of hasFields(options) ? Object.keys(options) : []) {
      const value = options[name];
      if (FIELDS.has(name)) fields[name] = value;
      else if (name === 'attrs' && hasFields(value)) Object.assign(fields.attrs, value);
      else fields.attrs[name] = value;
    }
  } catch {
    // an object that can't be read
  }
  return fields;
}

/** Reports `name` for as long as `work(run)` takes, its promise included; without `work`, returns
 * the run, to be ended with end(). */
function span(name, options, work) {
  if (typeof options === 'function') return span(name, undefined, options);
  const run = new Run(name, options);
  return typeof work === 'function' ? finish(run, within(run, work, run), false) : run;
}

/** Calls the function inside of the run; if it throws, the run ends. */
function within(run, work, ...args) {
  try {
    return current.run(run, work, ...args);
  } catch (error) {
    run.end({ error });
    throw error;
  }
}

/** Ends the run with what came back: at once, or when a promise settles. Returns it. */
function finish(run, result, keep) {
  const done = (value) => {
    if (keep) keepOutput(run, value);
    run.end();
  };
  if (isThenable(result)) return watch(result, { done, failed: (error) => run.end({ error }) });
  done(result);
  return result;
}

function keepOutput(run, value) {
  if (run.results.output === undefined) run.results.output = value;
}

/** Adds something that happened just now to the current run; nothing without one. */
function event(name, attrs = {}) {
  const run = parentWithin(langchainRun());
  if (run !== undefined) runEvent(run.id, name, attrs);
}

/** W3C trace context of the current run, to be given on; of the process without one. */
const traceparent = guarded(() => {
  const run = parentWithin(langchainRun());
  return run === undefined ? inherited : `00-${run.trace}-${spanIdOf(run.id)}-01`;
});

module.exports = { LEFT, Run, current, event, finish, keepOutput, known, langchainRun, parentWithin, place, reported, span, traceparent, within };
