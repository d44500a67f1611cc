/* stats_report.h - the daemon's numbers about itself, given to a metric writer.
 *
 * An exporter's ledger is shown while it is configured, with the signals that it has.
 */
#pragma once

#include "base/stats.h"
#include "core/metric.h"

/* X(field, signal, metric name, type, help): one exporter's ledger of a signal, labelled with the
 * exporter's name. */
#define LEDGER_TABLE(X)                                                                            \
	X(delivered, TRACES, "sidelight_spans_delivered_total", counter,                           \
	  "Spans a backend has accepted")                                                          \
	X(evicted, TRACES, "sidelight_spans_evicted_total", counter,                               \
	  "Spans that retention removed before they were delivered")                               \
	X(refused, TRACES, "sidelight_spans_refused_total", counter,                               \
	  "Starts of runs refused since this exporter held a full store")                          \
	X(pending, TRACES, "sidelight_export_pending_spans", gauge,                                \
	  "Stored spans still to be delivered")                                                    \
	X(delivered, LOGS, "sidelight_log_records_delivered_total", counter,                       \
	  "Log records a backend has accepted")                                                    \
	X(evicted, LOGS, "sidelight_log_records_evicted_total", counter,                           \
	  "Log records that retention removed before they were delivered")                         \
	X(pending, LOGS, "sidelight_export_pending_log_records", gauge,                            \
	  "Stored log records still to be delivered")                                              \
	X(delivered, METRICS, "sidelight_metric_points_delivered_total", counter,                  \
	  "Data points of metrics a backend has accepted")

/* X(signal, metric name, help): the same, by reason. */
#define REJECTED_TABLE(X)                                                                          \
	X(TRACES, "sidelight_spans_rejected_total",                                                \
	  "Spans given up because no try could deliver them")                                      \
	X(LOGS, "sidelight_log_records_rejected_total",                                            \
	  "Log records given up because no try could deliver them")                                \
	X(METRICS, "sidelight_metric_points_rejected_total",                                       \
	  "Data points of metrics that a backend refused")

/* X(field, metric name, type, help): labelled with the exporter's name and the signal. */
#define LANE_TABLE(X)                                                                              \
	X(requests, "sidelight_export_requests_total", counter,                                    \
	  "Export requests tried, the failed ones among them")                                     \
	X(failures, "sidelight_export_failures_total", counter, "Export requests that failed")

/** The word for a signal: traces, logs, metrics. */
const char *signal_word(enum otlp_signal signal);

/** Gives every sidelight_* metric to a writer. */
void stats_report(const struct stats *s, struct metric_writer *w);
