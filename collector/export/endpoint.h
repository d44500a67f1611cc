/* endpoint.h - a configured endpoint, as what a request needs: where to connect, what to ask for,
 * and what a person may read.
 *
 * http and https URLs are bases to which OTLP's path of the signal is appended (gRPC: the service's
 * path replaces any); unix:///path/to.sock is a socket, spoken to without TLS.
 */
#pragma once

#include <stdbool.h>

#include "base/err.h"
#include "base/signals.h"
#include "config.h"

struct endpoint {
	char *url;        // to post to; with credentials, if it has them: never logged
	char *address;    // without: for people
	char *socket;     // the Unix socket to connect to; NULL: what the URL says
	char *connect_to; // curl's, where the URL's host is tls.server_name; else NULL
	bool tls;
};

/** -ENOMEM, or -EINVAL for what is no URL of these kinds. On failure *ret is empty. */
MUST_CHECK int endpoint_init(struct endpoint *ret, const struct exporter_config *config,
                             enum otlp_signal signal);
void endpoint_deinit(struct endpoint *e);
