/* span.h - a stored span: its bytes, and reading them back.
 *
 * A span is kept as OTLP protobuf in two parts: `base`, the whole span without content, and
 * `content`, further `attributes` fields with prompts, completions, arguments and results.
 * Protobuf fields concatenate, so base alone and base followed by content are both a Span.
 * A run that is still open has the same form without an end time.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"
#include "base/str.h"
#include "core/kind.h"
#include "core/pb.h"

/* Before each record in a block, little-endian, 16 bytes. */
struct record_head {
	uint32_t base_len, content_len;
	uint16_t resource;  // index into the block's resources
	uint8_t kind;       // enum run_kind
	uint8_t status;     // enum run_status
	uint8_t flags;      // RECORD_*
	uint8_t request[3]; // of its request: the first bytes of the root's span id
};
_Static_assert(sizeof(struct record_head) == 16, "a record's head is 16 bytes on disk");

enum {
	RECORD_ROOT = 1,   // a root run: it has, or will have, an observation
	RECORD_TOTALS = 2, // its tokens are those of the runs below, shown again
	RECORD_EVENT = 4,  // observations log: an event that found no span
	RECORD_WRAPS = 8,  // an LLM run whose call is the LLM run right below it
};

/* The stored value of a run that is open: this head, base, content, resource, state. base is a
 * whole Span without an end; state is the run table's own. A base of no length is no span:
 * something else that the run table keeps. */
struct open_head {
	struct record_head record;
	uint8_t trace_id[16];
	uint32_t resource_len, state_len;
};
_Static_assert(sizeof(struct open_head) == 40, "an open run's head is 40 bytes on disk");

/* Borrowed: valid while the callback that brought it runs, or as its source says. */
struct span_record {
	uint64_t seq; // its number in the log; 0 for an open run
	struct record_head head;
	struct str base, content;
	struct str resource; // an encoded opentelemetry.proto.resource.v1.Resource
};

/* The fields of a span, decoded. All text is borrowed from the record. */
struct span_view {
	uint8_t trace_id[16], span_id[8], parent_id[8];
	bool has_parent;
	struct str name;
	uint32_t otlp_kind;        // 1 INTERNAL, 3 CLIENT
	uint64_t start_ns, end_ns; // unix; end 0 while running
	uint32_t status_code;      // OTLP: 0 unset, 1 ok, 2 error
	struct str status_message;
};

/** 0, or ERR_FORMAT. */
int span_view(struct span_view *ret, const struct span_record *rec);

/** Calls fn for each attribute of base, then, if content is set, of content. value is an encoded
 * AnyValue. fn returns false to stop. */
typedef bool attr_fn(void *ctx, struct str key, struct str value);
int span_attributes(const struct span_record *rec, bool content, attr_fn *fn, void *ctx);

/** The string value of an attribute; p is NULL when there is none. */
struct str span_attribute_str(const struct span_record *rec, const char *key);

/** service.name of an encoded Resource; p is NULL when there is none. */
struct str resource_service_name(struct str resource);

/** An encoded AnyValue as one JSON value: bytes as base64, an empty one as null. */
void any_value_json(struct json *j, struct str any);

/** The members "key": value of all attributes of an encoded message whose attributes are field
 * `field`: 9 in Span, 3 in Span.Event, 1 in Resource. */
void attributes_json_members(struct json *j, struct str message, uint32_t field);

/** One whole JSON object:
 *   trace_id span_id parent_span_id name kind start_time end_time latency_ms
 *   status {code, message} attributes {} events [{name, time, attributes}] service
 * now_ns (unix) gives a running span's latency so far; its end_time is null. */
void span_json(struct json *j, const struct span_record *rec, bool content, uint64_t now_ns);

/** The same without its braces, for an object with more members. */
void span_json_members(struct json *j, const struct span_record *rec, bool content,
                       uint64_t now_ns);
