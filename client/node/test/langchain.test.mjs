// The real LangChain.js and LangGraph.js, the real OpenAI client and the real collector.

import assert from 'node:assert/strict';
import { webcrypto } from 'node:crypto';
import { createRequire } from 'node:module';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { RunnableLambda } from '@langchain/core/runnables';
import { ChatOpenAI } from '@langchain/openai';
import { createAgent, tool } from 'langchain';
import OpenAI from 'openai';
import * as z from 'zod';
import sidelight from '../index.mjs';

const require = createRequire(import.meta.url);
const { daemonTest, get, startDaemon } = require('./helpers.js');
const { startServer } = require('./scripted.js');
const { known } = require('../lib/runs.js');

globalThis.crypto ??= webcrypto; // LangChain wants it to be there, as it is from Node 20 on

let daemon;
let server;
let model;

before(async () => {
  daemon = await startDaemon();
  if (daemon === undefined) return;
  server = await startServer();
  sidelight.configure({ socket: daemon.socket, service: 'node-tests' });
  model = chatModel();
  assert.deepEqual(await sidelight.install(), ['langchain', 'openai']);
  assert.deepEqual(await sidelight.install({ only: ['langchain'] }), ['langchain']);
});

after(async () => {
  await server?.close();
  await daemon?.stop();
});

function chatModel(options = {}) {
  return new ChatOpenAI({
    model: 'gpt-4o', temperature: 0.5, apiKey: 'none', maxRetries: 0, configuration: { baseURL: server.baseURL }, ...options,
  });
}

const weather = tool(async ({ city }) => (await sleep(5), `sunny in ${city}`), {
  name: 'weather', description: 'The weather', schema: z.object({ city: z.string() }),
});
const daysUntil = tool(async ({ date }) => sidelight.span('count', () => `${date} is far`), {
  name: 'days_until', description: 'Days', schema: z.object({ date: z.string() }),
});
const broken = tool(async () => { throw new RangeError('no such city'); }, {
  name: 'weather', description: 'The weather', schema: z.object({ city: z.string() }),
});

const QUESTION = 'weather in Oslo and days until 2026-12-24';
const asked = (content = QUESTION) => ({ messages: [{ role: 'user', content }] });

/** Does the work inside a run of its own; returns that run's trace. */
async function traced(work) {
  let id;
  await sidelight.span('test', async (around) => {
    id = around.traceId;
    await work();
  });
  return spansOf(id);
}

async function spansOf(id, ask = sidelight.trace) {
  const found = await ask(id);
  assert.ok(found?.spans, `no trace ${id}`);
  const { spans } = found;
  const ids = new Set(spans.map(({ span_id: own }) => own));
  assert.equal(spans.filter(({ parent_span_id: parent }) => !ids.has(parent)).length, 1, 'exactly one root');
  const byName = {};
  for (const span of spans) (byName[span.name.replace(/^(invoke_agent|execute_tool) /, '')] ??= []).push(span);
  const parentOf = (span) => spans.find(({ span_id: own }) => own === span.parent_span_id);
  return { spans, byName, parentOf };
}

const llms = ({ spans }) => spans.filter(({ kind }) => kind === 'llm');
const tokensOf = ({ attributes: a }) => [a['gen_ai.usage.input_tokens'], a['gen_ai.usage.output_tokens']];

function checkAgent({ spans, byName, parentOf }) {
  assert.ok(spans.every(({ status }) => status.code === 'ok'), JSON.stringify(spans.map(({ name, status }) => [name, status])));
  const [agent] = byName.LangGraph;
  assert.equal(agent.kind, 'agent');
  assert.equal(parentOf(agent).name, 'test');
  for (const llm of llms({ spans })) {
    assert.equal(parentOf(llm).name, 'model_request');
    assert.deepEqual(tokensOf(llm), [1034, 118]);
    assert.equal(llm.attributes['gen_ai.request.model'], 'gpt-4o');
    assert.equal(llm.attributes['gen_ai.response.model'], 'gpt-4o-2026-08-07');
    assert.equal(llm.attributes['gen_ai.usage.cache_read.input_tokens'], 768);
  }
  assert.equal(llms({ spans }).length, 2);
  for (const name of ['weather', 'days_until']) {
    const [run] = byName[name];
    assert.equal(run.kind, 'tool');
    assert.equal(parentOf(run).name, 'tools');
    assert.match(run.attributes['gen_ai.tool.call.id'], new RegExp(`call_${name}`));
  }
  assert.equal(parentOf(byName.count[0]), byName.days_until[0]);
  assert.equal(byName.__start__, undefined);
}

