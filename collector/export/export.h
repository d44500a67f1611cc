/* export.h - the exporters: each a thread for every signal it sends, each a cursor over a log.
 *
 * An exporter reads a chunk, sends it, and only then moves its cursor: at-least-once. One that is
 * dead, slow or hostile costs the others and the ingest loop nothing. They can be changed while
 * running; one whose configuration stays the same goes on undisturbed.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/stats.h"
#include "config.h"

struct exporters;
struct store;

/* Where what is exported comes from; borrowed until exporters_stop(). */
struct exporters_source {
	struct store *store;
	struct stats *stats;
	/* Appends an ExportMetricsServiceRequest and returns its data points. Any thread. */
	size_t (*write_metrics)(void *ctx, struct buf *out);
	void *ctx;
};

/** None yet. */
MUST_CHECK int exporters_new(struct exporters **ret, const struct exporters_source *source);

/* What exporters_change() did. */
struct exporters_change {
	unsigned kept, started, stopped;
	char failed[64]; // the name of one that could not be started; "": all could
};

/** Makes them those of the list: starts what is new or has changed, from the cursor of its name,
 * stops what is not there any more, and leaves the others alone. Takes the elements of the list,
 * which are left empty. Goes on past one that can't be started, and returns its error. Not the
 * loop's thread while running: stopping one waits for its threads. One call at a time. */
MUST_CHECK int exporters_change(struct exporters *x, struct exporter_config *list, size_t count,
                                struct exporters_change *ret);

/** New records are durable. Thread-safe, does not block. */
void exporters_notify(struct exporters *x);

/** Starts of runs were refused since the store is held by those whose cursor is before seq: counts
 * them there. Thread-safe, does not block. */
void exporters_count_refused(struct exporters *x, uint64_t before_seq, uint64_t starts);

/** Appends what a check of all exporters has come to so far (check.h); begins a new one when the
 * last is over for a second. held_back: check_write()'s. Thread-safe, does not wait for a backend.
 */
int exporters_check(struct exporters *x, const char *held_back, struct buf *out);

/** Gives each up to grace_ns to deliver what is stored, then ends them all; what is undelivered
 * stays in the store. Frees x. NULL is fine. */
void exporters_stop(struct exporters *x, uint64_t grace_ns);
