// What a run costs the agent: node bench/cost.mjs [DIRECTORY]
//
// A run is a start with 2 KB of prompt and an end with 1 KB of answer. On the caller: from the call
// to its return. CPU: of the whole process, with what is written in the event loop's turns. With a
// DIRECTORY in whose node_modules OpenTelemetry's SDK is, its span beside it: 12 attributes with
// the same texts, its batch processor, OTLP over HTTP to a server that takes all.

import { spawn } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';

const READER = `
const net = require('node:net');
const server = net.createServer((socket) => {
  socket.on('error', () => {});
  socket.on('close', () => server.close());
  const rest = Number(process.argv[2]);
  if (rest > 0) setInterval(() => socket.pause() && setTimeout(() => socket.resume(), rest), rest + 1);
  socket.resume();
});
server.listen(process.argv[1], () => console.log('ready'));`;
const SINK = `
const http = require('node:http');
const server = http.createServer((request, response) => {
  request.resume();
  request.on('end', () => response.end('{}'));
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
process.stdin.on('end', () => process.exit()).resume();`;

const PROMPT = [{ role: 'user', content: 'x'.repeat(2000) }];
const ANSWER = [{ role: 'assistant', content: 'y'.repeat(1000) }];
const USAGE = { input_tokens: 500, output_tokens: 250, total_tokens: 750 };
const OPTIONS = { kind: 'llm', input: PROMPT, model: 'gpt-4o', provider: 'openai' };
const PER_TURN = 5; // runs in one turn of the event loop
const PER_PAUSE = 15; // and between pauses, in which the reader catches up

function started(program, ...args) {
  const child = spawn(process.execPath, ['-e', program, ...args], { stdio: ['pipe', 'pipe', 'inherit'] });
  return new Promise((resolve) => {
    child.stdout.once('data', (data) => resolve([child, String(data).trim()]));
  });
}

function report(what, times, cpu) {
  times.sort((a, b) => a - b);
  const [p50, p99] = [0.5, 0.99].map((part) => times[Math.floor(times.length * part)] / 1e3);
  const each = cpu / times.length;
  const figures = [p50, p99, each].map((us) => us.toFixed(1).padStart(7));
  console.log(`${what.padEnd(38)} caller p50 ${figures[0]} µs  p99 ${figures[1]} µs   CPU ${figures[2]} µs a run`);
  return each;
}

function pause(i) {
  if (i % PER_PAUSE === 0) return sleep(2);
  return i % PER_TURN === 0 ? turn() : undefined;
}

async function measure(what, run, { count = 9000, settle = async () => {} } = {}) {
  for (let i = 0; i < 3000; i++) {
    run();
    await pause(i);
  }
  await settle();
  const times = [];
  const before = process.cpuUsage();
  for (let i = 0; i < count; i++) {
    const begin = process.hrtime.bigint();
    run();
    times.push(Number(process.hrtime.bigint() - begin));
    await pause(i);
  }
  await settle();
  const { user, system } = process.cpuUsage(before);
  return report(what, times, user + system);
}

async function bareLoop() {
  return measure('nothing: the loop and its clock', () => {});
}

async function ours() {
  const begin = performance.now();
  const { default: sidelight } = await import('../index.mjs');
  const { transport } = createRequire(import.meta.url)('../lib/core.js');
  console.log(`import ${(performance.now() - begin).toFixed(1)} ms`);
  const run = () => sidelight.span('chat', OPTIONS).end({ output: ANSWER, usage: USAGE });
  sidelight.configure({ socket: '/nonexistent/s.sock', buffer: 1 << 20 });
  await measure('no collector, buffer full', run);
  let last;
  for (const [what, rest] of [['reader', 0], ['reader that rests 5 ms', 5]]) {
    const socket = path.join(mkdtempSync(path.join(tmpdir(), 'sidelight-bench-')), 's.sock');
    const [child] = await started(READER, socket, rest);
    sidelight.configure({ socket, buffer: 64 << 20 });
    const settle = async () => {
      if (transport.full) throw new Error('the buffer was full: not all was sent');
      while (transport.outbox.bytes > 0) await sleep(1);
    };
    try {
      last = await measure(what, run, { settle });
    } finally {
      child.kill();
    }
    sidelight.configure({ socket: '/nonexistent/s.sock' });
  }
  return last;
}

async function openTelemetry(directory) {
  const require = createRequire(path.resolve(directory, 'package.json'));
  const load = (name) => import(pathToFileURL(require.resolve(name)));
  const { BasicTracerProvider, BatchSpanProcessor } = await load('@opentelemetry/sdk-trace-base');
  const { OTLPTraceExporter } = await load('@opentelemetry/exporter-trace-otlp-http');
  const [child, port] = await started(SINK);
  const exporter = new OTLPTraceExporter({ url: `http://127.0.0.1:${port}/v1/traces` });
  const processor = new BatchSpanProcessor(exporter, { maxQueueSize: 100_000 });
  const tracer = new BasicTracerProvider({ spanProcessors: [processor] }).getTracer('bench');
  const run = () => {
    const span = tracer.startSpan('chat gpt-4o');
    span.setAttributes({
      'gen_ai.operation.name': 'chat',
      'gen_ai.provider.name': 'openai',
      'gen_ai.request.model': 'gpt-4o',
      'gen_ai.response.model': 'gpt-4o-2024-08-06',
      'gen_ai.request.temperature': 0.5,
      'gen_ai.request.max_tokens': 1000,
      'gen_ai.usage.input_tokens': 500,
      'gen_ai.usage.output_tokens': 250,
      'gen_ai.response.finish_reasons': ['stop'],
      'gen_ai.response.id': 'chatcmpl-123',
      'gen_ai.input.messages': JSON.stringify(PROMPT),
      'gen_ai.output.messages': JSON.stringify(ANSWER),
    });
    span.end();
  };
  const figure = await measure('OpenTelemetry span, batched', run, { settle: () => processor.forceFlush() });
  child.stdin.end();
  return figure;
}

const bare = await bareLoop();
const figure = (await ours()) - bare;
if (process.argv[2]) {
  const other = (await openTelemetry(process.argv[2])) - bare;
  console.log(`a run / an OpenTelemetry span, CPU: ${(figure / other).toFixed(2)}`);
}
process.exit();
