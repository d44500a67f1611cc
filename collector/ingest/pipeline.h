/* pipeline.h - from decoded frames to the durable log, on the loop's thread.
 *
 * It owns the run table and the two batches that change hands with the commit worker. A commit
 * starts at once when somebody waits for a flush, when much has gathered, or when there is credit:
 * one commit each COMMIT_EVERY_MS, COMMIT_BURST saved up at most. So a little traffic is seen at
 * once, and a steady stream costs ten commits a second. While the store can't take a batch, it is
 * kept and tried again, and no more is read from clients than fits into memory's bounds.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/stats.h"
#include "config.h"
#include "core/runs.h"

enum {
	COMMIT_EVERY_MS = 100,
	COMMIT_BURST = 10,
	COMMIT_RETRY_MS = 200,
	COMMIT_SOON_BYTES = 1024 * 1024
};

struct pipeline;
struct store;

/* Told on the loop's thread; ctx is that of the options. */
struct pipeline_options {
	const struct config *config; // borrowed
	struct stats *stats;         // borrowed
	struct store *store;         // borrowed
	uv_loop_t *loop;
	void *ctx;
	void (*flushed)(void *ctx, void *waiter, uint64_t token);
	void (*roomy)(void *ctx);     // there is room again after pipeline_is_full()
	void (*committed)(void *ctx); // new spans are durable
	void (*dropped)(void *ctx);   // a batch was dropped: nothing before now can be acknowledged
	void (*failed)(void *ctx);    // the disk failed: nothing can be promised any more
};

MUST_CHECK int pipeline_start(struct pipeline **ret, const struct pipeline_options *options);

/** Commits what has gathered and runs the loop until that is durable and those who waited for it
 * were told, or for grace_ms. */
void pipeline_drain(struct pipeline *p, unsigned grace_ms);

/** Drains once more and ends the worker. What is counted can still be read. */
void pipeline_stop(struct pipeline *p, unsigned grace_ms);
void pipeline_free(struct pipeline *p);

struct runs *pipeline_runs(struct pipeline *p);

/** Whether reading must pause. */
bool pipeline_is_full(const struct pipeline *p);

/** Events were fed: commits now or arranges for it. */
void pipeline_fed(struct pipeline *p);

/** flushed() is called for the waiter once everything fed so far is durable. 0 or -ENOMEM. Many
 * who wait fill the pipeline, too. */
int pipeline_flush(struct pipeline *p, void *waiter, uint64_t token);

/** The waiter is gone. */
void pipeline_forget(struct pipeline *p, const void *waiter);

/** Whether somebody waits for a flush. */
bool pipeline_is_awaited(const struct pipeline *p);

/** Around feeding events: what another thread reads of the metrics holds still. */
void pipeline_lock(struct pipeline *p);
void pipeline_unlock(struct pipeline *p);

/** Appends what the agents did, as Prometheus text. Any thread. */
void pipeline_write_metrics(struct pipeline *p, struct buf *out);

/** Writes all that /metrics tells as an ExportMetricsServiceRequest into out (cleared first), in
 * the name of the configured service. Returns how many data points it has. Any thread. */
size_t pipeline_write_otlp_metrics(struct pipeline *p, struct buf *out);

/** Whether the store takes events; else why not. Any thread. */
bool pipeline_is_ready(struct pipeline *p, char *reason, unsigned size);
