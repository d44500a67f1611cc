#include <stddef.h>

#include "core/metrics.h"
#include "core/prom.h"

enum { LABELS_SHOWN_MAX = 5 };

static const struct metric metric_list[] = {
#define X(id, name, type, labels, help) {name, NULL, metric_type_##type, is_nano_##type, help},
#define metric_type_counter METRIC_COUNTER
#define metric_type_counter_nano METRIC_COUNTER
#define metric_type_histogram METRIC_HISTOGRAM
#define is_nano_counter false
#define is_nano_counter_nano true
#define is_nano_histogram true
	METRICS_TABLE(X)
#undef X
};

static const struct metric genai_list[] = {
#define X(id, name, unit, labels, help) {name, unit, METRIC_HISTOGRAM, (unit)[0] == 's', help},
	GENAI_TABLE(X)
#undef X
};

enum metric_id {
#define X(id, name, type, labels, help) ID_##id,
	METRICS_TABLE(X)
#undef X
};

enum genai_id {
#define X(id, name, unit, labels, help) ID_##id,
	GENAI_TABLE(X)
#undef X
};

/* One series as it is shown. */
struct shown {
	struct metric_label labels[LABELS_SHOWN_MAX];
	unsigned count;
};

static void show(struct shown *s, const char *name, struct str value)
{
	if (value.len)
		s->labels[s->count++] = (struct metric_label){name, value};
}

typedef void row_fn(struct metric_writer *w, struct shown *s, const uint64_t *row);

/* Every row of a table, the last one too. names are those of its labels. */
static void each_row(struct metric_writer *w, const struct series_table *t,
                     const char *const *names, row_fn *fn)
{
	struct str values[LABELS_MAX];

	for (unsigned i = 0; i < t->count; i++) {
		struct shown s = {.count = 0};
		series_labels(t, t->list[i], values);
		for (unsigned l = 0; l < t->labels; l++)
			show(&s, names[l], values[l]);
		fn(w, &s, t->list[i]->row);
	}
	if (t->has_overflow && t->other) {
		struct shown s = {.count = 0};
		for (unsigned l = 0; l < t->labels; l++)
			show(&s, names[l], str_of(t->other));
		fn(w, &s, t->overflow);
	}
}

static void write_histogram(struct metric_writer *w, const struct shown *s,
                            const struct bounds *bounds, const uint64_t *buckets)
{
	struct histogram h = {bounds, buckets, buckets[bounds->count + 1]};

	if (histogram_count(&h) > 0)
		w->histogram(w, s->labels, s->count, &h);
}

/* --- of requests --- */

static const char *const provider_model[LABELS_MAX] = {"provider", "model"};
static const char *const tool_name[LABELS_MAX] = {"tool_name"};

static void write_requests(struct metric_writer *w, struct shown *s, const uint64_t *row)
{
	struct histogram h = {&request_bounds, row, row[REQUEST_SUM]};

	w->number(w, s->labels, s->count, histogram_count(&h));
}

static void write_durations(struct metric_writer *w, struct shown *s, const uint64_t *row)
{
	write_histogram(w, s, &request_bounds, row);
}

static void write_tokens(struct metric_writer *w, struct shown *s, const uint64_t *row)
{
	static const char *const types[TOKEN_TYPES] = {"prompt_tokens", "completion_tokens",
	                                               "total_tokens"};
	struct metric_label labels[] = {{"token_type", {0}}, s->labels[0], s->labels[1]};

	for (int i = 0; i < TOKEN_TYPES; i++) {
		labels[0].value = str_of(types[i]);
		w->number(w, labels, 3, row[i]);
	}
}

static void write_count(struct metric_writer *w, struct shown *s, const uint64_t *row)
{
	w->number(w, s->labels, s->count, row[0]);
}

