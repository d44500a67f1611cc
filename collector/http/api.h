/* api.h - the JSON answers, made from the store alone.
 *
 * The HTTP server and the command-line tool without a daemon call the same functions. Each writes
 * one whole JSON document to out. No HTTP in here.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

struct store;

struct api_query {
	uint64_t since_ns; // unix: what runs, or ended since then; 0: everything
	unsigned limit;    // 1 to 1000
	uint64_t cursor;   // what the last answer's "next" said; 0: from the newest (spans: oldest)
	unsigned statuses; // bits 1 << enum run_status; 0: all
};

/** {"traces": […], "next": cursor|null}: running roots first, then finished, newest first, at most
 * limit of each; a page with a cursor has finished ones only. */
int api_traces(struct store *s, const struct api_query *q, uint64_t now_ns, struct buf *out);

/** {"trace": {…}, "spans": […]}: flat, parents first, siblings by start time. id is 32 hex digits,
 * a unique prefix of at least 6 of them, or "last" (the newest that finished or is running).
 * -ENOENT, -EINVAL (no such form), -EEXIST (an ambiguous prefix). */
int api_trace(struct store *s, struct str id, uint64_t now_ns, struct buf *out);

/** {"observations": […], "next": …}, newest first. */
int api_observations(struct store *s, const struct api_query *q, struct buf *out);

/** {"spans": […], "next": …}, oldest first, the running ones not among them. */
int api_spans(struct store *s, const struct api_query *q, struct buf *out);

/** "10s", "5m", "1h", "2d" before now, an RFC 3339 time, or unix seconds, as unix ns; false: none
 * of these. */
bool api_since(struct str text, uint64_t now_ns, uint64_t *ret_ns);
