'use strict';

const { flush, transport } = require('./core.js');

const MAX_ANSWER = 64 * 1024 * 1024;

/** The HTTP API stands beside the socket that events go to. */
function apiSocket() {
  const path = transport.connectedTo ?? transport.paths()[0];
  return `${path.replace(/\.sock$/, '')}-api.sock`;
}

/** One trace with all its spans as the collector shows it, after all that was reported so far;
 * null if there is none, or no collector. Never rejects. */
async function trace(traceId, timeoutMs = 2000) {
  try {
    await flush(timeoutMs);
    const { status, body } = await get(`/api/traces/${encodeURIComponent(traceId)}`, timeoutMs);
    return status === 200 ? JSON.parse(body) : null;
  } catch {
    return null;
  }
}

function get(path, timeout) {
  const http = require('node:http'); // it takes a while to load, and most programs read no trace
  return new Promise((resolve, reject) => {
    const options = { socketPath: apiSocket(), path, timeout, agent: false, headers: { host: 'localhost' } };
    const request = http.get(options, (response) => {
      const parts = [];
      let bytes = 0;
      response.on('data', (part) => {
        bytes += part.length;
        if (bytes > MAX_ANSWER) request.destroy(new Error('the answer is too long'));
        parts.push(part);
      });
      response.on('error', reject);
      response.on('end', () => resolve({ status: response.statusCode, body: Buffer.concat(parts).toString() }));
    });
    request.on('timeout', () => request.destroy(new Error('timeout')));
    request.on('error', reject);
  });
}

module.exports = { trace };
