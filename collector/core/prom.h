/* prom.h - Prometheus text format 0.0.4, written into a buffer.
 *
 * Nothing here makes a name valid: names are our own literals. Label values are escaped, and must
 * be UTF-8 (one bad byte fails a whole scrape). Numbers are integers, and seconds written exactly
 * from nanoseconds. Errors stick in the buffer.
 */
#pragma once

#include <stdint.h>

#include "base/buf.h"
#include "base/stats.h"
#include "base/str.h"

struct prom_label {
	const char *name;
	struct str value;
};

/** The HELP and TYPE lines that come before a metric's samples. type: counter, gauge, histogram. */
void prom_family(struct buf *out, const char *name, const char *type, const char *help);

/** One sample: name, suffix ("" or "_bucket", …), labels, value. */
void prom_uint(struct buf *out, const char *name, const char *suffix,
               const struct prom_label *labels, unsigned count, uint64_t value);

/** The same, of a time in nanoseconds as seconds. */
void prom_seconds(struct buf *out, const char *name, const char *suffix,
                  const struct prom_label *labels, unsigned count, uint64_t ns);

/* X(field, metric name, type, help): one exporter's ledger, labelled with the exporter's name.
 * sidelight_spans_rejected_total has a reason as well. */
#define EXPORTER_STATS_TABLE(X)                                                                    \
	X(delivered, "sidelight_spans_delivered_total", counter, "Spans a backend has accepted")   \
	X(evicted, "sidelight_spans_evicted_total", counter,                                       \
	  "Spans that retention removed before they were delivered")                               \
	X(pending, "sidelight_export_pending_spans", gauge, "Stored spans still to be delivered")  \
	X(requests, "sidelight_export_requests_total", counter,                                    \
	  "Export requests tried, the failed ones among them")                                     \
	X(failures, "sidelight_export_failures_total", counter, "Export requests that failed")

/** Writes every sidelight_* metric. */
void stats_write(const struct stats *s, struct buf *out);
