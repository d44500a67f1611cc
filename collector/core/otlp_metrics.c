#include "core/otlp_metrics.h"

#include "base/clock.h"
#include "core/otlp_fields.h"
#include "core/pb.h"
#include "core/stats_report.h"

enum { REQUEST_RESOURCE_METRICS = 1 };
enum { RESOURCE_METRICS_RESOURCE = 1, RESOURCE_METRICS_SCOPE_METRICS = 2 };
enum { SCOPE_METRICS_SCOPE = 1, SCOPE_METRICS_METRICS = 2 };
enum { SCOPE_NAME = 1, SCOPE_VERSION = 2 };
enum {
	METRIC_NAME = 1,
	METRIC_DESCRIPTION = 2,
	METRIC_UNIT = 3,
	METRIC_AS_GAUGE = 5,
	METRIC_AS_SUM = 7,
	METRIC_AS_HISTOGRAM = 9,
};
enum { DATA_POINTS = 1, DATA_TEMPORALITY = 2, SUM_IS_MONOTONIC = 3 };
enum { TEMPORALITY_CUMULATIVE = 2 };
enum { POINT_START = 2, POINT_TIME = 3 };
enum { NUMBER_AS_DOUBLE = 4, NUMBER_AS_INT = 6, NUMBER_ATTRIBUTES = 7 };
enum {
	HISTOGRAM_COUNT = 4,
	HISTOGRAM_SUM = 5,
	HISTOGRAM_BUCKETS = 6,
	HISTOGRAM_BOUNDS = 7,
	HISTOGRAM_ATTRIBUTES = 9,
};

struct otlp_writer {
	struct metric_writer writer;
	struct buf *out;
	uint64_t start_ns, time_ns;
	size_t points; // so far
	// of the metric being written
	const struct metric *metric;
	size_t begun;         // where it begins
	size_t message, data; // for pb_end()
	size_t points_before;
};

/* --- names --- */

static bool cut_suffix(struct str *s, struct str suffix)
{
	if (s->len <= suffix.len || memcmp(s->p + s->len - suffix.len, suffix.p, suffix.len) != 0)
		return false;
	s->len -= suffix.len;
	return true;
}

/* What a name counts: its first word in the plural. */
static void count_unit(struct buf *out, struct str name)
{
	const char *p = name.p, *end = name.p + name.len;

	while (p < end) {
		const char *next = memchr(p, '_', (size_t)(end - p));
		const char *last = (next ? next : end) - 1;
		if (last > p && *last == 's') {
			size_t unit = pb_begin(out, METRIC_UNIT);
			buf_append_byte(out, '{');
			buf_append(out, p, (size_t)(last - p));
			buf_append_byte(out, '}');
			pb_end(out, unit);
			return;
		}
		p = next ? next + 1 : end;
	}
}

/* Prometheus puts the type and the unit into the name; OpenTelemetry keeps them out of it. */
static void write_name(struct buf *out, const struct metric *metric)
{
	struct str name = str_of(metric->name);

	if (metric->unit) {
		pb_str(out, METRIC_NAME, name);
		pb_str(out, METRIC_UNIT, str_of(metric->unit));
		return;
	}
	if (metric->type == METRIC_COUNTER)
		cut_suffix(&name, STR("_total"));
	bool is_time = cut_suffix(&name, STR("_seconds"));
	bool is_size = !is_time && cut_suffix(&name, STR("_bytes"));
	pb_str(out, METRIC_NAME, name);
	if (is_time || is_size)
		pb_str(out, METRIC_UNIT, is_time ? STR("s") : STR("By"));
	else
		count_unit(out, name);
}

/* --- the writer --- */

static void begin(struct metric_writer *base, const struct metric *metric)
{
	static const uint32_t fields[] = {
		[METRIC_COUNTER] = METRIC_AS_SUM,
		[METRIC_GAUGE] = METRIC_AS_GAUGE,
		[METRIC_HISTOGRAM] = METRIC_AS_HISTOGRAM,
	};
	struct otlp_writer *w = (struct otlp_writer *)base;

	w->metric = metric;
	w->points_before = w->points;
	w->begun = w->out->len;
	w->message = pb_begin(w->out, SCOPE_METRICS_METRICS);
	write_name(w->out, metric);
	pb_str(w->out, METRIC_DESCRIPTION, str_of(metric->help));
	w->data = pb_begin(w->out, fields[metric->type]);
}

