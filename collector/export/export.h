/* export.h - the exporters: one thread each, each a cursor over the log.
 *
 * An exporter reads a chunk, sends it, and only then moves its cursor: at-least-once. One that is
 * dead, slow or hostile costs the others and the ingest loop nothing.
 */
#pragma once

#include <stdint.h>

#include "base/err.h"
#include "base/stats.h"
#include "config.h"

struct exporters;
struct store;

/** Starts one thread for each configured exporter, each from its saved cursor. */
MUST_CHECK int exporters_start(struct exporters **ret, const struct config *config,
                               struct store *store, struct stats *stats);

/** New spans are durable. Thread-safe, never blocks. */
void exporters_notify(struct exporters *x);

/** Gives each up to grace_ns to deliver what is stored, then ends them all; what is undelivered
 * stays in the store. Frees x. NULL is fine. */
void exporters_stop(struct exporters *x, uint64_t grace_ns);
