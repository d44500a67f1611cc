/* waterfall.h - a trace as lines of text: the tree, and bars to scale.
 *
 * Pure: spans in, lines out. Each span is one line of label, duration, bar and remarks; errors
 * and notes stand beneath it. Any list of spans makes a tree: one whose parent is missing
 * stands at the top, and a ring of parents is cut open.
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
struct waterfall_span {
	struct str id, parent; // parent.p NULL: none
	struct str kind, name, model;
	enum run_status status;
	uint64_t start_ns;
	uint64_t end_ns;               // of a running span: now
	int64_t tokens_in, tokens_out; // negative: not known
	struct str error_type, error_message;
	struct str notes; // further lines beneath the span; empty: none
};

/** Appends the lines for spans (parents first, siblings in the order given). 0 or -ENOMEM; other
 * errors stick in out. */
MUST_CHECK int waterfall(struct buf *out, const struct term *t, const struct waterfall_span *spans,
                         size_t n);
