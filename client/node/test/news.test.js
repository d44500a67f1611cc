'use strict';

// What an answer that takes long has said is told meanwhile, now and then.

const assert = require('node:assert/strict');
const { randomUUID } = require('node:crypto');
const http = require('node:http');
const { after, afterEach, before, test } = require('node:test');
const sidelight = require('..');
const clock = require('../lib/clock.js');
const { News } = require('../lib/news.js');
const { chat, responses } = require('../lib/replies.js');
const { daemonTest, get, runProgram, startDaemon } = require('./helpers.js');
const { Recorder, onlyRuns } = require('./recorder.js');

const ID = Buffer.alloc(16, 7);
const { ms } = clock;
let recorder;

before(async () => {
  recorder = await Recorder.start();
  sidelight.configure({ socket: recorder.path });
});

afterEach(() => {
  clock.ms = ms;
  for (const connection of recorder.connections) connection.length = 0;
});

after(() => recorder.close());

/** The attributes of what was told of answers since the last test. */
async function told() {
  assert.equal(await sidelight.flush(5000), true);
  return onlyRuns(recorder.messages)
    .filter(([type, , , , name]) => type === 3 && name === 'partial_output')
    .map((message) => message[5]);
}

test('the first after 100 ms, then half as often each time, up to one a second', async () => {
  let now = 5000;
  clock.ms = () => now;
  const news = new News();
  news.begin();
  const times = [];
  for (let i = 0; i < 100; i++, now += 100) {
    news.add('é');
    news.look(ID, i);
    if (news.said === '') times.push(i);
  }
  assert.deepEqual(times.slice(0, 6), [1, 3, 7, 15, 25, 35]);
  const events = await told();
  assert.equal(events.map(({ text }) => text).join(''), 'é'.repeat(times.at(-1) + 1));
  assert.deepEqual(events.slice(0, 3).map(({ at, tokens }) => [at, tokens]), [[0, 1], [4, 3], [8, 7]]);
});

test('a short answer is not told', async () => {
  const news = new News();
  news.look(ID, 1);
  news.begin();
  news.add('word');
  news.look(ID, 1);
  assert.deepEqual(await told(), []);
});

test('what comes faster than it is told is bounded, and what is missing shows', async () => {
  let now = 5000;
  clock.ms = () => now;
  const news = new News();
  news.begin();
  for (let i = 0; i < 100_000; i++) news.add('é'.repeat(50));
  assert.ok(news.said.length < 66_000);
  for (const piece of ['y', 'z']) {
    now += 1000;
    news.look(ID);
    news.add(piece);
  }
  now += 1000;
  news.look(ID);
  assert.deepEqual((await told()).map(({ at }) => at), [0, 10_000_000, 10_000_001]);
});

test('nothing is told of what is no text', async () => {
  let now = 5000;
  clock.ms = () => now;
  const model = sidelight.llm(function* model() {
    for (let i = 0; i < 5; i++, now += 1000) yield { i };
  });
  assert.equal([...model()].length, 5);
  assert.deepEqual(await told(), []);
});

test('only the text of the first choice is', () => {
  const stream = new chat.Stream();
  stream.add({ choices: [{ index: 0, delta: { content: 'one ' } }, { index: 1, delta: { content: 'other' } }] });
  stream.add({ choices: [{ index: 0, delta: { tool_calls: [{ index: 0, function: { arguments: '{}' } }] } }] });
  stream.add({ choices: [{ index: 0, delta: { refusal: 'two' } }] });
  assert.equal(stream.news.said, 'one two');
  const events = new responses.Stream();
  events.add({ type: 'response.output_text.delta', delta: 'one' });
  events.add({ type: 'response.function_call_arguments.delta', delta: '{}' });
  assert.equal(events.news.said, 'one');
});

