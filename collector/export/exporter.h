/* exporter.h - one exporter: its cursor, its loop, its ledger. Private to the room.
 *
 * All but exporter_wake() and exporter_notify() happens on its own thread, or before that starts
 * and after it has ended.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "export/retry.h"
#include "export/sink.h"
#include "store/store.h"

struct exporter {
	struct store *store;
	const atomic_bool *stopping;
	const struct exporter_config *config;
	struct lane_stats *stats;
	struct sink *sink;
	struct sink_host host;
	int wake_fd;        // new spans, or the end
	atomic_bool asleep; // notify must write to wake_fd

	uint64_t cursor;     // everything before it is settled
	uint64_t evicted_to; // what retention took before it has been counted
	struct buf chunk;
	struct store_chunk range;
	struct buf spans; // struct span_record[], into chunk

	struct retry retry;
	uint64_t last_send_ns;     // mono
	uint64_t failing_since_ns; // mono; 0: all is well
	uint64_t logged_ns;        // mono: the last time that a failure was logged
	bool failure_is_logged;    // of this outage
	bool read_error_is_logged, notice_is_logged, eviction_is_logged;
	uint32_t rejections_logged; // bit: enum rejection
};

/** Opens it over what is set: store, stopping, config, stats and host.abort_fd. On failure
 * exporter_close() is still to be called. */
MUST_CHECK int exporter_open(struct exporter *e);
void exporter_close(struct exporter *e);

/** Delivers, and waits for more, until *stopping is set and what is stored has been tried, or until
 * the abort descriptor is readable. */
void exporter_run(struct exporter *e);

/** New spans are durable. Thread-safe, never blocks. */
void exporter_notify(struct exporter *e);

/** Ends a wait, so that *stopping is seen. Thread-safe. */
void exporter_wake(struct exporter *e);
