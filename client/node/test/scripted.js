'use strict';

// An OpenAI-compatible server with scripted answers: real HTTP and server-sent events.
//
// | the last user message has | what happens |
// |---|---|
// | "weather in CITY" and "days until DATE" | two tool calls at once, then an answer from their results |
// | "outage" | 500, always |
// | "forever" | a stream that says "once", "upon", "a", then nothing |
// | "break" | a stream whose connection is cut after three words |
// | anything else | "Hello " and the message |

const http = require('node:http');

const SNAPSHOT = '-2026-08-07'; // what OpenAI adds to a model's name in its answers
const PAUSE_MS = 2; // between the chunks of a stream

function wantedTools(text) {
  const city = /weather in ([A-Z]\w*)/.exec(text);
  const date = /days until (\d{4}-\d\d-\d\d)/.exec(text);
  return [city && ['weather', { city: city[1] }], date && ['days_until', { date: date[1] }]].filter(Boolean);
}

function textOf(content) {
  return typeof content === 'string' ? content : (content ?? []).map((part) => part.text ?? '').join(' ');
}

/** The assistant's message for a conversation. */
function answer(messages) {
  const last = messages.findLastIndex(({ role }) => role === 'user');
  const text = textOf(messages[last]?.content);
  const results = messages.slice(last + 1).filter(({ role }) => role === 'tool');
  const calls = wantedTools(text);
  if (calls.length > 0 && results.length === 0) {
    const toolCalls = calls.map(([name, args], i) => ({
      id: `call_${name}_${i}`,
      type: 'function',
      function: { name, arguments: JSON.stringify(args) },
    }));
    return { role: 'assistant', content: null, tool_calls: toolCalls };
  }
  const said = results.length > 0 ? results.map(({ content }) => textOf(content)).join(' ') : `Hello ${text}`;
  return { role: 'assistant', content: said };
}

const USAGE = {
  prompt_tokens: 1034,
  completion_tokens: 118,
  total_tokens: 1152,
  prompt_tokens_details: { cached_tokens: 768 },
  completion_tokens_details: { reasoning_tokens: 32 },
};
const RESPONSE_USAGE = {
  input_tokens: 1034,
  output_tokens: 118,
  total_tokens: 1152,
  input_tokens_details: { cached_tokens: 768 },
  output_tokens_details: { reasoning_tokens: 32 },
};

function* deltas({ content, tool_calls: calls = [] }) {
  yield { role: 'assistant', content: content === null ? null : '' };
  for (const word of (content ?? '').match(/\S+\s*/g) ?? []) yield { content: word };
  for (const [index, call] of calls.entries()) {
    const { name, arguments: args } = call.function;
    yield { tool_calls: [{ index, id: call.id, type: 'function', function: { name, arguments: '' } }] };
    for (const part of [args.slice(0, 5), args.slice(5)]) {
      yield { tool_calls: [{ index, function: { arguments: part } }] };
    }
  }
}

/** Another one for each answer of a conversation: LangGraph takes messages of one id for one. */
const idOf = ({ messages }) => `chatcmpl-${messages.length}`;

const pause = () => new Promise((resolve) => setTimeout(resolve, PAUSE_MS));

async function streamChat(request, response, text) {
  const envelope = { id: idOf(request), object: 'chat.completion.chunk', created: 1, model: request.model + SNAPSHOT };
  const send = (fields) => response.write(`data: ${JSON.stringify({ ...envelope, ...fields })}\n\n`);
  const isCut = /forever|break/.test(text);
  const message = isCut ? { content: 'once upon a ' } : answer(request.messages);
  for (const delta of deltas(message)) {
    send({ choices: [{ index: 0, delta, finish_reason: null }] });
    await pause();
  }
  if (/forever/.test(text)) return;
  if (isCut) {
    response.destroy();
    return;
  }
  send({ choices: [{ index: 0, delta: {}, finish_reason: message.tool_calls ? 'tool_calls' : 'stop' }] });
  if (request.stream_options?.include_usage) send({ choices: [], usage: USAGE });
  response.end('data: [DONE]\n\n');
}

function chat(request, response) {
  const text = textOf(request.messages.findLast(({ role }) => role === 'user')?.content);
  if (/outage/.test(text)) return json(response, 500, { error: { message: 'The server had an error', type: 'server_error' } });
  if (request.stream) {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    return streamChat(request, response, text);
  }
  if (/forever/.test(text)) return undefined;
  const message = answer(request.messages);
  const finish = message.tool_calls ? 'tool_calls' : 'stop';
  const choices = [{ index: 0, message, finish_reason: finish }];
  return json(response, 200, { id: idOf(request), object: 'chat.completion', created: 1, model: request.model + SNAPSHOT, choices, usage: USAGE });
}

function responses(request, response) {
  const text = typeof request.input === 'string' ? request.input : textOf(request.input.at(-1).content);
  const base = { id: 'resp_1', object: 'response', created_at: 1, model: request.model + SNAPSHOT, output: [], status: 'in_progress' };
  const content = [{ type: 'output_text', text: `Hello ${text}`, annotations: [] }];
  const item = { type: 'message', id: 'msg_1', role: 'assistant', status: 'completed', content };
  const whole = { ...base, status: 'completed', output: [item], usage: RESPONSE_USAGE };
  if (!request.stream) return json(response, 200, whole);
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  let sequence = 0;
  const send = (type, fields) =>
    response.write(`event: ${type}\ndata: ${JSON.stringify({ type, sequence_number: sequence++, ...fields })}\n\n`);
  send('response.created', { response: base });
  for (const delta of `Hello ${text}`.match(/\S+\s*/g)) {
    send('response.output_text.delta', { item_id: 'msg_1', output_index: 0, content_index: 0, delta });
  }
  if (/forever/.test(text)) return undefined;
  send('response.completed', { response: whole });
  return response.end();
}

function embeddings(request, response) {
  const inputs = [].concat(request.input);
  const vector = new Float32Array([0.5, 0.25]);
  const embedding = request.encoding_format === 'base64' ? Buffer.from(vector.buffer).toString('base64') : [...vector];
  const data = inputs.map((_, index) => ({ object: 'embedding', index, embedding }));
  json(response, 200, { object: 'list', data, model: request.model, usage: { prompt_tokens: 8, total_tokens: 8 } });
}

function json(response, status, value) {
  response.writeHead(status, { 'content-type': 'application/json', 'x-request-id': 'req_1', 'retry-after-ms': '5' });
  response.end(JSON.stringify(value));
}

const ROUTES = { '/v1/chat/completions': chat, '/v1/responses': responses, '/v1/embeddings': embeddings };

async function startServer() {
  const server = http.createServer((request, response) => {
    const parts = [];
    response.on('error', () => {});
    request.on('data', (part) => parts.push(part));
    request.on('end', () => ROUTES[request.url](JSON.parse(Buffer.concat(parts).toString()), response));
  });
  server.keepAliveTimeout = 60_000; // a client that is slow under load finds its connection again
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    baseURL: `http://127.0.0.1:${server.address().port}/v1`,
    close: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}

module.exports = { RESPONSE_USAGE, USAGE, startServer };
