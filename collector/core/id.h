/* id.h - run, span and trace ids, as docs/protocol.md derives them.
 *
 * No id is ever all zero.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

struct run_id {
	uint8_t b[16];
};

/** hash64 of docs/protocol.md: never 0. */
uint64_t id_hash64(uint64_t seed, const void *bytes, size_t len);

/** A run's span id, 8 bytes big-endian. */
void span_id_of(uint8_t ret[8], const struct run_id *run);

/** A run id from its text: a UUID's bytes (which may be all zero), else hashed. */
void run_id_of_text(struct run_id *ret, struct str text);

/** Parses a W3C traceparent (version 00 or higher). False if it is malformed. */
bool traceparent_parse(struct str text, uint8_t ret_trace_id[16], uint8_t ret_parent_id[8],
                       uint8_t *ret_flags);
