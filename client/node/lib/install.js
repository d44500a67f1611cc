'use strict';

// Finds the libraries that this process uses, and has them report.
//
// A library is there twice, for import and for require, with classes of their own. Its CommonJS
// copy is taken at once if it was loaded already, or if it was require() that brought us here;
// its ES modules only by import(), which takes a while: so install() gives a promise.

const fs = require('node:fs');
const { createRequire } = require('node:module');
const path = require('node:path');
const { pathToFileURL } = require('node:url');
const { guarded } = require('./core.js');
const langchain = require('./langchain.js');
const openai = require('./openai.js');

const LIBRARIES = {
  langchain: {
    module: '@langchain/core/callbacks/manager',
    patch: ({ CallbackManager }) => langchain.patch(CallbackManager),
  },
  openai: { module: 'openai', patch: ({ OpenAI, default: Default }) => openai.patch(OpenAI ?? Default) },
};
const TWINS = [
  [/\.cjs$/, '.js'],
  [/\.cjs$/, '.mjs'],
  [/\.js$/, '.mjs'],
];

/** Where a module's CommonJS copies are: what the program, its directory and we would find. */
function copies(module) {
  const bases = [process.argv[1], path.join(process.cwd(), 'package.json'), __filename];
  const found = bases.map((base) => guarded(() => createRequire(path.resolve(base)).resolve(module))());
  return [...new Set(found.filter(Boolean))];
}

/** The file that import takes where require takes this one. */
function twin(file) {
  for (const [ending, other] of TWINS) {
    const candidate = file.replace(ending, other);
    if (candidate !== file && fs.existsSync(candidate)) return candidate;
  }
  return undefined;
}

async function importAndPatch(file, patch) {
  try {
    return patch(await import(pathToFileURL(file)));
  } catch {
    return false;
  }
}

/** Returns whether a copy is patched, or a promise of it. */
function* patchCopies({ module, patch }, imports) {
  for (const file of copies(module)) {
    const isLoaded = require.cache[file] !== undefined;
    if (!imports || isLoaded) yield guarded(() => patch(require(file)), false)();
    const other = imports ? twin(file) : undefined;
    if (other !== undefined) yield importAndPatch(other, patch);
  }
}

/** Reports all runs of the libraries that are here. Resolves to their names; never rejects. */
function install({ only } = {}, imports = false) {
  const wanted = Object.entries(LIBRARIES).filter(([name]) => only === undefined || only.includes(name));
  const started = wanted.map(([name, library]) => [name, Promise.all(patchCopies(library, imports))]);
  return Promise.all(started.map(async ([name, patched]) => ((await patched).some(Boolean) ? name : undefined))).then(
    (names) => names.filter(Boolean),
  );
}

module.exports = { install: guarded((options, imports) => install(options ?? {}, imports), Promise.resolve([])) };