test('a stream whose beginning made room for others is told no further', async () => {
  const handler = sidelight.handler();
  const streams = Array.from({ length: 300 }, () => randomUUID());
  for (const id of streams) {
    handler.handleLLMStart({}, ['question'], id);
    handler.handleLLMNewToken('x'.repeat(60_000), {}, id);
  }
  let now = clock.ms() + 1000;
  clock.ms = () => now;
  for (const id of [streams[0], streams.at(-1)]) {
    handler.handleLLMNewToken('told', {}, id);
    now += 1000;
    handler.handleLLMNewToken('told', {}, id);
  }
  assert.deepEqual((await told()).map(({ text, at }) => [text.length, at]), [[60_004, 0], [4, 60_004]]);
  for (const id of streams) handler.handleLLMError(new Error('no more'), id);
  await sidelight.flush(5000);
  const outputs = onlyRuns(recorder.messages).filter(([type]) => type === 2).map((message) => message[4].output);
  assert.equal(outputs[0], undefined);
  assert.ok(outputs.at(-1) !== undefined);
});

/** A model that never ends, at a word every 10 ms. */
async function startStory() {
  const server = http.createServer((_, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    let n = 0;
    const timer = setInterval(() => {
      const choices = [{ index: 0, delta: { content: `word${n++} ` }, finish_reason: null }];
      response.write(`data: ${JSON.stringify({ id: '1', model: 'm', choices })}\n\n`);
    }, 10);
    response.on('close', () => clearInterval(timer));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return server;
}

const AGENTS = {
  openai: `
    const { OpenAI } = require('openai');
    const openai = sidelight.wrapOpenAI(new OpenAI({ baseURL: process.env.STORY, apiKey: 'none' }));
    const body = { model: 'm', messages: [{ role: 'user', content: 'tell' }], stream: true };
    (async () => {
      for await (const chunk of await openai.chat.completions.create(body)) say(chunk.choices[0].delta.content);
    })();`,
  langchain: `
    sidelight.install();
    (async () => {
      const { ChatOpenAI } = await import('@langchain/openai');
      const { handler } = sidelight;
      const model = new ChatOpenAI({ model: 'm', apiKey: 'none', configuration: { baseURL: process.env.STORY } });
      for await (const chunk of await model.stream('tell', { callbacks: [handler()] })) say(chunk.content);
    })();`,
  generator: `
    const story = sidelight.llm(async function* story() {
      for (let n = 0; ; n++) {
        yield 'word' + n + ' ';
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    });
    (async () => { for await (const word of story()) say(word); })();`,
};

for (const [name, source] of Object.entries(AGENTS)) {
  daemonTest(`a killed process has said what it heard: ${name}`, async () => {
    const daemon = await startDaemon();
    const story = await startStory();
    try {
      const { port } = story.address();
      const say = 'function say(word) { process.stdout.write(word); }\n';
      const { out, signal, err } = await runProgram(say + source, {
        socket: daemon.socket,
        env: { STORY: `http://127.0.0.1:${port}/v1` },
        onStart: (child) => child.stdout.once('data', () => setTimeout(() => child.kill('SIGKILL'), 2200)),
      });
      assert.equal(signal, 'SIGKILL', err);
      let span;
      for (let i = 0; i < 200 && !span?.end_time; i++) {
        await new Promise((resolve) => setTimeout(resolve, 50));
        [span] = (await get(daemon.api, '/api/spans')).spans.filter(({ kind }) => kind === 'llm');
      }
      const { attributes } = span;
      const said = JSON.parse(attributes['gen_ai.output.messages'])[0].parts[0].content;
      assert.ok(out.startsWith(said) && said.split(' ').length > 40, said);
      assert.equal(attributes['sidelight.partial_output'], true);
      assert.equal(attributes['error.type'], 'process_lost');
      assert.ok(attributes['gen_ai.response.time_to_first_chunk'] > 0);
    } finally {
      story.closeAllConnections?.();
      story.close();
      await daemon.stop();
    }
  });
}
