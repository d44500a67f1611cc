/* http.h - the HTTP server: metrics, health, the JSON API, on TCP loopback and a Unix socket.
 *
 * It runs in threads of its own and reads the store and the statistics only. Every request has an
 * absolute deadline, and every size a bound.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/stats.h"

struct http;
struct store;

struct http_options {
	const char *host; // NULL: no TCP
	uint16_t port;    // 0: any free one
	const char *socket_path;
	unsigned socket_mode;
	const char *socket_group; // NULL: none
	struct store *store;
	struct stats *stats;
	/** Appends the request metrics (core/metrics) in Prometheus text form. Thread-safe. */
	void (*write_metrics)(void *ctx, struct buf *out);
	/** Whether events can be taken; else writes why into reason. Thread-safe. */
	bool (*is_ready)(void *ctx, char *reason, unsigned size);
	/** Appends what `sidelight check` shows, as JSON. Thread-safe. */
	int (*write_check)(void *ctx, struct buf *out);
	void *ctx;
};

/** Both listeners are bound when it returns. The strings are copied. */
MUST_CHECK int http_start(struct http **ret, const struct http_options *options);

/** The TCP port that is listened on; 0 without TCP. */
uint16_t http_port(const struct http *h);

void http_stop(struct http *h);
