'use strict';

// Reports LangChain.js and LangGraph.js runs.
//
// The arguments of a handler are positional, ends carry nothing of their start, and a stream that
// is left gets no end at all. So the handler has no state of its own, and what is kept of a run is
// a few words in a table of bounded size.

const { clock, endRun, errorOf, guarded, runEvent, startRun } = require('./core.js');
const { News } = require('./news.js');
const { Beginning, MAX_TEXT } = require('./pack.js');
const { REQUEST } = require('./request.js');
const { answer, anyMessage, conversation, found, isAgent, lastWords, nameOf } = require('./messages.js');
const { known, parentWithin, place, reported } = require('./runs.js');

const NAME = 'sidelight';
const MAX_RUNS = 16_384;
const MAX_PARTIAL = 16 * 1024 * 1024; // characters of unfinished streams, of all runs
const HIDDEN = 'langsmith:hidden'; // LangGraph's own helpers

// What LangChain's metadata call the things that the protocol has fields for.
const SESSION = ['thread_id', 'session_id', 'conversation_id'];
const PROMPT = {
  prompt_key: 'prompt.key',
  'prompt.key': 'prompt.key',
  prompt_version: 'prompt.version',
  'prompt.version': 'prompt.version',
  policy_mode: 'policy_mode',
};
const NO_ATTRS = new Set([...SESSION, ...Object.keys(PROMPT), 'user_id', 'checkpoint_ns', 'langgraph_checkpoint_ns']);
const SCALARS = new Set(['string', 'number', 'boolean']);

// The text of streams that haven't ended, by run id, oldest first.
const partials = new Map();
let held = 0; // their characters

/** Claims a run. False: it is reported already, by a second handler. */
function remember(id, run) {
  if (known.get(id)?.ended === false) return false;
  known.delete(id);
  known.set(id, run);
  if (known.size > MAX_RUNS) forget(known.keys().next().value);
  return true;
}

function forget(id) {
  known.delete(id);
  takePartial(id);
}

function takePartial(id) {
  const partial = partials.get(id);
  if (partial === undefined) return undefined;
  partials.delete(id);
  held -= partial.text.length;
  return partial;
}

function addPartial(id, token) {
  let partial = partials.get(id);
  if (partial === undefined) {
    partials.set(id, (partial = { text: '', bytes: 0, tokens: 0, news: new News() }));
    partial.news.begin();
  }
  partial.tokens++;
  partial.news.add(token);
  partial.news.look(id, partial.tokens);
  partial.bytes += Buffer.byteLength(token);
  if (partial.text.length >= MAX_TEXT) return;
  partial.text += token;
  held += token.length;
  // Those that were left long ago make room.
  while (held > MAX_PARTIAL) loseOldest();
}

/** What comes of it later is no answer without this. */
function loseOldest() {
  const [id] = partials.keys();
  takePartial(id);
  const run = known.get(id);
  if (run !== undefined) run.isLost = true;
}

/** Reports a start; `fields` makes what it says, for it may be that nobody wants to know. */
function begin(id, parentId, tags, metadata, fields) {
  const when = clock.now();
  const above = parentId === undefined ? undefined : (reported(parentId) ?? { id: parentId, trace: '' });
  const around = parentWithin(above);
  if (parentId !== undefined && tags?.includes(HIDDEN)) {
    remember(id, { ended: false, chunks: 0, isLost: false, shownAs: around, trace: around?.trace });
    return;
  }
  const where = place(around);
  if (!remember(id, { ended: false, chunks: 0, isLost: false, shownAs: undefined, trace: where.trace })) return;
  const { attrs = {}, ...more } = fields;
  const context = contextOf(metadata ?? {}, attrs, parentId === undefined);
  startRun(id, { ...where, ...context, tags: visible(tags), attrs, ...more }, when);
}

function visible(tags) {
  return tags?.length > 0 ? tags : undefined;
}

