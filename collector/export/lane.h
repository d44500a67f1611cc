/* lane.h - one signal of one exporter: its thread's loop, its ledger. Private to the room.
 *
 * Traces and logs are lanes of records: a cursor over a log of the store, which moves only when
 * what lies before it is settled. Metrics are reported at an interval, and nothing of them waits.
 *
 * All but lane_wake() and lane_notify() happens on the lane's own thread, or before that starts and
 * after it has ended.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "export/export.h"
#include "export/otlp_wire.h"
#include "export/retry.h"
#include "export/sink.h"
#include "store/cursor.h"
#include "store/store.h"

struct exporter;

struct lane {
	struct exporter *exporter;
	const struct exporters_source *source;
	const struct exporter_config *config;
	enum otlp_signal signal;
	const atomic_bool *stopping;
	struct lane_stats *stats;
	struct sink_host host;
	char label[80];     // the exporter's name, and the signal if it isn't traces: for the log
	int wake_fd;        // new records, or the end
	atomic_bool asleep; // notify must write to wake_fd

	// records
	struct sink *sink;
	char cursor_name[80];
	struct cursor place;     // everything before its seq is settled
	atomic_uint_fast64_t at; // place.seq, for other threads
	uint64_t evicted_to;     // what retention took before it has been counted
	uint64_t refused_before; // of place.refused: by processes before this one
	struct buf chunk;
	struct store_chunk range;
	struct buf records;    // struct span_record[], into chunk
	uint64_t last_send_ns; // mono

	// metrics
	struct otlp_wire *wire;
	struct buf report;

	struct retry retry;
	uint64_t failing_since_ns; // mono; 0: all is well
	uint64_t logged_ns;        // mono: the last time that a failure was logged
	bool failure_is_logged;    // of this outage
	bool read_error_is_logged, notice_is_logged, eviction_is_logged;
	uint64_t rejections_logged; // bit: enum rejection
};

/** Opens it over what is set: source, config, signal, stopping, stats and host.abort_fd. On failure
 * lane_close() is still to be called. */
MUST_CHECK int lane_open(struct lane *l);
void lane_close(struct lane *l);

/** Delivers, and waits for more, until *stopping is set and what is stored has been tried, or until
 * the abort descriptor is readable. */
void lane_run(struct lane *l);

/** New records are durable. Thread-safe, never blocks. */
void lane_notify(struct lane *l);

/** Ends a wait, so that *stopping is seen. Thread-safe. */
void lane_wake(struct lane *l);

/* --- lane_records.c, lane_metrics.c: the two kinds --- */

MUST_CHECK int records_open(struct lane *l);
void records_run(struct lane *l);
/** Counts what is pending, and what retention took meanwhile. */
void records_watch(struct lane *l);
void records_close(struct lane *l);

MUST_CHECK int metrics_open(struct lane *l);
void metrics_run(struct lane *l);
void metrics_close(struct lane *l);

/* --- lane.c: what they share --- */

bool lane_is_stopping(const struct lane *l);
bool lane_is_aborted(const struct lane *l);

/** Sleeps until it is woken; timeout_ms -1: for ever. */
void lane_wait(struct lane *l, int timeout_ms);

/** Sleeps until the time (mono) has come or stopping begins. */
void lane_pause_until(struct lane *l, uint64_t until_ns);

/** A try failed: counts and logs it, and waits before the next one. False: there is none, since we
 * are stopping. */
bool lane_wait_for_retry(struct lane *l, const struct outcome_report *r);

/** A try came to an end: counts and logs what was delivered and rejected of r->taken. */
void lane_settled(struct lane *l, const struct outcome_report *r);

/** How many of r->taken were rejected. */
uint64_t rejected_of(const struct outcome_report *r);
