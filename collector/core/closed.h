/* closed.h - the runs that ended lately, so that a late duplicate makes no second span.
 *
 * Remembered for a minute and at most CAP_CLOSED_RUNS of them: the oldest is forgotten first.
 * A late child finds its parent's trace here.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/caps.h"

#define CLOSED_REMEMBERED_NS (60ull * 1000000000ull)

struct closed_run {
	uint8_t span_id[8]; // the run's id, hashed: unique enough for a minute
	uint8_t trace_id[16];
	uint8_t request[3]; // as in struct record_head
	uint64_t when_ns;   // mono
};

struct closed;

/** NULL when out of memory. */
struct closed *closed_new(void);
void closed_free(struct closed *c);

void closed_add(struct closed *c, const uint8_t span_id[8], const uint8_t trace_id[16],
                const uint8_t request[3], uint64_t now_ns);

/** NULL if it is not remembered. Borrowed until the next closed_add(). */
const struct closed_run *closed_get(const struct closed *c, const uint8_t span_id[8],
                                    uint64_t now_ns);
