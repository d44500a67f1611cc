'use strict';

// The types say what a program in TypeScript may do, from both kinds of module.

const assert = require('node:assert/strict');
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { test } = require('node:test');
const { PACKAGE } = require('./helpers.js');

const PROGRAM = `
const n: number = sidelight.span('a', { kind: 'llm', input: [1], other: true }, (run) => run.set({ output: 1 }).traceId.length);
const later: Promise<string> = sidelight.span('b', async () => 'x');
const run: sidelight.Run = sidelight.span('c');
run.end({ usage: { input_tokens: 1 } });
const add: (a: number, b: number) => number = sidelight.tool((a: number, b: number) => a + b, { name: 'add' });
const names: Promise<string[]> = sidelight.install({ only: ['langchain'] });
const sure: Promise<boolean> = sidelight.flush(100);
sidelight.trace('0').then((found) => found?.spans[0].status.code === 'ok');
// @ts-expect-error
sidelight.install({ only: ['nothing'] });
// @ts-expect-error
sidelight.span('d', { kind: 'nonsense' });
export { n, later, add, names, sure };
`;

const FILES = {
  'types.mts': "import * as sidelight from 'sidelight';\nimport whole from 'sidelight';\nwhole.flush();",
  'types.cts': "import sidelight = require('sidelight');",
};
const FLAGS = '--strict --noEmit --module node16 --target es2022 --lib es2022 --types node --skipLibCheck'.split(' ');

test('programs of both kinds compile', () => {
  const directory = fs.mkdtempSync(path.join(PACKAGE, 'node_modules', '.types-'));
  fs.mkdirSync(path.join(directory, 'node_modules'));
  fs.symlinkSync(PACKAGE, path.join(directory, 'node_modules', 'sidelight'));
  const files = Object.keys(FILES).map((name) => path.join(directory, name));
  for (const file of files) fs.writeFileSync(file, `${FILES[path.basename(file)]}\n${PROGRAM}`);
  const tsc = path.join(PACKAGE, 'node_modules', 'typescript', 'bin', 'tsc');
  const { status, stdout } = spawnSync(process.execPath, [tsc, ...FLAGS, ...files], { encoding: 'utf8', cwd: PACKAGE });
  fs.rmSync(directory, { recursive: true });
  assert.equal(status, 0, stdout);
});

test('what is exported is declared, for import and for require', async () => {
  const declared = [...fs.readFileSync(path.join(PACKAGE, 'index.d.ts'), 'utf8').matchAll(/^export (?:const|function) (\w+)/gm)];
  const names = new Set(declared.map(([, name]) => name));
  assert.deepEqual(new Set(Object.keys(require('..'))), names);
  const { default: whole, ...imported } = await import('../index.mjs');
  assert.deepEqual(new Set(Object.keys(imported)), names);
  assert.deepEqual(new Set(Object.keys(whole)), names);
});
