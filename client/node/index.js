'use strict';

const { configure, flush, watch } = require('./lib/core.js');
const { install } = require('./lib/install.js');
const { getHandler } = require('./lib/langchain.js');
const { wrapOpenAI } = require('./lib/openai.js');
const { event, span, traceparent } = require('./lib/runs.js');
const { trace } = require('./lib/trace.js');
const { wrapper } = require('./lib/wrap.js');

exports.agent = wrapper('agent');
exports.chain = wrapper('chain');
exports.configure = configure;
exports.event = event;
exports.flush = flush;
exports.handler = getHandler;
exports.install = (options) => install(options, false);
exports.llm = wrapper('llm');
exports.retriever = wrapper('retriever');
exports.span = span;
exports.tool = wrapper('tool');
exports.trace = trace;
exports.traceparent = traceparent;
exports.watch = watch;
exports.wrapOpenAI = wrapOpenAI;
