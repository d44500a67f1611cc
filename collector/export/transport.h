/* transport.h - one POST to one endpoint over HTTP/1.1 or HTTP/2, and what came back.
 *
 * Only it and its transport_*.c know curl, but for the endpoint's URL. Belongs to one thread; one
 * request at a time, its connection kept for the next. No redirect is followed, no answer
 * decompressed, and none read past CAP_EXPORT_RESPONSE. The abort descriptor ends a request at
 * once, wherever it is.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "config.h"
#include "export/answer.h"
#include "export/endpoint.h"
#include "export/sink.h"

struct transport;

enum transport_failure {
	TRANSPORT_DONE, // an answer came, to its end
	TRANSPORT_ABORTED,
	TRANSPORT_TIMED_OUT,
	TRANSPORT_ANSWER_TOO_LONG,
	TRANSPORT_RESET,  // HTTP/2: the stream was, with http2_error
	TRANSPORT_BROKEN, // anything else
};

/* Since the request began; 0 where it did not come so far. */
struct transport_times {
	uint64_t resolved_ns, connected_ns, tls_ns, total_ns;
};

struct transport_result {
	enum transport_failure failure;
	struct answer answer; // as far as it came; borrowed until the next request
	bool sent;            // the whole request
	bool reached;         // somebody took the connection, whatever came of it
	uint32_t http2_error;
	const char *message; // what failed, for a person; borrowed likewise
	const char *hint;    // what to look at; never NULL
	struct transport_times times;
	const char *peer; // the address connected to; "" for none
	uint16_t peer_port;
};

/* A body in two parts, so that a head needs no copy of what follows. */
struct transport_body {
	struct str head, rest;
	bool gzip; // says so in Content-Encoding
};

/** -ENOMEM, -EINVAL (a header that is none), or what reading a TLS file says. All is borrowed until
 * close. */
MUST_CHECK int transport_open(struct transport **ret, const struct exporter_config *config,
                              const struct endpoint *endpoint, const struct sink_host *host);

/** NULL is fine. */
void transport_close(struct transport *t);

void transport_post(struct transport *t, const struct transport_body *body,
                    struct transport_result *ret);

/** The next request, and only that, makes a connection of its own. */
void transport_be_fresh(struct transport *t);

/** Gives memory back: there is nothing to send now. */
void transport_rest(struct transport *t);
