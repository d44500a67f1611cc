'use strict';

// Learns how something that can be waited for ends, and leaves it what it is.
//
// Waiting for it ourselves could begin its work, or a second one: a query or the OpenAI client's
// promise does nothing before somebody waits. It would also hide a failure that nobody handles.
// So we stand where others wait.

const { types } = require('node:util');
const { guarded } = require('./guarded.js');

// Whatever a library has put in their place: `await` asks these.
const { constructor: Native } = Object.getPrototypeOf((async () => {})());
const { then: nativeThen } = Native.prototype;
const MAX_WATCHERS = 1000; // of one object that many runs return

// Of each object that we stand in: who wants to know, as {done, failed}. They are told once.
const watchers = new WeakMap();

/** Returns what the caller is to have in its place: itself, or for a promise of the runtime one that
 * settles with it, for `await` asks that one in no way that could be seen. */
function watch(thenable, watcher) {
  if (types.isPromise(thenable) && isPlain(thenable)) return successor(thenable, watcher);
  if (standIn(thenable, watcher)) return thenable;
  return successor(Native.resolve(thenable), watcher);
}

const isThenable = guarded((value) => typeof value?.then === 'function', false);
const isPlain = guarded((promise) => promise.constructor === Native, false);

function successor(promise, { done, failed }) {
  const settled = (value) => {
    done(value);
    return value;
  };
  const broken = (error) => {
    failed(error);
    throw error;
  };
  const next = nativeThen.call(promise, settled, broken);
  handOn(promise, next);
  return next;
}

/** A promise may have got methods of its own, such as cancel(); its symbols are the runtime's. */
const handOn = guarded((promise, next) => {
  for (const key of Object.getOwnPropertyNames(promise)) {
    Object.defineProperty(next, key, Object.getOwnPropertyDescriptor(promise, key));
  }
});

/** Returns whether the watcher will be told. */
const standIn = guarded((thenable, watcher) => {
  if (types.isProxy(thenable)) return false; // who knows where that would arrive
  let told = watchers.get(thenable);
  if (told === undefined) {
    told = [];
    if (isClients(thenable)) standInClients(thenable, told);
    else put(thenable, 'then', waits(thenable.then, told));
    watchers.set(thenable, told);
  }
  if (told.length < MAX_WATCHERS) told.push(watcher);
  else watcher.done();
  return true;
}, false);

function isClients(thenable) {
  return types.isPromise(thenable) && typeof thenable.parse === 'function' && typeof thenable.asResponse === 'function';
}

/** The promise of OpenAI's client, and of others from the same mould: it comes to its value by parse(),
 * in whichever way it is asked. */
function standInClients(promise, told) {
  const { parse, asResponse } = promise;
  let parsing = false;
  put(promise, 'parse', function parseWatched(...args) {
    parsing = true;
    return passOn(parse.apply(this, args), told);
  });
  put(promise, 'asResponse', function asResponseWatched(...args) {
    const response = asResponse.apply(this, args);
    // Only its reader will know what is in it.
    return parsing ? response : passOn(response, told, () => undefined);
  });
}

function put(object, name, value) {
  Object.defineProperty(object, name, { value, writable: true, configurable: true, enumerable: false });
}

function passOn(promise, told, output = (value) => value) {
  return promise.then(
    (value) => {
      tell(told, 'done', output(value));
      return value;
    },
    (error) => rejected(told, error),
  );
}

/** A then() of which we see the outcome. */
function waits(then, told) {
  return function thenWatched(onFulfilled, onRejected, ...rest) {
    const good = (value, ...more) => {
      tell(told, 'done', value);
      return typeof onFulfilled === 'function' ? onFulfilled(value, ...more) : value;
    };
    const bad = (error, ...more) => {
      if (typeof onRejected !== 'function') return rejected(told, error);
      tell(told, 'failed', error);
      return onRejected(error, ...more);
    };
    return then.call(this, good, bad, ...rest);
  };
}

function rejected(told, error) {
  tell(told, 'failed', error);
  throw error;
}

const tell = guarded((told, what, outcome) => {
  for (const watcher of told.splice(0)) watcher[what](outcome);
});

module.exports = { isThenable, watch };