static double in_seconds(uint64_t ns)
{
	return (double)ns / (double)NS_PER_S;
}

/* As it is shown. */
static double shown_value(const struct metric *metric, uint64_t value)
{
	return metric->is_nano ? in_seconds(value) : (double)value;
}

static void write_labels(struct buf *out, uint32_t field, const struct metric_label *labels,
                         unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		if (labels[i].value.p)
			pb_attr_str(out, field, str_of(labels[i].name), labels[i].value);
		else
			pb_attr_bool(out, field, str_of(labels[i].name), true);
	}
}

static size_t begin_point(struct otlp_writer *w)
{
	size_t point = pb_begin(w->out, DATA_POINTS);

	if (w->metric->type != METRIC_GAUGE)
		pb_fixed64(w->out, POINT_START, w->start_ns);
	pb_fixed64(w->out, POINT_TIME, w->time_ns);
	w->points++;
	return point;
}

static void number(struct metric_writer *base, const struct metric_label *labels, unsigned count,
                   uint64_t value)
{
	struct otlp_writer *w = (struct otlp_writer *)base;
	size_t point = begin_point(w);

	if (w->metric->is_nano)
		pb_double(w->out, NUMBER_AS_DOUBLE, in_seconds(value));
	else
		pb_fixed64(w->out, NUMBER_AS_INT, value);
	write_labels(w->out, NUMBER_ATTRIBUTES, labels, count);
	pb_end(w->out, point);
}

static void histogram(struct metric_writer *base, const struct metric_label *labels, unsigned count,
                      const struct histogram *h)
{
	struct otlp_writer *w = (struct otlp_writer *)base;
	const struct bounds *b = h->bounds;
	size_t point = begin_point(w);

	pb_fixed64(w->out, HISTOGRAM_COUNT, histogram_count(h));
	pb_double(w->out, HISTOGRAM_SUM, shown_value(w->metric, h->sum));
	pb_bytes(w->out, HISTOGRAM_BUCKETS, h->buckets, (b->count + 1) * sizeof(*h->buckets));
	size_t bounds = pb_begin(w->out, HISTOGRAM_BOUNDS);
	for (unsigned i = 0; i < b->count; i++) {
		double bound = shown_value(w->metric, b->values[i]);
		buf_append(w->out, &bound, sizeof(bound));
	}
	pb_end(w->out, bounds);
	write_labels(w->out, HISTOGRAM_ATTRIBUTES, labels, count);
	pb_end(w->out, point);
}

static void end(struct metric_writer *base)
{
	struct otlp_writer *w = (struct otlp_writer *)base;
	enum metric_type type = w->metric->type;

	if (buf_error(w->out))
		return;
	if (w->points == w->points_before) { // a metric without points is noise
		w->out->len = w->begun;
		return;
	}
	if (type != METRIC_GAUGE)
		pb_uint(w->out, DATA_TEMPORALITY, TEMPORALITY_CUMULATIVE);
	if (type == METRIC_COUNTER)
		pb_uint(w->out, SUM_IS_MONOTONIC, 1);
	pb_end(w->out, w->data);
	pb_end(w->out, w->message);
}

size_t otlp_metrics_request(struct buf *out, const struct otlp_report *report)
{
	struct otlp_writer w = {
		.writer = {begin, number, histogram, end},
		.out = out,
		.start_ns = report->start_ns,
		.time_ns = report->time_ns,
	};

	buf_clear(out);
	size_t resource_metrics = pb_begin(out, REQUEST_RESOURCE_METRICS);
	pb_str(out, RESOURCE_METRICS_RESOURCE, report->resource);
	size_t scope_metrics = pb_begin(out, RESOURCE_METRICS_SCOPE_METRICS);
	size_t scope = pb_begin(out, SCOPE_METRICS_SCOPE);
	pb_str(out, SCOPE_NAME, STR("sidelight"));
	pb_str(out, SCOPE_VERSION, STR(SIDELIGHT_VERSION));
	pb_end(out, scope);
	metrics_report(report->metrics, &w.writer);
	stats_report(report->stats, &w.writer);
	pb_end(out, scope_metrics);
	pb_end(out, resource_metrics);
	return w.points;
}