static void report_requests(const struct metrics *m, struct metric_writer *w)
{
	static const struct {
		enum metric_id id;
		size_t table;
		const char *const *names;
		row_fn *fn;
	} list[] = {
		{ID_REQUESTS, offsetof(struct metrics, requests), provider_model, write_requests},
		{ID_DURATION, offsetof(struct metrics, requests), provider_model, write_durations},
		{ID_TOKENS, offsetof(struct metrics, tokens), provider_model, write_tokens},
		{ID_SILENT_CALLS, offsetof(struct metrics, silent_calls), provider_model,
	         write_count},
		{ID_COST, offsetof(struct metrics, costs), provider_model, write_count},
		{ID_TOOL_CALLS, offsetof(struct metrics, tool_calls), tool_name, write_count},
	};

	for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
		const char *table = (const char *)m + list[i].table;
		w->begin(w, &metric_list[list[i].id]);
		each_row(w, (const struct series_table *)(const void *)table, list[i].names,
		         list[i].fn);
		w->end(w);
	}
}

/* --- the conventions' --- */

static const char *const call_names[LABELS_MAX] = {"gen_ai.operation.name", "gen_ai.provider.name",
                                                   "gen_ai.request.model", "gen_ai.response.model",
                                                   "error.type"};
static const char *const agent_names[LABELS_MAX] = {"gen_ai.agent.name", "error.type"};
static const char *const tool_names[LABELS_MAX] = {"gen_ai.tool.name", "error.type"};

/* What did not get rows of its own, of all that make one metric: one point. */
static void write_overflow(struct metric_writer *w, const struct bounds *bounds, const uint64_t *a,
                           const uint64_t *b)
{
	struct shown s = {.labels = {{"otel.metric.overflow", {0}}}, .count = 1};
	uint64_t sum[ROW_MAX];

	for (unsigned i = 0; i <= bounds->count + 1; i++)
		sum[i] = a[i] + (b ? b[i] : 0);
	write_histogram(w, &s, bounds, sum);
}

static void write_call(struct metric_writer *w, struct shown *s, const uint64_t *row)
{
	write_histogram(w, s, &call_bounds, row + CALL_AT);
}

static void write_usage(struct metric_writer *w, struct shown *s, const uint64_t *row)
{
	show(s, "gen_ai.token.type", STR("input"));
	write_histogram(w, s, &token_bounds, row + INPUT_AT);
	s->labels[s->count - 1].value = STR("output");
	write_histogram(w, s, &token_bounds, row + OUTPUT_AT);
}

static void write_first_chunk(struct metric_writer *w, struct shown *s, const uint64_t *row)
{
	write_histogram(w, s, &call_bounds, row + FIRST_CHUNK_AT);
}

static void write_agent(struct metric_writer *w, struct shown *s, const uint64_t *row)
{
	write_histogram(w, s, &agent_bounds, row);
}

static void report_calls(const struct metrics *m, struct metric_writer *w)
{
	const uint64_t *calls = m->calls.overflow;

	w->begin(w, &genai_list[ID_CALL_DURATION]);
	each_row(w, &m->calls, call_names, write_call);
	each_row(w, &m->failed, call_names, write_call);
	write_overflow(w, &call_bounds, calls + CALL_AT, m->failed.overflow);
	w->end(w);
	w->begin(w, &genai_list[ID_TOKEN_USAGE]);
	each_row(w, &m->calls, call_names, write_usage);
	write_overflow(w, &token_bounds, calls + INPUT_AT, calls + OUTPUT_AT);
	w->end(w);
	w->begin(w, &genai_list[ID_FIRST_CHUNK]);
	each_row(w, &m->calls, call_names, write_first_chunk);
	write_overflow(w, &call_bounds, calls + FIRST_CHUNK_AT, NULL);
	w->end(w);
}

static void report_runs(const struct metrics *m, struct metric_writer *w)
{
	w->begin(w, &genai_list[ID_AGENT_DURATION]);
	each_row(w, &m->agents, agent_names, write_agent);
	write_overflow(w, &agent_bounds, m->agents.overflow, NULL);
	w->end(w);
	w->begin(w, &genai_list[ID_TOOL_DURATION]);
	each_row(w, &m->tools, tool_names, write_call);
	write_overflow(w, &call_bounds, m->tools.overflow, NULL);
	w->end(w);
}

void metrics_report(const struct metrics *m, struct metric_writer *w)
{
	report_requests(m, w);
	report_calls(m, w);
	report_runs(m, w);
}

void metrics_write(const struct metrics *m, struct buf *out)
{
	struct prom_writer w;

	prom_writer_init(&w, out);
	metrics_report(m, &w.writer);
}