/** What the metadata say, as fields of a start; the rest of them becomes attributes. */
function contextOf(metadata, attrs, isRoot) {
  for (const [name, value] of Object.entries(metadata)) {
    if (SCALARS.has(typeof value) && !NO_ATTRS.has(name) && !name.startsWith('ls_')) attrs[name] = value;
  }
  for (const name in isRoot ? PROMPT : {}) {
    if (metadata[name] !== undefined) attrs[PROMPT[name]] = metadata[name];
  }
  return { session: metadata[SESSION.find((name) => metadata[name])], user: metadata.user_id };
}

/** What a model is asked with, as fields of a start. */
function request(metadata = {}, asked = {}) {
  const attrs = {};
  for (const name in REQUEST) {
    if (asked[name] !== undefined && asked[name] !== null) attrs[REQUEST[name]] = asked[name];
  }
  for (const name of ['temperature', 'max_tokens']) {
    if (metadata[`ls_${name}`] !== undefined) attrs[REQUEST[name]] ??= metadata[`ls_${name}`];
  }
  return {
    model: metadata.ls_model_name ?? asked.model ?? asked.model_name,
    provider: metadata.ls_provider,
    attrs,
  };
}

/** Reports an end once. */
function finish(id, fields) {
  const when = clock.now();
  const run = known.get(id);
  if (run?.ended) return;
  const partial = takePartial(id);
  if (run !== undefined) run.ended = true;
  if (run?.shownAs !== undefined) return;
  const end = typeof fields === 'function' ? fields(partial) : fields;
  if (run?.chunks > 0) end.attrs = { ...end.attrs, 'sidelight.chunks': run.chunks };
  endRun(id, end, when);
}

function failure(error) {
  return { error: errorOf(error) };
}

/** How a model call failed, and what had come of its stream. */
function halfAnswer(error, partial) {
  const fields = failure(error);
  const status = error?.status;
  if (Number.isInteger(status)) fields.attrs = { 'http.response.status_code': status };
  if (partial === undefined) return fields;
  const content = partial.bytes > MAX_TEXT ? new Beginning(partial.text, partial.bytes) : partial.text;
  fields.output = [{ role: 'assistant', content }];
  fields.usage = { output_tokens: partial.tokens, 'sidelight.estimated': true };
  return fields;
}

/** What a tool returned; one that LangChain caught says so in its message. */
function toolResult(output) {
  const content = output?.content ?? output;
  if (output?.status !== 'error') return { output: content };
  return { output: content, error: { type: 'ToolException', message: String(content) } };
}

function toolInput(input) {
  try {
    return JSON.parse(input);
  } catch {
    return input;
  }
}

function tell(id, name, attrs) {
  const run = known.get(id);
  if (run?.ended) return;
  const shown = run?.shownAs ?? { id };
  runEvent(shown.id, name, attrs);
}

/** A part of a result that may have another shape than expected. */
const read = (work, ...args) => guarded(work, undefined)(...args);

