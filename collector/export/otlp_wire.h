/* otlp_wire.h - one OTLP destination for one signal: takes a request's protobuf, brings it there
 * in the configured protocol, and judges what came back.
 *
 * Belongs to one thread. One try at a time; what a server sends is bounded by CAP_EXPORT_RESPONSE,
 * and no redirect is followed. It learns how large a request may be from 413s, gRPC's "larger than
 * max" and timeouts.
 */
#pragma once

#include <stddef.h>

#include "base/buf.h"
#include "base/signals.h"
#include "export/sink.h"

struct otlp_wire;

/** -ENOMEM, -EINVAL (an endpoint that is no URL), -ENOENT or -EACCES (a TLS file). config and host
 * are borrowed until close. */
MUST_CHECK int otlp_wire_open(struct otlp_wire **ret, const struct exporter_config *config,
                              enum otlp_signal signal, const struct sink_host *host);

/** NULL is fine. */
void otlp_wire_close(struct otlp_wire *w);

/** One try at an encoded Export…ServiceRequest with ret->taken items (spans, log records or data
 * points) in it. Sets the rest of *ret. */
void otlp_wire_send(struct otlp_wire *w, struct str request, struct outcome_report *ret);

/** Bytes of protobuf that a request of more than one item may have. */
size_t otlp_wire_max_bytes(const struct otlp_wire *w);

/** Gives memory back: there is nothing to send now. */
void otlp_wire_rest(struct otlp_wire *w);

/* --- trying it out --- */

enum probe_stage { PROBE_RESOLVE, PROBE_CONNECT, PROBE_TLS, PROBE_REQUEST, PROBE_STAGES };

/* What one step of a probe came to. A stage that the endpoint doesn't have, or that was not
 * reached, is not done. */
struct probe_step {
	bool done, ok;
	uint64_t took_ns;
	char message[256]; // what was found, for a person: an address, a TLS version, an answer
	const char *hint;  // what to do about it; "" when ok
};

struct probe {
	char address[256]; // where to, without credentials
	struct probe_step steps[PROBE_STAGES];
};

/** Resolves, connects, shakes hands and sends one empty request, over a new connection. */
void otlp_wire_probe(struct otlp_wire *w, struct probe *ret);
