#include "core/encode.h"

#include "base/caps.h"
#include "base/clock.h"
#include "core/message.h"
#include "core/otlp_fields.h"
#include "core/pb.h"
#include "core/value.h"

/* opentelemetry/proto/trace/v1/trace.proto: the values of Span.kind, Status.code and flags. */
enum { SPAN_KIND_INTERNAL = 1, SPAN_KIND_CLIENT = 3 };
enum { SPAN_STATUS_ERROR = 2 };
enum { FLAG_SAMPLED = 0x01, FLAG_HAS_IS_REMOTE = 0x100, FLAG_IS_REMOTE = 0x200 };

/* An encoded request of the largest frame, with every name said twice, stays below this. */
enum { SCRATCH_CAP = 16 * MIB };

void encoder_init(struct encoder *e, enum convention convention, bool content, size_t max_value)
{
	*e = (struct encoder){.convention = convention, .content = content, .max_value = max_value};
	buf_init(&e->scratch, SCRATCH_CAP);
}

void encoder_deinit(struct encoder *e)
{
	buf_deinit(&e->scratch);
}

static void attr(struct buf *out, const char *key, struct str value)
{
	if (value.p)
		pb_attr_str(out, SPAN_ATTRIBUTES, str_of(key), value);
}

static void attr_count(struct buf *out, const char *key, int64_t count)
{
	if (count >= 0)
		pb_attr_int(out, SPAN_ATTRIBUTES, str_of(key), count);
}

void encode_prefix(struct buf *base, const struct span_ids *ids, uint64_t start_ns)
{
	uint32_t flags = FLAG_SAMPLED | FLAG_HAS_IS_REMOTE;

	if (ids->parent_is_remote)
		flags |= FLAG_IS_REMOTE;
	pb_bytes(base, SPAN_TRACE_ID, ids->trace_id, sizeof(ids->trace_id));
	pb_bytes(base, SPAN_SPAN_ID, ids->span_id, sizeof(ids->span_id));
	if (ids->has_parent)
		pb_bytes(base, SPAN_PARENT_SPAN_ID, ids->parent_id, sizeof(ids->parent_id));
	pb_fixed64(base, SPAN_START, start_ns);
	pb_fixed32(base, SPAN_FLAGS, flags);
}

static struct str join(struct buf *scratch, const char *word, const char *between, struct str name)
{
	buf_clear(scratch);
	buf_append_str(scratch, word);
	if (name.len) {
		buf_append_str(scratch, between);
		buf_append(scratch, name.p, name.len);
	}
	return (struct str){(const char *)scratch->data, scratch->len};
}

static struct str seams_name(struct encoder *e, const struct event *start)
{
	switch (start->kind) {
	case KIND_AGENT:
		return STR("agent.run");
	case KIND_LLM:
		return STR("llm.call");
	case KIND_TOOL:
		return join(&e->scratch, "tool", ".", start->name);
	default:
		return start->name;
	}
}

static struct str span_name(struct encoder *e, const struct event *start)
{
	struct str name;

	if (e->convention == CONVENTION_SEAMS)
		name = seams_name(e, start);
	else if (start->kind == KIND_LLM || start->kind == KIND_EMBEDDING)
		name = join(&e->scratch, operation_word(start->kind), " ", start->model);
	else if (start->kind == KIND_AGENT || start->kind == KIND_TOOL)
		name = join(&e->scratch, operation_word(start->kind), " ", start->name);
	else
		name = start->name;
	return name.len ? name : str_of(kind_word(start->kind));
}

static void genai_start(const struct event *start, struct buf *base)
{
	const char *operation = operation_word(start->kind);

	if (operation)
		attr(base, "gen_ai.operation.name", str_of(operation));
	attr(base, "gen_ai.provider.name", start->provider);
	attr(base, "gen_ai.request.model", start->model);
	attr(base, "gen_ai.conversation.id", start->session);
	if (start->kind == KIND_TOOL)
		attr(base, "gen_ai.tool.name", start->name);
	if (start->kind == KIND_AGENT)
		attr(base, "gen_ai.agent.name", start->name);
}

