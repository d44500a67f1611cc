/* source.h - where the answers come from: a collector over HTTP, or its files.
 *
 * A URL that is given is the only place asked. Else the running collector is asked over its API
 * socket, and the files are read only when none runs; not when the user named the socket and no
 * directory, lest a slip of the pen show another collector's. Both give the same JSON.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

struct source;

/* Each NULL where the command line says nothing. */
struct source_options {
	const char *url, *socket, *data;
	const char *config; // ENDPOINT_CHECK, without a collector
};

enum endpoint {
	ENDPOINT_TRACES,
	ENDPOINT_TRACE,
	ENDPOINT_OBSERVATIONS,
	ENDPOINT_SPANS,
	ENDPOINT_CHECK
};

struct request {
	enum endpoint endpoint;
	const char *id;    // of ENDPOINT_TRACE: hex digits or "last"
	uint64_t since_ns; // unix; 0: everything
	unsigned statuses; // bits 1 << enum run_status; 0: all
	unsigned limit;    // of a page, 1 to 1000
	uint64_t cursor;   // 0: from the beginning
};

/** Finds one. On failure it has already said why on stderr. */
MUST_CHECK int source_open(struct source **ret, const struct source_options *options);
void source_close(struct source *s);

/** The directory that is read, or NULL when a collector answers. */
const char *source_files(const struct source *s);

/** Replaces out by one JSON document. -ENOENT when there is no such trace, -EEXIST when the id is
 * ambiguous; on every other failure it has already said why on stderr. */
MUST_CHECK int source_get(struct source *s, const struct request *r, struct buf *out);
