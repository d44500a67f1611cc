/* term.h - what the output can show, and writing it there.
 *
 * Everything is rendered into a buffer first and written by one function, so that a full disk is
 * an error and a reader that has gone away ends us quietly.
 */
#pragma once

#include <stdbool.h>

#include "base/buf.h"
#include "base/err.h"

#define TERM_WIDTH_MIN 60u
#define TERM_WIDTH_MAX 500u
#define TERM_WIDTH_UNKNOWN 100u

struct term {
	unsigned width; // columns
	bool colour;
	bool utf8; // else plain ASCII
};

/** Opens /dev/null where stdin, stdout or stderr is closed, lest a file of ours become one of them.
 */
void term_fill(void);

/** Looks at stdout and the environment. Sets the locale's character type. */
void term_detect(struct term *t);

/** Writes all of it to stdout and empties it. 0, -EPIPE, or another error. */
MUST_CHECK int term_write(struct buf *out);

/** "sidelight: message" on stderr, control characters replaced. */
void complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
