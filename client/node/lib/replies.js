'use strict';

// What the OpenAI API is asked and answers, as fields of a start and an end: in one piece or
// chunk by chunk.

const { News } = require('./news.js');
const { Beginning, MAX_TEXT } = require('./pack.js');
const { REQUEST } = require('./request.js');

const MAX_CALLS = 128; // tool calls of one answer
const MAX_CHOICES = 128;

/** A text that comes in pieces, of which the beginning is kept. */
class Pieces {
  constructor() {
    this.text = '';
    this.bytes = 0;
  }

  add(piece) {
    if (typeof piece !== 'string') return;
    this.bytes += Buffer.byteLength(piece);
    if (this.text.length < MAX_TEXT) this.text += piece;
  }

  get value() {
    return this.bytes > MAX_TEXT ? new Beginning(this.text, this.bytes) : this.text;
  }
}

function request(name, kind, body, input) {
  const attrs = {};
  for (const key in REQUEST) {
    if (body[key] !== undefined && body[key] !== null) attrs[REQUEST[key]] = body[key];
  }
  return { kind, name, model: body.model, user: body.user, input, attrs };
}

function idAttrs(id) {
  return id ? { 'gen_ai.response.id': id } : {};
}

function estimated(tokens) {
  return tokens > 0 ? { output_tokens: tokens, 'sidelight.estimated': true } : undefined;
}

// Chat completions

function said({ role, content, refusal, tool_calls: calls }) {
  const out = { role: role ?? 'assistant', content: content ?? refusal ?? '' };
  if (calls?.length > 0) out.tool_calls = calls.map(toolCall);
  return out;
}

function toolCall(call) {
  const of = call.function ?? call.custom ?? {};
  return { id: call.id, name: of.name, args: json(of.arguments ?? of.input) };
}

/** Arguments are JSON, unless the model got them wrong. */
function json(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function oneOrAll(reasons) {
  return reasons.length > 1 ? reasons : reasons[0];
}

class ChatStream {
  constructor() {
    this.choices = [];
    this.news = new News(); // of the first choice
    this.chunks = 0;
    this.pieces = 0; // with something of the answer in them
  }

  get isWhole() {
    return this.choices.length > 0 && this.choices.every((choice) => choice === undefined || choice.finish);
  }

  /** Returns how many chunks have come. */
  add(chunk) {
    this.model ??= chunk.model;
    this.id ??= chunk.id;
    this.usage = chunk.usage ?? this.usage;
    for (const choice of chunk.choices ?? []) this.choose(choice);
    return ++this.chunks;
  }

  choose({ index = 0, delta = {}, finish_reason: finish }) {
    if (!(index >= 0 && index < MAX_CHOICES)) return;
    this.choices[index] ??= { text: new Pieces(), calls: [], finish: undefined };
    const choice = this.choices[index];
    choice.finish = finish ?? choice.finish;
    const piece = delta.content ?? delta.refusal;
    choice.text.add(piece);
    if (index === 0) this.news.add(piece);
    for (const call of delta.tool_calls ?? []) addCall(choice.calls, call);
    if (delta.content || delta.refusal || delta.tool_calls) this.pieces++;
  }

  fields(isCut = false) {
    const choices = this.choices.filter(Boolean);
    return {
      output: choices.map(({ text, calls }) => ({
        role: 'assistant',
        content: text.value,
        ...(calls.length > 0 && { tool_calls: calls.filter(Boolean).map(gatheredCall) }),
      })),
      usage: this.usage ?? (isCut ? estimated(this.pieces) : undefined),
      model: this.model,
      finish: oneOrAll(choices.map(({ finish }) => finish).filter(Boolean)),
      attrs: { ...idAttrs(this.id), 'sidelight.chunks': this.chunks },
    };
  }
}

function addCall(calls, { index = 0, id, function: part = {} }) {
  if (!(index >= 0 && index < MAX_CALLS)) return;
  calls[index] ??= { id: undefined, name: undefined, args: new Pieces() };
  const call = calls[index];
  call.id ??= id;
  call.name ??= part.name;
  call.args.add(part.arguments);
}

function gatheredCall({ id, name, args }) {
  return { id, name, args: typeof args.value === 'string' ? json(args.value) : args.value };
}

const chat = {
  request: (body) => request(`chat ${body.model}`, 'llm', body, body.messages),
  reply: ({ choices = [], usage, model, id } = {}) => ({
    output: choices.map(({ message }) => said(message ?? {})),
    usage,
    model,
    finish: oneOrAll(choices.map(({ finish_reason: finish }) => finish).filter(Boolean)),
    attrs: idAttrs(id),
  }),
  Stream: ChatStream,
};

// Responses

function responseReply({ output = [], usage, model, id, status, error, incomplete_details: why } = {}) {
  const fields = { output: messages(output), usage, model, finish: why?.reason ?? status, attrs: idAttrs(id) };
  if (error) fields.error = { type: error.code ?? 'Error', message: error.message ?? '' };
  return fields;
}

/** The items of a response's output as messages. */
function messages(output) {
  const out = [];
  for (const item of output) {
    if (item.type === 'message') {
      const content = (item.content ?? []).map((part) => part.text ?? part.refusal ?? '').join('');
      out.push({ role: item.role ?? 'assistant', content });
    } else if (item.type === 'function_call') {
      const call = { id: item.call_id ?? item.id, name: item.name, args: json(item.arguments) };
      out.push({ role: 'assistant', content: '', tool_calls: [call] });
    }
  }
  return out.length > 0 ? out : output;
}

function question({ input, instructions }) {
  if (!instructions) return input;
  const asked = typeof input === 'string' ? [{ role: 'user', content: input }] : (input ?? []);
  return [{ role: 'system', content: instructions }, ...asked];
}

class ResponseStream {
  constructor() {
    this.text = new Pieces();
    this.news = new News();
    this.chunks = 0;
    this.pieces = 0;
    this.response = {};
    this.isWhole = false;
  }

  /** Returns how many chunks with text have come. */
  add(event) {
    const { type, response, delta } = event;
    if (response) this.response = response;
    this.isWhole ||= type === 'response.completed' || type === 'response.incomplete' || type === 'response.failed';
    if (typeof type !== 'string' || !type.endsWith('.delta')) return 0;
    this.chunks++;
    if (type === 'response.output_text.delta') {
      this.text.add(delta);
      this.news.add(delta);
    }
    return ++this.pieces;
  }

  fields(isCut = false) {
    const fields = responseReply(this.response);
    fields.attrs['sidelight.chunks'] = this.chunks;
    if (this.isWhole) return fields;
    fields.output = [{ role: 'assistant', content: this.text.value }];
    fields.finish = undefined;
    if (isCut) fields.usage ??= estimated(this.pieces);
    return fields;
  }
}

const responses = {
  request: (body) => request(`chat ${body.model}`, 'llm', body, question(body)),
  reply: responseReply,
  Stream: ResponseStream,
};

// Embeddings: the numbers tell nobody anything, and are large.

const embeddings = {
  request: (body) => request(`embeddings ${body.model}`, 'embedding', body, body.input),
  reply: ({ data = [], usage, model } = {}) => ({
    usage,
    model,
    attrs: { 'gen_ai.embeddings.count': data.length, 'gen_ai.embeddings.dimension.count': data[0]?.embedding?.length },
  }),
  Stream: ChatStream,
};

module.exports = { chat, embeddings, responses };
