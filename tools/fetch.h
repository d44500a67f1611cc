/* fetch.h - HTTP GET from a collector, over TCP or its Unix socket.
 *
 * One connection, kept open between requests. Every request is bounded in time and in size.
 * Redirects and proxies are not followed: a collector is near.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"

struct fetch;

/** base is a URL; socket NULL reaches it by TCP. -ENOMEM. */
MUST_CHECK int fetch_open(struct fetch **ret, const char *base, const char *socket);
void fetch_close(struct fetch *f);

/** GETs base + path into out (cleared first). 0 with the HTTP status, whatever it is; -ECONNREFUSED
 * and -ENOENT when nobody listens there, or another error, with fetch_error() in words. */
MUST_CHECK int fetch_get(struct fetch *f, const char *path, struct buf *out, long *ret_status);

/** What went wrong last; never NULL. */
const char *fetch_error(const struct fetch *f);
