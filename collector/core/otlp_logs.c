#include "core/otlp_logs.h"

#include "base/json_scan.h"
#include "core/kind.h"
#include "core/observation.h"
#include "core/otlp_fields.h"
#include "core/pb.h"

enum { REQUEST_RESOURCE_LOGS = 1 };
enum { RESOURCE_LOGS_RESOURCE = 1, RESOURCE_LOGS_SCOPE_LOGS = 2 };
enum { SCOPE_LOGS_SCOPE = 1, SCOPE_LOGS_RECORDS = 2 };
enum { SCOPE_NAME = 1, SCOPE_VERSION = 2 };
enum {
	LOG_TIME = 1,
	LOG_SEVERITY = 2,
	LOG_SEVERITY_TEXT = 3,
	LOG_BODY = 5,
	LOG_ATTRIBUTES = 6,
	LOG_FLAGS = 8,
	LOG_TRACE_ID = 9,
	LOG_SPAN_ID = 10,
	LOG_OBSERVED_TIME = 11,
	LOG_EVENT_NAME = 12,
};
enum { SEVERITY_INFO = 9, SEVERITY_ERROR = 17 };

static void put_severity(struct buf *out, bool error)
{
	pb_uint(out, LOG_SEVERITY, error ? SEVERITY_ERROR : SEVERITY_INFO);
	pb_str(out, LOG_SEVERITY_TEXT, error ? STR("ERROR") : STR("INFO"));
}

static void put_body(struct buf *out, struct str text)
{
	size_t body = pb_begin(out, LOG_BODY);

	pb_str(out, ANY_STRING, text);
	pb_end(out, body);
}

static void put_ids(struct buf *out, const struct observation_record *o)
{
	// As its span's: sampled, and the parent's place is known. Only the low byte is the W3C's.
	pb_fixed32(out, LOG_FLAGS, 1);
	pb_bytes(out, LOG_TRACE_ID, o->trace_id, sizeof(o->trace_id));
	pb_bytes(out, LOG_SPAN_ID, o->span_id, sizeof(o->span_id));
	pb_fixed64(out, LOG_OBSERVED_TIME, o->created_ns);
}

/* Copies the attributes of an encoded message, which are its field `from`. */
static void copy_attributes(struct buf *out, struct str message, uint32_t from)
{
	struct pb_cursor c = pb_cursor_of(message);
	struct pb_field f;

	while (pb_next(&c, &f) > 0)
		if (f.number == from && f.wire == PB_BYTES)
			pb_str(out, LOG_ATTRIBUTES, f.bytes);
}

/* --- an event --- */

static struct str event_in(struct str span)
{
	struct pb_cursor c = pb_cursor_of(span);
	struct pb_field f;

	while (pb_next(&c, &f) > 0)
		if (f.number == SPAN_EVENTS && f.wire == PB_BYTES)
			return f.bytes;
	return (struct str){0};
}

static void put_event(struct buf *out, const struct observation_record *o)
{
	struct str event = event_in(o->root);
	struct pb_cursor c = pb_cursor_of(event);
	struct pb_field f;

	while (pb_next(&c, &f) > 0) {
		if (f.number == EVENT_TIME && f.wire == PB_FIXED64)
			pb_fixed64(out, LOG_TIME, f.value);
		if (f.number == EVENT_NAME && f.wire == PB_BYTES) {
			put_body(out, f.bytes);
			pb_str(out, LOG_EVENT_NAME, f.bytes);
		}
	}
	copy_attributes(out, event, EVENT_ATTRIBUTES);
	put_severity(out, false);
	put_ids(out, o);
}

/* --- an observation --- */

/* X(member of the observation, attribute). What the root's span says already is not said again. */
#define COUNTS(X)                                                                                  \
	X("prompt_tokens", "gen_ai.usage.input_tokens")                                            \
	X("completion_tokens", "gen_ai.usage.output_tokens")                                       \
	X("cached_tokens", "gen_ai.usage.cache_read.input_tokens")                                 \
	X("reasoning_tokens", "gen_ai.usage.reasoning.output_tokens")                              \
	X("total_tokens", "sidelight.total_tokens")                                                \
	X("llm_calls", "sidelight.llm_calls")                                                      \
	X("llm_calls_without_usage", "sidelight.llm_calls_without_usage")                          \
	X("calls_without_cost", "sidelight.calls_without_cost")                                    \
	X("tool_call_count", "sidelight.tool_calls")                                               \
	X("span_count", "sidelight.spans")

#define TEXTS(X)                                                                                   \
	X("provider", "gen_ai.provider.name")                                                      \
	X("model", "gen_ai.request.model")                                                         \
	X("currency", "sidelight.currency")

#define CONTENTS(X)                                                                                \
	X("user_message", "sidelight.user_message")                                                \
	X("agent_response", "sidelight.agent_response")

static bool match_key(void *ctx, struct str key, struct str value)
{
	struct str *sought = ctx;

	if (!str_eq(key, *sought))
		return true;
	*sought = (struct str){0};
	return false;
}

/* Whether the root's span has the attribute. */
static bool root_says(const struct observation_record *o, const char *attribute)
{
	struct span_record root = {.base = o->root};
	struct str sought = str_of(attribute);

	return span_attributes(&root, false, match_key, &sought) < 0 || !sought.p;
}

static void put_count(struct buf *out, const struct observation_record *o, const char *member,
                      const char *attribute)
{
	int64_t n;

	if (json_count(json_member(o->meta, member), &n) && !root_says(o, attribute))
		pb_attr_int(out, LOG_ATTRIBUTES, str_of(attribute), n);
}