daemonTest('an agent with parallel tools, invoked', async () => {
  const agent = createAgent({ model, tools: [weather, daysUntil] });
  const trace = await traced(async () => {
    const { messages } = await agent.invoke(asked(), { metadata: { thread_id: 't1', user_id: 'ada', tier: 'gold' } });
    assert.equal(messages.at(-1).content, 'sunny in Oslo 2026-12-24 is far');
  });
  checkAgent(trace);
  const [root] = trace.byName.LangGraph;
  assert.equal(root.attributes['gen_ai.conversation.id'], 't1');
  assert.equal(root.attributes.tier, 'gold');
  assert.match(JSON.stringify(root.attributes), /sunny in Oslo 2026-12-24 is far/);
});

daemonTest('an agent, streamed by messages and by updates', async () => {
  const agent = createAgent({ model, tools: [weather, daysUntil] });
  for (const streamMode of ['messages', 'updates']) {
    const trace = await traced(async () => {
      for await (const part of await agent.stream(asked(), { streamMode })) assert.ok(part);
    });
    checkAgent(trace);
    if (streamMode === 'messages') {
      for (const { attributes } of llms(trace)) assert.ok(attributes['sidelight.chunks'] > 3);
    }
  }
});

daemonTest('an agent, by its events', async () => {
  const agent = createAgent({ model, tools: [weather, daysUntil] });
  checkAgent(await traced(async () => {
    for await (const event of agent.streamEvents(asked(), { version: 'v2' })) assert.ok(event.event);
  }));
});

daemonTest('a tool that fails', async () => {
  const agent = createAgent({ model, tools: [broken, daysUntil] });
  const trace = await traced(() => agent.invoke(asked()).catch(() => {}));
  const [run] = trace.byName.weather;
  assert.equal(run.status.code, 'error');
  assert.equal(run.attributes['error.type'], 'RangeError');
  assert.match(run.status.message, /no such city/);
  assert.equal(trace.byName.days_until[0].status.code, 'ok');
});

daemonTest('a service that fails: the model, its node and the agent', async () => {
  const agent = createAgent({ model, tools: [weather] });
  const trace = await traced(() => assert.rejects(agent.invoke(asked('outage'))));
  for (const name of ['LangGraph', 'model_request']) assert.equal(trace.byName[name][0].status.code, 'error');
  const [llm] = llms(trace);
  assert.equal(llm.status.code, 'error');
  assert.equal(llm.attributes['error.type'], 'InternalServerError');
  assert.equal(llm.attributes['http.response.status_code'], 500);
});

daemonTest('an agent that is aborted is cancelled, not failed', async () => {
  const agent = createAgent({ model, tools: [weather] });
  const trace = await traced(async () => {
    const abort = new AbortController();
    setTimeout(() => abort.abort(), 100);
    await agent.invoke(asked('forever'), { signal: abort.signal }).catch(() => {});
    await sleep(50);
  });
  for (const name of ['LangGraph', 'model_request']) assert.equal(trace.byName[name][0].status.code, 'cancelled', name);
  assert.equal(llms(trace)[0].status.code, 'cancelled');
});

