// All state is in the CommonJS modules: a process that both imports and requires us has it once.
import { createRequire } from 'node:module';

const sidelight = createRequire(import.meta.url)('./index.js');
const { install: installRequired } = createRequire(import.meta.url)('./lib/install.js');

export const {
  agent,
  chain,
  configure,
  event,
  flush,
  handler,
  llm,
  retriever,
  span,
  tool,
  trace,
  traceparent,
  watch,
  wrapOpenAI,
} = sidelight;

export const install = (options) => installRequired(options, true);

export default { ...sidelight, install };
