'use strict';

// The real OpenAI client, two majors of it, against a scripted server.

const assert = require('node:assert/strict');
const { after, afterEach, before, test } = require('node:test');
const sidelight = require('..');
const { runProgram } = require('./helpers.js');
const { Recorder, onlyRuns } = require('./recorder.js');
const { RESPONSE_USAGE, USAGE, startServer } = require('./scripted.js');

let recorder;
let server;

before(async () => {
  recorder = await Recorder.start();
  server = await startServer();
  sidelight.configure({ socket: recorder.path });
});

afterEach(() => {
  for (const connection of recorder.connections) connection.length = 0;
});

after(async () => {
  await recorder.close();
  await server.close();
});

/** What was reported since the last test: [start, end, events] of each run, in order. */
async function reported() {
  assert.equal(await sidelight.flush(5000), true);
  const runs = new Map();
  for (const [type, id, , , ...rest] of onlyRuns(recorder.messages)) {
    const key = Buffer.from(id).toString('hex');
    if (type === 1) runs.set(key, [rest[0], undefined, []]);
    else if (type === 2) {
      assert.equal(runs.get(key)[1], undefined, 'a run ended twice');
      runs.get(key)[1] = rest[0];
    } else runs.get(key)[2].push(rest[0]);
  }
  return [...runs.values()];
}

const ask = (content) => [{ role: 'user', content }];

