/* otlp_metrics.h - the numbers of /metrics as an OTLP request.
 *
 * The same reports as Prometheus gets, written as ExportMetricsServiceRequest: counters as
 * monotonic sums, all sums and histograms cumulative. Names are such that a Prometheus behind an
 * OTLP backend arrives at the very names of /metrics: without _total and the unit, which it adds
 * itself.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/stats.h"
#include "core/metrics.h"

/* Every series is said to start when counting began, so one that appears later begins at zero
 * then: for a sum over all time it is the same. */
struct otlp_report {
	struct str resource;        // an encoded Resource
	uint64_t start_ns, time_ns; // unix: when counting began, and now
	const struct metrics *metrics;
	const struct stats *stats;
};

/** Writes the request into out (cleared first). Returns how many data points it has. */
size_t otlp_metrics_request(struct buf *out, const struct otlp_report *report);
