'use strict';

// Functions whose every call is a run: plain ones, async ones, and generators of both kinds.

const { guarded } = require('./core.js');
const { News } = require('./news.js');
const { Beginning, MAX_TEXT, hasFields } = require('./pack.js');
const { LEFT, Run, current, finish, keepOutput, within } = require('./runs.js');

const MAX_ITEMS = 1000; // of what a generator yields
const GENERATORS = new Set(['[object GeneratorFunction]', '[object AsyncGeneratorFunction]']);

/** What came out of a stream, up to a limit: one text if all of it was text, else a list. */
class Gathered {
  constructor() {
    this.count = 0;
    this.bytes = 0;
    this.text = '';
    this.items = [];
  }

  add(item) {
    this.count++;
    if (typeof item === 'string') this.addText(item);
    if (this.items.length < MAX_ITEMS) this.items.push(item);
    return this.count;
  }

  addText(piece) {
    this.bytes += Buffer.byteLength(piece);
    if (this.text.length < MAX_TEXT) this.text += piece;
  }

  get output() {
    if (this.count === 0) return undefined;
    if (this.items.some((item) => typeof item !== 'string')) return this.items;
    return this.bytes > MAX_TEXT ? new Beginning(this.text, this.bytes) : this.text;
  }
}

function wrapper(kind) {
  return function wrap(fn, options = {}) {
    if (typeof fn !== 'function') return fn;
    const { name = nameOf(fn) || kind, ...more } = copy(options) ?? {};
    const begin = (args) => new Run(name, { kind, input: inputOf(args), ...more });
    const lazy = isGenerator(fn);
    function wrapped(...args) {
      if (new.target) return Reflect.construct(fn, args, new.target === wrapped ? fn : new.target);
      if (lazy) {
        const news = kind === 'llm' ? new News() : undefined;
        return iterate(Reflect.apply(fn, this, args), () => begin(args), news);
      }
      const run = begin(args);
      return finish(run, within(run, () => Reflect.apply(fn, this, args)), true);
    }
    return alike(wrapped, fn);
  };
}

const copy = guarded((options) => (hasFields(options) ? { ...options } : {}));

function inputOf(args) {
  return args.length > 1 ? args : args[0];
}

const isGenerator = guarded((fn) => GENERATORS.has(Object.prototype.toString.call(fn)), false);
const nameOf = guarded((fn) => fn.name);

// What is a function's own in a way that can't be handed on.
const PRIVATE = new Set(['arguments', 'caller', 'prototype']);

/** The function with the name, the length and whatever else was put on the other one. */
function alike(wrapped, fn) {
  guarded(() => {
    for (const key of Reflect.ownKeys(fn)) {
      if (!PRIVATE.has(key)) Object.defineProperty(wrapped, key, Object.getOwnPropertyDescriptor(fn, key));
    }
  })();
  return wrapped;
}

/** A generator whose body runs inside a run, which begins as it does: with the first step. */
function iterate(inner, begin, news) {
  const gathered = new Gathered();
  let run;
  const close = (error, output) => {
    keepOutput(run, output ?? gathered.output);
    if (gathered.count > 0) run.set({ 'sidelight.chunks': gathered.count });
    run.end(error === undefined ? undefined : { error });
  };
  const seen = (step, leaving) => {
    if (step.done) close(leaving ? LEFT : undefined, step.value);
    else {
      if (gathered.add(step.value) === 1) {
        run.event('first_token');
        news?.begin();
      }
      news?.add(step.value);
      news?.look(run.id);
    }
    return step;
  };
  const failed = (error) => {
    close(error);
    throw error;
  };
  const step = (method, argument) => {
    if (run === undefined && method !== 'next') return inner[method](argument);
    run ??= begin();
    let result;
    try {
      result = current.run(run, () => inner[method](argument));
    } catch (error) {
      return failed(error);
    }
    const look = (got) => seen(got, method === 'return');
    return typeof result?.then === 'function' ? result.then(look, failed) : look(result);
  };
  return stepper(inner, step);
}

/** An object with the methods of a generator, of the same kind as `inner`. */
function stepper(inner, step) {
  const proto = Object.getPrototypeOf(inner);
  return Object.create(proto, {
    next: { value: (argument) => step('next', argument) },
    return: { value: (argument) => step('return', argument) },
    throw: { value: (argument) => step('throw', argument) },
  });
}

module.exports = { Gathered, wrapper };