static void seams_start(const struct event *start, struct buf *base)
{
	if (start->kind == KIND_TOOL)
		attr(base, "tool.name", start->name);
	attr(base, "llm.provider", start->provider);
	attr(base, "llm.model", start->model);
	attr(base, "session_id", start->session);
}

/* A msgpack map of one key, made in scratch: how a single value becomes an attribute. */
static void attr_of_value(struct encoder *e, struct str key, bool as_list, struct str value,
                          struct buf *base)
{
	uint8_t head[] = {0x81, (uint8_t)(0xa0 | key.len)}; // fixmap of 1, fixstr of at most 31
	struct buf *map = &e->scratch;

	buf_clear(map);
	buf_append(map, head, sizeof(head));
	buf_append(map, key.p, key.len);
	if (as_list)
		buf_append_byte(map, 0x91); // fixarray of 1
	buf_append(map, value.p, value.len);
	if (!buf_error(map))
		value_attributes(base, SPAN_ATTRIBUTES, (struct str){(char *)map->data, map->len},
		                 CAP_NAME);
}

static void tags_attr(struct encoder *e, struct str tags, struct buf *base)
{
	if (tags.p && tags.len > 1) // one byte is an empty list
		attr_of_value(e, STR("sidelight.tags"), false, tags, base);
}

/* Notes that a value was longer than what is kept of it. */
static void note_cut(struct encoder *e, const char *field, size_t full, struct buf *base)
{
	char key[64] = "sidelight.cut.";

	e->cut++;
	strncat(key, field, sizeof(key) - strlen(key) - 1);
	attr_count(base, key, (int64_t)full);
}

/* A value as text: under `key`, and under `other` when that is not NULL. */
static void content_text(struct encoder *e, const char *field, const char *key, const char *other,
                         struct str value, struct buf *base, struct buf *content)
{
	size_t full;
	struct str text = value_text(value, e->max_value, &e->scratch, &full);

	if (!text.p)
		return;
	if (full > text.len)
		note_cut(e, field, full, base);
	if (key)
		value_attr_text(content, SPAN_ATTRIBUTES, str_of(key), text);
	if (other)
		value_attr_text(content, SPAN_ATTRIBUTES, str_of(other), text);
}

static void content_messages(struct encoder *e, bool is_input, struct str value, struct buf *base,
                             struct buf *content)
{
	struct json j;

	buf_clear(&e->scratch);
	jsonw_init(&j, &e->scratch);
	if (messages_json(&j, value, is_input ? "user" : "assistant", e->max_value))
		note_cut(e, is_input ? "input" : "output", value.len, base);
	if (!buf_error(&e->scratch))
		attr(content, is_input ? "gen_ai.input.messages" : "gen_ai.output.messages",
		     (struct str){(const char *)e->scratch.data, e->scratch.len});
}

static bool is_plain_text(struct str value)
{
	struct mp c = mp_of(value);
	struct mp_value v;

	return mp_read(&c, &v) == REFUSAL_NONE && v.type == MP_STR;
}

static void encode_content(struct encoder *e, enum run_kind kind, bool is_input, struct str value,
                           struct buf *base, struct buf *content)
{
	const char *field = is_input ? "input" : "output";
	bool genai = e->convention & CONVENTION_GENAI;
	bool talks = kind == KIND_LLM || kind == KIND_AGENT;

	if (!e->content || !value.p)
		return;
	if (genai && talks && (messages_are(value) || (kind == KIND_LLM && is_plain_text(value)))) {
		content_messages(e, is_input, value, base, content);
		return;
	}
	const char *key = is_input ? "sidelight.input" : "sidelight.output";
	const char *other = NULL;
	if (kind == KIND_TOOL) {
		key = is_input ? "gen_ai.tool.call.arguments" : "gen_ai.tool.call.result";
		if (e->convention & CONVENTION_SEAMS)
			other = is_input ? "tool.input" : "tool.output";
		if (!genai)
			key = NULL;
	} else if (kind == KIND_RETRIEVER && genai) {
		key = is_input ? "gen_ai.retrieval.query.text" : "gen_ai.retrieval.documents";
	}
	content_text(e, field, key, other, value, base, content);
}

