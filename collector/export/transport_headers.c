#include "export/transport_headers.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"

int transport_headers_add(struct curl_slist **list, const char *line)
{
	struct curl_slist *longer = curl_slist_append(*list, line);

	if (!longer)
		return -ENOMEM;
	*list = longer;
	return 0;
}

static int add_pair(struct curl_slist **list, const struct config_pair *pair)
{
	char *line = NULL;

	if (strpbrk(pair->key, "\r\n:") || strpbrk(pair->value, "\r\n"))
		return -EINVAL;
	// curl's way to send a header without a value.
	int n = *pair->value ? asprintf(&line, "%s: %s", pair->key, pair->value)
	                     : asprintf(&line, "%s;", pair->key);

	if (n < 0)
		return -ENOMEM;
	int err = transport_headers_add(list, line);
	free(line);
	return err;
}

static int add_grpc_lines(struct curl_slist **list, const struct exporter_config *config)
{
	char timeout[48];

	// At most eight digits: milliseconds, as far as timeouts go.
	snprintf(timeout, sizeof(timeout), "grpc-timeout: %llum",
	         (unsigned long long)(config->timeout_ns / NS_PER_MS));
	int err = transport_headers_add(list, "content-type: application/grpc");
	if (!err)
		err = transport_headers_add(list, "te: trailers");
	if (!err)
		err = transport_headers_add(list, "grpc-accept-encoding: identity");
	if (!err)
		err = transport_headers_add(list, timeout);
	if (!err && config->compression == COMPRESSION_GZIP)
		err = transport_headers_add(
			list, "grpc-encoding: gzip"); // each message says whether it is
	return err;
}

static int add_own_lines(struct curl_slist **list, const struct exporter_config *config)
{
	switch (config->protocol) {
	case OTLP_GRPC:
		return add_grpc_lines(list, config);
	case OTLP_HTTP_JSON:
		return transport_headers_add(list, "Content-Type: application/json");
	default:
		return transport_headers_add(list, "Content-Type: application/x-protobuf");
	}
}

int transport_headers_make(struct curl_slist **list, const struct exporter_config *config,
                           bool gzip)
{
	int err = add_own_lines(list, config);

	if (!err)
		err = transport_headers_add(list, "Expect:"); // else curl waits a second for a 100
	if (!err && gzip && config->protocol != OTLP_GRPC)
		err = transport_headers_add(list, "Content-Encoding: gzip");
	for (size_t i = 0; i < config->header_count && !err; i++)
		if (strcasecmp(config->headers[i].key, "content-type") != 0)
			err = add_pair(list, &config->headers[i]);
	return err;
}
