'use strict';

// What is published.

const assert = require('node:assert/strict');
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { test } = require('node:test');
const { PACKAGE } = require('./helpers.js');

const npm = spawnSync('npm', ['pack', '--dry-run', '--json'], { cwd: PACKAGE, encoding: 'utf8' });
const skip = npm.error && 'there is no npm';

test('the tarball has all that runs, its licence, and nothing else', { skip }, () => {
  const [{ files }] = JSON.parse(npm.stdout);
  const packed = files.map((file) => file.path).sort();
  const lib = fs.readdirSync(path.join(PACKAGE, 'lib')).map((name) => `lib/${name}`);
  const top = ['LICENSE', 'README.md', 'index.d.mts', 'index.d.ts', 'index.js', 'index.mjs', 'package.json', 'register.mjs'];
  assert.deepEqual(packed, [...top, ...lib].sort());
});

test("the licence is the project's", () => {
  const texts = [PACKAGE, path.join(PACKAGE, '..', '..')].map((directory) => fs.readFileSync(path.join(directory, 'LICENSE'), 'utf8'));
  assert.equal(texts[0], texts[1]);
});
