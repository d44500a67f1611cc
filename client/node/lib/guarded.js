'use strict';

/** The function, but what it throws is lost: it is never the agent's. */
function guarded(work, otherwise) {
  return function guard(...args) {
    try {
      return work.apply(this, args);
    } catch {
      return otherwise;
    }
  };
}

module.exports = { guarded };
