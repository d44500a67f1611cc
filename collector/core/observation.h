/* observation.h - a record of the observations log: its bytes, and reading them back.
 *
 * It is one of two things: an observation, or an event that found no span to live in
 * (RECORD_EVENT). Both begin with the same head.
 */
#pragma once

#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "core/span.h"

/* At the beginning of the record's base; root_len bytes follow, then the members. */
struct observation_head {
	uint8_t trace_id[16], span_id[8];
	uint64_t start_ns, created_ns; // unix
	uint32_t root_len;
	uint32_t reserved;
};
_Static_assert(sizeof(struct observation_head) == 48, "48 bytes on disk");

/* An observation, as core/request.h shows it. root is its root's span without content; meta and
 * content are members of one JSON object without its braces. Of an event, root is a Span with
 * nothing but that event, and start_ns is its time. */
struct observation_record {
	uint64_t seq;
	uint8_t trace_id[16], span_id[8];
	uint64_t start_ns, created_ns; // unix
	uint8_t kind, status;          // enum run_kind, run_status: the root's
	struct str root;
	struct str meta, content;
};

/** 0, or ERR_FORMAT. */
MUST_CHECK int observation_parse(struct observation_record *ret, const struct span_record *rec);

static inline bool observation_is_event(const struct span_record *rec)
{
	return rec->head.flags & RECORD_EVENT;
}
