/* transport_headers.h - the header lines of an exporter's requests, as curl wants them. */
#pragma once

#include <stdbool.h>

#include <curl/curl.h>

#include "base/err.h"
#include "config.h"

/** Appends a line to the list, which may be NULL and is curl's to free. -ENOMEM. */
MUST_CHECK int transport_headers_add(struct curl_slist **list, const char *line);

/** Those of the protocol, then the configured ones; `gzip`: of a request with such a body. -ENOMEM,
 * -EINVAL (a configured one is none). */
MUST_CHECK int transport_headers_make(struct curl_slist **list,
                                      const struct exporter_config *config, bool gzip);
