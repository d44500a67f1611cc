/* check.h - tries exporters for real, and says what the store holds, how far each exporter is and
 * what was ever lost.
 *
 * A check is one try at each exporter and signal, several at once, in threads and over connections
 * of its own: what is being delivered is not disturbed. The collector and the tool without one use
 * it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"
#include "config.h"

struct check;
struct store;

/** Begins to try them. Copies what it needs of the list. */
MUST_CHECK int check_start(struct check **ret, const struct exporter_config *const *list,
                           size_t count);

/** Whether all have been tried, and when that was (mono). Any thread. */
bool check_is_done(struct check *c, uint64_t *ret_when_ns);

/** Waits until all have been tried. */
void check_wait(struct check *c);

/** Cuts off what is under way. NULL is fine. */
void check_free(struct check *c);

/** Appends one JSON object:
 *   running             whether tries are still to come
 *   exporters[]         name type tries[{signal address ok stages[{stage ok took_ms message
 * hint}]}] cursors[]           name since delivered rejected rejected_by{} evicted refused pending
 *   store               bytes limit_bytes spans observations held_back
 *   lost                {reason: count}
 * held_back: why the store takes no events, or no new runs; "": it does. Any thread. */
int check_write(struct check *c, struct store *s, const char *held_back, struct buf *out);
