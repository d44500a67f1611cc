/* usage.h - token counts in one form, whatever the provider calls them.
 *
 * Totals are inclusive: input holds what was read from and written to a cache, output holds the
 * reasoning. A provider that leaves them out of its totals is added up. What was not said is
 * USAGE_UNKNOWN, never 0.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

#define USAGE_UNKNOWN (-1)

/* X(count). total: as said, else input + output where one is known. The write to a cache is there
 * again by how long it is kept. */
#define USAGE_COUNTS(X)                                                                            \
	X(input)                                                                                   \
	X(output)                                                                                  \
	X(total)                                                                                   \
	X(cache_read)                                                                              \
	X(cache_write)                                                                             \
	X(cache_write_5m)                                                                          \
	X(cache_write_1h)                                                                          \
	X(reasoning)                                                                               \
	X(audio_input)                                                                             \
	X(audio_output)

struct usage {
#define X(count) int64_t count;
	USAGE_COUNTS(X)
#undef X
	bool estimated; // by the client, for want of the provider's word
};

void usage_init(struct usage *u);

/** Whether any count is known. */
bool usage_is_known(const struct usage *u);

/** Input and output, as far as they are known. */
int64_t usage_sum(const struct usage *u);

/** Reads a provider's own map, validated msgpack. Counts that are no non-negative integer, or
 * past 2^53, are ignored; a list of counts is summed. A map that tells the same usage in several
 * ways is counted once. */
void usage_read(struct usage *ret, struct str map);

/** Adds what is known of u to sum. */
void usage_add(struct usage *sum, const struct usage *u);
