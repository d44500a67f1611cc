#include "core/metrics.h"

#include <stdlib.h>

#include "core/request.h"

#define UNKNOWN "unknown"
#define OTHER "__other__"

/* --- bounds: X(value, label); times in nanoseconds, their labels in seconds --- */

#define REQUEST_BOUNDS(X)                                                                          \
	X(500000000, "0.5")                                                                        \
	X(1000000000, "1")                                                                         \
	X(2000000000, "2")                                                                         \
	X(5000000000, "5")                                                                         \
	X(10000000000, "10")                                                                       \
	X(30000000000, "30")                                                                       \
	X(60000000000, "60")

/* Those that the conventions advise. */
#define CALL_BOUNDS(X)                                                                             \
	X(10000000, "0.01")                                                                        \
	X(20000000, "0.02")                                                                        \
	X(40000000, "0.04")                                                                        \
	X(80000000, "0.08")                                                                        \
	X(160000000, "0.16")                                                                       \
	X(320000000, "0.32")                                                                       \
	X(640000000, "0.64")                                                                       \
	X(1280000000, "1.28")                                                                      \
	X(2560000000, "2.56")                                                                      \
	X(5120000000, "5.12")                                                                      \
	X(10240000000, "10.24")                                                                    \
	X(20480000000, "20.48")                                                                    \
	X(40960000000, "40.96")                                                                    \
	X(81920000000, "81.92")

#define TOKEN_BOUNDS(X)                                                                            \
	X(1, "1")                                                                                  \
	X(4, "4")                                                                                  \
	X(16, "16")                                                                                \
	X(64, "64")                                                                                \
	X(256, "256")                                                                              \
	X(1024, "1024")                                                                            \
	X(4096, "4096")                                                                            \
	X(16384, "16384")                                                                          \
	X(65536, "65536")                                                                          \
	X(262144, "262144")                                                                        \
	X(1048576, "1048576")                                                                      \
	X(4194304, "4194304")                                                                      \
	X(16777216, "16777216")                                                                    \
	X(67108864, "67108864")

#define AGENT_BOUNDS(X)                                                                            \
	X(100000000, "0.1")                                                                        \
	X(200000000, "0.2")                                                                        \
	X(400000000, "0.4")                                                                        \
	X(800000000, "0.8")                                                                        \
	X(1600000000, "1.6")                                                                       \
	X(3200000000, "3.2")                                                                       \
	X(6400000000, "6.4")                                                                       \
	X(12800000000, "12.8")                                                                     \
	X(25600000000, "25.6")                                                                     \
	X(51200000000, "51.2")                                                                     \
	X(102400000000, "102.4")                                                                   \
	X(204800000000, "204.8")                                                                   \
	X(409600000000, "409.6")

