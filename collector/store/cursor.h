/* cursor.h - the exporters' places in the logs, and what became of the records before them.
 *
 * A cursor and its ledger are one value, written together with the batches: after a crash they
 * still agree. delivered + rejected + evicted is what lies between where it began and seq.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "store/store.h"

enum { CURSOR_REASONS = 64 }; // room for enum rejection to grow
_Static_assert((int)REJECTION_COUNT <= (int)CURSOR_REASONS, "each reason has its place");

/* As it is stored, in this machine's byte order. Fields are only ever added at the end. */
struct cursor {
	uint64_t seq;      // the record to read next
	uint64_t since_ns; // unix, when it began; 0: not known
	uint64_t delivered, rejected, evicted;
	uint64_t refused;                     // starts of runs, while it held a full store
	uint64_t rejected_by[CURSOR_REASONS]; // by enum rejection; they add up to rejected
};

/** The cursor saved under a name, which is an exporter's, or its and a signal's. A new name starts
 * at the end of the log, or at its beginning, and is noted at once. From now on it counts among
 * those that a store with keep_undelivered waits for. */
MUST_CHECK int cursor_open(struct store *s, const char *name, enum which_log which,
                           bool from_beginning, struct cursor *ret);

/** Notes that everything before c->seq is settled. Thread-safe, never blocks; durable with the next
 * commit, at the latest a second later. */
void cursor_note(struct store *s, const char *name, const struct cursor *c);

/** Its exporter is gone: the place is kept, and nothing is kept in the log for it. */
void cursor_close(struct store *s, const char *name);

/** Every saved cursor, by name, as it was noted last. fn returns false to stop. */
typedef bool cursor_fn(void *ctx, const char *name, const struct cursor *c);
int cursor_each(struct store *s, cursor_fn *fn, void *ctx);
