/* table.h - the list of traces, as columns that fit the terminal.
 *
 * Pure. On a narrow terminal names are cut first; then the model and the tokens are left out.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"
#include "core/kind.h"
#include "term.h"

/* All text is borrowed. */
struct trace_row {
	struct str id, name, model;
	enum run_status status;
	uint64_t start_ns, duration_ns; // of a running one: its age
	int64_t tokens_in, tokens_out;  // negative: not known
	struct str slowest;             // p NULL: none
	uint64_t slowest_ns;
};

/** Appends a heading and one line for each row. now_ns decides which times need a date. 0 or
 * -ENOMEM; other errors stick in out. */
MUST_CHECK int table(struct buf *out, const struct term *t, const struct trace_row *rows, size_t n,
                     uint64_t now_ns);
