/* metric.h - what a metric is, whoever asks: Prometheus (prom.h) and OTLP (otlp_metrics.h) are two
 * writers that the same reports are given to, so that both tell the same numbers.
 *
 * A report calls begin(), then number() or histogram() once for each series, then end(). Names are
 * our own literals; label values are UTF-8 from outside.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

struct metric {
	/* Prometheus's name; or, with dots, OpenTelemetry's, from which Prometheus's follows. */
	const char *name;
	const char *unit; // UCUM, with a name of OpenTelemetry's; else NULL: the name says it
	enum metric_type type;
	bool is_nano; // values are billionths of what is shown: nanoseconds, for one
	const char *help;
};

/* A value whose p is NULL is a flag that is set. */
struct metric_label {
	const char *name; // dots become underscores in Prometheus
	struct str value;
};

/* The upper bounds of buckets, which include them, increasing; one more bucket has none. */
struct bounds {
	unsigned count;
	const uint64_t *values;
	const char *const *labels; // as text, in the unit that is shown
};

struct histogram {
	const struct bounds *bounds;
	const uint64_t *buckets; // counts, bounds->count + 1 of them
	uint64_t sum;
};

struct metric_writer {
	void (*begin)(struct metric_writer *w, const struct metric *metric);
	void (*number)(struct metric_writer *w, const struct metric_label *labels, unsigned count,
	               uint64_t value);
	void (*histogram)(struct metric_writer *w, const struct metric_label *labels,
	                  unsigned count, const struct histogram *h);
	void (*end)(struct metric_writer *w);
};

/** The bucket that a value falls into. */
static inline unsigned bounds_find(const struct bounds *b, uint64_t value)
{
	unsigned i = 0;

	while (i < b->count && value > b->values[i])
		i++;
	return i;
}

static inline uint64_t histogram_count(const struct histogram *h)
{
	uint64_t count = 0;

	for (unsigned i = 0; i <= h->bounds->count; i++)
		count += h->buckets[i];
	return count;
}
