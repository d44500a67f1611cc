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
#include "core/metric.h"
#include "core/stats_report.h"

enum { PROM_NAME_MAX = 128 };

/** A metric's name in Prometheus: of one that has OpenTelemetry's, as the specification of the two
 * formats' compatibility makes it. */
void prom_name(char ret[PROM_NAME_MAX], const struct metric *metric);

struct prom_writer {
	struct metric_writer writer;
	struct buf *out;
	const struct metric *metric;
	char name[PROM_NAME_MAX];
};

void prom_writer_init(struct prom_writer *w, struct buf *out);

/** Writes every sidelight_* metric. */
void stats_write(const struct stats *s, struct buf *out);
