#include "export/retry.h"

enum { MAX_DOUBLINGS = 16 };

static uint64_t scale(uint64_t v, uint32_t random)
{
	return (uint64_t)((double)v * ((double)random / 4294967296.0));
}

uint64_t retry_failed(struct retry *r, uint64_t retry_after_ns, uint32_t random)
{
	unsigned doublings = r->failures < MAX_DOUBLINGS ? r->failures : MAX_DOUBLINGS;
	uint64_t bound = RETRY_FIRST_NS << doublings;

	r->failures++;
	if (retry_after_ns) {
		if (retry_after_ns > RETRY_AFTER_MAX_NS)
			retry_after_ns = RETRY_AFTER_MAX_NS;
		return retry_after_ns + scale(retry_after_ns / 10, random);
	}
	if (bound > RETRY_MAX_NS)
		bound = RETRY_MAX_NS;
	return RETRY_LEAST_NS + scale(bound - RETRY_LEAST_NS, random);
}

void retry_succeeded(struct retry *r)
{
	r->failures = 0;
}

enum http_verdict http_verdict(long status)
{
	switch (status) {
	case 429:
	case 502:
	case 503:
	case 504:
		return HTTP_RETRYABLE;
	case 413:
		return HTTP_TOO_LARGE;
	default:
		return status >= 200 && status < 300 ? HTTP_ACCEPTED : HTTP_REFUSED;
	}
}

enum rejection http_rejection(long status)
{
	switch (status) {
	case 400:
		return REJECTED_HTTP_400;
	case 401:
		return REJECTED_HTTP_401;
	case 403:
		return REJECTED_HTTP_403;
	case 404:
		return REJECTED_HTTP_404;
	case 405:
		return REJECTED_HTTP_405;
	case 413:
		return REJECTED_HTTP_413;
	case 415:
		return REJECTED_HTTP_415;
	case 422:
		return REJECTED_HTTP_422;
	case 500:
		return REJECTED_HTTP_500;
	default:
		return REJECTED_HTTP_OTHER;
	}
}

const char *http_hint(long status)
{
	switch (status) {
	case 401:
	case 403:
		return "check the exporter's headers (Authorization?)";
	case 404:
	case 405:
		return "the endpoint must be a base URL, to which /v1/traces is appended";
	case 413:
		return "a single span is over the backend's limit: lower capture.max_value";
	case 415:
		return "the backend must accept OTLP over HTTP as protobuf";
	default:
		return status >= 300 && status < 400
		               ? "redirects are not followed: configure the final endpoint"
		               : "";
	}
}
