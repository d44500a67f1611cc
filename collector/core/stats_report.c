#include "core/stats_report.h"

#include <stddef.h>

/* What the tables call a type. */
struct stat_type {
	enum metric_type type;
	bool is_nano;
};

static const struct stat_type type_counter = {METRIC_COUNTER, false};
static const struct stat_type type_counter_ns = {METRIC_COUNTER, true};
static const struct stat_type type_gauge = {METRIC_GAUGE, false};

static void begin(struct metric_writer *w, struct metric *room, const char *name,
                  const struct stat_type *type, const char *help)
{
	*room = (struct metric){name, NULL, type->type, type->is_nano, help};
	w->begin(w, room);
}

static void report_stat(struct metric_writer *w, const char *name, const struct stat_type *type,
                        const char *help, uint64_t value)
{
	struct metric metric;

	begin(w, &metric, name, type, help);
	w->number(w, NULL, 0, value);
	w->end(w);
}

static void report_refusals(const struct stats *s, struct metric_writer *w)
{
	struct metric metric;

	begin(w, &metric, "sidelight_frames_refused_total", &type_counter, "Frames refused");
	for (int r = REFUSAL_NONE + 1; r < REFUSAL_COUNT; r++) {
		struct metric_label label = {"reason", str_of(refusal_label((enum refusal)r))};
		w->number(w, &label, 1, stat_get(&s->refused[r]));
	}
	w->end(w);
}

/* --- exporters --- */

const char *signal_word(enum otlp_signal signal)
{
	static const char *const words[SIGNAL_COUNT] = {
		[SIGNAL_TRACES] = "traces", [SIGNAL_LOGS] = "logs", [SIGNAL_METRICS] = "metrics"};

	return words[signal];
}

static bool is_shown(const struct exporter_stats *e, enum otlp_signal signal)
{
	return atomic_load_explicit(&e->active, memory_order_acquire) &&
	       atomic_load_explicit(&e->signals, memory_order_relaxed) & 1u << signal;
}

/* The exporters whose ledgers are there to be read. */
struct shown_exporters {
	const struct exporter_stats *list;
	unsigned count;
};

static uint64_t stat_at(const struct lane_stats *l, size_t offset)
{
	return stat_get((const atomic_uint_fast64_t *)(const void *)((const char *)l + offset));
}

/* One number of every exporter; offset is its place in struct lane_stats. */
static void report_lanes(struct metric_writer *w, const struct shown_exporters *x,
                         enum otlp_signal signal, size_t offset)
{
	for (unsigned i = 0; i < x->count; i++) {
		const struct exporter_stats *e = &x->list[i];
		struct metric_label label = {"exporter", str_of(e->name)};
		if (is_shown(e, signal))
			w->number(w, &label, 1, stat_at(&e->lanes[signal], offset));
	}
}

static void report_requests(struct metric_writer *w, const struct shown_exporters *x, size_t offset)
{
	for (unsigned i = 0; i < x->count * SIGNAL_COUNT; i++) {
		enum otlp_signal signal = (enum otlp_signal)(i % SIGNAL_COUNT);
		const struct exporter_stats *e = &x->list[i / SIGNAL_COUNT];
		struct metric_label labels[] = {{"exporter", str_of(e->name)},
		                                {"signal", str_of(signal_word(signal))}};
		if (is_shown(e, signal))
			w->number(w, labels, 2, stat_at(&e->lanes[signal], offset));
	}
}

static void report_rejected(struct metric_writer *w, const struct shown_exporters *x,
                            enum otlp_signal signal)
{
	for (unsigned i = 0; i < x->count; i++) {
		const struct exporter_stats *e = &x->list[i];
		struct metric_label labels[] = {{"exporter", str_of(e->name)}, {"reason", {0}}};
		for (int r = 0; r < REJECTION_COUNT && is_shown(e, signal); r++) {
			labels[1].value = str_of(rejection_label((enum rejection)r));
			w->number(w, labels, 2, stat_get(&e->lanes[signal].rejected_by[r]));
		}
	}
}

static void report_exporters(const struct stats *s, struct metric_writer *w)
{
	struct shown_exporters x = {
		.list = s->exporters,
		.count = atomic_load_explicit(&s->exporter_count, memory_order_acquire),
	};
	struct metric metric;

	if (x.count > CAP_EXPORTER_NAMES)
		x.count = CAP_EXPORTER_NAMES;
#define X(field, signal, name, type, help)                                                         \
	begin(w, &metric, name, &type_##type, help);                                               \
	report_lanes(w, &x, SIGNAL_##signal, offsetof(struct lane_stats, field));                  \
	w->end(w);
	LEDGER_TABLE(X)
#undef X
#define X(signal, name, help)                                                                      \
	begin(w, &metric, name, &type_counter, help);                                              \
	report_rejected(w, &x, SIGNAL_##signal);                                                   \
	w->end(w);
	REJECTED_TABLE(X)
#undef X
#define X(field, name, type, help)                                                                 \
	begin(w, &metric, name, &type_##type, help);                                               \
	report_requests(w, &x, offsetof(struct lane_stats, field));                                \
	w->end(w);
	LANE_TABLE(X)
#undef X
}

static void report_build_info(struct metric_writer *w)
{
	struct metric_label label = {"version", STR(SIDELIGHT_VERSION)};
	struct metric metric;

	begin(w, &metric, "sidelight_build_info", &type_gauge, "1; the version is in the label");
	w->number(w, &label, 1, 1);
	w->end(w);
}

void stats_report(const struct stats *s, struct metric_writer *w)
{
#define X(field, name, type, help) report_stat(w, name, &type_##type, help, stat_get(&s->field));
	STATS_TABLE(X)
#undef X
	report_refusals(s, w);
	report_exporters(s, w);
	report_build_info(w);
}
