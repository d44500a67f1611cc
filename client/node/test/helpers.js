'use strict';

const { spawn } = require('node:child_process');
const http = require('node:http');
const path = require('node:path');
const { test } = require('node:test');
const { temporary } = require('./recorder.js');

const PACKAGE = path.join(__dirname, '..');

/** Runs a program that can require and import this package; resolves to how it ended. */
function runProgram(source, { socket, args = [], module = false, env = {}, onStart = () => {} } = {}) {
  const preface = module
    ? `import sidelight from ${JSON.stringify(path.join(PACKAGE, 'index.mjs'))};\n`
    : `const sidelight = require(${JSON.stringify(PACKAGE)});\n`;
  const flags = module ? ['--input-type=module'] : [];
  const child = spawn(process.execPath, [...flags, '-e', preface + source, ...args], {
    cwd: PACKAGE,
    env: { ...process.env, SIDELIGHT_SOCKET: socket, TRACEPARENT: '', NODE_OPTIONS: '', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let out = '';
  let err = '';
  child.stdout.on('data', (data) => (out += data));
  child.stderr.on('data', (data) => (err += data));
  onStart(child);
  return new Promise((resolve) => {
    child.on('close', (code, signal) => resolve({ code, signal, out, err }));
  });
}

const binary = process.env.SIDELIGHTD;
const noDaemon = binary ? false : 'SIDELIGHTD names no collector';

/** A test that needs the collector. */
function daemonTest(name, options, work) {
  if (typeof options === 'function') return daemonTest(name, {}, options);
  return test(name, { ...options, skip: noDaemon || options.skip }, work);
}

/** The real collector, in a directory of its own; `stop()` ends it. Undefined if there is none. */
async function startDaemon() {
  if (noDaemon) return undefined;
  const directory = temporary();
  const socket = path.join(directory, 's.sock');
  const args = ['--socket', socket, '--data', path.join(directory, 'data'), '--http', '127.0.0.1:0'];
  const child = spawn(binary, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  const ended = new Promise((resolve) => child.on('close', resolve));
  await new Promise((resolve, reject) => {
    let said = '';
    child.stderr.on('data', (data) => {
      said += data;
      if (said.includes('ready ')) resolve();
    });
    ended.then(() => reject(new Error(`the collector ended: ${said}`)));
  });
  const stop = async () => {
    child.kill('SIGTERM');
    await ended;
  };
  return { socket, api: path.join(directory, 's-api.sock'), pid: child.pid, stop };
}

/** What the HTTP API on a Unix socket answers. */
function get(socketPath, url) {
  return new Promise((resolve, reject) => {
    http.get({ socketPath, path: url, headers: { host: 'localhost' } }, (response) => {
      let body = '';
      response.on('data', (data) => (body += data));
      response.on('end', () => resolve(JSON.parse(body)));
    }).on('error', reject);
  });
}

module.exports = { PACKAGE, daemonTest, get, runProgram, startDaemon };