for (const library of ['openai', 'openai-5']) {
  const { OpenAI } = require(library);
  const make = () => sidelight.wrapOpenAI(new OpenAI({ baseURL: server.baseURL, apiKey: 'none', maxRetries: 1 }));
  const both = (name, work) => test(`${library}: ${name}`, () => work(make()));

  both('a completion', async (openai) => {
    const completion = await openai.chat.completions.create({ model: 'gpt-4o', messages: ask('Ada'), temperature: 0.5 });
    assert.equal(completion.choices[0].message.content, 'Hello Ada');
    const [[start, end]] = await reported();
    assert.deepEqual(start, {
      kind: 'llm',
      name: 'chat gpt-4o',
      model: 'gpt-4o',
      provider: 'openai',
      input: ask('Ada'),
      attrs: { 'gen_ai.request.temperature': 0.5 },
    });
    assert.deepEqual(end, {
      output: [{ role: 'assistant', content: 'Hello Ada' }],
      usage: USAGE,
      model: 'gpt-4o-2026-08-07',
      finish: 'stop',
      attrs: { 'gen_ai.response.id': 'chatcmpl-1' },
    });
  });

  both('tool calls, plain and streamed', async (openai) => {
    const body = { model: 'gpt-4o', messages: ask('weather in Oslo and days until 2026-12-24') };
    await openai.chat.completions.create(body);
    for await (const chunk of await openai.chat.completions.create({ ...body, stream: true })) assert.ok(chunk);
    const [[, plain], [, streamed]] = await reported();
    const calls = [
      { id: 'call_weather_0', name: 'weather', args: { city: 'Oslo' } },
      { id: 'call_days_until_1', name: 'days_until', args: { date: '2026-12-24' } },
    ];
    for (const end of [plain, streamed]) {
      assert.deepEqual(end.output, [{ role: 'assistant', content: '', tool_calls: calls }]);
      assert.equal(end.finish, 'tool_calls');
    }
    assert.deepEqual([plain.usage, streamed.usage], [USAGE, undefined]);
  });

  both('a stream with usage', async (openai) => {
    const stream = await openai.chat.completions.create({
      model: 'gpt-4o', messages: ask('dear reader'), stream: true, stream_options: { include_usage: true },
    });
    let text = '';
    for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? '';
    assert.equal(text, 'Hello dear reader');
    const [[, end, events]] = await reported();
    assert.equal(end.output[0].content, text);
    assert.deepEqual(end.usage, USAGE);
    assert.equal(end.finish, 'stop');
    assert.equal(end.attrs['sidelight.chunks'], 6);
    assert.deepEqual(events, ['first_token']);
  });

  both('a stream that is left early', async (openai) => {
    for await (const chunk of await openai.chat.completions.create({ model: 'm', messages: ask('forever'), stream: true })) {
      if (chunk.choices[0].delta.content === 'a ') break;
    }
    const [[, end]] = await reported();
    assert.equal(end.error.type, 'GeneratorExit');
    assert.equal(end.output[0].content, 'once upon a ');
    assert.deepEqual(end.usage, { output_tokens: 3, 'sidelight.estimated': true });
  });

  both('a stream that is aborted', async (openai) => {
    const stream = await openai.chat.completions.create({ model: 'm', messages: ask('forever'), stream: true });
    for await (const chunk of stream) if (chunk.choices[0].delta.content === 'a ') stream.controller.abort();
    const [[, end]] = await reported();
    assert.equal(end.error.type, 'GeneratorExit');
    assert.equal(end.output[0].content, 'once upon a ');
  });

  both('a stream that breaks', async (openai) => {
    await assert.rejects(async () => {
      for await (const chunk of await openai.chat.completions.create({ model: 'm', messages: ask('break'), stream: true })) {
        assert.ok(chunk);
      }
    });
    const [[, end]] = await reported();
    assert.ok(end.error.message);
    assert.equal(end.output[0].content, 'once upon a ');
    assert.equal(end.usage['sidelight.estimated'], true);
  });

  both('a split stream, and one turned into bytes', async (openai) => {
    const body = { model: 'm', messages: ask('you'), stream: true };
    const [left, right] = (await openai.chat.completions.create(body)).tee();
    for (const half of [left, right]) {
      let count = 0;
      for await (const chunk of half) count += chunk ? 1 : 0;
      assert.equal(count, 4);
    }
    const bytes = (await openai.chat.completions.create(body)).toReadableStream();
    for await (const piece of bytes) assert.ok(piece.length);
    const runs = await reported();
    assert.deepEqual(runs.map(([, end]) => end.output[0].content), ['Hello you', 'Hello you']);
  });

  both('a failure', async (openai) => {
    const call = openai.chat.completions.create({ model: 'm', messages: ask('outage') });
    await assert.rejects(call, (error) => error.status === 500);
    const runs = await reported();
    assert.equal(runs.length, 1);
    assert.equal(runs[0][1].error.type, 'InternalServerError');
    assert.equal(runs[0][1].attrs['http.response.status_code'], 500);
  });

  both('a call that is aborted', async (openai) => {
    const signal = AbortSignal.timeout(50);
    await assert.rejects(openai.chat.completions.create({ model: 'm', messages: ask('forever') }, { signal }));
    const [[, end]] = await reported();
    assert.equal(end.error.type, 'CancelledError');
  });

  both('what is more than a promise stays it', async (openai) => {
    const body = { model: 'm', messages: ask('x') };
    const { data, response, request_id: id } = await openai.chat.completions.create(body).withResponse();
    assert.equal(data.choices[0].message.content, 'Hello x');
    assert.equal(response.status, 200);
    assert.equal(id, 'req_1');
    const raw = await openai.chat.completions.create(body).asResponse();
    assert.equal((await raw.json()).choices[0].message.content, 'Hello x');
    const runs = await reported();
    assert.equal(runs[0][1].output[0].content, 'Hello x');
    assert.deepEqual(runs[1][1], { attrs: { 'http.response.status_code': 200 } });
  });

  both('what is more than a promise comes out of a span and a wrapped function', async (openai) => {
    const bodies = [];
    const fetch = async (...args) => {
      const response = await globalThis.fetch(...args);
      const { json } = response;
      response.json = function counted() {
        bodies.push('read');
        return json.call(this);
      };
      return response;
    };
    const bare = new OpenAI({ baseURL: server.baseURL, apiKey: 'none', maxRetries: 0, fetch });
    const create = (client, content = 'x') => client.chat.completions.create({ model: 'm', messages: ask(content) });
    const llm = sidelight.llm(create, { name: 'llm' });
    for (const client of [bare, openai]) {
      let made;
      const same = sidelight.span('same', () => (made = create(client)));
      assert.equal(same, made);
      const { data, response } = await same.withResponse();
      assert.equal(data.choices[0].message.content, 'Hello x');
      assert.equal(response.status, 200);
      assert.equal((await same).choices[0].message.content, 'Hello x');
      const raw = await sidelight.span('raw', () => create(client)).asResponse();
      assert.equal((await raw.json()).choices[0].message.content, 'Hello x');
      assert.equal((await llm(client)).choices[0].message.content, 'Hello x');
      await assert.rejects(llm(client, 'outage').catch((error) => { throw error; }), (error) => error.status === 500);
    }
    assert.equal(bodies.length, 3);
    const runs = (await reported()).filter(([{ name }]) => name !== 'chat m');
    assert.equal(runs.length, 8);
    for (const [{ name }, end] of runs) assert.ok(end, name);
    const llms = runs.filter(([{ name }]) => name === 'llm');
    assert.deepEqual(llms.map(([, end]) => end.error?.type), [undefined, 'InternalServerError', undefined, 'InternalServerError']);
    assert.equal(llms[0][1].output.choices[0].message.content, 'Hello x');
  });

  both('responses, plain and streamed', async (openai) => {
    const body = { model: 'gpt-4o', input: 'Ada', instructions: 'be kind' };
    assert.equal((await openai.responses.create(body)).output_text, 'Hello Ada');
    for await (const event of await openai.responses.create({ ...body, stream: true })) assert.ok(event.type);
    const runs = await reported();
    for (const [start, end] of runs) {
      assert.deepEqual(start.input, [{ role: 'system', content: 'be kind' }, { role: 'user', content: 'Ada' }]);
      assert.deepEqual(end.output, [{ role: 'assistant', content: 'Hello Ada' }]);
      assert.deepEqual(end.usage, RESPONSE_USAGE);
      assert.equal(end.finish, 'completed');
    }
    assert.deepEqual(runs[1][2], ['first_token']);
    assert.equal(runs[1][1].attrs['sidelight.chunks'], 2);
  });

  both('a response that is left early', async (openai) => {
    for await (const event of await openai.responses.create({ model: 'm', input: 'forever you', stream: true })) {
      if (event.delta === 'you') break;
    }
    const [[, end]] = await reported();
    assert.equal(end.error.type, 'GeneratorExit');
    assert.deepEqual(end.output, [{ role: 'assistant', content: 'Hello forever you' }]);
    assert.deepEqual(end.usage, { output_tokens: 3, 'sidelight.estimated': true });
  });

  both('embeddings', async (openai) => {
    const { data } = await openai.embeddings.create({ model: 'e', input: ['a', 'b'] });
    assert.deepEqual([...data[0].embedding], [0.5, 0.25]);
    const [[start, end]] = await reported();
    assert.equal(start.kind, 'embedding');
    assert.deepEqual(start.input, ['a', 'b']);
    assert.equal(end.usage.prompt_tokens, 8);
    assert.equal(end.attrs['gen_ai.embeddings.dimension.count'], 2);
    assert.equal(end.output, undefined);
  });

  both('helpers that call create() themselves: once', async (openai) => {
    const parsed = await openai.chat.completions.parse({ model: 'm', messages: ask('x') });
    assert.equal(parsed.choices[0].message.content, 'Hello x');
    const final = await openai.chat.completions.stream({ model: 'm', messages: ask('y') }).finalContent();
    assert.equal(final, 'Hello y');
    const runs = await reported();
    assert.deepEqual(runs.map(([, end]) => end.output[0].content), ['Hello x', 'Hello y']);
  });

  both('a call inside a span is its child, and wrapping twice is once', async (openai) => {
    sidelight.wrapOpenAI(openai);
    await sidelight.span('outer', () => openai.chat.completions.create({ model: 'm', messages: ask('x') }));
    const runs = await reported();
    assert.equal(runs.length, 2);
    assert.ok(runs[1][0].parent);
  });

  test(`${library}: a failure that nobody handles ends the process as without us`, async () => {
    const program = `
      const { OpenAI } = require(${JSON.stringify(library)});
      const openai = new OpenAI({ baseURL: '${server.baseURL}', apiKey: 'none', maxRetries: 0 });
      const [way] = process.argv.slice(1);
      if (way === 'wrapped') sidelight.wrapOpenAI(openai);
      const ask = () => openai.chat.completions.create({ model: 'm', messages: [{ role: 'user', content: 'outage' }] });
      (way === 'span' ? sidelight.span('s', ask) : ask()).then(() => {});`;
    for (const args of [['wrapped'], ['span'], ['bare']]) {
      const { code, err } = await runProgram(program, { socket: recorder.path, args });
      assert.equal(code, 1);
      assert.match(err, /500 The server had an error/);
    }
    await recorder.wait((all) => onlyRuns(all).length === 4);
  });
}

test('what the clients of a class say once it is patched, and twice is once', async () => {
  const { OpenAI } = require('openai');
  const old = new OpenAI({ baseURL: server.baseURL, apiKey: 'none' });
  assert.deepEqual(await sidelight.install({ only: ['openai'] }), ['openai']);
  assert.deepEqual(await sidelight.install({ only: ['openai'] }), ['openai']);
  const body = { model: 'm', messages: ask('x') };
  await old.chat.completions.create(body);
  await sidelight.wrapOpenAI(new OpenAI({ baseURL: server.baseURL, apiKey: 'none' })).chat.completions.create(body);
  assert.equal((await reported()).length, 2);
});
