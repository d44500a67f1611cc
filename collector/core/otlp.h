/* otlp.h - OTLP trace requests from stored spans, and what a backend answers.
 *
 * Spans are stored encoded, so a request is made by splicing their bytes after a few computed
 * lengths. Consecutive spans of one resource share a ResourceSpans.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"
#include "core/span.h"

struct otlp_limits {
	size_t spans;
	size_t bytes;
	bool content; // prompts, completions, arguments and results too
};

/** Writes an ExportTraceServiceRequest into out (cleared first) with as many of the spans, from
 * the first on, as the limits allow, and one in any case. Returns how many. */
size_t otlp_request(struct buf *out, const struct span_record *spans, size_t count,
                    const struct otlp_limits *limits);

/* What an ExportTraceServiceResponse says, borrowed from its bytes. */
struct otlp_answer {
	uint64_t rejected;  // partial_success.rejected_spans; negative counts as 0
	struct str message; // partial_success.error_message
};

/** 0, or ERR_FORMAT. */
MUST_CHECK int otlp_answer(struct otlp_answer *ret, struct str body);

/** The message of a google.rpc.Status, the body of an error; p is NULL when there is none. */
struct str otlp_status_message(struct str body);
