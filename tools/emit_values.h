/* emit_values.h - what emit's arguments say. Each says on stderr what is wrong with one. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sidelight.h"

enum { EMIT_PAIRS_MAX = 63 };

struct emit_pairs {
	struct sidelight_attr list[EMIT_PAIRS_MAX];
	size_t count;
};

/** "350ms", "1.5s", "2m". */
bool emit_duration(const char *text, uint64_t *ret_ns);

/** "5m" ago, unix seconds or an RFC 3339 time. */
bool emit_time(const char *text, uint64_t *ret_unix_ns);

/** A run id as this tool prints it and as the protocol takes it; a trace id's 32 digits, too. */
bool emit_run(const char *text, struct sidelight_run *ret);

/** Adds "KEY=VALUE", or "KEY:=VALUE" with a number or truth value; is_count: KEY=COUNT. text is
 * taken apart in place and stays in use. */
bool emit_pair(struct emit_pairs *p, const char *flag, char *text, bool is_count);