#define VALUE(value, label) value,
#define LABEL(value, label) label,
#define DEFINE_BOUNDS(name, TABLE, sum_at)                                                         \
	static const uint64_t name##_values[] = {TABLE(VALUE)};                                    \
	static const char *const name##_labels[] = {TABLE(LABEL)};                                 \
	enum { name##_count = sizeof(name##_values) / sizeof(name##_values[0]) };                  \
	_Static_assert((int)name##_count + 1 == (int)(sum_at), "the sum follows the buckets");     \
	const struct bounds name = {name##_count, name##_values, name##_labels}

DEFINE_BOUNDS(request_bounds, REQUEST_BOUNDS, REQUEST_SUM);
DEFINE_BOUNDS(call_bounds, CALL_BOUNDS, CALL_SUM);
DEFINE_BOUNDS(token_bounds, TOKEN_BOUNDS, TOKEN_SUM);
DEFINE_BOUNDS(agent_bounds, AGENT_BOUNDS, AGENT_SUM);

/* --- the tables --- */

/* Where two rows make points of one metric, each table has half of the label sets. */
void metrics_init(struct metrics *m)
{
	*m = (struct metrics){
		.requests = {CAP_SERIES, 2, REQUEST_SUM + 1, UNKNOWN, OTHER},
		.tokens = {CAP_SERIES / TOKEN_TYPES, 2, TOKEN_TYPES, UNKNOWN, OTHER},
		.silent_calls = {CAP_SERIES, 2, 1, UNKNOWN, OTHER},
		.costs = {CAP_SERIES, 2, 1, UNKNOWN, OTHER},
		.tool_calls = {CAP_SERIES, 1, 1, UNKNOWN, OTHER},
		.calls = {CAP_SERIES / 2, 4, CALLS_WIDTH, "", NULL},
		.failed = {CAP_SERIES / 2, 5, CALL_SUM + 1, "", NULL},
		.agents = {CAP_SERIES, 2, AGENT_SUM + 1, "", NULL},
		.tools = {CAP_SERIES, 2, CALL_SUM + 1, "", NULL},
	};
}

enum { TABLES = sizeof(struct metrics) / sizeof(struct series_table) };
_Static_assert(sizeof(struct metrics) == TABLES * sizeof(struct series_table), "only tables");

static struct series_table *tables_of(struct metrics *m)
{
	return &m->requests;
}

void metrics_deinit(struct metrics *m)
{
	for (int i = 0; i < TABLES; i++)
		series_deinit(&tables_of(m)[i]);
	metrics_init(m);
}

struct metrics *metrics_copy(const struct metrics *m)
{
	const struct series_table *from = &m->requests;
	size_t size = sizeof(*m);

	for (int i = 0; i < TABLES; i++)
		size += series_size(&from[i]);
	struct metrics *copy = malloc(size);
	if (!copy)
		return NULL;
	char *room = (char *)(copy + 1);
	for (int i = 0; i < TABLES; i++) {
		series_copy(&tables_of(copy)[i], &from[i], room);
		room += series_size(&from[i]);
	}
	return copy;
}

/* --- feeding --- */

static void record(uint64_t *histogram, const struct bounds *bounds, uint64_t value)
{
	histogram[bounds_find(bounds, value)]++;
	histogram[bounds->count + 1] += value;
}

void metrics_request(struct metrics *m, struct str provider, struct str model, uint64_t duration_ns)
{
	const struct str labels[] = {provider, model};

	record(series_row(&m->requests, labels), &request_bounds, duration_ns);
}

void metrics_tokens(struct metrics *m, struct str provider, struct str model, uint64_t prompt,
                    uint64_t completion, uint64_t total)
{
	const struct str labels[] = {provider, model};
	uint64_t *row = series_row(&m->tokens, labels);

	row[PROMPT] += prompt;
	row[COMPLETION] += completion;
	row[TOTAL] += total;
}

void metrics_calls_without_usage(struct metrics *m, struct str provider, struct str model,
                                 uint64_t count)
{
	const struct str labels[] = {provider, model};

	series_row(&m->silent_calls, labels)[0] += count;
}

void metrics_cost(struct metrics *m, struct str provider, struct str model, uint64_t cost)
{
	const struct str labels[] = {provider, model};

	series_row(&m->costs, labels)[0] += cost;
}

void metrics_tool_call(struct metrics *m, struct str tool_name)
{
	series_row(&m->tool_calls, &tool_name)[0]++;
}

/* --- the conventions' --- */

static void record_call(struct metrics *m, const struct account *a)
{
	const struct str labels[] = {str_of(operation_word(a->kind)), a->provider, a->model,
	                             a->response_model, a->error_type};
	bool failed = a->error_type.len > 0;
	bool talks = a->kind == KIND_LLM || a->kind == KIND_EMBEDDING;
	bool told = talks && !a->usage.estimated; // an estimate is not the provider's word
	int64_t input = told ? a->usage.input : USAGE_UNKNOWN;
	int64_t output = told ? a->usage.output : USAGE_UNKNOWN;
	bool has_tokens = input >= 0 || output >= 0;

	if (failed)
		record(series_row(&m->failed, labels), &call_bounds, a->duration_ns);
	if (failed && !has_tokens && !a->has_first_chunk)
		return;
	uint64_t *row = series_row(&m->calls, labels); // the last label is not one of its own
	if (!failed)
		record(row + CALL_AT, &call_bounds, a->duration_ns);
	if (input >= 0)
		record(row + INPUT_AT, &token_bounds, (uint64_t)input);
	if (output >= 0)
		record(row + OUTPUT_AT, &token_bounds, (uint64_t)output);
	if (a->has_first_chunk)
		record(row + FIRST_CHUNK_AT, &call_bounds, a->first_chunk_ns);
}

void metrics_span(struct metrics *m, const struct account *a)
{
	struct str labels[] = {a->what, a->error_type};

	switch (a->kind) {
	case KIND_LLM:
	case KIND_EMBEDDING:
	case KIND_RETRIEVER:
		if (!a->wraps)
			record_call(m, a);
		break;
	case KIND_AGENT:
		record(series_row(&m->agents, labels), &agent_bounds, a->duration_ns);
		break;
	case KIND_TOOL:
		if (!a->what.len)
			labels[0] = a->name;
		record(series_row(&m->tools, labels), &call_bounds, a->duration_ns);
		break;
	default:
		break;
	}
}