daemonTest('a model by itself: invoked, in a batch, and streamed', async () => {
  const trace = await traced(async () => {
    await model.invoke('Ada');
    await model.batch(['a', 'b']);
    for await (const chunk of await model.stream('you')) assert.ok(chunk);
  });
  assert.equal(llms(trace).length, 4);
  for (const llm of llms(trace)) {
    assert.equal(trace.parentOf(llm).name, 'test');
    assert.deepEqual(tokensOf(llm), [1034, 118]);
  }
});

daemonTest('a stream that breaks keeps its beginning, and what it took at least', async () => {
  const trace = await traced(() =>
    assert.rejects(async () => {
      for await (const chunk of await model.stream('break')) assert.ok(chunk);
    }),
  );
  const [llm] = llms(trace);
  assert.equal(llm.status.code, 'error');
  assert.match(JSON.stringify(llm.attributes), /once upon a /);
  assert.equal(llm.attributes['gen_ai.usage.output_tokens'], 3);
});

// LangChain asks for Node 20: on 18, leaving a stream whose server is silent doesn't return.
const skip = parseInt(process.versions.node, 10) < 20 && 'LangChain needs Node 20 for this';

daemonTest('a stream that is left early ends with its request, as cancelled', { skip }, async () => {
  const trace = await traced(async () => {
    for await (const chunk of await model.stream('forever')) if (chunk.content === 'a ') break;
  });
  assert.ok(['running', 'cancelled'].includes(llms(trace)[0].status.code));
});

daemonTest('a call of the OpenAI client in a node is a child of the node', async () => {
  const openai = new OpenAI({ baseURL: server.baseURL, apiKey: 'none' });
  const node = RunnableLambda.from(async (content) => {
    const { choices } = await openai.chat.completions.create({ model: 'm', messages: [{ role: 'user', content }] });
    return choices[0].message.content;
  }).withConfig({ runName: 'node' });
  const trace = await traced(async () => assert.equal(await node.invoke('x'), 'Hello x'));
  assert.equal(trace.parentOf(trace.byName['chat m'][0]), trace.byName.node[0]);
  assert.equal(llms(trace).length, 1);
});

daemonTest('a handler of one run, given twice and beside the installed one: once', async () => {
  const handled = chatModel({ callbacks: [sidelight.handler()] });
  const trace = await traced(() => handled.invoke('x', { callbacks: [sidelight.handler()] }));
  assert.equal(llms(trace).length, 1);
});

daemonTest('the CommonJS copy is patched as well', async () => {
  const required = require('@langchain/core/runnables');
  assert.notEqual(required.RunnableLambda, RunnableLambda);
  await sidelight.install();
  const trace = await traced(() => required.RunnableLambda.from(() => 1).withConfig({ runName: 'cjs' }).invoke(0));
  assert.equal(trace.byName.cjs.length, 1);
});

daemonTest('200 requests at once do not mix', async () => {
  const agent = createAgent({ model, tools: [weather, daysUntil] });
  const ids = await Promise.all(
    Array.from({ length: 200 }, (_, n) =>
      sidelight.span('test', async (run) => {
        await agent.invoke(asked(`weather in City${n} and days until 2026-12-24`));
        return [run.traceId, n];
      }),
    ),
  );
  assert.equal(await sidelight.flush(20_000), true);
  for (const [id, n] of ids) {
    const trace = await spansOf(id, (one) => get(daemon.api, `/api/traces/${one}`));
    checkAgent(trace);
    assert.match(JSON.stringify(trace.byName.weather[0].attributes), new RegExp(`City${n}\\b`));
    for (const [other] of JSON.stringify(trace.spans).matchAll(/City\d+/g)) assert.equal(other, `City${n}`);
  }
});

test('runs that never end do not gather', () => {
  const handler = sidelight.handler();
  for (let i = 0; i < 40_000; i++) {
    const id = `flat-${i}`;
    handler.handleChatModelStart({}, [[]], id, undefined, {}, [], {});
    handler.handleLLMNewToken('some text of a stream', {}, id);
    if (i % 10 > 0) handler.handleLLMEnd({ generations: [[]] }, id);
  }
  assert.ok(known.size <= 16_384);
});
