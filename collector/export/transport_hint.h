/* transport_hint.h - what a person should look at when a request failed. */
#pragma once

#include <stdbool.h>

#include <curl/curl.h>

#include "export/endpoint.h"

/** `words` is what curl said. Never NULL; "" where there is nothing to add. */
const char *transport_hint(CURLcode code, const char *words, const struct endpoint *endpoint,
                           bool grpc);
