#include "core/account.h"

#include "base/clock.h"
#include "core/otlp_fields.h"
#include "core/pb.h"

enum { FIRST_CHUNK_MAX_S = 1000000 };

bool account_text(struct str any, struct str *ret)
{
	struct pb_cursor c = pb_cursor_of(any);
	struct pb_field f;

	if (pb_next(&c, &f) != 1 || f.number != ANY_STRING || f.wire != PB_BYTES)
		return false;
	*ret = f.bytes;
	return true;
}

static bool any_count(struct str any, int64_t *ret)
{
	struct pb_cursor c = pb_cursor_of(any);
	struct pb_field f;

	if (pb_next(&c, &f) != 1 || f.number != ANY_INT || f.wire != PB_VARINT)
		return false;
	*ret = (int64_t)f.value;
	return true;
}

static bool any_true(struct str any)
{
	struct pb_cursor c = pb_cursor_of(any);
	struct pb_field f;

	return pb_next(&c, &f) == 1 && f.number == ANY_BOOL && f.wire == PB_VARINT && f.value;
}

/* Seconds, as a time that can be added up. */
static void scan_first_chunk(struct account *a, struct str any)
{
	struct pb_cursor c = pb_cursor_of(any);
	struct pb_field f;
	double seconds;

	if (pb_next(&c, &f) != 1 || f.number != ANY_DOUBLE || f.wire != PB_FIXED64)
		return;
	memcpy(&seconds, &f.value, sizeof(seconds));
	a->has_first_chunk = seconds >= 0 && seconds < FIRST_CHUNK_MAX_S;
	if (a->has_first_chunk)
		a->first_chunk_ns = (uint64_t)(seconds * (double)NS_PER_S + 0.5);
}

static void scan_usage(struct usage *u, struct str key, struct str any)
{
	if (str_is(key, "gen_ai.usage.input_tokens") || str_is(key, "llm.prompt_tokens"))
		any_count(any, &u->input);
	else if (str_is(key, "gen_ai.usage.output_tokens") || str_is(key, "llm.completion_tokens"))
		any_count(any, &u->output);
	else if (str_is(key, "llm.total_tokens"))
		any_count(any, &u->total);
	else if (str_is(key, "gen_ai.usage.cache_read.input_tokens"))
		any_count(any, &u->cache_read);
	else if (str_is(key, "gen_ai.usage.cache_creation.input_tokens"))
		any_count(any, &u->cache_write);
	else if (str_is(key, "gen_ai.usage.reasoning.output_tokens"))
		any_count(any, &u->reasoning);
}

static void scan_own_usage(struct usage *u, struct str key, struct str any)
{
	if (str_is(key, "sidelight.usage.total_tokens"))
		any_count(any, &u->total);
	else if (str_is(key, "sidelight.usage.estimated"))
		u->estimated = any_true(any);
}

static void scan_tool(struct account *a, struct str key, struct str any)
{
	if (str_is(key, "gen_ai.tool.name") || str_is(key, "tool.name") ||
	    str_is(key, "gen_ai.agent.name"))
		account_text(any, &a->what);
	else if (str_is(key, "gen_ai.tool.call.arguments") || str_is(key, "tool.input"))
		account_text(any, &a->input);
	else if (str_is(key, "gen_ai.tool.call.result") || str_is(key, "tool.output"))
		account_text(any, &a->output);
}

static void scan_llm(struct account *a, struct str key, struct str any)
{
	if (str_is(key, "gen_ai.provider.name") || str_is(key, "llm.provider"))
		account_text(any, &a->provider);
	else if (str_is(key, "gen_ai.request.model") || str_is(key, "llm.model"))
		account_text(any, &a->model);
	else if (str_is(key, "gen_ai.response.model"))
		account_text(any, &a->response_model);
	else if (str_is(key, "gen_ai.response.time_to_first_chunk"))
		scan_first_chunk(a, any);
	else
		scan_usage(&a->usage, key, any);
}

/* Most attributes are none of ours, which their first letters tell. */
static void scan_attribute(struct account *a, struct str key, struct str any)
{
	static const char family[] = "gen_ai.";
	struct str rest = key;

	if (str_is(key, "error.type")) {
		account_text(any, &a->error_type);
		return;
	}
	if (key.len > sizeof(family) && memcmp(key.p, family, sizeof(family) - 1) == 0)
		rest = (struct str){key.p + sizeof(family) - 1, key.len - sizeof(family) + 1};
	switch (rest.p ? rest.p[0] : '\0') {
	case 't': // tool
	case 'a': // agent
		scan_tool(a, key, any);
		break;
	case 'p': // provider
	case 'r': // request, response
	case 'u': // usage
	case 'l': // llm
		scan_llm(a, key, any);
		break;
	case 's': // sidelight
		scan_own_usage(&a->usage, key, any);
		break;
	default:
		break;
	}
}

static void scan_key_value(struct account *a, struct str kv)
{
	struct pb_cursor c = pb_cursor_of(kv);
	struct pb_field key, value;

	// Our own writer's order: key, value.
	if (pb_next(&c, &key) == 1 && key.number == KEYVALUE_KEY && key.wire == PB_BYTES &&
	    pb_next(&c, &value) == 1 && value.number == KEYVALUE_VALUE && value.wire == PB_BYTES)
		scan_attribute(a, key.bytes, value.bytes);
}

static void scan_status(struct account *a, struct str status)
{
	struct pb_cursor c = pb_cursor_of(status);
	struct pb_field f;

	while (pb_next(&c, &f) == 1)
		if (f.number == SPAN_STATUS_MESSAGE && f.wire == PB_BYTES)
			a->error_message = f.bytes;
}

void account_scan(struct account *a, struct str span_part)
{
	struct pb_cursor c = pb_cursor_of(span_part);
	struct pb_field f;

	while (pb_next(&c, &f) == 1) {
		if (f.number == SPAN_ATTRIBUTES && f.wire == PB_BYTES)
			scan_key_value(a, f.bytes);
		else if (f.number == SPAN_NAME && f.wire == PB_BYTES)
			a->name = f.bytes;
		else if (f.number == SPAN_STATUS && f.wire == PB_BYTES)
			scan_status(a, f.bytes);
	}
}

void account_total(struct account *a)
{
	struct usage *u = &a->usage;

	if (u->total < 0 && (u->input >= 0 || u->output >= 0))
		u->total = usage_sum(u);
}