void encode_start(struct encoder *e, const struct event *start, struct buf *base,
                  struct buf *content)
{
	bool client = (start->kind == KIND_LLM || start->kind == KIND_EMBEDDING) &&
	              e->convention != CONVENTION_SEAMS;

	pb_str(base, SPAN_NAME, span_name(e, start));
	pb_uint(base, SPAN_KIND, client ? SPAN_KIND_CLIENT : SPAN_KIND_INTERNAL);
	if (e->convention & CONVENTION_GENAI)
		genai_start(start, base);
	if (e->convention & CONVENTION_SEAMS)
		seams_start(start, base);
	if (start->kind_word.p)
		attr(base, "sidelight.kind", start->kind_word);
	attr(base, "user.id", start->user);
	tags_attr(e, start->tags, base);
	e->cut += value_new_attributes(base, SPAN_ATTRIBUTES, start->attrs, e->max_value);
	encode_content(e, start->kind, true, start->input, base, content);
}

void encode_point(struct encoder *e, const struct event *point, enum run_kind kind,
                  uint64_t since_start_ns, struct buf *base)
{
	size_t event = pb_begin(base, SPAN_EVENTS);

	pb_fixed64(base, EVENT_TIME, point->unix_ns);
	pb_str(base, EVENT_NAME, point->name);
	e->cut += value_attributes(base, EVENT_ATTRIBUTES, point->attrs, e->max_value);
	pb_end(base, event);
	if (kind == KIND_LLM && str_is(point->name, "first_token"))
		pb_attr_double(base, SPAN_ATTRIBUTES, STR("gen_ai.response.time_to_first_chunk"),
		               (double)since_start_ns / (double)NS_PER_S);
}

/* Most calls have none of it, and say so. */
static void attr_part(struct buf *out, const char *key, int64_t count)
{
	if (count > 0)
		attr_count(out, key, count);
}

static void genai_usage(const struct usage *u, struct buf *base)
{
	attr_count(base, "gen_ai.usage.input_tokens", u->input);
	attr_count(base, "gen_ai.usage.output_tokens", u->output);
	attr_count(base, "gen_ai.usage.cache_read.input_tokens", u->cache_read);
	attr_count(base, "gen_ai.usage.cache_creation.input_tokens", u->cache_write);
	attr_count(base, "gen_ai.usage.reasoning.output_tokens", u->reasoning);
	if (u->total != usage_sum(u)) // the conventions know no total
		attr_count(base, "sidelight.usage.total_tokens", u->total);
	attr_part(base, "gen_ai.usage.audio.input_tokens", u->audio_input);
	attr_part(base, "gen_ai.usage.audio.output_tokens", u->audio_output);
	attr_part(base, "sidelight.usage.cache_creation_5m.input_tokens", u->cache_write_5m);
	attr_part(base, "sidelight.usage.cache_creation_1h.input_tokens", u->cache_write_1h);
}

static void seams_usage(const struct usage *u, struct buf *base)
{
	attr_count(base, "llm.prompt_tokens", u->input);
	attr_count(base, "llm.completion_tokens", u->output);
	attr_count(base, "llm.total_tokens", u->total);
}

/* A list, one for each choice. */
static void finish_attr(struct encoder *e, struct str finish, struct buf *base)
{
	if (finish.p)
		attr_of_value(e, STR("gen_ai.response.finish_reasons"), is_plain_text(finish),
		              finish, base);
}

/* Cuts what is too long, and says so in the span. */
static struct str cut_text(struct encoder *e, const char *field, struct str text, struct buf *base)
{
	struct str cut = {text.p, text.p ? utf8_cut(text.p, text.len, e->max_value) : 0};

	if (cut.len < text.len)
		note_cut(e, field, text.len, base);
	return cut;
}

