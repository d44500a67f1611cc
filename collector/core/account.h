/* account.h - what a request needs to know of one of its spans, read from the span as it is stored.
 *
 * It knows the attributes of both conventions, and so reads what `encode` wrote. Nothing is copied:
 * texts are borrowed from the span.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"
#include "core/kind.h"
#include "core/usage.h"

/* Of one finished span. */
struct account {
	enum run_kind kind;
	enum run_status status;
	uint8_t span_id[8];
	struct str name; // the span's
	struct str what; // the tool's or agent's own name
	struct str provider, model, response_model;
	bool wraps;         // an LLM run right below it is the same call
	struct usage usage; // unknown where a run below it reports the same
	uint64_t end_ns, duration_ns;
	bool has_first_chunk;
	uint64_t first_chunk_ns;              // after the start
	struct str input, output;             // content of a tool; p NULL: not captured
	struct str error_type, error_message; // p NULL: none
};

/** Reads what a part of a span says (name, status, attributes) into an account that was zeroed, its
 * usage unknown. */
void account_scan(struct account *a, struct str span_part);

/** Input and output added up, where a span says no total. */
void account_total(struct account *a);

/** The text of an AnyValue; false: it is none, and *ret stays as it is. */
bool account_text(struct str any, struct str *ret);
