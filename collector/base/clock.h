/* clock.h - the only place that reads a clock. */
#pragma once

#include <stdint.h>

#define NS_PER_US 1000ull
#define NS_PER_MS 1000000ull
#define NS_PER_S 1000000000ull

/** Wall time, ns since 1970 UTC. */
uint64_t clock_unix_ns(void);

/** CLOCK_MONOTONIC, ns: for intervals and deadlines. */
uint64_t clock_mono_ns(void);
