/* retry.h - when to try again. Pure.
 *
 * The delay grows from RETRY_FIRST_NS by doubling and stays at RETRY_MAX_NS, short enough that
 * a backend's recovery is seen within seconds: a try every few seconds costs it nothing.
 */
#pragma once

#include <stdint.h>

#include "base/clock.h"
#include "base/str.h"

#define RETRY_LEAST_NS (50 * NS_PER_MS)  // never closer than this
#define RETRY_FIRST_NS (100 * NS_PER_MS) // at most, after the first failure
#define RETRY_MAX_NS (5 * NS_PER_S)
#define RETRY_AFTER_MAX_NS (300 * NS_PER_S) // no server parks us for longer

struct retry {
	unsigned failures; // in a row
};

/** Notes a failure and returns how long to wait: what the server asked for (retry_after_ns, 0 when
 * it did not) and up to a tenth more, else a random time up to the current bound. random: any 32
 * bits. */
uint64_t retry_failed(struct retry *r, uint64_t retry_after_ns, uint32_t random);

/** Notes a success. */
void retry_succeeded(struct retry *r);

/** What a Retry-After asks for, in seconds or as a date; at most RETRY_AFTER_MAX_NS, and 0 for what
 * is past, negative or neither. */
uint64_t retry_after_ns(struct str value, uint64_t now_unix_ns);
