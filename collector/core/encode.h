/* encode.h - from events to the bytes of an OTLP span.
 *
 * A run's start, points and end are each encoded once, when they arrive, as fields of one Span;
 * joined behind the prefix they are that span. What is content (prompts, completions, arguments,
 * results) goes to a buffer of its own. Attribute names are those of the GenAI semantic
 * conventions 1.41.1, of the "seams" app, or both.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "core/event.h"
#include "core/kind.h"
#include "core/usage.h"

struct encoder {
	enum convention convention;
	bool content;     // whether content is captured at all
	size_t max_value; // bytes kept of one value
	struct buf scratch;
	uint64_t cut; // values cut so far
};

void encoder_init(struct encoder *e, enum convention convention, bool content, size_t max_value);
void encoder_deinit(struct encoder *e);

struct span_ids {
	uint8_t trace_id[16], span_id[8], parent_id[8];
	bool has_parent;
	bool parent_is_remote; // it came by a traceparent
};

/** The fields that are known only when a run's trace is: ids, flags, start. At most PREFIX_MAX. */
enum { PREFIX_MAX = 56 };
void encode_prefix(struct buf *base, const struct span_ids *ids, uint64_t start_ns);

/** A start's fields. */
void encode_start(struct encoder *e, const struct event *start, struct buf *base,
                  struct buf *content);

/** A point's fields. since_start_ns places a first_token. */
void encode_point(struct encoder *e, const struct event *point, enum run_kind kind,
                  uint64_t since_start_ns, struct buf *base);

/* How a run ended, whoever says so. */
struct ending {
	enum run_status status;
	uint64_t end_ns; // unix
	uint64_t duration_ns;
	struct str error_type, error_message, error_stack; // STATUS_ERROR and STATUS_CANCELLED
	struct str evidence;                               // of a lost process; p NULL: none
};

/** An end's fields; end is NULL when the run was closed without one. usage is what was read of
 * end->usage. totals: the tokens of the whole request, for a root; else NULL. */
void encode_end(struct encoder *e, enum run_kind kind, const struct event *end,
                const struct ending *ending, const struct usage *usage, const struct usage *totals,
                struct buf *base, struct buf *content);

/** A Resource: service.name, the resource's own attributes, then extra ones (key, value pairs) that
 * it doesn't have. */
struct resource_pair {
	struct str key, value;
};
void encode_resource(struct buf *out, struct str service, struct str resource, struct str sdk,
                     const struct resource_pair *extra, size_t extra_count);
