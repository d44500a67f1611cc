/* event.h - a frame's body, decoded strictly.
 *
 * A decoded event borrows from the frame and allocates nothing. Values of any type (input,
 * output, usage, tags, attrs) are kept as validated msgpack and walked by those who need them.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/stats.h"
#include "base/str.h"
#include "core/id.h"
#include "core/kind.h"
#include "core/mp.h"

enum event_type {
	EVENT_HELLO = 0,
	EVENT_START = 1,
	EVENT_END = 2,
	EVENT_POINT = 3, // something during a run; "partial_output" is for its run alone
	EVENT_FLUSH = 4,
	EVENT_FLUSHED = 5, // collector to client
	EVENT_DROPPED = 6,
	EVENT_BYE = 7,
	EVENT_ERROR = 8, // collector to client
	EVENT_CHILD = 9, // a process that the client watches, and how it ended
};

/* Absent text and values have p NULL. */
struct event {
	enum event_type type;
	struct run_id run;
	uint64_t unix_ns, mono_ns;
	uint32_t unknown_keys; // fields of this version's maps that it does not know
	uint32_t cut_fields;   // texts that were cut at CAP_NAME

	// start, end
	enum run_kind kind;
	struct str kind_word; // set only when it is none of the known kinds
	struct str name;      // also the point's
	bool has_parent;
	struct run_id parent;
	struct str traceparent, session, user, model, provider;
	bool gather;              // roots of its trace into its request
	bool is_partial;          // a point of what the answer has said
	struct str input, output; // one msgpack value
	struct str tags;          // msgpack array of str
	struct str attrs;         // msgpack map with str keys, none twice; also the point's map
	struct str usage;         // msgpack map
	struct str finish;        // msgpack str or array of str
	bool has_error;
	struct str error_type, error_message, error_stack;

	// a point that is a partial output
	struct str text; // what the answer said since the last one
	int64_t at;      // bytes that were said before; -1: not told
	int64_t tokens;  // of all of it; 0: not told

	// hello
	int64_t version;
	struct str service, sdk;
	struct str resource; // msgpack map with str keys, none twice
	int64_t pid;         // also the child's
	int64_t owner;       // the process that its runs end with; 0: its own

	// child; -1: absent
	int64_t exit, signal;

	// flush, dropped
	uint64_t token;
	uint64_t dropped;
	struct str reason;
};

/** Decodes one frame's body (without its length prefix), as a client may send it: the collector's
 * own messages are REFUSED_UNKNOWN_TYPE. REFUSAL_NONE, or why it is refused; then *ret is
 * undefined. Of several faults the one that stands first in the bytes is told. Texts longer than
 * CAP_NAME are cut, except traceparent, error_message, error_stack and finish. */
MUST_CHECK enum refusal event_decode(struct event *ret, const uint8_t *body, size_t len);
