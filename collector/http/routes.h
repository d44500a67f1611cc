/* routes.h - from a request to its answer.
 *
 * Nothing here knows the HTTP library, a socket or a clock of its own: what a request says comes
 * in, and what is to be answered goes out.
 */
#pragma once

#include <stdbool.h>

#include "base/buf.h"
#include "base/str.h"
#include "http/http.h"

enum { MAX_QUERY = 8 };

struct query_pair {
	struct str key, value; // decoded; borrowed. value.p NULL: it has none
};

struct query {
	struct query_pair pairs[MAX_QUERY];
	unsigned count; // may be more than fit: those were left out
};

struct answer {
	unsigned status;
	const char *type;  // Content-Type
	const char *allow; // Allow, or NULL
	struct buf body;
};

/** An answer with an empty body. */
void answer_init(struct answer *a);
void answer_deinit(struct answer *a);

/** Replaces the answer by {"error": {"code", "message"}}. */
void answer_error(struct answer *a, unsigned status, const char *code, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/** Answers a GET. */
void route(struct answer *a, const struct http_options *o, const char *path, const struct query *q,
           uint64_t now_ns);

/** Whether a Host header names this machine's loopback or the address that was configured, at any
 * port: a page from elsewhere that had its name rebound to us does not. Any host is right when we
 * listen on every address, since then no name can be known. */
bool host_is_allowed(struct str host, const char *listen_host);