static void put_text(struct buf *out, struct str members, const char *member, const char *attribute)
{
	struct str value = json_member(members, member);
	size_t before = out->len;
	size_t pair = pb_begin(out, LOG_ATTRIBUTES);

	pb_str(out, KEYVALUE_KEY, str_of(attribute));
	size_t any = pb_begin(out, KEYVALUE_VALUE);
	size_t text = pb_begin(out, ANY_STRING);
	bool there = json_text(out, value);
	pb_end(out, text);
	pb_end(out, any);
	pb_end(out, pair);
	if (!there)
		out->len = before;
}

static void put_text_unless_said(struct buf *out, const struct observation_record *o,
                                 const char *member, const char *attribute)
{
	if (!root_says(o, attribute))
		put_text(out, o->meta, member, attribute);
}

static void put_cost(struct buf *out, const struct observation_record *o)
{
	double cost;

	if (json_number(json_member(o->meta, "cost"), &cost) && !root_says(o, "sidelight.cost"))
		pb_attr_double(out, LOG_ATTRIBUTES, STR("sidelight.cost"), cost);
}

static void put_sums(struct buf *out, const struct observation_record *o)
{
#define X(member, attribute) put_text_unless_said(out, o, member, attribute);
	TEXTS(X)
#undef X
#define X(member, attribute) put_count(out, o, member, attribute);
	COUNTS(X)
#undef X
	put_cost(out, o);
	if (str_is(json_member(o->meta, "tokens_estimated"), "true") &&
	    !root_says(o, "sidelight.usage.estimated"))
		pb_attr_bool(out, LOG_ATTRIBUTES, STR("sidelight.usage.estimated"), true);
}

static void put_content(struct buf *out, const struct observation_record *o)
{
#define X(member, attribute) put_text(out, o->content, member, attribute);
	CONTENTS(X)
#undef X
	struct str calls = json_member(o->content, "tool_calls");
	if (calls.len > sizeof("[]") - 1)
		pb_attr_str(out, LOG_ATTRIBUTES, STR("sidelight.tool_call_list"), calls);
}

static void put_own(struct buf *out, const struct observation_record *o, uint64_t end_ns)
{
	uint64_t took_ns = end_ns > o->start_ns ? end_ns - o->start_ns : 0;

	if (!root_says(o, "sidelight.status")) // a cancelled one does
		pb_attr_str(out, LOG_ATTRIBUTES, STR("sidelight.status"),
		            str_of(status_word((enum run_status)o->status)));
	if (!root_says(o, "sidelight.duration"))
		pb_attr_double(out, LOG_ATTRIBUTES, STR("sidelight.duration"),
		               (double)took_ns / 1e9);
}

static void put_observation(struct buf *out, const struct observation_record *o, bool content)
{
	struct span_record root = {.base = o->root};
	struct span_view view = {.end_ns = o->created_ns};
	bool error = o->status == STATUS_ERROR;

	if (span_view(&view, &root) < 0)
		view = (struct span_view){.end_ns = o->created_ns};
	pb_fixed64(out, LOG_TIME, view.end_ns);
	put_severity(out, error);
	put_body(out, error && view.status_message.len ? view.status_message : view.name);
	copy_attributes(out, o->root, SPAN_ATTRIBUTES);
	put_sums(out, o);
	put_own(out, o, view.end_ns);
	if (content)
		put_content(out, o);
	put_ids(out, o);
	pb_str(out, LOG_EVENT_NAME, STR("sidelight.observation"));
}

/* --- a request --- */

static void put_record(struct buf *out, const struct span_record *rec, bool content)
{
	struct observation_record o;
	size_t record = pb_begin(out, SCOPE_LOGS_RECORDS);

	if (observation_parse(&o, rec) == 0) {
		if (observation_is_event(rec))
			put_event(out, &o);
		else
			put_observation(out, &o, content);
	}
	pb_end(out, record);
}

static bool same_resource(struct str a, struct str b)
{
	return (a.p == b.p && a.len == b.len) || str_eq(a, b);
}

static void put_scope(struct buf *out)
{
	size_t scope = pb_begin(out, SCOPE_LOGS_SCOPE);

	pb_str(out, SCOPE_NAME, STR("sidelight"));
	pb_str(out, SCOPE_VERSION, STR(SIDELIGHT_VERSION));
	pb_end(out, scope);
}

/* Writes records of one resource, until the limits; returns how many. done: in other groups. */
static size_t put_group(struct buf *out, const struct span_record *records, size_t count,
                        size_t done, const struct otlp_limits *limits)
{
	struct str resource = records[0].resource;
	size_t group = pb_begin(out, REQUEST_RESOURCE_LOGS);
	size_t n = 0;

	if (resource.len)
		pb_str(out, RESOURCE_LOGS_RESOURCE, resource);
	size_t scope_logs = pb_begin(out, RESOURCE_LOGS_SCOPE_LOGS);
	put_scope(out);
	while (n < count && same_resource(records[n].resource, resource) &&
	       done + n < limits->spans) {
		size_t before = out->len;
		put_record(out, &records[n], limits->content);
		if (done + n > 0 && out->len > limits->bytes) {
			out->len = before;
			break;
		}
		n++;
	}
	pb_end(out, scope_logs);
	pb_end(out, group);
	return n;
}

size_t otlp_log_request(struct buf *out, const struct span_record *records, size_t count,
                        const struct otlp_limits *limits)
{
	size_t done = 0;

	buf_clear(out);
	while (done < count) {
		size_t before = out->len;
		size_t n = put_group(out, records + done, count - done, done, limits);
		if (n == 0) {
			out->len = before;
			break;
		}
		done += n;
	}
	return done;
}
