'use strict';

const clock = require('./clock.js');
const { runEvent } = require('./core.js');
const { MAX_TEXT } = require('./pack.js');

const FIRST_MS = 100; // after its first piece an answer is told for the first time,
const LONGEST_MS = 1000; // then after twice as long each time, up to this

/** What an answer has said since the collector was last told, which keeps it in case that we are
 * killed before the answer's end. There is no timer: whoever adds to it looks whether it is due. */
class News {
  constructor() {
    this.said = '';
    this.told = 0; // bytes, with those that were left out
    this.left = 0;
    this.wait = FIRST_MS;
    this.due = Infinity;
  }

  /** The first piece is there. */
  begin() {
    this.due = clock.ms() + FIRST_MS;
  }

  /** What comes faster than it can be told is left out, which the next one's place says. */
  add(piece) {
    if (typeof piece !== 'string') return;
    if (this.said.length < MAX_TEXT) this.said += piece;
    else this.left += Buffer.byteLength(piece);
  }

  /** Tells it if it is due; the tokens are those of the whole answer. */
  look(id, tokens) {
    const now = clock.ms();
    if (now < this.due || !(this.said || tokens > 0)) return;
    this.wait = Math.min(2 * this.wait, LONGEST_MS);
    this.due = now + this.wait;
    const attrs = {};
    if (this.said) {
      attrs.text = this.said;
      attrs.at = this.told;
      this.told += Buffer.byteLength(this.said) + this.left;
      this.said = '';
      this.left = 0;
    }
    if (tokens > 0) attrs.tokens = tokens;
    runEvent(id, 'partial_output', attrs);
  }
}

module.exports = { News };
