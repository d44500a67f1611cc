#include "core/prom.h"

#include <inttypes.h>

#include "base/clock.h"

void prom_family(struct buf *out, const char *name, const char *type, const char *help)
{
	buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void write_escaped(struct buf *out, struct str value)
{
	size_t start = 0;

	for (size_t i = 0; i < value.len; i++) {
		char c = value.p[i];
		if (c != '\\' && c != '"' && c != '\n')
			continue;
		buf_append(out, value.p + start, i - start);
		char esc[2] = {'\\', c == '\n' ? 'n' : c};
		buf_append(out, esc, sizeof(esc));
		start = i + 1;
	}
	buf_append(out, value.p + start, value.len - start);
}

static void write_head(struct buf *out, const char *name, const char *suffix,
                       const struct prom_label *labels, unsigned count)
{
	buf_append_str(out, name);
	buf_append_str(out, suffix);
	for (unsigned i = 0; i < count; i++) {
		buf_append_byte(out, i == 0 ? '{' : ',');
		buf_append_str(out, labels[i].name);
		buf_append_str(out, "=\"");
		write_escaped(out, labels[i].value);
		buf_append_byte(out, '"');
	}
	buf_append_str(out, count ? "} " : " ");
}

void prom_uint(struct buf *out, const char *name, const char *suffix,
               const struct prom_label *labels, unsigned count, uint64_t value)
{
	write_head(out, name, suffix, labels, count);
	buf_printf(out, "%" PRIu64 "\n", value);
}

void prom_seconds(struct buf *out, const char *name, const char *suffix,
                  const struct prom_label *labels, unsigned count, uint64_t ns)
{
	write_head(out, name, suffix, labels, count);
	buf_printf(out, "%" PRIu64 ".%09u\n", (uint64_t)(ns / NS_PER_S), (unsigned)(ns % NS_PER_S));
}

/* What the tables call a type: its word in the format, and how its value is written. */
struct stat_type {
	const char *word;
	void (*write)(struct buf *out, const char *name, const char *suffix,
	              const struct prom_label *labels, unsigned count, uint64_t value);
};

static const struct stat_type type_counter = {"counter", prom_uint};
static const struct stat_type type_counter_ns = {"counter", prom_seconds};
static const struct stat_type type_gauge = {"gauge", prom_uint};

static void write_stat(struct buf *out, const char *name, const struct stat_type *type,
                       const char *help, uint64_t value)
{
	prom_family(out, name, type->word, help);
	type->write(out, name, "", NULL, 0, value);
}

static void write_refusals(const struct stats *s, struct buf *out)
{
	static const char name[] = "sidelight_frames_refused_total";

	prom_family(out, name, "counter", "Frames refused");
	for (int r = REFUSAL_NONE + 1; r < REFUSAL_COUNT; r++) {
		struct prom_label label = {"reason", str_of(refusal_label((enum refusal)r))};
		prom_uint(out, name, "", &label, 1, stat_get(&s->refused[r]));
	}
}

const char *signal_word(enum otlp_signal signal)
{
	static const char *const words[SIGNAL_COUNT] = {
		[SIGNAL_TRACES] = "traces", [SIGNAL_LOGS] = "logs", [SIGNAL_METRICS] = "metrics"};

	return words[signal];
}

/* The exporter in a place if it is configured and has the signal, else NULL. */
static const struct exporter_stats *exporter_with(const struct stats *s, unsigned i,
                                                  enum otlp_signal signal)
{
	const struct exporter_stats *e = &s->exporters[i];
	bool has = atomic_load_explicit(&e->active, memory_order_acquire) &&
	           atomic_load_explicit(&e->signals, memory_order_relaxed) & 1u << signal;

	return has ? e : NULL;
}

static unsigned exporter_places(const struct stats *s)
{
	unsigned count = atomic_load_explicit(&s->exporter_count, memory_order_acquire);

	return count < CAP_EXPORTER_NAMES ? count : CAP_EXPORTER_NAMES;
}

static void write_rejections(const struct stats *s, struct buf *out, enum otlp_signal signal,
                             const char *name, const char *help)
{
	prom_family(out, name, "counter", help);
	for (unsigned i = 0; i < exporter_places(s); i++) {
		const struct exporter_stats *e = exporter_with(s, i, signal);
		if (!e)
			continue;
		struct prom_label labels[] = {{"exporter", str_of(e->name)}, {"reason", {0}}};
		for (int r = 0; r < REJECTION_COUNT; r++) {
			labels[1].value = str_of(rejection_label((enum rejection)r));
			prom_uint(out, name, "", labels, 2,
			          stat_get(&e->lanes[signal].rejected_by[r]));
		}
	}
}

/* A number of a lane; offset is its place in struct lane_stats. */
static uint64_t lane_stat(const struct exporter_stats *e, enum otlp_signal signal, size_t offset)
{
	const char *lane = (const char *)&e->lanes[signal];

	return stat_get((const atomic_uint_fast64_t *)(const void *)(lane + offset));
}

/* One number of every exporter with the signal. */
static void write_ledger(const struct stats *s, struct buf *out, enum otlp_signal signal,
                         const char *name, const struct stat_type *type, const char *help,
                         size_t offset)
{
	prom_family(out, name, type->word, help);
	for (unsigned i = 0; i < exporter_places(s); i++) {
		const struct exporter_stats *e = exporter_with(s, i, signal);
		struct prom_label label = {"exporter", {0}};
		if (!e)
			continue;
		label.value = str_of(e->name);
		type->write(out, name, "", &label, 1, lane_stat(e, signal, offset));
	}
}

/* One number of every exporter and signal. */
static void write_lanes(const struct stats *s, struct buf *out, const char *name,
                        const struct stat_type *type, const char *help, size_t offset)
{
	prom_family(out, name, type->word, help);
	for (unsigned i = 0; i < exporter_places(s) * SIGNAL_COUNT; i++) {
		enum otlp_signal signal = (enum otlp_signal)(i % SIGNAL_COUNT);
		const struct exporter_stats *e = exporter_with(s, i / SIGNAL_COUNT, signal);
		if (!e)
			continue;
		struct prom_label labels[] = {{"exporter", str_of(e->name)},
		                              {"signal", str_of(signal_word(signal))}};
		type->write(out, name, "", labels, 2, lane_stat(e, signal, offset));
	}
}

static void write_exporters(const struct stats *s, struct buf *out)
{
#define X(field, signal, metric, type, help)                                                       \
	write_ledger(s, out, SIGNAL_##signal, metric, &type_##type, help,                          \
	             offsetof(struct lane_stats, field));
	LEDGER_TABLE(X)
#undef X
#define X(signal, metric, help) write_rejections(s, out, SIGNAL_##signal, metric, help);
	REJECTED_TABLE(X)
#undef X
#define X(field, metric, type, help)                                                               \
	write_lanes(s, out, metric, &type_##type, help, offsetof(struct lane_stats, field));
	LANE_TABLE(X)
#undef X
}

static void write_build_info(struct buf *out)
{
	static const char name[] = "sidelight_build_info";
	struct prom_label label = {"version", STR(SIDELIGHT_VERSION)};

	prom_family(out, name, "gauge", "1; the version is in the label");
	prom_uint(out, name, "", &label, 1, 1);
}

void stats_write(const struct stats *s, struct buf *out)
{
#define X(field, name, type, help) write_stat(out, name, &type_##type, help, stat_get(&s->field));
	STATS_TABLE(X)
#undef X
	write_refusals(s, out);
	write_exporters(s, out);
	write_build_info(out);
}