static void exception_event(const struct ending *ending, struct str message, struct str stack,
                            struct buf *base)
{
	size_t event = pb_begin(base, SPAN_EVENTS);
	pb_fixed64(base, EVENT_TIME, ending->end_ns);
	pb_str(base, EVENT_NAME, STR("exception"));
	value_attr_text(base, EVENT_ATTRIBUTES, STR("exception.type"), ending->error_type);
	value_attr_text(base, EVENT_ATTRIBUTES, STR("exception.message"), message);
	value_attr_text(base, EVENT_ATTRIBUTES, STR("exception.stacktrace"), stack);
	pb_end(base, event);
}

static void encode_status(struct encoder *e, enum run_kind kind, const struct ending *ending,
                          struct buf *base)
{
	if (ending->status == STATUS_OK)
		return;
	if (ending->status == STATUS_CANCELLED) {
		attr(base, "sidelight.status", STR("cancelled"));
		attr(base, "sidelight.cancelled_by", ending->error_type);
		return;
	}
	struct str message = cut_text(e, "error.message", ending->error_message, base);
	struct str stack = cut_text(e, "error.stack", ending->error_stack, base);
	attr(base, "error.type", ending->error_type.len ? ending->error_type : STR("_OTHER"));
	attr(base, "sidelight.evidence", ending->evidence);
	if (kind == KIND_TOOL && (e->convention & CONVENTION_SEAMS))
		value_attr_text(base, SPAN_ATTRIBUTES, STR("tool.error"), message);
	if (stack.p)
		exception_event(ending, message, stack, base);
	size_t status = pb_begin(base, SPAN_STATUS);
	if (message.len)
		pb_str(base, SPAN_STATUS_MESSAGE, message);
	pb_uint(base, SPAN_STATUS_CODE, SPAN_STATUS_ERROR);
	pb_end(base, status);
}

void encode_end(struct encoder *e, enum run_kind kind, const struct event *end,
                const struct ending *ending, const struct usage *usage, const struct usage *totals,
                struct buf *base, struct buf *content)
{
	bool seams = e->convention & CONVENTION_SEAMS;
	const struct usage *shown = seams && totals && !usage_is_known(usage) ? totals : usage;

	pb_fixed64(base, SPAN_END, ending->end_ns);
	if (e->convention & CONVENTION_GENAI)
		genai_usage(usage, base);
	if (shown->estimated)
		pb_attr_bool(base, SPAN_ATTRIBUTES, STR("sidelight.usage.estimated"), true);
	if (seams) {
		seams_usage(shown, base);
		double ms = (double)((ending->duration_ns + 5000) / 10000) / 100.0;
		pb_attr_double(base, SPAN_ATTRIBUTES, STR("latency_ms"), ms);
	}
	if (end) {
		if (e->convention & CONVENTION_GENAI)
			attr(base, "gen_ai.response.model", end->model);
		finish_attr(e, end->finish, base);
		e->cut += value_new_attributes(base, SPAN_ATTRIBUTES, end->attrs, e->max_value);
		if (content->len == 0) // the start knew of none
			encode_content(e, kind, true, end->input, base, content);
		encode_content(e, kind, false, end->output, base, content);
	}
	encode_status(e, kind, ending, base);
}

static void new_attr(struct buf *resource, struct str key, struct str value)
{
	struct str there = {(const char *)resource->data, resource->len};

	if (!value_has_attribute(there, RESOURCE_ATTRIBUTES, key))
		pb_attr_str(resource, RESOURCE_ATTRIBUTES, key, value);
}

void encode_resource(struct buf *out, struct str service, struct str resource, struct str sdk,
                     const struct resource_pair *extra, size_t extra_count)
{
	pb_attr_str(out, RESOURCE_ATTRIBUTES, STR("service.name"),
	            service.len ? service : STR("unknown_service"));
	value_new_attributes(out, RESOURCE_ATTRIBUTES, resource, CAP_NAME);
	for (size_t i = 0; i < extra_count; i++)
		new_attr(out, extra[i].key, extra[i].value);
	new_attr(out, STR("telemetry.sdk.name"), STR("sidelight"));
	if (sdk.len)
		new_attr(out, STR("telemetry.sdk.version"), sdk);
}