// LangChain takes an object with these members for a handler, of whichever copy it is.
const handler = {
  name: NAME,
  awaitHandlers: true, // or LangChain calls late, from a queue; all that is done here is quick
  raiseError: false,
  ignoreLLM: false,
  ignoreChain: false,
  ignoreAgent: false,
  ignoreRetriever: false,
  ignoreCustomEvent: false,
  lc_serializable: false,
  copy: () => handler,
  toJSON: () => ({ lc: 1, type: 'not_implemented', id: [NAME] }),

  handleChatModelStart(llm, messages, id, parentId, extra, tags, metadata, runName) {
    const input = read(() => messages[0].map(anyMessage));
    startModel(llm, input, id, parentId, extra, tags, metadata, runName);
  },
  handleLLMStart(llm, prompts, id, parentId, extra, tags, metadata, runName) {
    startModel(llm, prompts?.[0], id, parentId, extra, tags, metadata, runName);
  },
  handleLLMNewToken(token, _index, id) {
    const run = known.get(id);
    if (run === undefined || run.ended) return;
    if (++run.chunks === 1) runEvent(id, 'first_token', {});
    if (typeof token === 'string' && token && !run.isLost) addPartial(id, token);
  },
  handleLLMEnd(output, id) {
    finish(id, () => read(answer, output) ?? {});
  },
  handleLLMError(error, id) {
    finish(id, (partial) => halfAnswer(error, partial));
  },

  handleChainStart(chain, inputs, id, parentId, tags, metadata, _runType, runName) {
    const name = read(nameOf, chain, runName);
    const isRoot = parentId === undefined;
    begin(id, parentId, tags, metadata, {
      kind: isRoot || isAgent(name, metadata) ? 'agent' : 'chain',
      name,
      // Inside, every node gets the whole conversation once more.
      input: isRoot ? read(conversation, inputs) : undefined,
    });
  },
  handleChainEnd(outputs, id, parentId) {
    finish(id, { output: parentId === undefined ? read(lastWords, outputs) : undefined });
  },
  handleChainError(error, id) {
    finish(id, failure(error));
  },

  handleToolStart(tool, input, id, parentId, tags, metadata, runName, callId) {
    begin(id, parentId, tags, metadata, {
      kind: 'tool',
      name: read(nameOf, tool, runName),
      input: toolInput(input),
      attrs: callId ? { 'gen_ai.tool.call.id': callId } : {},
    });
  },
  handleToolEnd(output, id) {
    finish(id, read(toolResult, output) ?? {});
  },
  handleToolError(error, id) {
    finish(id, failure(error));
  },

  handleRetrieverStart(retriever, query, id, parentId, tags, metadata, runName) {
    begin(id, parentId, tags, metadata, { kind: 'retriever', name: read(nameOf, retriever, runName), input: query });
  },
  handleRetrieverEnd(documents, id) {
    finish(id, { output: read(found, documents) });
  },
  handleRetrieverError(error, id) {
    finish(id, failure(error));
  },

  handleAgentAction(action, id) {
    tell(id, 'agent_action', { tool: action.tool, input: action.toolInput });
  },
  handleAgentEnd(action, id) {
    tell(id, 'agent_finish', { output: action.returnValues });
  },
  handleText(text, id) {
    tell(id, 'text', { text });
  },
  handleCustomEvent(name, data, id) {
    tell(id, name, { data });
  },
};

for (const [name, method] of Object.entries(handler)) {
  if (name.startsWith('handle')) handler[name] = guarded(method);
}

function startModel(llm, input, id, parentId, extra, tags, metadata, runName) {
  const fields = read(request, metadata, extra?.invocation_params) ?? {};
  begin(id, parentId, tags, metadata, { kind: 'llm', name: read(nameOf, llm, runName), input, ...fields });
}

let inUse = false; // then the calls of LangChain's own OpenAI clients are LangChain's to report

/** A handler for the callbacks of one run; it is the same for all. */
function getHandler() {
  inUse = true;
  return handler;
}

/** Adds the handler to every run, by the one place where LangChain puts callbacks together.
 *
 * Its own registerConfigureHook() would reach only what is called from the context of its caller:
 * not the requests of a server that listened before. */
function patch(CallbackManager) {
  const configure = CallbackManager?._configureSync;
  if (typeof configure !== 'function') return false;
  inUse = true;
  if (Object.hasOwn(configure, PATCHED)) return true;
  function _configureSync(inheritable, ...rest) {
    const isList = inheritable === undefined || inheritable === null || Array.isArray(inheritable);
    // Without any handler LangChain makes no manager, and forgets the tags and metadata.
    const given = isList && !hasOurs(inheritable) ? [...(inheritable ?? []), handler] : inheritable;
    const manager = configure.call(this, given, ...rest);
    if (manager && !hasOurs(manager.handlers)) manager.addHandler(handler, true);
    return manager;
  }
  Object.defineProperty(_configureSync, PATCHED, { value: true });
  CallbackManager._configureSync = _configureSync;
  return true;
}

function hasOurs(handlers) {
  return Boolean(handlers?.some((one) => one?.name === NAME));
}

const PATCHED = Symbol.for('sidelight.patched');

module.exports = { getHandler, isInUse: () => inUse, patch };
