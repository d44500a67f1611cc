'use strict';

// Reports the calls of the OpenAI client: chat completions, responses and embeddings.
//
// What create() returns is no plain promise: it parses the body only when somebody wants it
// parsed, and it can hand out the raw response instead. So we don't wait for it, but put ourselves
// where it parses, and return the very object.

const { clock, endRun, errorOf, guarded, runEvent, startRun } = require('./core.js');
const { newRunId } = require('./ids.js');
const langchain = require('./langchain.js');
const { providerOf } = require('./providers.js');
const replies = require('./replies.js');
const { LEFT, langchainRun, parentWithin, place } = require('./runs.js');

const ORIGINAL = Symbol.for('sidelight.original');

/** One request: a run that starts when it is made, and ends once. */
class Call {
  constructor(api, client, body, when) {
    this.id = newRunId();
    this.api = api;
    this.ended = false;
    this.parsing = false;
    const where = place(parentWithin(langchainRun()));
    startRun(this.id, { ...where, provider: providerOf(client?.baseURL), ...api.request(body ?? {}) }, when);
  }

  firstToken() {
    runEvent(this.id, 'first_token', {});
  }

  end(fields) {
    if (this.ended) return;
    this.ended = true;
    endRun(this.id, fields);
  }

  fail(error, reply) {
    const attrs = { ...reply?.attrs };
    if (Number.isInteger(error?.status)) attrs['http.response.status_code'] = error.status;
    this.end({ ...reply, error: errorOf(error), attrs });
  }
}

for (const method of ['firstToken', 'end', 'fail']) Call.prototype[method] = guarded(Call.prototype[method]);

const beginCall = guarded((...args) => new Call(...args));

// Of each client that called while LangChain is in use: whether it is LangChain's.
const owners = new WeakMap();

/** Calls that LangChain makes by clients of its own are runs of LangChain's already. */
function isLangChains(client) {
  if (!langchain.isInUse()) return false;
  let isTheirs = owners.get(client);
  if (isTheirs === undefined) owners.set(client, (isTheirs = saysLangChain(client) || isCalledByLangChain(client)));
  return isTheirs;
}

function saysLangChain({ _options: options }) {
  const headers = options?.defaultHeaders;
  const agent = headers?.['User-Agent'] ?? headers?.get?.('user-agent');
  return typeof agent === 'string' && agent.startsWith('langchainjs');
}

/** Its older versions send no name. What they do is allow the browser, and call. */
function isCalledByLangChain({ _options: options }) {
  return options?.dangerouslyAllowBrowser === true && String(new Error().stack).includes('/@langchain/openai/');
}

const skips = guarded(isLangChains, false);

function wrapCreate(create, api) {
  const original = create[ORIGINAL] ?? create;
  function wrapped(...args) {
    if (skips(this?._client)) return original.apply(this, args);
    const when = clock.now();
    const promise = original.apply(this, args);
    if (typeof promise?.parseResponse === 'function') {
      const call = beginCall(api, this?._client, args[0], when);
      if (call !== undefined) follow(promise, call);
    }
    return promise;
  }
  Object.defineProperty(wrapped, 'name', { value: original.name });
  Object.defineProperty(wrapped, ORIGINAL, { value: original });
  return wrapped;
}

/** Puts itself where the promise fails, hands out the raw response, and parses. */
function follow(promise, call) {
  const { parseResponse, asResponse } = promise;
  // In its place and not beside it: a failure that nobody handles must stay one.
  promise.responsePromise = promise.responsePromise.then(same, (error) => {
    call.fail(error);
    throw error;
  });
  promise.parseResponse = async function parse(...args) {
    call.parsing = true;
    let value;
    try {
      value = await parseResponse.apply(this, args);
    } catch (error) {
      call.fail(error);
      throw error;
    }
    observe(value, call);
    return value;
  };
  promise.asResponse = async function raw(...args) {
    const response = await asResponse.apply(this, args);
    // Only its reader will know what is in it.
    if (!call.parsing) call.end({ attrs: { 'http.response.status_code': response?.status } });
    return response;
  };
}

function same(value) {
  return value;
}

const observe = guarded((value, call) => {
  if (typeof value?.iterator === 'function' && typeof value[Symbol.asyncIterator] === 'function') {
    const { iterator } = value;
    value.iterator = function iterate(...args) {
      const isAborted = () => value.controller?.signal?.aborted;
      return watched(iterator.apply(this, args), call, new call.api.Stream(), isAborted);
    };
  } else {
    call.end(call.api.reply(value));
  }
});

/** The iterator, seen through; `reply` gathers what comes. */
function watched(inner, call, reply, isAborted) {
  const saw = guarded((step, leaving) => {
    if (!step.done) {
      if (reply.add(step.value) === 1) {
        call.firstToken();
        reply.news.begin();
      } else reply.news.look(call.id, reply.pieces);
    } else if (reply.isWhole || !(leaving || isAborted())) call.end(reply.fields());
    else call.fail(LEFT, reply.fields(true)); // an iterator that is aborted only stops
  });
  const step = async (method, argument) => {
    let result;
    try {
      result = await inner[method](argument);
    } catch (error) {
      guarded(() => call.fail(error, reply.fields(true)))();
      throw error;
    }
    saw(result, method === 'return');
    return result;
  };
  return Object.create(Object.getPrototypeOf(inner), {
    next: { value: (argument) => step('next', argument) },
    return: { value: (argument) => step('return', argument) },
    throw: { value: (argument) => step('throw', argument) },
  });
}

/** The resources of a client, or the classes of them, each with what its create() means. */
function resources({ chat, responses, embeddings }) {
  const found = [
    [chat?.completions, replies.chat],
    [responses, replies.responses],
    [embeddings, replies.embeddings],
  ];
  return found.filter(([resource]) => typeof resource?.create === 'function');
}

function wrapAll(owner) {
  const found = resources(owner);
  for (const [resource, api] of found) {
    if (!Object.hasOwn(resource.create, ORIGINAL)) resource.create = wrapCreate(resource.create, api);
  }
  return found.length > 0;
}

/** Reports the calls of all clients of a class. */
function patch(OpenAI) {
  const { Chat, Responses, Embeddings } = OpenAI ?? {};
  return wrapAll({
    chat: { completions: Chat?.Completions?.prototype },
    responses: Responses?.prototype,
    embeddings: Embeddings?.prototype,
  });
}

/** Reports the calls of one client. Returns it. */
function wrapOpenAI(client) {
  guarded(wrapAll)(client);
  return client;
}

module.exports = { patch, wrapOpenAI };
