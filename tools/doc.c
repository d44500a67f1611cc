#include "doc.h"

#include <jansson.h>

#include "base/clock.h"
#include "text.h"

struct str doc_str(const json_t *object, const char *key)
{
	const json_t *v = json_object_get(object, key);

	if (!json_is_string(v))
		return (struct str){NULL, 0};
	return (struct str){json_string_value(v), json_string_length(v)};
}

int64_t doc_int(const json_t *object, const char *key)
{
	const json_t *v = json_object_get(object, key);

	return json_is_integer(v) && json_integer_value(v) >= 0 ? json_integer_value(v) : -1;
}

enum run_status doc_status(const json_t *run)
{
	struct str code = doc_str(json_object_get(run, "status"), "code");

	for (int i = 0; i < STATUS_COUNT; i++)
		if (str_eq(code, str_of(status_word((enum run_status)i))))
			return (enum run_status)i;
	return STATUS_OK;
}

static uint64_t time_of(const json_t *object, const char *key)
{
	uint64_t ns;

	return text_time(doc_str(object, key), &ns) ? ns : 0;
}

static uint64_t latency_ns(const json_t *object)
{
	double ms = json_number_value(json_object_get(object, "latency_ms"));

	// Past 31 years it is no latency, and would not fit.
	return ms > 0 && ms < 1e12 ? (uint64_t)(ms * (double)NS_PER_MS + 0.5) : 0;
}

/* The first of these attributes that is there; the conventions differ in their words. */
static struct str attribute(const json_t *span, const char *a, const char *b)
{
	const json_t *attributes = json_object_get(span, "attributes");
	struct str s = doc_str(attributes, a);

	return s.p || !b ? s : doc_str(attributes, b);
}

static int64_t token_count(const json_t *span, const char *a, const char *b)
{
	const json_t *attributes = json_object_get(span, "attributes");
	int64_t n = doc_int(attributes, a);

	return n >= 0 ? n : doc_int(attributes, b);
}

static struct str model_of(const json_t *run)
{
	struct str model = doc_str(run, "model");

	if (!model.p)
		model = attribute(run, "gen_ai.request.model", "llm.model");
	return model.p ? model : attribute(run, "gen_ai.response.model", NULL);
}

struct trace_row doc_trace_row(const json_t *trace)
{
	const json_t *slowest = json_object_get(trace, "slowest");
	struct str kind = doc_str(trace, "kind");

	return (struct trace_row){
		.id = doc_str(trace, "trace_id"),
		.name = text_bare_name(kind, doc_str(trace, "name")),
		.model = model_of(trace),
		.status = doc_status(trace),
		.start_ns = time_of(trace, "start_time"),
		.duration_ns = latency_ns(trace),
		.tokens_in = doc_int(trace, "prompt_tokens"),
		.tokens_out = doc_int(trace, "completion_tokens"),
		.slowest = text_bare_name(doc_str(slowest, "kind"), doc_str(slowest, "name")),
		.slowest_ns = latency_ns(slowest),
	};
}

void doc_cost(char out[COST_SIZE], const json_t *trace)
{
	const json_t *cost = json_object_get(trace, "cost");

	text_cost(out, json_is_number(cost) ? json_number_value(cost) : -1,
	          doc_str(trace, "currency"), doc_int(trace, "calls_without_cost") > 0);
}

struct waterfall_span doc_span(const json_t *span)
{
	uint64_t start_ns = time_of(span, "start_time");
	uint64_t end_ns = time_of(span, "end_time");
	struct waterfall_span s = {
		.id = doc_str(span, "span_id"),
		.parent = doc_str(span, "parent_span_id"),
		.kind = doc_str(span, "kind"),
		.name = doc_str(span, "name"),
		.model = model_of(span),
		.status = doc_status(span),
		.start_ns = start_ns,
		.end_ns = end_ns ? end_ns : start_ns + latency_ns(span),
		.error_type = attribute(span, "error.type", NULL),
		.error_message = doc_str(json_object_get(span, "status"), "message"),
		.tokens_in = -1,
		.tokens_out = -1,
	};

	// Only the calls that spent them: a root that sums them up would show them twice.
	if (kind_of(s.kind) == KIND_LLM || kind_of(s.kind) == KIND_EMBEDDING) {
		s.tokens_in = token_count(span, "gen_ai.usage.input_tokens", "llm.prompt_tokens");
		s.tokens_out =
			token_count(span, "gen_ai.usage.output_tokens", "llm.completion_tokens");
	}
	return s;
}
