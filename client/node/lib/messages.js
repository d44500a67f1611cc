'use strict';

// Reads LangChain's messages and results, from their fields. No import of LangChain: what has
// the fields is a message, of whichever copy of LangChain it comes.

const ROLES = {
  human: 'user',
  ai: 'assistant',
  generic: undefined, // it names its own
  system: 'system',
  developer: 'system',
  tool: 'tool',
  function: 'tool',
};

function typeOf(value) {
  if (typeof value.getType === 'function') return value.getType();
  return typeof value._getType === 'function' ? value._getType() : undefined;
}

function isMessage(value) {
  return typeof value.getType === 'function' || typeof value._getType === 'function';
}

/** A message as the protocol words it. */
function message(msg) {
  const type = typeOf(msg);
  const out = { role: ROLES[type] ?? msg.role ?? type, content: msg.content };
  if (msg.name) out.name = msg.name;
  const calls = [...(msg.tool_calls ?? []), ...(msg.invalid_tool_calls ?? [])];
  if (calls.length > 0) out.tool_calls = calls.map(({ id, name, args }) => ({ id, name, args }));
  if (msg.tool_call_id) out.tool_call_id = msg.tool_call_id;
  return out;
}

/** A message in any of the forms that LangChain takes. */
function anyMessage(msg) {
  if (typeof msg === 'string') return { role: 'user', content: msg };
  if (Array.isArray(msg) && msg.length === 2) return { role: msg[0], content: msg[1] };
  return typeof msg === 'object' && msg !== null && isMessage(msg) ? message(msg) : msg;
}

function conversation(inputs) {
  const messages = inputs?.messages;
  if (Array.isArray(messages)) return messages.map(anyMessage);
  return messages === undefined || messages === null ? inputs : [anyMessage(messages)];
}

/** The answer of a root run: of a conversation the last message. */
function lastWords(outputs) {
  const messages = outputs?.messages;
  if (Array.isArray(messages) && messages.length > 0) return [anyMessage(messages.at(-1))];
  if (typeof outputs === 'object' && outputs !== null && isMessage(outputs)) return [message(outputs)];
  return outputs;
}

function nameOf(serialized, runName) {
  return runName ?? serialized?.name ?? serialized?.id?.at?.(-1);
}

/** A graph inside another run: an agent that is a tool or a node of another one. */
function isAgent(name, metadata) {
  return name === 'LangGraph' || (Boolean(name) && metadata?.lc_agent_name === name);
}

/** What an LLMResult says, as fields of an end. */
function answer({ generations, llmOutput }) {
  const choices = generations?.[0] ?? [];
  const read = choices.map(choice);
  const metadata = read.find(({ info }) => info)?.info ?? {};
  const finish = read.map(({ info }) => info?.finish_reason ?? info?.stop_reason).filter(Boolean);
  const id = read.map(({ id: own }) => own).find(Boolean);
  return {
    output: read.map(({ said }) => said),
    usage: read.find(({ usage }) => usage)?.usage ?? llmOutput?.tokenUsage ?? llmOutput?.usage,
    model: metadata.model_name ?? metadata.model ?? llmOutput?.model_name,
    finish: finish.length > 1 ? finish : finish[0],
    attrs: id ? { 'gen_ai.response.id': id } : undefined,
  };
}

function choice({ text, message: msg, generationInfo }) {
  if (!msg) return { said: { role: 'assistant', content: text }, info: generationInfo };
  const info = { ...generationInfo, ...msg.response_metadata };
  return { said: message(msg), info, usage: msg.usage_metadata, id: responseId(info.id ?? msg.id) };
}

/** The provider's id of an answer, not the one that LangChain makes up. */
function responseId(id) {
  return typeof id !== 'string' || /^(lc_|run-)/.test(id) ? undefined : id;
}

/** What a retriever found. */
function found(documents) {
  return documents.map(({ pageContent, metadata }) => ({ content: pageContent, metadata }));
}

module.exports = { answer, anyMessage, conversation, found, isAgent, isMessage, lastWords, message, nameOf };
