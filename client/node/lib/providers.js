'use strict';

// The OpenAI client speaks to many: who it is, in the words of the GenAI semantic conventions.

const HOSTS = {
  'api.openai.com': 'openai',
  'openai.azure.com': 'azure.ai.openai',
  'cognitiveservices.azure.com': 'azure.ai.openai',
  'services.ai.azure.com': 'azure.ai.inference',
  'api.deepseek.com': 'deepseek',
  'api.groq.com': 'groq',
  'api.mistral.ai': 'mistral_ai',
  'api.perplexity.ai': 'perplexity',
  'api.x.ai': 'x_ai',
  'openrouter.ai': 'openrouter',
  'generativelanguage.googleapis.com': 'gcp.gemini',
};

const seen = new Map(); // base URL: provider
const MAX_SEEN = 100;

function providerOf(baseURL) {
  const known = seen.get(baseURL);
  if (known !== undefined) return known;
  if (seen.size >= MAX_SEEN) seen.clear();
  const provider = lookUp(baseURL);
  seen.set(baseURL, provider);
  return provider;
}

function lookUp(baseURL) {
  try {
    const { hostname } = new URL(baseURL);
    const host = Object.keys(HOSTS).find((name) => hostname === name || hostname.endsWith(`.${name}`));
    return HOSTS[host] ?? 'openai';
  } catch {
    return 'openai';
  }
}

module.exports = { providerOf };
