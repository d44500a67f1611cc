// The older majors at work, against a server that is given; prints the id of each trace by name.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { tool } from '@langchain/core/tools';
import '@langchain/langgraph';
import { createReactAgent } from '@langchain/langgraph/prebuilt';
import { ChatOpenAI } from '@langchain/openai';
import OpenAI from 'openai';
import { z } from 'zod';
import sidelight from '../../index.mjs';

for (const [name, major] of Object.entries({ '@langchain/core': '0.3', '@langchain/langgraph': '0.2', openai: '4' })) {
  const { version } = JSON.parse(readFileSync(`node_modules/${name}/package.json`));
  assert.ok(version.startsWith(`${major}.`), `${name} ${version}`);
}
assert.deepEqual(await sidelight.install(), ['langchain', 'openai']);

const [baseURL] = process.argv.slice(2);
const model = new ChatOpenAI({ model: 'gpt-4o', apiKey: 'none', maxRetries: 0, configuration: { baseURL } });
const openai = new OpenAI({ baseURL, apiKey: 'none', maxRetries: 0 });
const weather = tool(async ({ city }) => `sunny in ${city}`, {
  name: 'weather', description: 'The weather', schema: z.object({ city: z.string() }),
});
const daysUntil = tool(async ({ date }) => sidelight.span('count', () => `${date} is far`), {
  name: 'days_until', description: 'Days', schema: z.object({ date: z.string() }),
});
const broken = tool(async () => { throw new RangeError('no such city'); }, {
  name: 'weather', description: 'The weather', schema: z.object({ city: z.string() }),
});
const agent = createReactAgent({ llm: model, tools: [weather, daysUntil] });
const asked = (content = 'weather in Oslo and days until 2026-12-24') => ({ messages: [{ role: 'user', content }] });
const create = (content, more) => openai.chat.completions.create({ model: 'm', ...asked(content), ...more });

const WORK = {
  invoke: async () => {
    const { messages } = await agent.invoke(asked(), { configurable: { thread_id: 't1' } });
    assert.equal(messages.at(-1).content, 'sunny in Oslo 2026-12-24 is far');
  },
  stream: async () => {
    for await (const part of await agent.stream(asked(), { streamMode: 'messages' })) assert.ok(part);
  },
  'failing tool': () => createReactAgent({ llm: model, tools: [broken, daysUntil] }).invoke(asked()),
  outage: () => assert.rejects(agent.invoke(asked('outage'))),
  'plain call': async () => assert.equal((await create('Ada')).choices[0].message.content, 'Hello Ada'),
  'plain stream': async () => {
    for await (const chunk of await create('you', { stream: true })) assert.ok(chunk);
  },
  'left stream': async () => {
    for await (const chunk of await create('forever', { stream: true })) if (chunk.choices[0].delta.content === 'a ') break;
  },
  'plain failure': () => assert.rejects(create('outage')),
  'more than a promise': async () => {
    const { data, response } = await sidelight.span('inner', () => create('Ada')).withResponse();
    assert.equal(data.choices[0].message.content, 'Hello Ada');
    assert.equal(response.status, 200);
  },
};

const traces = {};
for (const [name, work] of Object.entries(WORK)) {
  await sidelight.span('test', async (run) => {
    traces[name] = run.traceId;
    await work();
  });
}
assert.equal(await sidelight.flush(10_000), true);
console.log(JSON.stringify(traces));
