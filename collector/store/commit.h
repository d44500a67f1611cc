/* commit.h - the commit worker: the one thread that writes.
 *
 * It takes a batch and commits it as one transaction, fdatasync included, together with what the
 * exporters have noted since. Retention runs here too, in the same transactions.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct batch;
struct store;

/** Called on the worker's thread when a batch is durable (error 0), or could not be written and
 * nothing of it was. The batch belongs to the loop again. -ENOSPC: try again later. -E2BIG: it will
 * never fit. -EIO: a sync failed, and from then on each commit does, until the store is opened
 * anew. */
typedef void commit_done_fn(void *ctx, int error);

MUST_CHECK int commit_start(struct store *s, commit_done_fn *done, void *ctx);

/** Hands a batch over; one at a time: not before the last one came back. A batch that came back
 * with an error may be handed over again. Changes of open runs apply in the order in which they
 * were made. */
void commit_submit(struct store *s, struct batch *b);

/** Waits for the batch under way, writes what exporters noted, ends the thread. */
void commit_stop(struct store *s);
